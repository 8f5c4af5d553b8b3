package port

import (
	"net/netip"

	"isospin/internal/resource"
)

// LocalIPs is where a port keeps the local IPs that its host must know. It is no attribute.
const LocalIPs = "local_ips"

// LocalIP is an address under which guests of the port's host reach the port.
type LocalIP struct {
	ID      string     `json:"id"`
	Address netip.Addr `json:"address"`
	// FixedIP is the port's own address that stands behind it.
	FixedIP   netip.Addr `json:"fixed_ip"`
	Mode      string     `json:"mode"` // translate, passthrough
	NetworkID string     `json:"network_id"`
}

var localIPsOf = resource.NewSlot[[]LocalIP](LocalIPs)

// LocalIPs of the port.
func (p *Port) LocalIPs() []LocalIP { return localIPsOf.Get(p.Slots) }
