package radv

import (
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var mac = net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 1}

func slaac() Advertisement {
	return Advertisement{
		HopLimit: 64, Lifetime: Lifetime, MAC: mac, MTU: 1450,
		Prefixes: []Prefix{{Prefix: netip.MustParsePrefix("2001:db8:1::/64"), OnLink: true, Autonomous: true, Valid: 24 * time.Hour, Preferred: 4 * time.Hour}},
		DNS:      []netip.Addr{netip.MustParseAddr("2001:db8::53")}, DNSFor: Lifetime,
	}
}

// The bytes are those of RFC 4861 sections 4.2 and 4.6, RFC 8106 section 5.1.
func TestMarshal(t *testing.T) {
	managed := Advertisement{HopLimit: 64, Managed: true, Other: true, Lifetime: 1 << 62, MAC: mac,
		Prefixes: []Prefix{{Prefix: netip.MustParsePrefix("2001:db8:2::1/64"), OnLink: true, Valid: -1, Preferred: 1 << 62}}}
	for _, c := range []struct {
		name string
		a    Advertisement
		want string
	}{
		{"slaac", slaac(), `
			86 00 0000  40 00 012c  00000000 00000000
			01 01 fa163e000001
			05 01 0000 000005aa
			03 04 40 c0 00015180 00003840 00000000 20010db8000100000000000000000000
			19 03 0000 0000012c 20010db8000000000000000000000053`},
		{"managed, out of range", managed, `
			86 00 0000  40 c0 ffff  00000000 00000000
			01 01 fa163e000001
			03 04 40 80 00000000 ffffffff 00000000 20010db8000200000000000000000000`},
		{"empty", Advertisement{}, `86 00 0000 00 00 0000 00000000 00000000`},
	} {
		if got, want := hex.EncodeToString(c.a.Marshal()), strings.Join(strings.Fields(c.want), ""); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, want)
		}
	}
	many := Advertisement{DNS: make([]netip.Addr, 300)}
	for i := range many.DNS {
		many.DNS[i] = allNodes
	}
	if err := wellFormed(many.Marshal()[16:]); err != "" {
		t.Error(err)
	}
}

// wellFormed checks that options fill the message exactly.
func wellFormed(o []byte) string {
	for len(o) > 0 {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return "option of the wrong length: " + hex.EncodeToString(o)
		}
		o = o[int(o[1])*8:]
	}
	return ""
}

func TestLinkLocal(t *testing.T) {
	if got := LinkLocal(mac); got != netip.MustParseAddr("fe80::f816:3eff:fe00:1") {
		t.Error(got)
	}
	if LinkLocal(nil).IsValid() {
		t.Error("an address of no MAC address")
	}
}

func FuzzCheckSolicitation(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0}, 255, true)
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0}, 255, true)
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 255, false)
	f.Fuzz(func(t *testing.T, b []byte, hops int, unspecified bool) {
		from := allNodes
		if unspecified {
			from = netip.IPv6Unspecified()
		}
		if checkSolicitation(b, hops, from) == nil && (hops != 255 || len(b)%8 != 0 || b[0] != 133 || wellFormed(b[8:]) != "") {
			t.Errorf("%x was taken", b)
		}
	})
}

func TestCheckSolicitation(t *testing.T) {
	host := netip.MustParseAddr("fe80::1")
	for _, c := range []struct {
		message string
		hops    int
		from    netip.Addr
		ok      bool
	}{
		{"8500000000000000", 255, host, true},
		{"8500000000000000", 255, netip.IPv6Unspecified(), true},
		{"85000000000000000101fa163e000002", 255, host, true},
		{"85000000000000000101fa163e000002", 255, netip.IPv6Unspecified(), false},
		{"8500000000000000", 64, host, false},
		{"8501000000000000", 255, host, false},
		{"8600000000000000", 255, host, false},
		{"85000000000000", 255, host, false},
		{"85000000000000000100fa163e000002", 255, host, false},
		{"85000000000000000102fa163e000002", 255, host, false},
	} {
		b, _ := hex.DecodeString(c.message)
		if err := checkSolicitation(b, c.hops, c.from); (err == nil) != c.ok {
			t.Errorf("%s from %s, hop limit %d: %v", c.message, c.from, c.hops, err)
		}
	}
}

