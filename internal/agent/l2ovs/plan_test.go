package l2ovs

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
)

var update = flag.Bool("update", false, "write the golden files anew")

func text(s *openflow.Set) string {
	var b strings.Builder
	for _, f := range s.Flows() {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

func meterText(meters map[uint32]openflow.Meter) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(meters)) {
		fmt.Fprintf(&b, "meter=%d,%s\n", id, meters[id])
	}
	return b.String()
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for _, line := range gotLines {
		if !slices.Contains(wantLines, line) {
			t.Errorf("+ %s", line)
		}
	}
	for _, line := range wantLines {
		if !slices.Contains(gotLines, line) {
			t.Errorf("- %s", line)
		}
	}
	t.Errorf("%s differs; -update writes it anew", path)
}

// parses lets ovs-ofctl read flows.
func parses(t testing.TB, flows string) {
	t.Helper()
	if _, err := exec.LookPath("ovs-ofctl"); err != nil {
		t.Skip("ovs-ofctl is not installed")
	}
	cmd := exec.Command("ovs-ofctl", "-O", "OpenFlow14", "parse-flows", "/dev/stdin")
	cmd.Stdin = strings.NewReader(flows)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ovs-ofctl parse-flows: %v: %s\n%s", err, out[:min(len(out), 2000)], flows[:min(len(flows), 4000)])
	}
}

// example is a host with something of everything.
func example() (*runtime.State, *facts) {
	secure := func(p *feed.Port) *feed.Port {
		p.AdminStateUp, p.PortSecurityEnabled, p.DeviceOwner = true, true, "compute:nova"
		return p
	}
	want := &runtime.State{
		Ports: map[string]*feed.Port{
			"vm": secure(&feed.Port{Id: "vm", NetworkId: "tenant", MacAddress: "FA:16:3E:00:00:01", SecurityGroupIds: []string{"web"},
				FixedIps:            []*feed.FixedIP{{IpAddress: "10.0.0.1"}, {IpAddress: "fd00::1"}},
				AllowedAddressPairs: []*feed.AddressPair{{IpAddress: "10.0.0.9", MacAddress: "00:00:5e:00:01:01"}}}),
			"vm2":    secure(&feed.Port{Id: "vm2", NetworkId: "provider", MacAddress: "fa:16:3e:00:00:02", FixedIps: []*feed.FixedIP{{IpAddress: "192.0.2.2"}}}),
			"router": {Id: "router", NetworkId: "tenant", MacAddress: "fa:16:3e:00:00:03", AdminStateUp: true, PortSecurityEnabled: true, DeviceOwner: "network:router_interface"},
			"open":   {Id: "open", NetworkId: "tenant", MacAddress: "fa:16:3e:00:00:04", AdminStateUp: true, DeviceOwner: "compute:nova", QosPolicyId: "gold"},
		},
		Networks: map[string]*feed.Network{
			"tenant": {Id: "tenant", Segment: &feed.Segment{NetworkType: "vxlan", SegmentationId: 5001},
				DhcpPort: &feed.Port{Id: "dhcp", MacAddress: "fa:16:3e:dd:00:01", FixedIps: []*feed.FixedIP{{IpAddress: "10.0.0.254"}, {IpAddress: "fd00::fe"}}}},
			"provider": {Id: "provider", QosPolicyId: "silver", Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 101}},
		},
		SecurityGroups: map[string]*feed.SecurityGroup{"web": group("web", append(egressAll(),
			rule("ingress", "IPv4", 6, 80, 95, ""), rule("ingress", "IPv4", -1, -1, -1, "web"), rule("ingress", "IPv6", 58, 128, -1, "2001:db8::/32"))...)},
		QoSPolicies: map[string]*feed.QoSPolicy{
			"gold": {Id: "gold", DscpMark: proto.Int32(26),
				BandwidthLimits:  []*feed.BandwidthLimit{{Direction: "egress", MaxKbps: 20000}, {Direction: "ingress", MaxKbps: 100, MaxBurstKbps: 90}},
				PacketRateLimits: []*feed.PacketRateLimit{{Direction: "egress", MaxKpps: 2}, {Direction: "ingress", MaxKpps: 3, MaxBurstKpps: 1}}},
			"silver": {Id: "silver", BandwidthLimits: []*feed.BandwidthLimit{{Direction: "egress", MaxKbps: 0}, {Direction: "ingress", MaxKbps: 3, MaxBurstKbps: 0}}},
		},
		AddressSets: map[string]*runtime.AddressSet{"web": {ID: "web", Addresses: map[string]struct{}{"10.0.0.1": {}, "10.1.0.0/24": {}, "fd00::1": {}, "not an address": {}}}},
		Logs: map[string]*feed.Log{
			"all":      packetLog("all", "admin", "ALL", "vm", "router", "elsewhere"),
			"dropped":  packetLog("dropped", "tenant", "DROP", "vm", "vm2"),
			"accepted": packetLog("accepted", "tenant", "ACCEPT", "open"),
		},
		Forwarding: map[string]*runtime.ForwardingTable{"tenant": {NetworkID: "tenant", Entries: map[string]*feed.ForwardingEntry{
			"far":      {PortId: "far", MacAddress: "fa:16:3e:00:00:11", IpAddresses: []string{"10.0.0.11", "fd00::11"}, TunnelIp: "172.31.0.2"},
			"farther":  {PortId: "farther", MacAddress: "fa:16:3e:00:00:12", IpAddresses: []string{"10.0.0.12"}, TunnelIp: "172.31.0.3"},
			"unbound":  {PortId: "unbound", MacAddress: "fa:16:3e:00:00:13", IpAddresses: []string{"10.0.0.13"}},
			"dhcp":     {PortId: "dhcp", MacAddress: "fa:16:3e:dd:00:01", IpAddresses: []string{"10.0.0.254"}, TunnelIp: "172.31.0.3"},
			"nonsense": {PortId: "nonsense", MacAddress: "fa:16:3e", TunnelIp: "172.31.0.3"},
		}}},
	}
	f := &facts{
		ports: map[string]int{"vm": 11, "vm2": 12, "router": 13, "open": 14, "dhcp": 15}, vlans: map[string]int{"tenant": 7, "provider": 8},
		patchTun: 1, patchInt: 2, physical: map[string]outlet{"physnet1": {ofport: 3}}, kinds: []string{"vxlan"}, netdev: true,
		localIP: netip.MustParseAddr("172.31.0.1"),
		tunnels: map[tunnel]int{{"vxlan", netip.MustParseAddr("172.31.0.2")}: 21, {"vxlan", netip.MustParseAddr("172.31.0.3")}: 22},
	}
	return want, f
}

