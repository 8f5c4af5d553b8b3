package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/miekg/dns"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

const networkID = "0e1a3f6e-0000-4000-8000-000000000001"

func testNetwork() *feed.Network {
	return &feed.Network{
		Id: networkID, Mtu: 1450, AdminStateUp: true, DnsDomain: "cloud.example.",
		Subnets: []*feed.Subnet{
			{Id: "s4", Cidr: "10.0.0.0/24", IpVersion: 4, GatewayIp: "10.0.0.1", EnableDhcp: true,
				HostRoutes: []*feed.HostRoute{{Destination: "10.9.0.0/16", Nexthop: "10.0.0.7"}}},
			{Id: "s4-isolated", Cidr: "10.1.0.0/24", IpVersion: 4, EnableDhcp: true, DnsNameservers: []string{"9.9.9.9"}},
			{Id: "s4-off", Cidr: "10.2.0.0/24", IpVersion: 4, GatewayIp: "10.2.0.1"},
			{Id: "s6", Cidr: "2001:db8:1::/64", IpVersion: 6, GatewayIp: "2001:db8:1::1", EnableDhcp: true,
				Ipv6RaMode: "dhcpv6-stateful", Ipv6AddressMode: "dhcpv6-stateful"},
			{Id: "s6-less", Cidr: "2001:db8:2::/64", IpVersion: 6, EnableDhcp: true,
				Ipv6RaMode: "dhcpv6-stateless", Ipv6AddressMode: "dhcpv6-stateless", DnsNameservers: []string{"2001:db8::53"}},
		},
		DhcpPort: &feed.Port{Id: "d4c70000-0000-4000-8000-000000000002", NetworkId: networkID, MacAddress: "fa:16:3e:00:00:02", AdminStateUp: true,
			FixedIps: []*feed.FixedIP{
				{SubnetId: "s4", IpAddress: "10.0.0.2"}, {SubnetId: "s4-isolated", IpAddress: "10.1.0.2"},
				{SubnetId: "s6", IpAddress: "2001:db8:1::2"}, {SubnetId: "s6-less", IpAddress: "2001:db8:2::2"},
			}},
	}
}

// testPort makes the port fa:16:3e:00:00:<last> from "subnet=address" pairs.
func testPort(id string, last byte, addresses ...string) *feed.Port {
	p := &feed.Port{Id: id, NetworkId: networkID, MacAddress: testMAC(last).String(), AdminStateUp: true, Revision: 7}
	for _, a := range addresses {
		s, ip, _ := strings.Cut(a, "=")
		p.FixedIps = append(p.FixedIps, &feed.FixedIP{SubnetId: s, IpAddress: ip})
	}
	return p
}

func testMAC(last byte) net.HardwareAddr { return net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, last} }

func testPlan(t testing.TB, n *feed.Network, settings Settings, ports ...*feed.Port) *plan {
	t.Helper()
	p, err := makePlan(n, ports, nil, settings, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask4 sends a message to the servers and returns the answer, nil for none.
func ask4(t testing.TB, table *table, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, *reply) {
	t.Helper()
	r := table.answer4(datagram{payload: m.ToBytes()})
	if r == nil {
		return nil, nil
	}
	// It goes the way over the wire.
	d, ok := parseDatagram(r.bytes())
	if !ok || d.source != r.source || d.destination != r.destination {
		t.Fatalf("the packet reads as %v > %v", d.source, d.destination)
	}
	answer, err := dhcpv4.FromBytes(d.payload)
	if err != nil {
		t.Fatal(err)
	}
	return answer, r
}

// words shows an answer in one line per field, for goldens.
func words(a *dhcpv4.DHCPv4, r *reply) string {
	if a == nil {
		return "no answer\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s > %s to %s\n", a.MessageType(), r.source, r.destination, net.HardwareAddr(r.to[:]))
	fmt.Fprintf(&b, "ciaddr %s yiaddr %s siaddr %s sname %q file %q\n", a.ClientIPAddr, a.YourIPAddr, a.ServerIPAddr, a.ServerHostName, a.BootFileName)
	for code := 1; code < 255; code++ {
		if v, ok := a.Options[uint8(code)]; ok {
			fmt.Fprintf(&b, "%3d %x\n", code, v)
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

func message4(t testing.TB, kind dhcpv4.MessageType, last byte, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(testMAC(last)), dhcpv4.WithMessageType(kind),
		dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4})}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func option(code uint8, value ...byte) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), value)
}

