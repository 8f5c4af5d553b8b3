package l3

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
	"isospin/internal/kernel/nft"
	"isospin/internal/kernel/route"
	"isospin/internal/kernel/rule"
	"isospin/internal/kernel/sysctl"
	"sigs.k8s.io/knftables"
)

// Of a router with several gateways, each flow keeps the gateway that it began
// with: its connection mark says which, and packets with it are routed by the
// default routes of that gateway, in a table of its own. All other routes hold
// for every flow.
const (
	// gatewayMask are the bits of marks that tell the gateway, counted from 1.
	gatewayMask  = 0x0f000000
	gatewayShift = 24
	// gatewayTable and the gateway's number make the table of its default routes.
	gatewayTable = 7300
	// gatewayPriority and the gateway's number make the priority of its rule.
	gatewayPriority = 7300
	maxGateways     = gatewayMask >> gatewayShift
)

// outside is a gateway as rules see it.
type outside struct {
	Device string
	// Address is the IPv4 address of translated packets; invalid: there is none.
	Address netip.Addr
	// Fixed are the addresses whose floating IPs are on this gateway.
	Fixed []netip.Addr
	// Defaults are the default routes over this gateway.
	Defaults []route.Route
	subnets  []netip.Prefix
	port     *port
}

// serves tells whether a floating address belongs to the network of the gateway.
func (o *outside) serves(a netip.Addr) bool {
	return o.port.holds(a) || slices.ContainsFunc(o.subnets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func newOutside(p *port, g *feed.RouterGateway) (*outside, error) {
	o := &outside{Device: p.device.Name, port: p}
	for _, a := range p.addresses {
		if a.Addr().Is4() {
			o.Address = a.Addr()
			break
		}
	}
	for _, s := range g.Subnets {
		if n, err := netip.ParsePrefix(s.Cidr); err == nil {
			o.subnets = append(o.subnets, n)
		}
	}
	var err error
	o.Defaults, err = defaults(p, g)
	return o, err
}

// defaults are the default routes over a gateway.
func defaults(p *port, g *feed.RouterGateway) ([]route.Route, error) {
	var failed []error
	var routes []route.Route
	router6 := false
	for _, s := range g.GatewayIps {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			failed = append(failed, fmt.Errorf("gateway address %q is not valid", s))
			continue
		}
		a = a.Unmap()
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if a.Is6() {
			all, router6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		if p.device.AdminDown || slices.ContainsFunc(routes, func(r route.Route) bool { return r.Destination == all }) {
			continue
		}
		routes = append(routes, route.Route{Destination: all, NextHops: []route.NextHop{{
			Gateway: a, Device: p.device.Name, OnLink: !p.holds(a) && !a.IsLinkLocalUnicast(),
		}}})
	}
	// With IPv6 outside and no router named, it is learnt.
	p.device.AcceptAdvertisements = !router6 &&
		slices.ContainsFunc(p.addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
	return routes, errors.Join(failed...)
}

// neighbor is where a default route goes to.
type neighbor struct {
	Device  string
	Address netip.Addr
}

func neighborOf(r route.Route) neighbor { return neighbor{r.NextHops[0].Device, r.NextHops[0].Gateway} }

// planWatch has the neighbors of all gateways asked.
func planWatch(w *wanted, gateways []*outside) {
	for _, o := range gateways {
		for _, r := range o.Defaults {
			w.Watched = append(w.Watched, neighborOf(r))
		}
	}
}

// planDefaults adds the router's default routes: of each family those of the
// first gateway that has one, or with balance those of all gateways. Of watched
// neighbors only those that are reachable count, unless none is: they may not
// speak BFD, and nothing would be gained by having no route.
func planDefaults(w *wanted, gateways []*outside, balance bool, reachable func(neighbor) bool) {
	there := map[netip.Prefix]bool{}
	lost := func(r route.Route) bool { return len(w.Watched) > 0 && (reachable == nil || !reachable(neighborOf(r))) }
	for _, o := range gateways {
		for _, r := range o.Defaults {
			there[r.Destination] = there[r.Destination] || !lost(r)
		}
	}
	for _, o := range gateways {
		for _, r := range o.Defaults {
			if there[r.Destination] && lost(r) {
				continue
			}
			i := slices.IndexFunc(w.Routes, func(have route.Route) bool { return have.Destination == r.Destination })
			switch {
			case i < 0:
				w.Routes = append(w.Routes, route.Route{Destination: r.Destination, NextHops: slices.Clone(r.NextHops)})
			case balance:
				w.Routes[i].NextHops = append(w.Routes[i].NextHops, r.NextHops...)
			}
		}
	}
}

// planGateways says how flows keep to one of several gateways.
func planGateways(w *wanted, gateways []*outside) {
	if len(gateways) < 2 {
		return
	}
	w.Tables = map[int][]route.Route{}
	w.Policy = []rule.Rule{{Priority: gatewayPriority, Table: route.Main, NoDefault: true}}
	for i, o := range gateways {
		n := i + 1
		w.Tables[gatewayTable+n] = o.Defaults
		w.Policy = append(w.Policy, rule.Rule{Priority: gatewayPriority + n, Mark: uint32(n) << gatewayShift, Mask: gatewayMask, Table: gatewayTable + n})
	}
}

// planBalance lets the kernel choose among next hops by flow, not by host, once
// there is a choice.
func planBalance(w *wanted) {
	several := func(r route.Route) bool { return len(r.NextHops) > 1 }
	if i := slices.IndexFunc(w.Routes, several); i >= 0 {
		w.Balance = append(w.Balance, sysctl.Setting{Key: "net/ipv4/fib_multipath_hash_policy", Value: "1"})
	}
	if i := slices.IndexFunc(w.Routes, func(r route.Route) bool { return several(r) && r.Destination.Addr().Is6() }); i >= 0 {
		w.Balance = append(w.Balance, sysctl.Setting{Key: "net/ipv6/fib_multipath_hash_policy", Value: "1"})
	}
}

// setPolicy makes rules and tables be as planned, in the router's namespace.
func setPolicy(w *wanted) error {
	before, err := rule.Tables()
	if err != nil {
		return err
	}
	var failed []error
	for table, routes := range w.Tables {
		failed = append(failed, route.Set(table, routes))
	}
	failed = append(failed, rule.Set(w.Policy))
	for table := range before {
		if _, kept := w.Tables[table]; !kept && table != route.Main {
			failed = append(failed, route.Set(table, nil))
		}
	}
	return errors.Join(failed...)
}

// anyOf matches one of the devices, as the right side of iifname and oifname.
func anyOf(gateways []*outside) string {
	names := make([]string, len(gateways))
	for i, o := range gateways {
		names[i] = `"` + o.Device + `"`
	}
	if len(names) == 1 {
		return names[0]
	}
	return "{ " + strings.Join(names, ", ") + " }"
}

// gatewayRules are the chains that mark flows of several gateways.
func gatewayRules(gateways []*outside) nft.Objects {
	if len(gateways) < 2 {
		return nil
	}
	filter := knftables.PtrTo(knftables.FilterType)
	mangle := knftables.PtrTo(knftables.ManglePriority)
	o := nft.Objects{
		&knftables.Chain{Name: "gateway_in", Type: filter, Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: mangle},
		&knftables.Chain{Name: "gateway_out", Type: filter, Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: mangle},
	}
	add := func(chain string, parts ...any) {
		o = append(o, &knftables.Rule{Chain: chain, Rule: knftables.Concat(parts...)})
	}
	hex := func(v uint32) string { return fmt.Sprintf("0x%08x", v) }
	mask, rest := hex(gatewayMask), hex(^uint32(gatewayMask))
	for i, g := range gateways {
		mark := hex(uint32(i+1) << gatewayShift)
		quoted := `"` + g.Device + `"`
		add("gateway_in", "iifname", quoted, "ct state new ct mark set ct mark and", rest, "or", mark)
		if len(g.Fixed) > 0 {
			texts := make([]string, len(g.Fixed))
			for i, a := range g.Fixed {
				texts[i] = a.String()
			}
			add("gateway_in", `iifname "qr-*" ct state new ip saddr {`, strings.Join(texts, ", "), "} meta mark set meta mark and", rest, "or", mark)
		}
		add("gateway_out", "oifname", quoted, "ct state new ct mark set ct mark and", rest, "or", mark)
		add("gateway_in", `iifname "qr-*" ct mark and`, mask, "==", mark, "meta mark set meta mark and", rest, "or", mark)
	}
	return o
}
