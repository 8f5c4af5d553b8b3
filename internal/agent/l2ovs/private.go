package l2ovs

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// Networks may keep their ports apart (private VLANs). Every frame bears the
// class of its source: that of the port it comes from or, from the uplink, that
// of the port of another host that its source address belongs to. What is
// handed to a port is what its class may hear; so each host looks after its own
// ports, and no host has to trust another to hold anything back. The uplink is
// always heard.
//
// On a tunnelled network every station is known, and one that is not known yet
// is isolated. On a physical network an unknown station is one outside of the
// hosts, such as the gateway, and promiscuous.

// Classes of sources, in reg12; communities are numbered in between.
const (
	classPromiscuous = 0
	classIsolated    = 0x80000000
)

// role is what a port may reach; the zero role is promiscuous.
type role struct {
	isolated  bool
	community string
}

func roleOf(kind, community, owner string) role {
	switch {
	case strings.HasPrefix(owner, "network:"), kind == "", kind == "promiscuous":
		return role{}
	case kind == "community" && community != "":
		return role{community: community}
	}
	return role{isolated: true}
}

// privateNetwork is a network on this host whose ports are kept apart.
type privateNetwork struct {
	network  *feed.Network
	table    *runtime.ForwardingTable
	vlan     int
	stations map[mac]role
	numbers  map[string]uint32 // of communities
}

// class is the number of a role.
func (n *privateNetwork) class(r role) uint32 {
	switch {
	case r.isolated:
		return classIsolated
	case r.community != "":
		return n.numbers[r.community]
	}
	return classPromiscuous
}

// planPrivate renders the classes of the stations behind the uplink, and
// numbers the communities.
func (p *planner) planPrivate(want *runtime.State, f *facts) {
	for id := range p.private {
		if n := want.Networks[id]; n == nil || !n.Pvlan || f.vlans[id] == 0 {
			p.integration.Put("private/"+id, nil)
			delete(p.private, id)
		}
	}
	communities := map[string]map[string]bool{}
	for id, network := range want.Networks {
		if network.Pvlan && f.vlans[id] != 0 {
			communities[id] = map[string]bool{}
		}
	}
	if len(communities) == 0 {
		return
	}
	for _, port := range want.Ports {
		if names := communities[port.NetworkId]; names != nil {
			names[roleOf(port.PvlanType, port.PvlanCommunity, port.DeviceOwner).community] = true
		}
	}
	for id, names := range communities {
		network, table, vlan, n := want.Networks[id], want.Forwarding[id], f.vlans[id], p.private[id]
		fresh := n == nil || n.network != network || n.table != table || n.vlan != vlan
		if fresh {
			old := n
			n = &privateNetwork{network: network, table: table, vlan: vlan, stations: stationsOf(network, table)}
			if old != nil {
				n.numbers = old.numbers
			}
			p.private[id] = n
		}
		for _, r := range n.stations {
			names[r.community] = true
		}
		delete(names, "")
		numbers, taken := map[string]uint32{}, map[uint32]string{}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			numbers[name] = number(name, taken)
		}
		if fresh || !maps.Equal(numbers, n.numbers) {
			n.numbers = numbers
			p.integration.Put("private/"+id, sourceFlows(n))
		}
	}
}

// stationsOf is the roles of the addresses that ports of other hosts send
// from. One that ports of different roles have may reach what all may.
func stationsOf(network *feed.Network, table *runtime.ForwardingTable) map[mac]role {
	stations := map[mac]role{}
	if table == nil {
		return stations
	}
	for id, e := range table.Entries {
		if id == network.DhcpPort.GetId() {
			continue
		}
		r := roleOf(e.PvlanType, e.PvlanCommunity, e.DeviceOwner)
		for _, text := range append([]string{e.MacAddress}, e.FurtherMacAddresses...) {
			m, err := parseMAC(text)
			if err != nil {
				continue
			}
			if other, ok := stations[m]; ok && other != r {
				stations[m] = role{isolated: true}
			} else {
				stations[m] = r
			}
		}
	}
	return stations
}

// sourceFlows tell the class of what comes from the uplink.
func sourceFlows(n *privateNetwork) flows {
	var f flows
	net := fmt.Sprintf("reg6=%#x", n.vlan)
	_, everyoneKnown := tunnelTable(n.network.Segment.GetNetworkType())
	if everyoneKnown {
		f.addf(tableSource, 10, net, "set_field:%#x->reg12", uint32(classIsolated))
	}
	for _, m := range slices.SortedFunc(maps.Keys(n.stations), func(a, b mac) int { return bytes.Compare(a[:], b[:]) }) {
		if class := n.class(n.stations[m]); class != classPromiscuous || everyoneKnown {
			f.addf(tableSource, 20, fmt.Sprintf("%s,dl_src=%s", net, m), "set_field:%#x->reg12", class)
		}
	}
	return f
}

// hears is what leads on from the question whether a frame may be handed over.
var hears = fmt.Sprintf("set_field:1->reg4,resubmit(,%d)", tableOutput)

// privateFlows put the question for a network.
func privateFlows(f *flows, net string, dhcp int) {
	f.add(tableOutput, 39, net+",reg4=0", resubmit(tablePrivate))
	f.add(tablePrivate, 10, fmt.Sprintf("%s,reg12=%#x", net, classPromiscuous), hears)
	f.add(tablePrivate, 10, fmt.Sprintf("reg5=%#x,%s", uplink, net), hears)
	if dhcp != 0 {
		f.add(tablePrivate, 10, fmt.Sprintf("reg5=%#x,%s", dhcp, net), hears)
	}
}

// audience is the ports of a network that frames of some sources are for.
type audience struct {
	match string // of the sources, to be added to that of the network
	rest  bool   // the sources of no other audience
	class uint32
	all   bool
}

// audiences of a network; of one whose ports reach each other there is one.
func (n *localNetwork) audiences() []audience {
	if !n.network.Pvlan {
		return []audience{{all: true}}
	}
	list := []audience{{match: fmt.Sprintf(",reg12=%#x", classPromiscuous), all: true}}
	communities := map[uint32]bool{}
	for _, p := range n.members {
		if p.class != classPromiscuous && p.class != classIsolated {
			communities[p.class] = true
		}
	}
	for _, class := range slices.Sorted(maps.Keys(communities)) {
		list = append(list, audience{match: fmt.Sprintf(",reg12=%#x", class), class: class})
	}
	return append(list, audience{rest: true, class: classPromiscuous})
}

// includes tells whether a port is among those that hear.
func (a audience) includes(p *localPort) bool {
	return a.all || p.class == classPromiscuous || p.class == a.class
}

// after is the priority of a flow for the audience.
func (a audience) after(priority uint16) uint16 {
	if a.rest {
		return priority - 1
	}
	return priority
}
