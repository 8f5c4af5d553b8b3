package l2ovs

import (
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/ovs/ovstest"
)

const quickly = 3 * time.Second

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
	_ = l
}
