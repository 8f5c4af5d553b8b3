package portforwarding_test

import (
	"fmt"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// world is an external network, a router with an interface, and two ports behind it.
type world struct {
	*exttest.Core
	admin, project                   *exttest.Client
	external, private, subnet        string
	router, port, other, address, at string
	floating                         string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Core: exttest.New(t, exttest.Options{})}
	w.admin, w.project = w.Admin(), w.As("project1")
	w.Host("host1", exttest.HostOptions{Physical: []string{"public"}})
	w.external = w.admin.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": false}`, w.external)
	w.private = w.project.Create("network", `{}`).ID()
	w.subnet = w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.private).ID()
	w.router = w.project.Create("router", `{"external_gateway_info": {"network_id": %q}}`, w.external).ID()
	w.project.Act("router", w.router, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	w.port, w.address = w.newPort()
	w.other, w.at = w.newPort()
	w.floating = w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external).ID()
	return w
}

func (w *world) newPort() (id, address string) {
	p := w.project.Create("port", `{"network_id": %q}`, w.private)
	return p.ID(), p["fixed_ips"].([]any)[0].(map[string]any)["ip_address"].(string)
}

func (w *world) body(more string) string {
	return fmt.Sprintf(`{"internal_port_id": %q, "internal_ip_address": %q, "protocol": "tcp", %s}`, w.port, w.address, more)
}

func (w *world) message() *message.Router {
	w.Settled()
	return w.View("host1", message.Kind_KIND_ROUTER)[w.router].GetRouter()
}

func last[T any](_ T, err error) error { return err }

