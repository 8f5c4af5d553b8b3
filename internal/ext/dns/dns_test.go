package dns_test

import (
	"fmt"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const chosen = `
[DEFAULT]
dns_domain = cloud.example
`

type world struct {
	*exttest.Core
	t       *testing.T
	admin   *exttest.Client
	network string
	subnet  string
}

func newWorld(t *testing.T, config string) *world {
	w := &world{Core: exttest.New(t, exttest.Options{Config: config}), t: t}
	w.admin = w.Admin()
	w.network = w.admin.Create("network", `{"name": "n"}`).ID()
	w.subnet = w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.network).ID()
	return w
}

func (w *world) names(o exttest.Object, want string) {
	w.t.Helper()
	if have := fmt.Sprintf("%v %v %v", o["dns_name"], o["dns_domain"], o.JSON("dns_assignment")); have != want {
		w.t.Errorf("names are %s, want %s", have, want)
	}
}

// Without a domain of the operator's, names of clients mean nothing.
func TestDefaultDomain(t *testing.T) {
	w := newWorld(t, "")
	p := w.admin.Create("port", `{"network_id": %q, "dns_name": "web", "dns_domain": "example.org.", "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.network)
	const none = `  [{"fqdn":"host-10-0-0-5.openstacklocal.","hostname":"host-10-0-0-5","ip_address":"10.0.0.5"}]`
	w.names(p, none)
	w.names(w.admin.Update("port", p.ID(), `{"dns_name": "other"}`), none)
	w.names(w.admin.Get("port", p.ID()), none)
}

func TestNames(t *testing.T) {
	w := newWorld(t, chosen)
	p := w.admin.Create("port", `{"network_id": %q, "dns_name": "Web", "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.network)
	w.names(p, `web  [{"fqdn":"web.cloud.example.","hostname":"web","ip_address":"10.0.0.5"}]`)
	p = w.admin.Update("port", p.ID(), `{"dns_name": "", "fixed_ips": [{"ip_address": "10.0.0.6"}]}`)
	w.names(p, `  [{"fqdn":"host-10-0-0-6.cloud.example.","hostname":"host-10-0-0-6","ip_address":"10.0.0.6"}]`)
	p = w.admin.Update("port", p.ID(), `{"dns_name": "db.cloud.example.", "dns_domain": "example.org.", "fixed_ips": []}`)
	w.names(p, `db.cloud.example. example.org. []`)
	_, err := w.admin.TryUpdate("port", p.ID(), `{"dns_name": "db.example.org."}`)
	w.Refused(err, fault.Invalid, "HTTPBadRequest", "Invalid input for dns_name. Reason: The dns_name passed is a FQDN. Its higher level labels must be equal to the dns_domain option in neutron.conf, that has been set to 'cloud.example'. It must also include one or more valid DNS labels to the left of 'cloud.example'.")
	n := w.admin.Update("network", w.network, `{"dns_domain": "Example.org."}`)
	if n["dns_domain"] != "example.org." {
		t.Errorf("dns_domain of the network is %v", n["dns_domain"])
	}
	s := w.admin.Get("subnet", w.subnet)
	if s["dns_publish_fixed_ip"] != false {
		t.Errorf("dns_publish_fixed_ip is %v", s["dns_publish_fixed_ip"])
	}
}

// Hosts answer for the names of ports elsewhere, too.
func TestHosts(t *testing.T) {
	w := newWorld(t, chosen)
	w.Host("host1", exttest.HostOptions{})
	w.Host("host2", exttest.HostOptions{})
	here := w.admin.Create("port", `{"network_id": %q, "dns_name": "here", "binding:host_id": "host1"}`, w.network).ID()
	w.admin.Create("port", `{"network_id": %q, "dns_name": "there", "binding:host_id": "host2"}`, w.network)
	if name := w.View("host1", message.Kind_KIND_PORT)[here].GetPort().DnsName; name != "here" {
		t.Errorf("host1 has the name %q", name)
	}
	if entries := w.View("host1", message.Kind_KIND_FORWARDING)[w.network].GetForwarding().Entries; len(entries) != 1 || entries[0].DnsName != "there" {
		t.Errorf("host1 has %v", entries)
	}
}

const external = chosen + `external_dns_driver = designate
`

// What is published is in the domain of the port, else of its network; and
// only of networks that are reached from outside.
func TestPublished(t *testing.T) {
	w := newWorld(t, external)
	w.admin.Update("network", w.network, `{"dns_domain": "net.example."}`)
	p := w.admin.Create("port", `{"network_id": %q, "dns_name": "a", "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.network)
	w.names(p, `a  [{"fqdn":"a.cloud.example.","hostname":"a","ip_address":"10.0.0.5"}]`)
	w.admin.Update("subnet", w.subnet, `{"dns_publish_fixed_ip": true}`)
	p = w.admin.Update("port", p.ID(), `{"dns_name": "b"}`)
	w.names(p, `b  [{"fqdn":"b.net.example.","hostname":"b","ip_address":"10.0.0.5"}]`)
	w.Host("host1", exttest.HostOptions{})
	w.admin.Update("port", p.ID(), `{"binding:host_id": "host1"}`)
	if name := w.View("host1", message.Kind_KIND_PORT)[p.ID()].GetPort().DnsName; name != "b.net.example." {
		t.Errorf("host1 has the name %q", name)
	}
	p = w.admin.Update("port", p.ID(), `{"dns_domain": "<project_id>.example."}`)
	w.names(p, `b <project_id>.example. [{"fqdn":"b.admin.example.","hostname":"b","ip_address":"10.0.0.5"}]`)
	p = w.admin.Update("port", p.ID(), `{"dns_name": ""}`)
	w.names(p, ` <project_id>.example. [{"fqdn":"host-10-0-0-5.cloud.example.","hostname":"host-10-0-0-5","ip_address":"10.0.0.5"}]`)
}

func TestFloatingIP(t *testing.T) {
	for config, want := range map[string]string{chosen: " / ", external: "web / example.org."} {
		w := newWorld(t, config)
		out := w.admin.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
		w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}`, out)
		f := w.admin.Create("floatingip", `{"floating_network_id": %q, "dns_name": "web", "dns_domain": "example.org."}`, out)
		f = w.admin.Get("floatingip", f.ID())
		if have := fmt.Sprintf("%v / %v", f["dns_name"], f["dns_domain"]); have != want {
			t.Errorf("names are %q, want %q", have, want)
		}
		if config == chosen {
			continue
		}
		_, err := w.admin.TryCreate("floatingip", `{"floating_network_id": %q, "dns_name": "web"}`, out)
		w.Refused(err, fault.Invalid, "BadRequest", "Bad floatingip request: dns_name cannot be specified without a dns_domain.")
		_, err = w.admin.TryCreate("floatingip", `{"floating_network_id": %q, "dns_domain": "example.org."}`, out)
		w.Refused(err, fault.Invalid, "BadRequest", "Bad floatingip request: dns_domain cannot be specified without a dns_name.")
	}
}
