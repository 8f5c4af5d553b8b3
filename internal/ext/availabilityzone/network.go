package availabilityzone

import (
	"slices"
	"sync"

	message "isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

// projection follows the feed to know in which zones networks are served: DHCP
// is answered on every host that has ports of the network. Asking the database
// would cost as much as a network has ports. It tells hosts nothing.
type projection struct {
	mu sync.RWMutex
	// ports: network → host → number of ports that are bound there.
	ports map[string]map[string]int
	// zones of hosts' DHCP agents.
	zones map[string]string
}

func newProjection() *projection {
	return &projection{ports: map[string]map[string]int{}, zones: map[string]string{}}
}

// Apply implements feed.Projection.
func (p *projection) Apply(_ *feed.Copy, ch feed.Change, _ feed.Marker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ch.Kind {
	case "agent":
		if a, _ := ch.Old.(*agent.Agent); a != nil && a.AgentType == agent.DHCP {
			delete(p.zones, a.Host)
		}
		if a, _ := ch.New.(*agent.Agent); a != nil && a.AgentType == agent.DHCP && a.AvailabilityZone != nil {
			p.zones[a.Host] = *a.AvailabilityZone
		}
	case "port":
		p.count(ch.Old, -1)
		p.count(ch.New, 1)
	}
}

func (p *projection) count(o any, n int) {
	bound, _ := o.(*port.Port)
	if bound == nil || !bound.Bound() {
		return
	}
	hosts := p.ports[bound.NetworkID]
	if hosts == nil {
		hosts = map[string]int{}
		p.ports[bound.NetworkID] = hosts
	}
	if hosts[bound.HostID] += n; hosts[bound.HostID] == 0 {
		delete(hosts, bound.HostID)
	}
	if len(hosts) == 0 {
		delete(p.ports, bound.NetworkID)
	}
}

// of returns the zones of a network, in order.
func (p *projection) of(networkID string) []string {
	zones := []string{}
	for host := range p.ports[networkID] {
		if z, ok := p.zones[host]; ok && !slices.Contains(zones, z) {
			zones = append(zones, z)
		}
	}
	slices.Sort(zones)
	return zones
}

var shownZones = resource.NewSlot[[]string](zonesAttribute)

// present shows the zones of networks.
func (p *projection) present(rows []*network.Network) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, n := range rows {
		// A list of strings always marshals.
		_ = shownZones.Set(&n.Slots, p.of(n.ID))
	}
}

// Keys implements feed.Projection.
func (p *projection) Keys(*feed.Copy, string, func(feed.Key)) {}

// Render implements feed.Projection.
func (p *projection) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }

// Delta implements feed.Projection.
func (p *projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
