package segment

import (
	"context"
	"net/netip"
	"slices"

	"isospin/internal/core/ipam"
	"isospin/internal/core/subnet"
	"isospin/internal/store"
)

// peerRoutes are a subnet's host routes with those to the subnets of the other
// segments through its gateway: guests may have other default gateways. A
// destination that a route covers already gets none. former is the gateway
// before a change, gone a prefix that is no longer a peer's.
func peerRoutes(n *subnet.Subnet, all []*subnet.Subnet, former netip.Addr, gone netip.Prefix) []subnet.Route {
	routes := slices.Clone(n.HostRoutes)
	forget := func(p netip.Prefix, by netip.Addr) {
		if by.IsValid() && p.IsValid() {
			routes = slices.DeleteFunc(routes, func(r subnet.Route) bool { return r == subnet.Route{Destination: p.String(), NextHop: by.String()} })
		}
	}
	forget(gone, n.GatewayIP)
	for _, peer := range all {
		if peer.ID == n.ID || segmentOf(peer) == segmentOf(n) || peer.IPVersion != n.IPVersion || peer.CIDR == gone {
			continue
		}
		if former != n.GatewayIP {
			forget(peer.CIDR, former)
		}
		covered := slices.ContainsFunc(routes, func(r subnet.Route) bool {
			p, err := netip.ParsePrefix(r.Destination)
			return err == nil && ipam.Covers(p, peer.CIDR)
		})
		if n.GatewayIP.IsValid() && !covered {
			routes = append(routes, subnet.Route{Destination: peer.CIDR.String(), NextHop: n.GatewayIP.String()})
		}
	}
	return routes
}

func routesOfNew(_ context.Context, _ *store.Tx, n *subnet.Subnet, beside []*subnet.Subnet) error {
	if n.SegmentID != nil {
		n.HostRoutes = peerRoutes(n, beside, n.GatewayIP, netip.Prefix{})
	}
	return nil
}

func (s *service) routesOfChanged(_ context.Context, tx *store.Tx, old, want *subnet.Subnet) error {
	if want.SegmentID == nil || old.GatewayIP == want.GatewayIP && slices.Equal(old.HostRoutes, want.HostRoutes) {
		return nil
	}
	all, err := s.core.Subnets.OfNetwork(tx, want.NetworkID)
	if err != nil {
		return err
	}
	want.HostRoutes = peerRoutes(want, all, old.GatewayIP, netip.Prefix{})
	return nil
}

// routesBeside gives the other subnets of the network their routes to a new one.
func (s *service) routesBeside(ctx context.Context, tx *store.Tx, n *subnet.Subnet) error {
	return s.reroute(ctx, tx, n, netip.Prefix{})
}

// routesWithout takes the routes to a subnet away that goes.
func (s *service) routesWithout(ctx context.Context, tx *store.Tx, n *subnet.Subnet) error {
	return s.reroute(ctx, tx, n, n.CIDR)
}

func (s *service) reroute(ctx context.Context, tx *store.Tx, of *subnet.Subnet, gone netip.Prefix) error {
	if of.SegmentID == nil {
		return nil
	}
	all, err := s.core.Subnets.OfNetwork(tx, of.NetworkID)
	if err != nil {
		return err
	}
	for _, n := range all {
		routes := peerRoutes(n, all, n.GatewayIP, gone)
		if n.ID == of.ID || slices.Equal(routes, n.HostRoutes) {
			continue
		}
		changed, err := s.core.Subnets.Load(tx, n.ID)
		if err != nil {
			return err
		}
		changed.HostRoutes = routes
		if err := s.core.Subnets.Save(ctx, tx, changed); err != nil {
			return err
		}
	}
	return nil
}
