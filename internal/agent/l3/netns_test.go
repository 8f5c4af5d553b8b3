package l3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/ovs/vswitch"
)

// bridges is a plug.Switch made of Linux bridges, one for each network.
type bridges struct {
	t      testing.TB
	bridge map[string]string // by the first letter of a port id

	mu    sync.Mutex
	ports map[string]vswitch.Interface
}

func (b *bridges) EnsurePort(_ context.Context, bridge string, p vswitch.Port) error {
	name := b.bridge[p.ExternalIDs[plug.KeyPortID][:1]]
	if name == "" {
		return errors.New("no such network")
	}
	if out, err := netnstest.Try("", "ip link set "+p.Name+" master "+name); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ports[p.Name] = vswitch.Interface{Name: p.Name, Bridge: bridge, ExternalIDs: p.ExternalIDs}
	return nil
}

func (b *bridges) DeletePort(_ context.Context, _, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.ports, name)
	return nil
}

func (b *bridges) Interfaces() []vswitch.Interface {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.ports))
}

// world is two internal networks and an outside with its guests.
//
//	a1, a2: 10.0.1.5, .6    b1: 10.0.2.5    ext: 203.0.113.1, and 192.0.2.1 behind it
type world struct {
	t       *testing.T
	sw      *bridges
	dir     string
	feature *Feature
	state   *runtime.State
	woken   chan struct{}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	netnstest.Require(t)
	w := &world{t: t, dir: t.TempDir(), woken: make(chan struct{}, 1), sw: &bridges{
		t: t, ports: map[string]vswitch.Interface{},
		bridge: map[string]string{"1": "br-a", "2": "br-b", "9": "br-x", "8": "br-x", "7": "br-a"},
	}, state: &runtime.State{Routers: map[string]*feed.Router{}, Ports: map[string]*feed.Port{}}}
	netnstest.Try("", "sysctl -qw net.bridge.bridge-nf-call-iptables=0")
	for _, br := range []string{"br-a", "br-b", "br-x"} {
		netnstest.Run(t, "", "ip link add "+br+" type bridge mcast_snooping 0")
		netnstest.Run(t, "", "ip link set "+br+" up")
		t.Cleanup(func() { netnstest.Try("", "ip link del "+br) })
	}
	w.guest("a1", "br-a", "10.0.1.5/24", "10.0.1.1")
	w.guest("a2", "br-a", "10.0.1.6/24", "10.0.1.1")
	w.guest("b1", "br-b", "10.0.2.5/24", "10.0.2.1")
	w.guest("ext", "br-x", "203.0.113.1/24", "")
	netnstest.Run(t, "ext", "ip addr add 192.0.2.1/32 dev lo")
	netnstest.Run(t, "ext", "ip route add 198.51.100.0/24 dev eth0")
	w.start()
	t.Cleanup(func() {
		w.feature.Stop()
		names, _ := netns.List()
		for _, n := range names {
			if strings.HasPrefix(n, NamespacePrefix) {
				netns.Delete(n)
			}
		}
		for name := range w.sw.ports {
			netnstest.Try("", "ip link del "+name)
		}
	})
	return w
}

func (w *world) guest(name, bridge, address, gateway string) {
	netnstest.New(w.t, name)
	for _, line := range []string{
		"ip link add v-" + name + " type veth peer name eth0 netns " + name,
		"ip link set v-" + name + " master " + bridge + " up",
		"ip -n " + name + " addr add " + address + " dev eth0",
		"ip netns exec " + name + " sysctl -qw net.ipv6.conf.eth0.accept_dad=0",
		"ip -n " + name + " link set eth0 up",
	} {
		netnstest.Run(w.t, "", line)
	}
	w.t.Cleanup(func() { netnstest.Try("", "ip link del v-"+name) })
	if gateway != "" {
		netnstest.Run(w.t, name, "ip route add default via "+gateway)
	}
}

func (w *world) start() {
	w.t.Helper()
	w.feature = New(Options{StateDir: w.dir, Connect: func() (Plugger, error) {
		return plug.New(plug.Options{Switch: w.sw, Owner: Owner}), nil
	}})
	if err := w.feature.Start(context.Background(), func() {
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}); err != nil {
		w.t.Fatal(err)
	}
}