func planned(want *runtime.State, f *facts) *planner {
	p := newPlanner(planOptions{logMeter: openflow.Meter{Packets: true, Rate: 100, Burst: 25}})
	p.plan(want, f, runtime.Changes{All: true})
	return p
}

func TestGolden(t *testing.T) {
	want, f := example()
	p := planned(want, f)
	golden(t, "br-int.flows", text(p.integration))
	golden(t, "br-int.meters", meterText(p.meters))
	golden(t, "br-tun.flows", text(p.tunnels))
	parses(t, text(p.integration))
	parses(t, text(p.tunnels))
	if needed := neededTunnels(want, f.vlans, f.kinds, f.localIP); len(needed) != 2 {
		t.Errorf("tunnels %v", needed)
	}
}

// A kernel datapath cannot answer neighbour solicitations: they are flooded.
func TestKernelDatapath(t *testing.T) {
	want, f := example()
	f.netdev = false
	p := planned(want, f)
	for _, flows := range []string{text(p.integration), text(p.tunnels)} {
		if strings.Contains(flows, "nd_options_type") {
			t.Error("flows that the kernel refuses")
		}
	}
}

// Whatever came before, the same desired state makes the same flows: so a
// change costs its delta and a restart nothing.
func TestPlanDoesNotDependOnHistory(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	base, f := example()
	p := planned(base, f)
	old := base
	for step := range 500 {
		next, facts, changes := clone(old), *f, runtime.Changes{}
		for range 1 + random.IntN(3) {
			mutate(random, base, next, &facts, &changes)
		}
		p.plan(next, &facts, changes)
		fresh := planned(next, &facts)
		if got, want := text(p.integration), text(fresh.integration); got != want {
			t.Fatalf("step %d: br-int differs from a fresh plan:\n%s", step, difference(got, want))
		}
		if got, want := text(p.tunnels), text(fresh.tunnels); got != want {
			t.Fatalf("step %d: br-tun differs from a fresh plan:\n%s", step, difference(got, want))
		}
		if got, want := fmt.Sprint(p.meters), fmt.Sprint(fresh.meters); got != want {
			t.Fatalf("step %d: meters %s, want %s", step, got, want)
		}
		if got, want := fmt.Sprint(p.logged), fmt.Sprint(fresh.logged); got != want {
			t.Fatalf("step %d: packets are recorded as %s, want %s", step, got, want)
		}
		if got, want := fmt.Sprint(p.ports), fmt.Sprint(fresh.ports); got != want {
			t.Fatalf("step %d: ports %s, want %s", step, got, want)
		}
		old, f = next, &facts
	}
}

