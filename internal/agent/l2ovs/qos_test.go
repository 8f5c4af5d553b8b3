package l2ovs

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
	"isospin/internal/ovs/ovstest"
)

func kbps(direction string, rate, burst int64) []*feed.BandwidthLimit {
	return []*feed.BandwidthLimit{{Direction: direction, MaxKbps: rate, MaxBurstKbps: burst}}
}

func TestLimits(t *testing.T) {
	const most = 2147483647
	for _, c := range []struct {
		policy *feed.QoSPolicy
		want   string // egress, ingress: kilobits, then packets
	}{
		{&feed.QoSPolicy{BandwidthLimits: kbps("egress", 20000, 0)}, "0:20000/16000"},
		{&feed.QoSPolicy{BandwidthLimits: kbps("ingress", 100, 0)}, "2:100/524"},
		{&feed.QoSPolicy{BandwidthLimits: kbps("egress", 100, 1)}, "0:100/80"},
		{&feed.QoSPolicy{BandwidthLimits: kbps("egress", 0, 7)}, ""},
		{&feed.QoSPolicy{BandwidthLimits: kbps("egress", most, most)}, "0:2147483647/2147483647"},
		{&feed.QoSPolicy{PacketRateLimits: []*feed.PacketRateLimit{{Direction: "ingress", MaxKpps: 2}}}, "3:2000/1600"},
		{&feed.QoSPolicy{PacketRateLimits: []*feed.PacketRateLimit{{Direction: "egress", MaxKpps: most, MaxBurstKpps: 1}}}, "1:4294967295/1000"},
		{&feed.QoSPolicy{DscpMark: proto.Int32(64)}, "QoS policy : DSCP 64"},
		{&feed.QoSPolicy{BandwidthLimits: kbps("up", 1, 1)}, `QoS policy : direction "up"`},
		{&feed.QoSPolicy{BandwidthLimits: kbps("egress", -1, 1)}, "QoS policy : -1 kbps with a burst of 1"},
	} {
		got := ""
		l, err := parseLimits(c.policy)
		if err != nil {
			got = err.Error()
		} else {
			for kind, m := range l.meters {
				if m != (openflow.Meter{}) {
					got += fmt.Sprintf("%d:%d/%d", kind, m.Rate, m.Burst)
				}
			}
		}
		if got != c.want {
			t.Errorf("%v: %s, want %s", c.policy, got, c.want)
		}
	}
}

// A port has its own policy, else that of its network, unless it serves the
// network; a policy that is not known is told, and the port works without.
func TestPolicyOfPort(t *testing.T) {
	want, f := example()
	n := proto.CloneOf(want.Networks["tenant"])
	n.QosPolicyId = "silver"
	want.Networks["tenant"] = n
	of := func(want *runtime.State, ofport int) int {
		kinds := 0
		for id := range planned(want, f).meters {
			if id>>2 == meterID(ofport, 0)>>2 {
				kinds++
			}
		}
		return kinds
	}
	if vm, router, open := of(want, 11), of(want, 13), of(want, 14); vm != 1 || router != 0 || open != 4 {
		t.Errorf("meters of ports: %d %d %d", vm, router, open)
	}
	router := proto.CloneOf(want.Ports["router"])
	router.QosPolicyId = "gold"
	want.Ports["router"] = router
	if of(want, 13) != 4 {
		t.Error("a router's port does not have its own policy")
	}
	delete(want.QoSPolicies, "gold")
	p := planned(want, f)
	if s := p.ports["open"]; s.state != feed.State_STATE_ERROR || s.err != "QoS policy gold is not known to this host" || !p.integration.Has("port/open") {
		t.Errorf("port with an unknown policy: %v", s)
	}
}

// traffic is UDP from one guest to an address, as fast as about 50 Mbit/s.
const (
	trafficSize = 1250
	trafficRate = 50_000_000 / 8 / trafficSize // packets in a second
)

// send sends until the context ends.
func send(ctx context.Context, t *testing.T, from *ovstest.Guest, to string) {
	var conn net.Conn
	if err := ovstest.In(from.Netns, func() (err error) {
		d := net.Dialer{}
		conn, err = d.DialContext(ctx, "udp", to)
		return err
	}); err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	payload := make([]byte, trafficSize-28)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	begin, sent := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(begin).Seconds() * trafficRate); sent < due; sent++ {
			_, _ = conn.Write(payload) // what is lost is lost
		}
	}
}

// receive returns how many packets arrive in a second, once the first ones
// have used up the burst.
func receive(t *testing.T, at *ovstest.Guest, port int) float64 {
	t.Helper()
	var conn *net.UDPConn
	if err := ovstest.In(at.Netns, func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	}); err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(4 << 20)
	buffer := make([]byte, 2048)
	count := func(until time.Time) int {
		n := 0
		_ = conn.SetReadDeadline(until)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return n
			}
			n++
		}
	}
	count(time.Now().Add(400 * time.Millisecond))
	const window = 800 * time.Millisecond
	return float64(count(time.Now().Add(window))) / window.Seconds()
}

