package metadata

import (
	"net"
	"net/netip"
	"sync"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// instance is who asks.
type instance struct {
	id, project string
}

type macAddress [6]byte

// directory says who has which address. It is immutable.
type directory struct {
	networks map[string]*addresses
	routers  map[string][]string // ids of the networks behind each router
}

// addresses are those of one network.
type addresses struct {
	local map[netip.Addr]instance
	macs  map[macAddress]instance // of local ports
	table *runtime.ForwardingTable
	// elsewhere is the index over table, made by the first request that needs it.
	elsewhere func() map[netip.Addr]instance
}

// newDirectory makes the directory of a state. What did not change of the last
// one is kept.
func newDirectory(want *runtime.State, last *directory) *directory {
	d := &directory{networks: make(map[string]*addresses, len(want.Networks)), routers: make(map[string][]string, len(want.Routers))}
	of := func(id string) *addresses {
		a := d.networks[id]
		if a != nil {
			return a
		}
		a = &addresses{local: map[netip.Addr]instance{}, macs: map[macAddress]instance{}, table: want.Forwarding[id]}
		if old := last.networks[id]; old != nil && old.table == a.table {
			a.elsewhere = old.elsewhere
		} else {
			a.elsewhere = sync.OnceValue(a.indexElsewhere)
		}
		d.networks[id] = a
		return a
	}
	for id := range want.Networks {
		of(id)
	}
	for _, p := range want.Ports {
		a, who := of(p.NetworkId), instance{p.DeviceId, p.ProjectId}
		for _, f := range p.FixedIps {
			if ip, err := netip.ParseAddr(f.IpAddress); err == nil {
				a.local[ip] = who
			}
		}
		if hw, err := net.ParseMAC(p.MacAddress); err == nil && len(hw) == 6 {
			a.macs[macAddress(hw)] = who
		}
	}
	for id, r := range want.Routers {
		d.routers[id] = networksOf(r)
	}
	return d
}

func networksOf(r *feed.Router) []string {
	out := make([]string, 0, len(r.Interfaces))
	for _, i := range r.Interfaces {
		out = append(out, i.NetworkId)
	}
	return out
}

func (a *addresses) indexElsewhere() map[netip.Addr]instance {
	out := map[netip.Addr]instance{}
	if a.table == nil {
		return out
	}
	for _, e := range a.table.Entries {
		for _, s := range e.IpAddresses {
			if ip, err := netip.ParseAddr(s); err == nil {
				out[ip] = instance{e.DeviceId, e.ProjectId}
			}
		}
	}
	return out
}

func (a *addresses) find(ip netip.Addr) (instance, bool) {
	if who, ok := a.local[ip]; ok {
		return who, true
	}
	who, ok := a.elsewhere()[ip]
	return who, ok
}

// scope is what one listener serves: a network, or the networks of a router.
type scope struct {
	namespace         string
	network, router   string // one of them
	device            string // of the DHCP port; for a network
	neighbourHardware func(ip netip.Addr) (macAddress, bool)
}

// find says which instance has an address. A link-local address is that of the
// port whose frames carry it, by the kernel's neighbour table.
func (d *directory) find(s *scope, ip netip.Addr) (instance, bool) {
	if s.router != "" {
		for _, id := range d.routers[s.router] {
			if a := d.networks[id]; a != nil {
				if who, ok := a.find(ip); ok {
					return who, true
				}
			}
		}
		return instance{}, false
	}
	a := d.networks[s.network]
	if a == nil {
		return instance{}, false
	}
	if ip.Is6() && ip.IsLinkLocalUnicast() {
		mac, ok := s.neighbourHardware(ip)
		if !ok {
			return instance{}, false
		}
		who, ok := a.macs[mac]
		return who, ok
	}
	return a.find(ip)
}
