package l2ovs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/ovstest"
)

const quickly = 10 * time.Second

// Instances of one network reach each other on one host and across hosts;
// those of another network with the same addresses do not.
func TestReachability(t *testing.T) {
	l := ovstest.NewLab(t)
	u := l.Underlay("ul")
	h1 := newHost(t, l, u, "h1", "172.31.0.1", nil)
	h2 := newHost(t, l, u, "h2", "172.31.0.2", nil)
	ovstest.Eventually(t, quickly, func() error { _, err := l.Try(h1.s.Netns, "ping", "-c1", "-W1", h2.address); return err })

	c := newCloud()
	c.vxlan("net-a", 5001)
	c.vxlan("net-b", 5002)
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""), rule("ingress", "IPv6", -1, -1, -1, ""))...)
	open := []string{"open"}
	guest := func(h *host, id, network string, addresses ...string) *ovstest.Guest {
		p := c.port(h, id, network, open, addresses...)
		var with []string
		for _, a := range addresses {
			with = append(with, a+map[bool]string{true: "/64", false: "/24"}[len(a) > 12])
		}
		return l.Guest(h.s, "br-int", id, p.Id, p.MacAddress, with...)
	}
	c.push(h1, h2)
	a1 := guest(h1, "a1", "net-a", "10.0.0.1", "fd00:0:0:a::1")
	guest(h1, "a2", "net-a", "10.0.0.2", "fd00:0:0:a::2")
	guest(h2, "a3", "net-a", "10.0.0.3", "fd00:0:0:a::3")
	b1 := guest(h1, "b1", "net-b", "10.0.0.1", "fd00:0:0:a::1")
	guest(h2, "b4", "net-b", "10.0.0.4", "fd00:0:0:a::4")
	c.push(h1, h2)
	for _, id := range []string{"a1", "a2", "b1"} {
		h1.expect(id, feed.State_STATE_ACTIVE)
	}
	for _, g := range []struct {
		from *ovstest.Guest
		to   string
		ok   bool
	}{
		{a1, "10.0.0.2", true}, {a1, "10.0.0.3", true}, {a1, "10.0.0.4", false},
		{a1, "fd00:0:0:a::2", true}, {a1, "fd00:0:0:a::3", true}, {a1, "fd00:0:0:a::4", false},
		{b1, "10.0.0.4", true}, {b1, "fd00:0:0:a::4", true}, {b1, "10.0.0.2", false}, {b1, "10.0.0.3", false}, {b1, "fd00:0:0:a::2", false},
	} {
		if g.ok {
			ovstest.Eventually(t, quickly, func() error { return g.from.Ping(g.to) })
		} else if g.from.Ping(g.to) == nil {
			t.Errorf("%s reaches %s", g.from.Netns, g.to)
		}
	}
	// ARP requests and neighbour solicitations for the other host's ports were answered here: both hosts' br-tun did so.
	for _, h := range []*host{h1, h2} {
		for _, table := range []int{tableAnswer, tableSolicitations} {
			answered := regexp.MustCompile(`n_packets=[1-9]\d*,.*(arp_op=1|icmp_type=13[56])`)
			if f := h.flowText("br-tun", fmt.Sprintf("table=%d", table)); !answered.MatchString(f) {
				t.Errorf("%s: nothing answered in table %d:\n%s", h.name, table, f)
			}
		}
	}
}

