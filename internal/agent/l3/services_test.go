package l3

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/conntrack"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/nft"
)

func forwarded() *feed.Router {
	r := small()
	r.Routes = nil
	r.FloatingIps = append(r.FloatingIps, &feed.FloatingIP{Id: "f9", FloatingIpAddress: "203.0.113.40"})
	for i, f := range []*feed.PortForwarding{
		{Protocol: "tcp", ExternalPortMin: 8080, ExternalPortMax: 8080, InternalIpAddress: "10.0.1.6", InternalPortMin: 80, InternalPortMax: 80},
		{Protocol: "tcp", ExternalPortMin: 90, ExternalPortMax: 99, InternalIpAddress: "10.0.1.6", InternalPortMin: 80, InternalPortMax: 80},
		{Protocol: "tcp", ExternalPortMin: 1000, ExternalPortMax: 1001, InternalIpAddress: "10.0.2.5", InternalPortMin: 80, InternalPortMax: 81},
		{Protocol: "udp", ExternalPortMin: 5000, ExternalPortMax: 5009, InternalIpAddress: "10.0.2.5", InternalPortMin: 5000, InternalPortMax: 5009},
		{Protocol: "icmp", InternalIpAddress: "10.0.1.6"},
		{Protocol: "ipv6-icmp", InternalIpAddress: "10.0.1.6"},
	} {
		f.Id, f.FloatingIpId, f.FloatingIpAddress = fmt.Sprint("p", i), "f9", "203.0.113.40"
		r.PortForwardings = append(r.PortForwardings, f)
	}
	return r
}

func TestForwardRules(t *testing.T) {
	w, err := planRouter(forwarded(), func(string) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	script, err := w.Rules.Script()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"add rule inet isospin prerouting dnat ip to ip daddr . meta l4proto . th dport map @port_dnat",
		"add element inet isospin port_dnat { 203.0.113.40 . tcp . 8080 : 10.0.1.6 . 80 }",
		"add element inet isospin port_dnat { 203.0.113.40 . tcp . 1000 : 10.0.2.5 . 80 }",
		"add element inet isospin port_dnat { 203.0.113.40 . tcp . 1001 : 10.0.2.5 . 81 }",
		"add rule inet isospin prerouting ip daddr 203.0.113.40 meta l4proto tcp th dport 90-99 dnat ip to 10.0.1.6:80",
		"add rule inet isospin prerouting ip daddr 203.0.113.40 meta l4proto udp th dport 5000-5009 dnat ip to 10.0.2.5",
		"add rule inet isospin prerouting ip daddr 203.0.113.40 ip protocol icmp dnat ip to 10.0.1.6",
	} {
		if !strings.Contains(script, line+"\n") {
			t.Errorf("no line %s in\n%s", line, script)
		}
	}
	if strings.Contains(script, "ipv6-icmp") || !slices.Contains(w.Devices[len(w.Devices)-1].Addresses, netip.MustParsePrefix("203.0.113.40/32")) {
		t.Errorf("devices %v, rules\n%s", w.Devices, script)
	}

	flow := conntrack.Flow{Protocol: 6, Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("203.0.113.40"), DestinationPort: 1001,
		ReplySource: netip.MustParseAddr("10.0.2.5"), ReplySourcePort: 81, ReplyTo: netip.MustParseAddr("192.0.2.1")}
	if w.NAT.unjustified(flow) {
		t.Errorf("%v is justified", flow)
	}
	for name, change := range map[string]func(*conntrack.Flow){
		"port":          func(f *conntrack.Flow) { f.DestinationPort = 1002 },
		"internal port": func(f *conntrack.Flow) { f.ReplySourcePort = 80 },
		"address":       func(f *conntrack.Flow) { f.ReplySource = netip.MustParseAddr("10.0.2.6") },
		"protocol":      func(f *conntrack.Flow) { f.Protocol = 17 },
	} {
		other := flow
		change(&other)
		if !w.NAT.unjustified(other) {
			t.Errorf("%s: %v is justified", name, other)
		}
	}

	for name, f := range map[string]*feed.PortForwarding{
		"ports":    {Protocol: "tcp", FloatingIpAddress: "203.0.113.41", InternalIpAddress: "10.0.1.6", ExternalPortMin: 1, ExternalPortMax: 70000, InternalPortMin: 1, InternalPortMax: 70000},
		"sizes":    {Protocol: "tcp", FloatingIpAddress: "203.0.113.41", InternalIpAddress: "10.0.1.6", ExternalPortMin: 1, ExternalPortMax: 3, InternalPortMin: 1, InternalPortMax: 2},
		"protocol": {Protocol: "tcp drop", FloatingIpAddress: "203.0.113.41", InternalIpAddress: "10.0.1.6", ExternalPortMin: 1, ExternalPortMax: 1, InternalPortMin: 1, InternalPortMax: 1},
		"address":  {Protocol: "tcp", FloatingIpAddress: "203.0.113.41", InternalIpAddress: "::1", ExternalPortMin: 1, ExternalPortMax: 1, InternalPortMin: 1, InternalPortMax: 1},
		"taken":    {Protocol: "tcp", FloatingIpAddress: "203.0.113.22", InternalIpAddress: "10.0.1.6", ExternalPortMin: 1, ExternalPortMax: 1, InternalPortMin: 1, InternalPortMax: 1},
	} {
		r := forwarded()
		f.Id = "bad"
		r.PortForwardings = append(r.PortForwardings, f)
		if w, err := planRouter(r, func(string) bool { return true }, nil); err == nil || len(w.NAT.Forwards) != 5 {
			t.Errorf("%s: %v, forwardings %v", name, err, w.NAT.Forwards)
		}
	}
}

