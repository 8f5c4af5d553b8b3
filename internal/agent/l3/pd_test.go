package l3

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"context"
	"net"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/agent/l3/pd/pdtest"
	"isospin/internal/agent/l3/radv"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

// asking is a router of IPv4 whose first network waits for a prefix.
func asking() *feed.Router {
	r := small()
	r.FloatingIps, r.Routes = nil, nil
	r.Interfaces[0].Delegations = []*feed.PrefixDelegation{{SubnetId: "55555555-0000-4000-8000-000000000001"}}
	return r
}

func TestPlanDelegation(t *testing.T) {
	plan := func(change func(*feed.Router)) *wanted {
		r := asking()
		change(r)
		w, err := planRouter(r, func(string) bool { return true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := plan(func(r *feed.Router) { r.Interfaces[0].Delegations[0].Prefix = "2001:db8:5::/64" })
	gateway := w.Devices[len(w.Devices)-1]
	if d := w.Delegation; d == nil || d.Device != gateway.Name || d.MAC.String() != gateway.MAC || len(d.Subnets) != 1 || d.Subnets[0].Hint.String() != "2001:db8:5::/64" {
		t.Errorf("delegation %+v on %+v", w.Delegation, gateway)
	}
	if !gateway.AcceptAdvertisements {
		t.Error("the way out is not learnt")
	}
	forwards := false
	for _, s := range w.Settings {
		forwards = forwards || s.Key == "net/ipv6/conf/all/forwarding"
	}
	if !forwards {
		t.Error("IPv6 is not forwarded")
	}
	if w := plan(func(r *feed.Router) { r.Gateway = nil }); w.Delegation != nil {
		t.Error("asked without a gateway")
	}
	if w := plan(func(r *feed.Router) { r.AdminStateUp = false }); w.Delegation == nil || !w.Delegation.Down {
		t.Error("a router that is down keeps nothing")
	}
	if w := plan(func(r *feed.Router) { r.Interfaces[0].Delegations = nil }); w.Delegation != nil || w.Devices[len(w.Devices)-1].AcceptAdvertisements {
		t.Error("asked for nothing")
	}
}

// A prefix is delegated to the router, its network uses it, and it is given back.
func TestDelegatedPrefix(t *testing.T) {
	w := newWorld(t)
	var log struct{ routes []string }
	netnstest.Run(t, "ext", "ip -6 addr add 2001:db8:ee::1/128 dev lo")
	netnstest.Run(t, "ext", "sysctl -qw net.ipv6.conf.all.forwarding=1")
	server := &pdtest.Server{Preferred: 20 * time.Second, Valid: 40 * time.Second, T1: 2 * time.Second, T2: 10 * time.Second}
	server.Route = func(p netip.Prefix, via netip.Addr) {
		line := "ip -6 route del " + p.String()
		if via.IsValid() {
			line = "ip -6 route replace " + p.String() + " via " + via.String() + " dev eth0"
		}
		if out, err := netnstest.Try("ext", line); err != nil {
			log.routes = append(log.routes, line+": "+out)
		}
	}
	server.Serve(t, "ext", "eth0")
	var mac net.HardwareAddr
	if err := netns.Do("ext", func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	upstream, err := radv.Start(context.Background(), radv.Options{Namespace: "ext", Device: "eth0", Advertisement: radv.Advertisement{MAC: mac, Lifetime: radv.Lifetime}})
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Stop(false)

	r := asking()
	subnet := r.Interfaces[0].Delegations[0].SubnetId
	var told []*feed.PrefixDelegation
	// follow applies until what is told of the prefix is as wanted.
	follow := func(what string, ok func(prefix string, known bool) bool) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			prefix, known := "", len(told) > 0
			if known {
				prefix = told[0].Prefix
			}
			if ok(prefix, known) {
				return
			}
			select {
			case <-w.woken:
				if a := w.apply(runtime.Changes{}, r)[r.Id]; a != nil {
					told = a.Delegations
				}
			case <-deadline:
				t.Fatalf("%s: told %v, server saw %v", what, told, server.Seen())
			}
		}
	}
	apply := func(r *feed.Router) {
		t.Helper()
		a := w.apply(changed(r.Id), r)[r.Id]
		if a == nil || a.State != feed.State_STATE_ACTIVE {
			t.Fatalf("applied: %v", a)
		}
		told = a.Delegations
	}
	apply(r)
	follow("first prefix", func(prefix string, _ bool) bool { return prefix != "" })
	prefix := netip.MustParsePrefix(told[0].Prefix)
	if told[0].SubnetId != subnet || prefix.String() != "2001:db8:f000:1::/64" {
		t.Errorf("told %v", told)
	}

	// The server has renumbered the subnet: guests get addresses of the prefix and are reached from outside.
	gateway := prefix.Addr().Next()
	r = proto.Clone(r).(*feed.Router)
	i := r.Interfaces[0]
	i.Delegations[0].Prefix = prefix.String()
	i.Addresses = append(i.Addresses, netip.PrefixFrom(gateway, 64).String())
	i.Subnets = append(i.Subnets, &feed.Subnet{Id: subnet, Cidr: prefix.String(), IpVersion: 6, GatewayIp: gateway.String(), EnableDhcp: true, Ipv6RaMode: "slaac", Ipv6AddressMode: "slaac"})
	apply(r)
	eventually(t, "address of the guest", func() bool {
		out, _ := netnstest.Try("b1", "ip -6 addr show dev eth0 scope global")
		return strings.Contains(out, "2001:db8:f000:1:")
	})
	eventually(t, "way upstream", func() bool {
		_, err := netnstest.Try("b1", "ping -6 -c 1 -W 1 2001:db8:ee::1")
		return err == nil
	})

	// The lease is renewed, and outlives the agent.
	eventually(t, "renewal", func() bool { return slices.Contains(server.Seen(), "RENEW") })
	w.feature.Stop()
	info, err := os.Stat(filepath.Join(w.dir, "l3-prefixes.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("leases on the disk: %v %v", info, err)
	}
	if server.Leases() != 1 {
		t.Error("an agent that stops gives the prefix back")
	}
	seen := len(server.Seen())
	w.start()
	apply(r)
	follow("prefix after a restart", func(now string, _ bool) bool { return now == prefix.String() })
	eventually(t, "renewal by the next agent", func() bool { return slices.Contains(server.Seen()[seen:], "RENEW") })
	if slices.Contains(server.Seen()[seen:], "SOLICIT") {
		t.Errorf("asked anew after a restart: %v", server.Seen()[seen:])
	}
	if _, err := netnstest.Try("b1", "ping -6 -c 1 -W 1 2001:db8:ee::1"); err != nil {
		t.Error("no way upstream after a restart")
	}

	// Another prefix: guests take new addresses, and the former ones for nothing new.
	moved := proto.Clone(r).(*feed.Router)
	i = moved.Interfaces[0]
	i.Addresses[len(i.Addresses)-1] = "2001:db8:77::1/64"
	i.Subnets[len(i.Subnets)-1].Cidr, i.Subnets[len(i.Subnets)-1].GatewayIp = "2001:db8:77::/64", "2001:db8:77::1"
	apply(moved)
	eventually(t, "new address of the guest", func() bool {
		now, _ := netnstest.Try("b1", "ip -6 addr show dev eth0 scope global -deprecated")
		former, _ := netnstest.Try("b1", "ip -6 addr show dev eth0 scope global deprecated")
		return strings.Contains(now, "2001:db8:77:") && strings.Contains(former, "2001:db8:f000:1:")
	})
	apply(r)

	// A router that is down keeps its prefix, one without the interface does not.
	down := proto.Clone(r).(*feed.Router)
	down.AdminStateUp = false
	apply(down)
	if server.Leases() != 1 {
		t.Error("a router that is down gives the prefix back")
	}
	apply(r)
	apply(func() *feed.Router {
		r := small()
		r.FloatingIps = nil
		return r
	}())
	eventually(t, "release", func() bool { return server.Leases() == 0 })
	b, err := os.ReadFile(filepath.Join(w.dir, "l3-prefixes.json"))
	var left map[string]any
	if err != nil || json.Unmarshal(bytes.TrimSpace(b), &left) != nil || len(left) != 0 {
		t.Errorf("leases on the disk after the release: %s %v", b, err)
	}

	// Without the gateway there is none either: it is given back before the device goes.
	r = asking()
	apply(r)
	follow("second prefix", func(prefix string, _ bool) bool { return prefix == "2001:db8:f000:2::/64" })
	without := proto.Clone(r).(*feed.Router)
	without.Gateway = nil
	apply(without)
	if server.Leases() != 0 {
		t.Error("the prefix was not given back with the gateway")
	}

	// A server that is silent loses the lease in the end, which is told.
	server.Preferred, server.Valid, server.T1, server.T2 = 2*time.Second, 3*time.Second, time.Second, 2*time.Second
	apply(r)
	follow("third prefix", func(prefix string, _ bool) bool { return prefix != "" })
	server.Silence(true)
	follow("end of the lease", func(prefix string, known bool) bool { return known && prefix == "" })
	server.Silence(false)
	follow("prefix again", func(prefix string, _ bool) bool { return prefix != "" })

	// A router that goes to another host keeps its prefix.
	w.apply(changed(r.Id))
	if server.Leases() != 1 {
		t.Error("a router that is moved gives the prefix back")
	}
	if len(log.routes) > 0 {
		t.Errorf("routes of the delegating server: %v", log.routes)
	}
}

func TestFormerPrefixes(t *testing.T) {
	r := &router{}
	now := time.Now()
	told := func(after time.Duration, prefixes ...string) string {
		var a radv.Advertisement
		for _, p := range prefixes {
			a.Prefixes = append(a.Prefixes, radv.Prefix{Prefix: netip.MustParsePrefix(p), OnLink: true, Autonomous: true, Valid: time.Hour, Preferred: time.Hour})
		}
		var list []string
		for _, p := range r.withFormer("qr-1", a, now.Add(after)).Prefixes {
			list = append(list, p.Prefix.String()+" "+p.Preferred.String())
		}
		return strings.Join(list, ", ")
	}
	for _, c := range []struct {
		after    time.Duration
		prefixes []string
		want     string
	}{
		{0, []string{"2001:db8:1::/64"}, "2001:db8:1::/64 1h0m0s"},
		{48 * time.Hour, []string{"2001:db8:2::/64"}, "2001:db8:2::/64 1h0m0s, 2001:db8:1::/64 0s"},
		{50 * time.Hour, []string{"2001:db8:3::/64"}, "2001:db8:3::/64 1h0m0s, 2001:db8:1::/64 0s, 2001:db8:2::/64 0s"},
		{73 * time.Hour, []string{"2001:db8:3::/64"}, "2001:db8:3::/64 1h0m0s, 2001:db8:2::/64 0s"},
		{74 * time.Hour, []string{"2001:db8:2::/64"}, "2001:db8:2::/64 1h0m0s, 2001:db8:3::/64 0s"},
	} {
		if have := told(c.after, c.prefixes...); have != c.want {
			t.Errorf("after %s: %s, want %s", c.after, have, c.want)
		}
	}
}
