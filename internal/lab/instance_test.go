package lab

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"isospin/internal/kernel/route"
)

// TestLease: one instance serves DHCP to another.
func TestLease(t *testing.T) {
	l := start(t, 1)
	server, client := add(t, l, l.Hosts()[0], 1), add(t, l, l.Hosts()[0], 2)
	if err := client.SetAddress(); err != nil {
		t.Fatal(err)
	}
	requests := 0
	handler := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		// The first request of each kind is lost: the client asks again.
		if requests++; requests%2 == 1 {
			return
		}
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 77)), dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(60), dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0xaa}),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(169, 254, 169, 254), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4(10, 0, 0, 1)},
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(10, 0, 0, 254)},
			)))
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
	}
	var dhcp *server4.Server
	if err := server.Do(func() (err error) {
		dhcp, err = server4.NewServer(nic, nil, handler)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = dhcp.Serve() }()
	defer func() { dhcp.Close(); <-ended }()

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	lease, err := client.AcquireLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	via := func(to, gateway string) route.Route {
		return route.Route{Destination: netip.MustParsePrefix(to), NextHops: []route.NextHop{{Gateway: netip.MustParseAddr(gateway), Device: nic}}}
	}
	want := &Lease{
		Address: netip.MustParsePrefix("10.0.0.77/24"), MTU: 1450, DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")},
		Routes: []route.Route{via("169.254.169.254/32", "10.0.0.1"), via("0.0.0.0/0", "10.0.0.254")},
	}
	if diff := cmp.Diff(want, lease, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}
	out, err := client.Run(ctx, "sh", "-c", "ip route; ip -o link show eth0 | grep -o 'mtu [0-9]*'")
	wantRoutes := "default via 10.0.0.254 dev eth0 proto 73 \n10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.77 \n169.254.169.254 via 10.0.0.1 dev eth0 proto 73 \nmtu 1450\n"
	if err != nil || string(out) != wantRoutes {
		t.Errorf("instance has\n%s\nwant\n%s\n%v", out, wantRoutes, err)
	}
	if err := client.Reach(ctx, netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Error(err)
	}
}

// TestFrames: a frame that was built by hand is as good as one of the kernel's.
func TestFrames(t *testing.T) {
	l := start(t, 1)
	a, b := add(t, l, l.Hosts()[0], 1), add(t, l, l.Hosts()[0], 2)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	frames, err := a.Frames(nic)
	if err != nil {
		t.Fatal(err)
	}
	defer frames.Close()
	if err := b.Reach(ctx, netip.MustParseAddr("10.0.0.1")); err != nil { // b knows a's address
		t.Fatal(err)
	}
	if err := frames.Send(EchoFrame(a.MAC, b.MAC, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), "hello b")); err != nil {
		t.Fatal(err)
	}
	// The reply shows that b took every checksum to be right.
	if _, err := frames.Receive(ctx, func(f []byte) bool {
		return bytes.Equal(f[6:12], b.MAC) && bytes.Contains(f, []byte("hello b"))
	}); err != nil {
		t.Error(err)
	}
	if err := frames.Send(ARPReplyFrame(a.MAC, a.MAC, b.MAC, netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.2"))); err != nil {
		t.Fatal(err)
	}
	if _, err := frames.Receive(shortly(ctx, 50*time.Millisecond), func([]byte) bool { return false }); err == nil {
		t.Error("a deadline did not end the wait")
	}
}
