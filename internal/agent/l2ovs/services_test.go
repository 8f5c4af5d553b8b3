package l2ovs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/ovstest"
)

// dhcpPort is a network's DHCP port, which is the same on every host.
func dhcpPort(network string) *feed.Port {
	return &feed.Port{Id: "dhcp", NetworkId: network, MacAddress: "fa:16:3e:dd:dd:dd", AdminStateUp: true, DeviceOwner: "network:dhcp",
		FixedIps: []*feed.FixedIP{{IpAddress: "10.0.0.254"}, {IpAddress: "fd00::fe"}}}
}

// The DHCP port of an instance's own host answers it, and nobody else hears;
// so does the metadata address, whatever routes the instance has.
func TestDHCPAndMetadata(t *testing.T) {
	l := ovstest.NewLab(t)
	u := l.Underlay("ul")
	h1 := newHost(t, l, u, "h1", "172.31.0.1", nil)
	h2 := newHost(t, l, u, "h2", "172.31.0.2", nil)
	c := newCloud()
	c.vxlan("net", 42)
	c.networks["net"].DhcpPort = dhcpPort("net")
	c.groups["g"] = group("g", egressAll()...)
	p1 := c.port(h1, "p1", "net", []string{"g"}, "10.0.0.1", "fd00::1")
	po := c.port(h1, "open", "net", nil, "10.0.0.5")
	po.PortSecurityEnabled = false
	p2 := c.port(h2, "p2", "net", []string{"g"}, "10.0.0.2", "fd00::2")
	pz := c.port(h2, "open2", "net", nil, "10.0.0.6")
	pz.PortSecurityEnabled = false
	g1 := l.Guest(h1.s, "br-int", "g1", "p1", p1.MacAddress, "10.0.0.1/24", "fd00::1/64")
	g2 := l.Guest(h2.s, "br-int", "g2", "p2", p2.MacAddress, "10.0.0.2/24", "fd00::2/64")
	open1 := l.Guest(h1.s, "br-int", "o1", "open", po.MacAddress, "10.0.0.5/24")
	open2 := l.Guest(h2.s, "br-int", "o2", "open2", pz.MacAddress, "10.0.0.6/24")
	mac := c.networks["net"].DhcpPort.MacAddress
	server := func(h *host, name string) *ovstest.Guest {
		return l.Guest(h.s, "br-int", name, "dhcp", mac, "10.0.0.254/24", "fd00::fe/64", "169.254.169.254/32", "fe80::a9fe:a9fe/64")
	}
	d1 := server(h1, "d1")
	d1.Listen(t, ":80")
	c.push(h1, h2)
	h1.expect("p1", feed.State_STATE_ACTIVE)
	if h1.results["dhcp"] != nil {
		t.Errorf("result for the DHCP port: %v", h1.results["dhcp"])
	}

	ovstest.Eventually(t, quickly, func() error { return g1.Ping("10.0.0.254") })
	ovstest.Eventually(t, quickly, func() error { return g1.Ping("fd00::fe") })
	ovstest.Eventually(t, 5*time.Second, func() error { return open1.Ping("10.0.0.6") })
	if g2.Ping("10.0.0.254") == nil || open2.Ping("10.0.0.254") == nil {
		t.Error("a host without the DHCP port plugged reaches that of another host")
	}
	d2 := server(h2, "d2")
	awaitWake(h2, func() bool { return g2.Ping("10.0.0.254") == nil })
	ovstest.Eventually(t, quickly, func() error { return g1.Ping("10.0.0.254") })

	// A request is heard by this host's server alone. The frame after it is a broadcast, which the others hear.
	for _, guest := range []*ovstest.Guest{d1, d2, open1, open2} {
		guest.Raw()
	}
	discover := ether("ff:ff:ff:ff:ff:ff", p1.MacAddress, 0x0800, ipv4(17, "0.0.0.0", "255.255.255.255", udp(68, 67, "discover")))
	after := ether("ff:ff:ff:ff:ff:ff", p1.MacAddress, 0x0806, arp(1, p1.MacAddress, "10.0.0.1", "00:00:00:00:00:00", "10.0.0.200"))
	// What a server sends to all stays here too.
	offer := ether("ff:ff:ff:ff:ff:ff", mac, 0x0800, ipv4(17, "10.0.0.254", "255.255.255.255", udp(67, 68, "offer")))
	for _, f := range []struct {
		from  *ovstest.Guest
		frame []byte
	}{{d1, offer}, {g1, discover}, {g1, after}} {
		if err := f.from.Raw().Send(f.frame); err != nil {
			t.Fatal(err)
		}
	}
	for _, guest := range []struct {
		name            string
		g               *ovstest.Guest
		discover, offer bool
		after           bool
	}{{"server of the host", d1, true, false, true}, {"instance of the host", open1, false, true, true}, {"instance of another host", open2, false, false, true}, {"server of another host", d2, false, false, false}} {
		heard := map[string]bool{}
		_, err := guest.g.Raw().Await(map[bool]time.Duration{true: 2 * time.Second, false: 300 * time.Millisecond}[guest.after], func(frame []byte) bool {
			heard["discover"] = heard["discover"] || bytes.HasPrefix(frame, discover)
			heard["offer"] = heard["offer"] || bytes.HasPrefix(frame, offer)
			return bytes.HasPrefix(frame, after)
		})
		if heard["discover"] != guest.discover || heard["offer"] != guest.offer || (err == nil) != guest.after {
			t.Errorf("%s: heard %v, after them %v", guest.name, heard, err)
		}
	}

	// The metadata address: on the link, by a route that leads astray, and by IPv6.
	metadata := func(address string) {
		t.Helper()
		ovstest.Eventually(t, quickly, func() error {
			conn, err := g1.Dial(address, time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			return ovstest.Echo(conn, time.Second)
		})
	}
	l.Run("ip", "-n", g1.Netns, "route", "add", "169.254.169.254", "dev", "eth0")
	metadata("169.254.169.254:80")
	l.Run("ip", "-n", g1.Netns, "route", "del", "169.254.169.254")
	l.Run("ip", "-n", g1.Netns, "neigh", "add", "10.0.0.77", "lladdr", "fa:16:3e:77:77:77", "dev", "eth0")
	l.Run("ip", "-n", g1.Netns, "route", "add", "default", "via", "10.0.0.77")
	metadata("169.254.169.254:80")
	l.Run("ip", "-n", d1.Netns, "neigh", "flush", "dev", "eth0")
	metadata("[fe80::a9fe:a9fe%" + l.Exec(g1.Netns, "cat", "/sys/class/net/eth0/ifindex") + "]:80")

	// Without the port on this host there is no interception.
	d1.Unplug(h1.s, "br-int")
	h1.apply(runtime.Changes{})
	if f := h1.flowText("br-int", ""); bytes.Contains([]byte(f), []byte("169.254.169.254")) {
		t.Error("the metadata address is answered without a server")
	}
	if g1.Ping("10.0.0.254") == nil {
		t.Error("another host's DHCP port is reached")
	}
}

// Provider networks leave through their physical bridge, tagged or not, and
// only there; learned addresses outside are found again.
func TestProviderNetworks(t *testing.T) {
	l := ovstest.NewLab(t)
	physical := l.Underlay("phys") // plays the switch; guests outside are VLAN-aware by raw frames
	wire := func(o *Options) { o.BridgeMappings = map[string]string{"physnet1": "br-ex"} }
	h := newHost(t, l, nil, "h", "", wire)
	c := newCloud()
	c.networks["flat"] = &feed.Network{Id: "flat", Segment: &feed.Segment{NetworkType: "flat", PhysicalNetwork: "physnet1"}}
	c.networks["vlan"] = &feed.Network{Id: "vlan", Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 101}}
	c.groups["g"] = group("g", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	pf := c.port(h, "f", "flat", []string{"g"}, "10.1.0.1")
	pv := c.port(h, "v", "vlan", []string{"g"}, "10.2.0.1")
	pu := c.port(h, "u", "flat", nil, "10.1.0.3")
	pu.PortSecurityEnabled = false
	f := l.Guest(h.s, "br-int", "f", "f", pf.MacAddress, "10.1.0.1/24")
	v := l.Guest(h.s, "br-int", "v", "v", pv.MacAddress, "10.2.0.1/24")
	unfiltered := l.Guest(h.s, "br-int", "u", "u", pu.MacAddress, "10.1.0.3/24")
	c.push(h)
	h.expect("f", feed.State_STATE_ERROR)
	if e := h.results["f"].Error; !bytes.Contains([]byte(e), []byte("br-ex")) || !bytes.Contains([]byte(e), []byte("add-br")) {
		t.Errorf("error %q names neither the bridge nor the cure", e)
	}

	// The operator makes the bridge: that is all it takes.
	physical.Attach(h.s.Netns, "nic0")
	drain(h)
	if _, err := h.s.VSCtl(t.Context(), "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev", "--", "add-port", "br-ex", "nic0"); err != nil {
		t.Fatal(err)
	}
	awaitWake(h, func() bool { return h.results["f"].State == feed.State_STATE_ACTIVE })
	h.expect("v", feed.State_STATE_ACTIVE)

	outside := l.Namespace("out")
	physical.Attach(outside, "eth0")
	l.Run("ip", "-n", outside, "addr", "add", "10.1.0.2/24", "dev", "eth0")
	ovstest.Eventually(t, quickly, func() error { return f.Ping("10.1.0.2") })
	ovstest.Eventually(t, quickly, func() error { return unfiltered.Ping("10.1.0.2") })
	ovstest.Eventually(t, quickly, func() error { return f.Ping("10.1.0.3") })
	if v.Ping("10.1.0.2") == nil {
		t.Error("the VLAN network reaches the flat one")
	}
	raw, err := ovstest.OpenRaw(outside, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	// A frame of the VLAN network bears its tag outside, and only there.
	frame := ether("ff:ff:ff:ff:ff:ff", pv.MacAddress, 0x0806, arp(1, pv.MacAddress, "10.2.0.1", "00:00:00:00:00:00", "10.2.0.9"))
	if err := v.Raw().Send(frame); err != nil {
		t.Fatal(err)
	}
	// The kernel takes the tag off for the socket; the payload is what is left.
	if _, err := raw.Await(quickly, func(got []byte) bool { return bytes.Contains(got, frame[14:]) && bytes.HasPrefix(got, frame[:12]) }); err != nil {
		t.Errorf("tagged frame: %v", err)
	}
	// From outside: tagged to the VLAN network, untagged not.
	m := "fa:16:3e:99:99:99"
	tagged := ether(pv.MacAddress, m, 0x8100, append([]byte{0, 101, 8, 0}, ipv4(17, "10.2.0.9", "10.2.0.1", udp(5, 6, "tagged"))...))
	wrong := ether(pv.MacAddress, m, 0x8100, append([]byte{0, 102, 8, 0}, ipv4(17, "10.2.0.9", "10.2.0.1", udp(5, 6, "wrong"))...))
	plain := ether(pv.MacAddress, m, 0x0800, ipv4(17, "10.2.0.9", "10.2.0.1", udp(5, 6, "plain")))
	for _, frame := range [][]byte{wrong, plain, tagged} {
		if err := raw.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	leaked := false
	_, err = v.Raw().Await(quickly, func(got []byte) bool {
		leaked = leaked || bytes.Contains(got, []byte("wrong")) || bytes.Contains(got, []byte("plain"))
		return bytes.Contains(got, []byte("tagged"))
	})
	if err != nil || leaked {
		t.Errorf("frames from outside: %v, leaked %v", err, leaked)
	}

	// What f says to a station outside is not for the unfiltered port once the station was heard of.
	ovstest.Eventually(t, quickly, func() error { return f.Ping("10.1.0.2") })
	ovstest.Eventually(t, quickly, func() error {
		out, err := h.s.OFCtl(t.Context(), "-O", "OpenFlow14", "dump-flows", "br-int", fmt.Sprintf("table=%d", tableLearned))
		if err == nil && !bytes.Contains([]byte(out), []byte("dl_dst=")) {
			err = errors.New("nothing learned")
		}
		return err
	})
	unfiltered.Raw()
	secret := ether(macIn(t, l, outside), pf.MacAddress, 0x0800, ipv4(17, "10.1.0.1", "10.1.0.2", udp(7, 7, "secret")))
	all := ether("ff:ff:ff:ff:ff:ff", pf.MacAddress, 0x0806, arp(1, pf.MacAddress, "10.1.0.1", "00:00:00:00:00:00", "10.1.0.99"))
	for _, frame := range [][]byte{secret, all} {
		if err := f.Raw().Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	overheard := false
	if _, err := unfiltered.Raw().Await(quickly, func(got []byte) bool {
		overheard = overheard || bytes.Contains(got, []byte("secret"))
		return bytes.HasPrefix(got, all)
	}); err != nil || overheard {
		t.Errorf("unfiltered port: %v, overheard %v", err, overheard)
	}
}

func macIn(t *testing.T, l *ovstest.Lab, netns string) string {
	t.Helper()
	return l.Exec(netns, "cat", "/sys/class/net/eth0/address")
}
