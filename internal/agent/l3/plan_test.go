package l3

import (
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"isospin/api/feed"
	"isospin/internal/kernel/conntrack"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write what the plans are now into testdata")

// text renders a plan in the words of ip(8), sysctl(8) and nft(8).
func text(w *wanted, err error) string {
	var b strings.Builder
	if w != nil {
		fmt.Fprintf(&b, "ip netns add %s\n", w.Namespace)
		for _, s := range w.Settings {
			fmt.Fprintf(&b, "sysctl -w %s=%s\n", strings.ReplaceAll(s.Key, "/", "."), s.Value)
		}
		for _, d := range w.Devices {
			state := "up"
			if d.AdminDown {
				state = "down"
			}
			fmt.Fprintf(&b, "ip link set %s address %s mtu %d %s # port %s, accept_ra %v\n", d.Name, d.MAC, d.MTU, state, d.PortID, d.AcceptAdvertisements)
			for _, a := range d.Addresses {
				fmt.Fprintf(&b, "ip addr add %s dev %s\n", a, d.Name)
			}
		}
		for _, r := range w.Routes {
			fmt.Fprintf(&b, "ip route add %s\n", r)
		}
		for _, name := range slices.Sorted(maps.Keys(w.Advertisements)) {
			a := w.Advertisements[name]
			fmt.Fprintf(&b, "advertise on %s: managed %v, other %v, lifetime %v, mtu %d, dns %v\n", name, a.Managed, a.Other, a.Lifetime, a.MTU, a.DNS)
			for _, p := range a.Prefixes {
				fmt.Fprintf(&b, "\tprefix %s autonomous %v valid %v preferred %v\n", p.Prefix, p.Autonomous, p.Valid, p.Preferred)
			}
			fmt.Fprintf(&b, "\t%s\n", hex.EncodeToString(a.Marshal()))
		}
		for _, r := range w.Policy {
			fmt.Fprintf(&b, "ip rule add %s\n", r)
		}
		for _, table := range slices.Sorted(maps.Keys(w.Tables)) {
			for _, r := range w.Tables[table] {
				fmt.Fprintf(&b, "ip route add %s table %d\n", r, table)
			}
		}
		for _, s := range w.Balance {
			fmt.Fprintf(&b, "sysctl -w %s=%s\n", strings.ReplaceAll(s.Key, "/", "."), s.Value)
		}
		script, err := w.Rules.Script()
		if err != nil {
			fmt.Fprintf(&b, "nft: %v\n", err)
		}
		b.WriteString(script)
	}
	if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	return b.String()
}

const (
	idA  = "11111111-aaaa-4aaa-8aaa-000000000001"
	idB  = "22222222-bbbb-4bbb-8bbb-000000000002"
	idG  = "99999999-cccc-4ccc-8ccc-000000000003"
	idR  = "0a0a0a0a-0000-4000-8000-000000000000"
	mac1 = "fa:16:3e:00:00:0a"
	mac2 = "fa:16:3e:00:00:0b"
	mac3 = "fa:16:3e:00:00:ee"
)

func small() *feed.Router {
	return &feed.Router{
		Id: idR, AdminStateUp: true, Revision: 7,
		Interfaces: []*feed.RouterInterface{
			{PortId: idB, MacAddress: mac2, Addresses: []string{"10.0.2.1/24"}, Mtu: 1450},
			{PortId: idA, MacAddress: mac1, Addresses: []string{"10.0.1.1/24"}, Mtu: 1450},
		},
		Gateway: &feed.RouterGateway{PortId: idG, MacAddress: mac3, Addresses: []string{"203.0.113.10/24"}, Mtu: 1500, EnableSnat: true, GatewayIps: []string{"203.0.113.1"}},
		FloatingIps: []*feed.FloatingIP{
			{Id: "f2", FloatingIpAddress: "203.0.113.22", FixedIpAddress: "10.0.1.5"},
			{Id: "f1", FloatingIpAddress: "198.51.100.7", FixedIpAddress: "10.0.2.5"},
			{Id: "f3", FloatingIpAddress: "203.0.113.23"},
		},
		Routes: []*feed.HostRoute{
			{Destination: "192.168.0.0/16", Nexthop: "10.0.1.77"},
			{Destination: "192.168.0.0/16", Nexthop: "10.0.2.77"},
			{Destination: "172.16.0.1/12", Nexthop: "203.0.113.99"},
		},
	}
}

func dual() *feed.Router {
	r := small()
	r.FloatingIps, r.Routes = nil, []*feed.HostRoute{{Destination: "2001:db8:ff::/48", Nexthop: "2001:db8:1::77"}}
	r.Gateway.EnableSnat = false
	r.Gateway.Addresses = append(r.Gateway.Addresses, "2001:db8:e::10/64")
	r.Gateway.GatewayIps = []string{"203.0.112.1", "fe80::1"} // one outside of its subnet
	r.Interfaces[1].Addresses = append(r.Interfaces[1].Addresses, "2001:db8:1::1/64")
	r.Interfaces[1].Subnets = []*feed.Subnet{
		{Id: "s4", Cidr: "10.0.1.0/24", IpVersion: 4, GatewayIp: "10.0.1.1"},
		{Id: "s6", Cidr: "2001:db8:1::/64", IpVersion: 6, GatewayIp: "2001:db8:1::1", Ipv6RaMode: "slaac", DnsNameservers: []string{"2001:db8::53", "192.0.2.53"}},
	}
	r.Interfaces[0].Addresses = append(r.Interfaces[0].Addresses, "2001:db8:2::1/64", "2001:db8:3::1/64", "2001:db8:4::1/64")
	r.Interfaces[0].Subnets = []*feed.Subnet{
		{Id: "a", Cidr: "2001:db8:2::/64", IpVersion: 6, GatewayIp: "2001:db8:2::ffff", Ipv6RaMode: "dhcpv6-stateful"},
		{Id: "b", Cidr: "2001:db8:3::/64", IpVersion: 6, Ipv6RaMode: "dhcpv6-stateless"},
		{Id: "c", Cidr: "2001:db8:4::/64", IpVersion: 6, GatewayIp: "2001:db8:4::1"},
	}
	return r
}

func TestPlan(t *testing.T) {
	up := func(string) bool { return true }
	cases := map[string]struct {
		router *feed.Router
		up     func(string) bool
	}{
		"small":             {router: small()},
		"dual":              {router: dual()},
		"no-gateway":        {router: func() *feed.Router { r := small(); r.Gateway, r.FloatingIps, r.Routes = nil, nil, nil; return r }()},
		"down":              {router: func() *feed.Router { r := dual(); r.AdminStateUp = false; return r }()},
		"port-down":         {router: dual(), up: func(id string) bool { return id != idB }},
		"learns-its-router": {router: func() *feed.Router { r := dual(); r.Gateway.GatewayIps = nil; return r }()},
		"gateways":          {router: homed()},
		"gateways-share": {router: func() *feed.Router {
			r := homed()
			r.EnableDefaultRouteEcmp = true
			r.Gateway.Addresses = append(r.Gateway.Addresses, "2001:db8:e::10/64")
			r.Gateway.GatewayIps = append(r.Gateway.GatewayIps, "2001:db8:e::1")
			return r
		}()},
		"broken": {router: func() *feed.Router {
			r := small()
			r.Interfaces = append(r.Interfaces,
				&feed.RouterInterface{PortId: idA, MacAddress: mac1},
				&feed.RouterInterface{PortId: "x\" drop", MacAddress: mac1},
				&feed.RouterInterface{PortId: "y", MacAddress: "fa:16"},
				&feed.RouterInterface{PortId: "z", MacAddress: mac1, Addresses: []string{"10.0.0.1"}})
			r.Gateway.GatewayIps = append(r.Gateway.GatewayIps, "nonsense")
			r.FloatingIps = append(r.FloatingIps,
				&feed.FloatingIP{Id: "f4", FloatingIpAddress: "2001:db8::1", FixedIpAddress: "10.0.1.6"},
				&feed.FloatingIP{Id: "f5", FloatingIpAddress: "203.0.113.22", FixedIpAddress: "10.0.1.6"},
				&feed.FloatingIP{Id: "f6", FloatingIpAddress: "203.0.113.26", FixedIpAddress: "10.0.1.5"})
			r.Routes = append(r.Routes,
				&feed.HostRoute{Destination: "9.9.9.9", Nexthop: "10.0.1.1"},
				&feed.HostRoute{Destination: "9.9.9.0/24", Nexthop: "9.9.9.1"},
				&feed.HostRoute{Destination: "::/0", Nexthop: "10.0.1.1"})
			return r
		}()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.up == nil {
				c.up = up
			}
			got := text(planRouter(c.router, c.up, nil))
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("plan differs (-want +got):\n%s", d)
			}
		})
	}
	if w, err := planRouter(&feed.Router{Id: "../x"}, up, nil); w != nil || err == nil {
		t.Error("a path was taken for an id")
	}
}

