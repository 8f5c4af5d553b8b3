// Package network is the networks resource: provider attributes and segments,
// MTU, external and shared networks.
//
// It must not know subnets or ports (they hook into deletion), HTTP, or what a
// segment type means (drivers of package driver/segment do).
package network

import (
	"encoding/json"

	"isospin/internal/resource"
)

// Network is a layer 2 broadcast domain.
type Network struct {
	resource.Standard
	Name         string `json:"name" db:"name"`
	AdminStateUp bool   `json:"admin_state_up" db:"admin_state_up"`
	Status       string `json:"status" db:"status"`
	MTU          int    `json:"mtu" db:"mtu"`
	External     bool   `json:"router:external" db:"external"`
	IsDefault    bool   `json:"is_default" db:"is_default"`
	// PortSecurityEnabled is what ports of the network begin with.
	PortSecurityEnabled bool           `json:"port_security_enabled" db:"port_security_enabled"`
	Slots               resource.Slots `json:"slots,omitempty" db:"slots,json"`
	// AvailabilityZoneHints are in order of preference; lists are sorted by them.
	AvailabilityZoneHints []string `json:"availability_zone_hints" db:"availability_zone_hints,json"`

	// Segments are the network's segments in order, child rows.
	Segments []Segment `json:"network_segments"`
	// SubnetIDs of the network.
	SubnetIDs []string `json:"subnets"`
	// L2Adjacency: all ports reach each other below IP. Not so when subnets belong to segments.
	L2Adjacency bool `json:"l2_adjacency"`
	// SharedWith are the projects ("*": all) with access_as_shared.
	SharedWith []string `json:"shared_with,omitempty"`
	// ExternalWith are the projects ("*": all) with access_as_external.
	ExternalWith []string `json:"external_with,omitempty"`

	// IPv4AddressScope and IPv6AddressScope are those of its subnets' pools.
	IPv4AddressScope *string `json:"ipv4_address_scope"`
	IPv6AddressScope *string `json:"ipv6_address_scope"`

	// What follows is only shown.
	Shared          bool            `json:"shared"`
	NetworkType     json.RawMessage `json:"provider:network_type,omitempty"`
	PhysicalNetwork json.RawMessage `json:"provider:physical_network,omitempty"`
	SegmentationID  json.RawMessage `json:"provider:segmentation_id,omitempty"`
	MultiSegments   json.RawMessage `json:"segments,omitempty"`
}

// Segment is one piece of a network: a VLAN, a VNI, a physical network.
type Segment struct {
	ID        string `json:"id" db:"id"`
	NetworkID string `json:"network_id" db:"network_id"`
	// NetworkType is local, flat, vlan, vxlan, gre or geneve.
	NetworkType string `json:"network_type" db:"network_type"`
	// PhysicalNetwork is empty for types without one.
	PhysicalNetwork string `json:"physical_network" db:"physical_network"`
	// SegmentationID is the VLAN, VNI or key; 0 is none.
	SegmentationID int `json:"segmentation_id" db:"segmentation_id"`
	Position       int `json:"position" db:"position"`

	CreatedAt string `json:"-" db:"created_at"`
	UpdatedAt string `json:"-" db:"updated_at"`
}

type providerForm struct {
	NetworkType     string  `json:"provider:network_type"`
	PhysicalNetwork *string `json:"provider:physical_network"`
	SegmentationID  *int    `json:"provider:segmentation_id"`
}

func (s *Segment) form() providerForm {
	f := providerForm{NetworkType: s.NetworkType}
	if s.PhysicalNetwork != "" {
		f.PhysicalNetwork = &s.PhysicalNetwork
	}
	if s.SegmentationID != 0 {
		f.SegmentationID = &s.SegmentationID
	}
	return f
}

// present fills the members that are derived from the rows.
func (n *Network) present(project string) {
	n.Shared = n.SharedFor(project)
	n.forget()
	switch len(n.Segments) {
	case 0:
	case 1:
		f := n.Segments[0].form()
		n.NetworkType, n.PhysicalNetwork, n.SegmentationID = raw(f.NetworkType), raw(f.PhysicalNetwork), raw(f.SegmentationID)
	default:
		forms := make([]providerForm, len(n.Segments))
		for i := range n.Segments {
			forms[i] = n.Segments[i].form()
		}
		n.MultiSegments = raw(forms)
	}
}

// forget drops what a client wrote of the segments: the rows tell.
func (n *Network) forget() {
	n.NetworkType, n.PhysicalNetwork, n.SegmentationID, n.MultiSegments = nil, nil, nil, nil
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil { // strings and numbers always marshal
		return nil
	}
	return b
}

// SharedFor tells whether an access_as_shared entry opens the network to a project.
func (n *Network) SharedFor(project string) bool {
	for _, p := range n.SharedWith {
		if p == "*" || p == project {
			return true
		}
	}
	return false
}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
	enforce = resource.EnforcePolicy
)

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "network", Collection: "networks", Path: "networks", NativePaging: true,
		Standard: true, Taggable: true, Quota: "network",
		NotFound: "NetworkNotFound", NotFoundText: "Network %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "subnets", Flags: visible, Type: "list<string>"},
		resource.Attribute{Name: "admin_state_up", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "status", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "shared", Flags: post | put | visible | policy | enforce | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		// net-mtu, net-mtu-writable
		resource.Attribute{Name: "mtu", Flags: post | put | visible | enforce | filter | sortKey, Default: int64(0), Convert: "convert_to_int", Validate: resource.Rules{"type:non_negative": nil}, Type: "int"},
		// external-net
		resource.Attribute{Name: "router:external", Flags: post | put | visible | policy | enforce | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "is_default", Flags: post | put | visible | policy | enforce | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		// provider, multi-provider
		resource.Attribute{Name: "provider:network_type", Flags: post | put | visible | enforce | filter, Default: resource.Unspecified, Validate: resource.Rules{"type:string": 32}, Type: "string"},
		resource.Attribute{Name: "provider:physical_network", Flags: post | put | visible | enforce | filter, Default: resource.Unspecified, Validate: resource.Rules{"type:string": 64}, Type: "string|null"},
		resource.Attribute{Name: "provider:segmentation_id", Flags: post | put | visible | enforce | filter, Default: resource.Unspecified, Convert: "convert_to_int", Type: "int|null"},
		resource.Attribute{Name: "segments", Flags: post | put | visible | enforce, Default: resource.Unspecified, ConvertList: "convert_kvp_list_to_dict", Validate: resource.Rules{"type:network_segments": nil}, Type: "list<object>"},
		// port-security
		resource.Attribute{Name: "port_security_enabled", Flags: post | put | visible | enforce, Default: true, Convert: "convert_to_boolean", Type: "bool"},
	)
	r.Add(resource.StandardAttributes(true)...)
	return r
}
