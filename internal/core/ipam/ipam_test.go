package ipam_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"isospin/internal/core/ipam"
)

func TestDefaultPools(t *testing.T) {
	for _, c := range []struct{ prefix, gateway, want string }{
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.2-10.0.0.254"},
		{"10.0.0.0/24", "10.0.0.254", "10.0.0.1-10.0.0.253"},
		{"10.0.0.0/24", "10.0.0.9", "10.0.0.1-10.0.0.8 10.0.0.10-10.0.0.254"},
		{"10.0.0.0/24", "", "10.0.0.1-10.0.0.254"},
		{"10.0.0.0/24", "192.0.2.1", "10.0.0.1-10.0.0.254"},
		{"10.0.0.0/30", "10.0.0.1", "10.0.0.2-10.0.0.2"},
		{"10.0.0.0/31", "", "10.0.0.0-10.0.0.1"},
		{"10.0.0.0/31", "10.0.0.0", "10.0.0.1-10.0.0.1"},
		{"10.0.0.7/32", "", "10.0.0.7-10.0.0.7"},
		{"10.0.0.7/32", "10.0.0.7", ""},
		{"0.0.0.0/0", "", "0.0.0.1-255.255.255.254"},
		{"2001:db8::/64", "2001:db8::1", "2001:db8::2-2001:db8::ffff:ffff:ffff:ffff"},
		{"2001:db8::/64", "fe80::1", "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"},
		{"2001:db8::/127", "", "2001:db8::-2001:db8::1"},
	} {
		var gateway netip.Addr
		if c.gateway != "" {
			gateway = netip.MustParseAddr(c.gateway)
		}
		var have string
		for i, p := range ipam.DefaultPools(netip.MustParsePrefix(c.prefix), gateway) {
			if i > 0 {
				have += " "
			}
			have += p.String()
		}
		if have != c.want {
			t.Errorf("%s without %s: %s, want %s", c.prefix, c.gateway, have, c.want)
		}
	}
}

func TestEUI64(t *testing.T) {
	a, err := ipam.EUI64(netip.MustParsePrefix("2001:db8:1:2::/64"), "fa:16:3e:0a:0b:0c")
	if want := netip.MustParseAddr("2001:db8:1:2:f816:3eff:fe0a:b0c"); err != nil || a != want {
		t.Errorf("%v, %v; want %v", a, err, want)
	}
	if _, err := ipam.EUI64(netip.MustParsePrefix("2001:db8::/64"), "fa:16:3e"); err == nil {
		t.Error("half of a MAC address was taken")
	}
}

// TestChoose: an address is found exactly when one is free, it is free and of
// the pools, and a sequential choice is the first such.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		six := rapid.Bool().Draw(t, "six")
		address := func(n int) netip.Addr {
			if six {
				return netip.AddrFrom16([16]byte{0x20, 0x01, 0xd, 0xb8, 14: byte(n >> 8), 15: byte(n)})
			}
			return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		}
		var pools []ipam.Pool
		used := map[netip.Addr]bool{}
		free := 0
		at := 1
		for range rapid.IntRange(0, 3).Draw(t, "pools") {
			first := at + rapid.IntRange(0, 3).Draw(t, "gap")
			last := first + rapid.IntRange(0, 30).Draw(t, "size")
			pools = append(pools, ipam.Pool{Start: address(first), End: address(last)})
			for n := first; n <= last; n++ {
				if rapid.IntRange(0, 3).Draw(t, "used") > 0 {
					used[address(n)] = true
				} else {
					free++
				}
			}
			at = last + 1
		}
		if n := ipam.Size(pools); n.Int64() != int64(len(used)+free) {
			t.Errorf("size %v, want %d", n, len(used)+free)
		}
		sequential := rapid.Bool().Draw(t, "sequential")
		var took []netip.Addr
		take := func(a netip.Addr) (bool, error) {
			if used[a] {
				return false, nil
			}
			used[a] = true
			took = append(took, a)
			return true, nil
		}
		for left := free; ; left-- {
			var first netip.Addr
			for _, p := range pools {
				for a := p.Start; p.Contains(a); a = a.Next() {
					if !used[a] && !first.IsValid() {
						first = a
					}
				}
			}
			took = nil
			some := func(pick func() netip.Addr) ([]netip.Addr, error) { return []netip.Addr{pick(), pick()}, nil }
			if sequential {
				some = nil
			}
			a, err := ipam.Choose(pools, take, some, func() (map[netip.Addr]bool, error) { return used, nil })
			if err != nil {
				t.Fatal(err)
			}
			if a.IsValid() != (left > 0) {
				t.Fatalf("chosen is %v, and %d are free", a, left)
			}
			if left == 0 {
				return
			}
			if len(took) != 1 || took[0] != a {
				t.Fatalf("chosen is %v, taken are %v", a, took)
			}
			if sequential && a != first {
				t.Fatalf("chosen is %v, the first free one is %v", a, first)
			}
			inside := false
			for _, p := range pools {
				inside = inside || p.Contains(a)
			}
			if !inside {
				t.Fatalf("%v is in none of %v", a, pools)
			}
		}
	})
}
