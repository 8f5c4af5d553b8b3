package l2ovs

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
)

// facts is what plan must know of the host besides the desired state.
type facts struct {
	ports    map[string]int    // OpenFlow port on br-int by port id, of plugged ports
	vlans    map[string]int    // local VLAN by network id; of every network that has a plugged port
	patchTun int               // of br-int towards br-tun; 0: no tunnels on this host
	patchInt int               // of br-tun towards br-int
	physical map[string]outlet // by physical network; tag is not set
	tunnels  map[tunnel]int    // OpenFlow port on br-tun
	kinds    []string          // tunnel types of this host
	localIP  netip.Addr        // own tunnel endpoint
	netdev   bool              // the bridges have the userspace datapath
}

// planner renders the desired state as flows, and remembers what it rendered.
// After each plan, integration and tunnels hold all flows wanted, and ports
// tells what became of each port.
type planner struct {
	o           planOptions
	integration *openflow.Set
	tunnels     *openflow.Set

	ports map[string]portStatus

	base     baseFacts
	local    map[string]*plannedPort
	networks map[string]*plannedNetwork
	policies map[string]*policy
	numbers  map[uint32]string // of policies: key by number
	sets     sets
	forward  map[string]*plannedForwarding
	tunnel   map[tunnel]int
	private  map[string]*privateNetwork

	// left are the addresses of filtered ports that left the data path, or lost the address, since the caller cleared it.
	left []departure

	// broken are the ports whose flows the switch refused, until they change.
	broken map[string]brokenPort

	// meters that the flows of br-int use, by id.
	meters map[uint32]openflow.Meter
	// unapplied are the QoS policies that the switch refused, by port.
	unapplied map[string]unapplied

	// logs are the units of packet logs, and logged is what their packets are recorded as, by the cookie of the flow.
	logs   map[string]struct{}
	logged map[uint64]logged
	// unlogged is why the switch takes no packet logs; empty: it does.
	unlogged string
}

// planOptions is what the operator has chosen.
type planOptions struct {
	unfiltered bool
	ethertypes []uint16
	logMeter   openflow.Meter // of the packets of all packet logs
}

type baseFacts struct {
	known, netdev bool
	patchInt      int
}

type portStatus struct {
	state    feed.State
	err      string
	revision int64
}

type plannedPort struct {
	port       *feed.Port
	vlan       int
	ofport     int
	policy     *policy
	qos        *feed.QoSPolicy // nil: none, or none that can be applied
	addressing addressing
	member     *localPort
}

type plannedNetwork struct {
	localNetwork
	err      error
	rendered *localNetwork // what the flows are made of
}

type brokenPort struct {
	port *feed.Port
	err  string
}

func newPlanner(o planOptions) *planner {
	return &planner{
		o:           o,
		integration: openflow.NewSet(), tunnels: openflow.NewSet(),
		ports: map[string]portStatus{}, local: map[string]*plannedPort{}, networks: map[string]*plannedNetwork{},
		policies: map[string]*policy{}, numbers: map[uint32]string{}, sets: newSets(),
		forward: map[string]*plannedForwarding{}, tunnel: map[tunnel]int{}, private: map[string]*privateNetwork{}, broken: map[string]brokenPort{},
		meters: map[uint32]openflow.Meter{}, unapplied: map[string]unapplied{},
	}
}

// plan brings the wanted flows up to date. changes may leave out only what is
// the same in want as in the last call.
func (p *planner) plan(want *runtime.State, f *facts, changes runtime.Changes) {
	base := baseFacts{known: true, netdev: f.netdev, patchInt: f.patchInt}
	if p.base != base {
		p.base = base
		p.integration.Put("base", baseFlows(f.netdev, p.o.ethertypes))
		if f.patchInt != 0 {
			p.tunnels.Put("base", tunnelBaseFlows(f.patchInt, f.netdev))
		} else {
			p.tunnels.Put("base", nil)
		}
	}
	p.planPolicies(want, f)
	p.planSets(want, changes)
	p.planPrivate(want, f)
	p.planPorts(want, f)
	p.planLogs(want)
	p.planNetworks(want)
	p.planLocalIPs()
	p.planTunnels(want, f, changes)
}