// A kernel as the host: it makes an address and a default route, and drops the
// route when the router retires, not when its program restarts.
func TestKernelTakesAdvertisements(t *testing.T) {
	netnstest.New(t, "router")
	netnstest.New(t, "host")
	for _, line := range []string{
		"ip -n router link add qr address fa:16:3e:00:00:01 type veth peer name e0 netns host",
		"ip netns exec router sysctl -qw net.ipv6.conf.qr.accept_dad=0 net.ipv6.conf.all.forwarding=1",
		"ip netns exec host sysctl -qw net.ipv6.conf.e0.accept_dad=0",
		"ip -n router link set qr up", "ip -n host link set e0 address fa:16:3e:00:00:02 up",
	} {
		netnstest.Run(t, "", line)
	}
	start := func() *Sender {
		s, err := Start(context.Background(), Options{Namespace: "router", Device: "qr", Advertisement: slaac()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start()
	waitFor(t, "address", func() bool {
		return strings.Contains(netnstest.Run(t, "host", "ip -6 addr show dev e0"), "2001:db8:1:0:f816:3eff:fe00:2/64")
	})
	hasRoute := func() bool {
		return strings.Contains(netnstest.Run(t, "host", "ip -6 route show default"), "via fe80::f816:3eff:fe00:1 dev e0 proto ra")
	}
	waitFor(t, "default route", hasRoute)
	s.Stop(false)
	if !hasRoute() {
		t.Error("the route is gone with the program")
	}
	if out := netnstest.Run(t, "host", "ip -6 route show default"); !strings.Contains(out, "mtu 1450") && !strings.Contains(netnstest.Run(t, "host", "sysctl net.ipv6.conf.e0.mtu"), "1450") {
		t.Errorf("MTU was not taken: %s", out)
	}
	s = start()
	s.Stop(true)
	waitFor(t, "end of the default route", func() bool { return !hasRoute() })

	// A solicitation from an address is answered to that address at once.
	s = start()
	defer s.Stop(false)
	netnstest.Run(t, "", "ip -n host link set e0 down")
	netnstest.Run(t, "", "ip -n host link set e0 up")
	waitFor(t, "link-local address", func() bool {
		return strings.Contains(netnstest.Run(t, "host", "ip -6 addr show dev e0 -tentative"), "fe80::")
	})
	c, err := netns.ListenPacket(context.Background(), "host", nil, "ip6:ipv6-icmp", "fe80::f816:3eff:fe00:2%e0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	solicit, _ := hex.DecodeString("8500000000000000")
	p := ipv6.NewPacketConn(c)
	if err := p.SetMulticastHopLimit(255); err != nil {
		t.Fatal(err)
	}
	if err := p.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true); err != nil {
		t.Fatal(err)
	}
	var ifindex int
	netns.Do("host", func() error { i, err := net.InterfaceByName("e0"); ifindex = i.Index; return err })
	deadline := time.Now().Add(5 * time.Second)
	c.SetReadDeadline(deadline)
	if err := netns.Do("host", func() error {
		_, err := c.WriteTo(solicit, &net.IPAddr{IP: allRouters.AsSlice(), Zone: strconv.Itoa(ifindex)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	for {
		n, cm, _, err := p.ReadFrom(b)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if b[0] == typeAdvertisement && cm.Dst.String() == "fe80::f816:3eff:fe00:2" {
			if n != len(slaac().Marshal()) || cm.HopLimit != 255 {
				t.Errorf("%d bytes, hop limit %d", n, cm.HopLimit)
			}
			return
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 10 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