// A forwarding makes its floating IP the router's, and the host is told; the
// last one that goes takes it away again.
func TestLife(t *testing.T) {
	w := newWorld(t)
	in := w.project.In(w.floating)
	before := w.LastSequence()
	f := in.Create("port_forwarding", "%s", w.body(`"internal_port": "22", "external_port": 2222, "description": "ssh"`))
	want := fmt.Sprintf(`{"description":"ssh","external_port":2222,"external_port_range":"2222:2222","id":"%s","internal_ip_address":"%s","internal_port":22,"internal_port_id":"%s","internal_port_range":"22:22","protocol":"tcp"}`, f.ID(), w.address, w.port)
	shown := exttest.Object{"x": map[string]any(f)}
	if got := shown.JSON("x"); got != want {
		t.Errorf("forwarding:\n got %s\nwant %s", got, want)
	}
	names := map[string]string{f.ID(): "FORWARDING", w.floating: "FLOATING", w.router: "ROUTER"}
	if got := fmt.Sprint(w.Events(before, names)); got != "[update floatingip FLOATING update router ROUTER create port_forwarding FORWARDING]" {
		t.Errorf("events: %s", got)
	}
	of := w.project.Get("floatingip", w.floating)
	if of.Text("router_id") != w.router || of["port_id"] != nil || of.Text("status") != "DOWN" {
		t.Errorf("floating IP is %v", of)
	}
	want = fmt.Sprintf(`[{"external_port":2222,"id":"%s","internal_ip_address":"%s","internal_port":22,"internal_port_id":"%s","protocol":"tcp"}]`, f.ID(), w.address, w.port)
	if got := of.JSON("port_forwardings"); got != want {
		t.Errorf("forwardings of the floating IP:\n got %s\nwant %s", got, want)
	}
	m := w.message()
	if len(m.PortForwardings) != 1 || len(m.FloatingIps) != 1 || m.FloatingIps[0].FixedIpAddress != "" {
		t.Fatalf("router is %v", m)
	}
	if p := m.PortForwardings[0]; p.FloatingIpAddress != of.Text("floating_ip_address") || p.InternalIpAddress != w.address || p.ExternalPortMin != 2222 || p.InternalPortMax != 22 {
		t.Errorf("forwarding is %v", p)
	}
	w.Report("host1", &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: w.router, Revision: m.Revision, State: message.State_STATE_ACTIVE})
	if s := w.project.Get("floatingip", w.floating).Text("status"); s != "ACTIVE" {
		t.Errorf("status is %s", s)
	}

	ranged := in.Create("port_forwarding", "%s", w.body(`"internal_port_range": "80:90", "external_port_range": "8080:8090"`))
	if ranged["external_port"] != nil || ranged.Text("internal_port_range") != "80:90" {
		t.Errorf("forwarding is %v", ranged)
	}
	if got := in.Update("port_forwarding", f.ID(), `{"internal_port": 2200}`); got.JSON("internal_port") != "2200" || got.Text("internal_port_range") != "2200:2200" || got.Text("description") != "ssh" {
		t.Errorf("forwarding is %v", got)
	}
	if m := w.message(); len(m.PortForwardings) != 2 {
		t.Errorf("router is %v", m)
	}
	if list := in.List("port_forwarding", "external_port", "2222"); len(list) != 1 || list[0].ID() != f.ID() {
		t.Errorf("by port: %v", list)
	}
	// Another name keeps everything, and so does to say that there is no port.
	w.project.Update("floatingip", w.floating, `{"description": "d", "port_id": null}`)
	if w.project.Get("floatingip", w.floating).Text("router_id") != w.router {
		t.Error("the floating IP has left its router")
	}
	in.Delete("port_forwarding", f.ID())
	in.Update("port_forwarding", ranged.ID(), `{"internal_port_id": %q, "internal_ip_address": %q}`, w.other, w.at)
	// With the port goes what leads to it.
	w.project.Delete("port", w.other)
	of = w.project.Get("floatingip", w.floating)
	if of["router_id"] != nil || of.JSON("port_forwardings") != "[]" || len(w.Rows(1, "SELECT id FROM port_forwarding")) != 0 {
		t.Errorf("floating IP is %v", of)
	}
	if m := w.message(); len(m.PortForwardings)+len(m.FloatingIps) != 0 {
		t.Errorf("router is %v", m)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	in := w.project.In(w.floating)
	f := in.Create("port_forwarding", "%s", w.body(`"internal_port_range": "80:90", "external_port_range": "8080:8090"`))
	create := func(body string, args ...any) error { return last(in.TryCreate("port_forwarding", body, args...)) }
	bad := func(err error, text string) {
		t.Helper()
		w.Refused(err, fault.Invalid, "BadRequest", "Bad port_forwarding request: "+text+".")
	}
	bad(create("%s", w.body(`"internal_port": 22, "external_port": 8085`)), "There is a port collision with the external_port_range. The following ranges collide: 8080:8090 and 8085:8085")
	bad(create("%s", w.body(`"internal_port": 85, "external_port": 1`)), "There is a port collision with the internal_port_range. The following ranges collide: 80:90 and 85:85")
	bad(create("%s", w.body(`"internal_port_range": "100:101", "external_port_range": "1:3"`)), "Invalid ranges of internal and/or external ports. The relation between internal and external ports must be N-N or 1-N")
	bad(create("%s", w.body(`"internal_port": 22`)), "Invalid port value, the port value must be a value between 1 and 65535.")
	w.Refused(create("%s", w.body(`"internal_port": 22, "external_port": 70000`)), fault.Invalid, "HTTPBadRequest", "")
	w.Refused(create(`{"internal_port_id": %q, "internal_ip_address": "10.0.0.200", "protocol": "tcp", "internal_port": 1, "external_port": 1}`, w.port), fault.Invalid, "BadRequest", "")
	_, apart := w.newPort()
	elsewhere := w.project.Create("network", `{}`).ID()
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.5.0.0/24"}`, elsewhere)
	p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.5.0.9"}]}`, elsewhere)
	err := create(`{"internal_port_id": %q, "internal_ip_address": "10.5.0.9", "protocol": "tcp", "internal_port": 1, "external_port": 1}`, p.ID())
	if err == nil || !strings.Contains(err.Error(), "External network "+w.external+" is not reachable from subnet ") {
		t.Errorf("unreachable port: %v", err)
	}
	_ = apart

	// Plain association and forwardings exclude each other.
	w.Refused(last(w.project.TryUpdate("floatingip", w.floating, `{"port_id": %q}`, w.other)), fault.Conflict, "FipInUseByPortForwarding", "Floating IP "+w.floating+" in use by Port Forwarding resources.")
	w.Refused(w.project.TryDelete("floatingip", w.floating), fault.Conflict, "FipInUseByPortForwarding", "Floating IP "+w.floating+" in use by Port Forwarding resources.")
	w.Refused(last(w.project.TryCreate("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port)), fault.Invalid, "PortHasPortForwarding",
		"Cannot associate floating IP to port "+w.port+" because it already has a Port Forwarding binding.")
	plain := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.other)
	w.Refused(last(w.project.In(plain.ID()).TryCreate("port_forwarding", "%s", w.body(`"internal_port": 1, "external_port": 1`))), fault.Conflict, "FloatingIPPortAlreadyAssociated", "")
	err = create(`{"internal_port_id": %q, "internal_ip_address": %q, "protocol": "udp", "internal_port": 1, "external_port": 1}`, w.other, w.at)
	w.Refused(err, fault.Conflict, "PortHasBindingFloatingIP", "")

	// What forwardings need stays.
	w.Refused(last(w.project.TryAct("router", w.router, "remove_router_interface", `{"subnet_id": %q}`, w.subnet)), fault.Conflict, "RouterInterfaceInUseByFloatingIP", "")
	w.Refused(last(w.project.TryUpdate("router", w.router, `{"external_gateway_info": null}`)), fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "")

	w.Refused(last(in.TryGet("port_forwarding", w.port)), fault.NotFound, "PortForwardingNotFound", "Port Forwarding "+w.port+" could not be found.")
	w.Refused(last(w.project.In(plain.ID()).TryGet("port_forwarding", f.ID())), fault.NotFound, "PortForwardingNotFound", "")
	w.Refused(last(w.As("project2").In(w.floating).TryGet("port_forwarding", f.ID())), fault.NotFound, "FloatingIPNotFound", "")
}