// filtered tells whether anti-spoofing and security groups apply.
func (p *planner) filtered(port *feed.Port) bool {
	return port.PortSecurityEnabled && !trusted(port) && !p.o.unfiltered
}

// ours tells whether a port is one that br-int can hold.
func ours(port *feed.Port) bool {
	switch port.VnicType {
	case "", "normal", "virtio-forwarder", "smart-nic", "vdpa", "remote-managed":
		return true
	}
	return false // handed to the guest past the switch
}

// policyKey names the policy of a port.
func policyKey(port *feed.Port) string {
	ids := slices.Clone(port.SecurityGroupIds)
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), ",")
}

// planPolicies renders the policies of the plugged ports.
func (p *planner) planPolicies(want *runtime.State, f *facts) {
	needed := map[string]bool{}
	for id, port := range want.Ports {
		if _, plugged := f.ports[id]; plugged && p.filtered(port) {
			needed[policyKey(port)] = true
		}
	}
	changed := false
	for key, old := range p.policies {
		if !needed[key] {
			p.integration.Put("policy/"+key, nil)
			delete(p.numbers, old.number&^statelessPolicy)
			delete(p.policies, key)
			changed = true
		}
	}
	// Sorted, so that numbers that collide are the same after a restart.
	for _, key := range slices.Sorted(maps.Keys(needed)) {
		var groups []*feed.SecurityGroup
		var missing []error
		for id := range strings.SplitSeq(key, ",") {
			if g := want.SecurityGroups[id]; g != nil {
				groups = append(groups, g)
			} else if id != "" {
				missing = append(missing, fmt.Errorf("security group %s is not known", id))
			}
		}
		old := p.policies[key]
		if old != nil && slices.Equal(old.groups, groups) {
			continue
		}
		n := &policy{key: key, number: number(key, p.numbers), groups: groups}
		if stateless(groups) {
			n.number |= statelessPolicy
		}
		flows := renderPolicy(n, p.sets.conjunction)
		n.err = errors.Join(append(missing, n.err)...)
		p.integration.Put("policy/"+key, flows)
		if old != nil && old.number == n.number {
			*old = *n // ports that refer to it need nothing
		} else {
			p.policies[key] = n
		}
		changed = true
	}
	if changed {
		p.sets.use(p.integration, p.policies)
	}
}

// planPorts renders each port that can be in the data path, and says of the
// others why they are not.
func (p *planner) planPorts(want *runtime.State, f *facts) {
	members := map[string][]*localPort{}
	learning := map[string]bool{}
	for id := range p.local {
		if want.Ports[id] == nil {
			p.dropPort(id)
		}
	}
	for id := range p.ports {
		if want.Ports[id] == nil {
			delete(p.ports, id)
		}
	}
	for id := range p.broken {
		if want.Ports[id] == nil {
			delete(p.broken, id)
		}
	}
	for id := range p.unapplied {
		if want.Ports[id] == nil {
			delete(p.unapplied, id)
		}
	}
	for id, port := range want.Ports {
		if !ours(port) {
			p.dropPort(id)
			delete(p.ports, id)
			continue
		}
		network := want.Networks[port.NetworkId]
		if network != nil && network.DhcpPort.GetId() == id {
			// It is wired with its network; it may be plugged on any host.
			p.dropPort(id)
			delete(p.ports, id)
			continue
		}
		status := p.planPort(want, id, port, network, f)
		status.revision = port.Revision
		p.ports[id] = status
		if lp := p.local[id]; lp != nil {
			members[port.NetworkId] = append(members[port.NetworkId], lp.member)
			if lp.member.open || len(lp.member.addressing.macs) > 1 {
				learning[port.NetworkId] = true
			}
		}
	}
	clear(p.meters)
	for _, lp := range p.local {
		lp.member.limits.wanted(lp.ofport, p.meters)
	}
	for id, network := range want.Networks {
		vlan := f.vlans[id]
		if vlan == 0 {
			continue
		}
		n := p.networks[id]
		if n == nil {
			n = &plannedNetwork{}
			p.networks[id] = n
		}
		// Sorted, so that equal states have equal text.
		slices.SortFunc(members[id], func(a, b *localPort) int { return a.ofport - b.ofport })
		n.localNetwork = localNetwork{network: network, vlan: vlan, netdev: f.netdev, learning: learning[id], members: members[id]}
		n.outlet = outletOf(network, f)
		n.err = n.parseDHCP()
		if n.err == nil && network.DhcpPort != nil {
			n.dhcp = max(0, f.ports[network.DhcpPort.Id])
		}
	}
	for id := range p.networks {
		if want.Networks[id] == nil || f.vlans[id] == 0 {
			p.integration.Put("network/"+id, nil)
			delete(p.networks, id)
		}
	}
}

