package l2ovs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
	"isospin/internal/ovs/ovstest"
)

// What a port with local IPs adds to br-int.
func TestLocalIPGolden(t *testing.T) {
	want, f := example()
	p := want.Ports["open"]
	p.FixedIps = []*feed.FixedIP{{IpAddress: "10.0.0.4"}}
	p.LocalIps = []*feed.LocalIP{
		{Id: "l1", LocalIpAddress: "10.0.0.99", FixedIpAddress: "10.0.0.4", IpMode: "translate"},
		{Id: "l2", LocalIpAddress: "10.0.0.98", FixedIpAddress: "10.0.0.4", IpMode: "passthrough"},
		{Id: "gone", LocalIpAddress: "10.0.0.97", FixedIpAddress: "10.0.0.5", IpMode: "translate"},
		{Id: "v6", LocalIpAddress: "fd00::1", FixedIpAddress: "10.0.0.4", IpMode: "translate"},
	}
	n := planned(want, f)
	var list []localIP
	for _, lp := range n.local {
		list = append(list, localIPsOf(lp.member, lp.port)...)
	}
	set := openflow.NewSet()
	set.Put("local-ip", localIPFlows(list))
	golden(t, "local-ip.txt", text(set))
	parses(t, text(set))
	p.LocalIps = nil
	n.plan(want, f, runtime.Changes{All: true})
	if after, fresh := text(n.integration), text(planned(want, f).integration); after != fresh {
		t.Errorf("without local IPs:\n%s", difference(after, fresh))
	}
}

// Guests of the host reach the port under the local IP, in connections and
// unasked, through the rules; others reach the address's true holder.
func TestLocalIP(t *testing.T) {
	l := ovstest.NewLab(t)
	u := l.Underlay("ul")
	h1 := newHost(t, l, u, "h1", "172.31.0.1", nil)
	h2 := newHost(t, l, u, "h2", "172.31.0.2", nil)
	ovstest.Eventually(t, quickly, func() error { _, err := l.Try(h1.s.Netns, "ping", "-c1", "-W1", h2.address); return err })
	c := newCloud()
	c.vxlan("net", 5001)
	c.groups["client"] = group("client", egressAll()...)
	c.groups["server"] = group("server", append(egressAll(), rule("ingress", "IPv4", 6, 80, 80, ""), rule("ingress", "IPv4", 1, -1, -1, ""))...)
	const local = "10.0.0.99"
	guest := func(h *host, id, group string, addresses ...string) (*ovstest.Guest, *feed.Port) {
		var groups []string
		if group != "" {
			groups = []string{group}
		}
		p := c.port(h, id, "net", groups, addresses...)
		p.PortSecurityEnabled = group != ""
		return l.Guest(h.s, "br-int", id, id, p.MacAddress, addresses[0]+"/24"), p
	}
	client, _ := guest(h1, "client", "client", "10.0.0.1")
	open, _ := guest(h1, "open", "", "10.0.0.3")
	server, port := guest(h1, "server", "server", "10.0.0.2")
	remote, _ := guest(h2, "remote", "client", "10.0.0.4")
	holder, _ := guest(h2, "holder", "server", local)
	for _, g := range []*ovstest.Guest{server, holder} {
		g.Listen(t, ":80")
		g.Listen(t, ":81")
	}
	port.LocalIps = []*feed.LocalIP{{Id: "l", LocalIpAddress: local, FixedIpAddress: "10.0.0.2", IpMode: "translate", NetworkId: "net"}}
	c.push(h1, h2)
	h1.expect("server", feed.State_STATE_ACTIVE)
	// The server answers to its own name: only it knows a second address.
	mac := func(g *ovstest.Guest) string {
		t.Helper()
		out, err := l.Try(g.Netns, "ip", "neigh", "show", local)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, g := range []*ovstest.Guest{client, open} {
		ovstest.Eventually(t, quickly, func() error { return g.Ping(local) })
		conn, err := g.Dial(local+":80", 2*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", g.Netns, err)
		}
		if err := ovstest.Echo(conn, 2*time.Second); err != nil {
			t.Errorf("%s: %v", g.Netns, err)
		}
		_ = conn.Close()
		if conn, err := g.Dial(local+":81", 300*time.Millisecond); err == nil {
			_ = conn.Close()
			t.Errorf("%s reaches a port that no rule opens", g.Netns)
		}
		if got := mac(g); !strings.Contains(got, server.MAC) {
			t.Errorf("%s has found %s", g.Netns, got)
		}
		// The address itself is as it was.
		if err := g.Ping("10.0.0.2"); err != nil {
			t.Errorf("%s: %v", g.Netns, err)
		}
	}
	for _, g := range []*ovstest.Guest{server, remote} { // the port itself, and another host
		ovstest.Eventually(t, quickly, func() error { return g.Ping(local) })
		if got := mac(g); !strings.Contains(got, holder.MAC) {
			t.Errorf("%s has found %s", g.Netns, got)
		}
	}
	ovstest.Eventually(t, quickly, func() error { return remote.Ping("10.0.0.2") })

	// Without the association the true holder is reached.
	n := replace(c, port)
	n.LocalIps = nil
	c.push(h1, h2)
	l.Run("ip", "-n", client.Netns, "neigh", "flush", "all")
	ovstest.Eventually(t, quickly, func() error {
		if err := client.Ping(local); err != nil {
			return err
		}
		if got := mac(client); !strings.Contains(got, holder.MAC) {
			return fmt.Errorf("found %s", got)
		}
		return nil
	})
}

// Passed through, packets keep their address: the guest has it, too.
func TestLocalIPPassthrough(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	p := c.port(h, "client", "net", []string{"open"}, "10.0.0.1")
	client := l.Guest(h.s, "br-int", "client", "client", p.MacAddress, "10.0.0.1/24")
	p = c.port(h, "server", "net", []string{"open"}, "10.0.0.2")
	l.Guest(h.s, "br-int", "server", "server", p.MacAddress, "10.0.0.2/24", "10.0.0.99/32")
	p.LocalIps = []*feed.LocalIP{{Id: "l", LocalIpAddress: "10.0.0.99", FixedIpAddress: "10.0.0.2", IpMode: "passthrough", NetworkId: "net"}}
	p.AllowedAddressPairs = []*feed.AddressPair{{IpAddress: "10.0.0.99"}}
	c.push(h)
	ovstest.Eventually(t, quickly, func() error { return client.Ping("10.0.0.99") })
}
