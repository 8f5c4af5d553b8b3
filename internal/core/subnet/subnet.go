// Package subnet is the subnets resource: CIDRs, gateways, allocation pools,
// DHCP and IPv6 modes.
//
// It must not know ports (they hook into creation and deletion) or HTTP.
package subnet

import (
	"net/netip"
	"slices"

	"isospin/internal/core/ipam"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Subnet is a range of addresses of a network.
type Subnet struct {
	resource.Standard
	Name            string       `json:"name" db:"name"`
	NetworkID       string       `json:"network_id" db:"network_id"`
	IPVersion       int          `json:"ip_version" db:"ip_version"`
	CIDR            netip.Prefix `json:"cidr" db:"cidr"`
	GatewayIP       netip.Addr   `json:"gateway_ip" db:"gateway_ip"`
	EnableDHCP      bool         `json:"enable_dhcp" db:"enable_dhcp"`
	IPv6RAMode      *string      `json:"ipv6_ra_mode" db:"ipv6_ra_mode"`
	IPv6AddressMode *string      `json:"ipv6_address_mode" db:"ipv6_address_mode"`
	SubnetPoolID    *string      `json:"subnetpool_id" db:"subnetpool_id"`
	AllocationPools []ipam.Pool  `json:"allocation_pools" db:"allocation_pools,json"`
	DNSNameservers  []string     `json:"dns_nameservers" db:"dns_nameservers,json"`
	HostRoutes      []Route      `json:"host_routes" db:"host_routes,json"`
	// ServiceTypes are the device owners of the ports that get addresses of the
	// subnet on their own account; none: all that no other subnet is for.
	ServiceTypes []string `json:"service_types" db:"service_types,json"`
	// SegmentID is the segment of the network whose ports have the subnet's
	// addresses; nil: all of them.
	SegmentID *string `json:"segment_id" db:"segment_id"`

	// External: of an external network.
	External bool `json:"router:external"`

	Slots resource.Slots `json:"slots,omitempty" db:"slots,json"`
}

// Route is a static route that DHCP hands out.
type Route struct {
	Destination string `json:"destination"`
	NextHop     string `json:"nexthop"`
}

// OnSegment tells whether the subnet's addresses are for ports of that segment.
func (s *Subnet) OnSegment(id string) bool { return s.SegmentID == nil || *s.SegmentID == id }

// For tells whether ports of that device owner get addresses of the subnet.
func (s *Subnet) For(deviceOwner string) bool {
	return len(s.ServiceTypes) == 0 || slices.Contains(s.ServiceTypes, deviceOwner)
}

// AutoAddress tells whether ports make their own address in the subnet
// (SLAAC), DHCP giving none.
func (s *Subnet) AutoAddress() bool {
	return auto(s.IPv6AddressMode) || auto(s.IPv6RAMode)
}

func auto(mode *string) bool {
	return mode != nil && (*mode == "slaac" || *mode == "dhcpv6-stateless")
}

// Schema of the package's tables.
var Schema = store.Schema{Module: "core/subnet", Steps: [][]string{{
	`CREATE TABLE subnet (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, network_id VARCHAR(36) NOT NULL REFERENCES network (id),
		ip_version INTEGER NOT NULL, cidr VARCHAR(64) NOT NULL, gateway_ip VARCHAR(64), enable_dhcp BOOLEAN NOT NULL,
		ipv6_ra_mode VARCHAR(32), ipv6_address_mode VARCHAR(32), subnetpool_id VARCHAR(36),
		allocation_pools TEXT NOT NULL, dns_nameservers TEXT NOT NULL, host_routes TEXT NOT NULL, slots TEXT NOT NULL,
		UNIQUE (network_id, cidr))`,
	`CREATE INDEX subnet_project ON subnet (project_id)`,
}, {
	// What is allocated from a pool is read from the index alone.
	`CREATE INDEX subnet_subnetpool ON subnet (subnetpool_id, cidr, project_id)`,
}, {
	`ALTER TABLE subnet ADD COLUMN service_types TEXT`,
}, {
	`ALTER TABLE subnet ADD COLUMN segment_id VARCHAR(36) REFERENCES network_segment (id)`,
	`CREATE INDEX subnet_segment ON subnet (segment_id)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
)

var modes = []any{"dhcpv6-stateful", "dhcpv6-stateless", "slaac"}

func newResource(external bool) *resource.Resource {
	r := &resource.Resource{
		Name: "subnet", Collection: "subnets", Path: "subnets", NativePaging: true,
		Standard: true, Taggable: true, Quota: "subnet",
		NotFound: "SubnetNotFound", NotFoundText: "Subnet %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "ip_version", Flags: post | visible | filter | sortKey, Required: true, Convert: "convert_to_int", Validate: resource.Rules{"type:values": []any{int64(4), int64(6)}}, Type: "int"},
		resource.Attribute{Name: "network_id", Flags: post | visible | resource.RequiredByPolicy | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "subnetpool_id", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:subnetpool_id_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "prefixlen", Flags: post, Default: resource.Unspecified, Convert: "convert_to_int", Validate: resource.Rules{"type:non_negative": nil}, Type: "int"},
		resource.Attribute{Name: "cidr", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Convert: "convert_cidr_to_canonical_format", Validate: resource.Rules{"type:subnet_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "gateway_ip", Flags: post | put | visible | filter | sortKey, Default: resource.Unspecified, Convert: "convert_ip_to_canonical_format", Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "allocation_pools", Flags: post | put | visible, Default: resource.Unspecified, Convert: "convert_allocation_pools_to_canonical_format", Validate: resource.Rules{"type:ip_pools": nil}, Type: "list<object>"},
		resource.Attribute{Name: "dns_nameservers", Flags: post | put | visible, Default: resource.Unspecified, Convert: "convert_none_to_empty_list", Validate: resource.Rules{"type:nameservers": nil}, Type: "list<string>"},
		resource.Attribute{Name: "host_routes", Flags: post | put | visible, Default: resource.Unspecified, Convert: "convert_none_to_empty_list", Validate: resource.Rules{"type:hostroutes": nil}, Type: "list<object>"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | resource.RequiredByPolicy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		// Never shown, but lists are filtered by it: that of the network.
		resource.Attribute{Name: "shared", Flags: resource.RequiredByPolicy | resource.EnforcePolicy | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		// subnet-service-types
		resource.Attribute{Name: "service_types", Flags: post | put | visible, Default: resource.Unspecified, Validate: resource.Rules{"type:list_of_subnet_service_types": nil}, Type: "list<string>"},
		resource.Attribute{Name: "enable_dhcp", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "ipv6_ra_mode", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:values": modes}, Type: "string|null"},
		resource.Attribute{Name: "ipv6_address_mode", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:values": modes}, Type: "string|null"},
	)
	if external {
		r.Add(resource.Attribute{Name: "router:external", Flags: visible | resource.RequiredByPolicy | resource.EnforcePolicy | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"})
	}
	r.Add(resource.StandardAttributes(true)...)
	return r
}