// Whatever the feed holds, planning neither panics nor lets anything but
// addresses and names of ours into the rules.
func TestPlanTakesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.1/24", "2001:db8::1/64", "::1", "0.0.0.0/0", mac1, "a", "", "fe80::1%x", "::ffff:1.2.3.4"}), rapid.String())
		words := rapid.SliceOfN(word, 0, 3)
		r := &feed.Router{Id: "r", AdminStateUp: rapid.Bool().Draw(t, "up")}
		for range rapid.IntRange(0, 3).Draw(t, "interfaces") {
			r.Interfaces = append(r.Interfaces, &feed.RouterInterface{
				PortId: word.Draw(t, "port"), MacAddress: word.Draw(t, "mac"), Addresses: words.Draw(t, "addresses"), Mtu: rapid.Int32().Draw(t, "mtu"),
				Subnets: []*feed.Subnet{{Cidr: word.Draw(t, "cidr"), IpVersion: 6, Ipv6RaMode: "slaac", GatewayIp: word.Draw(t, "gw"), DnsNameservers: words.Draw(t, "dns")}},
			})
		}
		if rapid.Bool().Draw(t, "gateway") {
			r.Gateway = &feed.RouterGateway{PortId: word.Draw(t, "gport"), MacAddress: mac1, Addresses: words.Draw(t, "gaddresses"), EnableSnat: true, GatewayIps: words.Draw(t, "gips")}
		}
		for range rapid.IntRange(0, 20).Draw(t, "further") {
			r.FurtherGateways = append(r.FurtherGateways, &feed.RouterGateway{PortId: word.Draw(t, "fport"), MacAddress: mac1, Addresses: words.Draw(t, "faddresses"), EnableSnat: true, GatewayIps: words.Draw(t, "fips")})
		}
		r.FloatingIps = []*feed.FloatingIP{{FloatingIpAddress: word.Draw(t, "fip"), FixedIpAddress: word.Draw(t, "fixed")}}
		r.Routes = []*feed.HostRoute{{Destination: word.Draw(t, "destination"), Nexthop: word.Draw(t, "hop")}}
		w, _ := planRouter(r, func(string) bool { return true }, nil)
		script, err := w.Rules.Script()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range w.Devices {
			if !validID(d.Name) || len(d.Name) > 15 {
				t.Fatalf("device name %q", d.Name)
			}
		}
		if strings.ContainsFunc(script, func(c rune) bool { return c < ' ' && c != '\n' || c > '~' }) {
			t.Fatalf("script: %q", script)
		}
	})
}

