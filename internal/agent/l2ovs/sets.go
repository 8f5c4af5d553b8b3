package l2ovs

import (
	"fmt"
	"net/netip"

	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
)

// sets renders address sets as the first dimension of conjunctions: one flow
// per address and direction, which all policies share, and which names every
// set that holds the address. So a new member costs one flow however many
// ports and rules refer to its set.
type sets struct {
	numbers map[uint32]string                  // conjunction id to set id
	used    map[setUse]struct{}                // sets that rules refer to
	held    map[setUse]map[string]netip.Prefix // what is rendered of each
	holders map[holder]map[string]int          // how often a set, by id, holds an address: one may be written in several ways
	fresh   map[setUse]struct{}                // used since the last planSets
	source  map[string]*runtime.AddressSet
}

type holder struct {
	ingress bool
	prefix  netip.Prefix
}

func newSets() sets {
	return sets{numbers: map[uint32]string{}, used: map[setUse]struct{}{}, held: map[setUse]map[string]netip.Prefix{},
		holders: map[holder]map[string]int{}, fresh: map[setUse]struct{}{}, source: map[string]*runtime.AddressSet{}}
}

// conjunction is the number of a set.
func (s *sets) conjunction(id string) uint32 { return number(id, s.numbers) }

// use takes over which sets the policies refer to.
func (s *sets) use(flows *openflow.Set, policies map[string]*policy) {
	used := map[setUse]struct{}{}
	for _, p := range policies {
		for u := range p.used {
			used[u] = struct{}{}
		}
	}
	for u := range s.used {
		if _, ok := used[u]; !ok {
			for text := range s.held[u] {
				s.remove(flows, u, text)
			}
			delete(s.held, u)
			delete(s.fresh, u)
			flows.Put(u.unit(), nil)
		}
	}
	for u := range used {
		if _, ok := s.used[u]; !ok {
			s.fresh[u] = struct{}{}
			flows.Put(u.unit(), conjunctionFlows(s.conjunction(u.id), u.ingress))
		}
	}
	s.used = used
	for n, id := range s.numbers {
		_, in := used[setUse{id, true}]
		_, out := used[setUse{id, false}]
		if !in && !out {
			delete(s.numbers, n)
			delete(s.source, id)
		}
	}
}

func (u setUse) unit() string {
	if u.ingress {
		return "set/" + u.id + "/ingress"
	}
	return "set/" + u.id + "/egress"
}

// planSets renders the members of the sets in use.
func (p *planner) planSets(want *runtime.State, changes runtime.Changes) {
	s := &p.sets
	for u := range s.used {
		set := want.AddressSets[u.id]
		_, fresh := s.fresh[u]
		change := changes.AddressSets[u.id]
		if !fresh && set == s.source[u.id] {
			continue
		}
		if !fresh && !changes.All && !change.Whole && set != nil && change.Addresses != nil {
			for text := range change.Addresses {
				if _, in := set.Addresses[text]; in {
					s.insert(p.integration, u, text)
				} else {
					s.remove(p.integration, u, text)
				}
			}
			continue
		}
		for text := range s.held[u] {
			if set == nil {
				s.remove(p.integration, u, text)
			} else if _, in := set.Addresses[text]; !in {
				s.remove(p.integration, u, text)
			}
		}
		if set != nil {
			for text := range set.Addresses {
				s.insert(p.integration, u, text)
			}
		}
	}
	clear(s.fresh)
	for u := range s.used {
		s.source[u.id] = want.AddressSets[u.id]
	}
}

// insert makes an address a member; one that cannot be read is none.
func (s *sets) insert(flows *openflow.Set, u setUse, text string) {
	if _, ok := s.held[u][text]; ok {
		return
	}
	prefix, err := parsePrefix(text)
	if err != nil {
		return
	}
	if s.held[u] == nil {
		s.held[u] = map[string]netip.Prefix{}
	}
	s.held[u][text] = prefix
	h := holder{u.ingress, prefix}
	if s.holders[h] == nil {
		s.holders[h] = map[string]int{}
	}
	if s.holders[h][u.id]++; s.holders[h][u.id] == 1 {
		s.render(flows, h)
	}
}

func (s *sets) remove(flows *openflow.Set, u setUse, text string) {
	prefix, ok := s.held[u][text]
	if !ok {
		return
	}
	delete(s.held[u], text)
	h := holder{u.ingress, prefix}
	if s.holders[h][u.id]--; s.holders[h][u.id] > 0 {
		return
	}
	delete(s.holders[h], u.id)
	s.render(flows, h)
	if len(s.holders[h]) == 0 {
		delete(s.holders, h)
	}
}

// render makes the flow of one address.
func (s *sets) render(flows *openflow.Set, h holder) {
	direction := "egress"
	if h.ingress {
		direction = "ingress"
	}
	unit := fmt.Sprintf("address/%s/%s", direction, h.prefix)
	if len(s.holders[h]) == 0 {
		flows.Put(unit, nil)
		return
	}
	ids := make([]uint32, 0, len(s.holders[h]))
	for id := range s.holders[h] {
		ids = append(ids, s.conjunction(id))
	}
	family, field, table := "ip", "nw_dst", uint8(tableEgressRules)
	if h.prefix.Addr().Is6() {
		family, field = "ipv6", "ipv6_dst"
	}
	if h.ingress {
		table, field = tableIngressRules, map[string]string{"ip": "nw_src", "ipv6": "ipv6_src"}[family]
	}
	flows.Put(unit, []openflow.Flow{{Table: table, Priority: priorityConjunction, Match: family + prefixMatch(field, h.prefix), Actions: conjunctions(ids, 1)}})
}
