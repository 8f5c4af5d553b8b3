package l2ovs

import (
	"maps"
	"net/netip"
	"slices"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// plannedForwarding is what br-tun holds for the other hosts' ports of one
// network.
type plannedForwarding struct {
	table   *runtime.ForwardingTable
	network *feed.Network
	vlan    int
	netdev  bool
	patch   int
	remotes map[string]*remotePort // by port id
}

// tunnelled tells whether a network goes through tunnels of this host.
func tunnelled(network *feed.Network, kinds []string) bool {
	return network.GetSegment() != nil && slices.Contains(kinds, network.Segment.NetworkType)
}

// remote parses a forwarding entry; nil if it leads through no tunnel of ours,
// or cannot be read: then frames for it are flooded.
func remote(e *feed.ForwardingEntry, network *feed.Network, local netip.Addr) *remotePort {
	if e == nil || e.PortId == network.DhcpPort.GetId() { // every host has its own
		return nil
	}
	r, err := parseRemote(e)
	if err != nil || r == nil || r.endpoint == local {
		return nil
	}
	return r
}

// neededTunnels is the endpoints of all networks that are on this host.
func neededTunnels(want *runtime.State, vlans map[string]int, kinds []string, local netip.Addr) map[tunnel]struct{} {
	needed := map[tunnel]struct{}{}
	for id := range vlans {
		network, table := want.Networks[id], want.Forwarding[id]
		if table == nil || !tunnelled(network, kinds) {
			continue
		}
		for _, e := range table.Entries {
			if r := remote(e, network, local); r != nil {
				needed[tunnel{network.Segment.NetworkType, r.endpoint}] = struct{}{}
			}
		}
	}
	return needed
}

// planTunnels renders the tunnel bridge.
func (p *planner) planTunnels(want *runtime.State, f *facts, changes runtime.Changes) {
	moved := false
	for t := range p.tunnel {
		if _, ok := f.tunnels[t]; !ok {
			p.tunnels.Put("tunnel/"+t.name(), nil)
			delete(p.tunnel, t)
			moved = true
		}
	}
	for t, ofport := range f.tunnels {
		if p.tunnel[t] != ofport {
			p.tunnels.Put("tunnel/"+t.name(), tunnelPortFlows(t, ofport))
			p.tunnel[t] = ofport
			moved = true
		}
	}
	for id, fw := range p.forward {
		if n := p.networks[id]; n == nil || n.outlet.problem != "" || !tunnelled(n.network, f.kinds) {
			for portID := range fw.remotes {
				p.tunnels.Put("remote/"+id+"/"+portID, nil)
			}
			p.tunnels.Put("network/"+id, nil)
			delete(p.forward, id)
		}
	}
	for id, n := range p.networks {
		if n.outlet.problem != "" || !tunnelled(n.network, f.kinds) {
			continue
		}
		fw := p.forward[id]
		if fw == nil {
			fw = &plannedForwarding{remotes: map[string]*remotePort{}}
			p.forward[id] = fw
		}
		table := want.Forwarding[id]
		change := changes.Forwarding[id]
		all := moved || fw.network != n.network || fw.vlan != n.vlan || fw.netdev != f.netdev || fw.patch != f.patchInt
		if fw.table == table && !all {
			continue
		}
		render := func(portID string) {
			var r *remotePort
			if table != nil {
				r = remote(table.Entries[portID], n.network, f.localIP)
			}
			ofport := 0
			if r != nil {
				ofport = f.tunnels[tunnel{n.network.Segment.NetworkType, r.endpoint}]
			}
			if ofport <= 0 {
				delete(fw.remotes, portID)
				p.tunnels.Put("remote/"+id+"/"+portID, nil)
				return
			}
			fw.remotes[portID] = r
			p.tunnels.Put("remote/"+id+"/"+portID, remotePortFlows(r, &n.localNetwork, ofport, f.netdev))
		}
		if all || changes.All || change.Whole || fw.table == nil || table == nil || change.Ports == nil {
			for portID := range fw.remotes {
				if table == nil || table.Entries[portID] == nil {
					render(portID)
				}
			}
			if table != nil {
				for portID := range table.Entries {
					render(portID)
				}
			}
		} else {
			for portID := range change.Ports {
				render(portID)
			}
		}
		endpoints := map[int]struct{}{}
		for _, r := range fw.remotes {
			endpoints[f.tunnels[tunnel{n.network.Segment.NetworkType, r.endpoint}]] = struct{}{}
		}
		p.tunnels.Put("network/"+id, tunnelNetworkFlows(&n.localNetwork, f.patchInt, slices.Sorted(maps.Keys(endpoints))))
		fw.table, fw.network, fw.vlan, fw.netdev, fw.patch = table, n.network, n.vlan, f.netdev, f.patchInt
	}
}
