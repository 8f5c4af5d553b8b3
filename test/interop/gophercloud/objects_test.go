package gophercloud

import (
	"context"
	"net/http"
	"testing"

	sdk "github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/apiversions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/addressscopes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/portforwarding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portstrustedvif"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/policies"
	qosrules "github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/ruletypes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/rbacpolicies"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/addressgroups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/segments"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/subnetpools"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunk_details"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"

	message "isospin/api/feed"
	"isospin/test/servertest"
)

// TestObjects shows each kind of object alone, and calls what else is done to one.
func TestObjects(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	function := func(kind, binary string) *message.Function {
		return &message.Function{AgentType: kind, Binary: binary, Topic: "N/A", AvailabilityZone: "nova", Configurations: "{}"}
	}
	s.Host("host1", servertest.OpenVSwitch("10.9.0.1"), function("DHCP agent", "neutron-dhcp-agent"), function("L3 agent", "neutron-l3-agent")).Attach(t)
	lost := s.Host("host2", servertest.OpenVSwitch("10.9.0.2"))
	lost.Attach(t)
	lost.Detach()
	c, ctx := client(s), context.Background()
	id := func(path, body string) string {
		t.Helper()
		id, _ := s.Must(t, http.StatusCreated, "POST", path, body)["id"].(string)
		return id
	}
	same := func(what, have, want string) {
		t.Helper()
		if have != want {
			t.Errorf("%s is %q, want %q", what, have, want)
		}
	}
	on := true

	must[pagination.Page](t)(apiversions.ListVersionResources(c, "v2.0").AllPages(ctx))
	must[pagination.Page](t)(extensions.List(c).AllPages(ctx))
	if x, err := extensions.Get(ctx, c, "router").Extract(); err != nil || x.Alias != "router" {
		t.Errorf("extension: %+v, %v", x, err)
	}

	// Networks, subnets and what they are made of.
	n := id("/networks", `{"network": {"name": "n"}}`)
	same("network", must[*networks.Network](t)(networks.Get(ctx, c, n).Extract()).ID, n)
	sub := id("/subnets", `{"subnet": {"network_id": "`+n+`", "ip_version": 4, "cidr": "10.0.0.0/24"}}`)
	same("subnet", must[*subnets.Subnet](t)(subnets.Get(ctx, c, sub).Extract()).CIDR, "10.0.0.0/24")
	scope := id("/address-scopes", `{"address_scope": {"name": "s", "ip_version": 4}}`)
	same("address scope", must[*addressscopes.AddressScope](t)(addressscopes.Get(ctx, c, scope).Extract()).ID, scope)
	pool := id("/subnetpools", `{"subnetpool": {"name": "p", "prefixes": ["10.64.0.0/10"]}}`)
	same("subnet pool", must[*subnetpools.SubnetPool](t)(subnetpools.Get(ctx, c, pool).Extract()).ID, pool)
	vlan := id("/networks", `{"network": {"name": "v", "provider:network_type": "vlan", "provider:physical_network": "physnet1"}}`)
	segment := id("/segments", `{"segment": {"network_id": "`+vlan+`", "network_type": "vlan", "physical_network": "physnet2", "segmentation_id": 77}}`)
	same("segment", must[*segments.Segment](t)(segments.Get(ctx, c, segment).Extract()).ID, segment)
	shared := id("/rbac-policies", `{"rbac_policy": {"object_type": "network", "object_id": "`+n+`", "action": "access_as_shared", "target_tenant": "*"}}`)
	same("RBAC policy", must[*rbacpolicies.RBACPolicy](t)(rbacpolicies.Get(ctx, c, shared).Extract()).ObjectID, n)
	if q := must[*quotas.Quota](t)(quotas.Get(ctx, c, "p").Extract()); q.Network != 100 {
		t.Errorf("quota: %+v", q)
	}

	// Security groups.
	g := id("/security-groups", `{"security_group": {"name": "g"}}`)
	same("security group", must[*groups.SecGroup](t)(groups.Get(ctx, c, g).Extract()).Name, "g")
	r := id("/security-group-rules", `{"security_group_rule": {"security_group_id": "`+g+`", "direction": "ingress", "ethertype": "IPv4"}}`)
	same("security group rule", must[*rules.SecGroupRule](t)(rules.Get(ctx, c, r).Extract()).SecGroupID, g)
	a := id("/address-groups", `{"address_group": {"name": "a", "addresses": ["192.0.2.0/24"]}}`)
	name := "b"
	same("address group", must[*addressgroups.AddressGroup](t)(addressgroups.Update(ctx, c, a, addressgroups.UpdateOpts{Name: &name}).Extract()).Name, name)
	same("address group", must[*addressgroups.AddressGroup](t)(addressgroups.Get(ctx, c, a).Extract()).Name, name)

	// Ports with attributes of extensions, and trunks.
	type port struct {
		ports.Port
		portstrustedvif.PortTrustedVIFExt
		trunk_details.TrunkDetailsExt
	}
	var parent, child port
	good(t, ports.Create(ctx, c, portstrustedvif.PortCreateOptsExt{PortTrustedVIF: &on, CreateOptsBuilder: ports.CreateOpts{NetworkID: n}}).ExtractInto(&parent))
	if parent.PortTrustedVIF == nil || !*parent.PortTrustedVIF {
		t.Errorf("port: %+v", parent)
	}
	good(t, ports.Create(ctx, c, ports.CreateOpts{NetworkID: n}).ExtractInto(&child))
	trunk := must[*trunks.Trunk](t)(trunks.Create(ctx, c, trunks.CreateOpts{PortID: parent.ID, Subports: []trunks.Subport{{PortID: child.ID, SegmentationType: "vlan", SegmentationID: 7}}}).Extract())
	same("trunk", must[*trunks.Trunk](t)(trunks.Get(ctx, c, trunk.ID).Extract()).PortID, parent.ID)
	good(t, ports.Get(ctx, c, parent.ID).ExtractInto(&parent))
	if d := parent.TrunkDetails; d.TrunkID != trunk.ID || len(d.SubPorts) != 1 || d.SubPorts[0].MACAddress != child.MACAddress {
		t.Errorf("details of the trunk: %+v", d)
	}

	// Routers, floating IPs, port forwardings.
	e := id("/networks", `{"network": {"name": "e", "router:external": true}}`)
	id("/subnets", `{"subnet": {"network_id": "`+e+`", "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": false}}`)
	router := id("/routers", `{"router": {"name": "r"}}`)
	at := func(address string) []routers.GatewayInfo {
		return []routers.GatewayInfo{{NetworkID: e, ExternalFixedIPs: []routers.ExternalFixedIP{{IPAddress: address}}}}
	}
	_, err := routers.AddExternalGateways(ctx, c, router, routers.AddExternalGatewaysOpts{ExternalGateways: append(at("203.0.113.20"), at("203.0.113.21")...)}).Extract()
	good(t, err)
	_, err = routers.RemoveExternalGateways(ctx, c, router, routers.RemoveExternalGatewaysOpts{ExternalGateways: at("203.0.113.21")}).Extract()
	good(t, err)
	_, err = routers.UpdateExternalGateways(ctx, c, router, routers.UpdateExternalGatewaysOpts{ExternalGateways: at("203.0.113.20")}).Extract()
	good(t, err)
	same("gateway", must[*routers.Router](t)(routers.Get(ctx, c, router).Extract()).GatewayInfo.ExternalFixedIPs[0].IPAddress, "203.0.113.20")
	s.Must(t, http.StatusOK, "PUT", "/routers/"+router+"/add_router_interface", `{"subnet_id": "`+sub+`"}`)
	f := id("/floatingips", `{"floatingip": {"floating_network_id": "`+e+`"}}`)
	same("floating IP", must[*floatingips.FloatingIP](t)(floatingips.Get(ctx, c, f).Extract()).FloatingNetworkID, e)
	forwarding := must[*portforwarding.PortForwarding](t)(portforwarding.Create(ctx, c, f, portforwarding.CreateOpts{InternalPortID: child.ID, InternalIPAddress: child.FixedIPs[0].IPAddress, InternalPort: 80, ExternalPort: 8080, Protocol: "tcp"}).Extract())
	same("port forwarding", must[*portforwarding.PortForwarding](t)(portforwarding.Get(ctx, c, f, forwarding.ID).Extract()).InternalPortID, child.ID)

	// QoS.
	p := id("/qos/policies", `{"policy": {"name": "q"}}`)
	same("QoS policy", must[*policies.Policy](t)(policies.Get(ctx, c, p).Extract()).Name, "q")
	same("rule type", must[*ruletypes.RuleType](t)(ruletypes.GetRuleType(ctx, c, "dscp_marking").Extract()).Type, "dscp_marking")
	thousands, mark := 2000, 10
	limit := must[*qosrules.BandwidthLimitRule](t)(qosrules.CreateBandwidthLimitRule(ctx, c, p, qosrules.CreateBandwidthLimitRuleOpts{MaxKBps: 3000}).ExtractBandwidthLimitRule())
	_, err = qosrules.UpdateBandwidthLimitRule(ctx, c, p, limit.ID, qosrules.UpdateBandwidthLimitRuleOpts{MaxKBps: &thousands}).ExtractBandwidthLimitRule()
	good(t, err)
	if l := must[*qosrules.BandwidthLimitRule](t)(qosrules.GetBandwidthLimitRule(ctx, c, p, limit.ID).ExtractBandwidthLimitRule()); l.MaxKBps != thousands {
		t.Errorf("bandwidth limit: %+v", l)
	}
	marking := must[*qosrules.DSCPMarkingRule](t)(qosrules.CreateDSCPMarkingRule(ctx, c, p, qosrules.CreateDSCPMarkingRuleOpts{DSCPMark: 8}).ExtractDSCPMarkingRule())
	_, err = qosrules.UpdateDSCPMarkingRule(ctx, c, p, marking.ID, qosrules.UpdateDSCPMarkingRuleOpts{DSCPMark: &mark}).ExtractDSCPMarkingRule()
	good(t, err)
	if m := must[*qosrules.DSCPMarkingRule](t)(qosrules.GetDSCPMarkingRule(ctx, c, p, marking.ID).ExtractDSCPMarkingRule()); m.DSCPMark != mark {
		t.Errorf("DSCP marking: %+v", m)
	}
	good(t, qosrules.DeleteDSCPMarkingRule(ctx, c, p, marking.ID).ExtractErr())
	least := must[*qosrules.MinimumBandwidthRule](t)(qosrules.CreateMinimumBandwidthRule(ctx, c, p, qosrules.CreateMinimumBandwidthRuleOpts{MinKBps: 1000}).ExtractMinimumBandwidthRule())
	thousands = 1500
	_, err = qosrules.UpdateMinimumBandwidthRule(ctx, c, p, least.ID, qosrules.UpdateMinimumBandwidthRuleOpts{MinKBps: &thousands}).ExtractMinimumBandwidthRule()
	good(t, err)
	if m := must[*qosrules.MinimumBandwidthRule](t)(qosrules.GetMinimumBandwidthRule(ctx, c, p, least.ID).ExtractMinimumBandwidthRule()); m.MinKBps != thousands {
		t.Errorf("minimum bandwidth: %+v", m)
	}
	good(t, qosrules.DeleteMinimumBandwidthRule(ctx, c, p, least.ID).ExtractErr())

	// Agents.
	of := func(kind, host string) string {
		t.Helper()
		list := must[[]agents.Agent](t)(agents.ExtractAgents(must[pagination.Page](t)(agents.List(c, agents.ListOpts{AgentType: kind, Host: host}).AllPages(ctx))))
		if len(list) != 1 {
			t.Fatalf("agents: %+v", list)
		}
		return list[0].ID
	}
	dhcp, l3 := of("DHCP agent", "host1"), of("L3 agent", "host1")
	same("agent", must[*agents.Agent](t)(agents.Get(ctx, c, dhcp).Extract()).Host, "host1")
	scheduled := id("/networks", `{"network": {"name": "scheduled"}}`)
	good(t, agents.ScheduleDHCPNetwork(ctx, c, dhcp, agents.ScheduleDHCPNetworkOpts{NetworkID: scheduled}).ExtractErr())
	good(t, agents.RemoveDHCPNetwork(ctx, c, dhcp, scheduled).ExtractErr())
	hosted := id("/routers", `{"router": {"name": "hosted"}}`)
	good(t, agents.ScheduleL3Router(ctx, c, l3, agents.ScheduleL3RouterOpts{RouterID: hosted}).ExtractErr())
	good(t, agents.RemoveL3Router(ctx, c, l3, hosted).ExtractErr())
	gone := of("Open vSwitch agent", "host2")
	good(t, agents.Delete(ctx, c, gone).ExtractErr())
	if _, err := agents.Get(ctx, c, gone).Extract(); !sdk.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("a deleted agent: %v", err)
	}
}