// Rules take effect while connections last: what they allow passes, what they
// no longer allow stops, and answers always pass.
func TestSecurityGroups(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	client := group("client", egressAll()...)
	server := func(rules ...*feed.SecurityGroupRule) {
		c.groups["server"] = group("server", append(egressAll(), rules...)...)
	}
	c.groups["client"] = client
	server()
	pa := c.port(h, "a", "net", []string{"client"}, "10.0.0.1", "fd00::1")
	pb := c.port(h, "b", "net", []string{"server"}, "10.0.0.2", "fd00::2")
	pz := c.port(h, "z", "net", []string{"client"}, "10.0.0.3")
	a := l.Guest(h.s, "br-int", "a", "a", pa.MacAddress, "10.0.0.1/24", "fd00::1/64")
	b := l.Guest(h.s, "br-int", "b", "b", pb.MacAddress, "10.0.0.2/24", "fd00::2/64")
	z := l.Guest(h.s, "br-int", "z", "z", pz.MacAddress, "10.0.0.3/24")
	b.Listen(t, ":80")
	b.Listen(t, ":81")
	a.Listen(t, ":80")
	c.push(h)
	h.expect("a", feed.State_STATE_ACTIVE)
	short, long := 300*time.Millisecond, 2*time.Second
	// The switch takes a moment to throw away what it has cached of old flows: a change must bite within a second.
	reaches := func(g *ovstest.Guest, address string, want bool) net.Conn {
		t.Helper()
		if !want {
			ovstest.Eventually(t, time.Second, func() error {
				conn, err := g.Dial(address, short)
				if err == nil {
					_ = conn.Close()
					return fmt.Errorf("%s reaches %s", g.Netns, address)
				}
				return nil
			})
			return nil
		}
		var conn net.Conn
		ovstest.Eventually(t, time.Second, func() (err error) {
			conn, err = g.Dial(address, short)
			return err
		})
		t.Cleanup(func() { _ = conn.Close() })
		if err := ovstest.Echo(conn, long); err != nil {
			t.Fatalf("%s to %s: %v", g.Netns, address, err)
		}
		return conn
	}
	passes := func(conn net.Conn, want bool) {
		t.Helper()
		if want { // TCP tries again after an ever longer time
			if err := ovstest.Echo(conn, 5*time.Second); err != nil {
				t.Fatalf("established connection: %v", err)
			}
			return
		}
		ovstest.Eventually(t, time.Second, func() error {
			if ovstest.Echo(conn, short) == nil {
				return errors.New("an established connection lasts")
			}
			return nil
		})
	}

	reaches(a, "10.0.0.2:80", false)
	// The other way round the answers pass, though nothing is let in to b, and nothing to a but answers.
	reaches(b, "10.0.0.1:80", false)

	server(rule("ingress", "IPv4", 6, 80, 80, ""))
	c.push(h)
	lasting := reaches(a, "10.0.0.2:80", true)
	reaches(a, "10.0.0.2:81", false)
	reaches(a, "[fd00::2]:80", false)

	// The rule goes: the connection stops. It comes back: so does the connection.
	server()
	c.push(h)
	passes(lasting, false)
	server(rule("ingress", "IPv4", 6, 1, 65535, "10.0.0.0/30"), rule("ingress", "IPv6", 6, 80, 81, "fd00::1"), rule("ingress", "IPv4", 1, 8, -1, ""))
	c.push(h)
	passes(lasting, true)
	reaches(a, "10.0.0.2:81", true)
	reaches(a, "[fd00::2]:80", true)
	if err := z.Ping("10.0.0.2"); err != nil {
		t.Error(err)
	}

	// A remote group: members only, as they come and go.
	server(rule("ingress", "IPv4", 6, 80, 80, "members"))
	c.sets["members"] = []string{"10.0.0.1"}
	c.push(h)
	passes(lasting, true)
	reaches(z, "10.0.0.2:80", false)
	next := clone(h.state)
	next.AddressSets["members"] = &runtime.AddressSet{ID: "members", Addresses: map[string]struct{}{"10.0.0.3": {}}}
	h.state = next
	h.apply(runtime.Changes{AddressSets: map[string]runtime.AddressSetChange{"members": {Addresses: map[string]struct{}{"10.0.0.1": {}, "10.0.0.3": {}}}}})
	reaches(z, "10.0.0.2:80", true)
	passes(lasting, false)

	// Egress rules are the other end of it.
	c.groups["client"] = group("client", rule("egress", "IPv4", 6, 81, 81, "10.0.0.2/32"))
	server(rule("ingress", "IPv4", -1, -1, -1, ""))
	c.push(h)
	reaches(z, "10.0.0.2:80", false)
	reaches(z, "10.0.0.2:81", true)
	if z.Ping("10.0.0.2") == nil {
		t.Error("ping passes without an egress rule")
	}

	// Without conntrack the answers need a rule too.
	c.groups["client"] = group("client", rule("egress", "IPv4", -1, -1, -1, ""))
	c.groups["client"].Stateful = false
	c.push(h)
	reaches(a, "10.0.0.2:80", false)
	c.groups["client"] = group("client", rule("egress", "IPv4", -1, -1, -1, ""), rule("ingress", "IPv4", 6, -1, -1, ""))
	c.groups["client"].Stateful = false
	c.push(h)
	reaches(a, "10.0.0.2:80", true)

	// Not filtered at all.
	pb = replace(c, pb)
	pb.PortSecurityEnabled = false
	c.groups["client"] = group("client", egressAll()...)
	c.push(h)
	reaches(a, "10.0.0.2:81", true)
}

