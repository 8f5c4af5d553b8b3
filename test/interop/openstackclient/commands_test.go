package openstackclient

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/test/servertest"
)

// unserved lists the commands whose API is not served, below the reason why.
const unserved = "testdata/commands.unserved"

// TestCommands gives every networking command of the installed clients once:
// those of OpenStackClient and of its plugins for Neutron.
func TestCommands(t *testing.T) {
	names := commands(t)
	server := servertest.Start(t, servertest.Networks)
	function := func(kind, binary string) *message.Function {
		return &message.Function{AgentType: kind, Binary: binary, Topic: "N/A", AvailabilityZone: "nova", Configurations: "{}"}
	}
	server.Host("compute1", servertest.OpenVSwitch("192.0.2.1"), function("DHCP agent", "neutron-dhcp-agent"), function("L3 agent", "neutron-l3-agent")).Attach(t)
	gone := server.Host("compute2", servertest.OpenVSwitch("192.0.2.2"))
	gone.Attach(t)
	gone.Detach()
	s := startWith(t, "OS_AUTH_TYPE=v3password", "OS_AUTH_URL="+identity(t, server.URL)+"/v3", "OS_USERNAME=admin", "OS_PASSWORD=p", "OS_PROJECT_ID="+project,
		"OS_USER_DOMAIN_ID=default", "OS_IDENTITY_API_VERSION=3", "OS_REGION_NAME=r")
	has := func(name, want, format string, args ...any) {
		t.Helper()
		if list := s.column(name, format, args...); !slices.Contains(list, want) {
			t.Errorf("%s: %v lacks %s", s.last, list, want)
		}
	}
	id := func(format string, args ...any) string {
		t.Helper()
		o := s.object(nil, format, args...)
		for _, name := range []string{"id", "ID"} {
			if id, ok := o[name].(string); ok {
				return id
			}
		}
		t.Fatalf("%s: no id in %v", s.last, o)
		return ""
	}

	// Address scopes and pools.
	s.object(object{"ip_version": 4.0, "shared": false}, "address scope create --ip-version 4 scope0")
	s.run("address scope set --name scope1 --share scope0")
	s.object(object{"shared": true}, "address scope show scope1")
	has("Name", "scope1", "address scope list")
	s.object(object{"default_prefixlen": "24"}, "subnet pool create --pool-prefix 10.64.0.0/10 --default-prefix-length 24 --address-scope scope1 pool0")
	s.run("subnet pool set --name pool1 --description d --tag a pool0")
	s.run("subnet pool unset --tag a pool1")
	s.object(object{"description": "d", "tags": "[]"}, "subnet pool show pool1")
	has("Name", "pool1", "subnet pool list")

	// Networks and subnets.
	s.object(object{"name": "net0", "project_id": project}, "network create --project one net0")
	s.run("network set --name net1 --tag a net0")
	s.run("network unset --tag a net1")
	s.object(object{"tags": "[]"}, "network show net1")
	has("Name", "net1", "network list")
	s.object(object{"router:external": true}, "network create --external --default public")
	s.object(object{"cidr": "10.0.0.0/24"}, "subnet create --network net1 --subnet-range 10.0.0.0/24 sub0")
	s.object(object{"cidr": "203.0.113.0/24"}, "subnet create --network public --subnet-range 203.0.113.0/24 --no-dhcp ext")
	s.run("subnet set --name sub1 --tag a sub0")
	s.run("subnet unset --tag a sub1")
	s.object(object{"tags": "[]"}, "subnet show sub1")
	has("Name", "sub1", "subnet list")
	s.object(nil, "network create onboard")
	s.object(nil, "subnet create --network onboard --subnet-range 10.64.7.0/24 onboarded")
	s.run("network onboard subnets onboard pool1")
	pool := id("subnet pool show pool1")
	s.object(object{"subnetpool_id": pool}, "subnet show onboarded")
	has("Network Name", "net1", "ip availability list")
	s.object(object{"used_ips": 0.0}, "ip availability show net1")

	// Segments and their ranges.
	s.object(nil, "network create --provider-network-type vlan --provider-physical-network physnet1 segmented")
	s.object(object{"segmentation_id": 210.0}, "network segment create --network segmented --network-type vlan --physical-network physnet2 --segment 210 segment0")
	s.run("network segment set --name segment1 segment0")
	s.object(object{"physical_network": "physnet2"}, "network segment show segment1")
	has("Name", "segment1", "network segment list --network segmented")
	s.run("network segment delete segment1")
	s.object(object{"minimum": 200000.0, "shared": true}, "network segment range create --network-type vxlan --minimum 200000 --maximum 200010 --shared range0")
	s.run("network segment range set --name range1 --minimum 200000 --maximum 200020 range0")
	s.object(object{"maximum": 200020.0}, "network segment range show range1")
	has("Name", "range1", "network segment range list")
	s.run("network segment range delete range1")

	// Security groups, address groups, packet logs.
	s.object(object{"name": "group0"}, "security group create group0")
	s.run("security group set --name group1 --tag a group0")
	s.run("security group unset --tag a group1")
	s.object(object{"tags": "[]"}, "security group show group1")
	has("Name", "group1", "security group list")
	s.object(object{"addresses": "[192.0.2.0/24]"}, "address group create --address 192.0.2.0/24 addresses0")
	s.run("address group set --name addresses1 --address 198.51.100.0/24 addresses0")
	s.run("address group unset --address 192.0.2.0/24 addresses1")
	s.object(object{"addresses": "[198.51.100.0/24]"}, "address group show addresses1")
	has("Name", "addresses1", "address group list")
	rule := id("security group rule create --protocol tcp --dst-port 80 --remote-address-group addresses1 group1")
	s.object(object{"port_range_min": 80.0}, "security group rule show %s", rule)
	has("ID", rule, "security group rule list group1")
	has("Supported types", "security_group", "network loggable resources list")
	s.object(object{"Event": "ALL", "Name": "log0"}, "network log create --resource-type security_group --resource group1 --event ALL log0")
	s.run("network log set --name log1 --disable log0")
	s.object(object{"Enabled": false}, "network log show log1")
	has("Name", "log1", "network log list")
	s.run("network log delete log1")
	s.run("security group rule delete %s", rule)
	s.run("address group delete addresses1")

	// Ports and trunks.
	s.object(nil, "port create --network net1 --fixed-ip ip-address=10.0.0.30 --security-group group1 port0")
	s.run("port set --name port1 --tag a port0")
	s.run("port unset --tag a --security-group group1 port1")
	port := id("port show port1")
	has("Name", "port1", "port list")
	s.object(nil, "port create --network net1 parent")
	sub := id("port create --network net1 sub")
	s.object(object{"name": "trunk0"}, "network trunk create --parent-port parent --subport port=sub,segmentation-type=vlan,segmentation-id=5 trunk0")
	has("Port", sub, "network subport list --trunk trunk0")
	s.run("network trunk unset --subport sub trunk0")
	s.run("network trunk set --name trunk1 trunk0")
	s.object(object{"sub_ports": "[]"}, "network trunk show trunk1")
	has("Name", "trunk1", "network trunk list")
	s.run("network trunk delete trunk1")
	s.run("security group delete group1")

	// Local IPs.
	s.object(nil, "local ip create --network net1 --local-ip-address 10.0.0.99 --name local0")
	s.run("local ip set --name local1 local0")
	s.object(object{"local_ip_address": "10.0.0.99"}, "local ip show local1")
	has("Name", "local1", "local ip list")
	s.object(object{"fixed_ip": "10.0.0.30"}, "local ip association create local1 port1")
	has("Fixed port ID", port, "local ip association list local1")
	s.run("local ip association delete local1 %s", port)
	s.run("local ip delete local1")

	// Routers.
	s.object(nil, "router create router0")
	s.run("router set --name router1 --external-gateway public --tag a router0")
	s.run("router unset --tag a router1")
	s.run("router add subnet router1 sub1")
	s.object(object{"routes": "[map[destination:10.9.0.0/16 nexthop:10.0.0.9]]"}, "router add route --route destination=10.9.0.0/16,gateway=10.0.0.9 router1")
	s.object(object{"name": "router1"}, "router show router1")
	s.object(object{"routes": "[]"}, "router remove route --route destination=10.9.0.0/16,gateway=10.0.0.9 router1")
	s.object(nil, "network create net2")
	s.object(nil, "subnet create --network net2 --subnet-range 10.2.0.0/24 sub2")
	s.object(nil, "port create --network net2 inner")
	s.run("router add port router1 inner")
	s.run("router remove port router1 inner")
	has("Name", "router1", "router list")
	helper := id("network l3 conntrack helper create --helper tftp --protocol udp --port 69 router1")
	s.run("network l3 conntrack helper set --port 70 router1 %s", helper)
	s.object(object{"port": 70.0}, "network l3 conntrack helper show router1 %s", helper)
	has("ID", helper, "network l3 conntrack helper list router1")
	s.run("network l3 conntrack helper delete router1 %s", helper)

	// Floating IPs.
	floating := id("floating ip create --floating-ip-address 203.0.113.50 public")
	s.run("floating ip set --port port1 %s", floating)
	s.object(object{"fixed_ip_address": "10.0.0.30"}, "floating ip show %s", floating)
	s.run("floating ip unset --port %s", floating)
	has("Floating IP Address", "203.0.113.50", "floating ip list")
	forwarding := id("floating ip port forwarding create --internal-ip-address 10.0.0.30 --port port1 --internal-protocol-port 80 --external-protocol-port 8080 --protocol tcp %s", floating)
	s.run("floating ip port forwarding set --internal-protocol-port 81 %s %s", floating, forwarding)
	s.object(object{"internal_port": 81.0}, "floating ip port forwarding show %s %s", floating, forwarding)
	has("ID", forwarding, "floating ip port forwarding list %s", floating)
	s.run("floating ip port forwarding delete %s %s", floating, forwarding)
	s.run("floating ip delete %s", floating)

	// QoS.
	s.object(nil, "network qos policy create policy0")
	s.run("network qos policy set --name policy1 --description d policy0")
	limit := id("network qos rule create --type bandwidth-limit --max-kbps 1000 --max-burst-kbits 100 --egress policy1")
	s.run("network qos rule set --max-kbps 2000 policy1 %s", limit)
	s.object(object{"max_kbps": 2000.0}, "network qos rule show policy1 %s", limit)
	has("ID", limit, "network qos rule list policy1")
	s.run("network qos rule delete policy1 %s", limit)
	s.object(object{"rules": "[]"}, "network qos policy show policy1")
	has("Name", "policy1", "network qos policy list")
	has("Type", "bandwidth_limit", "network qos rule type list")
	s.object(object{"rule_type_name": "bandwidth_limit"}, "network qos rule type show bandwidth_limit")
	s.run("network qos policy delete policy1")

	// Metering.
	s.object(object{"name": "meter"}, "network meter create meter")
	metered := id("network meter rule create --ingress --source-ip-prefix 10.0.0.0/24 meter")
	s.object(object{"direction": "ingress"}, "network meter rule show %s", metered)
	has("ID", metered, "network meter rule list")
	s.run("network meter rule delete %s", metered)
	s.object(object{"name": "meter"}, "network meter show meter")
	has("Name", "meter", "network meter list")
	s.run("network meter delete meter")

	// Flavors.
	has("Service Type", "L3_ROUTER_NAT", "network service provider list")
	s.object(nil, "network flavor create --service-type L3_ROUTER_NAT flavor0")
	s.run("network flavor set --name flavor1 --disable flavor0")
	s.object(object{"enabled": false}, "network flavor show flavor1")
	has("Name", "flavor1", "network flavor list")
	profile := id("network flavor profile create --metainfo m --description d")
	s.run("network flavor profile set --description e %s", profile)
	s.object(object{"description": "e"}, "network flavor profile show %s", profile)
	has("ID", profile, "network flavor profile list")
	s.run("network flavor add profile flavor1 %s", profile)
	s.run("network flavor remove profile flavor1 %s", profile)
	s.run("network flavor profile delete %s", profile)
	s.run("network flavor delete flavor1")

	// RBAC policies.
	shared := id("network rbac create --type network --action access_as_shared --target-project two net1")
	s.run("network rbac set --target-project one %s", shared)
	s.object(object{"target_project_id": project}, "network rbac show %s", shared)
	has("ID", shared, "network rbac list")
	s.run("network rbac delete %s", shared)

	// Agents.
	dhcp := s.column("ID", "network agent list --agent-type dhcp")[0]
	l3 := s.column("ID", "network agent list --agent-type l3")[0]
	s.object(nil, "network create scheduled")
	s.run("network agent add network --dhcp %s scheduled", dhcp)
	has("Name", "scheduled", "network list --agent %s", dhcp)
	s.run("network agent remove network --dhcp %s scheduled", dhcp)
	s.object(nil, "router create hosted")
	s.run("network agent add router --l3 %s hosted", l3)
	has("Name", "hosted", "router list --agent %s", l3)
	s.run("network agent remove router --l3 %s hosted", l3)
	s.run("network agent set --description d %s", l3)
	s.object(object{"description": "d"}, "network agent show %s", l3)
	lost := s.column("ID", "network agent list --host compute2")[0]
	s.run("network agent delete %s", lost)

	// A topology of one's own.
	s.object(nil, "subnet pool create --pool-prefix 10.128.0.0/16 --default-prefix-length 24 --default --share standard")
	s.object(nil, "network auto allocated topology create --check-resources")
	s.object(nil, "network auto allocated topology create")
	s.run("network auto allocated topology delete")

	// And away.
	s.run("router remove subnet router1 sub1")
	s.run("router delete router1 hosted")
	s.run("port delete port1 parent sub")
	s.run("subnet delete sub1 sub2 onboarded")
	s.run("network delete net1 net2 onboard segmented scheduled public")
	s.run("subnet pool delete pool1 standard")
	s.run("address scope delete scope1")
	if list := s.column("Name", "network list"); len(list) != 0 {
		t.Errorf("left: %v", list)
	}

	reasons := readReasons(t)
	given, scope := 0, 0
	for _, name := range names {
		_, listed := reasons[name]
		delete(reasons, name)
		switch {
		case s.given(name, names) && listed:
			t.Errorf("%s: the test gives it; %s says that it cannot", name, unserved)
		case listed:
			continue
		case s.given(name, names):
			given++
		default:
			t.Errorf("%s: the test does not give it, and %s has no reason", name, unserved)
		}
		scope++
	}
	t.Logf("%d of %d commands are given and answered; %d more are of what is not served, as %s tells", given, scope, len(names)-scope, unserved)
	for name := range reasons {
		t.Logf("%s: not among the installed commands: %s", unserved, name)
	}
}

