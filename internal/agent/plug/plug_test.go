package plug_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"isospin/internal/agent/plug"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/ovs/vswitch"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// memory is a switch that only remembers.
type memory struct {
	ports map[string]vswitch.Interface
	calls []string
}

func (m *memory) EnsurePort(_ context.Context, bridge string, p vswitch.Port) error {
	m.calls = append(m.calls, "ensure "+p.Name)
	m.ports[p.Name] = vswitch.Interface{Name: p.Name, Bridge: bridge, ExternalIDs: p.ExternalIDs}
	return nil
}

func (m *memory) DeletePort(_ context.Context, _, name string) error {
	m.calls = append(m.calls, "delete "+name)
	delete(m.ports, name)
	return nil
}

func (m *memory) Interfaces() (out []vswitch.Interface) {
	for _, i := range m.ports {
		out = append(out, i)
	}
	return out
}

func TestPlugAndUnplug(t *testing.T) {
	netnstest.Require(t)
	ctx := context.Background()
	sw := &memory{ports: map[string]vswitch.Interface{}}
	p := plug.New(plug.Options{Switch: sw, Owner: "test"})
	d := plug.Device{
		PortID: "12345678-9abc-4def-8000-000000000000", MAC: "FA:16:3E:00:00:01", Namespace: "qdhcp-x",
		Name: plug.DeviceName("tap", "12345678-9abc-4def-8000-000000000000"), MTU: 1450,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
	}
	t.Cleanup(func() { netns.Delete("qdhcp-x") })
	addresses := func() string { return netnstest.Run(t, "qdhcp-x", "ip -o addr show dev tap12345678-9a") }
	for range 2 {
		if err := p.Plug(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	// The port was deleted in case that the switch knew another device of its
	// name, and once only.
	if got := strings.Join(sw.calls, ", "); got != "delete tap12345678-9a, ensure tap12345678-9a, ensure tap12345678-9a" {
		t.Errorf("calls: %s", got)
	}
	if got := sw.ports["tap12345678-9a"].ExternalIDs; got["iface-id"] != d.PortID || got["attached-mac"] != "fa:16:3e:00:00:01" ||
		got["iface-status"] != "active" || got["isospin-owner"] != "test" {
		t.Errorf("external ids: %v", got)
	}
	if got := p.Devices(); len(got) != 1 || got[0] != (plug.Plugged{PortID: d.PortID, Namespace: "qdhcp-x", Name: d.Name}) {
		t.Errorf("devices: %v", got)
	}
	for ns, name := range map[string]string{"": "tap12345678-9a", "qdhcp-x": d.Name} {
		if out := netnstest.Run(t, ns, "ethtool -k "+name); !strings.Contains(out, "tx-checksumming: off") {
			t.Errorf("%s: %s", name, out)
		}
		if out := netnstest.Run(t, ns, "ip link show "+name); !strings.Contains(out, "mtu 1450") || !strings.Contains(out, "state UP") {
			t.Errorf("%s: %s", name, out)
		}
	}
	if out := addresses(); !strings.Contains(out, "10.0.0.2/24") || !strings.Contains(out, "2001:db8::2/64") || !strings.Contains(out, "fe80::f816:3eff:fe00:1/64") || strings.Contains(out, "tentative") {
		t.Errorf("addresses: %s", out)
	}

	// Nil leaves addresses alone, an empty list does not; without IPv6 addresses there is no IPv6.
	d.Addresses = nil
	if err := p.Plug(ctx, d); err != nil || !strings.Contains(addresses(), "10.0.0.2/24") {
		t.Errorf("%v: %s", err, addresses())
	}
	d.Addresses = []netip.Prefix{}
	if err := p.Plug(ctx, d); err != nil || addresses() != "" {
		t.Errorf("%v: %s", err, addresses())
	}
	d.AdminDown = true
	if err := p.Plug(ctx, d); err != nil {
		t.Error(err)
	}
	if out := netnstest.Run(t, "qdhcp-x", "ip link show "+d.Name); strings.Contains(out, ",UP") {
		t.Errorf("device is up: %s", out)
	}

	// Another feature's port is neither taken over nor removed.
	other := plug.New(plug.Options{Switch: sw, Owner: "other"})
	if err := other.Plug(ctx, d); err == nil {
		t.Error("took over a port")
	}
	if err := other.Unplug(ctx, d.PortID); err == nil || len(other.Devices()) != 0 || len(sw.ports) != 1 {
		t.Errorf("removed a port: %v", err)
	}
	for range 2 {
		if err := p.Unplug(ctx, d.PortID); err != nil {
			t.Error(err)
		}
	}
	if out, err := netnstest.Try("qdhcp-x", "ip link show "+d.Name); err == nil || len(p.Devices()) != 0 {
		t.Errorf("left: %s", out)
	}
	for _, bad := range []plug.Device{{}, {PortID: "a/b"}, {PortID: "a", MAC: "x"}, {PortID: "a", MAC: d.MAC}, {PortID: "a", MAC: d.MAC, Namespace: "../x", Name: "y"}} {
		if err := p.Plug(ctx, bad); err == nil {
			t.Errorf("%+v was plugged", bad)
		}
	}
}
