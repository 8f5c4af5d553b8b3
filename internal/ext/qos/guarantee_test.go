package qos_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"isospin/internal/core/agent"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/notify/placement"
	"isospin/internal/notify/placement/placementtest"
	"isospin/internal/store"
)

const (
	server   = "6e2f8d4e-7f8f-4c0b-a4ac-2f1f5a2f9b1c"
	ranges   = "[ml2_type_vlan]\nnetwork_vlan_ranges = physnet-1\n"
	physical = `{"provider:network_type": "vlan", "provider:physical_network": "physnet-1", "provider:segmentation_id": 7}`
)

// promise makes a policy that promises bandwidth to and from a port, and packets when there are some.
func promise(admin *exttest.Client, egress, ingress, packets int) (policy string, bandwidth, rates []string) {
	policy = admin.Create("policy", `{}`).ID()
	in := admin.In(policy)
	for direction, n := range map[string]int{"egress": egress, "ingress": ingress} {
		if n > 0 {
			bandwidth = append(bandwidth, in.Create("minimum_bandwidth_rule", `{"direction": %q, "min_kbps": %d}`, direction, n).ID())
		}
	}
	if packets > 0 {
		rates = append(rates, in.Create("minimum_packet_rate_rule", `{"direction": "any", "min_kpps": %d}`, packets).ID())
	}
	return policy, bandwidth, rates
}

// groupOf is the id of a request group, as Nova finds it in allocations.
func groupOf(port string, rules []string) string {
	sorted := strings.Join(rules, ":")
	if len(rules) == 2 && rules[0] > rules[1] {
		sorted = rules[1] + ":" + rules[0]
	}
	return placement.RequestGroup(port, []string{sorted})
}

// What a port needs is shown in the form that Nova puts to Placement.
func TestRequest(t *testing.T) {
	for name, c := range map[string]struct{ config, vlan, tunnel, packets string }{
		"groups": {"",
			`{"request_groups":[{"id":"BW","required":["CUSTOM_PHYSNET_PHYSNET_1","CUSTOM_VNIC_TYPE_DIRECT"],"resources":{"NET_BW_EGR_KILOBIT_PER_SEC":1000,"NET_BW_IGR_KILOBIT_PER_SEC":2000}},` +
				`{"id":"PPS","required":["CUSTOM_VNIC_TYPE_DIRECT"],"resources":{"NET_PACKET_RATE_KILOPACKET_PER_SEC":3}}],"same_subtree":["BW","PPS"]}`,
			`{"request_groups":[{"id":"BW","required":["CUSTOM_NETWORK_TUNNEL_PROVIDER","CUSTOM_VNIC_TYPE_NORMAL"],"resources":{"NET_BW_EGR_KILOBIT_PER_SEC":1000,"NET_BW_IGR_KILOBIT_PER_SEC":2000}},` +
				`{"id":"PPS","required":["CUSTOM_VNIC_TYPE_NORMAL"],"resources":{"NET_PACKET_RATE_KILOPACKET_PER_SEC":3}}],"same_subtree":["BW","PPS"]}`,
			`{"request_groups":[{"id":"PPS","required":["CUSTOM_VNIC_TYPE_NORMAL"],"resources":{"NET_PACKET_RATE_KILOPACKET_PER_SEC":3}}],"same_subtree":["PPS"]}`},
		"no groups": {"[isospin]\ndisabled_extensions = port-resource-request-groups\n",
			`{"required":["CUSTOM_PHYSNET_PHYSNET_1","CUSTOM_VNIC_TYPE_DIRECT"],"resources":{"NET_BW_EGR_KILOBIT_PER_SEC":1000,"NET_BW_IGR_KILOBIT_PER_SEC":2000}}`,
			`{"required":["CUSTOM_NETWORK_TUNNEL_PROVIDER","CUSTOM_VNIC_TYPE_NORMAL"],"resources":{"NET_BW_EGR_KILOBIT_PER_SEC":1000,"NET_BW_IGR_KILOBIT_PER_SEC":2000}}`,
			"null"},
	} {
		k := exttest.New(t, exttest.Options{Config: ranges + c.config})
		if _, have := k.Registry.Extension("port-resource-request-groups"); have != (c.config == "") {
			t.Errorf("%s: the extension is there: %v", name, have)
		}
		admin := k.Admin()
		policy, bandwidth, rates := promise(admin, 1000, 2000, 3)
		vlan, tunnel := admin.Create("network", physical).ID(), admin.Create("network", `{"qos_policy_id": %q}`, policy).ID()
		shows := func(what string, p exttest.Object, want string) {
			t.Helper()
			want = strings.ReplaceAll(want, "BW\"", groupOf(p.ID(), bandwidth)+"\"")
			want = strings.ReplaceAll(want, "PPS\"", groupOf(p.ID(), rates)+"\"")
			if have := admin.Get("port", p.ID()).JSON("resource_request"); have != want {
				t.Errorf("%s, %s:\n%s\nwant:\n%s", name, what, have, want)
			}
		}
		direct := admin.Create("port", `{"network_id": %q, "qos_policy_id": %q, "binding:vnic_type": "direct"}`, vlan, policy)
		shows("physical network", direct, c.vlan)
		shows("the network's policy", admin.Create("port", `{"network_id": %q}`, tunnel), c.tunnel)
		admin.Update("port", direct.ID(), `{"qos_policy_id": null}`)
		shows("no policy", direct, "null")
		packets, _, only := promise(admin, 0, 0, 3)
		rates = only
		shows("packets alone", admin.Create("port", `{"network_id": %q, "qos_policy_id": %q}`, vlan, packets), c.packets)
	}
}

