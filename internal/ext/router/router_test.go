package router_test

import (
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// world is an external network and a project's network, and a host.
type world struct {
	*exttest.Core
	t                testing.TB
	admin, project   *exttest.Client
	external, public string // network and subnet
	private, subnet  string // network and subnet
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Core: exttest.New(t, exttest.Options{}), t: t}
	w.admin, w.project = w.Admin(), w.As("project1")
	w.external = w.admin.Create("network", `{"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	w.public = w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24", "gateway_ip": "203.0.113.1", "enable_dhcp": false,
		"allocation_pools": [{"start": "203.0.113.10", "end": "203.0.113.99"}]}`, w.external).ID()
	w.private = w.project.Create("network", `{"name": "private"}`).ID()
	w.subnet = w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.private).ID()
	return w
}

func (w *world) host(name string) map[string]string {
	w.t.Helper()
	return w.Host(name, exttest.HostOptions{Physical: []string{"public"}})
}

func (w *world) router() exttest.Object {
	w.t.Helper()
	return w.project.Create("router", `{"name": "r", "external_gateway_info": {"network_id": %q}}`, w.external)
}

func (w *world) port() string {
	w.t.Helper()
	return w.project.Create("port", `{"network_id": %q}`, w.private).ID()
}

// Floating IPs that stand for nothing go with their network, others keep it;
// whose the network is matters only for what is seen.
func TestFloatingIPsOfNetworkThatGoes(t *testing.T) {
	w := newWorld(t)
	w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external)
	r := w.router()
	w.project.Act("router", r.ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port())
	if err := w.admin.TryDelete("network", w.external); !fault.IsKind(err, fault.Conflict) || len(w.admin.List("floatingip")) != 2 {
		t.Fatalf("deletion of a network in use: %v, floating IPs %v", err, w.admin.List("floatingip"))
	}
	w.project.Update("floatingip", f.ID(), `{}`)
	w.project.Act("router", r.ID(), "remove_router_interface", `{"subnet_id": %q}`, w.subnet)
	w.project.Delete("router", r.ID())
	w.admin.Delete("network", w.external)
	if l := w.admin.List("floatingip"); len(l) != 0 {
		t.Errorf("floating IPs %v are left", l)
	}

	// external, but not for this project
	n := w.admin.Create("network", `{}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "198.51.100.0/24"}`, n)
	w.admin.Create("rbac_policy", `{"object_type": "network", "object_id": %q, "action": "access_as_external", "target_tenant": "22222222-2222-4222-8222-222222222222"}`, n)
	if _, err := w.project.TryCreate("floatingip", `{"floating_network_id": %q}`, n); !fault.IsKind(err, fault.NotFound) {
		t.Errorf("floating IP of a network that is not seen: %v", err)
	}
	if f := w.As("22222222-2222-4222-8222-222222222222").Create("floatingip", `{"floating_network_id": %q}`, n); f.Text("floating_network_id") != n {
		t.Errorf("floating IP is %v", f)
	}
}

// From nothing to a floating IP that works.
func TestFloatingIPBecomesActive(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.router()
	if g := r.JSON("external_gateway_info"); r.Text("status") != "ACTIVE" || g == "null" {
		t.Fatalf("router is %v", r)
	}
	i := w.project.Act("router", r.ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	if i.ID() != r.ID() || i.Text("subnet_id") != w.subnet || i.Text("network_id") != w.private || i.Text("project_id") != "project1" {
		t.Fatalf("interface is %v", i)
	}
	p := w.project.Get("port", i.Text("port_id"))
	if p.JSON("fixed_ips") != `[{"ip_address":"10.0.0.1","subnet_id":"`+w.subnet+`"}]` || p.Text("device_owner") != "network:router_interface" || p.Text("tenant_id") != "project1" {
		t.Fatalf("port of the interface is %v", p)
	}
	if h := w.admin.Get("port", i.Text("port_id")).Text("binding:host_id"); h != "host1" {
		t.Fatalf("the interface is on %q", h)
	}
	vm := w.port()
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, vm)
	if f.Text("status") != "DOWN" || f.Text("router_id") != r.ID() || f.Text("port_id") != vm {
		t.Fatalf("floating IP is %v", f)
	}
	m := w.View("host1", message.Kind_KIND_ROUTER)[r.ID()].GetRouter()
	if m == nil || len(m.Interfaces) != 1 || m.Gateway == nil || len(m.FloatingIps) != 1 {
		t.Fatalf("the host is told %v", m)
	}
	w.Report("host1", &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: r.ID(), Revision: m.Revision, AgentType: "L3 agent", State: message.State_STATE_ACTIVE})
	if s := w.project.Get("floatingip", f.ID()).Text("status"); s != "ACTIVE" {
		t.Fatalf("status is %s", s)
	}
	if o := w.project.Update("floatingip", f.ID(), `{"description": "d"}`); o.Text("port_id") != vm {
		t.Fatalf("after another update, floating IP is %v", o)
	}
	if o := w.project.Update("floatingip", f.ID(), `{}`); o["port_id"] != nil || o["router_id"] != nil || o["fixed_ip_address"] != nil {
		t.Fatalf("after an update that says nothing, floating IP is %v", o)
	}
	w.project.Act("router", r.ID(), "remove_router_interface", `{"subnet_id": %q}`, w.subnet)
	w.project.Delete("floatingip", f.ID())
	w.project.Delete("router", r.ID())
	if left := w.admin.List("port", "network_id", w.external); len(left) != 0 {
		t.Fatalf("ports are left: %v", left)
	}
}