// apply applies the routers and returns the results by id.
func (w *world) apply(changes runtime.Changes, routers ...*feed.Router) map[string]*feed.Applied {
	w.t.Helper()
	next := &runtime.State{Routers: map[string]*feed.Router{}, Ports: w.state.Ports, QoSPolicies: w.state.QoSPolicies, AdminStateUp: w.state.AdminStateUp}
	for _, r := range routers {
		next.Routers[r.Id] = proto.Clone(r).(*feed.Router)
	}
	w.state = next
	list, err := w.feature.Apply(context.Background(), next, changes)
	if err != nil {
		w.t.Fatal(err)
	}
	results := map[string]*feed.Applied{}
	for _, a := range list {
		results[a.Id] = a
	}
	return results
}

// all applies everything and wants every router to be active.
func (w *world) all(routers ...*feed.Router) {
	w.t.Helper()
	for id, a := range w.apply(runtime.Changes{All: true}, routers...) {
		if a.State != feed.State_STATE_ACTIVE {
			w.t.Fatalf("router %s: %v", id, a)
		}
	}
}

func changed(ids ...string) runtime.Changes {
	c := runtime.Changes{Routers: map[string]struct{}{}}
	for _, id := range ids {
		c.Routers[id] = struct{}{}
	}
	return c
}

// serve answers each connection with the address that it comes from, and then
// echoes lines.
func (w *world) serve(ns, address string) {
	w.t.Helper()
	l, err := netns.Listen(context.Background(), ns, nil, "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintln(c, host)
				io.Copy(c, c)
			}()
		}
	}()
}

type connection struct {
	net.Conn
	in     *bufio.Reader
	source string // as the other side sees it
}

func dial(ns, address string, timeout time.Duration) (*connection, error) {
	var c net.Conn
	err := netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout("tcp", address, timeout)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, err
	}
	return &connection{c, in, strings.TrimSpace(line)}, nil
}

// echo sends a line through and wants it back.
func (c *connection) echo() error {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintln(c, "x"); err != nil {
		return err
	}
	_, err := c.in.ReadString('\n')
	return err
}

// reach connects and wants the other side to see source; "" is no connection.
func (w *world) reach(ns, address, source string) {
	w.t.Helper()
	timeout := 5 * time.Second
	if source == "" {
		timeout = 700 * time.Millisecond
	}
	c, err := dial(ns, address, timeout)
	if err != nil {
		if source != "" {
			w.t.Errorf("%s to %s: %v", ns, address, err)
		}
		return
	}
	defer c.Close()
	if c.source != source {
		w.t.Errorf("%s to %s is seen as %s, want %q", ns, address, c.source, source)
	}
}

