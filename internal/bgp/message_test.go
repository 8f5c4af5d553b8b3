package bgp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var sample = update{
	preference: 100, nextHop: netip.MustParseAddr("172.31.0.11"),
	communities: communitiesOf(65000, Announcement{VNI: 100, RouterMAC: []byte{2, 0, 172, 31, 0, 11}}),
	reach:       []prefixRoute{{key: key{distinguisher: 1<<48 | 0xac1f000b<<16 | 101, prefix: netip.MustParsePrefix("10.1.0.0/24")}, label: 100}},
}

// TestUpdateText compares with the octets as the RFCs lay them out.
func TestUpdateText(t *testing.T) {
	want := unhex(t, // header; origin, path, preference; communities; reach
		"ffffffffffffffffffffffffffffffff 0078 02 0000 0061"+
			"40010100 400200 40050400000064"+
			"c01020 0002fde800000064 0002fde810000064 030c000000000008 06030200ac1f000b"+
			"800e2d 0019 46 04 ac1f000b 00"+
			"0522 0001ac1f000b0065 00000000000000000000 00000000 18 0a010000 00000000 000064")
	got := sample.encode(true, true)
	if !bytes.Equal(got, want) {
		t.Errorf("encoded\n%x, want\n%x", got, want)
	}
}

// TestUpdateBack: what is encoded is decoded as it was, for each sort of neighbor.
func TestUpdateBack(t *testing.T) {
	six := sample
	six.reach = []prefixRoute{{key: key{distinguisher: 7, tag: 3, prefix: netip.MustParsePrefix("2001:db8::/32")}, label: 0xffffff}}
	external := sample
	external.path, external.length = []uint32{4200000000}, 1
	for name, c := range map[string]struct {
		u                    update
		fourOctets, internal bool
	}{
		"internal": {sample, true, true}, "IPv6": {six, true, true}, "external": {external, true, false},
		"withdrawn": {update{preference: 100, gone: []prefixRoute{{key: sample.reach[0].key}}}, true, true},
		"end":       {update{preference: 100}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			kind, body, err := readMessage(bytes.NewReader(c.u.encode(c.fourOctets, c.internal)))
			if err != nil || kind != typeUpdate {
				t.Fatal(kind, err)
			}
			got, err := decodeUpdate(body, c.fourOctets, c.internal)
			if err != nil || !reflect.DeepEqual(*got, c.u) {
				t.Errorf("decoded %+v, %v, want %+v", got, err, c.u)
			}
		})
	}
	// A neighbor with two-octet numbers is shown who is behind AS_TRANS.
	_, body, _ := readMessage(bytes.NewReader(external.encode(false, false)))
	got, err := decodeUpdate(body, false, false)
	if err != nil || !reflect.DeepEqual(got.path, []uint32{transitionAS, 4200000000}) || got.length != 1 {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestOpenBack(t *testing.T) {
	o := open{as: 4200000000, hold: 90 * time.Second, id: netip.MustParseAddr("192.0.2.1"), evpn: true, fourOctets: true}
	_, body, err := readMessage(bytes.NewReader(o.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeOpen(body); err != nil || got != o {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

// TestUnusable: what is well-formed and of no use here, and what ends a session.
func TestUnusable(t *testing.T) {
	usable := func(change func(u *update)) bool {
		u := sample
		u.communities = append([]uint64(nil), sample.communities...)
		u.reach = append([]prefixRoute(nil), sample.reach...)
		change(&u)
		_, ok := u.usable(u.reach[0])
		return ok
	}
	for name, c := range map[string]struct {
		change func(u *update)
		want   bool
	}{
		"as it is":              {func(*update) {}, true},
		"FRR's target alone":    {func(u *update) { u.communities[1] = 0 }, true},
		"RFC 8365's alone":      {func(u *update) { u.communities[0] = 0 }, true},
		"no encapsulation":      {func(u *update) { u.communities[2] = 0 }, true},
		"no target":             {func(u *update) { u.communities[0], u.communities[1] = 0, 0 }, false},
		"another VNI's target":  {func(u *update) { u.reach[0].label = 101 }, false},
		"MPLS":                  {func(u *update) { u.communities[2] = communityEncap<<48 | 10 }, false},
		"no router MAC":         {func(u *update) { u.communities[3] = 0 }, false},
		"multicast router MAC":  {func(u *update) { u.communities[3] = communityRouterMAC<<48 | 0x01005e000001 }, false},
		"by way of a gateway":   {func(u *update) { u.reach[0].gateway = netip.MustParseAddr("10.0.0.1") }, false},
		"by way of a segment":   {func(u *update) { u.reach[0].segment = true }, false},
		"no endpoint":           {func(u *update) { u.nextHop = netip.MustParseAddr("0.0.0.0") }, false},
		"endpoint of this net":  {func(u *update) { u.nextHop = netip.MustParseAddr("0.1.2.3") }, false},
		"multicast endpoint":    {func(u *update) { u.nextHop = netip.MustParseAddr("224.0.0.5") }, false},
		"broadcast endpoint":    {func(u *update) { u.nextHop = netip.MustParseAddr("255.255.255.255") }, false},
		"loopback endpoint":     {func(u *update) { u.nextHop = netip.MustParseAddr("127.0.0.2") }, false},
		"an endpoint with IPv6": {func(u *update) { u.nextHop = netip.MustParseAddr("2001:db8::1") }, false},
	} {
		if got := usable(c.change); got != c.want {
			t.Errorf("%s: usable is %v", name, got)
		}
	}
	whole := sample.encode(true, true)[headerSize:]
	for cut := range len(whole) {
		_, err := decodeUpdate(whole[:cut], true, true)
		var n *notification
		if err == nil || !errors.As(err, &n) {
			t.Errorf("cut to %d octets: %v", cut, err)
		}
	}
	// A malformed attribute costs its routes, not the session (RFC 7606).
	broken := bytes.Clone(whole)
	broken[7] = 9 // the origin
	if u, err := decodeUpdate(broken, true, true); err != nil || u.unacceptable == nil || len(u.reach) != 1 {
		t.Errorf("with another origin: %+v, %v", u, err)
	}
}

// TestBest: the better path wins, and equally good ones share.
func TestBest(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.0/24")
	at := func(last byte, change func(*path)) *path {
		x := &path{prefix: p, preference: 100, hop: NextHop{Address: netip.AddrFrom4([4]byte{192, 0, 2, last})}}
		change(x)
		return x
	}
	routes := best([]*path{
		at(4, func(x *path) { x.length = 1 }), at(3, func(*path) {}), at(2, func(*path) {}), at(2, func(*path) {}),
		at(5, func(x *path) { x.preference = 90 }), {prefix: netip.MustParsePrefix("10.0.0.0/25"), hop: NextHop{Address: netip.MustParseAddr("192.0.2.9")}},
	})
	if len(routes) != 2 || len(routes[0].NextHops) != 2 || routes[0].NextHops[0].Address.String() != "192.0.2.2" || routes[0].NextHops[1].Address.String() != "192.0.2.3" {
		t.Errorf("best are %v", routes)
	}
}

// FuzzMessages: whatever a neighbor sends is decoded or refused.
func FuzzMessages(f *testing.F) {
	f.Add(sample.encode(true, true))
	f.Add(sample.encode(false, false))
	f.Add(open{as: 65000, hold: 90 * time.Second, id: netip.MustParseAddr("192.0.2.1")}.encode())
	f.Add(message(typeNotification, []byte{6, 2, 3, 'b', 'y', 'e'}))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		switch kind {
		case typeOpen:
			_, _ = decodeOpen(body)
		case typeUpdate:
			for _, four := range []bool{true, false} {
				u, err := decodeUpdate(body, four, !four)
				if err != nil {
					continue
				}
				var paths []*path
				for _, r := range u.reach {
					if p, ok := u.usable(r); ok {
						paths = append(paths, p)
					}
				}
				best(paths)
				again := *u
				again.reach, again.gone = u.gone, nil
				if len(again.reach) > 0 && u.nextHop.IsValid() {
					again.encode(four, !four)
				}
			}
		}
	})
}
