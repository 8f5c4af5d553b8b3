package bgp

import (
	"net/netip"
	"time"
)

// Recorded is what a neighbor sends to open a session and announce 10.9.0.0/24 in VNI 100.
func Recorded(as uint32, id netip.Addr) [][]byte {
	last := id.As4()[3]
	u := update{preference: 100, nextHop: id, communities: communitiesOf(as, Announcement{VNI: 100, RouterMAC: []byte{2, 0, 192, 0, 2, last}}),
		reach: []prefixRoute{{key: key{distinguisher: 1, prefix: netip.MustParsePrefix("10.9.0.0/24")}, label: 100}}}
	return [][]byte{open{as: as, hold: 90 * time.Second, id: id}.encode(), message(typeKeepalive, nil), u.encode(true, true)}
}
