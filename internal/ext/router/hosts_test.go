package router_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a message's text form, ids replaced by names, with a file.
func golden(t *testing.T, file string, m *message.Router, names ...string) {
	t.Helper()
	raw, err := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// The marshaller varies its spaces on purpose.
	got := regexp.MustCompile(`(?m)^( *\w+): +`).ReplaceAllString(string(raw), "$1: ")
	got = regexp.MustCompile(`(?m)(\w) +\{`).ReplaceAllString(got, "$1 {")
	got = strings.NewReplacer(names...).Replace(got)
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, file, got, string(want))
}

func (w *world) told(host, router string) *message.Router {
	w.t.Helper()
	return w.View(host, message.Kind_KIND_ROUTER)[router].GetRouter()
}

func (w *world) report(host, router string, revision int64, state message.State) {
	w.t.Helper()
	w.Report(host, &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: router, Revision: revision, AgentType: "L3 agent", State: state})
}

// What a host is told of a router.
func TestProjection(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	w.host("host2")
	n6, v6 := w.another(`{"ip_version": 6, "cidr": "2001:db8:a::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac", "dns_nameservers": ["2001:db8::53"]}`)
	r := w.admin.Create("router", `{"name": "r", "tenant_id": "project1", "external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.20"}], "enable_snat": false}}`, w.external).ID()
	p := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
	p6 := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, v6).Text("port_id")
	g := w.admin.List("port", "device_owner", "network:router_gateway")[0]
	vm := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.private).ID()
	f := w.admin.Create("floatingip", `{"floating_network_id": %q, "port_id": %q, "tenant_id": "project1", "floating_ip_address": "203.0.113.30"}`, w.external, vm).ID()
	w.project.Update("router", r, `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.0.0.6"}, {"destination": "192.0.2.0/24", "nexthop": "203.0.113.7"}]}`)

	mac := func(id string) string { return w.admin.Get("port", id).Text("mac_address") }
	names := []string{r, "ROUTER", w.external, "EXTERNAL", w.public, "PUBLIC", w.private, "PRIVATE", w.subnet, "SUBNET", n6, "PRIVATE6", v6, "SUBNET6",
		p, "PORT", p6, "PORT6", g.ID(), "GATEWAY", vm, "VM", f, "FLOATING", mac(p), "MAC", mac(p6), "MAC6", g.Text("mac_address"), "MACG"}
	m := w.told("host1", r)
	if len(m.GetInterfaces()) == 2 && m.Interfaces[0].PortId == p6 { // sorted by ids, which are by chance
		m.Interfaces[0], m.Interfaces[1] = m.Interfaces[1], m.Interfaces[0]
	}
	golden(t, "router.textproto", m, names...)
	if other := w.View("host2", message.Kind_KIND_ROUTER); len(other) != 0 {
		t.Errorf("another host is told %v", other)
	}

	// Everything that the message is made of makes it anew.
	stream := w.Attach("host1")
	last := m.Revision
	for _, change := range []struct {
		name string
		do   func()
		want func(m *message.Router) any
		to   any
		// generation: a change of the router itself, not of what it stands on.
		generation bool
	}{
		{"name", func() { w.project.Update("router", r, `{"name": "s"}`) }, func(m *message.Router) any { return m.Name }, "s", true},
		{"state", func() { w.project.Update("router", r, `{"admin_state_up": false}`) }, func(m *message.Router) any { return m.AdminStateUp }, false, true},
		{"SNAT", func() {
			w.project.Update("router", r, `{"external_gateway_info": {"network_id": %q, "enable_snat": true}}`, w.external)
		}, func(m *message.Router) any { return m.Gateway.EnableSnat }, true, true},
		{"routes", func() { w.project.Update("router", r, `{"routes": []}`) }, func(m *message.Router) any { return len(m.Routes) }, 0, true},
		{"floating IP gone", func() { w.project.Update("floatingip", f, `{"port_id": null}`) }, func(m *message.Router) any { return len(m.FloatingIps) }, 0, true},
		{"floating IP come", func() { w.project.Update("floatingip", f, `{"port_id": %q}`, vm) }, func(m *message.Router) any { return len(m.FloatingIps) }, 1, true},
		{"floating IP deleted", func() { w.project.Delete("floatingip", f) }, func(m *message.Router) any { return len(m.FloatingIps) }, 0, true},
		{"interface gone", func() { w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, w.subnet) }, func(m *message.Router) any { return len(m.Interfaces) }, 1, true},
		{"MTU", func() { w.admin.Update("network", n6, `{"mtu": 1300}`) }, func(m *message.Router) any { return m.Interfaces[0].Mtu }, int32(1300), false},
		{"subnet", func() { w.project.Update("subnet", v6, `{"dns_nameservers": ["2001:db8::54"]}`) }, func(m *message.Router) any { return m.Interfaces[0].Subnets[0].DnsNameservers[0] }, "2001:db8::54", false},
		{"gateway of the external network", func() { w.admin.Update("subnet", w.public, `{"gateway_ip": "203.0.113.2"}`) }, func(m *message.Router) any { return m.Gateway.GatewayIps[0] }, "203.0.113.2", false},
		{"address of the gateway", func() { w.admin.Update("port", g.ID(), `{"fixed_ips": [{"ip_address": "203.0.113.21"}]}`) }, func(m *message.Router) any { return m.Gateway.Addresses[0] }, "203.0.113.21/24", false},
		{"no gateway", func() { w.project.Update("router", r, `{"external_gateway_info": null}`) }, func(m *message.Router) any { return m.Gateway == nil }, true, true},
	} {
		before := w.View("host1", message.Kind_KIND_ROUTER)[r].GetVersion()
		change.do()
		t.Log(change.name)
		stream.Agrees()
		o := w.View("host1", message.Kind_KIND_ROUTER)[r]
		m := o.GetRouter()
		if m == nil || change.want(m) != change.to {
			t.Fatalf("%s: the host is told %v", change.name, m)
		}
		if o.Version == before || (m.Revision > last) != change.generation {
			t.Errorf("%s: version %d after %d, revision %d after %d", change.name, o.Version, before, m.Revision, last)
		}
		last = m.Revision
	}
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, v6)
	w.project.Delete("router", r)
	stream.Agrees()
	if left := w.View("host1", message.Kind_KIND_ROUTER); len(left) != 0 {
		t.Errorf("after the router, the host is told %v", left)
	}
}