func TestOffers(t *testing.T) {
	boot := testPort("boot", 0x12, "s4=10.0.0.12")
	boot.DnsName = "web"
	boot.ExtraDhcpOpts = []*feed.ExtraDHCPOption{
		{Name: "tag:!ipxe,67", Value: "undionly.kpxe", IpVersion: 4}, {Name: "tag:ipxe,67", Value: "http://10.0.0.9/boot", IpVersion: 4},
		{Name: "66", Value: "10.0.0.9", IpVersion: 4}, {Name: "150", Value: "10.0.0.9", IpVersion: 4},
		{Name: "server-ip-address", Value: "10.0.0.9", IpVersion: 4}, {Name: "mtu", Value: "1400", IpVersion: 4},
		{Name: "59", Value: "tftp://x", IpVersion: 6},
	}
	noRouter := testPort("no-router", 0x13, "s4=10.0.0.13")
	noRouter.ExtraDhcpOpts = []*feed.ExtraDHCPOption{{Name: "router"}, {Name: "lease-time", Value: "600", IpVersion: 4}}
	p := testPlan(t, testNetwork(), Settings{LeaseDuration: 3600},
		testPort("plain", 0x10, "s6=2001:db8:1::10", "s4=10.0.0.10"), testPort("isolated", 0x11, "s4-isolated=10.1.0.11"), boot, noRouter)

	var out strings.Builder
	show := func(title string, m *dhcpv4.DHCPv4) {
		fmt.Fprintf(&out, "# %s\n", title)
		a, r := ask4(t, p.table, m)
		out.WriteString(words(a, r) + "\n")
	}
	discover := dhcpv4.MessageTypeDiscover
	show("discover", message4(t, discover, 0x10))
	show("discover, answer by broadcast", message4(t, discover, 0x10, dhcpv4.WithBroadcast(true), option(55, 1, 3)))
	show("discover that asks for 121, 249, 15", message4(t, discover, 0x10, option(55, 121, 249, 15), option(61, 1, 2, 3)))
	show("discover on a subnet without gateway", message4(t, discover, 0x11))
	show("discover with boot options", message4(t, discover, 0x12, option(55, 1, 3, 12, 66, 67, 150, 26)))
	show("the same of iPXE", message4(t, discover, 0x12, option(55, 67), option(175, 1)))
	show("discover without router, with a lease time of its own", message4(t, discover, 0x13))
	golden(t, "offers.txt", out.String())
	for port, text := range p.ports {
		if text != "" {
			t.Errorf("port %s: %s", port, text)
		}
	}
}

