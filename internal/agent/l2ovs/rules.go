package l2ovs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"isospin/api/feed"
)

// policy is the union of the rules of some security groups: all filtered ports
// with the same groups share one, so that what a rule costs does not depend on
// the number of ports.
type policy struct {
	key    string // ids of the groups, sorted
	number uint32 // in reg7 and reg8
	groups []*feed.SecurityGroup
	used   map[setUse]struct{} // address sets that its rules refer to
	err    error               // rules that are not rendered, and so allow nothing
	flaws  error               // refusals of the switch
}

// setUse is an address set as a remote of rules of one direction.
type setUse struct {
	id      string
	ingress bool
}

// Priorities in the rule tables.
const (
	priorityRule        = 50
	priorityConjunction = 40
)

// stateless: no group tracks connections. A mixture tracks, which allows no
// more than the rules say.
func stateless(groups []*feed.SecurityGroup) bool {
	for _, g := range groups {
		if g.Stateful {
			return false
		}
	}
	return len(groups) > 0
}

// hash31 is where the search for a number for text begins: the same after each
// start of the agent.
func hash31(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return h.Sum32()&0x7ffffffe + 1
}

// number finds a number for a name that no other name in taken has.
func number(name string, taken map[uint32]string) uint32 {
	n := hash31(name)
	for {
		owner, ok := taken[n]
		if !ok || owner == name {
			taken[n] = name
			return n
		}
		if n++; n > 0x7fffffff { // within 31 bits, and not 0
			n = 1
		}
	}
}

// renderPolicy makes the flows of a policy; conjunctionOf numbers address sets.
func renderPolicy(p *policy, conjunctionOf func(setID string) uint32) flows {
	var f flows
	var errs []error
	p.used = map[setUse]struct{}{}
	// Rules with a remote set: the second dimension of the set's conjunction. One match may serve many sets.
	type place struct {
		table uint8
		match string
	}
	second := map[place][]uint32{}
	var places []place
	for _, g := range p.groups {
		for _, r := range g.Rules {
			var ingress bool
			switch r.Direction {
			case "ingress":
				ingress = true
			case "egress":
			default:
				errs = append(errs, fmt.Errorf("rule %s: direction %q", r.Id, r.Direction))
				continue
			}
			matches, err := ruleMatches(r, ingress)
			if err != nil {
				errs = append(errs, fmt.Errorf("rule %s: %w", r.Id, err))
				continue
			}
			table, next, register := uint8(tableEgressRules), tableEgressAccepted, "reg7"
			if ingress {
				table, next, register = tableIngressRules, tableIngressAccepted, "reg8"
			}
			for _, m := range matches {
				match := fmt.Sprintf("%s=%#x,%s", register, p.number, m)
				if r.RemoteAddressSetId == "" {
					f.add(table, priorityRule, match, resubmit(next))
					continue
				}
				p.used[setUse{r.RemoteAddressSetId, ingress}] = struct{}{}
				at := place{table, match}
				if second[at] == nil {
					places = append(places, at)
				}
				if id := conjunctionOf(r.RemoteAddressSetId); !slices.Contains(second[at], id) {
					second[at] = append(second[at], id)
				}
			}
		}
	}
	for _, at := range places {
		f.add(at.table, priorityConjunction, at.match, conjunctions(second[at], 2))
	}
	p.err = errors.Join(errs...)
	return f
}

// conjunctions is the actions of a flow that is dimension of all of ids.
func conjunctions(ids []uint32, dimension int) string {
	slices.Sort(ids)
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = fmt.Sprintf("conjunction(%d,%d/2)", id, dimension)
	}
	return strings.Join(parts, ",")
}

// conjunctionFlows is what becomes of packets that satisfy both dimensions.
func conjunctionFlows(id uint32, ingress bool) flows {
	var f flows
	table, next := uint8(tableEgressRules), tableEgressAccepted
	if ingress {
		table, next = tableIngressRules, tableIngressAccepted
	}
	for _, family := range []string{"ip", "ipv6"} {
		f.add(table, priorityConjunction, fmt.Sprintf("conj_id=%d,%s", id, family), resubmit(next))
	}
	return f
}

