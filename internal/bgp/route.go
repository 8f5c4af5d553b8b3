package bgp

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Announcement is a prefix behind a router of this host.
type Announcement struct {
	Prefix    netip.Prefix     // required
	VNI       uint32           // required
	RouterMAC net.HardwareAddr // required; six octets: whom others send to
}

// NextHop is a tunnel endpoint and the router behind it.
type NextHop struct {
	Address   netip.Addr
	RouterMAC [6]byte
}

// Route is where packets to a prefix go, one or several equally good ways.
type Route struct {
	Prefix   netip.Prefix
	NextHops []NextHop
}

// maxWays bounds how many next hops share a prefix.
const maxWays = 16

// path is a route that a neighbor announces.
type path struct {
	prefix     netip.Prefix
	vni        uint32
	hop        NextHop
	preference uint32
	length     int
	origin     byte
	med        uint32
}

// compare puts the better path first (RFC 4271, 9.1.2, as far as ways are not
// told apart by who tells them).
func (p *path) compare(o *path) int {
	return cmp.Or(cmp.Compare(o.preference, p.preference), cmp.Compare(p.length, o.length),
		cmp.Compare(p.origin, o.origin), cmp.Compare(p.med, o.med))
}

// Extended communities (RFC 7153): type and subtype.
const (
	communityTarget    = 0x0002
	communityTarget4   = 0x0202
	communityEncap     = 0x030c
	communityRouterMAC = 0x0603

	encapVXLAN = 8
	// autoVXLAN begins the local part of targets that are derived as RFC 8365, 5.1.2.1 says.
	autoVXLAN = 0x10
)

func target(as, vni uint32) uint64 {
	return communityTarget<<48 | uint64(as&0xffff)<<32 | uint64(vni)
}

// communitiesOf are those of an announcement: targets in the form that FRR and
// many others derive, AS:VNI, and in that of RFC 8365.
func communitiesOf(as uint32, a Announcement) []uint64 {
	var mac [8]byte
	copy(mac[2:], a.RouterMAC)
	return []uint64{
		target(as, a.VNI), target(as, autoVXLAN<<24|a.VNI),
		communityEncap<<48 | encapVXLAN,
		communityRouterMAC<<48 | binary.BigEndian.Uint64(mac[:]),
	}
}

// targets are the VNIs that a route's targets name, whatever the AS.
func targets(communities []uint64) []uint32 {
	var list []uint32
	for _, c := range communities {
		switch c >> 48 {
		case communityTarget:
			local := uint32(c)
			if top := local >> 24; top == 0 || top == autoVXLAN {
				list = append(list, local&0xffffff)
			}
		case communityTarget4:
			list = append(list, uint32(c&0xffff))
		}
	}
	return list
}

// endpoint tells whether a tunnel can end at an address.
func endpoint(a netip.Addr) bool {
	return a.Is4() && a.As4()[0] != 0 && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// usable is the path of a route; false: it cannot be used here.
func (u *update) usable(r prefixRoute) (*path, bool) {
	p := &path{prefix: r.prefix, vni: r.label, preference: u.preference, length: u.length, origin: u.origin, med: u.med}
	p.hop.Address = u.nextHop
	// Routes that point at another route by a segment or a gateway are not resolved.
	if r.segment || r.gateway.IsValid() || !endpoint(u.nextHop) || r.label == 0 || !slices.Contains(targets(u.communities), r.label) {
		return nil, false
	}
	mac := false
	for _, c := range u.communities {
		switch c >> 48 {
		case communityEncap:
			if uint16(c) != encapVXLAN && !slices.Contains(u.communities, communityEncap<<48|encapVXLAN) {
				return nil, false
			}
		case communityRouterMAC:
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], c)
			copy(p.hop.RouterMAC[:], b[2:])
			mac = p.hop.RouterMAC != [6]byte{} && b[2]&1 == 0
		}
	}
	return p, mac
}

// best are the routes of paths, by prefix.
func best(paths []*path) []Route {
	slices.SortFunc(paths, func(a, b *path) int {
		return cmp.Or(comparePrefixes(a.prefix, b.prefix), a.compare(b), a.hop.Address.Compare(b.hop.Address))
	})
	var routes []Route
	var first *path
	for _, p := range paths {
		if first == nil || first.prefix != p.prefix {
			first = p
			routes = append(routes, Route{Prefix: p.prefix})
		}
		r := &routes[len(routes)-1]
		if first.compare(p) != 0 || len(r.NextHops) == maxWays ||
			slices.ContainsFunc(r.NextHops, func(h NextHop) bool { return h.Address == p.hop.Address }) {
			continue
		}
		r.NextHops = append(r.NextHops, p.hop)
	}
	return routes
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
