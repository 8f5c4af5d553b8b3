package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Resources are what an Open vSwitch agent says, in its configurations, that
// its host has.
type Resources struct {
	// Bandwidths by bridge and direction (egress, ingress); nil is no promise.
	Bandwidths map[string]map[string]*int64 `json:"resource_provider_bandwidths"`
	// Hypervisors by bridge, as Nova names them.
	Hypervisors map[string]string `json:"resource_provider_hypervisors"`
	// PacketRates by hypervisor, of both directions together (any) or by direction.
	PacketRates         map[string]map[string]*int64 `json:"resource_provider_packet_processing_without_direction"`
	DirectedPacketRates map[string]map[string]*int64 `json:"resource_provider_packet_processing_with_direction"`
	// Inventory and PacketInventory are the defaults of inventories.
	Inventory       Inventory `json:"resource_provider_inventory_defaults"`
	PacketInventory Inventory `json:"resource_provider_packet_processing_inventory_defaults"`
	// BridgeMappings are the bridges of physical networks.
	BridgeMappings map[string]string `json:"bridge_mappings"`

	host string
}

// Inventory is what a provider has of one resource class.
type Inventory struct {
	Total           int64    `json:"total,omitempty"`
	AllocationRatio *float64 `json:"allocation_ratio,omitempty"`
	MinUnit         *int64   `json:"min_unit,omitempty"`
	MaxUnit         *int64   `json:"max_unit,omitempty"`
	StepSize        *int64   `json:"step_size,omitempty"`
	Reserved        *int64   `json:"reserved,omitempty"`
}

// within tells whether another has all that this one says.
func (i Inventory) within(o Inventory) bool {
	return i.Total == o.Total && agree(i.AllocationRatio, o.AllocationRatio) && agree(i.MinUnit, o.MinUnit) &&
		agree(i.MaxUnit, o.MaxUnit) && agree(i.StepSize, o.StepSize) && agree(i.Reserved, o.Reserved)
}

func agree[T comparable](want, have *T) bool { return want == nil || have != nil && *want == *have }

// Read reads the configurations of the Open vSwitch agent of a host.
func Read(host string, configurations json.RawMessage) (Resources, error) {
	r := Resources{host: host}
	if len(configurations) == 0 {
		return r, nil
	}
	if err := json.Unmarshal(configurations, &r); err != nil {
		return Resources{}, fmt.Errorf("configurations of the agent on %s: %w", host, err)
	}
	return r, nil
}

// None tells whether there is nothing that Placement should know.
func (r Resources) None() bool { return len(r.Bandwidths) == 0 && len(r.rates()) == 0 }

// rates are the packet rates; an agent has those of one form only.
func (r Resources) rates() map[string]map[string]*int64 {
	if len(r.PacketRates) > 0 {
		return r.PacketRates
	}
	return r.DirectedPacketRates
}

func (r Resources) hypervisor(device string) string {
	if name := r.Hypervisors[device]; name != "" {
		return name
	}
	return r.host
}

// IDs are those of the providers that allocations of ports can name.
func (r Resources) IDs() map[string]bool {
	ids := map[string]bool{}
	for device := range r.Bandwidths {
		ids[DeviceProvider(r.hypervisor(device), device)] = true
	}
	for hypervisor := range r.rates() {
		ids[AgentProvider(hypervisor)] = true
	}
	return ids
}

// Form says how providers of hosts are shown.
type Form struct {
	AgentType string   // required: e.g. "Open vSwitch agent"
	VNICTypes []string // required: that the agents' ports may have
	// Tunnelled is the device that stands for tunnels. // required
	Tunnelled string
}

// Provider is a resource provider as it ought to be.
type Provider struct {
	ID, Name string
	// Hypervisor is the compute node that it is below of; Parent is the
	// provider between them, empty: none.
	Hypervisor, Parent string
	// Traits, sorted.
	Traits []string
	// Inventories by resource class.
	Inventories map[string]Inventory
}