// A port that cannot be rendered is shut, and says so; the others are wired.
// So is one that is not to be up.
func TestFailClosed(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	c.networks["far"] = &feed.Network{Id: "far", Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 5}}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	open := []string{"open"}
	pa := c.port(h, "a", "net", open, "10.0.0.1")
	pb := c.port(h, "b", "net", open, "10.0.0.2")
	bad := c.port(h, "bad", "net", open, "10.0.0.3")
	c.port(h, "far", "far", open, "10.0.0.4")
	c.port(h, "away", "net", open, "10.0.0.5")
	bad.AllowedAddressPairs = []*feed.AddressPair{{IpAddress: "10.0.0.0/33"}}
	a := l.Guest(h.s, "br-int", "a", "a", pa.MacAddress, "10.0.0.1/24")
	b := l.Guest(h.s, "br-int", "b", "b", pb.MacAddress, "10.0.0.2/24")
	x := l.Guest(h.s, "br-int", "x", "bad", bad.MacAddress, "10.0.0.3/24")
	l.Guest(h.s, "br-int", "y", "far", macOf(4), "10.0.0.4/24")
	c.push(h)
	h.expect("a", feed.State_STATE_ACTIVE)
	h.expect("bad", feed.State_STATE_ERROR)
	h.expect("far", feed.State_STATE_ERROR)
	h.expect("away", feed.State_STATE_DOWN)
	if e := h.results["far"].Error; !strings.Contains(e, "physnet1") || !strings.Contains(e, "bridge_mappings") {
		t.Errorf("error %q names neither the physical network nor the cure", e)
	}
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	if x.Ping("10.0.0.1") == nil || a.Ping("10.0.0.3") == nil {
		t.Error("the port that cannot be rendered is open")
	}
	// A rule that cannot be rendered allows nothing; the group's other rules hold.
	c.groups["odd"] = group("odd", rule("ingress", "IPv4", 6, 80, 70, ""), rule("ingress", "IPv4", 1, -1, -1, ""))
	pb = replace(c, pb)
	pb.SecurityGroupIds = []string{"odd"}
	c.push(h)
	h.expect("b", feed.State_STATE_ERROR)
	if e := h.results["b"].Error; !strings.Contains(e, "ports 80 to 70") {
		t.Errorf("error %q", e)
	}
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	pb = replace(c, pb)
	pb.SecurityGroupIds, pb.AdminStateUp, pb.Revision = open, false, 9
	c.push(h)
	h.expect("b", feed.State_STATE_DOWN)
	if a.Ping("10.0.0.2") == nil || b.Ping("10.0.0.1") == nil {
		t.Error("a port that is administratively down is open")
	}
	pb = replace(c, pb)
	pb.AdminStateUp = true
	c.push(h)
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
	h.expect("b", feed.State_STATE_ACTIVE)

	// The interface goes and comes: told without any change of the desired state.
	if err := a.Raw().Send(ether("fa:16:3e:77:77:77", pa.MacAddress, 0x0800, ipv4(17, "10.0.0.1", "10.0.0.77", udp(7, 7, "x")))); err != nil {
		t.Fatal(err)
	}
	drain(h)
	b.Unplug(h.s, "br-int")
	awaitWake(h, func() bool { return h.results["b"].State == feed.State_STATE_DOWN })
	// Connections of its address are forgotten, others are not.
	ovstest.Eventually(t, quickly, func() error {
		out, err := h.s.AppCtl(t.Context(), "dpctl/dump-conntrack")
		if err == nil && strings.Contains(out, "10.0.0.2") {
			err = errors.New(out)
		}
		return err
	})
	if out, err := h.s.AppCtl(t.Context(), "dpctl/dump-conntrack"); err != nil || !strings.Contains(out, "10.0.0.77") {
		t.Errorf("conntrack: %v\n%s", err, out)
	}
	if f := h.flowText("br-int", ""); strings.Contains(f, pb.MacAddress) {
		t.Errorf("flows of a port that is gone:\n%s", f)
	}
	b.Plug(h.s, "br-int", "b")
	awaitWake(h, func() bool { return h.results["b"].State == feed.State_STATE_ACTIVE })
	ovstest.Eventually(t, quickly, func() error { return a.Ping("10.0.0.2") })
}

