package l3

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/bgp"
	"isospin/internal/config"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/route"
)

// TestOverlayText: the routes over a VNI, and those that go before them.
func TestOverlayText(t *testing.T) {
	far, near := netip.MustParseAddr("172.31.0.13"), netip.MustParseAddr("172.31.0.12")
	to := func(prefix string, hops ...netip.Addr) bgp.Route {
		r := bgp.Route{Prefix: netip.MustParsePrefix(prefix)}
		for _, a := range hops {
			r.NextHops = append(r.NextHops, bgp.NextHop{Address: a, RouterMAC: routerMAC(a)})
		}
		return r
	}
	w := &wanted{
		Devices: []plug.Device{{Name: "qr-a", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.1/24")}}},
		Routes:  []route.Route{{Destination: netip.MustParsePrefix("10.7.0.0/16"), NextHops: []route.NextHop{{Gateway: netip.MustParseAddr("10.0.1.9"), Device: "qr-a"}}}},
	}
	planOverlay(w, netip.MustParseAddr("172.31.0.11"), 100, []bgp.Route{
		to("10.0.1.0/24", near), // the router's own
		to("10.0.1.1/32", near),
		to("10.7.0.0/16", near), // a tenant's
		to("10.0.1.77/32", far), // on a subnet that others have, too
		to("10.0.2.0/24", near, far), to("2001:db8:2::/64", near), to("0.0.0.0/0", far),
		to("127.0.0.0/8", near), to("224.0.0.0/4", near), to("fe80::/64", near), to("169.254.169.254/32", near), to("::ffff:10.0.0.0/104", near),
	})
	var b strings.Builder
	for _, r := range w.Routes {
		fmt.Fprintln(&b, r)
	}
	fmt.Fprintln(&b, w.Overlay.Device, w.Overlay.MAC)
	for _, n := range w.Overlay.Routers {
		fmt.Fprintf(&b, "%x behind %s is %v\n", n.MAC, n.Endpoint, n.Addresses)
	}
	want := `10.7.0.0/16 via 10.0.1.9 dev qr-a
10.0.1.77/32 via 172.31.0.13 dev evpn-100 onlink
10.0.2.0/24 nexthop via 172.31.0.12 dev evpn-100 onlink nexthop via 172.31.0.13 dev evpn-100 onlink
2001:db8:2::/64 via fe80::5efe:ac1f:c dev evpn-100
default via 172.31.0.13 dev evpn-100 onlink
evpn-100 02:00:ac:1f:00:0b
0200ac1f000c behind 172.31.0.12 is [172.31.0.12 fe80::5efe:ac1f:c]
0200ac1f000d behind 172.31.0.13 is [172.31.0.13]
`
	if b.String() != want {
		t.Errorf("planned\n%s\nwant\n%s", b.String(), want)
	}
}

// TestAnnounced: which prefixes are told of a router.
func TestAnnounced(t *testing.T) {
	r := &feed.Router{Id: "r", AdminStateUp: true, EvpnVni: 100, EvpnHostSubnetIds: []string{"s1"}, Interfaces: []*feed.RouterInterface{
		{PortId: "1", NetworkId: "n", Addresses: []string{"10.0.1.1/24", "10.0.3.1/24"}, Subnets: []*feed.Subnet{{Id: "s1", Cidr: "10.0.1.0/24"}, {Id: "s3", Cidr: "10.0.3.0/24"}}},
		{PortId: "2", NetworkId: "m", Addresses: []string{"2001:db8:2::1/64"}},
		{PortId: "3", NetworkId: "m", Addresses: []string{"10.0.9.1/24"}},
	}}
	port := func(network, owner, address string) *feed.Port {
		return &feed.Port{NetworkId: network, DeviceOwner: owner, FixedIps: []*feed.FixedIP{{IpAddress: address}}, AdminStateUp: true}
	}
	state := &runtime.State{
		Ports: map[string]*feed.Port{
			"1": port("n", "network:router_interface", "10.0.1.1"), "3": {}, "here": port("n", "compute:nova", "10.0.1.5"),
			"other": port("n", "compute:nova", "10.0.3.5"), "elsewhere": port("m", "compute:nova", "10.0.1.9"),
		},
		Forwarding: map[string]*runtime.ForwardingTable{"n": {Entries: map[string]*feed.ForwardingEntry{
			"away": {IpAddresses: []string{"10.0.1.6", "2001:db8::6"}, DeviceOwner: "compute:nova"}, "dhcp": {IpAddresses: []string{"10.0.1.2"}, DeviceOwner: "network:dhcp"},
		}}},
	}
	var texts []string
	for _, p := range announced(r, state) {
		texts = append(texts, p.String())
	}
	slices.Sort(texts)
	if got, want := strings.Join(texts, " "), "10.0.1.0/24 10.0.1.5/32 10.0.1.6/32 10.0.3.0/24 2001:db8:2::/64"; got != want {
		t.Errorf("announced are %s, want %s", got, want)
	}
}

// TestEVPNOptions reads neutron.conf.
func TestEVPNOptions(t *testing.T) {
	read := func(text string) (*EVPN, error) {
		c, err := config.FromText("[ovs]\nlocal_ip = 172.31.0.11\n[evpn]\n" + text)
		if err != nil {
			return nil, err
		}
		return evpnOptions(c)
	}
	if o, err := read(""); o != nil || err != nil {
		t.Errorf("of nothing: %v, %v", o, err)
	}
	o, err := read("local_as = 65000\nneighbor = 192.0.2.1 65000\nneighbor = 192.0.2.2 4200000000 port=1790 passive\nneighbor_password = 192.0.2.1 pass word\nlisten_address = 172.31.0.11\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []bgp.Neighbor{{Address: netip.MustParseAddr("192.0.2.1"), AS: 65000, Port: 179, Password: "pass word"}, {Address: netip.MustParseAddr("192.0.2.2"), AS: 4200000000, Port: 1790, Passive: true}}
	if !slices.Equal(o.BGP.Neighbors, want) || o.BGP.ID.String() != "172.31.0.11" || o.BGP.Endpoint.String() != "172.31.0.11" || o.BGP.Listen.String() != "172.31.0.11:179" || o.BGP.Hold != 90*time.Second || o.UDPPort != 4789 {
		t.Errorf("read %+v", o)
	}
	for _, text := range []string{"neighbor = 192.0.2.1", "neighbor = x 1", "neighbor = 192.0.2.1 0", "neighbor = 192.0.2.1 1 fast", "local_ip = 2001:db8::1", "neighbor_password = 192.0.2.9 secret", "neighbor_password = 192.0.2.9"} {
		if _, err := read("local_as = 65000\n" + text + "\n"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// overlayHost is a host of an EVPN: an underlay of its own, 172.31.0.<last>,
// and guests on the bridges of the world.
type overlayHost struct {
	*world
	last    int
	feature *Feature
	state   *runtime.State
	woken   chan struct{}
}

func endpointOf(last int) netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 0, byte(last)}) }

// underlay is a bridge of MTU 1600 that namespaces attach to.
func (w *world) underlay(names map[string]int) {
	netnstest.Run(w.t, "", "ip link add ul type bridge mcast_snooping 0")
	netnstest.Run(w.t, "", "ip link set ul up mtu 1600")
	w.t.Cleanup(func() { netnstest.Try("", "ip link del ul") })
	for name, last := range names {
		netnstest.New(w.t, name)
		for _, line := range []string{
			"ip link add ul-" + name + " mtu 1600 type veth peer name u0 mtu 1600 netns " + name,
			"ip link set ul-" + name + " master ul up",
			fmt.Sprintf("ip -n %s addr add %s/24 dev u0", name, endpointOf(last)),
			"ip -n " + name + " link set u0 up",
		} {
			netnstest.Run(w.t, "", line)
		}
		w.t.Cleanup(func() { netnstest.Try("", "ip link del ul-"+name) })
	}
}

func (w *world) host(name string, last int, neighbors ...bgp.Neighbor) *overlayHost {
	w.t.Helper()
	h := &overlayHost{world: w, last: last, woken: make(chan struct{}, 1), state: &runtime.State{}}
	h.feature = New(Options{
		StateDir: w.t.TempDir(),
		Connect: func() (Plugger, error) {
			return plug.New(plug.Options{Switch: w.sw, Owner: "l3-" + name}), nil
		},
		Logger: slog.New(slog.NewTextHandler(logTo{w.t, name}, nil)),
		EVPN: &EVPN{UDPPort: 4789, Namespace: name, BGP: bgp.Options{
			AS: 65000, ID: endpointOf(last), Endpoint: endpointOf(last), Neighbors: neighbors,
			Listen: netip.AddrPortFrom(endpointOf(last), 179), Retry: 100 * time.Millisecond,
		}},
	})
	if err := h.feature.Start(context.Background(), func() {
		select {
		case h.woken <- struct{}{}:
		default:
		}
	}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(h.feature.Stop)
	return h
}

type logTo struct {
	t    *testing.T
	name string
}

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s: %s", l.name, bytes.TrimSpace(b))
	return len(b), nil
}

// serves applies routers and wants them to be active.
func (h *overlayHost) serves(ports map[string]*feed.Port, routers ...*feed.Router) {
	h.t.Helper()
	h.state = &runtime.State{Routers: map[string]*feed.Router{}, Ports: ports}
	for _, r := range routers {
		h.state.Routers[r.Id] = r
	}
	h.apply(runtime.Changes{All: true})
}

func (h *overlayHost) apply(c runtime.Changes) {
	h.t.Helper()
	list, err := h.feature.Apply(context.Background(), h.state, c)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, a := range list {
		if a.State != feed.State_STATE_ACTIVE || a.Error != "" {
			h.t.Fatalf("router %s: %v", a.Id, a)
		}
	}
}

// until applies what wakes the hosts, as their runtimes do, until it is so.
func until(t *testing.T, what string, is func() bool, hosts ...*overlayHost) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, h := range hosts {
			select {
			case <-h.woken:
				h.apply(runtime.Changes{})
			default:
			}
		}
		if is() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func routesOf(router string) string {
	four, _ := netnstest.Try(NamespacePrefix+router, "ip route show proto 73")
	six, _ := netnstest.Try(NamespacePrefix+router, "ip -6 route show proto 73")
	return four + six
}

func overlayRouter(id string, vni int32, port, mac, network string) *feed.Router {
	return &feed.Router{Id: id, AdminStateUp: true, EvpnVni: vni, Interfaces: []*feed.RouterInterface{{
		PortId: port, NetworkId: network, MacAddress: mac, Mtu: 1500,
		Addresses: []string{fmt.Sprintf("10.0.%s.1/24", network), fmt.Sprintf("2001:db8:%s::1/64", network)},
		Subnets:   []*feed.Subnet{{Id: "s" + network, Cidr: fmt.Sprintf("10.0.%s.0/24", network), IpVersion: 4}},
	}}}
}

// guests6 gives guests IPv6 addresses in the networks of their routers.
func (w *world) guests6() {
	for guest, network := range map[string]string{"a1": "1", "b1": "2"} {
		netnstest.Run(w.t, guest, fmt.Sprintf("ip addr add 2001:db8:%s::5/64 dev eth0 nodad", network))
		netnstest.Run(w.t, guest, fmt.Sprintf("ip route add default via 2001:db8:%s::1", network))
	}
}

func reaches(from, address string) bool {
	_, err := netnstest.Try(from, "ping -c 1 -W 1 "+address)
	return err == nil
}

// TestEVPN: guests of two hosts, on networks of two routers that share a VNI,
// reach each other through it and through no other; what a router has no longer
// is withdrawn, and what moves to another host is found there.
func TestEVPN(t *testing.T) {
	w := newWorld(t)
	w.underlay(map[string]int{"hA": 11, "hB": 12, "hC": 13})
	w.guests6()
	peer := func(last int) bgp.Neighbor { return bgp.Neighbor{Address: endpointOf(last), AS: 65000} }
	a, b, c := w.host("hA", 11, peer(12), peer(13)), w.host("hB", 12, peer(11), peer(13)), w.host("hC", 13, peer(11), peer(12))
	all := []*overlayHost{a, b, c}
	one := overlayRouter("aaaaaaaa-0000-4000-8000-000000000001", 100, "11111111-a", "fa:16:3e:00:00:01", "1")
	two := overlayRouter("bbbbbbbb-0000-4000-8000-000000000002", 100, "22222222-b", "fa:16:3e:00:00:02", "2")
	a.serves(nil, one)
	b.serves(nil, two)
	until(t, "routes both ways", func() bool {
		return strings.Contains(routesOf(one.Id), "10.0.2.0/24 via 172.31.0.12 dev evpn-100") && strings.Contains(routesOf(two.Id), "10.0.1.0/24 via 172.31.0.11 dev evpn-100")
	}, all...)
	until(t, "guests reach each other", func() bool { return reaches("a1", "10.0.2.5") && reaches("b1", "10.0.1.5") }, all...)
	until(t, "also by IPv6", func() bool { return reaches("a1", "2001:db8:2::5") && reaches("b1", "2001:db8:1::5") }, all...)
	if out := netnstest.Run(t, NamespacePrefix+one.Id, "ip -d link show evpn-100"); !strings.Contains(out, "mtu 1550") || !strings.Contains(out, "vxlan id 100 local 172.31.0.11") || !strings.Contains(out, "02:00:ac:1f:00:0b") {
		t.Errorf("the device is %s", out)
	}
	if out := netnstest.Run(t, NamespacePrefix+one.Id, "bridge fdb show dev evpn-100"); !strings.HasPrefix(out, "02:00:ac:1f:00:0c dst 172.31.0.12 ") || strings.Count(out, "\n") != 1 {
		t.Errorf("forwarding entries are %s", out)
	}
	if out, err := netnstest.Try("a1", "ping -c 1 -W 2 -M do -s 1472 10.0.2.5"); err != nil {
		t.Errorf("packets of the whole MTU: %s", out)
	}
	// What the neighbors say, for the agents API.
	if s := a.feature.evpn.states(); s["172.31.0.12"] != "established" {
		t.Errorf("states are %v", s)
	}

	t.Run("another VNI", func(t *testing.T) {
		two.EvpnVni = 200
		b.serves(nil, two)
		until(t, "no routes", func() bool { return routesOf(one.Id)+routesOf(two.Id) == "" }, all...)
		if reaches("a1", "10.0.2.5") {
			t.Error("another VNI is reached")
		}
		if out, _ := netnstest.Try(NamespacePrefix+two.Id, "ip -o link show"); strings.Contains(out, "evpn-100") || !strings.Contains(out, "evpn-200") {
			t.Errorf("devices are %s", out)
		}
		two.EvpnVni = 100
		b.serves(nil, two)
		until(t, "routes again", func() bool { return reaches("a1", "10.0.2.5") }, all...)
	})
	t.Run("hosts one by one", func(t *testing.T) {
		one.EvpnHostSubnetIds = []string{"s1"}
		a.serves(map[string]*feed.Port{"p": {NetworkId: "1", DeviceOwner: "compute:nova", FixedIps: []*feed.FixedIP{{IpAddress: "10.0.1.5"}}}}, one)
		until(t, "a route to the host", func() bool { return strings.Contains(routesOf(two.Id), "10.0.1.5 via 172.31.0.11") }, all...)
		a.serves(nil, one)
		until(t, "it is gone with the port", func() bool { return !strings.Contains(routesOf(two.Id), "10.0.1.5") }, all...)
	})
	t.Run("an interface goes", func(t *testing.T) {
		was := two.Interfaces
		two.Interfaces = nil
		b.serves(nil, two)
		until(t, "its routes are withdrawn", func() bool { return routesOf(one.Id) == "" }, all...)
		two.Interfaces = was
		b.serves(nil, two)
		until(t, "and back", func() bool { return reaches("a1", "10.0.2.5") }, all...)
	})
	t.Run("the router moves", func(t *testing.T) {
		b.serves(nil)
		until(t, "routes are withdrawn", func() bool { return routesOf(one.Id) == "" }, all...)
		c.serves(nil, two)
		until(t, "routes are of the other host", func() bool {
			return strings.Contains(routesOf(one.Id), "10.0.2.0/24 via 172.31.0.13") && reaches("a1", "10.0.2.5")
		}, all...)
	})
	t.Run("a host ends", func(t *testing.T) {
		c.feature.Stop()
		until(t, "its routes are gone", func() bool { return routesOf(one.Id) == "" }, a, b)
	})
}

// TestEVPNWithFRR: guests of a router and the addresses behind FRR, as any VTEP
// of a fabric, reach each other.
func TestEVPNWithFRR(t *testing.T) {
	const daemons = "/usr/lib/frr/"
	if _, err := os.Stat(daemons + "zebra"); err != nil {
		t.Skip("there is no FRR (package frr): ", err)
	}
	w := newWorld(t)
	w.underlay(map[string]int{"hA": 11, "frr": 20})
	for _, line := range []string{
		// The whole namespace is FRR's tenant: a bridge and a VXLAN device for its L3 VNI.
		"ip link add br100 type bridge",
		"ip link set br100 addrgenmode none up",
		"ip link add vxlan100 type vxlan id 100 local 172.31.0.20 dstport 4789 nolearning",
		"ip link set vxlan100 master br100 addrgenmode none up",
		"ip link add tenant type bridge",
		"ip addr add 10.9.0.1/24 dev tenant",
		"ip link set tenant up",
		"sysctl -qw net.ipv4.ip_forward=1",
	} {
		netnstest.Run(t, "frr", line)
	}
	dir, err := os.MkdirTemp("", "frr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// The daemons run as a user of their own.
	own := func(file string) {
		t.Helper()
		if out, err := exec.Command("chown", "frr:frr", file).CombinedOutput(); err != nil {
			t.Skipf("FRR's user is not there: %s", out)
		}
	}
	own(dir)
	zebra := "vni 100\n"
	conf := `router bgp 65000
 bgp router-id 172.31.0.20
 no bgp default ipv4-unicast
 neighbor 172.31.0.11 remote-as 65000
 neighbor 172.31.0.11 timers connect 1
 address-family ipv4 unicast
  network 10.9.0.0/24
 exit-address-family
 address-family l2vpn evpn
  neighbor 172.31.0.11 activate
  advertise-all-vni
  advertise ipv4 unicast
 exit-address-family
`
	start := func(name, text string, args ...string) {
		file := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		own(file)
		log := filepath.Join(dir, name+".log")
		cmd := exec.Command("ip", append([]string{"netns", "exec", "frr", daemons + name, "-f", file, "-i", filepath.Join(dir, name+".pid"), "--vty_socket", dir, "-z", filepath.Join(dir, "zserv.api"), "--log", "file:" + log}, args...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if text, err := os.ReadFile(log); err == nil && t.Failed() {
				t.Logf("%s: %s", name, text)
			}
		})
	}
	start("zebra", zebra)
	until(t, "zebra serves", func() bool { _, err := os.Stat(filepath.Join(dir, "zserv.api")); return err == nil })
	start("bgpd", conf)
	vtysh := func(command string) string {
		out, err := exec.Command("vtysh", "--vty_socket", dir, "-c", command).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}

	a := w.host("hA", 11, bgp.Neighbor{Address: endpointOf(20), AS: 65000})
	one := overlayRouter("aaaaaaaa-0000-4000-8000-000000000001", 100, "11111111-a", "fa:16:3e:00:00:01", "1")
	a.serves(nil, one)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(vtysh("show bgp l2vpn evpn"), vtysh("show evpn vni detail"), vtysh("show ip route"), vtysh("show bgp l2vpn evpn summary"), routesOf(one.Id))
			t.Log(netnstest.Try("frr", "ip route"))
			t.Log(netnstest.Try("frr", "bridge fdb show"))
		}
	})
	until(t, "its network is routed", func() bool { return strings.Contains(routesOf(one.Id), "10.9.0.0/24 via 172.31.0.20 dev evpn-100") }, a)
	until(t, "ours is routed there", func() bool {
		out, _ := netnstest.Try("frr", "ip route")
		return strings.Contains(out, "10.0.1.0/24")
	}, a)
	t.Log(vtysh("show bgp l2vpn evpn"))
	until(t, "guests reach it", func() bool { return reaches("a1", "10.9.0.1") }, a)
	one.Interfaces = nil
	a.serves(nil, one)
	until(t, "ours is withdrawn", func() bool {
		out, _ := netnstest.Try("frr", "ip route")
		return !strings.Contains(out, "10.0.1.0/24")
	}, a)
}
