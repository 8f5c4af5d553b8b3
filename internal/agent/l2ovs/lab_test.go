package l2ovs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/ovstest"
)

// host is one emulated host: a switch of its own and the feature, driven by
// the test as the runtime drives it.
type host struct {
	t       *testing.T
	name    string
	address string
	s       *ovstest.Switch
	f       *Feature
	wake    chan struct{}
	state   *runtime.State
	results map[string]*feed.Applied
	cancel  context.CancelFunc
	o       Options
}

func newHost(t *testing.T, l *ovstest.Lab, u *ovstest.Underlay, name, address string, change func(*Options)) *host {
	t.Helper()
	h := &host{t: t, name: name, address: address, s: l.Switch(l.Namespace(name)), state: &runtime.State{}}
	h.o = Options{Host: name, Connection: h.s.Connection(), DatapathType: "netdev"}
	if os.Getenv("ISOSPIN_TEST_LOG") != "" {
		h.o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if u != nil {
		u.TunnelEndpoint(h.s, address+"/24")
		h.o.LocalIP, h.o.TunnelTypes = address, []string{"vxlan"}
	}
	if change != nil {
		change(&h.o)
	}
	h.start()
	h.all() // makes the bridges
	t.Cleanup(func() {
		h.stop()
		if t.Failed() {
			flows, _ := h.s.OFCtl(context.Background(), "-O", "OpenFlow14", "--no-stats", "dump-flows", "br-int")
			t.Logf("%s br-int:\n%s", name, flows)
			flows, _ = h.s.AppCtl(context.Background(), "dpctl/dump-flows")
			t.Logf("%s datapath:\n%s", name, flows)
			flows, _ = h.s.AppCtl(context.Background(), "dpctl/dump-conntrack")
			t.Logf("%s conntrack:\n%s", name, flows)
		}
	})
	return h
}

func (h *host) start() {
	h.t.Helper()
	f, err := New(h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.f = f
	h.results = map[string]*feed.Applied{}
	h.wake = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	wake := h.wake
	if err := f.Start(ctx, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}); err != nil {
		h.t.Fatal(err)
	}
}

// stop ends the feature without a word, as a crash does.
func (h *host) stop() {
	h.cancel()
	h.f.Stop()
}

func (h *host) apply(changes runtime.Changes) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	results, err := h.f.Apply(ctx, h.state, changes)
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	for _, r := range results {
		h.results[r.Id] = r
	}
}

// all applies the whole state.
func (h *host) all() { h.t.Helper(); h.apply(runtime.Changes{All: true}) }

// expect waits for a port's state: the switch tells the agent of its ports when
// it likes to.
func (h *host) expect(port string, state feed.State) {
	h.t.Helper()
	first := true
	ovstest.Eventually(h.t, 20*time.Second, func() error {
		if !first {
			h.all()
		}
		first = false
		if r := h.results[port]; r == nil || r.State != state {
			return fmt.Errorf("%s: port %s: %v, want %v", h.name, port, r, state)
		}
		return nil
	})
}

// ofport is the number of a port on br-int.
func (h *host) ofport(id string) int {
	h.t.Helper()
	lp := h.f.planner.local[id]
	if lp == nil {
		h.t.Fatalf("%s: port %s is not wired", h.name, id)
	}
	return lp.ofport
}

