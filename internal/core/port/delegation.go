package port

import (
	"context"
	"net/netip"
	"slices"

	"isospin/internal/core/subnet"
	"isospin/internal/store"
)

// Requester is, of the ports with addresses on a subnet whose prefix comes by
// delegation, the router's that asks for it: the one that has the gateway's
// address, else that of the router interfaces with the lowest id. nil: none.
func Requester(ports []*Port, n *subnet.Subnet) *Port {
	var first *Port
	for _, p := range ports {
		i := slices.IndexFunc(p.FixedIPs, func(f FixedIP) bool { return f.SubnetID == n.ID })
		if i < 0 || !routerOwner(p.DeviceOwner) {
			continue
		}
		if slices.Contains(p.FixedIPs, FixedIP{n.ID, n.GatewayIP}) {
			return p
		}
		if first == nil || p.ID < first.ID {
			first = p
		}
	}
	return first
}

// OnSubnet returns the ports that have addresses on a subnet.
func (s *Service) OnSubnet(tx *store.Tx, id string) ([]*Port, error) {
	return s.Table.Select(tx, "WHERE t.id IN (SELECT port_id FROM ip_allocation WHERE subnet_id = ?) ORDER BY t.id", id)
}

// renumber gives the ports of a subnet that has another prefix their addresses
// in it: the requester's is the gateway's, the others keep their interface
// identifiers, which of ports that are no routers' are made from the MAC address.
func (s *Service) renumber(ctx context.Context, tx *store.Tx, old, n *subnet.Subnet) error {
	ports, err := s.OnSubnet(tx, n.ID)
	if err != nil {
		return err
	}
	requester := Requester(ports, old)
	gateway := requester != nil && n.GatewayIP.IsValid()
	// The requester first: nobody else may have taken the gateway's address.
	if gateway {
		ports = slices.DeleteFunc(ports, func(p *Port) bool { return p == requester })
		ports = slices.Insert(ports, 0, requester)
	}
	for _, p := range ports {
		p.FixedIPs = slices.Clone(p.FixedIPs)
		for i, f := range p.FixedIPs {
			if f.SubnetID != n.ID {
				continue
			}
			a := within(n.CIDR, f.IPAddress)
			if p == requester && gateway {
				a, gateway = n.GatewayIP, false
			} else if a == n.GatewayIP {
				a = netip.Addr{}
			}
			if err := tx.Put("DELETE FROM ip_allocation WHERE subnet_id = ? AND ip_address = ? AND port_id = ?", n.ID, f.IPAddress.String(), p.ID); err != nil {
				return err
			}
			if p.FixedIPs[i], err = s.allocateOne(tx, p, wish{among: []*subnet.Subnet{n}, address: a}, i); err != nil {
				return err
			}
		}
		if err := s.store(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// within is the address with the same interface identifier in another /64.
func within(prefix netip.Prefix, a netip.Addr) netip.Addr {
	b, from := prefix.Masked().Addr().As16(), a.As16()
	copy(b[8:], from[8:])
	return netip.AddrFrom16(b)
}
