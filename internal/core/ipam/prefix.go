package ipam

import (
	"net/netip"
	"sort"
)

// SortPrefixes orders prefixes by address, larger ones first.
func SortPrefixes(prefixes []netip.Prefix) {
	sort.Slice(prefixes, func(i, j int) bool {
		a, b := prefixes[i], prefixes[j]
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c < 0
		}
		return a.Bits() < b.Bits()
	})
}

// Compact is the smallest list of prefixes that cover the same addresses, in
// order. Host bits are cut off. The prefixes must be of one family.
func Compact(prefixes []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		sorted[i] = p.Masked()
	}
	SortPrefixes(sorted)
	var out []netip.Prefix
	for _, p := range sorted {
		if n := len(out); n > 0 && Covers(out[n-1], p) {
			continue
		}
		out = append(out, p)
		for n := len(out); n > 1; n = len(out) {
			low, high := out[n-2], out[n-1]
			if low.Bits() != high.Bits() || low.Bits() == 0 {
				break
			}
			whole := netip.PrefixFrom(low.Addr(), low.Bits()-1).Masked()
			if whole.Addr() != low.Addr() || !whole.Contains(high.Addr()) {
				break
			}
			out = append(out[:n-2], whole)
		}
	}
	return out
}

// Covers tells whether all addresses of inner are in outer.
func Covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Subtract is what is left of a prefix without those taken, as the largest
// possible prefixes in order. taken is compact (see Compact). The cost follows
// the taken prefixes that lie in it.
func Subtract(from netip.Prefix, taken []netip.Prefix) []netip.Prefix {
	// taken is sorted and disjoint: those that overlap are neighbours.
	first := sort.Search(len(taken), func(i int) bool { return from.Addr().Compare(Last(taken[i])) <= 0 })
	end := first
	last := Last(from)
	for end < len(taken) && taken[end].Addr().Compare(last) <= 0 {
		end++
	}
	return subtract(nil, from, taken[first:end])
}

func subtract(out []netip.Prefix, from netip.Prefix, taken []netip.Prefix) []netip.Prefix {
	if len(taken) == 0 {
		return append(out, from)
	}
	if Covers(taken[0], from) {
		return out
	}
	low, high := Halves(from)
	split := sort.Search(len(taken), func(i int) bool { return taken[i].Addr().Compare(high.Addr()) >= 0 })
	return subtract(subtract(out, low, taken[:split]), high, taken[split:])
}

// Halves are the two halves of a prefix of more than one address.
func Halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Masked().Addr(), p.Bits()+1)
	return low, netip.PrefixFrom(Last(low).Next(), p.Bits()+1)
}
