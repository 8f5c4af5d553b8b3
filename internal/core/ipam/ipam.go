// Package ipam is address arithmetic: allocation pools, choosing addresses,
// EUI-64, overlaps. All of it is pure but for Choose, which takes what tells
// whether an address is free.
//
// It must not know SQL, subnets' rows or ports.
package ipam

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"sort"
)

// Pool is an inclusive range of addresses of one family.
type Pool struct {
	Start netip.Addr `json:"start"`
	End   netip.Addr `json:"end"`
}

func (p Pool) String() string { return p.Start.String() + "-" + p.End.String() }

// Contains tells whether an address lies in the pool.
func (p Pool) Contains(a netip.Addr) bool {
	return a.BitLen() == p.Start.BitLen() && a.Compare(p.Start) >= 0 && a.Compare(p.End) <= 0
}

// Last is the last address of a prefix: the broadcast address of an IPv4 subnet.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// DefaultPools is everything of a prefix but its network address, its
// broadcast address (IPv4) and the gateway. Prefixes of one or two addresses
// are used whole.
func DefaultPools(p netip.Prefix, gateway netip.Addr) []Pool {
	p = p.Masked()
	first, last := p.Addr(), Last(p)
	if p.Addr().BitLen()-p.Bits() > 1 {
		first = first.Next()
		if p.Addr().Is4() {
			last = last.Prev()
		}
	}
	whole := Pool{first, last}
	if !gateway.IsValid() || !whole.Contains(gateway) {
		return []Pool{whole}
	}
	var pools []Pool
	if gateway != first {
		pools = append(pools, Pool{first, gateway.Prev()})
	}
	if gateway != last {
		pools = append(pools, Pool{gateway.Next(), last})
	}
	return pools
}

// SortPools orders pools by their start.
func SortPools(pools []Pool) {
	sort.Slice(pools, func(i, j int) bool { return pools[i].Start.Less(pools[j].Start) })
}

// Size is the number of addresses of pools.
func Size(pools []Pool) *big.Int {
	total := new(big.Int)
	for _, p := range pools {
		total.Add(total, p.size())
	}
	return total
}

func (p Pool) size() *big.Int {
	n := new(big.Int).Sub(number(p.End), number(p.Start))
	return n.Add(n, big.NewInt(1))
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// Offset is the address n after a, which must be of the same family.
func Offset(a netip.Addr, n *big.Int) netip.Addr {
	sum := new(big.Int).Add(number(a), n)
	b := sum.FillBytes(make([]byte, a.BitLen()/8))
	out, _ := netip.AddrFromSlice(b)
	return out
}

// EUI64 is the address that an interface with that MAC makes for itself in a
// /64 (RFC 4291 appendix A).
func EUI64(p netip.Prefix, mac string) (netip.Addr, error) {
	var m [6]byte
	if n, err := fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]); err != nil || n != 6 {
		return netip.Addr{}, fmt.Errorf("MAC address %q is malformed", mac)
	}
	b := p.Masked().Addr().As16()
	b[8], b[9], b[10], b[11], b[12] = m[0]^2, m[1], m[2], 0xff, 0xfe
	b[13], b[14], b[15] = m[3], m[4], m[5]
	return netip.AddrFrom16(b), nil
}

// Choose picks a free address of the pools. some lists free addresses among
// those that it picks at random, where nil stands for the first free one being
// wanted; used lists all that are in use. take reserves an address and tells
// whether it was free after all. An invalid address: all are in use.
//
// With half of a pool in use eight that are picked are all in use once in 256
// times; then everything in use is read.
func Choose(pools []Pool, take func(netip.Addr) (bool, error), some func(pick func() netip.Addr) ([]netip.Addr, error), used func() (map[netip.Addr]bool, error)) (netip.Addr, error) {
	if len(pools) == 0 {
		return netip.Addr{}, nil
	}
	if some != nil {
		free, err := some(func() netip.Addr { return pick(pools) })
		if err != nil {
			return netip.Addr{}, err
		}
		for _, a := range free {
			if ok, err := take(a); err != nil || ok {
				return a, err
			}
		}
	}
	taken, err := used()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, p := range pools {
		// At most len(taken)+1 steps in all: each address passed over is in use.
		for a := p.Start; a.IsValid() && a.Compare(p.End) <= 0; a = a.Next() {
			if taken[a] {
				continue
			}
			if ok, err := take(a); err != nil || ok {
				return a, err
			}
		}
	}
	return netip.Addr{}, nil
}

// pick chooses a pool by chance and an address within its first 2^31: large
// IPv6 subnets need no more, and the arithmetic stays small.
func pick(pools []Pool) netip.Addr {
	p := pools[rand.IntN(len(pools))]
	size := p.size()
	if size.IsInt64() && size.Int64() <= 1<<31 {
		return Offset(p.Start, big.NewInt(rand.Int64N(size.Int64())))
	}
	return Offset(p.Start, big.NewInt(rand.Int64N(1<<31)))
}