func TestDialogue4(t *testing.T) {
	p := testPlan(t, testNetwork(), Settings{LeaseDuration: -1}, testPort("a", 0x10, "s4=10.0.0.10", "s4-isolated=10.1.0.10"))
	request, inform := dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform
	server := option(54, 10, 0, 0, 2)
	ip := func(a, b, c, d byte) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.IP{a, b, c, d}) }
	for _, c := range []struct {
		title string
		m     *dhcpv4.DHCPv4
		want  string
	}{
		{"selecting", message4(t, request, 0x10, server, option(50, 10, 0, 0, 10)), "ACK 10.0.0.10 to 10.0.0.10:68"},
		{"another server was selected", message4(t, request, 0x10, option(54, 10, 0, 0, 3), option(50, 10, 0, 0, 10)), "none"},
		{"after a reboot", message4(t, request, 0x10, option(50, 10, 0, 0, 10)), "ACK 10.0.0.10 to 10.0.0.10:68"},
		{"after a reboot, second address", message4(t, request, 0x10, option(50, 10, 1, 0, 10)), "ACK 10.1.0.10 to 10.1.0.10:68"},
		{"after a reboot, an address of others", message4(t, request, 0x10, option(50, 10, 0, 0, 11)), "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"renewing", message4(t, request, 0x10, ip(10, 0, 0, 10)), "ACK 10.0.0.10 to 10.0.0.10:68"},
		{"renewing an address that it lost", message4(t, request, 0x10, ip(10, 0, 0, 99)), "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request for nothing", message4(t, request, 0x10), "none"},
		{"inform", message4(t, inform, 0x10, ip(10, 0, 0, 10)), "ACK 0.0.0.0 to 10.0.0.10:68"},
		{"inform without address", message4(t, inform, 0x10), "none"},
		{"release", message4(t, dhcpv4.MessageTypeRelease, 0x10, ip(10, 0, 0, 10), server), "none"},
		{"decline", message4(t, dhcpv4.MessageTypeDecline, 0x10, option(50, 10, 0, 0, 10), server), "none"},
		{"an unknown client", message4(t, dhcpv4.MessageTypeDiscover, 0x66), "none"},
		{"an unknown client after a reboot", message4(t, request, 0x66, option(50, 10, 0, 0, 10)), "none"},
		{"relayed", message4(t, dhcpv4.MessageTypeDiscover, 0x10, dhcpv4.WithGatewayIP(net.IP{10, 0, 0, 1})), "none"},
		{"an offer", message4(t, dhcpv4.MessageTypeOffer, 0x10), "none"},
	} {
		got := "none"
		if a, r := ask4(t, p.table, c.m); a != nil {
			got = fmt.Sprintf("%s %s to %s", a.MessageType(), a.YourIPAddr, r.destination)
			lease, isLease := a.Options[51]
			if isLease != strings.HasPrefix(got, "ACK 10") || isLease && string(lease) != "\xff\xff\xff\xff" {
				t.Errorf("%s: lease time %x", c.title, lease)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.title, got, c.want)
		}
	}
}

// A client that takes 576 bytes gets no more, and the most useful of it.
func TestLongAnswersFit(t *testing.T) {
	port := testPort("a", 0x10, "s4=10.0.0.10")
	for code := 200; code < 210; code++ {
		port.ExtraDhcpOpts = append(port.ExtraDhcpOpts, &feed.ExtraDHCPOption{Name: fmt.Sprint(code), Value: strings.Repeat("x", 200)})
	}
	p := testPlan(t, testNetwork(), Settings{}, port)
	for _, c := range []struct {
		max   []byte
		limit int
	}{{nil, 576}, {[]byte{3, 0xe8}, 1000}, {[]byte{0xff, 0xff}, 1450}} {
		m := message4(t, dhcpv4.MessageTypeDiscover, 0x10)
		if c.max != nil {
			m.Options[57] = c.max
		}
		a, r := ask4(t, p.table, m)
		if n := len(r.bytes()); n > c.limit || n < c.limit-220 {
			t.Errorf("%d bytes, limit %d", n, c.limit)
		}
		for _, code := range []uint8{1, 3, 6, 51, 54, 121} {
			if !a.Options.Has(dhcpv4.GenericOptionCode(code)) {
				t.Errorf("limit %d: option %d is missing", c.limit, code)
			}
		}
	}
}

// What one port asks for that cannot be is told, and is nobody else's trouble.
func TestBadPortsStandAlone(t *testing.T) {
	bad := testPort("bad", 0x11, "s4=10.0.0.11")
	bad.ExtraDhcpOpts = []*feed.ExtraDHCPOption{
		{Name: "mtu", Value: "lots"}, {Name: "bootfile-name", Value: "x\nlog-queries"}, {Name: "ntp-server", Value: "10.0.0.5"},
	}
	outside := testPort("outside", 0x12, "s4=192.0.2.1")
	wrong := testPort("wrong", 0x13)
	wrong.MacAddress = "nonsense"
	n := testNetwork()
	n.Subnets = append(n.Subnets, &feed.Subnet{Id: "new", Cidr: "10.5.0.0/24", IpVersion: 4, EnableDhcp: true},
		&feed.Subnet{Id: "broken", Cidr: "10.6.0.0/99", IpVersion: 4, EnableDhcp: true})
	p := testPlan(t, n, Settings{}, bad, outside, wrong, testPort("good", 0x14, "s4=10.0.0.14"),
		testPort("early", 0x15, "new=10.5.0.15"), testPort("broken", 0x16, "broken=10.6.0.1"))
	for port, part := range map[string]string{"bad": `extra DHCP option "mtu": "lots"`, "outside": "not in subnet", "wrong": "MAC", "broken": "10.6.0.0/99"} {
		if !strings.Contains(p.ports[port], part) {
			t.Errorf("port %s: %q", port, p.ports[port])
		}
	}
	if text, ok := p.ports["good"]; !ok || text != "" {
		t.Errorf("the good port: %q, %v", text, ok)
	}
	if _, ok := p.waiting["early"]; !ok {
		t.Error("a port of a subnet without server address does not wait")
	}
	a, _ := ask4(t, p.table, message4(t, dhcpv4.MessageTypeDiscover, 0x11))
	if a == nil || string(a.Options[42]) != "\x0a\x00\x00\x05" || a.Options[67] != nil {
		t.Errorf("the bad port got %v", a)
	}
}