func TestPortForwarding(t *testing.T) {
	w := newWorld(t)
	w.serve("a2", ":80")
	w.serve("b1", ":80")
	w.serve("b1", ":81")
	r := forwarded()
	w.all(r)
	w.reach("ext", "203.0.113.40:8080", "203.0.113.1")
	w.reach("ext", "203.0.113.40:95", "203.0.113.1")
	w.reach("ext", "203.0.113.40:1001", "203.0.113.1")
	w.reach("ext", "203.0.113.40:1002", "")
	w.reach("ext", "203.0.113.40:80", "")
	w.reach("b1", "203.0.113.40:8080", "198.51.100.7") // hairpin, by its floating IP
	w.reach("a2", "203.0.113.40:1000", "203.0.113.10") // hairpin, by the gateway
	w.reach("a2", "203.0.113.40:8080", "203.0.113.10") // its own
	netnstest.Run(t, "ext", "ping -c 1 -W 2 203.0.113.40")

	// One that goes ends its flows, others go on, also across a restart.
	gone, stays := w.keep("ext", "203.0.113.40:8080"), w.keep("ext", "203.0.113.40:1001")
	r.PortForwardings = slices.DeleteFunc(r.PortForwardings, func(f *feed.PortForwarding) bool { return f.Id == "p0" })
	w.feature.Stop()
	w.start()
	w.all(r)
	if err := gone.echo(); err == nil {
		t.Error("the flow of a forwarding that is gone goes on")
	}
	if err := stays.echo(); err != nil {
		t.Errorf("a flow was cut: %v", err)
	}
	w.reach("ext", "203.0.113.40:8080", "")
}

