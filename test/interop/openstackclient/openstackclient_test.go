package openstackclient

import (
	"fmt"
	"slices"
	"testing"

	message "isospin/api/feed"
	"isospin/test/servertest"
)

type object = map[string]any

func TestClient(t *testing.T) {
	server := servertest.Start(t, servertest.Networks)
	h := server.Host("compute1", servertest.OpenVSwitch("192.0.2.1"),
		&message.Function{AgentType: "DHCP agent", Binary: "neutron-dhcp-agent", Topic: "N/A", AvailabilityZone: "nova", Configurations: "{}"},
		&message.Function{AgentType: "L3 agent", Binary: "neutron-l3-agent", Topic: "N/A", AvailabilityZone: "nova", Configurations: "{}"})
	h.Attach(t)
	s := start(t, server.URL)
	same := func(what string, have []string, want ...string) {
		t.Helper()
		if !slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: %v, want %v", what, have, want)
		}
	}

	// Extensions and agents.
	aliases := s.column("Alias", "extension list --network")
	if !slices.Contains(aliases, "security-group") || len(aliases) != len(server.Core.Registry.Extensions()) {
		t.Errorf("extensions: %v", aliases)
	}
	same("agents", s.column("Agent Type", "network agent list"), "Open vSwitch agent", "DHCP agent", "L3 agent")
	agents := s.column("ID", "network agent list --host compute1 --agent-type open-vswitch")
	s.object(object{"alive": true, "admin_state_up": true, "host": "compute1", "binary": "neutron-openvswitch-agent"}, "network agent show %s", agents[0])
	s.run("network agent set --disable --description mended %s", agents[0])
	s.object(object{"admin_state_up": false, "description": "mended"}, "network agent show %s", agents[0])
	s.run("network agent set --enable %s", agents[0])

	// Networks.
	s.object(object{"name": "net1", "admin_state_up": true, "status": "ACTIVE", "mtu": 1400, "description": "first", "port_security_enabled": true, "tags": "[]"},
		"network create --description first --mtu 1400 net1")
	s.object(object{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 123, "router:external": true, "shared": true},
		"network create --provider-network-type vlan --provider-physical-network physnet1 --provider-segment 123 --external --share public")
	s.fails("The VLAN 123 on physical network physnet1 is in use", "network create --provider-network-type vlan --provider-physical-network physnet1 --provider-segment 123 taken")
	s.fails("No Network found for none-such", "network show none-such")
	same("networks", s.column("Name", "network list"), "net1", "public")
	same("external networks", s.column("Name", "network list --external"), "public")
	s.run("network set --name net2 --disable --tag red --tag blue net1")
	s.object(object{"name": "net2", "admin_state_up": false, "tags": "[blue red]"}, "network show net2")
	same("networks by tags", s.column("Name", "network list --tags red,blue"), "net2")
	s.run("network unset --tag red net2")
	s.run("network set --enable --no-share public")
	s.object(object{"tags": "[blue]"}, "network show net2")

	// Subnets.
	s.object(object{"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.254", "enable_dhcp": true, "dns_nameservers": "[10.0.0.53]"},
		"subnet create --network net2 --subnet-range 10.0.0.0/24 --gateway 10.0.0.254 --allocation-pool start=10.0.0.10,end=10.0.0.20 --dns-nameserver 10.0.0.53 --host-route destination=10.8.0.0/16,gateway=10.0.0.9 sub1")
	s.object(object{"gateway_ip": nil, "enable_dhcp": false, "ip_version": 4}, "subnet create --network public --subnet-range 203.0.113.0/24 --gateway none --no-dhcp ext")
	s.object(object{"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac", "gateway_ip": "2001:db8::1"},
		"subnet create --network net2 --ip-version 6 --subnet-range 2001:db8::/64 --ipv6-ra-mode slaac --ipv6-address-mode slaac sub6")
	s.fails("overlaps with another subnet", "subnet create --network net2 --subnet-range 10.0.0.0/25 over")
	s.run("subnet set --dns-nameserver 10.0.0.54 --name sub4 --tag t sub1")
	s.object(object{"dns_nameservers": "[10.0.0.54 10.0.0.53]", "tags": "[t]"}, "subnet show sub4")
	s.run("subnet unset --dns-nameserver 10.0.0.53 --host-route destination=10.8.0.0/16,gateway=10.0.0.9 sub4")
	s.object(object{"dns_nameservers": "[10.0.0.54]", "host_routes": "[]"}, "subnet show sub4")
	same("subnets", s.column("Name", "subnet list --network net2"), "sub4", "sub6")
	same("subnets by version", s.column("Name", "subnet list --ip-version 6"), "sub6")
	s.run("subnet set --gateway 203.0.113.1 --no-allocation-pool --allocation-pool start=203.0.113.100,end=203.0.113.200 ext")
	s.object(object{"gateway_ip": "203.0.113.1", "allocation_pools": "[map[end:203.0.113.200 start:203.0.113.100]]"}, "subnet show ext")

	// Security groups.
	group := s.object(object{"name": "web", "stateful": true}, "security group create --description x web")
	rule := s.object(object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 81, "remote_ip_prefix": "192.0.2.0/24", "ether_type": "IPv4", "direction": "ingress"},
		"security group rule create --protocol tcp --dst-port 80:81 --remote-ip 192.0.2.0/24 web")
	s.object(object{"protocol": "ipv6-icmp", "port_range_min": 128, "ether_type": "IPv6"}, "security group rule create --protocol ipv6-icmp --icmp-type 128 --ethertype IPv6 web")
	s.object(object{"remote_group_id": group["id"]}, "security group rule create --protocol udp --dst-port 53 --remote-group web web")
	s.fails("Security group rule already exists", "security group rule create --protocol tcp --dst-port 80:81 --remote-ip 192.0.2.0/24 web")
	if rules := s.column("ID", "security group rule list web"); len(rules) != 5 {
		t.Errorf("rules: %v", rules)
	}
	s.run("security group rule delete %s", rule["id"])
	s.run("security group set --name www --tag t web")
	s.object(object{"name": "www", "tags": "[t]"}, "security group show www")
	if groups := s.column("Name", "security group list"); !slices.Contains(groups, "www") || !slices.Contains(groups, "default") {
		t.Errorf("groups: %v", groups)
	}

	// Ports.
	s.object(object{"device_owner": "compute:nova", "binding_vif_type": "ovs", "binding_host_id": "compute1", "mac_address": "fa:16:3e:00:00:01", "security_group_ids": fmt.Sprintf("[%s]", group["id"])},
		"port create --network net2 --fixed-ip subnet=sub4,ip-address=10.0.0.30 --mac-address fa:16:3e:00:00:01 --device-owner compute:nova --host compute1 --security-group www --allowed-address ip-address=10.0.0.99 --tag p p1")
	s.object(object{"port_security_enabled": false, "security_group_ids": "[]"}, "port create --network net2 --no-security-group --disable-port-security p2")
	same("ports by address", s.column("Name", "port list --fixed-ip ip-address=10.0.0.30"), "p1")
	same("ports by part of an address", s.column("Name", "port list --fixed-ip ip-substring=0.0.30"), "p1")
	same("ports by host", s.column("Name", "port list --host compute1"), "p1")
	same("ports by owner", s.column("Name", "port list --device-owner compute:nova --long"), "p1")
	s.run("port set --name p3 --description d --security-group default --extra-dhcp-option name=bootfile-name,value=pxelinux.0 p1")
	s.object(object{"description": "d", "tags": "[p]"}, "port show p3")
	s.run("port unset --security-group www --allowed-address ip-address=10.0.0.99,mac-address=fa:16:3e:00:00:01 --tag p p3")
	s.object(object{"allowed_address_pairs": "[]", "tags": "[]"}, "port show p3")
	s.run("port set --no-fixed-ip --fixed-ip subnet=sub4,ip-address=10.0.0.31 p3")
	same("ports at the new address", s.column("Name", "port list --fixed-ip ip-address=10.0.0.31"), "p3")
	s.fails("10.0.0.31 already allocated", "port create --network net2 --fixed-ip ip-address=10.0.0.31 p4")

	// Routers.
	s.object(object{"name": "r1", "status": "ACTIVE", "external_gateway_info": nil}, "router create r1")
	s.run("router add subnet r1 sub4")
	s.run("router set --external-gateway public --fixed-ip subnet=ext,ip-address=203.0.113.150 r1")
	s.run("router set --route destination=10.9.0.0/16,gateway=10.0.0.9 --description edge --tag r r1")
	router := s.object(object{"description": "edge", "routes": "[map[destination:10.9.0.0/16 nexthop:10.0.0.9]]", "tags": "[r]"}, "router show r1")
	if gateway, ok := router["external_gateway_info"].(map[string]any); !ok || gateway["enable_snat"] != true {
		t.Errorf("gateway: %v", router["external_gateway_info"])
	}
	if interfaces, ok := router["interfaces_info"].([]any); !ok || len(interfaces) != 1 {
		t.Errorf("interfaces: %v", router["interfaces_info"])
	}
	same("routers", s.column("Name", "router list"), "r1")
	if ports := s.column("ID", "port list --router r1"); len(ports) != 2 {
		t.Errorf("the router's ports: %v", ports)
	}
	s.fails("has ports still attached", "router delete r1")

	// Floating IPs.
	floating := s.object(object{"floating_ip_address": "203.0.113.160", "status": "DOWN", "port_id": nil}, "floating ip create --floating-ip-address 203.0.113.160 --tag f public")
	s.run("floating ip set --port p3 203.0.113.160")
	s.object(object{"fixed_ip_address": "10.0.0.31", "router_id": router["id"], "tags": "[f]"}, "floating ip show %s", floating["id"])
	same("floating IPs", s.column("Floating IP Address", "floating ip list --router r1"), "203.0.113.160")
	s.fails("floating IP", "router unset --external-gateway r1")
	s.run("floating ip unset --port 203.0.113.160")
	s.object(object{"fixed_ip_address": nil, "port_id": nil}, "floating ip show %s", floating["id"])
	s.run("floating ip delete 203.0.113.160")
	same("floating IPs", s.column("ID", "floating ip list"))

	// And all of it away again.
	s.run("router unset --route destination=10.9.0.0/16,gateway=10.0.0.9 r1")
	s.run("router unset --external-gateway r1")
	s.run("router remove subnet r1 sub4")
	s.run("router delete r1")
	same("routers", s.column("ID", "router list"))
	s.fails("one or more ports still in use on the network", "network delete net2")
	s.run("port delete p2 p3")
	s.run("subnet delete sub6")
	s.run("security group delete www")
	s.run("network delete net2 public")
	same("networks", s.column("ID", "network list"))
	same("subnets", s.column("ID", "subnet list"))
	same("ports", s.column("ID", "port list"))
}

