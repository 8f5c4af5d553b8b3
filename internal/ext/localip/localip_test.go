package localip_test

import (
	"fmt"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const unknown = "00000000-0000-4000-8000-000000000000"

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// A local IP is an address of a port, or gets a port of its own; hosts hear of
// the ports that are associated with it.
func TestLocalIP(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("h1", exttest.HostOptions{})
	stream := k.Attach("h1")
	c := k.As("project1")
	network := c.Create("network", `{"name": "n"}`).ID()
	c.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "enable_dhcp": false}`, network)
	own := c.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.9"}]}`, network).ID()
	byPort := c.Create("local_ip", `{"local_port_id": %q, "name": "a"}`, own)
	equal(t, "by port", byPort.Text("local_ip_address")+byPort.Text("ip_mode")+byPort.Text("network_id"), "10.0.0.9translate"+network)
	l := c.Create("local_ip", `{"network_id": %q, "local_ip_address": "10.0.0.8", "ip_mode": "passthrough", "description": "d"}`, network)
	hidden := k.Admin().Get("port", l.Text("local_port_id"))
	equal(t, "port made", hidden.Text("device_owner")+" "+hidden.JSON("device_id")+" "+hidden.Text("project_id"), fmt.Sprintf("network:local_ip %q project1", l.ID()))
	c.Update("local_ip", l.ID(), `{"name": "b"}`)
	equal(t, "updated", c.Get("local_ip", l.ID()).Text("name"), "b")
	if list := c.List("local_ip", "local_ip_address", "10.0.0.8"); len(list) != 1 || list[0].ID() != l.ID() {
		t.Errorf("listed: %v", list)
	}

	fixed := c.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, network).ID()
	in := c.In(l.ID())
	a := in.Create("port_association", `{"fixed_port_id": %q}`, fixed)
	want := fmt.Sprintf(`map[fixed_ip:10.0.0.5 fixed_port_id:%s host: local_ip_address:10.0.0.8 local_ip_id:%s]`, fixed, l.ID())
	equal(t, "association", fmt.Sprint(map[string]any(a)), want)
	equal(t, "association shown", fmt.Sprint(map[string]any(in.Get("port_association", fixed))), want)
	k.Admin().Update("port", fixed, `{"binding:host_id": "h1"}`)
	equal(t, "host", in.Get("port_association", fixed).Text("host"), "h1")
	told := func() string {
		t.Helper()
		stream.Agrees()
		return fmt.Sprint(k.View("h1", message.Kind_KIND_PORT)[fixed].GetPort().GetLocalIps())
	}
	equal(t, "told", told(), fmt.Sprint([]*message.LocalIP{{Id: l.ID(), LocalIpAddress: "10.0.0.8", FixedIpAddress: "10.0.0.5", IpMode: "passthrough", NetworkId: network}}))
	if list := in.List("port_association", "host", "h1"); len(list) != 1 {
		t.Errorf("associations: %v", list)
	}
	c.In(byPort.ID()).Create("port_association", `{"fixed_port_id": %q, "fixed_ip": "10.0.0.5"}`, fixed)
	in.Delete("port_association", fixed)
	equal(t, "told of the other", told(), fmt.Sprint([]*message.LocalIP{{Id: byPort.ID(), LocalIpAddress: "10.0.0.9", FixedIpAddress: "10.0.0.5", IpMode: "translate", NetworkId: network}}))
	_, err := in.TryGet("port_association", fixed)
	k.Refused(err, fault.NotFound, "LocalIPAssociationNotFound", "Local IP "+l.ID()+" association with port "+fixed+" could not be found.")
	k.Refused(in.TryDelete("port_association", fixed), fault.NotFound, "LocalIPAssociationNotFound", "")

	k.Refused(c.TryDelete("local_ip", byPort.ID()), fault.Conflict, "LocalIPInUse", "Local IP "+byPort.ID()+" is still associated with one or more ports.")
	for _, id := range []string{own, hidden.ID()} {
		k.Refused(k.Admin().TryDelete("port", id), fault.Conflict, "ServicePortInUse", "Port "+id+" cannot be deleted directly via the port API: still referenced by Local IPs.")
	}
	c.Delete("port", fixed)
	stream.Agrees()
	c.Delete("local_ip", byPort.ID())
	c.Delete("local_ip", l.ID())
	if _, err := k.Admin().TryGet("port", hidden.ID()); err == nil {
		t.Error("the port of a deleted local IP is still there")
	}
	c.Delete("port", own)
}

func TestErrors(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	c := k.As("project1")
	network := c.Create("network", `{"name": "n"}`).ID()
	bare := c.Create("port", `{"network_id": %q}`, network).ID()
	create := func(body string, args ...any) error {
		_, err := c.TryCreate("local_ip", body, args...)
		return err
	}
	k.Refused(create(`{}`), fault.Invalid, "LocalIPPortOrNetworkRequired", "Either Port ID or Network ID must be specified for Local IP create.")
	k.Refused(create(`{"local_port_id": %q}`, unknown), fault.Invalid, "BadRequest", "Bad local_ip request: Port "+unknown+" not found.")
	k.Refused(create(`{"network_id": %q}`, unknown), fault.NotFound, "NetworkNotFound", "")
	k.Refused(create(`{"network_id": %q}`, network), fault.Invalid, "BadRequest", "Bad local_ip request: Network "+network+" does not contain any IPv4 subnet.")
	k.Refused(create(`{"local_port_id": %q}`, bare), fault.Invalid, "LocalIPNoIP", "Specified Port "+bare+" has no fixed IPs configured.")
	c.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, network)
	p := c.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "10.0.0.6"}]}`, network).ID()
	k.Refused(create(`{"local_port_id": %q}`, p), fault.Invalid, "LocalIPNoRequestedIP", "Specified Port "+p+" has several IPs, should specify exact IP address to use for Local IP.")
	k.Refused(create(`{"local_port_id": %q, "local_ip_address": "10.0.0.7"}`, p), fault.Invalid, "LocalIPRequestedIPNotFound", "Specified Port "+p+" does not have requested IP address: 10.0.0.7.")
	k.Refused(create(`{"network_id": %q, "local_ip_address": "10.9.0.7"}`, network), fault.Invalid, "InvalidIpForNetwork", "")
	l := c.Create("local_ip", `{"local_port_id": %q, "local_ip_address": "10.0.0.6"}`, p)
	associate := func(body string, args ...any) error {
		_, err := c.In(l.ID()).TryCreate("port_association", body, args...)
		return err
	}
	k.Refused(associate(`{"fixed_port_id": %q}`, unknown), fault.Invalid, "BadRequest", "Bad local_ip_port_association request: Port "+unknown+" not found.")
	k.Refused(associate(`{"fixed_port_id": %q}`, p), fault.Invalid, "LocalIPNoRequestedIP", "")
	k.Refused(associate(`{"fixed_port_id": %q}`, bare), fault.Invalid, "LocalIPNoIP", "")
	if err := associate(`{"fixed_port_id": %q, "fixed_ip": "10.0.0.5"}`, p); err != nil {
		t.Fatal(err)
	}
	k.Refused(associate(`{"fixed_port_id": %q, "fixed_ip": "10.0.0.5"}`, p), fault.Conflict, "Conflict", "")
	_, err := k.As("project2").TryGet("local_ip", l.ID())
	k.Refused(err, fault.NotFound, "LocalIPNotFound", "Local IP "+l.ID()+" could not be found.")
	_, err = k.As("project2").In(l.ID()).TryGet("port_association", p)
	k.Refused(err, fault.NotFound, "LocalIPNotFound", "")
}
