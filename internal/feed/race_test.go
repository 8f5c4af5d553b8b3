package feed_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
	"isospin/test/servertest"
)

// world is what the writers change.
type world struct {
	*servertest.Server
	t        *testing.T
	hosts    []string
	networks []string
	groups   []string

	mu    sync.Mutex
	ports []string
	rules []string
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func (w *world) some(r *rand.Rand, list *[]string, take bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(*list) == 0 {
		return ""
	}
	i := r.IntN(len(*list))
	id := (*list)[i]
	if take {
		*list = slices.Delete(*list, i, i+1)
	}
	return id
}

// do sends a request; conflicts are part of the race, errors of the server are not.
func (w *world) do(method, path, body string) map[string]any {
	a, err := w.Do(method, path, body)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
		return nil
	}
	if a.Status >= 500 {
		w.t.Errorf("%s %s %s: %s", method, path, body, a)
	}
	if a.Status > 299 || len(a.Body) == 0 {
		return nil
	}
	var doc map[string]map[string]any
	if err := a.Decode(&doc); err != nil {
		w.t.Errorf("%s %s: %v in %s", method, path, err, a)
	}
	for _, o := range doc {
		return o
	}
	return nil
}

func (w *world) keep(list *[]string, o map[string]any) {
	if o == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*list = append(*list, o["id"].(string))
}

// member draws one random member of a port's body.
func (w *world) member(r *rand.Rand) (string, any) {
	switch r.IntN(10) {
	case 0, 1:
		return "binding:host_id", pick(r, append([]string{"", "elsewhere"}, w.hosts...))
	case 2:
		return "security_groups", slices.Compact(slices.Sorted(slices.Values([]string{pick(r, w.groups), pick(r, w.groups)})))
	case 3:
		return "security_groups", []string{}
	case 4:
		return "admin_state_up", r.IntN(2) == 0
	case 5:
		return "name", fmt.Sprint("name", r.IntN(3))
	case 6:
		return "allowed_address_pairs", []map[string]string{{"ip_address": fmt.Sprintf("198.51.100.%d", r.IntN(4))}}
	case 7: // with the right owner, the network's own DHCP port, of which there may then be several
		return "device_id", "dhcp-" + pick(r, w.networks)
	case 8:
		return "device_owner", pick(r, []string{"", "compute:nova", "network:dhcp", "network:router_interface"})
	default:
		return "fixed_ips", []any{}
	}
}