// What a helper expects is translated with the flow that announced it.
func TestConntrackHelper(t *testing.T) {
	w := newWorld(t)
	r := small()
	r.Routes = nil
	r.ConntrackHelpers = []*feed.ConntrackHelper{
		{Id: "c1", Protocol: "tcp", Port: 2121, Helper: "ftp"}, {Id: "c2", Protocol: "tcp", Port: 1, Helper: "telepathy"},
		{Id: "c3", Protocol: "udp", Port: 69, Helper: "tftp"}, {Id: "c4", Protocol: "tcp", Port: 2122, Helper: "ftp"},
	}
	if !inside(t, "a1", nft.Helper{Name: "x", Kernel: "ftp", Protocol: "tcp"}) {
		t.Skip("the kernel has no helper for FTP")
	}
	result := w.apply(runtime.Changes{All: true}, r)[r.Id]
	if result.State != feed.State_STATE_ACTIVE || !strings.Contains(result.Error, "telepathy/tcp") {
		t.Fatalf("router: %v", result)
	}
	// A server in passive mode answers with its internal address, on which its
	// control connection is: the helper rewrites the announcement.
	l, err := netns.Listen(t.Context(), "a1", nil, "tcp", ":2121")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "220 ready\r\n")
		in := bufio.NewReader(c)
		if line, _ := in.ReadString('\n'); strings.HasPrefix(line, "PASV") {
			fmt.Fprint(c, "227 Entering Passive Mode (10,0,1,5,39,15)\r\n")
		}
		io.Copy(io.Discard, in)
	}()
	var c net.Conn
	if err := netns.Do("ext", func() (err error) { c, err = net.DialTimeout("tcp", "203.0.113.22:2121", 5*time.Second); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || line != "220 ready\r\n" {
		t.Fatalf("greeting %q: %v", line, err)
	}
	fmt.Fprint(c, "PASV\r\n")
	line, err := in.ReadString('\n')
	if err != nil || !strings.Contains(line, "203,0,113,22,39,15") {
		t.Fatalf("the announcement is %q: %v", line, err)
	}
}

func inside(t *testing.T, ns string, h nft.Helper) bool {
	t.Helper()
	ok := false
	if err := netns.Do(ns, func() error { ok = h.Supported(t.Context()); return nil }); err != nil {
		t.Fatal(err)
	}
	return ok
}

// The outside finds exactly the addresses that have a proxy.
func TestNeighbourProxy(t *testing.T) {
	w := newWorld(t)
	r := dual()
	r.Routes = nil
	r.Gateway.GatewayIps = nil
	r.EnableNdpProxy = true
	r.NdpProxies = []*feed.NDPProxy{{Id: "n1", IpAddress: "2001:db8:e:1::5"}, {Id: "n2", IpAddress: "2001:db8:e:1::7"}}
	// The internal network is part of what the outside takes for its own link.
	r.Interfaces[1].Addresses = []string{"10.0.1.1/24", "2001:db8:e:1::1/64"}
	r.Interfaces[1].Subnets = nil
	for _, line := range []string{"ip -n ext addr add 2001:db8:e::1/48 dev eth0 nodad", "ip -n a1 addr add 2001:db8:e:1::5/64 dev eth0 nodad", "ip -n a1 -6 route add default via 2001:db8:e:1::1",
		"ip -n a2 addr add 2001:db8:e:1::6/64 dev eth0 nodad", "ip -n a2 -6 route add default via 2001:db8:e:1::1"} {
		netnstest.Run(t, "", line)
	}
	w.all(r)
	// The router reaches the outside by its link, of which it has but a part.
	netnstest.Run(t, routerSpace(r), "ip -6 route replace 2001:db8:e::/64 dev "+w.gatewayDevice(r))
	eventually(t, "answer for the address with a proxy", func() bool {
		_, err := netnstest.Try("ext", "ping -c 1 -W 1 2001:db8:e:1::5")
		return err == nil
	})
	if _, err := netnstest.Try("ext", "ping -c 1 -W 1 2001:db8:e:1::6"); err == nil {
		t.Error("an address without a proxy answers")
	}
	// Also when somebody knows the way.
	netnstest.Run(t, "ext", "ip neigh replace 2001:db8:e:1::6 lladdr "+mac3+" dev eth0")
	if _, err := netnstest.Try("ext", "ping -c 1 -W 1 2001:db8:e:1::6"); err == nil {
		t.Error("an address without a proxy answers who knows the router")
	}
	shown := netnstest.Run(t, routerSpace(r), "ip -6 neigh show proxy")
	if !strings.Contains(shown, "2001:db8:e:1::5") || !strings.Contains(shown, "2001:db8:e:1::7") {
		t.Errorf("proxies: %s", shown)
	}
	r.NdpProxies = r.NdpProxies[:1]
	w.all(r)
	if shown := netnstest.Run(t, routerSpace(r), "ip -6 neigh show proxy"); strings.Contains(shown, "::7") || !strings.Contains(shown, "::5") {
		t.Errorf("proxies: %s", shown)
	}
	// Off: everything is routed, nothing is answered for.
	r.EnableNdpProxy, r.NdpProxies = false, nil
	w.all(r)
	if _, err := netnstest.Try("ext", "ping -c 1 -W 2 2001:db8:e:1::6"); err != nil {
		t.Error("an address is not reachable for who knows the router")
	}
	if shown := netnstest.Run(t, routerSpace(r), "ip -6 neigh show proxy"); strings.Contains(shown, "2001") {
		t.Errorf("proxies: %s", shown)
	}
}

func (w *world) gatewayDevice(r *feed.Router) string { return "qg-" + r.Gateway.PortId[:11] }

// Of what is sent faster, the limit passes, in its direction, for its address.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	r := small()
	r.Routes = nil
	r.FloatingIps[0].QosPolicyId = "slow" // 203.0.113.22, 10.0.1.5
	r.Gateway.QosPolicyId = "narrow"
	w.state.QoSPolicies = map[string]*feed.QoSPolicy{
		"slow": {Id: "slow", BandwidthLimits: []*feed.BandwidthLimit{
			{Direction: "ingress", MaxKbps: 4000, MaxBurstKbps: 1}, {Direction: "egress", MaxKbps: 8000, MaxBurstKbps: 1}}},
		"narrow": {Id: "narrow", PacketRateLimits: []*feed.PacketRateLimit{{Direction: "egress", MaxKpps: 1, MaxBurstKpps: 1}}},
	}
	w.all(r)
	const size = 1000 // 1,028 with headers
	// seconds is for how long is sent, at 20 Mbit/s.
	const seconds = 2
	bound := func(name string, got, rate, burst int) {
		t.Helper()
		want := rate*seconds + burst
		t.Logf("%s: %d bytes of %d", name, got, want)
		if got < want*6/10 || got > want*115/100 {
			t.Errorf("%s: %d bytes pass, want about %d", name, got, want)
		}
	}
	free := func(name string, got int) {
		t.Helper()
		if got < seconds*2_500_000*7/10 {
			t.Errorf("%s: %d bytes pass", name, got)
		}
	}
	flood := func(from, to, at, target string) int {
		t.Helper()
		return w.flood(from, to, at, target, size, seconds*time.Second)
	}
	bound("to the floating IP", flood("ext", "a1", "10.0.1.5:9000", "203.0.113.22:9000"), 500_000, 500_000)
	bound("from the floating IP", flood("a1", "ext", "203.0.113.1:9001", "203.0.113.1:9001"), 1_000_000, 1_000_000)
	bound("from the gateway, by packets", flood("a2", "ext", "203.0.113.1:9002", "203.0.113.1:9002"), 1000*(size+28), 1000*(size+28))
	free("to another floating IP", flood("ext", "b1", "10.0.2.5:9003", "198.51.100.7:9003"))
	free("between internal networks", flood("a1", "b1", "10.0.2.5:9004", "10.0.2.5:9004"))

	// A policy that changes is followed; one that goes is forgotten.
	w.state.QoSPolicies = map[string]*feed.QoSPolicy{"slow": {Id: "slow", BandwidthLimits: []*feed.BandwidthLimit{{Direction: "ingress", MaxKbps: 12000, MaxBurstKbps: 1}}}}
	w.apply(runtime.Changes{QoSPolicies: map[string]struct{}{"slow": {}, "narrow": {}}}, r)
	bound("to the floating IP", flood("ext", "a1", "10.0.1.5:9005", "203.0.113.22:9005"), 1_500_000, 1_500_000)
	free("from the floating IP", flood("a1", "ext", "203.0.113.1:9006", "203.0.113.1:9006"))
}