// An operator may have no provider of tunnels' bandwidth: nothing is promised there.
func TestNoTunnelProvider(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: ranges + "[ml2]\ntunnelled_network_rp_name =\n"})
	admin := k.Admin()
	policy, _, _ := promise(admin, 1000, 0, 0)
	vlan, tunnel := admin.Create("network", physical).ID(), admin.Create("network", `{}`).ID()
	admin.Create("port", `{"network_id": %q, "qos_policy_id": %q}`, vlan, policy)
	_, err := admin.TryCreate("port", `{"network_id": %q, "qos_policy_id": %q}`, tunnel, policy)
	k.Refused(err, fault.Conflict, "QosRuleNotSupported", "")
	_, err = admin.TryUpdate("network", tunnel, `{"qos_policy_id": %q}`, policy)
	k.Refused(err, fault.Conflict, "QosRuleNotSupportedByNetwork", "")
	_, err = admin.TryCreate("network", `{"qos_policy_id": %q}`, policy)
	k.Refused(err, fault.Conflict, "QosRuleNotSupportedByNetwork", "")
	late := admin.Create("policy", `{}`).ID()
	admin.Update("network", tunnel, `{"qos_policy_id": %q}`, late)
	_, err = admin.In(late).TryCreate("minimum_bandwidth_rule", `{"min_kbps": 1000}`)
	k.Refused(err, fault.Conflict, "QosRuleNotSupportedByNetwork", "")
	admin.Create("port", `{"network_id": %q, "device_owner": "network:router_interface"}`, tunnel)
	packets, _, _ := promise(admin, 0, 0, 3)
	admin.Create("port", `{"network_id": %q, "qos_policy_id": %q}`, tunnel, packets)
}

// scheduled is an instance's port whose bandwidth Nova has allocated on a host.
type scheduled struct {
	*exttest.Core
	t              *testing.T
	admin          *exttest.Client
	placement      *placementtest.Placement
	network, port  string
	policy         string
	provider, rate string // of bandwidth, and of packets
}