// A server that starts anew tells hosts the same.
func TestProjectionAfterStart(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r, _, _ := w.associated()
	now := w.View("host1", message.Kind_KIND_ROUTER)[r]
	again := w.Restarted()
	if o := again.Snapshot("host1"); o == nil {
		t.Fatal("nothing")
	} else {
		for key, o := range o {
			if key.ID == r && (o.Version != now.Version || o.GetRouter().String() != now.GetRouter().String()) {
				t.Errorf("after a start %v, was %v", o, now)
			}
		}
	}
}

// A route whose next hop went with the gateway is kept, but not sent: one that
// cannot be followed would make the router fail as a whole.
func TestRouteWithoutWay(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.attached()
	w.project.Update("router", r, `{"routes": [{"destination": "192.0.2.0/24", "nexthop": "203.0.113.7"}]}`)
	if m := w.told("host1", r); len(m.GetRoutes()) != 1 {
		t.Fatalf("the host is told %v", m)
	}
	w.project.Update("router", r, `{"external_gateway_info": null}`)
	if m := w.told("host1", r); m == nil || len(m.Routes) != 0 {
		t.Errorf("the host is told %v", m)
	}
	if o := w.project.Get("router", r); len(o["routes"].([]any)) != 1 {
		t.Errorf("router is %v", o)
	}
}

func TestReports(t *testing.T) {
	const active, down, failed = message.State_STATE_ACTIVE, message.State_STATE_DOWN, message.State_STATE_ERROR
	w := newWorld(t)
	w.host("host1")
	w.host("host2")
	r, _, f := w.associated()
	old := w.told("host1", r).Revision
	status := func(want string) {
		t.Helper()
		if s := w.project.Get("floatingip", f).Text("status"); s != want {
			t.Errorf("status is %s, want %s", s, want)
		}
	}
	w.report("host2", r, old, active)
	status("DOWN") // not its router
	w.report("host1", r, old-1, active)
	status("DOWN") // about the time before the association
	w.report("host1", r, old+1, active)
	status("DOWN") // about what is not yet
	w.report("host1", absent, old, active)
	w.report("host1", r, old, active)
	status("ACTIVE")
	at := w.LastSequence()
	w.report("host1", r, old, active)
	if e := w.Events(at, nil); len(e) > 0 {
		t.Errorf("the same report again: %v", e)
	}
	w.report("host1", r, old, failed)
	status("ERROR")
	w.report("host1", r, old, active)
	status("ACTIVE")
	w.report("host1", r, old, message.State_STATE_UNSPECIFIED)
	status("ACTIVE")

	// A report that comes late, after one about a newer generation.
	w.project.Update("router", r, `{"name": "x"}`)
	w.report("host1", r, old+1, active)
	w.report("host1", r, old, failed)
	status("ACTIVE")

	// A status is no change of what hosts must know.
	if m := w.told("host1", r); m.Revision != old+1 {
		t.Errorf("revision is %d, want %d", m.Revision, old+1)
	}

	// A router that is administratively down serves nothing.
	w.project.Update("router", r, `{"admin_state_up": false}`)
	w.report("host1", r, old+2, active)
	status("DOWN")
	w.project.Update("router", r, `{"admin_state_up": true}`)
	w.report("host1", r, old+3, active)
	status("ACTIVE")

	// An association is DOWN until the host has it.
	w.project.Update("floatingip", f, `{"port_id": %q}`, w.port())
	status("DOWN")
	w.report("host1", r, old+3, active)
	status("DOWN")
	w.report("host1", r, old+4, active)
	status("ACTIVE")
	w.report("host1", r, old+4, down)
	status("DOWN")
	w.project.Update("floatingip", f, `{"port_id": null}`)
	w.report("host1", r, old+5, active)
	status("DOWN")
}