// flood sends 20 Mbit/s of UDP for a while and returns the bytes that arrive,
// headers of IP and UDP included.
func (w *world) flood(from, to, at, target string, size int, duration time.Duration) int {
	w.t.Helper()
	var sink *net.UDPConn
	err := netns.Do(to, func() error {
		a, err := net.ResolveUDPAddr("udp4", at)
		if err == nil {
			sink, err = net.ListenUDP("udp4", a)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer sink.Close()
	_ = sink.SetReadBuffer(8 << 20)
	var source net.Conn
	if err := netns.Do(from, func() (err error) { source, err = net.Dial("udp4", target); return err }); err != nil {
		w.t.Fatal(err)
	}
	defer source.Close()
	begin := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		packet := make([]byte, size)
		const rate = 20_000_000 / 8
		for n := 0; time.Since(begin) < duration; {
			for due := int(time.Since(begin).Seconds() * rate); n < due; n += size + 28 {
				source.Write(packet) // an error is a packet that does not arrive
			}
			time.Sleep(time.Millisecond)
		}
	}()
	got := 0
	buffer := make([]byte, 2*size)
	for {
		sink.SetReadDeadline(begin.Add(duration + 300*time.Millisecond))
		n, err := sink.Read(buffer)
		if err != nil {
			break
		}
		got += n + 28
	}
	<-sent
	return got
}