func difference(got, want string) string {
	var b strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range g {
		if !slices.Contains(w, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	for _, line := range w {
		if !slices.Contains(g, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	return b.String()
}

// mutate changes one thing, and says so as the runtime does.
func mutate(random *rand.Rand, base, s *runtime.State, f *facts, c *runtime.Changes) {
	pick := func(keys ...string) string { return keys[random.IntN(len(keys))] }
	switch random.IntN(14) {
	case 0: // a port goes or comes
		id := pick("vm", "vm2", "router", "open")
		if s.Ports[id] != nil {
			delete(s.Ports, id)
		} else {
			s.Ports[id] = base.Ports[id]
		}
	case 1: // a port changes
		if p := s.Ports[pick("vm", "vm2", "open")]; p != nil {
			p = proto.CloneOf(p)
			switch random.IntN(4) {
			case 0:
				p.AdminStateUp = !p.AdminStateUp
			case 1:
				p.SecurityGroupIds = [][]string{nil, {"web"}, {"web", "other"}, {"other"}, {"nowhere"}}[random.IntN(5)]
			case 2:
				p.PortSecurityEnabled = !p.PortSecurityEnabled
			case 3:
				p.FixedIps = []*feed.FixedIP{{IpAddress: fmt.Sprintf("10.0.0.%d", random.IntN(20))}}
			}
			s.Ports[p.Id] = p
		}
	case 2: // an interface is plugged, unplugged or renumbered
		f.ports = mapsClone(f.ports)
		id := pick("vm", "vm2", "router", "open", "dhcp")
		if random.IntN(2) == 0 {
			delete(f.ports, id)
		} else {
			f.ports[id] = 30 + random.IntN(1000)
		}
		f.vlans = map[string]int{}
		for id := range f.ports {
			switch id {
			case "vm2":
				f.vlans["provider"] = 8
			default:
				f.vlans["tenant"] = 7
			}
		}
	case 3: // a group goes, comes or changes
		id := pick("web", "other")
		switch random.IntN(3) {
		case 0:
			delete(s.SecurityGroups, id)
		case 1:
			s.SecurityGroups[id] = base.SecurityGroups["web"]
		case 2:
			g := group(id, rule("egress", "IPv4", 17, int32(random.IntN(100)), 200, pick("", "web", "other", "10.0.0.0/8")), rule("ingress", "IPv4", 6, -1, -1, pick("web", "other")))
			g.Stateful = random.IntN(2) == 0
			s.SecurityGroups[id] = g
		}
	case 4, 5: // a member goes or comes
		id := pick("web", "other")
		set := &runtime.AddressSet{ID: id, Addresses: map[string]struct{}{}}
		if old := s.AddressSets[id]; old != nil {
			for a := range old.Addresses {
				set.Addresses[a] = struct{}{}
			}
		}
		member := pick("10.0.0.1", "10.0.0.1/32", "10.0.0.0/24", "10.0.0.7/24", "0.0.0.0/0", "fd00::5", "::/0", "junk")
		if _, ok := set.Addresses[member]; ok {
			delete(set.Addresses, member)
		} else {
			set.Addresses[member] = struct{}{}
		}
		s.AddressSets[id] = set
		if c.AddressSets == nil {
			c.AddressSets = map[string]runtime.AddressSetChange{}
		}
		change := c.AddressSets[id]
		if change.Addresses == nil {
			change.Addresses = map[string]struct{}{}
		}
		change.Addresses[member] = struct{}{}
		c.AddressSets[id] = change
	case 6, 7: // a remote port goes, comes or moves
		table := &runtime.ForwardingTable{NetworkID: "tenant", Entries: mapsClone(s.Forwarding["tenant"].Entries)}
		id := pick("far", "farther", "third")
		if random.IntN(3) == 0 {
			delete(table.Entries, id)
		} else {
			table.Entries[id] = &feed.ForwardingEntry{PortId: id, MacAddress: "fa:16:3e:00:00:1" + pick("1", "2", "3"),
				IpAddresses: []string{"10.0.0.1" + pick("1", "2", "3")}, TunnelIp: pick("172.31.0.2", "172.31.0.3", "172.31.0.4", ""),
				PvlanType: pick("", "isolated", "community"), PvlanCommunity: pick("red", "green"), FurtherMacAddresses: []string{pick("00:00:5e:00:01:01", "00:00:5e:00:01:02")}}
		}
		s.Forwarding["tenant"] = table
		if c.Forwarding == nil {
			c.Forwarding = map[string]runtime.ForwardingChange{"tenant": {Ports: map[string]struct{}{}}}
		}
		c.Forwarding["tenant"].Ports[id] = struct{}{}
	case 8: // a tunnel goes or comes
		f.tunnels = mapsClone(f.tunnels)
		t := tunnel{"vxlan", netip.MustParseAddr(pick("172.31.0.2", "172.31.0.3", "172.31.0.4"))}
		if _, ok := f.tunnels[t]; ok {
			delete(f.tunnels, t)
		} else {
			f.tunnels[t] = 21 + random.IntN(50)
		}
	case 9: // a QoS policy goes, comes or changes
		id := pick("gold", "silver")
		switch random.IntN(3) {
		case 0:
			delete(s.QoSPolicies, id)
		case 1:
			s.QoSPolicies[id] = base.QoSPolicies["gold"]
		case 2:
			s.QoSPolicies[id] = &feed.QoSPolicy{Id: id, BandwidthLimits: []*feed.BandwidthLimit{{Direction: pick("egress", "ingress", "sideways"), MaxKbps: random.Int64N(3) - 1}}}
		}
	case 10: // a port or network gets another QoS policy
		if p := s.Ports[pick("vm", "vm2", "open", "router")]; p != nil {
			p = proto.CloneOf(p)
			p.QosPolicyId = pick("", "gold", "silver")
			s.Ports[p.Id] = p
		}
		n := proto.CloneOf(s.Networks["tenant"])
		n.QosPolicyId = pick("", "gold", "silver")
		s.Networks["tenant"] = n
	case 12: // a network begins or ceases to carry tags, or to keep its ports apart
		id := pick("tenant", "provider")
		n := proto.CloneOf(s.Networks[id])
		switch random.IntN(3) {
		case 0:
			n.VlanTransparent = !n.VlanTransparent
		case 1:
			n.Qinq = !n.Qinq
		case 2:
			n.Pvlan = !n.Pvlan
		}
		s.Networks[id] = n
	case 13: // a port gets another role
		if p := s.Ports[pick("vm", "vm2", "open", "router")]; p != nil {
			p = proto.CloneOf(p)
			p.PvlanType, p.PvlanCommunity = pick("", "promiscuous", "isolated", "community"), pick("red", "blue")
			s.Ports[p.Id] = p
		}
	case 11: // a packet log goes, comes or changes
		id := pick("all", "dropped", "accepted")
		if random.IntN(3) == 0 {
			delete(s.Logs, id)
		} else {
			s.Logs[id] = packetLog(id, pick("admin", "tenant"), pick("ALL", "ACCEPT", "DROP"), "vm", pick("vm2", "open", "router"))
		}
	}
}

func mapsClone[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Every rule either yields flows that ovs-ofctl reads, or an error; never
// flows for another direction or none at all.
func TestEveryRuleRenders(t *testing.T) {
	var all strings.Builder
	rapid.Check(t, func(t *rapid.T) {
		r := &feed.SecurityGroupRule{
			Id:        "r",
			Direction: rapid.SampledFrom([]string{"ingress", "egress"}).Draw(t, "direction"),
			Ethertype: rapid.SampledFrom([]string{"IPv4", "IPv6"}).Draw(t, "ethertype"),
			Protocol:  rapid.OneOf(rapid.SampledFrom([]int32{-1, 1, 6, 17, 33, 58, 132, 136}), rapid.Int32Range(0, 255)).Draw(t, "protocol"),
			RemoteIpPrefix: rapid.SampledFrom([]string{"", "0.0.0.0/0", "::/0", "10.0.0.1", "10.0.0.77/8", "192.0.2.128/25", "255.255.255.255/32", "fd00::1",
				"2001:db8::ffff/33", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.0/33", "x"}).Draw(t, "prefix"),
		}
		r.PortRangeMin = rapid.OneOf(rapid.Just(int32(-1)), rapid.Int32Range(0, 65536)).Draw(t, "min")
		r.PortRangeMax = rapid.OneOf(rapid.Just(int32(-1)), rapid.Int32Range(0, 65536)).Draw(t, "max")
		if r.RemoteIpPrefix == "" && rapid.Bool().Draw(t, "set") {
			r.RemoteAddressSetId = "set"
		}
		p := &policy{key: "k", number: 9, groups: []*feed.SecurityGroup{{Id: "g", Stateful: true, Rules: []*feed.SecurityGroupRule{r}}}}
		flows := renderPolicy(p, func(string) uint32 { return 5 })
		if (len(flows) == 0) != (p.err != nil) {
			t.Fatalf("rule %v: %d flows, error %v", r, len(flows), p.err)
		}
		for _, f := range flows {
			if (f.Table == tableIngressRules) != (r.Direction == "ingress") {
				t.Fatalf("rule %v: flow %v", r, f)
			}
			all.WriteString(f.String() + "\n")
		}
	})
	parses(t, all.String())
}

// Port masks cover exactly their range.
func TestPortMasks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint16().Draw(t, "a"), rapid.Uint16().Draw(t, "b")
		low, high := min(a, b), max(a, b)
		masks := portMasks(low, high)
		if len(masks) > 30 {
			t.Fatalf("%d masks", len(masks))
		}
		for port := range 65536 {
			hits := 0
			for _, m := range masks {
				if uint16(port)&m.mask == m.value {
					hits++
				}
			}
			if want := port >= int(low) && port <= int(high); (hits == 1) != want || hits > 1 {
				t.Fatalf("%d to %d: port %d is in %d masks", low, high, port, hits)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		patchName("int-", "br-ex"):                                      "int-br-ex",
		patchName("phy-", "br-provider-long"):                           "phy-br-pr",
		tunnel{"vxlan", netip.MustParseAddr("172.31.0.2")}.name():       "vxlan-ac1f0002",
		tunnel{"geneve", netip.MustParseAddr("2001:db8::1")}.name()[:7]: "geneve-",
	} {
		if !strings.HasPrefix(got, want) || len(got) > 15 {
			t.Errorf("name %q, want %q", got, want)
		}
	}
	m, err := parseMAC("fa:16:3e:00:00:01")
	if err != nil || m.linkLocal().String() != "fe80::f816:3eff:fe00:1/128" {
		t.Error(m.linkLocal(), err)
	}
	for _, bad := range []string{"", "fa:16:3e:00:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "fa:16:3e:00:00:01,actions=NORMAL"} {
		if _, err := parseMAC(bad); err == nil {
			t.Errorf("MAC %q is taken", bad)
		}
	}
}

// crowd is a host with many ports, all in one group that admits itself.
func crowd(ports int) (*runtime.State, *facts) {
	want, f := example()
	want.Ports, f.ports = map[string]*feed.Port{}, map[string]int{"dhcp": 15}
	members := map[string]struct{}{}
	for i := range ports {
		p := crowdPort(i)
		want.Ports[p.Id] = p
		f.ports[p.Id] = 100 + i
		members[p.FixedIps[0].IpAddress] = struct{}{}
		members[p.FixedIps[1].IpAddress] = struct{}{}
	}
	want.SecurityGroups["crowd"] = group("crowd", append(egressAll(),
		rule("ingress", "IPv4", -1, -1, -1, "crowd"), rule("ingress", "IPv6", -1, -1, -1, "crowd"), rule("ingress", "IPv4", 6, 22, 22, ""))...)
	want.AddressSets["crowd"] = &runtime.AddressSet{ID: "crowd", Addresses: members}
	return want, f
}

func crowdPort(i int) *feed.Port {
	return &feed.Port{Id: fmt.Sprintf("port-%05d", i), NetworkId: "tenant", MacAddress: fmt.Sprintf("fa:16:3e:01:%02x:%02x", i>>8, i&255),
		AdminStateUp: true, PortSecurityEnabled: true, DeviceOwner: "compute:nova", SecurityGroupIds: []string{"crowd"},
		FixedIps: []*feed.FixedIP{{IpAddress: fmt.Sprintf("10.0.%d.%d", 16+i>>8, i&255)}, {IpAddress: fmt.Sprintf("fd00::1:%x", i)}}}
}

// One port more in the crowd changes flows of its own and a few others, not
// some of each port.
func TestPortCostsItsDelta(t *testing.T) {
	want, f := crowd(200)
	p := planned(want, f)
	before := p.integration.Len()
	delta := changed(p, func() {
		next := clone(want)
		n := crowdPort(200)
		next.Ports[n.Id] = n
		set := &runtime.AddressSet{ID: "crowd", Addresses: mapsClone(want.AddressSets["crowd"].Addresses)}
		added := map[string]struct{}{n.FixedIps[0].IpAddress: {}, n.FixedIps[1].IpAddress: {}}
		for a := range added {
			set.Addresses[a] = struct{}{}
		}
		next.AddressSets["crowd"] = set
		f.ports = mapsClone(f.ports)
		f.ports[n.Id] = 999
		p.plan(next, f, runtime.Changes{Ports: map[string]struct{}{n.Id: {}}, AddressSets: map[string]runtime.AddressSetChange{"crowd": {Addresses: added}}})
	})
	if own := before / 200; delta > own+8 {
		t.Errorf("one port more changes %d flows, of %d with 200 ports", delta, before)
	}
	member := changed(p, func() {
		next := clone(want)
		set := &runtime.AddressSet{ID: "crowd", Addresses: mapsClone(want.AddressSets["crowd"].Addresses)}
		set.Addresses["10.9.9.9"] = struct{}{}
		next.AddressSets["crowd"] = set
		next.Ports = p2ports(p, want)
		p.plan(next, f, runtime.Changes{AddressSets: map[string]runtime.AddressSetChange{"crowd": {Addresses: map[string]struct{}{"10.9.9.9": {}}}}})
	})
	if member != 1 {
		t.Errorf("one member more changes %d flows", member)
	}
}

// p2ports is the ports that p has planned.
func p2ports(p *planner, want *runtime.State) map[string]*feed.Port {
	ports := mapsClone(want.Ports)
	for id, l := range p.local {
		ports[id] = l.port
	}
	return ports
}

// changed counts flows that differ after f.
func changed(p *planner, f func()) int {
	before := map[string]bool{}
	for line := range strings.SplitSeq(text(p.integration)+text(p.tunnels), "\n") {
		before[line] = true
	}
	f()
	n := 0
	for line := range strings.SplitSeq(text(p.integration)+text(p.tunnels), "\n") {
		if !before[line] {
			n++
		}
	}
	return n
}

// 200 ports in one group that admits itself, from nothing.
func BenchmarkPlanFromNothing(b *testing.B) {
	want, f := crowd(200)
	for b.Loop() {
		planned(want, f)
	}
}

// One port goes and comes back among 200.
func BenchmarkPlanOnePort(b *testing.B) {
	want, f := crowd(200)
	p := planned(want, f)
	less := clone(want)
	delete(less.Ports, "port-00100")
	for b.Loop() {
		p.plan(less, f, runtime.Changes{Ports: map[string]struct{}{"port-00100": {}}})
		p.plan(want, f, runtime.Changes{Ports: map[string]struct{}{"port-00100": {}}})
	}
}

// Nothing has changed.
func BenchmarkPlanNothing(b *testing.B) {
	want, f := crowd(200)
	p := planned(want, f)
	for b.Loop() {
		p.plan(want, f, runtime.Changes{})
	}
}

// One member goes and comes back in a set of 10,000.
func BenchmarkPlanOneMember(b *testing.B) {
	want, f := crowd(200)
	members := mapsClone(want.AddressSets["crowd"].Addresses)
	for i := range 10000 {
		members[fmt.Sprintf("10.%d.%d.1", 100+i>>8, i&255)] = struct{}{}
	}
	want.AddressSets["crowd"] = &runtime.AddressSet{ID: "crowd", Addresses: members}
	p := planned(want, f)
	less := clone(want)
	fewer := mapsClone(members)
	delete(fewer, "10.100.7.1")
	less.AddressSets["crowd"] = &runtime.AddressSet{ID: "crowd", Addresses: fewer}
	change := runtime.Changes{AddressSets: map[string]runtime.AddressSetChange{"crowd": {Addresses: map[string]struct{}{"10.100.7.1": {}}}}}
	for b.Loop() {
		p.plan(less, f, change)
		p.plan(want, f, change)
	}
}
