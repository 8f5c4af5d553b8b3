package l3

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
	"isospin/internal/kernel/nft"
	"sigs.k8s.io/knftables"
)

// usesPolicy tells whether a router's gateway or a floating IP has one of the policies.
func usesPolicy(r *feed.Router, policies map[string]struct{}) bool {
	for _, g := range gatewaysOf(r) {
		if _, ok := policies[g.QosPolicyId]; ok {
			return true
		}
	}
	return slices.ContainsFunc(r.FloatingIps, func(f *feed.FloatingIP) bool { _, ok := policies[f.QosPolicyId]; return ok })
}

func gatewaysOf(r *feed.Router) []*feed.RouterGateway {
	if r.Gateway == nil {
		return nil
	}
	return append([]*feed.RouterGateway{r.Gateway}, r.FurtherGateways...)
}

const (
	// leastBurst lets TCP reach a low rate: with less it gets half of it.
	leastBurst = 64 << 10
	// greatestBurst is what a limit of the kernel can hold.
	greatestBurst = 1 << 31
)

// limits are the rules for one direction of a policy. What is over a limit is dropped.
func limits(p *feed.QoSPolicy, direction string) []string {
	var rules []string
	for _, l := range p.BandwidthLimits {
		if l.Direction != direction || l.MaxKbps <= 0 {
			continue
		}
		rate := l.MaxKbps * 125
		rule := fmt.Sprintf("limit rate over %d bytes/second", rate)
		// The kernel's limit of bytes lets pass what the rate does in a second at
		// once, and its burst on top of that.
		if more := max(l.MaxBurstKbps*125, leastBurst) - rate; more > 0 {
			rule += fmt.Sprintf(" burst %d bytes", min(more, greatestBurst))
		}
		rules = append(rules, rule+" drop")
	}
	for _, l := range p.PacketRateLimits {
		if l.Direction != direction || l.MaxKpps <= 0 {
			continue
		}
		rate := l.MaxKpps * 1000
		burst := l.MaxBurstKpps * 1000
		if burst <= 0 {
			burst = rate / 5 * 4
		}
		rules = append(rules, fmt.Sprintf("limit rate over %d/second burst %d packets drop", rate, min(max(burst, 5), greatestBurst)))
	}
	return rules
}

// planLimits adds the limits of floating IPs and of the gateway's own address:
// for each public address, what comes from outside before it is translated, and
// what goes out after it was.
func planLimits(w *wanted, r *feed.Router, policies map[string]*feed.QoSPolicy) {
	byAddress := map[netip.Addr]*feed.QoSPolicy{}
	for _, g := range gatewaysOf(r) {
		for _, text := range g.Addresses {
			n, err := netip.ParsePrefix(text)
			if p := policies[g.QosPolicyId]; p != nil && err == nil && n.Addr().Is4() {
				byAddress[n.Addr()] = p
			}
		}
	}
	for _, f := range r.FloatingIps {
		a, err := netip.ParseAddr(f.FloatingIpAddress)
		if p := policies[f.QosPolicyId]; p != nil && err == nil && a.Is4() {
			byAddress[a] = p
		}
	}
	ptr := knftables.PtrTo[knftables.BaseChainType]
	hook := knftables.PtrTo[knftables.BaseChainHook]
	priority := knftables.PtrTo[knftables.BaseChainPriority]
	for _, side := range []struct {
		direction, name, packets string
		hook                     knftables.BaseChainHook
		priority                 knftables.BaseChainPriority
	}{
		{"ingress", "limit_in", `iifname "qg-*" ip daddr`, knftables.PreroutingHook, knftables.ManglePriority},
		{"egress", "limit_out", `oifname "qg-*" ip saddr`, knftables.PostroutingHook, knftables.BaseChainPriority("300")},
	} {
		var chains, elements nft.Objects
		for _, a := range slices.SortedFunc(maps.Keys(byAddress), netip.Addr.Compare) {
			rules := limits(byAddress[a], side.direction)
			if len(rules) == 0 {
				continue
			}
			chain := side.name + "_" + strings.ReplaceAll(a.String(), ".", "_")
			chains = append(chains, &knftables.Chain{Name: chain})
			for _, rule := range rules {
				chains = append(chains, &knftables.Rule{Chain: chain, Rule: rule})
			}
			elements = append(elements, &knftables.Element{Map: side.name, Key: []string{a.String()}, Value: []string{"goto " + chain}})
		}
		if len(elements) == 0 {
			continue
		}
		base := side.name + "_packets"
		w.Rules.Objects = append(w.Rules.Objects,
			&knftables.Map{Name: side.name, Type: "ipv4_addr : verdict"},
			&knftables.Chain{Name: base, Type: ptr(knftables.FilterType), Hook: hook(side.hook), Priority: priority(side.priority)})
		w.Rules.Objects = append(append(w.Rules.Objects, chains...), elements...)
		w.Rules.Objects = append(w.Rules.Objects, &knftables.Rule{Chain: base, Rule: side.packets + " vmap @" + side.name})
	}
}