func schedule(t *testing.T, grouped bool) *scheduled {
	s := &scheduled{t: t, placement: placementtest.New(t, "h1")}
	config := ranges + s.placement.Config()
	if !grouped {
		config += "[isospin]\ndisabled_extensions = port-resource-request-groups\n"
	}
	s.Core = exttest.New(t, exttest.Options{Config: config})
	s.admin = s.Admin()
	s.Host("h1", exttest.HostOptions{Physical: []string{"physnet-1"}})
	if err := s.Store.Tx(s.admin.Context(), func(tx *store.Tx) error {
		_, err := s.Agents.Report(s.admin.Context(), tx, &agent.Agent{Host: "h1", AgentType: agent.OpenVSwitch, Binary: "b", Topic: "t", Configurations: json.RawMessage(
			`{"bridge_mappings": {"physnet-1": "br-1"}, "resource_provider_bandwidths": {"br-1": {"egress": 10000, "ingress": 10000}},
			"resource_provider_packet_processing_without_direction": {"h1": {"any": 100}}}`)}, false)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.provider, s.rate = placement.DeviceProvider("h1", "br-1"), placement.AgentProvider("h1")
	s.network = s.admin.Create("network", physical).ID()
	policy, bandwidth, rates := promise(s.admin, 1000, 2000, 3)
	s.policy = policy
	s.port = s.admin.Create("port", `{"network_id": %q, "qos_policy_id": %q, "device_owner": "compute:nova", "device_id": %q}`, s.network, policy, server).ID()
	s.placement.Consume(server, placementtest.Root("h1"), map[string]int64{"VCPU": 2})
	s.placement.Consume(server, s.provider, map[string]int64{placement.BandwidthEgress: 1000, placement.BandwidthIngress: 2000})
	allocation := fmt.Sprintf("%q", s.provider)
	if grouped {
		s.placement.Consume(server, s.rate, map[string]int64{placement.PacketRate: 3})
		allocation = fmt.Sprintf("{%q: %q, %q: %q}", groupOf(s.port, bandwidth), s.provider, groupOf(s.port, rates), s.rate)
	}
	s.admin.Update("port", s.port, `{"binding:host_id": "h1", "binding:profile": {"allocation": %s, "os_vif_delegation": true}}`, allocation)
	return s
}

// has checks what the instance has of Placement, and what its port says of it.
func (s *scheduled) has(what, bandwidth, rate, allocation string) {
	s.t.Helper()
	want := map[string]any{placementtest.Root("h1"): map[string]int64{"VCPU": 2}}
	for provider, text := range map[string]string{s.provider: bandwidth, s.rate: rate} {
		if text != "" {
			want[provider] = json.RawMessage(text)
		}
	}
	raw, err := json.Marshal(want)
	if err != nil {
		s.t.Fatal(err)
	}
	if have := s.placement.Consumed(server); have != string(raw) {
		s.t.Errorf("%s: the instance has\n%s\nwant\n%s", what, have, raw)
	}
	if have, want := s.admin.Get("port", s.port).JSON("binding:profile"), fmt.Sprintf(`{"allocation":%s,"os_vif_delegation":true}`, allocation); have != want {
		s.t.Errorf("%s: profile is\n%s\nwant\n%s", what, have, want)
	}
}

// When the port of an instance gets another policy, the instance's allocations
// follow, or the port keeps the one that it has.
func TestAllocations(t *testing.T) {
	s := schedule(t, true)
	twice, bandwidth, rates := promise(s.admin, 2000, 0, 6)
	// Others change the allocations at the same time.
	s.placement.Overtake(2)
	s.admin.Update("port", s.port, `{"qos_policy_id": %q}`, twice)
	groups := fmt.Sprintf(`{%q:%q,%q:%q}`, groupOf(s.port, bandwidth), s.provider, groupOf(s.port, rates), s.rate)
	if other := fmt.Sprintf(`{%q:%q,%q:%q}`, groupOf(s.port, rates), s.rate, groupOf(s.port, bandwidth), s.provider); groupOf(s.port, rates) < groupOf(s.port, bandwidth) {
		groups = other // JSON sorts them
	}
	const double = `{"NET_BW_EGR_KILOBIT_PER_SEC":2000}`
	const sixth = `{"NET_PACKET_RATE_KILOPACKET_PER_SEC":6}`
	s.has("another policy", double, sixth, groups)

	// There is no more.
	s.placement.Limit(s.provider, placement.BandwidthEgress, 2500)
	thrice, _, _ := promise(s.admin, 3000, 0, 6)
	_, err := s.admin.TryUpdate("port", s.port, `{"qos_policy_id": %q}`, thrice)
	s.Refused(err, fault.Conflict, "QosPlacementAllocationUpdateConflict", fmt.Sprintf(
		"Updating placement allocation with {'%s': {'NET_BW_EGR_KILOBIT_PER_SEC': 1000}} for consumer %s failed. The requested resources would exceed the capacity available.", s.provider, server))
	s.has("more than there is", double, sixth, groups)
	if have := s.admin.Get("port", s.port).Text("qos_policy_id"); have != twice {
		t.Errorf("the port has policy %s", have)
	}

	// What is allocated goes back when the port is not changed after all.
	less, _, _ := promise(s.admin, 500, 0, 6)
	_, err = s.admin.TryUpdate("port", s.port, `{"qos_policy_id": %q, "fixed_ips": [{"ip_address": "192.0.2.1"}]}`, less)
	if err == nil {
		t.Error("an address of no subnet is taken")
	}
	s.has("a change that is refused", double, sixth, groups)

	// Placement is away.
	s.placement.Away(true)
	if _, err = s.admin.TryUpdate("port", s.port, `{"qos_policy_id": %q}`, less); err == nil {
		t.Error("nothing is allocated, and nobody says so")
	}
	s.placement.Away(false)
	s.has("Placement away", double, sixth, groups)

	// Promises that instances were scheduled by stay as they are.
	list := s.admin.Get("policy", twice)["rules"].([]any)
	for _, r := range list {
		r := r.(map[string]any)
		if r["type"] != "minimum_bandwidth" {
			continue
		}
		_, err = s.admin.In(twice).TryUpdate("minimum_bandwidth_rule", r["id"].(string), `{"min_kbps": 1}`)
		s.Refused(err, fault.NotImplemented, "NotImplementedError", "Cannot update QoS policies/rules backed by resources tracked in Placement")
	}

	s.admin.Update("port", s.port, `{"qos_policy_id": null}`)
	s.has("no policy", "", "", "{}")
}

// Without groups, the port says of its bandwidth alone where it comes from.
func TestAllocationsWithoutGroups(t *testing.T) {
	s := schedule(t, false)
	twice, _, _ := promise(s.admin, 2000, 4000, 0)
	s.admin.Update("port", s.port, `{"qos_policy_id": %q}`, twice)
	s.has("another policy", `{"NET_BW_EGR_KILOBIT_PER_SEC":2000,"NET_BW_IGR_KILOBIT_PER_SEC":4000}`, "", fmt.Sprintf("%q", s.provider))
}

// The ports of a network go with its policy.
func TestAllocationsOfNetwork(t *testing.T) {
	s := schedule(t, true)
	s.admin.Update("network", s.network, `{"qos_policy_id": %q}`, s.policy)
	s.admin.Update("port", s.port, `{"qos_policy_id": null}`)
	bare := s.placement.Consumed(server)
	packets, _, rates := promise(s.admin, 0, 0, 7)
	writes := len(s.placement.Writes())
	s.admin.Update("network", s.network, `{"qos_policy_id": %q}`, packets)
	if len(s.placement.Writes()) == writes {
		t.Fatalf("the allocations are still %s", bare)
	}
	s.has("the network's policy", "", `{"NET_PACKET_RATE_KILOPACKET_PER_SEC":7}`, fmt.Sprintf(`{%q:%q}`, groupOf(s.port, rates), s.rate))
}

// A port is bound where its resources were allocated, or not at all.
func TestUnknownProvider(t *testing.T) {
	s := schedule(t, true)
	p := s.admin.Create("port", `{"network_id": %q, "qos_policy_id": %q, "device_owner": "compute:nova", "device_id": %q}`, s.network, s.policy, server).ID()
	for _, allocation := range []string{fmt.Sprintf(`{"g": %q, "h": %q}`, s.provider, unknown), fmt.Sprintf("%q", unknown)} {
		_, err := s.admin.TryUpdate("port", p, `{"binding:host_id": "h1", "binding:profile": {"allocation": %s}}`, allocation)
		s.Refused(err, fault.Invalid, "UnknownResourceProvider", "")
	}
	s.admin.Update("port", p, `{"binding:host_id": "h1", "binding:profile": {"allocation": {"g": %q}}}`, s.provider)
}
