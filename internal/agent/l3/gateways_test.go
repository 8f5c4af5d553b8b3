package l3

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

const (
	idG2 = "66666666-cccc-4ccc-8ccc-000000000006"
	mac6 = "fa:16:3e:00:00:66"
)

// homed is small with a second gateway, 198.18.0.0/24.
func homed() *feed.Router {
	r := small()
	r.Routes = nil
	r.FurtherGateways = []*feed.RouterGateway{{
		PortId: idG2, MacAddress: mac6, Addresses: []string{"198.18.0.10/24"}, Mtu: 1500, EnableSnat: true, GatewayIps: []string{"198.18.0.1"},
		Subnets: []*feed.Subnet{{Id: "s", Cidr: "198.18.0.0/24", IpVersion: 4, GatewayIp: "198.18.0.1"}},
	}}
	r.FloatingIps = []*feed.FloatingIP{
		{Id: "f1", FloatingIpAddress: "198.18.0.22", FixedIpAddress: "10.0.1.5"},
		{Id: "f2", FloatingIpAddress: "203.0.113.22", FixedIpAddress: "10.0.2.5"},
	}
	return r
}

// secondOutside is another guest that is a way to 192.0.2.1, on a network of its own.
func (w *world) secondOutside() {
	w.t.Helper()
	netnstest.Run(w.t, "", "ip link add br-y type bridge mcast_snooping 0")
	netnstest.Run(w.t, "", "ip link set br-y up")
	w.t.Cleanup(func() { netnstest.Try("", "ip link del br-y") })
	w.sw.bridge["6"] = "br-y"
	w.guest("ext2", "br-y", "198.18.0.1/24", "")
	netnstest.Run(w.t, "ext2", "ip addr add 192.0.2.1/32 dev lo")
}

// sources are the addresses as which the other side sees n connections.
func (w *world) sources(ns, address string, n int) map[string]int {
	w.t.Helper()
	seen := map[string]int{}
	for range n {
		c, err := dial(ns, address, 5*time.Second)
		if err != nil {
			w.t.Fatalf("%s to %s: %v", ns, address, err)
		}
		seen[c.source]++
		c.Close()
	}
	return seen
}

func TestSeveralGateways(t *testing.T) {
	w := newWorld(t)
	w.secondOutside()
	for _, ns := range []string{"a1", "a2", "b1", "ext", "ext2"} {
		w.serve(ns, ":80")
	}
	r := homed()
	w.all(r)
	w.reach("a2", "192.0.2.1:80", "203.0.113.10")   // the first gateway's way
	w.reach("a2", "198.18.0.1:80", "198.18.0.10")   // a neighbour of the second
	w.reach("b1", "192.0.2.1:80", "203.0.113.22")   // by a floating IP of the first
	w.reach("a1", "192.0.2.1:80", "198.18.0.22")    // by one of the second, which goes out there
	w.reach("ext2", "198.18.0.22:80", "198.18.0.1") // in by the second
	w.reach("ext", "203.0.113.22:80", "203.0.113.1")
	w.reach("a2", "198.18.0.22:80", "203.0.113.10") // from inside
	w.reach("a1", "10.0.2.5:80", "10.0.1.5")

	// From behind the second gateway: the answers go back where the flow came from.
	netnstest.Run(t, "ext2", "ip route add 203.0.113.22 via 198.18.0.10 src 192.0.2.1")
	w.reach("ext2", "203.0.113.22:80", "192.0.2.1")

	// Both share the traffic, each flow keeps to its own.
	r.EnableDefaultRouteEcmp = true
	w.apply(changed(r.Id), r)
	if seen := w.sources("a2", "192.0.2.1:80", 64); seen["203.0.113.10"] == 0 || seen["198.18.0.10"] == 0 || len(seen) != 2 {
		t.Errorf("connections by gateway: %v", seen)
	}
	if seen := w.sources("a1", "192.0.2.1:80", 16); seen["198.18.0.22"] != 16 {
		t.Errorf("connections by floating IP: %v", seen)
	}
	var kept []*connection
	for len(kept) < 16 {
		kept = append(kept, w.keep("a2", "192.0.2.1:80"))
	}
	r.EnableDefaultRouteEcmp = false
	w.apply(changed(r.Id), r)
	for _, c := range kept {
		if err := c.echo(); err != nil {
			t.Errorf("the flow of %s was cut: %v", c.source, err)
		}
	}

	// One gateway again: no rules or tables are left, and flows by the other end.
	first, second := kept[0], kept[0]
	for _, c := range kept {
		if c.source == "203.0.113.10" {
			first = c
		} else {
			second = c
		}
	}
	r.FurtherGateways = nil
	r.FloatingIps = r.FloatingIps[1:]
	w.apply(changed(r.Id), r)
	if err := first.echo(); err != nil {
		t.Errorf("the flow of the gateway that stays: %v", err)
	}
	if err := second.echo(); err == nil {
		t.Error("the flow of the gateway that is gone goes on")
	}
	if rules := netnstest.Run(t, routerSpace(r), "ip rule"); strings.Contains(rules, "proto 73") {
		t.Errorf("rules are left: %s", rules)
	}
	if routes := netnstest.Run(t, routerSpace(r), "ip route show table all proto 73"); strings.Contains(routes, "table") {
		t.Errorf("routes are left: %s", routes)
	}
	w.reach("a2", "192.0.2.1:80", "203.0.113.10")
}