func (w *world) hostOf(router string) string {
	w.t.Helper()
	rows := w.Rows(1, "SELECT host FROM router_binding WHERE router_id = ?", router)
	if len(rows) == 0 {
		return ""
	}
	return rows[0][0].(string)
}

// portsOn tells on which hosts a router's ports are, as "host/vif_type".
func (w *world) portsOn(router string) string {
	w.t.Helper()
	var list []string
	for _, row := range w.Rows(2, "SELECT host_id, vif_type FROM port WHERE device_id = ? ORDER BY device_owner", router) {
		list = append(list, fmt.Sprintf("%s/%s", row...))
	}
	return strings.Join(list, " ")
}

func TestScheduling(t *testing.T) {
	w := newWorld(t)
	var agents []map[string]string
	r := w.attached()
	if h := w.hostOf(r); h != "" {
		t.Fatalf("without hosts, the router is on %q", h)
	}
	equal(t, "ports", w.portsOn(r), "/unbound /unbound")

	// A host that does not reach the external network will not do; the first that does takes what waits.
	w.Host("host0", exttest.HostOptions{})
	if h := w.hostOf(r); h != "" {
		t.Errorf("the router is on %q, which does not reach its gateway", h)
	}
	agents = append(agents, w.host("host1"))
	streams := []*exttest.Stream{w.Attach("host0"), w.Attach("host1"), w.Attach("host2")}
	agree := func() {
		t.Helper()
		for _, s := range streams {
			s.Agrees()
		}
	}
	if h := w.hostOf(r); h != "host1" {
		t.Errorf("the router is on %q", h)
	}
	equal(t, "ports", w.portsOn(r), "host1/ovs host1/ovs")
	if m := w.told("host1", r); m == nil || len(m.Interfaces) != 1 || m.Gateway == nil {
		t.Errorf("the host is told %v", m)
	}

	// The least loaded host that will do.
	agents = append(agents, w.host("host2"))
	second := w.router().ID()
	if h := w.hostOf(second); h != "host2" {
		t.Errorf("the second router is on %q", h)
	}
	inside := w.project.Create("router", `{}`).ID()
	if h := w.hostOf(inside); h != "" {
		t.Errorf("a router without ports is on %q", h)
	}
	_, n := w.another(`{"ip_version": 4, "cidr": "10.1.0.0/24"}`)
	w.project.Act("router", inside, "add_router_interface", `{"subnet_id": %q}`, n)
	if h := w.hostOf(inside); h != "host0" {
		t.Errorf("the router without gateway is on %q", h)
	}
	// With a gateway that its host does not reach it goes where it does.
	w.project.Update("router", inside, `{"external_gateway_info": {"network_id": %q}}`, w.external)
	if h := w.hostOf(inside); h != "host1" && h != "host2" {
		t.Errorf("the router with a gateway is on %q", h)
	}
	h := w.hostOf(inside)
	equal(t, "ports", w.portsOn(inside), h+"/ovs "+h+"/ovs")

	agree()

	// No agent, no new routers; what is there stays.
	for _, a := range agents {
		w.admin.Update("agent", a["L3 agent"], `{"admin_state_up": false}`)
	}
	if h := w.hostOf(r); h != "host1" {
		t.Errorf("the router has moved to %q", h)
	}
	third := w.router().ID()
	if h := w.hostOf(third); h != "" {
		t.Errorf("the third router is on %q", h)
	}
	w.admin.Update("agent", agents[1]["L3 agent"], `{"admin_state_up": true}`)
	if h := w.hostOf(third); h != "host2" {
		t.Errorf("the third router is on %q", h)
	}

	// When an agent is deleted its routers move, and their floating IPs wait for the new host.
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port()).ID()
	w.report("host1", r, w.told("host1", r).Revision, message.State_STATE_ACTIVE)
	old := w.told("host1", r).Revision
	w.admin.Delete("agent", agents[0]["L3 agent"])
	if h := w.hostOf(r); h != "host2" {
		t.Errorf("the router is on %q", h)
	}
	equal(t, "ports", w.portsOn(r), "host2/ovs host2/ovs")
	agree()
	if s := w.project.Get("floatingip", f).Text("status"); s != "DOWN" {
		t.Errorf("status is %s", s)
	}
	if m := w.told("host1", r); m != nil {
		t.Errorf("the former host is told %v", m)
	}
	w.report("host1", r, old, message.State_STATE_ACTIVE)
	w.report("host2", r, old, message.State_STATE_ACTIVE)
	if s := w.project.Get("floatingip", f).Text("status"); s != "DOWN" {
		t.Errorf("status is %s after reports about the time before", s)
	}
	w.report("host2", r, w.told("host2", r).Revision, message.State_STATE_ACTIVE)
	if s := w.project.Get("floatingip", f).Text("status"); s != "ACTIVE" {
		t.Errorf("status is %s", s)
	}
	// The last one: they wait again.
	w.admin.Delete("agent", agents[1]["L3 agent"])
	equal(t, "ports", w.portsOn(r), "/unbound /unbound")
	if h := w.hostOf(r); h != "" {
		t.Errorf("the router is on %q", h)
	}
	agree()
}