// replace puts a copy of a port in its place, as each change of a port does.
func replace(c *cloud, p *feed.Port) *feed.Port {
	n := proto.CloneOf(p)
	n.Revision++
	for i := range c.ports {
		if c.ports[i].port == p {
			c.ports[i].port = n
		}
	}
	return n
}

func drain(h *host) {
	select {
	case <-h.wake:
	default:
	}
}

// awaitWake applies with no changes at each wake, until ok.
func awaitWake(h *host, ok func() bool) {
	h.t.Helper()
	deadline := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-h.wake:
			h.apply(runtime.Changes{})
		case <-deadline:
			h.t.Fatal("no wake brought it about")
		}
	}
}

// An agent that is killed and started again changes no flow, loses no packet
// and leaves flows of others alone; a switch that is started again gets its
// flows back.
func TestRestart(t *testing.T) {
	l := ovstest.NewLab(t)
	u := l.Underlay("ul")
	h1 := newHost(t, l, u, "h1", "172.31.0.1", nil)
	h2 := newHost(t, l, u, "h2", "172.31.0.2", nil)
	c := newCloud()
	c.vxlan("net", 77)
	c.groups["g"] = group("g", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, "set"))...)
	c.sets["set"] = []string{"10.0.0.1", "10.0.0.2"}
	p1 := c.port(h1, "p1", "net", []string{"g"}, "10.0.0.1")
	p2 := c.port(h2, "p2", "net", []string{"g"}, "10.0.0.2")
	g1 := l.Guest(h1.s, "br-int", "g1", "p1", p1.MacAddress, "10.0.0.1/24")
	l.Guest(h2.s, "br-int", "g2", "p2", p2.MacAddress, "10.0.0.2/24")
	c.push(h1, h2)
	ovstest.Eventually(t, 5*time.Second, func() error { return g1.Ping("10.0.0.2") })
	const foreign = "cookie=0x99,table=0,priority=3,dl_type=0x88cc,actions=drop"
	if _, err := h1.s.OFCtl(t.Context(), "add-flow", "br-int", foreign); err != nil {
		t.Fatal(err)
	}
	before, stopped := identities(h1), time.Now()

	ping := exec.Command("ip", "netns", "exec", g1.Netns, "ping", "-n", "-i", "0.02", "-c", "60", "-W", "1", "10.0.0.2")
	out, err := ping.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	h1.stop()
	h1.start()
	h1.all()
	h1.expect("p1", feed.State_STATE_ACTIVE)
	text, _ := io.ReadAll(out)
	if err := ping.Wait(); err != nil || !strings.Contains(string(text), " 60 received") {
		t.Errorf("packets were lost: %v\n%s", err, text)
	}
	if after := identities(h1); after != before {
		t.Errorf("flows changed:\n%s\nbefore:\n%s", after, before)
	}
	// None was written again: all are older than the stop.
	for _, bridge := range []string{"br-int", "br-tun"} {
		h1.untouched(bridge, stopped)
	}

	h1.s.KillVSwitchd()
	drain(h1)
	if err := h1.s.StartVSwitchd(t.Context()); err != nil {
		t.Fatal(err)
	}
	// All but the foreign one, whose owner has to look after it.
	ours := strings.Join(slices.DeleteFunc(strings.Split(before, "\n"), func(line string) bool { return strings.Contains(line, "cookie=0x99,") }), "\n")
	awaitWake(h1, func() bool { return identities(h1) == ours })
	ovstest.Eventually(t, 5*time.Second, func() error { return g1.Ping("10.0.0.2") })
}

// identities is the flows of both bridges, sorted.
func identities(h *host) string {
	h.t.Helper()
	return h.flowsOf("br-int", "br-tun")
}

// flowsOf is the flows of bridges without counters, sorted.
func (h *host) flowsOf(bridges ...string) string {
	h.t.Helper()
	var lines []string
	for _, bridge := range bridges {
		out, err := h.s.OFCtl(context.Background(), "-O", "OpenFlow14", "--no-stats", "dump-flows", bridge)
		if err != nil {
			h.t.Fatal(err)
		}
		lines = append(lines, strings.Split(out, "\n")...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
