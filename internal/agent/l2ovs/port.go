package l2ovs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
)

// binding is one (MAC, address) that a filtered port may use.
type binding struct {
	mac     mac
	address netip.Prefix
}

// addressing is what a port may use, parsed.
type addressing struct {
	mac      mac
	macs     []mac // mac first, then those of address pairs
	bindings []binding
}

// parseAddressing checks everything of a port that goes into matches.
func parseAddressing(p *feed.Port) (addressing, error) {
	var a addressing
	var err error
	if a.mac, err = parseMAC(p.MacAddress); err != nil {
		return a, err
	}
	a.macs = []mac{a.mac}
	for _, ip := range p.FixedIps {
		address, err := netip.ParseAddr(ip.IpAddress)
		if err != nil || address.Zone() != "" || address.Is4In6() {
			return a, fmt.Errorf("fixed IP %q is not valid", ip.IpAddress)
		}
		a.bindings = append(a.bindings, binding{a.mac, netip.PrefixFrom(address, address.BitLen())})
	}
	for _, pair := range p.AllowedAddressPairs {
		m := a.mac
		if pair.MacAddress != "" {
			if m, err = parseMAC(pair.MacAddress); err != nil {
				return a, fmt.Errorf("allowed address pair: %w", err)
			}
		}
		address, err := parsePrefix(pair.IpAddress)
		if err != nil {
			return a, fmt.Errorf("allowed address pair: %w", err)
		}
		if !slices.Contains(a.macs, m) {
			a.macs = append(a.macs, m)
		}
		if b := (binding{m, address}); !slices.Contains(a.bindings, b) {
			a.bindings = append(a.bindings, b)
		}
	}
	for _, m := range a.macs {
		a.bindings = append(a.bindings, binding{m, m.linkLocal()})
	}
	return a, nil
}

// trusted ports are made by the service itself.
func trusted(p *feed.Port) bool { return strings.HasPrefix(p.DeviceOwner, "network:") }

// localPort is a port of this host with all that its flows depend on.
type localPort struct {
	id     string
	ofport int
	vlan   int
	policy *policy // nil: not filtered
	// open ports may hold stations that nobody told us of.
	open       bool
	trusted    bool // made by the service itself
	addressing addressing
	limits     *limits // nil: none
	tags       bool    // the network carries its guests' VLAN tags
	private    bool    // the network keeps its ports apart
	class      uint32  // there; 0: promiscuous
}

// number of the policy of what the port sends and receives; 0: not filtered.
func (p *localPort) number() uint32 {
	if p.policy == nil {
		return 0
	}
	return p.policy.number
}

// portFlows renders what concerns one port alone.
func portFlows(p *localPort, ethertypes []uint16) flows {
	var f flows
	in := fmt.Sprintf("in_port=%d", p.ofport)
	load := fmt.Sprintf("set_field:%#x->reg6", p.vlan)
	first := tableLearn
	if p.policy != nil {
		load += fmt.Sprintf(",set_field:%#x->reg7,set_field:%#x->reg11", p.number(), p.number())
		first = tableSpoof
		spoofFlows(&f, in, p.addressing)
		for _, t := range ethertypes {
			f.add(tableSpoof, 60, fmt.Sprintf("%s,dl_src=%s,dl_type=%#x", in, p.addressing.mac, t), resubmit(tableLearn))
		}
	}
	if p.class != classPromiscuous {
		load += fmt.Sprintf(",set_field:%#x->reg12", p.class)
	}
	from := in + "," + untagged
	if p.tags && !p.trusted {
		from = in
	}
	limit := p.egressLimits(&f, in)
	f.add(tableClassify, 200, from, limit+load+","+resubmit(first))
	if p.limits != nil && p.limits.dscp >= 0 {
		for _, family := range []string{"ip", "ipv6"} {
			f.addf(tableClassify, 210, family+","+from, "%sset_field:%d->ip_dscp,%s,%s", limit, p.limits.dscp, load, resubmit(first))
		}
	}
	p.ingressLimits(&f)

	// What the port's known address sends needs no learning.
	if p.open || len(p.addressing.macs) > 1 {
		f.add(tableLearn, 20, fmt.Sprintf("%s,dl_src=%s", in, p.addressing.mac), resubmit(tableServices))
		f.add(tableLearn, 10, in, learn(p.vlan, p.ofport, "load:NXM_OF_IN_PORT[]->NXM_NX_REG5[0..15],load:NXM_NX_REG11[]->NXM_NX_REG8[]")+","+resubmit(tableServices))
	}

	match := fmt.Sprintf("reg6=%#x,dl_dst=%s", p.vlan, p.addressing.mac)
	if p.policy != nil {
		f.addf(tableLookup, 80, match, "set_field:%#x->reg5,set_field:%#x->reg8,resubmit(,%d)", p.ofport, p.number(), tableIngressBase)
	} else {
		f.addf(tableLookup, 80, match, "set_field:%#x->reg5,resubmit(,%d)", p.ofport, tableDeliver)
	}
	if p.private && p.class != classIsolated {
		to := fmt.Sprintf("reg5=%#x,reg6=%#x", p.ofport, p.vlan)
		if p.class != classPromiscuous {
			to += fmt.Sprintf(",reg12=%#x", p.class)
		}
		f.add(tablePrivate, 10, to, hears)
	}
	return f
}