// The death of a host moves nothing: it may well go on forwarding.
func TestSilentHostKeepsRouters(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.router().ID()
	w.host("host2")
	if err := w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE agent SET heartbeat_timestamp = '2000-01-01 00:00:00' WHERE host = 'host1'")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	if h := w.hostOf(r); h != "host1" {
		t.Errorf("the router is on %q", h)
	}
	equal(t, "ports", w.portsOn(r), "host1/ovs host1/binding_failed")
	if h := w.hostOf(w.router().ID()); h != "host2" {
		t.Errorf("a new router is on %q", h)
	}
	// It comes back: what could not be bound is.
	w.host("host1")
	equal(t, "ports", w.portsOn(r), "host1/ovs host1/ovs")
}

func TestSchedulerAPI(t *testing.T) {
	const agentPath = "/agents/{agent_id}/l3-routers"
	w := newWorld(t)
	a, b := w.host("host1")["L3 agent"], w.host("host2")["L3 agent"]
	r := w.attached()
	ids := func(o exttest.Object, list string) string {
		var found []string
		for _, item := range o[list].([]any) {
			found = append(found, item.(map[string]any)["id"].(string))
		}
		return strings.NewReplacer(a, "A", b, "B", r, "R").Replace(fmt.Sprint(found))
	}
	look := func(what, onA, onB, agents string) {
		t.Helper()
		equal(t, what+": routers of A", ids(w.admin.Call("GET", agentPath, []string{a}, ""), "routers"), onA)
		equal(t, what+": routers of B", ids(w.admin.Call("GET", agentPath, []string{b}, ""), "routers"), onB)
		equal(t, what+": agents", ids(w.admin.Call("GET", "/routers/{router_id}/l3-agents", []string{r}, ""), "agents"), agents)
	}
	look("scheduled", "[R]", "[]", "[A]")
	agent := w.admin.Call("GET", "/routers/{router_id}/l3-agents", []string{r}, "")["agents"].([]any)[0].(map[string]any)
	if v, ok := agent["ha_state"]; !ok || v != nil || agent["alive"] != true || agent["host"] != "host1" {
		t.Errorf("agent is %v", agent)
	}
	w.admin.Call("POST", agentPath, []string{a}, `{"router_id": %q}`, r) // there already
	w.admin.Call("DELETE", agentPath+"/{router_id}", []string{a, r}, "")
	look("removed", "[]", "[]", "[]")
	equal(t, "ports", w.portsOn(r), "/unbound /unbound")
	w.admin.Call("POST", agentPath, []string{b}, `{"router_id": %q}`, r)
	look("added", "[]", "[R]", "[B]")
	equal(t, "ports", w.portsOn(r), "host2/ovs host2/ovs")
	if m := w.told("host2", r); m == nil || len(m.Interfaces) != 1 {
		t.Errorf("the host is told %v", m)
	}
}
