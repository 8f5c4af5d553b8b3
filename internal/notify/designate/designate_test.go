package designate_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/notify"
	"isospin/internal/notify/cloud/cloudtest"
	"isospin/internal/notify/designate"
)

var _ notify.Consumer[designate.Change] = (*designate.Consumer)(nil)

type set struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
}

// service is a DNS service: zones by name with their projects, and recordsets.
type service struct {
	mu    sync.Mutex
	zones map[string]string // name → project
	sets  map[string]set    // id
	next  int
	// away: it answers 503.
	away bool
}

func (s *service) answer(r cloudtest.Request) (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return http.StatusServiceUnavailable, ""
	}
	u, err := url.Parse(r.Path)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	project := r.Header.Get("X-Auth-Sudo-Project-Id")
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	reply := func(status int, v any) (int, string) {
		raw, _ := json.Marshal(v)
		return status, string(raw)
	}
	switch {
	case r.Method == "GET" && len(parts) == 2:
		name := u.Query().Get("name")
		zones := []map[string]string{}
		if owner, ok := s.zones[name]; ok && (owner == project || r.Header.Get("X-Auth-All-Projects") != "") {
			zones = append(zones, map[string]string{"id": "zone-" + name, "name": name})
		}
		return reply(http.StatusOK, map[string]any{"zones": zones})
	case r.Method == "POST" && len(parts) == 2:
		var z struct{ Name, Email string }
		_ = json.Unmarshal([]byte(r.Body), &z)
		s.zones[z.Name] = project
		return reply(http.StatusCreated, z)
	case r.Method == "GET" && len(parts) == 4:
		list := []set{}
		for _, id := range slices.Sorted(maps.Keys(s.sets)) {
			if s.sets[id].Name == u.Query().Get("name") {
				list = append(list, s.sets[id])
			}
		}
		return reply(http.StatusOK, map[string]any{"recordsets": list})
	case r.Method == "POST" && len(parts) == 4:
		var n set
		_ = json.Unmarshal([]byte(r.Body), &n)
		for _, have := range s.sets {
			if have.Name == n.Name && have.Type == n.Type {
				return http.StatusConflict, "duplicate"
			}
		}
		s.next++
		n.ID = fmt.Sprintf("set-%03d", s.next)
		s.sets[n.ID] = n
		return reply(http.StatusAccepted, n)
	case r.Method == "DELETE" && len(parts) == 5:
		delete(s.sets, parts[4])
		return http.StatusAccepted, "{}"
	}
	return http.StatusNotFound, ""
}

type world struct {
	*cloudtest.World
	t       *testing.T
	dns     *service
	cloud   *cloudtest.Cloud
	project *exttest.Client
	admin   *exttest.Client
}

func newWorld(t *testing.T) *world {
	dns := &service{zones: map[string]string{"example.org.": "p1", "other.org.": "p2"}, sets: map[string]set{}}
	c := cloudtest.New(t, "dns", dns.answer)
	w := &world{t: t, dns: dns, cloud: c, World: cloudtest.NewWorld(t, "[DEFAULT]\nhttp_retries = 0\ndns_domain = cloud.example\nexternal_dns_driver = designate\n"+c.Config("designate"))}
	w.project, w.admin = w.As("p1"), w.Admin()
	w.run()
	return w
}

func (w *world) run() func() {
	c, err := designate.New(designate.Options{Config: w.Config, Networks: w.Networks, Subnets: w.Subnets, Ports: w.Ports, Logger: w.Logger})
	if err != nil {
		w.t.Fatal(err)
	}
	return cloudtest.Run(w.World, w.Options("one"), c)
}

