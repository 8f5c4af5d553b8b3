package ndpproxy_test

import (
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

func last[T any](_ T, err error) error { return err }

func TestProxies(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("host1", exttest.HostOptions{Physical: []string{"public"}})
	admin, project := k.Admin(), k.As("project1")
	scope := admin.Create("address_scope", `{"name": "s", "ip_version": 6, "shared": true}`).ID()
	pool := admin.Create("subnetpool", `{"name": "p", "shared": true, "address_scope_id": %q, "prefixes": ["2001:db8::/48"], "default_prefixlen": 64}`, scope).ID()
	external := admin.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "cidr": "2001:db8::/64", "enable_dhcp": false}`, external, pool)
	plain := admin.Create("network", `{"router:external": true}`).ID()
	admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:1::/64", "enable_dhcp": false}`, plain)
	private := project.Create("network", `{}`).ID()
	subnet := project.Create("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "cidr": "2001:db8:0:5::/64"}`, private, pool).ID()
	foreign := project.Create("network", `{}`).ID()
	foreignSubnet := project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:7::/64"}`, foreign).ID()
	port := project.Create("port", `{"network_id": %q}`, private).ID()

	k.Refused(last(project.TryCreate("router", `{"enable_ndp_proxy": true}`)), fault.Conflict, "RouterGatewayNotValid", "")
	k.Refused(last(project.TryCreate("router", `{"enable_ndp_proxy": true, "external_gateway_info": {"network_id": %q}}`, plain)), fault.Conflict, "RouterGatewayNotValid", "")
	r := project.Create("router", `{"external_gateway_info": {"network_id": %q}}`, external).ID()
	if o := project.Get("router", r); o["enable_ndp_proxy"] != false {
		t.Errorf("router is %v", o)
	}
	create := func(port string, more string) (exttest.Object, error) {
		return project.TryCreate("ndp_proxy", `{"router_id": %q, "port_id": %q`+more+`}`, r, port)
	}
	k.Refused(last(create(port, "")), fault.Conflict, "RouterNDPProxyNotEnable", "The enable_ndp_proxy parameter of router "+r+" must be set as True while create ndp proxy entry on it.")
	if o := project.Update("router", r, `{"enable_ndp_proxy": "true"}`); o["enable_ndp_proxy"] != true {
		t.Errorf("router is %v", o)
	}
	if list := project.List("router", "enable_ndp_proxy", "true"); len(list) != 1 {
		t.Errorf("routers with proxies: %v", list)
	}
	if list := project.List("router", "enable_ndp_proxy", "false"); len(list) != 0 {
		t.Errorf("routers without proxies: %v", list)
	}
	k.Refused(last(create(port, "")), fault.Conflict, "PortUnreachableRouter", "The port "+port+" cannot reach the router "+r+" by IPv6 subnet.")
	project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, subnet)
	project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, foreignSubnet)
	stranger := project.Create("port", `{"network_id": %q}`, foreign).ID()
	k.Refused(last(create(stranger, "")), fault.Conflict, "AddressScopeConflict", "The IPv6 address scope "+scope+" of external network conflict with internal network's IPv6 address scope None.")
	k.Refused(last(create(port, `, "ip_address": "10.0.0.1"`)), fault.Invalid, "InvalidAddress", "")
	k.Refused(last(create(port, `, "ip_address": "2001:db8:0:5::ffff"`)), fault.Invalid, "InvalidAddress", "")
	o, err := create(port, `, "name": "n", "description": "d"`)
	if err != nil {
		t.Fatal(err)
	}
	if o.Text("router_id") != r || o.Text("port_id") != port || o.Text("name") != "n" || o.Text("project_id") != "project1" || o.JSON("revision_number") != "0" {
		t.Errorf("proxy is %v", o)
	}
	k.Refused(last(create(port, "")), fault.Conflict, "NeutronDbObjectDuplicateEntry", "")
	k.Settled()
	m := k.View("host1", message.Kind_KIND_ROUTER)[r].GetRouter()
	if !m.GetEnableNdpProxy() || len(m.GetNdpProxies()) != 1 || m.NdpProxies[0].IpAddress != o.Text("ip_address") {
		t.Errorf("host is told %v", m)
	}
	if got := project.Update("ndp_proxy", o.ID(), `{"name": "m"}`); got.Text("name") != "m" {
		t.Errorf("proxy is %v", got)
	}
	k.Refused(last(project.TryUpdate("router", r, `{"external_gateway_info": {}}`)), fault.Conflict, "RouterGatewayInUseByNDPProxy", "Unable to unset external gateway of router "+r+", There are one or more ndp proxies still in use on the router.")
	k.Refused(last(project.TryAct("router", r, "remove_router_interface", `{"subnet_id": %q}`, subnet)), fault.Conflict, "RouterInterfaceInUseByNDPProxy",
		"Unable to remove subnet "+subnet+" from router "+r+", There are one or more ndp proxies still in use on the subnet.")
	k.Refused(last(k.As("project2").TryGet("ndp_proxy", o.ID())), fault.NotFound, "NDPProxyNotFound", "Ndp proxy "+o.ID()+" could not be found.")
	project.Delete("port", port)
	if list := project.List("ndp_proxy"); len(list) != 0 {
		t.Errorf("proxies of a port that is gone: %v", list)
	}
	k.Refused(last(project.TryUpdate("router", r, `{"enable_ndp_proxy": true, "external_gateway_info": {}}`)), fault.Conflict, "RouterGatewayNotValid", "")
	project.Update("router", r, `{"external_gateway_info": {}}`)
}
