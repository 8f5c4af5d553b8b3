package l2ovs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/ovstest"
)

const (
	trunkID   = "11111111-2222-4333-8444-555555555555"
	parentID  = "aaaaaaaa-0000-4000-8000-000000000001"
	subPortID = "aaaaaaaa-1111-4000-8000-000000000002"
	secondID  = "aaaaaaaa-2222-4000-8000-000000000003"
)

// inVLAN puts a tag into a frame.
func inVLAN(tag uint16, frame []byte) []byte {
	b := append([]byte{}, frame[:12]...)
	b = append(b, 0x81, 0)
	b = binary.BigEndian.AppendUint16(b, tag)
	return append(b, frame[12:]...)
}

// An instance with a trunk speaks to each subport's network under its tag, and
// to nothing else; the compute service's bridge is connected, and goes with the trunk.
func TestTrunk(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	ctx := context.Background()
	vsctl := func(args ...string) string {
		t.Helper()
		out, err := h.s.VSCtl(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	c := newCloud()
	for _, id := range []string{"net-p", "net-1", "net-2"} {
		c.networks[id] = &feed.Network{Id: id, AdminStateUp: true, Segment: &feed.Segment{NetworkType: "local"}}
	}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""))...)
	c.groups["closed"] = group("closed", egressAll()...)
	open := []string{"open"}
	parent := c.port(h, parentID, "net-p", open, "10.0.0.1")
	sub := c.port(h, subPortID, "net-1", open, "10.1.0.1")
	second := c.port(h, secondID, "net-2", []string{"closed"}, "10.2.0.1")
	other := map[string]*feed.Port{}
	guests := map[string]*ovstest.Guest{}
	for network, address := range map[string]string{"net-p": "10.0.0.9", "net-1": "10.1.0.9", "net-2": "10.2.0.9"} {
		p := c.port(h, "other-"+network, network, open, address)
		other[network], guests[network] = p, l.Guest(h.s, "br-int", network, p.Id, p.MacAddress, address+"/24")
	}
	trunk := &feed.Trunk{Id: trunkID, PortId: parentID, AdminStateUp: true, Revision: 1, SubPorts: []*feed.SubPort{
		{PortId: subPortID, SegmentationType: "vlan", SegmentationId: 101},
		{PortId: secondID, SegmentationType: "vlan", SegmentationId: 102},
	}}
	push := func(trunks ...*feed.Trunk) {
		t.Helper()
		h.state = c.state(h)
		h.state.Trunks = map[string]*feed.Trunk{}
		for _, tr := range trunks {
			h.state.Trunks[tr.Id] = tr
		}
		h.all()
	}
	push(trunk)
	h.expect(trunkID, feed.State_STATE_DOWN)
	h.expect(parentID, feed.State_STATE_DOWN)
	h.expect(subPortID, feed.State_STATE_DOWN)
	// The compute service makes a bridge and plugs the VIF there. Another bridge of that kind is somebody else's.
	bridge := "tbr-11111111-22"
	vsctl("add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev")
	vsctl("add-br", "tbr-foreign", "--", "set", "bridge", "tbr-foreign", "datapath_type=netdev")
	push(trunk)
	if out := vsctl("list-ports", bridge); out != "" {
		t.Fatalf("a bridge without a VIF is connected: %s", out)
	}
	vm := l.Guest(h.s, bridge, "vm", parentID, parent.MacAddress, "10.0.0.1/24")
	awaitWake(h, func() bool {
		h.apply(runtime.Changes{})
		r := h.results[trunkID]
		return r != nil && r.State == feed.State_STATE_ACTIVE
	})
	for _, id := range []string{parentID, subPortID, secondID} {
		h.expect(id, feed.State_STATE_ACTIVE)
	}
	var wiring strings.Builder
	for _, b := range []string{bridge, "br-int"} {
		for _, p := range strings.Fields(vsctl("list-ports", b)) {
			if strings.HasPrefix(p, "tp") || strings.HasPrefix(p, "sp") {
				tag := " tag=" + vsctl("get", "port", p, "tag")
				if b == "br-int" {
					tag = "" // the local VLAN, for operators
				}
				fmt.Fprintf(&wiring, "%s %s %s %s %s%s trunks=%s\n", b, p, vsctl("get", "interface", p, "type"), vsctl("get", "interface", p, "options"),
					vsctl("get", "interface", p, "external_ids"), tag, vsctl("get", "port", p, "trunks"))
			}
		}
	}
	golden(t, "trunk.txt", wiring.String())

	raw := vm.Raw()
	answered := func(tag uint16, source, target *feed.Port) error {
		from, to := source.FixedIps[0].IpAddress, target.FixedIps[0].IpAddress
		if err := raw.Send(inVLAN(tag, ether("ff:ff:ff:ff:ff:ff", source.MacAddress, 0x806, arp(1, source.MacAddress, from, "00:00:00:00:00:00", to)))); err != nil {
			return err
		}
		if _, err := raw.Await(time.Second, func(f []byte) bool {
			return bytes.Equal(f, inVLAN(tag, ether(source.MacAddress, target.MacAddress, 0x806, arp(2, target.MacAddress, to, source.MacAddress, from))))
		}); err != nil {
			return fmt.Errorf("ARP: %w", err)
		}
		echo := append([]byte{8, 0, 0, 0, 0, 7, 0, 1}, "trunk..."...)
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
		if err := raw.Send(inVLAN(tag, ether(target.MacAddress, source.MacAddress, 0x800, ipv4(1, from, to, echo)))); err != nil {
			return err
		}
		_, err := raw.Await(time.Second, func(f []byte) bool {
			return len(f) > 46 && bytes.Equal(f[:18], inVLAN(tag, ether(source.MacAddress, target.MacAddress, 0x800, nil))) && f[27] == 1 && f[38] == 0 && bytes.Equal(f[46:54], echo[8:])
		})
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		return nil
	}
	reaches := func() {
		t.Helper()
		ovstest.Eventually(t, quickly, func() error { return vm.Ping("10.0.0.9") })
		ovstest.Eventually(t, quickly, func() error { return guests["net-p"].Ping("10.0.0.1") })
		ovstest.Eventually(t, quickly, func() error { return answered(101, sub, other["net-1"]) })
		ovstest.Eventually(t, quickly, func() error { return answered(102, second, other["net-2"]) })
	}
	quiet := func(what string, tag uint16, source, target *feed.Port) {
		t.Helper()
		if err := answered(tag, source, target); !errors.Is(err, ovstest.ErrQuiet) {
			t.Errorf("%s: %v", what, err)
		}
	}
	reaches()
	quiet("an address of another subport", 101, second, other["net-1"])
	quiet("the network of another tag", 102, sub, other["net-1"])
	quiet("a tag of no subport", 103, sub, other["net-1"])
	quiet("the parent under a tag", 101, parent, other["net-p"])

	// A new agent changes nothing, and packets pass all the while.
	before := h.flowsOf("br-int")
	h.stop()
	reaches()
	h.start()
	push(trunk)
	if after := h.flowsOf("br-int"); after != before {
		t.Errorf("after a restart:\n%s\nwas\n%s", after, before)
	}
	reaches()

	// A subport less, and another tag.
	trunk = &feed.Trunk{Id: trunkID, PortId: parentID, AdminStateUp: true, Revision: 2, SubPorts: []*feed.SubPort{{PortId: subPortID, SegmentationType: "vlan", SegmentationId: 201}}}
	push(trunk)
	h.expect(secondID, feed.State_STATE_DOWN)
	ovstest.Eventually(t, quickly, func() error { return answered(201, sub, other["net-1"]) })
	quiet("the former tag", 101, sub, other["net-1"])
	quiet("a former subport", 102, second, other["net-2"])
	if r := h.results[trunkID]; r.Revision != 2 || r.State != feed.State_STATE_ACTIVE {
		t.Errorf("trunk: %v", r)
	}

	// Without the trunk the parent is off the network; its VIF and the bridge are the compute service's until it unplugs.
	push()
	if ports := vsctl("list-ports", bridge) + vsctl("list-ports", "br-int"); strings.Contains(ports, "tp") || strings.Contains(ports, "spi-") {
		t.Errorf("ports left: %s", ports)
	}
	h.expect(parentID, feed.State_STATE_DOWN)
	vm.Unplug(h.s, bridge)
	awaitWake(h, func() bool {
		h.apply(runtime.Changes{})
		return !strings.Contains(vsctl("list-br"), bridge)
	})
	if out := vsctl("list-br"); !strings.Contains(out, "tbr-foreign") {
		t.Errorf("bridges: %s", out)
	}
}