// IP protocol numbers with more to match than the number.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
	protocolSCTP   = 132
)

// ruleMatches renders what a rule allows, but for its remote set: a packet is
// allowed if one of the matches matches.
func ruleMatches(r *feed.SecurityGroupRule, ingress bool) ([]string, error) {
	var v6 bool
	switch r.Ethertype {
	case "IPv4":
	case "IPv6":
		v6 = true
	default:
		return nil, fmt.Errorf("ethertype %q", r.Ethertype)
	}
	remote := ""
	if r.RemoteIpPrefix != "" {
		if r.RemoteAddressSetId != "" {
			return nil, errors.New("both a remote prefix and a remote set")
		}
		prefix, err := parsePrefix(r.RemoteIpPrefix)
		if err != nil {
			return nil, fmt.Errorf("remote prefix: %w", err)
		}
		if prefix.Addr().Is6() != v6 {
			return nil, fmt.Errorf("remote prefix %s is not %s", prefix, r.Ethertype)
		}
		field := map[[2]bool]string{{false, false}: "nw_dst", {false, true}: "nw_src", {true, false}: "ipv6_dst", {true, true}: "ipv6_src"}[[2]bool{v6, ingress}]
		remote = prefixMatch(field, prefix)
	}
	family := "ip"
	if v6 {
		family = "ipv6"
	}
	lowest, highest := r.PortRangeMin, r.PortRangeMax
	protocol := r.Protocol
	if v6 && protocol == protocolICMP {
		protocol = protocolICMPv6 // as Neutron reads "icmp" of IPv6
	}
	switch {
	case protocol == -1:
		if lowest > 0 || highest >= 0 && highest != 65535 {
			return nil, errors.New("a port range without a protocol")
		}
		return []string{family + remote}, nil
	case protocol < 0 || protocol > 255:
		return nil, fmt.Errorf("protocol %d", protocol)
	case protocol == protocolICMP && !v6, protocol == protocolICMPv6 && v6:
		match := "icmp" + remote
		if v6 {
			match = "icmp6" + remote
		}
		if lowest > 255 || highest > 255 {
			return nil, fmt.Errorf("ICMP type %d, code %d", lowest, highest)
		}
		if lowest >= 0 {
			match += fmt.Sprintf(",icmp_type=%d", lowest)
			if highest >= 0 {
				match += fmt.Sprintf(",icmp_code=%d", highest)
			}
		} else if highest >= 0 {
			return nil, errors.New("an ICMP code without a type")
		}
		return []string{match}, nil
	case protocol == protocolTCP || protocol == protocolUDP || protocol == protocolSCTP:
		name := map[int32]string{protocolTCP: "tcp", protocolUDP: "udp", protocolSCTP: "sctp"}[protocol]
		if v6 {
			name += "6"
		}
		if lowest < 0 && highest < 0 {
			return []string{name + remote}, nil
		}
		if lowest < 0 {
			lowest = highest
		}
		if highest < 0 {
			highest = lowest
		}
		if lowest > highest || highest > 65535 {
			return nil, fmt.Errorf("ports %d to %d", lowest, highest)
		}
		if lowest == 0 && highest == 65535 {
			return []string{name + remote}, nil
		}
		var matches []string
		for _, m := range portMasks(uint16(lowest), uint16(highest)) {
			matches = append(matches, name+remote+",tp_dst="+m.String())
		}
		return matches, nil
	}
	if lowest > 0 || highest >= 0 && highest != 65535 {
		return nil, fmt.Errorf("a port range of protocol %d, whose ports Open vSwitch cannot match", protocol)
	}
	return []string{fmt.Sprintf("%s,nw_proto=%d%s", family, protocol, remote)}, nil
}
