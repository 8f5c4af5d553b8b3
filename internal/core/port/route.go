package port

import (
	"net/netip"
	"slices"

	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// How ports get their addresses.
const (
	// AllocationImmediate: with the port.
	AllocationImmediate = "immediate"
	// AllocationDeferred: when the host is known, since that decides upon the subnets.
	AllocationDeferred = "deferred"
	// AllocationNone: not at all.
	AllocationNone = "none"
)

// Connector is a Mechanism that knows which segments hosts are connected to.
type Connector interface {
	Mechanism
	// Connects tells whether the agent's host is connected to the segment,
	// whether or not the agent lives.
	Connects(a *agent.Agent, s network.Segment) bool
}

// routed tells whether the network is a routed one: its subnets belong to segments.
func routed(subnets []*subnet.Subnet) bool {
	return slices.ContainsFunc(subnets, func(n *subnet.Subnet) bool { return n.SegmentID != nil })
}

// segmentsOn are the segments of the network that ports of the host can be
// on: the one that ports of the network there are on already, since a host has
// one segment of a network, else all that the host is connected to.
func (s *Service) segmentsOn(tx *store.Tx, p *Port, parent *network.Network) ([]network.Segment, error) {
	var used string
	err := tx.Row("SELECT segment_id FROM port WHERE network_id = ? AND host_id = ? AND segment_id <> '' AND id <> ? LIMIT 1", []any{parent.ID, p.HostID, p.ID}, &used)
	if err != nil && err != store.ErrNoRow {
		return nil, err
	}
	agents, err := s.options.Agents.OnHost(tx, p.HostID)
	if err != nil {
		return nil, err
	}
	var list []network.Segment
	for _, g := range parent.Segments {
		connected := slices.ContainsFunc(s.options.Mechanisms, func(m Mechanism) bool {
			c, ok := m.(Connector)
			return ok && slices.ContainsFunc(agents, func(a *agent.Agent) bool { return c.Connects(a, g) })
		})
		if !connected {
			continue
		}
		if g.ID == used {
			return []network.Segment{g}, nil
		}
		list = append(list, g)
	}
	return list, nil
}

// forBinding are the segments that a binding of the port may use: that of its
// addresses, or else that which the host's other ports of the network are on.
func (s *Service) forBinding(tx *store.Tx, p *Port, parent *network.Network) ([]network.Segment, error) {
	if len(parent.Segments) < 2 {
		return parent.Segments, nil
	}
	only := p.segment
	for _, f := range p.FixedIPs {
		if only != "" {
			break
		}
		var id *string
		if err := tx.Row("SELECT segment_id FROM subnet WHERE id = ?", []any{f.SubnetID}, &id); err != nil && err != store.ErrNoRow {
			return nil, err
		}
		if id != nil {
			only = *id
		}
	}
	if only == "" {
		err := tx.Row("SELECT segment_id FROM port WHERE network_id = ? AND host_id = ? AND segment_id <> '' AND id <> ? LIMIT 1", []any{parent.ID, p.HostID, p.ID}, &only)
		if err == store.ErrNoRow {
			return parent.Segments, nil
		}
		if err != nil {
			return nil, err
		}
	}
	i := slices.IndexFunc(parent.Segments, func(g network.Segment) bool { return g.ID == only })
	if i < 0 {
		return nil, nil
	}
	return parent.Segments[i : i+1], nil
}

// asked are the subnets that the fixed_ips of a body name or fall into.
func asked(subnets []*subnet.Subnet, body *resource.Body) []*subnet.Subnet {
	var list []*subnet.Subnet
	items, _ := body.Values["fixed_ips"].([]any)
	for _, item := range items {
		members, _ := item.(map[string]any)
		id, _ := members["subnet_id"].(string)
		text, _ := members["ip_address"].(string)
		a, err := netip.ParseAddr(text)
		for _, n := range subnets {
			if n.ID == id || id == "" && err == nil && n.CIDR.Contains(a) {
				list = append(list, n)
				break
			}
		}
	}
	return list
}

// eligible are the subnets that can give a port its addresses: all of an
// ordinary network, those of one segment of a routed one. It notes how the port
// gets its addresses, and that segment. deferred: the host must be known first.
func (s *Service) eligible(tx *store.Tx, p *Port, parent *network.Network, subnets []*subnet.Subnet, body *resource.Body) (_ []*subnet.Subnet, deferred bool, err error) {
	p.segment = ""
	if !routed(subnets) {
		return subnets, false, nil
	}
	wanted := asked(subnets, body)
	for _, n := range wanted {
		if n.SegmentID == nil {
			continue
		}
		if p.segment != "" && p.segment != *n.SegmentID {
			return nil, false, fault.New(fault.Invalid, "FixedIpsSubnetsNotOnSameSegment", "Cannot allocate addresses from different segments.")
		}
		p.segment = *n.SegmentID
	}
	if p.HostID == "" {
		if p.segment == "" {
			return nil, !body.Has("fixed_ips"), nil
		}
		return on(subnets, p.segment), false, nil
	}
	segments, err := s.segmentsOn(tx, p, parent)
	if err != nil {
		return nil, false, err
	}
	connected := false
	for _, g := range segments {
		list := on(subnets, g.ID)
		if len(list) > 0 && (p.segment == "" || p.segment == g.ID) {
			p.segment = g.ID
			return list, false, nil
		}
		connected = connected || len(list) > 0
	}
	if connected { // but not to where the addresses are
		p.segment = ""
		return nil, false, nil
	}
	return nil, false, notConnected(p.HostID, p.NetworkID)
}

func on(subnets []*subnet.Subnet, segmentID string) []*subnet.Subnet {
	var list []*subnet.Subnet
	for _, n := range subnets {
		if n.OnSegment(segmentID) {
			list = append(list, n)
		}
	}
	return list
}

func notConnected(host, networkID string) error {
	return fault.New(fault.Conflict, "HostNotConnectedToAnySegment", "Host %s is not connected to any segments on routed provider network '%s'.  It should be connected to one.", host, networkID)
}

// follow gives a port its deferred addresses when its host becomes known, and
// refuses a host where the addresses that it has are of no use.
func (s *Service) follow(tx *store.Tx, old, want *Port, parent *network.Network, body *resource.Body) error {
	if want.HostID == old.HostID || want.HostID == "" || body.Has("fixed_ips") {
		return nil
	}
	subnets, err := s.options.Subnets.OfNetwork(tx, want.NetworkID)
	if err != nil || !routed(subnets) {
		return err
	}
	if len(old.FixedIPs) == 0 {
		if old.IPAllocation != AllocationDeferred || old.HostID != "" {
			return nil
		}
		body = &resource.Body{Values: map[string]any{}, Given: map[string]bool{}}
		subnets, _, err := s.eligible(tx, want, parent, subnets, body)
		if err != nil {
			return err
		}
		wishes, err := s.plan(tx, want, parent, subnets, body, nil)
		if err != nil {
			return err
		}
		want.FixedIPs, err = s.allocate(tx, want, subnets, wishes)
		return err
	}
	segments, err := s.segmentsOn(tx, want, parent)
	if err != nil {
		return err
	}
	usable := []*subnet.Subnet{}
	for _, g := range segments {
		usable = append(usable, on(subnets, g.ID)...)
	}
	if len(usable) == 0 {
		return notConnected(want.HostID, want.NetworkID)
	}
	for _, f := range old.FixedIPs {
		if subnet.Of(usable, f.SubnetID) == nil {
			return fault.New(fault.Conflict, "HostNotCompatibleWithFixedIps", "Host %s is not connected to a segment where the existing fixed_ips on port %s will function given the routed network topology.", want.HostID, want.ID)
		}
	}
	return nil
}

// reaches tells whether a port can have an address of the subnet: those of a
// routed network only when the port is on the subnet's segment.
func (p *Port) reaches(n *subnet.Subnet, subnets []*subnet.Subnet) bool {
	if n.SegmentID == nil || p.SegmentID == *n.SegmentID {
		return true
	}
	return p.SegmentID == "" && slices.ContainsFunc(p.FixedIPs, func(f FixedIP) bool {
		of := subnet.Of(subnets, f.SubnetID)
		return of != nil && of.SegmentID != nil && *of.SegmentID == *n.SegmentID
	})
}

// OnSegment names the ports that are bound to a segment.
func (s *Service) OnSegment(tx *store.Tx, networkID, segmentID string) ([]string, error) {
	var ids []string
	err := tx.Query(func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, "SELECT id FROM port WHERE network_id = ? AND segment_id = ? ORDER BY id", networkID, segmentID)
	return ids, err
}