func message6For(kind dhcpv6.MessageType, last byte, more ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testMAC(last)}))
	for _, o := range more {
		m.AddOption(o)
	}
	return m
}

func ask6(t testing.TB, table *table, frame byte, m *dhcpv6.Message) *dhcpv6.Message {
	t.Helper()
	r := table.answer6(macAddress(testMAC(frame)), datagram{source: netip.MustParseAddrPort("[fe80::1234]:546"), payload: m.ToBytes()})
	if r == nil {
		return nil
	}
	d, ok := parseDatagram(r.bytes())
	if !ok || d.destination.String() != "[fe80::1234]:546" || d.source.String() != "[fe80::f816:3eff:fe00:2]:547" {
		t.Fatalf("the packet reads as %v > %v", d.source, d.destination)
	}
	answer, err := dhcpv6.MessageFromBytes(d.payload)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestDialogue6(t *testing.T) {
	port := testPort("a", 0x10, "s6=2001:db8:1::10", "s6=2001:db8:1::11")
	port.ExtraDhcpOpts = []*feed.ExtraDHCPOption{{Name: "bootfile-url", Value: "tftp://[2001:db8::9]/x", IpVersion: 6}}
	p := testPlan(t, testNetwork(), Settings{LeaseDuration: 3600}, port, testPort("stateless", 0x11, "s6-less=2001:db8:2::11"), testPort("four", 0x12, "s4=10.0.0.12"))
	ourDUID := dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testMAC(2)})
	other := dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testMAC(3)})
	ia := func(addresses ...string) dhcpv6.Option {
		o := &dhcpv6.OptIANA{IaId: [4]byte{1}}
		for _, a := range addresses {
			o.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
		}
		return o
	}
	asks := dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionBootfileURL)
	for _, c := range []struct {
		title string
		frame byte
		m     *dhcpv6.Message
		want  string
	}{
		{"solicit", 0x10, message6For(dhcpv6.MessageTypeSolicit, 0x10, ia(), asks),
			"ADVERTISE 2001:db8:1::10/3600 2001:db8:1::11/3600 dns[2001:db8:1::2] search[cloud.example] boot tftp://[2001:db8::9]/x"},
		{"solicit, rapid", 0x10, message6For(dhcpv6.MessageTypeSolicit, 0x10, ia(), asks, &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit}),
			"REPLY rapid 2001:db8:1::10/3600 2001:db8:1::11/3600 dns[2001:db8:1::2] search[cloud.example] boot tftp://[2001:db8::9]/x"},
		{"known by the frame, with a DUID of somebody else", 0x10, message6For(dhcpv6.MessageTypeSolicit, 0x66, ia(), dhcpv6.OptRequestedOption()), "ADVERTISE 2001:db8:1::10/3600 2001:db8:1::11/3600"},
		{"known by the DUID", 0x66, message6For(dhcpv6.MessageTypeSolicit, 0x10, ia(), dhcpv6.OptRequestedOption()), "ADVERTISE 2001:db8:1::10/3600 2001:db8:1::11/3600"},
		{"unknown", 0x66, message6For(dhcpv6.MessageTypeSolicit, 0x66, ia()), "none"},
		{"a port without DHCPv6", 0x12, message6For(dhcpv6.MessageTypeSolicit, 0x12, ia()), "none"},
		{"request", 0x10, message6For(dhcpv6.MessageTypeRequest, 0x10, ourDUID, ia("2001:db8:1::10"), dhcpv6.OptRequestedOption()), "REPLY 2001:db8:1::10/3600 2001:db8:1::11/3600"},
		{"request to another server", 0x10, message6For(dhcpv6.MessageTypeRequest, 0x10, other, ia()), "none"},
		{"request to no server", 0x10, message6For(dhcpv6.MessageTypeRequest, 0x10, ia()), "none"},
		{"two associations", 0x10, message6For(dhcpv6.MessageTypeRequest, 0x10, ourDUID, ia(), ia(), dhcpv6.OptRequestedOption()), "REPLY 2001:db8:1::10/3600 2001:db8:1::11/3600 NoAddrsAvail"},
		{"renew with a stale address", 0x10, message6For(dhcpv6.MessageTypeRenew, 0x10, ourDUID, ia("2001:db8:1::99"), dhcpv6.OptRequestedOption()),
			"REPLY 2001:db8:1::10/3600 2001:db8:1::11/3600 2001:db8:1::99/0"},
		{"rebind", 0x10, message6For(dhcpv6.MessageTypeRebind, 0x10, ia("2001:db8:1::10"), dhcpv6.OptRequestedOption()), "REPLY 2001:db8:1::10/3600 2001:db8:1::11/3600"},
		{"confirm", 0x10, message6For(dhcpv6.MessageTypeConfirm, 0x10, ia("2001:db8:1::10")), "REPLY Success"},
		{"confirm of another", 0x10, message6For(dhcpv6.MessageTypeConfirm, 0x10, ia("2001:db8:1::99")), "REPLY NotOnLink"},
		{"confirm of nothing", 0x10, message6For(dhcpv6.MessageTypeConfirm, 0x10, ia()), "none"},
		{"release", 0x10, message6For(dhcpv6.MessageTypeRelease, 0x10, ourDUID, ia("2001:db8:1::10")), "REPLY Success"},
		{"decline", 0x10, message6For(dhcpv6.MessageTypeDecline, 0x10, ourDUID, ia("2001:db8:1::10")), "REPLY Success"},
		{"information", 0x11, message6For(dhcpv6.MessageTypeInformationRequest, 0x11, asks), "REPLY dns[2001:db8::53] search[cloud.example]"},
		{"solicit of a stateless port", 0x11, message6For(dhcpv6.MessageTypeSolicit, 0x11, ia(), dhcpv6.OptRequestedOption()), "ADVERTISE NoAddrsAvail"},
		{"prefix delegation", 0x10, message6For(dhcpv6.MessageTypeSolicit, 0x10, &dhcpv6.OptIAPD{}, dhcpv6.OptRequestedOption()), "ADVERTISE NoPrefixAvail"},
		{"relayed", 0x10, message6For(dhcpv6.MessageTypeRelayForward, 0x10, ia()), "none"},
	} {
		got := "none"
		if a := ask6(t, p.table, c.frame, c.m); a != nil {
			got = words6(a)
			if id := a.Options.ServerID(); id == nil || !id.Equal(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testMAC(2)}) {
				t.Errorf("%s: server id %v", c.title, id)
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.title, got, c.want)
		}
	}
}