// rates sends from one guest and returns the packets in a second that arrive at others.
func rates(t *testing.T, from *ovstest.Guest, to netip.AddrPort, at ...*ovstest.Guest) []float64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		send(ctx, t, from, to.String())
	}()
	got := make([]float64, len(at))
	done := make(chan struct{})
	for i, g := range at {
		go func() {
			got[i] = receive(t, g, int(to.Port()))
			done <- struct{}{}
		}()
	}
	for range at {
		<-done
	}
	cancel()
	<-sending
	return got
}

// within checks a number of packets against a wide band around a rate in Mbit/s.
func within(t *testing.T, what string, packets, megabits float64) {
	t.Helper()
	got := packets * trafficSize * 8 / 1e6
	t.Logf("%s: %.1f Mbit/s", what, got)
	if got < megabits*0.6 || got > megabits*1.35 {
		t.Errorf("%s: %.1f Mbit/s, want about %g", what, got, megabits)
	}
}

// Bandwidth, packet rates and DSCP of real packets.
func TestQoS(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.policies = map[string]*feed.QoSPolicy{
		"out":     {Id: "out", BandwidthLimits: kbps("egress", 10000, 500), DscpMark: proto.Int32(26)},
		"in":      {Id: "in", BandwidthLimits: kbps("ingress", 10000, 500)},
		"packets": {Id: "packets", PacketRateLimits: []*feed.PacketRateLimit{{Direction: "egress", MaxKpps: 1, MaxBurstKpps: 0}}},
		"all": {Id: "all", BandwidthLimits: append(kbps("egress", 40000, 500), kbps("ingress", 10000, 500)...),
			PacketRateLimits: []*feed.PacketRateLimit{{Direction: "egress", MaxKpps: 1}, {Direction: "ingress", MaxKpps: 1}}},
	}
	network := func(policy string) {
		c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}, QosPolicyId: policy}
	}
	network("")
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""), rule("ingress", "IPv6", -1, -1, -1, ""))...)
	guests := map[string]*ovstest.Guest{}
	for i, name := range []string{"a", "b", "d"} {
		v4, v6 := fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%d", i+1)
		p := c.port(h, name, "net", []string{"open"}, v4, v6)
		guests[name] = l.Guest(h.s, "br-int", name, name, p.MacAddress, v4+"/24", v6+"/64")
	}
	a, b, d := guests["a"], guests["b"], guests["d"]
	set := func(name, policy string) {
		for i, p := range c.ports {
			if p.port.Id == name {
				changed := proto.CloneOf(p.port)
				changed.QosPolicyId = policy
				c.ports[i].port = changed
			}
		}
	}
	push := func() {
		t.Helper()
		c.push(h)
		for name := range guests {
			h.expect(name, feed.State_STATE_ACTIVE)
		}
	}
	push()
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	toB, toAll := netip.MustParseAddrPort("10.0.0.2:5001"), netip.MustParseAddrPort("10.0.0.255:5001")
	free := rates(t, a, toB, b)[0]
	within(t, "no policy", free, 50)

	// What a sends is limited and marked; what others send is not.
	set("a", "out")
	push()
	within(t, "egress limit", rates(t, a, toB, b)[0], 10)
	within(t, "of another port", rates(t, d, toB, b)[0], 50)
	dscp := func(frame []byte) int {
		switch {
		case frame[12] == 0x08 && frame[13] == 0x00:
			return int(frame[15] >> 2)
		default:
			return int((frame[14]&0x0f)<<2 | frame[15]>>6)
		}
	}
	for _, ping := range []struct{ address, kind string }{{"10.0.0.2", "\x08\x00"}, {"fd00::2", "\x86\xdd"}} {
		raw, err := ovstest.OpenRaw(b.Netns, "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Ping(ping.address); err != nil {
			t.Fatal(err)
		}
		frame, err := raw.Await(quickly, func(frame []byte) bool {
			return string(frame[6:12]) == string(hw(a.MAC)) && string(frame[12:14]) == ping.kind
		})
		if err != nil || dscp(frame) != 26 {
			t.Errorf("%s: DSCP of %x: %v", ping.address, frame, err)
		}
	}

	// After a restart nothing is made anew: the meter still knows what it has dropped.
	meters := func() string {
		out, err := h.s.OFCtl(t.Context(), "-O", "OpenFlow14", "meter-stats", "br-int", fmt.Sprintf("meter=%d", meterID(h.ofport("a"), meterEgress)))
		if err != nil {
			t.Fatal(err)
		}
		_, dropped, _ := strings.Cut(out, "0: packet_count:")
		return dropped
	}
	before := meters()
	if before == "" || strings.HasPrefix(before, "0 ") {
		t.Fatalf("nothing was dropped: %s", before)
	}
	h.stop()
	h.start()
	c.push(h)
	if after := meters(); after != before {
		t.Errorf("meter after a restart: %s, before: %s", after, before)
	}

	// A rate can change while packets flow; a limit of packets.
	set("a", "packets")
	push()
	if got := rates(t, a, toB, b)[0]; got < 600 || got > 1400 {
		t.Errorf("packet rate is %.0f, want about 1000", got)
	}
	// A network's policy: b, which has none of its own, is limited, also in what is sent to all; d has its own.
	set("a", "")
	network("in")
	c.policies["free"] = &feed.QoSPolicy{Id: "free"}
	set("a", "free")
	set("d", "free")
	push()
	within(t, "ingress limit of the network", rates(t, a, toB, b)[0], 10)
	both := rates(t, a, toAll, b, d)
	within(t, "broadcast to a limited port", both[0], 10)
	within(t, "broadcast to a port after it", both[1], 50)
	// All limits together: the strictest one counts.
	set("b", "all")
	push()
	if got := rates(t, a, toB, b)[0]; got < 500 || got > 1400 {
		t.Errorf("packet rate is %.0f, want about 1000", got)
	}
	if got := rates(t, b, netip.MustParseAddrPort("10.0.0.1:5001"), a)[0]; got < 600 || got > 1400 {
		t.Errorf("packet rate is %.0f, want about 1000", got)
	}

	// Without policies all is as before, and no meter is left.
	network("")
	for name := range guests {
		set(name, "")
	}
	push()
	within(t, "policies removed", rates(t, a, toB, b)[0], 50)
	if out, err := h.s.OFCtl(t.Context(), "-O", "OpenFlow14", "dump-meters", "br-int"); err != nil || strings.Contains(out, "meter=") {
		t.Errorf("meters are left: %s %v", out, err)
	}
}