// holds compares the DNS service with what it must have, once all was followed.
func (w *world) holds(want ...string) {
	w.t.Helper()
	w.Reached("designate", w.Rows(1, "SELECT MAX(seq) FROM event WHERE kind IN ('port', 'floatingip')")[0][0].(int64))
	w.dns.mu.Lock()
	defer w.dns.mu.Unlock()
	have := []string{}
	for _, s := range w.dns.sets {
		have = append(have, fmt.Sprintf("%s %s %v", s.Name, s.Type, s.Records))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		w.t.Errorf("the DNS service has\n  %s\nwant\n  %s", strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}

// Names of a port on a network whose addresses are to be published.
func TestPort(t *testing.T) {
	w := newWorld(t)
	network := w.project.Create("network", `{"dns_domain": "example.org."}`).ID()
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "dns_publish_fixed_ip": true}`, network)
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8::/64", "dns_publish_fixed_ip": true}`, network)
	id := w.project.Create("port", `{"network_id": %q, "dns_name": "web", "fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "2001:db8::5"}]}`, network).ID()
	six := "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR "
	w.holds("web.example.org. A [10.0.0.5]", "web.example.org. AAAA [2001:db8::5]", "5.0.0.10.in-addr.arpa. PTR [web.example.org.]", six+"[web.example.org.]")
	w.project.Update("port", id, `{"fixed_ips": [{"ip_address": "10.0.0.6"}]}`)
	w.holds("web.example.org. A [10.0.0.6]", "6.0.0.10.in-addr.arpa. PTR [web.example.org.]")
	w.project.Update("port", id, `{"name": "nothing of it"}`)
	// Zones of other projects are not theirs to write to: nothing comes, and nothing stops.
	w.project.Update("port", id, `{"dns_domain": "other.org."}`)
	w.holds()
	w.project.Update("port", id, `{"dns_domain": ""}`)
	w.holds("web.example.org. A [10.0.0.6]", "6.0.0.10.in-addr.arpa. PTR [web.example.org.]")
	second := w.project.Create("port", `{"network_id": %q, "dns_name": "web", "fixed_ips": [{"ip_address": "10.0.0.7"}]}`, network).ID()
	w.holds("web.example.org. A [10.0.0.6]", "6.0.0.10.in-addr.arpa. PTR [web.example.org.]")
	w.project.Delete("port", second)
	w.holds("web.example.org. A [10.0.0.6]", "6.0.0.10.in-addr.arpa. PTR [web.example.org.]")
	w.project.Delete("port", id)
	w.holds()
}

func TestFloatingIP(t *testing.T) {
	w := newWorld(t)
	out := w.admin.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}`, out)
	router := w.project.Create("router", `{"external_gateway_info": {"network_id": %q}}`, out).ID()
	network := w.project.Create("network", `{"dns_domain": "example.org."}`).ID()
	subnet := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, network).ID()
	w.project.Act("router", router, "add_router_interface", `{"subnet_id": %q}`, subnet)
	p := w.project.Create("port", `{"network_id": %q, "dns_name": "vm"}`, network).ID()
	w.project.Create("port", `{"network_id": %q}`, network)
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, out, p)
	address := f.Text("floating_ip_address")
	arpa := address[strings.LastIndex(address, ".")+1:] + ".113.0.203.in-addr.arpa. PTR "
	w.holds("vm.example.org. A ["+address+"]", arpa+"[vm.example.org.]")
	w.project.Update("floatingip", f.ID(), `{"port_id": null}`)
	w.holds()
	w.project.Delete("floatingip", f.ID())
	f = w.project.Create("floatingip", `{"floating_network_id": %q, "dns_name": "own", "dns_domain": "example.org.", "port_id": %q}`, out, p)
	address = f.Text("floating_ip_address")
	arpa = address[strings.LastIndex(address, ".")+1:] + ".113.0.203.in-addr.arpa. PTR "
	w.holds("own.example.org. A ["+address+"]", arpa+"[own.example.org.]")
	w.project.Delete("floatingip", f.ID())
	w.holds()
}

// The service is away: names come when it is back; a second delivery of what it has changes nothing.
func TestAway(t *testing.T) {
	w := newWorld(t)
	w.dns.mu.Lock()
	w.dns.away = true
	w.dns.mu.Unlock()
	network := w.project.Create("network", `{"dns_domain": "example.org."}`).ID()
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "dns_publish_fixed_ip": true}`, network)
	w.project.Create("port", `{"network_id": %q, "dns_name": "web", "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, network)
	w.cloud.Wait(func(r []cloudtest.Request) bool { return len(r) > 1 })
	w.dns.mu.Lock()
	w.dns.away = false
	w.dns.sets["earlier"] = set{"earlier", "web.example.org.", "A", []string{"10.0.0.5"}}
	w.dns.mu.Unlock()
	w.holds("web.example.org. A [10.0.0.5]", "5.0.0.10.in-addr.arpa. PTR [web.example.org.]")
}
