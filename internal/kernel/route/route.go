// Package route makes the routes of a routing table be what is wanted, in the
// network namespace of the calling thread; call it inside netns.Do for another
// one. Ours carry a protocol number of their own: routes of the kernel, of
// other programs and of operators are left alone.
//
// It must not know what the routes are for.
package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/dump"
)

// Protocol marks our routes ("proto 73" in ip-route(8)).
const Protocol = 73

// Main is the table that is used when no rule says otherwise.
const Main = unix.RT_TABLE_MAIN

// NextHop is where packets are sent to.
type NextHop struct {
	Gateway netip.Addr // invalid: the destination is on the link
	Device  string     // by name; empty: the kernel finds it by Gateway
	// OnLink: Gateway is a neighbour on Device although no address of it says so.
	OnLink bool
}

// Route leads to a destination over one or several next hops.
type Route struct {
	Destination netip.Prefix
	NextHops    []NextHop
}

// String is the route in ip-route(8)'s words.
func (r Route) String() string {
	var b strings.Builder
	if r.Destination.Bits() == 0 {
		b.WriteString("default")
		if r.Destination.Addr().Is6() {
			b.WriteString(" (IPv6)")
		}
	} else {
		b.WriteString(r.Destination.String())
	}
	for _, h := range r.NextHops {
		if len(r.NextHops) > 1 {
			b.WriteString(" nexthop")
		}
		if h.Gateway.IsValid() {
			b.WriteString(" via " + h.Gateway.String())
		}
		if h.Device != "" {
			b.WriteString(" dev " + h.Device)
		}
		if h.OnLink {
			b.WriteString(" onlink")
		}
	}
	return b.String()
}

// Set makes our routes of the table exactly those wanted. Each is tried: one
// that the kernel refuses is in the error, the others are set. A destination
// that a route of somebody else has already is replaced.
func Set(table int, want []Route) error {
	have, err := dump.Read(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Table: table, Protocol: Protocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes of table %d: %w", table, err)
	}
	there := map[netip.Prefix]netlink.Route{}
	for _, r := range have {
		there[destination(r)] = r
	}
	var failed []error
	for _, r := range want {
		old, exists := there[r.Destination.Masked()]
		wire, err := wire(table, r)
		if err == nil && !(exists && same(old, wire)) {
			err = netlink.RouteReplace(wire)
		}
		if err != nil { // what was there before is not wanted either
			failed = append(failed, fmt.Errorf("route %s: %w", r, err))
			continue
		}
		delete(there, r.Destination.Masked())
	}
	for _, r := range there {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = append(failed, fmt.Errorf("delete route %s: %w", destination(r), err))
		}
	}
	return errors.Join(failed...)
}

func wire(table int, r Route) (*netlink.Route, error) {
	d := r.Destination.Masked()
	if !d.IsValid() || len(r.NextHops) == 0 {
		return nil, errors.New("not valid")
	}
	out := &netlink.Route{
		Table: table, Protocol: Protocol, Family: netlink.FAMILY_V4,
		Dst: &net.IPNet{IP: d.Addr().AsSlice(), Mask: net.CIDRMask(d.Bits(), d.Addr().BitLen())},
	}
	if d.Addr().Is6() {
		out.Family = netlink.FAMILY_V6
	}
	for _, h := range r.NextHops {
		n := &netlink.NexthopInfo{}
		if h.Gateway.IsValid() {
			if h.Gateway.Is6() != d.Addr().Is6() {
				return nil, fmt.Errorf("next hop %s is of another family", h.Gateway)
			}
			n.Gw = h.Gateway.AsSlice()
		}
		if h.Device != "" {
			l, err := dump.Read(func() (netlink.Link, error) { return netlink.LinkByName(h.Device) })
			if err != nil {
				return nil, fmt.Errorf("device %s: %w", h.Device, err)
			}
			n.LinkIndex = l.Attrs().Index
		}
		if h.OnLink {
			n.Flags = int(netlink.FLAG_ONLINK)
		}
		out.MultiPath = append(out.MultiPath, n)
	}
	if len(out.MultiPath) == 1 {
		n := out.MultiPath[0]
		out.Gw, out.LinkIndex, out.Flags, out.MultiPath = n.Gw, n.LinkIndex, n.Flags, nil
		if n.Gw == nil {
			out.Scope = netlink.SCOPE_LINK
		}
	}
	return out, nil
}

func destination(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if r.Family == netlink.FAMILY_V4 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}

type hop struct {
	gateway string
	device  int
	onLink  bool
}

// hops are a route's next hops, with the device only where the other one of a
// comparison names it too.
func hops(r netlink.Route) []hop {
	if len(r.MultiPath) == 0 {
		return []hop{{r.Gw.String(), r.LinkIndex, r.Flags&int(netlink.FLAG_ONLINK) != 0}}
	}
	var out []hop
	for _, n := range r.MultiPath {
		out = append(out, hop{n.Gw.String(), n.LinkIndex, n.Flags&int(netlink.FLAG_ONLINK) != 0})
	}
	return out
}

// same tells whether old, as read from the kernel, is what wire asks for.
func same(old netlink.Route, wire *netlink.Route) bool {
	have, want := hops(old), hops(*wire)
	if len(have) != len(want) {
		return false
	}
	order := func(a, b hop) int { return strings.Compare(a.gateway, b.gateway) }
	slices.SortFunc(have, order)
	slices.SortFunc(want, order)
	for i := range want {
		if want[i].device == 0 {
			have[i].device = 0
		}
		if have[i] != want[i] {
			return false
		}
	}
	return true
}