// planPort renders one port.
func (p *planner) planPort(want *runtime.State, id string, port *feed.Port, network *feed.Network, f *facts) portStatus {
	down := func(state feed.State, err string) portStatus {
		p.dropPort(id)
		return portStatus{state: state, err: err}
	}
	ofport, plugged := f.ports[id]
	switch {
	case !plugged, !port.AdminStateUp:
		return down(feed.State_STATE_DOWN, "")
	case network == nil:
		return down(feed.State_STATE_ERROR, fmt.Sprintf("network %s is not known to this host", port.NetworkId))
	case ofport <= 0:
		return down(feed.State_STATE_DOWN, "")
	case f.vlans[network.Id] == 0:
		return down(feed.State_STATE_ERROR, "this host has no local VLAN left")
	}
	if o := outletOf(network, f); o.problem != "" {
		return down(feed.State_STATE_ERROR, o.problem)
	}
	if b, ok := p.broken[id]; ok {
		if b.port == port {
			return down(feed.State_STATE_ERROR, b.err)
		}
		delete(p.broken, id)
	}
	var pol *policy
	if p.filtered(port) {
		pol = p.policies[policyKey(port)]
	}
	vlan := f.vlans[network.Id]
	qos, limits, unlimited := p.qosOf(want, port, network, ofport)
	tags, class := carriesTags(network), uint32(classPromiscuous)
	if private := p.private[network.Id]; private != nil {
		class = private.class(roleOf(port.PvlanType, port.PvlanCommunity, port.DeviceOwner))
	}
	old := p.local[id]
	if old == nil || old.port != port || old.vlan != vlan || old.ofport != ofport || old.policy != pol || old.qos != qos ||
		old.member.tags != tags || old.member.private != network.Pvlan || old.member.class != class {
		a, err := parseAddressing(port)
		if err != nil {
			return down(feed.State_STATE_ERROR, err.Error())
		}
		n := &plannedPort{port: port, vlan: vlan, ofport: ofport, policy: pol, qos: qos, addressing: a}
		n.member = &localPort{id: id, ofport: ofport, vlan: vlan, policy: pol, open: pol == nil && !trusted(port), trusted: trusted(port), addressing: a, limits: limits,
			tags: tags, private: network.Pvlan, class: class}
		if old != nil {
			p.leave(old, n)
		}
		p.local[id] = n
		p.integration.Put("port/"+id, portFlows(n.member, p.o.ethertypes))
	}
	err := unlimited
	if pol != nil {
		err = errors.Join(pol.err, pol.flaws, unlimited)
	}
	if err != nil {
		return portStatus{state: feed.State_STATE_ERROR, err: err.Error()}
	}
	return portStatus{state: feed.State_STATE_ACTIVE}
}

func (p *planner) dropPort(id string) {
	if old := p.local[id]; old != nil {
		p.leave(old, nil)
		p.integration.Put("port/"+id, nil)
		delete(p.local, id)
	}
}

// leave notes the addresses that a port had and does not keep.
func (p *planner) leave(old, now *plannedPort) {
	for _, ip := range old.port.FixedIps {
		a, err := netip.ParseAddr(ip.IpAddress)
		if err != nil || old.policy == nil {
			continue
		}
		kept := now != nil && now.vlan == old.vlan && slices.ContainsFunc(now.port.FixedIps, func(i *feed.FixedIP) bool { return i.IpAddress == ip.IpAddress })
		if !kept {
			p.left = append(p.left, departure{old.vlan, a})
		}
	}
}