// flowText is the flows of a bridge, for comparing.
func (h *host) flowText(bridge, match string) string {
	h.t.Helper()
	args := []string{"-O", "OpenFlow14", "dump-flows", bridge}
	if match != "" {
		args = append(args, match)
	}
	out, err := h.s.OFCtl(context.Background(), args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// untouched checks that no flow of a bridge has been written since then.
func (h *host) untouched(bridge string, then time.Time) {
	h.t.Helper()
	dump := h.flowText(bridge, "")
	since := time.Since(then).Seconds()
	for _, m := range regexp.MustCompile(`duration=([0-9.]+)s`).FindAllStringSubmatch(dump, -1) {
		if age, err := strconv.ParseFloat(m[1], 64); err != nil || age < since {
			h.t.Errorf("a flow of %s is %vs old, younger than the restart %vs ago", bridge, age, since)
		}
	}
}

func clone(s *runtime.State) *runtime.State {
	return &runtime.State{
		Ports: maps.Clone(s.Ports), Networks: maps.Clone(s.Networks), Forwarding: maps.Clone(s.Forwarding),
		SecurityGroups: maps.Clone(s.SecurityGroups), AddressSets: maps.Clone(s.AddressSets), QoSPolicies: maps.Clone(s.QoSPolicies),
		Logs: maps.Clone(s.Logs),
	}
}

// cloud is the desired state of some hosts, made from one list of ports.
type cloud struct {
	networks map[string]*feed.Network
	groups   map[string]*feed.SecurityGroup
	sets     map[string][]string
	policies map[string]*feed.QoSPolicy
	logs     map[string]*feed.Log
	ports    []placed
}

type placed struct {
	host *host
	port *feed.Port
}

func newCloud() *cloud {
	return &cloud{networks: map[string]*feed.Network{}, groups: map[string]*feed.SecurityGroup{}, sets: map[string][]string{}}
}

func (c *cloud) vxlan(id string, vni int64) {
	c.networks[id] = &feed.Network{Id: id, AdminStateUp: true, Mtu: 1450, Segment: &feed.Segment{NetworkType: "vxlan", SegmentationId: vni}}
}

// port places a port; its MAC is made from the last number of its first
// address.
func (c *cloud) port(h *host, id, network string, groups []string, addresses ...string) *feed.Port {
	p := &feed.Port{Id: id, NetworkId: network, MacAddress: macOf(len(c.ports) + 1), AdminStateUp: true, PortSecurityEnabled: true,
		SecurityGroupIds: groups, DeviceOwner: "compute:nova", Revision: 1}
	for _, a := range addresses {
		p.FixedIps = append(p.FixedIps, &feed.FixedIP{IpAddress: a})
	}
	c.ports = append(c.ports, placed{h, p})
	return p
}

func macOf(n int) string { return fmt.Sprintf("fa:16:3e:00:00:%02x", n) }

// state is what one host must hear.
func (c *cloud) state(h *host) *runtime.State {
	s := &runtime.State{Ports: map[string]*feed.Port{}, Networks: maps.Clone(c.networks), SecurityGroups: c.groups, QoSPolicies: maps.Clone(c.policies), Logs: maps.Clone(c.logs),
		Forwarding: map[string]*runtime.ForwardingTable{}, AddressSets: map[string]*runtime.AddressSet{}}
	for id, members := range c.sets {
		set := &runtime.AddressSet{ID: id, Addresses: map[string]struct{}{}}
		for _, m := range members {
			set.Addresses[m] = struct{}{}
		}
		s.AddressSets[id] = set
	}
	for _, p := range c.ports {
		if p.host == h {
			s.Ports[p.port.Id] = p.port
			continue
		}
		table := s.Forwarding[p.port.NetworkId]
		if table == nil {
			table = &runtime.ForwardingTable{NetworkID: p.port.NetworkId, Entries: map[string]*feed.ForwardingEntry{}}
			s.Forwarding[p.port.NetworkId] = table
		}
		e := &feed.ForwardingEntry{PortId: p.port.Id, MacAddress: p.port.MacAddress, TunnelIp: p.host.address}
		if t := c.networks[p.port.NetworkId].Segment.NetworkType; t == "flat" || t == "vlan" {
			e.TunnelIp = ""
		}
		if c.networks[p.port.NetworkId].Pvlan {
			e.PvlanType, e.PvlanCommunity, e.DeviceOwner = p.port.PvlanType, p.port.PvlanCommunity, p.port.DeviceOwner
			for _, pair := range p.port.AllowedAddressPairs {
				e.FurtherMacAddresses = append(e.FurtherMacAddresses, pair.MacAddress)
			}
		}
		for _, ip := range p.port.FixedIps {
			e.IpAddresses = append(e.IpAddresses, ip.IpAddress)
		}
		table.Entries[p.port.Id] = e
	}
	return s
}

// push makes all hosts be what the cloud says.
func (c *cloud) push(hosts ...*host) {
	for _, h := range hosts {
		h.t.Helper()
		h.state = c.state(h)
		h.all()
	}
}

func rule(direction, ethertype string, protocol, low, high int32, remote string) *feed.SecurityGroupRule {
	r := &feed.SecurityGroupRule{Id: fmt.Sprintf("%s-%s-%d-%d-%s", direction, ethertype, protocol, low, remote), Direction: direction, Ethertype: ethertype,
		Protocol: protocol, PortRangeMin: low, PortRangeMax: high}
	if strings.ContainsAny(remote, ".:") {
		r.RemoteIpPrefix = remote
	} else {
		r.RemoteAddressSetId = remote
	}
	return r
}

func group(id string, rules ...*feed.SecurityGroupRule) *feed.SecurityGroup {
	return &feed.SecurityGroup{Id: id, Stateful: true, Rules: rules, Revision: 1}
}

// egressAll is the rules of a default group that let everything out.
func egressAll() []*feed.SecurityGroupRule {
	return []*feed.SecurityGroupRule{rule("egress", "IPv4", -1, -1, -1, ""), rule("egress", "IPv6", -1, -1, -1, "")}
}
