package router

import (
	"context"
	"net/netip"

	message "isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// delegations are the subnets of an interface whose prefix its router asks for.
func (p *projection) delegations(c *feed.Copy, o *port.Port) []*message.PrefixDelegation {
	var list []*message.PrefixDelegation
	for _, f := range o.FixedIPs {
		n := feed.Get[subnet.Subnet](c, "subnet", f.SubnetID)
		if n == nil || !n.Delegated() {
			continue
		}
		var beside []*port.Port
		for id := range p.byNetwork[o.NetworkID] {
			if other := feed.Get[port.Port](c, "port", id); other != nil {
				beside = append(beside, other)
			}
		}
		if r := port.Requester(beside, n); r == nil || r.ID != o.ID {
			continue
		}
		d := &message.PrefixDelegation{SubnetId: n.ID}
		if !n.Pending() {
			d.Prefix = n.CIDR.String()
		}
		list = append(list, d)
	}
	return list
}

// requested are the subnets on which a port of the router asks for prefixes.
func (s *service) requested(tx *store.Tx, p *port.Port) ([]*subnet.Subnet, error) {
	var list []*subnet.Subnet
	for _, f := range p.FixedIPs {
		if !f.IPAddress.Is6() {
			continue
		}
		n, err := s.core.Subnets.Load(tx, f.SubnetID)
		if err != nil {
			return nil, err
		}
		if !n.Delegated() {
			continue
		}
		ports, err := s.core.Ports.OnSubnet(tx, n.ID)
		if err != nil {
			return nil, err
		}
		if r := port.Requester(ports, n); r != nil && r.ID == p.ID {
			list = append(list, n)
		}
	}
	return list, nil
}

// revoke takes the prefixes of subnets away that no router asks for any longer.
func (s *service) revoke(ctx context.Context, tx *store.Tx, subnets []*subnet.Subnet) error {
	for _, n := range subnets {
		if err := s.core.Subnets.Delegate(ctx, tx, n, subnet.Provisional); err != nil {
			return err
		}
	}
	return nil
}

// revokeAll is revoke for all interfaces of a router: it has lost the gateway
// over which it asked.
func (s *service) revokeAll(ctx context.Context, tx *store.Tx, r *Router) error {
	for _, id := range r.PortIDs {
		p, err := s.core.Ports.Load(tx, id)
		if err != nil {
			return err
		}
		subnets, err := s.requested(tx, p)
		if err != nil {
			return err
		}
		if err := s.revoke(ctx, tx, subnets); err != nil {
			return err
		}
	}
	return nil
}

// delegated gives subnets the prefixes that their router's host was delegated,
// or that it has no longer. What is told of another generation of the router
// is late: the host tells it again. A prefix that cannot be the subnet's is
// logged: it must not keep the host's other reports from being taken.
func (s *service) delegated(ctx context.Context, tx *store.Tx, r *Router, a *message.Applied) error {
	if len(a.Delegations) == 0 || a.Revision != r.Generation {
		return nil
	}
	asked := map[string]*subnet.Subnet{}
	for _, id := range r.PortIDs {
		p, err := s.core.Ports.Load(tx, id)
		if err != nil {
			return err
		}
		subnets, err := s.requested(tx, p)
		if err != nil {
			return err
		}
		for _, n := range subnets {
			asked[n.ID] = n
		}
	}
	for _, d := range a.Delegations {
		n := asked[d.SubnetId]
		if n == nil {
			continue
		}
		prefix := subnet.Provisional
		if d.Prefix != "" {
			var err error
			if prefix, err = netip.ParsePrefix(d.Prefix); err != nil {
				s.core.Logger.Warn("delegated prefix is not valid", "router", r.ID, "subnet", n.ID, "error", err)
				continue
			}
		}
		err := s.core.Subnets.Delegate(ctx, tx, n, prefix)
		switch {
		case fault.IsKind(err, fault.Invalid):
			s.core.Logger.Warn("delegated prefix is not taken", "router", r.ID, "subnet", n.ID, "error", err)
		case err != nil:
			return err
		default:
			delete(asked, n.ID) // a second one for the same subnet is none
		}
	}
	return nil
}
