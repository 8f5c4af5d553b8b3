package openflow

import (
	"slices"
	"sort"
	"strings"
)

// Set is the flows wanted on a bridge, in units that are replaced as a whole.
// When two units claim the same match at the same priority of the same table,
// the unit whose name sorts first has it until it gives it up: so the result
// never depends on the order of changes. A Set is used by one goroutine.
type Set struct {
	units  map[string][]Flow
	claims map[key][]claim
	dirty  map[key]struct{}
}

type claim struct {
	unit    string
	actions string
}

// NewSet makes an empty set.
func NewSet() *Set {
	return &Set{units: map[string][]Flow{}, claims: map[key][]claim{}, dirty: map[key]struct{}{}}
}

// Put replaces the flows of a unit; none removes it. Within a unit, the first
// of two flows with the same match counts. flows is the set's from now on.
func (s *Set) Put(unit string, flows []Flow) {
	old := s.units[unit]
	if slices.Equal(old, flows) {
		return
	}
	for _, f := range old {
		k := f.key()
		claims := s.claims[k]
		for i, c := range claims {
			if c.unit == unit {
				// The slice may be shared with nobody: it is changed in place.
				claims = append(claims[:i], claims[i+1:]...)
				break
			}
		}
		if len(claims) == 0 {
			delete(s.claims, k)
		} else {
			s.claims[k] = claims
		}
		s.dirty[k] = struct{}{}
	}
	for _, f := range flows {
		k := f.key()
		claims := s.claims[k]
		i, found := slices.BinarySearchFunc(claims, unit, func(c claim, unit string) int { return strings.Compare(c.unit, unit) })
		if !found {
			s.claims[k] = slices.Insert(claims, i, claim{unit, f.Actions})
		}
		s.dirty[k] = struct{}{}
	}
	if len(flows) == 0 {
		delete(s.units, unit)
	} else {
		s.units[unit] = flows
	}
}

// Has tells whether there is such a unit.
func (s *Set) Has(unit string) bool { return len(s.units[unit]) > 0 }

// Len is the number of flows.
func (s *Set) Len() int { return len(s.claims) }

// Flows returns all flows, sorted by table, descending priority and match.
func (s *Set) Flows() []Flow {
	out := make([]Flow, 0, len(s.claims))
	for k, c := range s.claims {
		out = append(out, Flow{k.table, k.priority, k.match, c[0].actions})
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		switch {
		case a.Table != b.Table:
			return a.Table < b.Table
		case a.Priority != b.Priority:
			return a.Priority > b.Priority
		}
		return a.Match < b.Match
	})
	return out
}

// Unit returns the name of the unit that has f, empty if none.
func (s *Set) Unit(f Flow) string {
	if c := s.claims[f.key()]; len(c) > 0 {
		return c[0].unit
	}
	return ""
}

// wanted returns the flow that is to be at k, if any.
func (s *Set) wanted(k key) (Flow, bool) {
	c := s.claims[k]
	if len(c) == 0 {
		return Flow{}, false
	}
	return Flow{k.table, k.priority, k.match, c[0].actions}, true
}