// commands are the names of all networking commands of the installed clients.
func commands(t *testing.T) []string {
	t.Helper()
	out := python(t, client(t), nil, `
from importlib.metadata import entry_points
e = entry_points()
for group in ("openstack.network.v2", "openstack.neutronclient.v2"):
    for x in (e.select(group=group) if hasattr(e, "select") else e.get(group, [])):
        print(group, x.name.replace("_", " "))
`)
	if !strings.Contains(out, "openstack.neutronclient.v2 ") {
		t.Skip("skipped: there is no python3-neutronclient, which has a part of the commands")
	}
	names := []string{}
	for line := range strings.Lines(out) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) < 100 {
		t.Fatalf("the clients have %d commands only: %v", len(names), names)
	}
	slices.Sort(names)
	return names
}

// given tells whether a command was run; of two that a line may begin with, the longer one was.
func (s *session) given(name string, names []string) bool {
	return slices.ContainsFunc(s.lines, func(line string) bool {
		longest := ""
		for _, n := range names {
			if strings.HasPrefix(line+" ", n+" ") && len(n) > len(longest) {
				longest = n
			}
		}
		return longest == name
	})
}

func readReasons(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(unserved)
	if err != nil {
		t.Fatal(err)
	}
	reasons, reason := map[string]string{}, ""
	for i, line := range strings.Split(string(raw), "\n") {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "## "):
			reason = line[3:]
		case reason == "":
			t.Fatal(fmt.Errorf("%s:%d: before the first reason", unserved, i+1))
		default:
			reasons[line] = reason
		}
	}
	return reasons
}