func TestUnjustified(t *testing.T) {
	w, err := planRouter(small(), func(string) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	without := w.NAT
	without.SNAT = false
	flow := func(s string) conntrack.Flow {
		var f conntrack.Flow
		for i, a := range strings.Fields(s) {
			if err := []interface{ UnmarshalText([]byte) error }{&f.Source, &f.Destination, &f.ReplySource, &f.ReplyTo}[i].UnmarshalText([]byte(a)); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	for _, c := range []struct {
		what, flow   string
		bad, badSNAT bool // with, without enable_snat
	}{
		{"routed", "10.0.1.9 10.0.2.9 10.0.2.9 10.0.1.9", false, false},
		{"by the gateway", "10.0.1.9 192.0.2.1 192.0.2.1 203.0.113.10", false, true},
		{"older than its floating IP", "10.0.1.5 192.0.2.1 192.0.2.1 203.0.113.10", false, true},
		{"out by floating IP", "10.0.1.5 192.0.2.1 192.0.2.1 203.0.113.22", false, false},
		{"in by floating IP", "192.0.2.1 203.0.113.22 10.0.1.5 192.0.2.1", false, false},
		{"hairpin", "10.0.2.9 203.0.113.22 10.0.1.5 203.0.113.10", false, false},
		{"hairpin between floating IPs", "10.0.2.5 203.0.113.22 10.0.1.5 198.51.100.7", false, false},
		{"metadata", "10.0.1.5 169.254.169.254 10.0.1.1 10.0.1.5", false, false},
		{"in by a floating IP that is gone", "192.0.2.1 203.0.113.99 10.0.1.5 192.0.2.1", true, true},
		{"in by a floating IP that is another's now", "192.0.2.1 203.0.113.22 10.0.1.6 192.0.2.1", true, true},
		{"out by a floating IP that is gone", "10.0.1.5 192.0.2.1 192.0.2.1 203.0.113.99", true, true},
		{"out by a floating IP that is another's now", "10.0.1.6 192.0.2.1 192.0.2.1 203.0.113.22", true, true},
	} {
		if got := w.NAT.unjustified(flow(c.flow)); got != c.bad {
			t.Errorf("%s: %v", c.what, got)
		}
		if got := without.unjustified(flow(c.flow)); got != c.badSNAT {
			t.Errorf("%s, without SNAT: %v", c.what, got)
		}
	}
}
