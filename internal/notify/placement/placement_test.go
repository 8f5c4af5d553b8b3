package placement_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/notify/placement"
	"isospin/internal/notify/placement/placementtest"
)

func client(t *testing.T, p *placementtest.Placement) *placement.Client {
	t.Helper()
	c, err := config.FromText(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	k, err := placement.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Nova computes the same.
func TestNames(t *testing.T) {
	for _, n := range [][2]string{
		{placement.DeviceProvider("host", "eth0"), "13cc0ed9-e802-5eaa-b4c7-3441855e31f2"},
		{placement.AgentProvider("host"), "791f63f0-1a1a-5c38-8972-5e43014fd58b"},
		{placement.RequestGroup("11111111-2222-3333-4444-555555555555", []string{"a", "b"}), "b3a00dca-98c8-56bc-9115-f58bd5f6bcc8"},
		{placement.PhysicalNetworkTrait("rack-1.é"), "CUSTOM_PHYSNET_RACK_1_"},
		{placement.VNICTypeTrait("virtio-forwarder"), "CUSTOM_VNIC_TYPE_VIRTIO_FORWARDER"},
	} {
		if n[0] != n[1] {
			t.Errorf("%s, want %s", n[0], n[1])
		}
	}
}

const configurations = `{
	"bridge_mappings": {"physnet1": "br-ex", "physnet2": "br-data"},
	"resource_provider_bandwidths": {"br-ex": {"egress": 1000, "ingress": 2000}, "br-data": {"egress": null, "ingress": 0}, "tunnels": {"egress": 30, "ingress": null}},
	"resource_provider_hypervisors": {"br-ex": "h1.example", "br-data": "h2.example", "tunnels": "h1.example"},
	"resource_provider_packet_processing_without_direction": {"h1.example": {"any": 500}},
	"resource_provider_packet_processing_with_direction": {},
	"resource_provider_inventory_defaults": {"allocation_ratio": 1.5, "min_unit": 1, "step_size": 1, "reserved": 0},
	"resource_provider_packet_processing_inventory_defaults": {"allocation_ratio": 1.0, "min_unit": 1, "step_size": 1, "reserved": 10}
}`

func providers(t *testing.T, configurations string) []placement.Provider {
	t.Helper()
	r, err := placement.Read("h1", json.RawMessage(configurations))
	if err != nil {
		t.Fatal(err)
	}
	return r.Providers(placement.Form{AgentType: "Open vSwitch agent", VNICTypes: []string{"normal"}, Tunnelled: "tunnels"})
}

// Providers are made once; then nothing is written until something differs.
func TestReport(t *testing.T) {
	p := placementtest.New(t, "h1.example", "h2.example")
	c, ctx := client(t, p), context.Background()
	all := providers(t, configurations)
	if err := c.Report(ctx, all); err != nil {
		t.Fatal(err)
	}
	agent1, external, tunnels := placement.AgentProvider("h1.example"), placement.DeviceProvider("h1.example", "br-ex"), placement.DeviceProvider("h1.example", "tunnels")
	inventory := func(total, ratio, reserved float64) map[string]any {
		return map[string]any{"total": total, "allocation_ratio": ratio, "min_unit": 1.0, "step_size": 1.0, "reserved": reserved, "max_unit": 2147483647}
	}
	for id, want := range map[string]placementtest.Provider{
		agent1: {
			Name: "h1.example:Open vSwitch agent", Parent: placementtest.Root("h1.example"), Generation: 2, Traits: []string{"CUSTOM_VNIC_TYPE_NORMAL"},
			Inventories: map[string]map[string]any{"NET_PACKET_RATE_KILOPACKET_PER_SEC": inventory(500, 1, 10)},
		},
		external: {
			Name: "h1.example:Open vSwitch agent:br-ex", Parent: agent1, Generation: 2, Traits: []string{"CUSTOM_PHYSNET_PHYSNET1", "CUSTOM_VNIC_TYPE_NORMAL"},
			Inventories: map[string]map[string]any{"NET_BW_EGR_KILOBIT_PER_SEC": inventory(1000, 1.5, 0), "NET_BW_IGR_KILOBIT_PER_SEC": inventory(2000, 1.5, 0)},
		},
		tunnels: {
			Name: "h1.example:Open vSwitch agent:tunnels", Parent: agent1, Generation: 2, Traits: []string{"CUSTOM_NETWORK_TUNNEL_PROVIDER", "CUSTOM_VNIC_TYPE_NORMAL"},
			Inventories: map[string]map[string]any{"NET_BW_EGR_KILOBIT_PER_SEC": inventory(30, 1.5, 0)},
		},
		placement.AgentProvider("h2.example"): {
			Name: "h2.example:Open vSwitch agent", Parent: placementtest.Root("h2.example"), Generation: 1, Traits: []string{"CUSTOM_VNIC_TYPE_NORMAL"},
		},
		placement.DeviceProvider("h2.example", "br-data"): {
			Name: "h2.example:Open vSwitch agent:br-data", Parent: placement.AgentProvider("h2.example"), Generation: 1, Traits: []string{"CUSTOM_PHYSNET_PHYSNET2", "CUSTOM_VNIC_TYPE_NORMAL"},
		},
	} {
		if got, _ := p.Provider(id); !reflect.DeepEqual(got, want) {
			t.Errorf("provider %s:\n%+v, want\n%+v", id, got, want)
		}
	}
	before := len(p.Writes())
	if err := c.Report(ctx, all); err != nil || len(p.Writes()) != before {
		t.Errorf("again: %v, %v", err, p.Writes()[before:])
	}
	// Others change the provider at the same time.
	p.Overtake(2)
	if err := c.Report(ctx, providers(t, strings.Replace(configurations, `"egress": 1000`, `"egress": 1001`, 1))); err != nil {
		t.Error(err)
	}
	path := "PUT /resource_providers/" + external + "/inventories"
	if got := p.Writes()[before:]; !reflect.DeepEqual(got, []string{path, path, path}) {
		t.Errorf("writes %v", got)
	}
	if got, _ := p.Provider(external); got.Inventories["NET_BW_EGR_KILOBIT_PER_SEC"]["total"] != 1001.0 {
		t.Errorf("provider %v", got)
	}
	p.Overtake(1000)
	if err := c.Report(ctx, all); err == nil || errors.Is(err, placement.ErrUnavailable) {
		t.Errorf("endless: %v", err)
	}
}

// A hypervisor that Nova has not made yet keeps the others from nothing.
func TestMissingHypervisor(t *testing.T) {
	p := placementtest.New(t, "h2.example")
	c, ctx := client(t, p), context.Background()
	if err := c.Report(ctx, providers(t, configurations)); err == nil || !strings.Contains(err.Error(), "h1.example") || strings.Contains(err.Error(), "h2.example") {
		t.Fatal(err)
	}
	if _, ok := p.Provider(placement.DeviceProvider("h2.example", "br-data")); !ok {
		t.Error("the other hypervisor has no provider")
	}
	p.Away(true)
	if err := c.Report(ctx, providers(t, configurations)); !errors.Is(err, placement.ErrUnavailable) {
		t.Error(err)
	}
}

func TestAllocate(t *testing.T) {
	p := placementtest.New(t)
	c, ctx := client(t, p), context.Background()
	p.Consume("vm", "provider", map[string]int64{"NET_BW_EGR_KILOBIT_PER_SEC": 100, "NET_BW_IGR_KILOBIT_PER_SEC": 7})
	p.Consume("vm", "root", map[string]int64{"VCPU": 2})
	p.Limit("provider", "NET_BW_EGR_KILOBIT_PER_SEC", 300)
	more := placement.Difference{"provider": {"NET_BW_EGR_KILOBIT_PER_SEC": 150, "NET_BW_IGR_KILOBIT_PER_SEC": -7}}
	p.Overtake(3)
	if err := c.Allocate(ctx, "vm", more); err != nil {
		t.Fatal(err)
	}
	const raised = `{"provider":{"NET_BW_EGR_KILOBIT_PER_SEC":250},"root":{"VCPU":2}}`
	if got := p.Consumed("vm"); got != raised {
		t.Errorf("consumed %s", got)
	}
	if err := c.Allocate(ctx, "vm", placement.Difference{"provider": {"NET_BW_EGR_KILOBIT_PER_SEC": 51}}); !errors.Is(err, placement.ErrExceeded) {
		t.Error(err)
	}
	if got := p.Consumed("vm"); got != raised {
		t.Errorf("consumed %s", got)
	}
	if err := c.Allocate(ctx, "vm", placement.Difference{"provider": {"NET_BW_EGR_KILOBIT_PER_SEC": -250}}); err != nil {
		t.Fatal(err)
	}
	if got := p.Consumed("vm"); got != `{"root":{"VCPU":2}}` {
		t.Errorf("consumed %s", got)
	}
	if err := c.Allocate(ctx, "vm", more); !fault.Is(err, "PlacementAllocationRpNotExists") {
		t.Error(err)
	}
	if err := c.Allocate(ctx, "gone", more); !fault.Is(err, "PlacementAllocationRemoved") {
		t.Error(err)
	}
	p.Consume("vm", "provider", map[string]int64{"NET_BW_EGR_KILOBIT_PER_SEC": 1})
	p.Overtake(1000)
	if err := c.Allocate(ctx, "vm", more); !fault.Is(err, "PlacementAllocationGenerationConflict") {
		t.Error(err)
	}
	p.Away(true)
	if err := c.Allocate(ctx, "vm", more); !errors.Is(err, placement.ErrUnavailable) {
		t.Error(err)
	}
}
