package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(text string) []netip.Prefix {
	var list []netip.Prefix
	for _, f := range strings.Fields(text) {
		list = append(list, netip.MustParsePrefix(f))
	}
	return list
}

func TestCompact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "[]"},
		{"10.0.0.0/24 10.0.1.0/24", "[10.0.0.0/23]"},
		{"10.0.1.0/24 10.0.2.0/24", "[10.0.1.0/24 10.0.2.0/24]"},
		{"10.0.3.0/24 10.0.2.0/24 10.0.0.0/23", "[10.0.0.0/22]"},
		{"10.0.0.5/8 10.1.0.0/16", "[10.0.0.0/8]"},
		{"128.0.0.0/1 0.0.0.0/1", "[0.0.0.0/0]"},
		{"fd00:1::/48 fd00::/48 fd00:0:1::/48", "[fd00::/47 fd00:1::/48]"},
	} {
		if got := fmt.Sprint(Compact(prefixes(c.in))); got != c.want {
			t.Errorf("Compact(%s) = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestSubtract(t *testing.T) {
	for _, c := range []struct{ from, taken, want string }{
		{"10.0.0.0/24", "", "[10.0.0.0/24]"},
		{"10.0.0.0/24", "10.0.0.0/16", "[]"},
		{"10.0.0.0/24", "10.0.0.64/26", "[10.0.0.0/26 10.0.0.128/25]"},
		{"10.0.0.0/30", "10.0.0.1/32 10.0.0.3/32", "[10.0.0.0/32 10.0.0.2/32]"},
		{"10.0.0.0/24", "9.0.0.0/8 10.0.1.0/24", "[10.0.0.0/24]"},
		{"fd00::/62", "fd00:0:0:1::/64", "[fd00::/64 fd00:0:0:2::/63]"},
	} {
		if got := fmt.Sprint(Subtract(netip.MustParsePrefix(c.from), prefixes(c.taken))); got != c.want {
			t.Errorf("Subtract(%s, %s) = %s, want %s", c.from, c.taken, got, c.want)
		}
	}
}

// TestSubtractIsExact compares with counting single addresses.
func TestSubtractIsExact(t *testing.T) {
	from := netip.MustParsePrefix("10.0.0.0/24")
	for range 300 {
		var taken []netip.Prefix
		for range rand.IntN(12) {
			a := netip.AddrFrom4([4]byte{10, 0, byte(rand.IntN(2)), byte(rand.IntN(256))})
			taken = append(taken, netip.PrefixFrom(a, 24+rand.IntN(9)).Masked())
		}
		compact := Compact(taken)
		free := Subtract(from, compact)
		if !slices.Equal(free, Compact(free)) {
			t.Fatalf("%s without %s: %s is not compact", from, taken, free)
		}
		within := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for a := from.Addr(); from.Contains(a); a = a.Next() {
			if within(taken, a) != within(compact, a) || within(free, a) == within(taken, a) {
				t.Fatalf("%s without %s (%s) = %s: wrong at %s", from, taken, compact, free, a)
			}
		}
	}
}