func (w *world) keep(ns, address string) *connection {
	w.t.Helper()
	c, err := dial(ns, address, 5*time.Second)
	if err != nil {
		w.t.Fatalf("%s to %s: %v", ns, address, err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 10 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func routerSpace(r *feed.Router) string { return NamespacePrefix + r.Id }

func TestTranslation(t *testing.T) {
	w := newWorld(t)
	w.serve("a1", ":80")
	w.serve("b1", ":80")
	w.serve("ext", ":80")
	netnstest.Run(t, "b1", "ip addr add 192.168.5.1/32 dev lo")
	r := small()
	r.Routes = []*feed.HostRoute{{Destination: "192.168.5.0/24", Nexthop: "10.0.2.5"}}
	w.all(r)

	w.reach("a1", "10.0.2.5:80", "10.0.1.5")        // between networks: as it is
	w.reach("a2", "192.0.2.1:80", "203.0.113.10")   // out by the gateway's address
	w.reach("a1", "192.0.2.1:80", "203.0.113.22")   // out by the floating IP
	w.reach("b1", "203.0.113.1:80", "198.51.100.7") // one of another subnet
	w.reach("ext", "203.0.113.22:80", "203.0.113.1")
	w.reach("ext", "198.51.100.7:80", "203.0.113.1")
	w.reach("a2", "203.0.113.22:80", "203.0.113.10") // a neighbour's, from the same network
	w.reach("b1", "203.0.113.22:80", "198.51.100.7") // from another network
	w.reach("a1", "203.0.113.22:80", "203.0.113.22") // its own
	w.reach("a1", "192.168.5.1:80", "10.0.1.5")      // behind a next hop
	w.reach("ext", "203.0.113.10:80", "")            // the router itself

	// Metadata.
	w.serve(routerSpace(r), ":9697")
	w.reach("a1", "169.254.169.254:80", "10.0.1.5")
	w.reach("a1", "10.0.1.1:9697", "")
	w.reach("ext", "203.0.113.10:9697", "")
	netnstest.Run(t, "ext", "ip route add 169.254.169.254/32 via 203.0.113.10")
	w.reach("ext", "169.254.169.254:80", "")

	// Without SNAT, flows by it end and new ones have no way back; those of
	// floating IPs go on.
	bySNAT, byFloating, routed := w.keep("a2", "192.0.2.1:80"), w.keep("ext", "203.0.113.22:80"), w.keep("a2", "10.0.2.5:80")
	r.Gateway.EnableSnat = false
	w.apply(changed(r.Id), r)
	if err := bySNAT.echo(); err == nil {
		t.Error("the flow goes on without SNAT")
	}
	for _, c := range []*connection{byFloating, routed} {
		if err := c.echo(); err != nil {
			t.Errorf("flow was cut: %v", err)
		}
	}
	w.reach("a2", "203.0.113.22:80", "203.0.113.10") // hairpin needs no SNAT
	r.Gateway.EnableSnat = true
	w.apply(changed(r.Id), r)
	w.reach("a2", "192.0.2.1:80", "203.0.113.10")

	// A floating IP that goes takes its flows along, in both directions and
	// also across a restart of the agent; others are not touched.
	in, out, other := w.keep("ext", "203.0.113.22:80"), w.keep("a1", "192.0.2.1:80"), w.keep("ext", "198.51.100.7:80")
	r.FloatingIps = slices.DeleteFunc(r.FloatingIps, func(f *feed.FloatingIP) bool { return f.Id == "f2" })
	w.feature.Stop()
	w.start()
	w.all(r)
	for _, c := range []*connection{in, out} {
		if err := c.echo(); err == nil {
			t.Error("the flow goes on without its floating IP")
		}
	}
	for _, c := range []*connection{other, routed} {
		if err := c.echo(); err != nil {
			t.Errorf("flow was cut: %v", err)
		}
	}
	w.reach("a1", "192.0.2.1:80", "203.0.113.10")
	if out := netnstest.Run(t, routerSpace(r), "ip addr"); strings.Contains(out, "203.0.113.22") {
		t.Errorf("address is left: %s", out)
	}
}

// A stream of datagrams each way, of which none may get lost while the agent
// restarts, compares everything again, and changes something else.
func TestRestartLosesNoPacket(t *testing.T) {
	w := newWorld(t)
	r := small()
	w.all(r)
	ruleset := func() string { return netnstest.Run(t, routerSpace(r), "nft -a list table inet isospin") }
	before := ruleset()

	server, err := netns.ListenPacket(context.Background(), "ext", nil, "udp", "192.0.2.1:7")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], from)
		}
	}()
	var client net.Conn
	if err := netns.Do("a1", func() (err error) { client, err = net.Dial("udp", "192.0.2.1:7"); return err }); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var answered, lost atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	exchange := func(i int) {
		b := make([]byte, 64)
		msg := fmt.Sprint(i)
		client.Write([]byte(msg))
		client.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			n, err := client.Read(b)
			if err != nil {
				lost.Add(1)
				return
			}
			if string(b[:n]) == msg {
				answered.Add(1)
				return
			}
		}
	}
	exchange(0) // resolves neighbours
	if lost.Swap(0) > 0 {
		t.Fatal("no way out at all")
	}
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			exchange(i)
		}
	})
	for range 3 {
		w.feature.Stop()
		w.start()
		w.all(r)
	}
	if after := ruleset(); after != before {
		t.Errorf("the table was replaced:\n%s", after)
	}
	r.FloatingIps = append(r.FloatingIps, &feed.FloatingIP{Id: "f9", FloatingIpAddress: "203.0.113.29", FixedIpAddress: "10.0.1.6"})
	w.apply(changed(r.Id), r)
	at := answered.Load()
	eventually(t, "traffic", func() bool { return answered.Load() > at+10 })
	cancel()
	wg.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d of %d lost", lost.Load(), lost.Load()+answered.Load())
	}
	t.Logf("%d exchanges, none lost", answered.Load())
}

