package l3

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"isospin/api/feed"
	"isospin/internal/kernel/conntrack"
	"isospin/internal/kernel/nft"
	"sigs.k8s.io/knftables"
)

// span is a range of ports; the zero value is that of protocols without ports.
type span struct{ first, last uint16 }

// forwarding sends ports of a public address to an internal one.
type forwarding struct {
	public   netip.Addr
	protocol string
	number   uint8 // of the protocol
	external span
	to       netip.Addr
	internal span
}

// forwardable are the protocols that can be forwarded over IPv4, by Neutron's names.
var forwardable = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "sctp": 132}

// planForwardings adds the port forwardings of floating IPs, and the addresses of these.
func planForwardings(w *wanted, gateways []*outside, list []*feed.PortForwarding) error {
	var failed []error
	for _, f := range list {
		// What Neutron's API takes and IPv4 does not have: nothing ever arrives.
		if f.Protocol == "ipv6-icmp" || f.Protocol == "icmp6" {
			continue
		}
		n, err := parseForwarding(f)
		switch {
		case err != nil:
		case len(gateways) == 0:
			err = errors.New("the router has no gateway")
		case w.NAT.ToFixed[n.public].IsValid():
			err = fmt.Errorf("%s stands for a fixed address", n.public)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("port forwarding %s: %w", f.Id, err))
			continue
		}
		w.NAT.Forwards = append(w.NAT.Forwards, n)
		on := gateways[0]
		if i := slices.IndexFunc(gateways, func(o *outside) bool { return o.serves(n.public) }); i > 0 {
			on = gateways[i]
		}
		if !slices.ContainsFunc(on.port.addresses, func(a netip.Prefix) bool { return a.Addr() == n.public }) {
			on.port.addresses = append(on.port.addresses, netip.PrefixFrom(n.public, 32))
		}
	}
	slices.SortFunc(w.NAT.Forwards, func(a, b forwarding) int {
		return cmp.Or(a.public.Compare(b.public), cmp.Compare(a.number, b.number), cmp.Compare(a.external.first, b.external.first))
	})
	// What was sent first of two for one port counts: the map could not have both.
	w.NAT.Forwards = slices.CompactFunc(w.NAT.Forwards, func(a, b forwarding) bool {
		return a.public == b.public && a.number == b.number && a.external.first <= b.external.last && b.external.first <= a.external.last
	})
	return errors.Join(failed...)
}

func parseForwarding(f *feed.PortForwarding) (forwarding, error) {
	n := forwarding{protocol: f.Protocol, number: forwardable[f.Protocol]}
	var err, err2 error
	n.public, err = netip.ParseAddr(f.FloatingIpAddress)
	n.to, err2 = netip.ParseAddr(f.InternalIpAddress)
	if err != nil || err2 != nil || !n.public.Is4() || !n.to.Is4() {
		return n, fmt.Errorf("%q to %q is not valid", f.FloatingIpAddress, f.InternalIpAddress)
	}
	if n.number == 0 {
		return n, fmt.Errorf("protocol %q is not known", f.Protocol)
	}
	if f.Protocol == "icmp" {
		return n, nil
	}
	for _, s := range []struct {
		into     *span
		min, max int32
	}{{&n.external, f.ExternalPortMin, f.ExternalPortMax}, {&n.internal, f.InternalPortMin, f.InternalPortMax}} {
		if s.min < 1 || s.max > 65535 || s.max < s.min {
			return n, fmt.Errorf("ports %d to %d are not valid", s.min, s.max)
		}
		*s.into = span{uint16(s.min), uint16(s.max)}
	}
	if one := n.internal.first == n.internal.last; !one && n.internal.last-n.internal.first != n.external.last-n.external.first {
		return n, errors.New("the ranges of ports differ in size")
	}
	return n, nil
}

// forwardRules are those of port forwardings. Single ports, and ranges that are
// moved, are elements of a map: nft has no arithmetic on ports. Other ranges are
// a rule each.
func forwardRules(list []forwarding) nft.Objects {
	if len(list) == 0 {
		return nil
	}
	const name = "port_dnat"
	o := nft.Objects{&knftables.Map{Name: name, Type: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"}}
	rule := func(parts ...any) {
		o = append(o, &knftables.Rule{Chain: "prerouting", Rule: knftables.Concat(parts...)})
	}
	var elements nft.Objects
	element := func(f forwarding, external, internal uint16) {
		elements = append(elements, &knftables.Element{
			Map: name, Key: []string{f.public.String(), f.protocol, strconv.Itoa(int(external))}, Value: []string{f.to.String(), strconv.Itoa(int(internal))},
		})
	}
	rule("dnat ip to ip daddr . meta l4proto . th dport map @" + name)
	for _, f := range list {
		ports := strconv.Itoa(int(f.external.first)) + "-" + strconv.Itoa(int(f.external.last))
		switch {
		case f.external == (span{}):
			rule("ip daddr", f.public.String(), "ip protocol", f.protocol, "dnat ip to", f.to.String())
		case f.external.first == f.external.last:
			element(f, f.external.first, f.internal.first)
		case f.external == f.internal:
			rule("ip daddr", f.public.String(), "meta l4proto", f.protocol, "th dport", ports, "dnat ip to", f.to.String())
		case f.internal.first == f.internal.last:
			rule("ip daddr", f.public.String(), "meta l4proto", f.protocol, "th dport", ports, "dnat ip to", f.to.String()+":"+strconv.Itoa(int(f.internal.first)))
		default:
			for i := range int(f.external.last-f.external.first) + 1 {
				element(f, f.external.first+uint16(i), f.internal.first+uint16(i))
			}
		}
	}
	return append(o, elements...)
}

// forwards tells whether a tracked flow goes where a forwarding sends it.
func (t translation) forwards(f conntrack.Flow) bool {
	for _, n := range t.Forwards {
		if n.public != f.Destination || n.number != f.Protocol || n.to != f.ReplySource {
			continue
		}
		if n.external == (span{}) {
			return true
		}
		if f.DestinationPort < n.external.first || f.DestinationPort > n.external.last {
			continue
		}
		want := n.internal.first
		if n.internal.first != n.internal.last {
			want += f.DestinationPort - n.external.first
		}
		if f.ReplySourcePort == want {
			return true
		}
	}
	return false
}
