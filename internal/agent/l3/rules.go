package l3

import (
	"maps"
	"net/netip"
	"slices"

	"isospin/internal/kernel/conntrack"
	"isospin/internal/kernel/nft"
	"sigs.k8s.io/knftables"
)

// metadataAddress is where guests ask for metadata, and metadataPort where the
// metadata feature answers inside the router's namespace.
var metadataAddress = netip.MustParseAddr("169.254.169.254")

const metadataPort = "9697"

// rules is the router's nftables table. Translation is decided by the first
// packet of a flow; connection tracking does the rest.
func rules(gateways []*outside, t translation) nft.Objects {
	ptr := knftables.PtrTo[knftables.BaseChainType]
	hook := knftables.PtrTo[knftables.BaseChainHook]
	priority := knftables.PtrTo[knftables.BaseChainPriority]
	o := nft.Objects{
		&knftables.Map{Name: "fip_dnat", Type: "ipv4_addr : ipv4_addr"},
		&knftables.Map{Name: "fip_snat", Type: "ipv4_addr : ipv4_addr"},
		&knftables.Chain{Name: "prerouting", Type: ptr(knftables.NATType), Hook: hook(knftables.PreroutingHook), Priority: priority(knftables.DNATPriority)},
		&knftables.Chain{Name: "input", Type: ptr(knftables.FilterType), Hook: hook(knftables.InputHook), Priority: priority(knftables.FilterPriority)},
		&knftables.Chain{Name: "forward", Type: ptr(knftables.FilterType), Hook: hook(knftables.ForwardHook), Priority: priority(knftables.FilterPriority)},
		&knftables.Chain{Name: "postrouting", Type: ptr(knftables.NATType), Hook: hook(knftables.PostroutingHook), Priority: priority(knftables.SNATPriority)},
	}
	rule := func(chain string, parts ...any) {
		o = append(o, &knftables.Rule{Chain: chain, Rule: knftables.Concat(parts...)})
	}

	rule("prerouting", `iifname "qr-*" ip daddr`, metadataAddress.String(), "tcp dport 80 redirect to :"+metadataPort)
	rule("prerouting", "dnat ip to ip daddr map @fip_dnat")

	// Metadata only for those that were redirected: whoever is outside, or
	// asks the port itself, is turned away.
	rule("input", `iifname "qr-*" ct status dnat tcp dport`, metadataPort, "accept")
	rule("input", `iifname != "lo" tcp dport`, metadataPort, "reject with tcp reset")

	if len(gateways) == 0 {
		return o
	}
	o = append(o, gatewayRules(gateways)...)
	quoted := anyOf(gateways)
	if t.SNAT || len(t.ToFixed) > 0 || len(t.Forwards) > 0 {
		// A packet of no known flow is not translated and would leave with an
		// internal address. Between internal networks it may pass: tenants' routes
		// may show us one direction only.
		rule("forward", "oifname", quoted, "meta nfproto ipv4 ct state invalid drop")
		rule("forward", "iifname", quoted, "meta nfproto ipv4 ct state invalid drop")
	}
	rule("postrouting", "oifname", quoted, "snat ip to ip saddr map @fip_snat")
	// Hairpin: who reaches a floating IP from inside is shown to the other side
	// as coming from outside, so that answers pass here too.
	rule("postrouting", "iifname !=", quoted, "ct status dnat snat ip to ip saddr map @fip_snat")
	for _, g := range gateways {
		if t.SNAT && g.Address.IsValid() {
			rule("postrouting", "oifname", `"`+g.Device+`"`, "meta nfproto ipv4 snat ip to", g.Address.String(), "fully-random")
		}
	}
	if t.Gateway.IsValid() {
		rule("postrouting", "iifname !=", quoted, "meta nfproto ipv4 ct status dnat snat ip to", t.Gateway.String(), "fully-random")
	}
	elements := func(name string, m map[netip.Addr]netip.Addr) {
		for _, k := range slices.SortedFunc(maps.Keys(m), netip.Addr.Compare) {
			o = append(o, &knftables.Element{Map: name, Key: []string{k.String()}, Value: []string{m[k].String()}})
		}
	}
	elements("fip_dnat", t.ToFixed)
	elements("fip_snat", t.ToPublic)
	return o
}

// unjustified tells whether a tracked flow is translated in a way that the
// rules do not ask for (any more), and so must end.
func (t translation) unjustified(f conntrack.Flow) bool {
	if f.DestinationTranslated() && f.Destination != metadataAddress && t.ToFixed[f.Destination] != f.ReplySource && !t.forwards(f) {
		return true
	}
	if !f.SourceTranslated() {
		return false
	}
	// Of two floating IPs of one address only one is its source, but both were
	// once; the gateway's address stays good for flows older than the floating IP.
	if t.ToFixed[f.ReplyTo] == f.Source && f.Source.IsValid() {
		return false
	}
	own := t.Gateway.IsValid() && f.ReplyTo == t.Gateway || slices.Contains(t.Further, f.ReplyTo)
	return !(own && (t.SNAT || f.DestinationTranslated()))
}