// One trunk that cannot be wired keeps no other from it.
func TestTrunkRefused(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	trunks := map[string]*feed.Trunk{}
	for i := range 3 {
		id, parent := fmt.Sprintf("%d1111111-2222-4333-8444-555555555555", i), fmt.Sprintf("%daaaaaaa-0000-4000-8000-000000000001", i)
		c.port(h, parent, "net", nil, fmt.Sprintf("10.0.0.%d", i+1))
		trunks[id] = &feed.Trunk{Id: id, PortId: parent}
		for _, args := range [][]string{
			{"add-br", trunkBridge(id), "--", "set", "bridge", trunkBridge(id), "datapath_type=netdev"},
			{"add-port", trunkBridge(id), fmt.Sprintf("vif%d", i), "--", "set", "interface", fmt.Sprintf("vif%d", i), "type=internal", "external_ids:iface-id=" + parent},
		} {
			if _, err := h.s.VSCtl(context.Background(), args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	trunks["01111111-2222-4333-8444-555555555555"].SubPorts = []*feed.SubPort{{PortId: "x", SegmentationType: "vlan", SegmentationId: 4095}}
	// Somebody has taken the name of an end.
	if _, err := h.s.VSCtl(context.Background(), "add-port", "br-int", "tpi-1aaaaaaa-00", "--", "set", "interface", "tpi-1aaaaaaa-00", "type=internal"); err != nil {
		t.Fatal(err)
	}
	ovstest.Eventually(t, quickly, func() error {
		h.state = c.state(h)
		h.state.Trunks = trunks
		h.all()
		if r := h.results["21111111-2222-4333-8444-555555555555"]; r.State != feed.State_STATE_ACTIVE {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	for _, id := range []string{"01111111-2222-4333-8444-555555555555", "11111111-2222-4333-8444-555555555555"} {
		h.expect(id, feed.State_STATE_ERROR)
	}
}
