package l3

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"isospin/api/feed"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/neighbour"
	"isospin/internal/kernel/sysctl"
	"sigs.k8s.io/knftables"
)

// neighbourProxies are the IPv6 addresses that a router answers for on its
// external network.
type neighbourProxies struct {
	Device    string // of the first gateway; empty: there is none
	Enabled   bool
	Addresses []netip.Addr
}

// planProxies adds the proxies, and keeps the outside from all other IPv6
// addresses on the router's internal networks.
func planProxies(w *wanted, gateways []*outside, ports []*port, r *feed.Router) error {
	if len(gateways) == 0 {
		return nil
	}
	w.Proxies = neighbourProxies{Device: gateways[0].Device, Enabled: r.EnableNdpProxy}
	if !r.EnableNdpProxy {
		return nil
	}
	var failed []error
	for _, p := range r.NdpProxies {
		a, err := netip.ParseAddr(p.IpAddress)
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			failed = append(failed, fmt.Errorf("NDP proxy %s: address %q is not valid", p.Id, p.IpAddress))
			continue
		}
		w.Proxies.Addresses = append(w.Proxies.Addresses, a)
	}
	slices.SortFunc(w.Proxies.Addresses, netip.Addr.Compare)
	w.Proxies.Addresses = slices.Compact(w.Proxies.Addresses)
	const set = "ndp_proxies"
	o := w.Rules.Objects
	o = append(o, &knftables.Set{Name: set, Type: "ipv6_addr"})
	for _, a := range w.Proxies.Addresses {
		o = append(o, &knftables.Element{Set: set, Key: []string{a.String()}})
	}
	for _, p := range ports {
		if slices.ContainsFunc(gateways, func(g *outside) bool { return g.port == p }) {
			continue
		}
		for _, n := range p.addresses {
			if n.Addr().Is6() && !n.Addr().IsLinkLocalUnicast() {
				o = append(o, &knftables.Rule{Chain: "forward", Rule: knftables.Concat("iifname", anyOf(gateways), "ip6 daddr", n.Masked().String(), "ip6 daddr != @"+set, "drop")})
			}
		}
	}
	w.Rules.Objects = o
	return errors.Join(failed...)
}

// apply makes the kernel answer in the namespace of the calling thread.
func (p neighbourProxies) apply() error {
	if p.Device == "" {
		return nil
	}
	if _, err := link.Index(p.Device); err != nil {
		if errors.Is(err, link.ErrNotExist) { // plugging has failed and said so
			return nil
		}
		return err
	}
	if err := neighbour.SetProxies(p.Device, p.Addresses); err != nil || !p.Enabled {
		return err
	}
	return sysctl.Set(
		sysctl.Setting{Key: "net/ipv6/conf/" + p.Device + "/proxy_ndp", Value: "1"},
		// Nobody else has the address: there is nothing to wait for.
		sysctl.Setting{Key: "net/ipv6/neigh/" + p.Device + "/proxy_delay", Value: "0"},
	)
}
