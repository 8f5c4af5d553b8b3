package qos

import (
	message "isospin/api/feed"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection tells hosts the policies that their ports, or the networks of
// their ports, refer to.
type projection struct {
	// bound: network → host → bound ports there.
	bound map[string]map[string]int
	// networks: policy → networks that have it. ports: policy → host → ports, floating IPs and gateways there that have it.
	networks map[string]map[string]struct{}
	ports    map[string]map[string]int
	// ofHost: host → policy → the number of its ports and networks that refer to it.
	ofHost map[string]map[string]int
	// Routers and floating IPs by id; floatingOf: router → floating IP → present.
	routers    map[string]limitedRouter
	floating   map[string]limitedFloatingIP
	floatingOf map[string]map[string]struct{}
}

func project(h *feed.Hub, s *service) {
	feed.Keep(h, "policy", func(tx *store.Tx) ([]*Policy, error) { return s.policies.Table.Select(tx, "") }, func(p *Policy) string { return p.ID })
	p := &projection{
		bound: map[string]map[string]int{}, networks: map[string]map[string]struct{}{},
		ports: map[string]map[string]int{}, ofHost: map[string]map[string]int{},
		routers: map[string]limitedRouter{}, floating: map[string]limitedFloatingIP{}, floatingOf: map[string]map[string]struct{}{},
	}
	h.Project(p)
	h.Complete(message.Kind_KIND_ROUTER, p.complete)
}

func key(id string) feed.Key { return feed.Key{Kind: message.Kind_KIND_QOS_POLICY, ID: id} }

// count adds n to a number in a map of maps, which holds no zeros, and returns the sum.
func count(m map[string]map[string]int, outer, inner string, n int) int {
	if m[outer] == nil {
		m[outer] = map[string]int{}
	}
	m[outer][inner] += n
	sum := m[outer][inner]
	if sum == 0 {
		delete(m[outer], inner)
		if len(m[outer]) == 0 {
			delete(m, outer)
		}
	}
	return sum
}

// refer notes that a host's ports and networks refer to a policy n times more.
func (p *projection) refer(host, policy string, n int, mark feed.Marker) {
	if sum := count(p.ofHost, host, policy, n); sum == 0 || sum == n {
		mark.Object(host, key(policy))
	}
}

func (p *projection) Apply(c *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "policy":
		for host := range p.ports[ch.ID] {
			mark.Object(host, key(ch.ID))
		}
		for n := range p.networks[ch.ID] {
			for host := range p.bound[n] {
				mark.Object(host, key(ch.ID))
			}
		}
	case "network":
		before, now := "", ""
		if n, _ := ch.Old.(*network.Network); n != nil {
			before = own(n.Slots)
		}
		if n, _ := ch.New.(*network.Network); n != nil {
			now = own(n.Slots)
		}
		if before == now {
			return
		}
		if before != "" {
			delete(p.networks[before], ch.ID)
			if len(p.networks[before]) == 0 {
				delete(p.networks, before)
			}
			for host := range p.bound[ch.ID] {
				p.refer(host, before, -1, mark)
			}
		}
		if now != "" {
			if p.networks[now] == nil {
				p.networks[now] = map[string]struct{}{}
			}
			p.networks[now][ch.ID] = struct{}{}
			for host := range p.bound[ch.ID] {
				p.refer(host, now, 1, mark)
			}
		}
	case "router", "floatingip":
		p.applyL3(ch, mark)
	case "port":
		if o, _ := ch.Old.(*port.Port); o != nil {
			p.place(c, o, -1, mark)
		}
		if o, _ := ch.New.(*port.Port); o != nil {
			p.place(c, o, 1, mark)
		}
	}
}

// place notes a port that came to its host, or left it.
func (p *projection) place(c *feed.Copy, o *port.Port, n int, mark feed.Marker) {
	if !o.Bound() || o.DHCP() {
		return
	}
	if id := own(o.Slots); id != "" {
		count(p.ports, id, o.HostID, n)
		p.refer(o.HostID, id, n, mark)
	}
	sum := count(p.bound, o.NetworkID, o.HostID, n)
	if sum != 0 && sum != n {
		return
	}
	// The network came to the host, or left it. One that is deleted was left by all ports before.
	if parent := feed.Get[network.Network](c, "network", o.NetworkID); parent != nil && own(parent.Slots) != "" {
		p.refer(o.HostID, own(parent.Slots), n, mark)
	}
}

func (p *projection) Keys(_ *feed.Copy, host string, each func(feed.Key)) {
	for id := range p.ofHost[host] {
		each(key(id))
	}
}

func (p *projection) Render(c *feed.Copy, host string, k feed.Key) *message.Object {
	if k.Kind != message.Kind_KIND_QOS_POLICY || p.ofHost[host][k.ID] == 0 {
		return nil
	}
	o := feed.Get[Policy](c, "policy", k.ID)
	if o == nil {
		return nil
	}
	return &message.Object{Body: &message.Object_QosPolicy{QosPolicy: policyMessage(o)}}
}

func policyMessage(p *Policy) *message.QoSPolicy {
	m := &message.QoSPolicy{Id: p.ID}
	value := func(n *int) int64 {
		if n == nil {
			return 0
		}
		return int64(*n)
	}
	for _, r := range p.Rules {
		switch r.Type {
		case typeBandwidthLimit:
			m.BandwidthLimits = append(m.BandwidthLimits, &message.BandwidthLimit{Direction: r.Direction, MaxKbps: value(r.MaxKbps), MaxBurstKbps: value(r.MaxBurstKbps)})
		case typePacketRateLimit:
			m.PacketRateLimits = append(m.PacketRateLimits, &message.PacketRateLimit{Direction: r.Direction, MaxKpps: value(r.MaxKpps), MaxBurstKpps: value(r.MaxBurstKpps)})
		case typeDSCPMarking:
			mark := int32(value(r.DSCPMark))
			m.DscpMark = &mark
		}
	}
	return m
}

// Delta implements feed.Projection; policies are no sets.
func (p *projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