// TCP gets most of its rate, since the burst has room for it.
func TestQoSOfTCP(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.policies = map[string]*feed.QoSPolicy{"out": {Id: "out", BandwidthLimits: kbps("egress", 20000, 0)}}
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}, QosPolicyId: "out"}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	pa, pb := c.port(h, "a", "net", []string{"open"}, "10.0.0.1"), c.port(h, "b", "net", []string{"open"}, "10.0.0.2")
	a := l.Guest(h.s, "br-int", "a", "a", pa.MacAddress, "10.0.0.1/24")
	b := l.Guest(h.s, "br-int", "b", "b", pb.MacAddress, "10.0.0.2/24")
	c.push(h)
	h.expect("a", feed.State_STATE_ACTIVE)
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	var listener net.Listener
	if err := ovstest.In(b.Netns, func() (err error) {
		listener, err = net.Listen("tcp", ":5002")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := a.Dial("10.0.0.2:5002", quickly)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for block := make([]byte, 64<<10); ; {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin, bytes := time.Now(), 0
	const long = 4 * time.Second
	_ = conn.SetReadDeadline(begin.Add(long))
	for block := make([]byte, 64<<10); ; {
		n, err := conn.Read(block)
		bytes += n
		if err != nil {
			break
		}
	}
	got := float64(bytes) * 8 / long.Seconds() / 1e6
	t.Logf("TCP: %.1f Mbit/s", got)
	if got < 8 || got > 30 { // the burst of 16 Mbit is in it
		t.Errorf("TCP: %.1f Mbit/s, want about 20", got)
	}
}

// A switch that takes no meters: the port works without limits, and says so;
// when it takes them, the port is limited.
func TestMetersRefused(t *testing.T) {
	l := ovstest.NewLab(t)
	dir := t.TempDir()
	program, broken := filepath.Join(dir, "ofctl"), filepath.Join(dir, "broken")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *add-meter*) if [ -e '%s' ]; then echo no meters >&2; exit 1; fi;; esac\nexec ovs-ofctl \"$@\"\n", broken)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, l, nil, "h", "", func(o *Options) { o.OFCtl = program })
	c := newCloud()
	c.policies = map[string]*feed.QoSPolicy{"out": {Id: "out", BandwidthLimits: kbps("egress", 10000, 500), DscpMark: proto.Int32(8)}}
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	pa, pb := c.port(h, "a", "net", []string{"open"}, "10.0.0.1"), c.port(h, "b", "net", []string{"open"}, "10.0.0.2")
	pa.QosPolicyId = "out"
	a := l.Guest(h.s, "br-int", "a", "a", pa.MacAddress, "10.0.0.1/24")
	l.Guest(h.s, "br-int", "b", "b", pb.MacAddress, "10.0.0.2/24")
	// The switch tells the agent of its ports when it likes to.
	ovstest.Eventually(t, quickly, func() error {
		c.push(h)
		if r := h.results["b"]; r == nil || r.State != feed.State_STATE_ACTIVE {
			return fmt.Errorf("port b: %v", r)
		}
		return nil
	})
	h.expect("a", feed.State_STATE_ERROR)
	if text := h.results["a"].Error; !strings.Contains(text, "QoS policy out is not applied") || !strings.Contains(text, "no meters") {
		t.Errorf("error: %s", text)
	}
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	h.apply(runtime.Changes{})
	h.expect("a", feed.State_STATE_ERROR)
	h.all()
	h.expect("a", feed.State_STATE_ACTIVE)
	if flows := h.flowText("br-int", "table=0"); !strings.Contains(flows, "meter:") || a.Ping("10.0.0.2") != nil {
		t.Errorf("flows: %s", flows)
	}
}