// Two gateways on one external network.
func TestGatewaysOnOneNetwork(t *testing.T) {
	w := newWorld(t)
	w.serve("ext", ":80")
	w.serve("a1", ":80")
	r := homed()
	r.FloatingIps = []*feed.FloatingIP{{Id: "f1", FloatingIpAddress: "203.0.113.22", FixedIpAddress: "10.0.1.5"}}
	r.FurtherGateways[0].PortId = "9" + idG2[1:]
	r.FurtherGateways[0].Addresses, r.FurtherGateways[0].GatewayIps, r.FurtherGateways[0].Subnets = []string{"203.0.113.11/24"}, []string{"203.0.113.1"}, nil
	r.EnableDefaultRouteEcmp = true
	w.all(r)
	if seen := w.sources("a2", "192.0.2.1:80", 64); seen["203.0.113.10"] == 0 || seen["203.0.113.11"] == 0 || len(seen) != 2 {
		t.Errorf("connections by gateway: %v", seen)
	}
	w.reach("ext", "203.0.113.22:80", "203.0.113.1")
	w.reach("a1", "192.0.2.1:80", "203.0.113.22")
}

// Several routes to one destination share its traffic.
func TestRoutesShareTraffic(t *testing.T) {
	w := newWorld(t)
	for _, ns := range []string{"a1", "b1"} {
		netnstest.Run(t, ns, "ip addr add 192.168.5.1/32 dev lo")
		l, err := netns.Listen(context.Background(), ns, nil, "tcp", "192.168.5.1:80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, ns)
				c.Close()
			}
		}()
	}
	r := small()
	r.FloatingIps = nil
	r.Routes = []*feed.HostRoute{{Destination: "192.168.5.0/24", Nexthop: "10.0.1.5"}, {Destination: "192.168.5.0/24", Nexthop: "10.0.2.5"}}
	w.all(r)
	netnstest.Run(t, "ext", "ip route add 192.168.5.0/24 via 203.0.113.10")
	if seen := w.sources("ext", "192.168.5.1:80", 64); seen["a1"] == 0 || seen["b1"] == 0 {
		t.Errorf("connections by next hop: %v", seen)
	}
	r.Routes = r.Routes[:1]
	w.apply(changed(r.Id), r)
	if seen := w.sources("ext", "192.168.5.1:80", 8); seen["a1"] != 8 {
		t.Errorf("connections with one next hop: %v", seen)
	}
}