func words6(a *dhcpv6.Message) string {
	out := []string{a.MessageType.String()}
	if a.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
		out = append(out, "rapid")
	}
	inner := func(o dhcpv6.Options) {
		for _, x := range o {
			switch x := x.(type) {
			case *dhcpv6.OptIAAddress:
				out = append(out, fmt.Sprintf("%s/%d", x.IPv6Addr, int(x.ValidLifetime.Seconds())))
			case *dhcpv6.OptStatusCode:
				out = append(out, x.StatusCode.String())
			}
		}
	}
	for _, o := range a.Options.Options {
		switch o := o.(type) {
		case *dhcpv6.OptIANA:
			inner(o.Options.Options)
		case *dhcpv6.OptIAPD:
			inner(o.Options.Options)
		}
	}
	inner(a.Options.Options)
	if v := a.Options.DNS(); v != nil {
		out = append(out, fmt.Sprintf("dns%v", v))
	}
	if v := a.Options.DomainSearchList(); v != nil {
		out = append(out, fmt.Sprintf("search%v", v.Labels))
	}
	if v := a.Options.BootFileURL(); v != "" {
		out = append(out, "boot "+v)
	}
	return strings.Join(out, " ")
}

func TestNames(t *testing.T) {
	web := testPort("web", 0x10, "s4=10.0.0.10", "s6=2001:db8:1::10")
	web.DnsName = "Web"
	elsewhere := &runtime.ForwardingTable{NetworkID: networkID, Entries: map[string]*feed.ForwardingEntry{
		"far": {PortId: "far", IpAddresses: []string{"10.0.0.77"}},
	}}
	p, err := makePlan(testNetwork(), []*feed.Port{web}, elsewhere, Settings{}, true)
	if err != nil {
		t.Fatal(err)
	}
	r := &resolver{names: func() *names { return p.table.names }, upstreams: newUpstreams(nil, "")}
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.cloud.example.", dns.TypeA, "10.0.0.10"},
		{"WEB.cloud.Example.", dns.TypeAAAA, "2001:db8:1::10"},
		{"web.", dns.TypeA, "10.0.0.10"},
		{"host-10-0-0-10.cloud.example.", dns.TypeA, "10.0.0.10"},
		{"host-10-0-0-77.cloud.example.", dns.TypeA, "10.0.0.77"},
		{"host-10-0-0-2.cloud.example.", dns.TypeA, "10.0.0.2"},
		{"host-10-0-0-77.cloud.example.", dns.TypeAAAA, ""},
		{"10.0.0.10.in-addr.arpa.", dns.TypePTR, "Web.cloud.example."},
		{"77.0.0.10.in-addr.arpa.", dns.TypePTR, "host-10-0-0-77.cloud.example."},
		{"host-10-0-0-78.cloud.example.", dns.TypeA, "REFUSED"},
		{"example.org.", dns.TypeA, "REFUSED"},
	} {
		m := &dns.Msg{}
		m.SetQuestion(c.name, c.kind)
		a := r.answer(m, "udp")
		got := []string{}
		for _, rr := range a.Answer {
			got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		slices.Sort(got)
		text := strings.Join(got, " ")
		if a.Rcode != dns.RcodeSuccess {
			text = dns.RcodeToString[a.Rcode]
		}
		if text != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, dns.TypeToString[c.kind], text, c.want)
		}
	}
}