// TestQuota: the command's quota commands ask the identity service for the
// project first, which is not there without authentication. The library that
// the command is made with sends the same requests.
func TestQuota(t *testing.T) {
	server := servertest.Start(t, servertest.Networks)
	out := library(t, server.URL, `
q = c.network.update_quota("p1", networks=7, ports=-1)
print(q.networks, q.ports, q.subnets)
print(c.network.get_quota("p1").networks, c.network.get_quota_default("p1").networks, [x.project_id for x in c.network.quotas()])
d = c.network.get_quota("p1", details=True)
print(d.networks["used"], d.networks["limit"])
c.network.delete_quota("p1")
print(c.network.get_quota("p1").networks)
n = c.network.create_network(name="n", is_admin_state_up=False)
c.network.update_network(n, if_revision=n.revision_number, name="m")
try:
    c.network.update_network(n, if_revision=99, name="k")
except Exception as e:
    print(e.status_code)
c.network.set_tags(n, ["a", "b"])
print([x.name for x in c.network.networks(tags="a,b")], [x.name for x in c.network.networks(limit=1)], c.network.find_extension("router").alias)
`)
	const want = "7 -1 100\n7 100 ['p1']\n0 7\n100\n412\n['m'] ['m'] router\n"
	if out != want {
		t.Errorf("%s\nwant: %s", out, want)
	}
}