// departure is an address that is no longer on a network of this host.
type departure struct {
	vlan    int
	address netip.Addr
}

// outletOf finds how a network leaves br-int.
func outletOf(network *feed.Network, f *facts) outlet {
	s := network.Segment
	if s == nil {
		return outlet{problem: fmt.Sprintf("network %s has no segment on this host", network.Id)}
	}
	switch s.NetworkType {
	case "local":
		return outlet{}
	case "flat", "vlan":
		o, ok := f.physical[s.PhysicalNetwork]
		if !ok {
			return outlet{problem: fmt.Sprintf("physical network %s has no bridge on this host: add it to bridge_mappings", s.PhysicalNetwork)}
		}
		if s.NetworkType == "vlan" {
			if s.SegmentationId < 1 || s.SegmentationId > 4094 {
				return outlet{problem: fmt.Sprintf("VLAN %d", s.SegmentationId)}
			}
			o.tag = int(s.SegmentationId)
		}
		return o
	case "vxlan", "gre", "geneve":
		if f.patchTun == 0 || !slices.Contains(f.kinds, s.NetworkType) {
			return outlet{problem: fmt.Sprintf("this host has no %s tunnels: set local_ip and tunnel_types", s.NetworkType)}
		}
		if s.SegmentationId < 0 || s.NetworkType != "gre" && s.SegmentationId >= 1<<24 {
			return outlet{problem: fmt.Sprintf("segment %d of %s", s.SegmentationId, s.NetworkType)}
		}
		return outlet{ofport: f.patchTun, tag: f.vlans[network.Id]}
	}
	return outlet{problem: fmt.Sprintf("network type %q", s.NetworkType)}
}

// planNetworks renders what the ports of each network share.
func (p *planner) planNetworks(want *runtime.State) {
	for id, n := range p.networks {
		switch r := n.rendered; {
		case n.outlet.problem != "":
			p.integration.Put("network/"+id, nil)
			n.rendered = nil
			continue
		case r != nil && r.network == n.network && r.vlan == n.vlan && r.outlet == n.outlet && r.dhcp == n.dhcp &&
			r.netdev == n.netdev && r.learning == n.learning && slices.Equal(r.members, n.members):
		default:
			p.integration.Put("network/"+id, networkFlows(&n.localNetwork))
			rendered := n.localNetwork
			n.rendered = &rendered
		}
		if n.err != nil {
			// Its DHCP port is left out; its ports work, and say so.
			for portID, s := range p.ports {
				if want.Ports[portID].NetworkId == id && s.state == feed.State_STATE_ACTIVE {
					p.ports[portID] = portStatus{state: feed.State_STATE_ERROR, err: n.err.Error(), revision: s.revision}
				}
			}
		}
	}
}

// refuse takes to heart that the switch refused a flow of br-int, and tells
// whether the flows wanted have changed by that.
func (p *planner) refuse(want *runtime.State, r openflow.Refusal) bool {
	unit := p.integration.Unit(r.Flow)
	kind, id, _ := strings.Cut(unit, "/")
	text := fmt.Sprintf("flow refused: %s: %v", r.Flow, r.Err)
	switch kind {
	case "port": // none of its flows stays
		port := want.Ports[id]
		if port == nil {
			return false
		}
		// The limits may be what is not taken; without them it may work.
		if !p.withoutQoS(p.local[id], text) {
			p.broken[id] = brokenPort{port: port, err: text}
		}
		return true
	case "log":
		return p.withoutLogs(text)
	case "policy": // the rule allows nothing; the others stand
		if pol := p.policies[id]; pol != nil && pol.flaws == nil {
			pol.flaws = errors.New(text)
			return true
		}
	case "network":
		if n := p.networks[id]; n != nil {
			for portID, s := range p.ports {
				if want.Ports[portID] != nil && want.Ports[portID].NetworkId == id && s.state == feed.State_STATE_ACTIVE {
					p.ports[portID] = portStatus{state: feed.State_STATE_ERROR, err: text, revision: s.revision}
				}
			}
		}
	}
	return false
}