// learn remembers for five minutes, as switches do, that the source address is
// where load says. A station that turns up elsewhere is found there at once.
// What was learned goes with the flow that learned it, which the cookie tells:
// the port number may be another network's next.
func learn(vlan, ofport int, load string) string {
	return fmt.Sprintf("learn(table=%d,cookie=%#x,hard_timeout=300,limit=4096,delete_learned,priority=10,NXM_NX_REG6[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],%s)",
		tableLearned, uint64(learnedMark)<<48|uint64(vlan)<<32|uint64(ofport), load)
}

// spoofFlows lets pass what a filtered port may send: its own addresses, in
// every protocol that carries them. Anything else, whatever its ethertype, is
// dropped since nothing lets it pass.
func spoofFlows(f *flows, in string, a addressing) {
	pass, source := resubmit(tableLearn), resubmit(tableSpoofIPv6)
	for _, m := range a.macs {
		from := fmt.Sprintf("%s,dl_src=%s", in, m)
		f.add(tableSpoof, 90, "udp,"+from+",nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67", pass)
		f.add(tableSpoof, 70, "ipv6,"+from, source)
		// A solicitation names its sender a second time, if at all.
		for _, option := range []string{m.String(), "00:00:00:00:00:00"} {
			f.add(tableSpoof, 90, "icmp6,"+from+",icmp_type=135,icmp_code=0,nd_sll="+option, source)
		}
		// Without an address yet: duplicate address detection of addresses of its own (below), router solicitation,
		// listener reports.
		for _, t := range []int{131, 133, 143} {
			f.add(tableSpoofIPv6, 80, fmt.Sprintf("icmp6,%s,ipv6_src=::,icmp_type=%d", from, t), pass)
		}
	}
	for _, b := range a.bindings {
		from := fmt.Sprintf("%s,dl_src=%s", in, b.mac)
		if b.address.Addr().Is4() {
			f.add(tableSpoof, 90, fmt.Sprintf("arp,%s%s,arp_sha=%s", from, prefixMatch("arp_spa", b.address), b.mac), pass)
			f.add(tableSpoof, 80, "ip,"+from+prefixMatch("nw_src", b.address), pass)
			continue
		}
		target := prefixMatch("nd_target", b.address)
		for _, option := range []string{b.mac.String(), "00:00:00:00:00:00"} {
			f.add(tableSpoof, 90, "icmp6,"+from+",icmp_type=136,icmp_code=0"+target+",nd_tll="+option, source)
		}
		f.add(tableSpoofIPv6, 80, "icmp6,"+from+",ipv6_src=::,icmp_type=135,icmp_code=0"+target, pass)
		f.add(tableSpoofIPv6, 70, "ipv6,"+from+prefixMatch("ipv6_src", b.address), pass)
	}
}