// A floating IP that moves to another router is reachable there at once,
// although the outside has the old one's MAC address in its cache.
func TestFloatingIPMovesBetweenRouters(t *testing.T) {
	w := newWorld(t)
	w.serve("a1", ":80")
	w.serve("a2", ":80")
	one, two := small(), small()
	one.FloatingIps = one.FloatingIps[:1]
	one.Routes, two.Routes = nil, nil
	two.Id = "0b0b0b0b-0000-4000-8000-000000000000"
	two.Interfaces = []*feed.RouterInterface{{PortId: "7" + idA[1:], MacAddress: "fa:16:3e:00:01:01", Addresses: []string{"10.0.1.2/24"}, Mtu: 1450}}
	two.Gateway.PortId, two.Gateway.MacAddress, two.Gateway.Addresses = "8"+idG[1:], "fa:16:3e:00:01:02", []string{"203.0.113.11/24"}
	two.FloatingIps = nil
	netnstest.Run(t, "a2", "ip route replace default via 10.0.1.2")
	w.all(one, two)
	w.reach("ext", "203.0.113.22:80", "203.0.113.1")
	if out := netnstest.Run(t, "ext", "ip neigh show 203.0.113.22"); !strings.Contains(out, mac3) {
		t.Fatalf("neighbours of the outside: %s", out)
	}
	two.FloatingIps = []*feed.FloatingIP{{Id: "f2", FloatingIpAddress: "203.0.113.22", FixedIpAddress: "10.0.1.6"}}
	one.FloatingIps = nil
	w.all(one, two)
	eventually(t, "announcement", func() bool {
		return strings.Contains(netnstest.Run(t, "ext", "ip neigh show 203.0.113.22"), "fa:16:3e:00:01:02")
	})
	w.reach("ext", "203.0.113.22:80", "203.0.113.1")
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	r := dual()
	r.Interfaces[0].Subnets[0].Ipv6RaMode = "slaac"
	r.Interfaces[0].Subnets[0].GatewayIp = "2001:db8:2::1"
	r.Routes = nil
	w.all(r)
	address := func(guest, prefix string) (a string) {
		eventually(t, "SLAAC address of "+guest, func() bool {
			for _, f := range strings.Fields(netnstest.Run(t, guest, "ip -6 addr show dev eth0 scope global -tentative")) {
				if strings.HasPrefix(f, prefix) {
					a, _, _ = strings.Cut(f, "/")
					return true
				}
			}
			return false
		})
		return a
	}
	from, to := address("a1", "2001:db8:1:"), address("b1", "2001:db8:2:")
	w.serve("b1", "["+to+"]:80")
	w.reach("a1", "["+to+"]:80", from)

	// An interface that goes is no default router any more for its hosts.
	hasRoute := func() bool { return netnstest.Run(t, "b1", "ip -6 route show default") != "" }
	if !hasRoute() {
		t.Error("no default route")
	}
	r.Interfaces = r.Interfaces[1:]
	w.apply(changed(r.Id), r)
	eventually(t, "end of the default route", func() bool { return !hasRoute() })
	if out := netnstest.Run(t, routerSpace(r), "ip link"); strings.Contains(out, "qr-22222222-bb") {
		t.Errorf("device is left: %s", out)
	}
	// A router that goes says so too.
	w.apply(changed(r.Id))
	eventually(t, "end of the default route", func() bool { return netnstest.Run(t, "a1", "ip -6 route show default") == "" })
}