// No packet of a guest, however made, brings a server down or makes it answer
// anybody but a port.
func FuzzPacket(f *testing.F) {
	p := testPlan(f, testNetwork(), Settings{}, testPort("a", 0x10, "s4=10.0.0.10", "s6=2001:db8:1::10"), testPort("b", 0x11, "s6-less=2001:db8:2::11"))
	add := func(source, destination string, payload []byte) {
		f.Add(datagram{netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination), payload}.bytes())
	}
	add("0.0.0.0:68", "255.255.255.255:67", message4(f, dhcpv4.MessageTypeDiscover, 0x10, option(55, 1, 3, 121), option(61, 1)).ToBytes())
	add("10.0.0.10:68", "10.0.0.2:67", message4(f, dhcpv4.MessageTypeRequest, 0x10, option(50, 10, 0, 0, 10), option(57, 2, 64)).ToBytes())
	ia := &dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8:1::10")}}}}
	add("[fe80::1]:546", "[ff02::1:2]:547", message6For(dhcpv6.MessageTypeSolicit, 0x10, ia, dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer)).ToBytes())
	add("[fe80::1]:546", "[ff02::1:2]:547", message6For(dhcpv6.MessageTypeRebind, 0x10, ia, &dhcpv6.OptIAPD{}).ToBytes())
	add("[fe80::1]:546", "[ff02::1:2]:547", message6For(dhcpv6.MessageTypeInformationRequest, 0x11).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := parseDatagram(b)
		if !ok {
			return
		}
		for _, r := range []*reply{p.table.answer4(d), p.table.answer6(macAddress(testMAC(0x66)), d), p.table.answer6(macAddress(testMAC(0x11)), d)} {
			if r == nil {
				continue
			}
			if got, ok := parseDatagram(r.bytes()); !ok || len(got.payload) != len(r.payload) {
				t.Fatalf("the answer %x is no packet", r.bytes())
			}
			if len(r.bytes()) > 1450 && r.source.Addr().Is4() {
				t.Fatalf("an answer of %d bytes", len(r.bytes()))
			}
		}
	})
}