// Providers returns the providers of the resources, parents first: of each
// hypervisor one that has its packet rates, and below it one for each bridge.
func (r Resources) Providers(f Form) []Provider {
	var shared []string
	for _, v := range f.VNICTypes {
		shared = append(shared, VNICTypeTrait(v))
	}
	rates := r.rates()
	hypervisors := map[string]bool{}
	for device := range r.Bandwidths {
		hypervisors[r.hypervisor(device)] = true
	}
	for hypervisor := range rates {
		hypervisors[hypervisor] = true
	}
	var list []Provider
	for _, h := range slices.Sorted(maps.Keys(hypervisors)) {
		list = append(list, Provider{
			ID: AgentProvider(h), Name: h + ":" + f.AgentType, Hypervisor: h, Traits: sorted(shared),
			Inventories: inventories(rates[h], r.PacketInventory, map[string]string{"egress": PacketRateEgress, "ingress": PacketRateIngress, "any": PacketRate}),
		})
	}
	for _, device := range slices.Sorted(maps.Keys(r.Bandwidths)) {
		h := r.hypervisor(device)
		traits := slices.Clone(shared)
		if device == f.Tunnelled {
			traits = append(traits, TunnelTrait)
		}
		for physical, bridge := range r.BridgeMappings {
			if bridge == device {
				traits = append(traits, PhysicalNetworkTrait(physical))
			}
		}
		list = append(list, Provider{
			ID: DeviceProvider(h, device), Name: h + ":" + f.AgentType + ":" + device, Hypervisor: h, Parent: AgentProvider(h), Traits: sorted(traits),
			Inventories: inventories(r.Bandwidths[device], r.Inventory, map[string]string{"egress": BandwidthEgress, "ingress": BandwidthIngress}),
		})
	}
	return list
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// inventories are what is promised of each class; 0 is nothing.
func inventories(values map[string]*int64, defaults Inventory, classes map[string]string) map[string]Inventory {
	all := map[string]Inventory{}
	for direction, n := range values {
		if class := classes[direction]; class != "" && n != nil && *n > 0 {
			i := defaults
			i.Total = *n
			all[class] = i
		}
	}
	return all
}

// Report makes Placement's providers what they ought to be. The hypervisors
// must be there: Nova makes them. What fails of one hypervisor does not keep
// the others from being reported.
func (c *Client) Report(ctx context.Context, providers []Provider) error {
	roots := map[string]string{}
	failed := map[string]error{}
	for _, p := range providers {
		if failed[p.Hypervisor] != nil {
			continue
		}
		root, known := roots[p.Hypervisor]
		if !known {
			var err error
			if root, err = c.root(ctx, p.Hypervisor); err != nil {
				failed[p.Hypervisor] = err
				continue
			}
			roots[p.Hypervisor] = root
		}
		if p.Parent == "" {
			p.Parent = root
		}
		if err := c.reportOne(ctx, p); err != nil {
			failed[p.Hypervisor] = fmt.Errorf("resource provider %s: %w", p.Name, err)
		}
	}
	return errors.Join(slices.Collect(maps.Values(failed))...)
}

// root finds a compute node by its name.
func (c *Client) root(ctx context.Context, hypervisor string) (string, error) {
	var list struct {
		Providers []struct {
			UUID string `json:"uuid"`
		} `json:"resource_providers"`
	}
	if err := c.call(ctx, http.MethodGet, "/resource_providers?name="+url.QueryEscape(hypervisor), nil, &list); err != nil {
		return "", fmt.Errorf("resource provider %s: %w", hypervisor, err)
	}
	if len(list.Providers) == 0 {
		return "", fmt.Errorf("resource provider %s: there is none; it is made by Nova, and resource_provider_hypervisors names it", hypervisor)
	}
	return list.Providers[0].UUID, nil
}

func (c *Client) reportOne(ctx context.Context, p Provider) error {
	if err := c.ensure(ctx, p); err != nil {
		return err
	}
	if err := c.ensureTraits(ctx, p); err != nil {
		return fmt.Errorf("traits: %w", err)
	}
	if err := c.ensureInventories(ctx, p); err != nil {
		return fmt.Errorf("inventories: %w", err)
	}
	return nil
}

func (c *Client) ensure(ctx context.Context, p Provider) error {
	type form struct {
		UUID   string `json:"uuid,omitempty"`
		Name   string `json:"name"`
		Parent string `json:"parent_provider_uuid"`
	}
	var have form
	err := c.call(ctx, http.MethodGet, "/resource_providers/"+p.ID, nil, &have)
	switch {
	case answered(err, http.StatusNotFound):
		return c.call(ctx, http.MethodPost, "/resource_providers", form{p.ID, p.Name, p.Parent}, nil)
	case err != nil:
		return err
	case have.Name == p.Name && have.Parent == p.Parent:
		return nil
	}
	return c.call(ctx, http.MethodPut, "/resource_providers/"+p.ID, form{Name: p.Name, Parent: p.Parent}, nil)
}

// again repeats a change that others' changes overtake.
func again(change func() error) error {
	var err error
	for range tries {
		if err = change(); !overtaken(err) {
			return err
		}
	}
	return err
}

func (c *Client) ensureTraits(ctx context.Context, p Provider) error {
	type form struct {
		Generation int64    `json:"resource_provider_generation"`
		Traits     []string `json:"traits"`
	}
	path := "/resource_providers/" + p.ID + "/traits"
	return again(func() error {
		var have form
		if err := c.call(ctx, http.MethodGet, path, nil, &have); err != nil {
			return err
		}
		if slices.Equal(sorted(have.Traits), p.Traits) {
			return nil
		}
		for _, t := range p.Traits {
			if slices.Contains(have.Traits, t) {
				continue
			}
			if err := c.call(ctx, http.MethodPut, "/traits/"+t, nil, nil); err != nil {
				return err
			}
		}
		return c.call(ctx, http.MethodPut, path, form{have.Generation, append([]string{}, p.Traits...)}, nil)
	})
}

func (c *Client) ensureInventories(ctx context.Context, p Provider) error {
	type form struct {
		Generation  int64                `json:"resource_provider_generation"`
		Inventories map[string]Inventory `json:"inventories"`
	}
	path := "/resource_providers/" + p.ID + "/inventories"
	return again(func() error {
		var have form
		if err := c.call(ctx, http.MethodGet, path, nil, &have); err != nil {
			return err
		}
		if maps.EqualFunc(p.Inventories, have.Inventories, Inventory.within) {
			return nil
		}
		return c.call(ctx, http.MethodPut, path, form{have.Generation, p.Inventories}, nil)
	})
}