func TestOnlyOursIsRemoved(t *testing.T) {
	w := newWorld(t)
	r := small()
	w.all(r)
	// Namespaces of others, also of a name like ours; a port of another owner.
	for _, name := range []string{"qdhcp-x", "qrouter-foreign", "other"} {
		netnstest.New(t, name)
	}
	netnstest.Run(t, "", "ip link add tap-other type veth peer name x0")
	t.Cleanup(func() { netnstest.Try("", "ip link del tap-other") })
	w.sw.ports["tap-other"] = vswitch.Interface{Name: "tap-other", Bridge: "br-int", ExternalIDs: map[string]string{plug.KeyOwner: "dhcp", plug.KeyPortID: "1x"}}

	// A new process that does not know the router any more.
	w.feature.Stop()
	w.start()
	if got := w.apply(runtime.Changes{All: true}); len(got) != 0 {
		t.Errorf("results: %v", got)
	}
	names, _ := netns.List()
	if slices.Contains(names, routerSpace(r)) || len(names) != 4+3 {
		t.Errorf("namespaces: %v", names)
	}
	if out := netnstest.Run(t, "", "ip -o link"); strings.Contains(out, "tap11111111") || !strings.Contains(out, "tap-other") {
		t.Errorf("devices: %s", out)
	}
	if len(w.sw.ports) != 1 {
		t.Errorf("ports: %v", w.sw.ports)
	}
	if b, _ := os.ReadFile(w.dir + "/l3-namespaces.json"); strings.Contains(string(b), "qrouter") {
		t.Errorf("record: %s", b)
	}
	w.apply(changed("absent"))

	// Without the record, the mark in Open vSwitch is enough.
	w.all(r)
	w.feature.Stop()
	os.Remove(w.dir + "/l3-namespaces.json")
	w.start()
	w.all()
	if ok, _ := netns.Exists(routerSpace(r)); ok {
		t.Error("namespace is left")
	}
}

func TestDownAndBroken(t *testing.T) {
	w := newWorld(t)
	w.serve("b1", ":80")
	r, broken := small(), small()
	broken.Id = "0b0b0b0b-0000-4000-8000-000000000000"
	broken.Interfaces, broken.Gateway = []*feed.RouterInterface{{PortId: "3nowhere", MacAddress: mac1}, {PortId: "?", MacAddress: mac1}}, nil
	broken.FloatingIps = nil
	results := w.apply(runtime.Changes{All: true}, r, broken)
	if a := results[r.Id]; a.State != feed.State_STATE_ACTIVE || a.Revision != 7 || a.AgentType != AgentType || a.Kind != feed.Kind_KIND_ROUTER {
		t.Errorf("result: %v", a)
	}
	if a := results[broken.Id]; a.State != feed.State_STATE_ERROR || !strings.Contains(a.Error, "no such network") || !strings.Contains(a.Error, "not valid") {
		t.Errorf("result: %v", a)
	}
	w.reach("a1", "10.0.2.5:80", "10.0.1.5")

	// A port, then the router, then the whole agent is administratively down.
	w.state.Ports[idA] = &feed.Port{Id: idA}
	w.apply(runtime.Changes{Ports: map[string]struct{}{idA: {}}}, r, broken)
	w.reach("a1", "10.0.2.5:80", "")
	w.state.Ports[idA] = &feed.Port{Id: idA, AdminStateUp: true}
	w.apply(runtime.Changes{Ports: map[string]struct{}{idA: {}}}, r, broken)
	w.reach("a1", "10.0.2.5:80", "10.0.1.5")
	r.AdminStateUp = false
	w.apply(changed(r.Id), r, broken)
	w.reach("a1", "10.0.2.5:80", "")
	if out := netnstest.Run(t, routerSpace(r), "ip -o link show up"); strings.Contains(out, "qr-") || strings.Contains(out, "qg-") {
		t.Errorf("devices are up: %s", out)
	}
	r.AdminStateUp = true
	w.apply(changed(r.Id), r)
	w.reach("a1", "10.0.2.5:80", "10.0.1.5")
	w.state.AdminStateUp = map[string]bool{AgentType: false}
	w.apply(runtime.Changes{}, r)
	if ok, _ := netns.Exists(routerSpace(r)); ok {
		t.Error("an agent that is down serves a router")
	}
	w.state.AdminStateUp = nil
	w.apply(runtime.Changes{}, r)
	w.reach("a1", "10.0.2.5:80", "10.0.1.5")
	if got := w.feature.Function().Configurations; !strings.Contains(got, `"routers":1,"ex_gw_ports":1,"interfaces":2,"floating_ips":3`) {
		t.Errorf("configurations: %s", got)
	}

	// What somebody else breaks is mended by the next comparison.
	ns := routerSpace(r)
	for _, line := range []string{"nft flush ruleset", "ip route flush proto 73", "ip addr flush dev qg-99999999-cc", "ip link del qr-11111111-aa", "sysctl -qw net.ipv4.ip_forward=0"} {
		netnstest.Run(t, ns, line)
	}
	w.all(r)
	w.serve("ext", ":80")
	w.reach("a1", "192.0.2.1:80", "203.0.113.22")
}