func (w *world) step(r *rand.Rand) {
	body := map[string]any{}
	for range 1 + r.IntN(3) {
		k, v := w.member(r)
		body[k] = v
	}
	if owner, _ := body["device_owner"].(string); owner != "" && owner != "compute:nova" {
		body["security_groups"] = []string{}
	}
	text := func(kind string) string {
		raw, err := json.Marshal(map[string]any{kind: body})
		if err != nil {
			w.t.Error(err)
		}
		return string(raw)
	}
	switch n := r.IntN(20); {
	case n < 6:
		body["network_id"] = pick(r, w.networks)
		w.keep(&w.ports, w.do("POST", "/ports", text("port")))
	case n < 13:
		if id := w.some(r, &w.ports, false); id != "" {
			w.do("PUT", "/ports/"+id, text("port"))
		}
	case n < 15:
		if id := w.some(r, &w.ports, true); id != "" {
			w.do("DELETE", "/ports/"+id, "")
		}
	case n < 17:
		w.keep(&w.rules, w.do("POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule": {"security_group_id": %q, "remote_group_id": %q, "direction": "ingress", "protocol": "tcp", "port_range_min": %d, "port_range_max": 65535}}`,
			pick(r, w.groups), pick(r, w.groups), 1+r.IntN(3))))
	case n < 18:
		if id := w.some(r, &w.rules, true); id != "" {
			w.do("DELETE", "/security-group-rules/"+id, "")
		}
	case n < 19:
		w.do("PUT", "/networks/"+pick(r, w.networks), fmt.Sprintf(`{"network": {"mtu": %d}}`, 1300+r.IntN(3)))
	default:
		w.do("PUT", "/security-groups/"+pick(r, w.groups), fmt.Sprintf(`{"security_group": {"name": "group%d"}}`, r.IntN(3)))
	}
}

// TestRace: many writers change ports, groups, rules and networks while hosts
// come, go and come again. In the end each host holds, by snapshots and deltas,
// exactly what it must; a server that starts afresh on the same database says
// the same; and every change was an event once, in order.
func TestRace(t *testing.T) {
	const writers, steps = 8, 90
	dir := t.TempDir()
	s := servertest.StartIn(t, dir, servertest.Networks)
	w := &world{Server: s, t: t, hosts: []string{"h0", "h1", "h2", "h3"}}
	s.Must(t, 200, "PUT", "/quotas/fake_project_id", `{"quota": {"port": -1, "security_group_rule": -1}}`)
	for i := range 3 {
		n := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)
		w.networks = append(w.networks, n["id"].(string))
		s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.%d.0.0/24"}}`, n["id"], i))
		s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 6, "cidr": "2001:db8:%d::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}}`, n["id"], i))
		w.groups = append(w.groups, s.Must(t, 201, "POST", "/security-groups", `{"security_group": {}}`)["id"].(string))
	}
	var hosts []*servertest.Host
	for i, name := range w.hosts {
		h := s.Host(name, servertest.OpenVSwitch(fmt.Sprintf("192.0.2.%d", i+1)))
		h.Attach(t)
		hosts = append(hosts, h)
	}

	// A consumer of the events, from before the race.
	var seen []store.Event
	signal, end := s.Store.Follow()
	defer end()
	first := s.LastSequence(t)
	reading, stop := context.WithCancel(context.Background())
	var consumer sync.WaitGroup
	read := func() {
		for {
			after := first
			if len(seen) > 0 {
				after = seen[len(seen)-1].Sequence
			}
			n := 0
			if err := s.Store.View(context.Background(), func(tx *store.Tx) error {
				events, err := tx.Events(after, 16)
				seen, n = append(seen, events...), len(events)
				return err
			}); err != nil {
				t.Error(err)
			}
			if n == 0 {
				return
			}
		}
	}
	consumer.Go(func() {
		for {
			select {
			case <-signal:
				read()
			case <-reading.Done():
				return
			}
		}
	})

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var writing, coming sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range steps {
				w.step(r)
			}
		})
	}
	done := make(chan struct{})
	endpoints := make([]string, len(hosts)) // of each host, as it said last
	for i, h := range hosts {
		coming.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for {
				select {
				case <-done:
					return
				default:
				}
				_, before := h.Sequence()
				// A few messages, then away for a while, and now and then with another tunnel endpoint.
				for range 200 {
					if _, now := h.Sequence(); now > before+5 {
						break
					}
					s.Do("GET", "/networks?limit=1", "")
				}
				switch r.IntN(3) {
				case 0:
					h.Detach()
					s.Do("GET", "/ports", "")
					if r.IntN(2) == 0 {
						endpoints[i] = fmt.Sprintf("192.0.2.%d", 10*i+r.IntN(5))
						h.Functions = []*message.Function{servertest.OpenVSwitch(endpoints[i])}
					} else {
						endpoints[i] = "" // whatever it began with
					}
					if err := h.Open(); err != nil {
						t.Error(err)
					}
				case 1:
					endpoints[i] = fmt.Sprintf("192.0.2.%d", 10*i+r.IntN(5))
					if err := h.Heartbeat(servertest.OpenVSwitch(endpoints[i])); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writing.Wait()
	close(done)
	coming.Wait()
	// Heartbeats are not answered: the last ones may still be on their way.
	for i, h := range hosts {
		if endpoints[i] == "" {
			continue
		}
		servertest.Eventually(t, "the last heartbeat of "+h.Name, func() bool {
			a, err := s.Do("GET", "/agents?host="+h.Name, "")
			return err == nil && strings.Contains(string(a.Body), `"`+endpoints[i]+`"`)
		})
	}
	s.Settle(t)
	for _, h := range hosts {
		servertest.Eventually(t, "host "+h.Name+" holds what it must", func() bool { s.Settle(t); return h.Differs() == "" })
		if err := h.Faults(); err != nil {
			t.Error(err)
		}
		if d := h.Differs(); d != "" {
			t.Error(d)
		}
	}
	stop()
	consumer.Wait()
	read()
	checkEvents(t, s, first, seen)

	// Versions do not depend on the way: a new server needs to send nothing.
	before := map[string]map[feed.Key]*message.Object{}
	objects := 0
	for _, h := range hosts {
		h.Detach()
		before[h.Name] = h.Objects()
		objects += len(before[h.Name])
	}
	s.Stop()
	again := servertest.StartIn(t, dir, servertest.Networks)
	for name, have := range before {
		want := again.Hub.Snapshot(name)
		for key, o := range want {
			if mine := have[key]; mine == nil || mine.Version != o.Version || !proto.Equal(mine, o) {
				t.Errorf("host %s, %v:\nheld before:  %v\nmade afresh: %v", name, key, mine, o)
			}
		}
		if len(want) != len(have) {
			t.Errorf("host %s held %d objects, a new server has %d for it", name, len(have), len(want))
		}
	}
	if objects < 20 {
		t.Errorf("the hosts hold no more than %d objects: the test is of no use", objects)
	}
}

// checkEvents compares what a consumer has read in pieces with what is stored,
// and the events of each object with its life.
func checkEvents(t *testing.T, s *servertest.Server, first int64, seen []store.Event) {
	t.Helper()
	var all []store.Event
	if err := s.Store.View(context.Background(), func(tx *store.Tx) (err error) {
		all, err = tx.Events(first, 1<<20)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(seen) || len(all) < 100 {
		t.Errorf("%d events are stored, %d were seen", len(all), len(seen))
	}
	alive := map[string]int64{} // revision by port
	for i, e := range seen {
		if i >= len(all) || all[i].Sequence != e.Sequence || all[i].ID != e.ID {
			t.Fatalf("event %d was seen as %+v, stored is %+v", i, e, all[i])
		}
		if e.Kind != "port" {
			continue
		}
		revision, there := alive[e.ID]
		switch {
		case e.Op == store.Created && there, e.Op != store.Created && !there:
			t.Errorf("port %s: %s, but it is there: %v", e.ID, e.Op, there)
		case e.Op == store.Updated && e.Revision <= revision:
			t.Errorf("port %s: revision %d comes after %d", e.ID, e.Revision, revision)
		}
		alive[e.ID] = e.Revision
		if e.Op == store.Deleted {
			delete(alive, e.ID)
		}
	}
	list := s.Must(t, 200, "GET", "/ports?fields=id&fields=revision_number", "")["ports"].([]any)
	for _, p := range list {
		p := p.(map[string]any)
		if revision, there := alive[p["id"].(string)]; !there || float64(revision) != p["revision_number"] {
			t.Errorf("port %v: by its events it has revision %d (there: %v)", p, revision, there)
		}
	}
	if len(list) != len(alive) {
		t.Errorf("%d ports are there, %d by their events", len(list), len(alive))
	}
}
