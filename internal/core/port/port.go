// Package port is the ports resource: addresses, MACs, port security settings,
// binding to hosts and status.
//
// It must not know routers, security groups or hosts' software: extensions
// hook in, mechanism drivers bind.
package port

import (
	"encoding/json"
	"net/netip"
	"strings"

	"isospin/internal/core/network"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Device owners that Neutron knows.
const (
	OwnerDHCP            = "network:dhcp"
	OwnerRouterInterface = "network:router_interface"
	OwnerRouterGateway   = "network:router_gateway"
	OwnerFloatingIP      = "network:floatingip"
	OwnerDistributed     = "network:distributed"
	OwnerAgentGateway    = "network:floatingip_agent_gateway"
)

// VIF types of a port that no driver has bound.
const (
	VIFUnbound       = "unbound"
	VIFBindingFailed = "binding_failed"
)

// Statuses.
const (
	StatusActive = "ACTIVE"
	StatusDown   = "DOWN"
	StatusBuild  = "BUILD"
	StatusError  = "ERROR"
	StatusNone   = "N/A"
)

// Port is an attachment point of a network.
type Port struct {
	resource.Standard
	Name                string        `json:"name" db:"name"`
	NetworkID           string        `json:"network_id" db:"network_id"`
	MACAddress          string        `json:"mac_address" db:"mac_address"`
	AdminStateUp        bool          `json:"admin_state_up" db:"admin_state_up"`
	Status              string        `json:"status" db:"status"`
	DeviceID            string        `json:"device_id" db:"device_id"`
	DeviceOwner         string        `json:"device_owner" db:"device_owner"`
	PortSecurityEnabled bool          `json:"port_security_enabled" db:"port_security_enabled"`
	AllowedAddressPairs []AddressPair `json:"allowed_address_pairs" db:"allowed_address_pairs,json"`
	ExtraDHCPOpts       []DHCPOption  `json:"extra_dhcp_opts" db:"extra_dhcp_opts,json"`

	HostID     string          `json:"binding:host_id" db:"host_id"`
	VNICType   string          `json:"binding:vnic_type" db:"vnic_type"`
	VIFType    string          `json:"binding:vif_type" db:"vif_type"`
	VIFDetails json.RawMessage `json:"binding:vif_details" db:"vif_details,json"`
	Profile    json.RawMessage `json:"binding:profile" db:"profile,json"`
	// SegmentID is the segment that the binding uses; empty when unbound.
	SegmentID string `json:"segment_id" db:"segment_id"`
	// IPAllocation is AllocationImmediate, AllocationDeferred or AllocationNone.
	IPAllocation string `json:"ip_allocation" db:"ip_allocation"`
	// segment that the next binding must use; empty: any.
	segment string
	// parent is the network, if it has been read.
	parent *network.Network

	// Generation counts changes of what the host must know; BindingGeneration
	// is its value when the present binding was made. Reports of hosts about
	// older ones are ignored.
	Generation        int64 `json:"generation" db:"generation"`
	BindingGeneration int64 `json:"binding_generation" db:"binding_generation"`
	// L2Ready, DHCPReady: the host has reported it for this binding.
	L2Ready   bool `json:"-" db:"l2_ready"`
	DHCPReady bool `json:"-" db:"dhcp_ready"`

	Slots resource.Slots `json:"slots,omitempty" db:"slots,json"`

	// NetworkQoSPolicyID is what QoS reads of the network along with the row; it is not stored.
	NetworkQoSPolicyID *string `json:"qos_network_policy_id"`

	// Child rows.
	FixedIPs       []FixedIP `json:"fixed_ips"`
	SecurityGroups []string  `json:"security_groups"`
}

// Share replaces texts that many ports have by equal ones that share gives.
func (p *Port) Share(share func(string) string) {
	for _, text := range []*string{
		&p.ProjectID, &p.Description, &p.CreatedAt, &p.UpdatedAt, &p.NetworkID, &p.Status, &p.DeviceOwner,
		&p.HostID, &p.VNICType, &p.VIFType, &p.SegmentID, &p.IPAllocation,
	} {
		*text = share(*text)
	}
	for i := range p.FixedIPs {
		p.FixedIPs[i].SubnetID = share(p.FixedIPs[i].SubnetID)
	}
	for i := range p.SecurityGroups {
		p.SecurityGroups[i] = share(p.SecurityGroups[i])
	}
}

// FixedIP is one address of a port.
type FixedIP struct {
	SubnetID  string     `json:"subnet_id"`
	IPAddress netip.Addr `json:"ip_address"`
}

// AppendJSON implements resource.Appender.
func (f FixedIP) AppendJSON(b []byte) []byte {
	b = resource.AppendString(append(b, `{"subnet_id":`...), f.SubnetID)
	b, _ = f.IPAddress.AppendText(append(b, `,"ip_address":"`...)) // it has no error
	return append(b, `"}`...)
}

// AddressPair is a further address that the port may use.
type AddressPair struct {
	MACAddress string `json:"mac_address"`
	IPAddress  string `json:"ip_address"`
}

// DHCPOption is an option that DHCP hands to the port.
type DHCPOption struct {
	OptName   string `json:"opt_name"`
	OptValue  string `json:"opt_value"`
	IPVersion int    `json:"ip_version"`
}

// Bound tells whether a driver has bound the port to a host.
func (p *Port) Bound() bool {
	return p.HostID != "" && p.VIFType != VIFUnbound && p.VIFType != VIFBindingFailed
}

// DHCPDevice is the device_id of a network's own DHCP port.
func DHCPDevice(networkID string) string { return "dhcp-" + networkID }

// DHCP tells whether the port is its network's own DHCP port, which is on
// every host. Others with that owner are somebody else's servers: plain ports.
func (p *Port) DHCP() bool {
	return p.DeviceOwner == OwnerDHCP && p.DeviceID == DHCPDevice(p.NetworkID)
}

// Service tells whether the port serves the network itself: routers, DHCP, floating IPs.
func (p *Port) Service() bool { return strings.HasPrefix(p.DeviceOwner, "network:") }

func routerOwner(owner string) bool {
	switch owner {
	case OwnerRouterInterface, "network:router_interface_distributed", "network:ha_router_replicated_interface", "network:router_centralized_snat":
		return true
	}
	return false
}

// Schema of the package's tables.
var Schema = store.Schema{Module: "core/port", Steps: [][]string{{
	`CREATE TABLE port (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, network_id VARCHAR(36) NOT NULL REFERENCES network (id), mac_address VARCHAR(32) NOT NULL,
		admin_state_up BOOLEAN NOT NULL, status VARCHAR(16) NOT NULL, device_id VARCHAR(255) NOT NULL, device_owner VARCHAR(255) NOT NULL,
		port_security_enabled BOOLEAN NOT NULL, allowed_address_pairs TEXT NOT NULL, extra_dhcp_opts TEXT NOT NULL,
		host_id VARCHAR(255) NOT NULL, vnic_type VARCHAR(64) NOT NULL, vif_type VARCHAR(64) NOT NULL, vif_details TEXT NOT NULL,
		profile TEXT NOT NULL, segment_id VARCHAR(36) NOT NULL, generation BIGINT NOT NULL, binding_generation BIGINT NOT NULL,
		l2_ready BOOLEAN NOT NULL, dhcp_ready BOOLEAN NOT NULL, slots TEXT NOT NULL)`,
	`CREATE UNIQUE INDEX port_mac ON port (network_id, mac_address)`,
	`CREATE INDEX port_project ON port (project_id)`,
	`CREATE INDEX port_device ON port (device_id)`,
	`CREATE INDEX port_host ON port (host_id)`,
	`CREATE INDEX port_owner ON port (network_id, device_owner)`,
	`CREATE TABLE ip_allocation (
		subnet_id VARCHAR(36) NOT NULL REFERENCES subnet (id), ip_address VARCHAR(64) NOT NULL,
		port_id VARCHAR(36) NOT NULL REFERENCES port (id) ON DELETE CASCADE, position INTEGER NOT NULL,
		PRIMARY KEY (subnet_id, ip_address))`,
	`CREATE INDEX ip_allocation_port ON ip_allocation (port_id, position)`, // in the order in which lists read it
	`CREATE INDEX ip_allocation_address ON ip_allocation (ip_address)`,
	`CREATE TABLE port_security_group (
		port_id VARCHAR(36) NOT NULL REFERENCES port (id) ON DELETE CASCADE, security_group_id VARCHAR(36) NOT NULL,
		PRIMARY KEY (port_id, security_group_id))`,
	`CREATE INDEX port_security_group_group ON port_security_group (security_group_id)`,
}, {
	`ALTER TABLE port ADD COLUMN ip_allocation VARCHAR(16) NOT NULL DEFAULT 'immediate'`,
}, hostBindingTables}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
	enforce = resource.EnforcePolicy
)

var vnicTypes = []any{"normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa", "accelerator-direct", "accelerator-direct-physical", "remote-managed"}

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "port", Collection: "ports", Path: "ports", NativePaging: true,
		Standard: true, Taggable: true, Quota: "port",
		NotFound: "PortNotFound", NotFoundText: "Port %s could not be found.",
	}
	dhcpOptions := func(names resource.Rules, value string) map[string]any {
		names["required"] = true
		return map[string]any{
			"opt_name":   map[string]any(names),
			"opt_value":  map[string]any{value: int64(255), "required": true},
			"ip_version": map[string]any{"convert_to": "convert_to_int", "type:values": []any{int64(4), int64(6)}, "required": false},
		}
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "network_id", Flags: post | visible | policy | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "admin_state_up", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "mac_address", Flags: post | put | visible | enforce | filter | sortKey, Default: resource.Unspecified, Convert: "convert_to_mac_if_none", Validate: resource.Rules{"type:mac_address": nil}, Type: "string"},
		resource.Attribute{Name: "fixed_ips", Flags: post | put | visible | enforce | filter, Default: resource.Unspecified, ConvertList: "convert_kvp_list_to_dict", Validate: resource.Rules{"type:fixed_ips": nil}, Type: "list<object>"},
		resource.Attribute{Name: "device_id", Flags: post | put | visible | enforce | filter | sortKey, Default: "", Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "device_owner", Flags: post | put | visible | enforce | filter | sortKey, Default: "", Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "status", Flags: visible | filter | sortKey, Type: "string"},
		// binding
		resource.Attribute{Name: "binding:vif_type", Flags: visible | enforce, Type: "string"},
		resource.Attribute{Name: "binding:vif_details", Flags: visible | enforce, Type: "object"},
		resource.Attribute{Name: "binding:vnic_type", Flags: post | put | visible | enforce, Default: "normal", Validate: resource.Rules{"type:values": vnicTypes}, Type: "string"},
		resource.Attribute{Name: "binding:host_id", Flags: post | put | visible | enforce | filter, Default: resource.Unspecified, Type: "string"},
		resource.Attribute{Name: "binding:profile", Flags: post | put | visible | enforce, Default: resource.Unspecified, Validate: resource.Rules{"type:dict_or_none": nil}, Type: "object|null"},
		// port-security
		resource.Attribute{Name: "port_security_enabled", Flags: post | put | visible | enforce, Default: resource.Unspecified, Convert: "convert_to_boolean", Type: "bool"},
		// allowed-address-pairs
		resource.Attribute{Name: "allowed_address_pairs", Flags: post | put | visible | enforce, Default: resource.Unspecified, Convert: "convert_none_to_empty_list", ConvertList: "convert_kvp_list_to_dict", Validate: resource.Rules{"type:allowed_address_pairs": nil}, Type: "list<object>"},
		// extra_dhcp_opt
		resource.Attribute{Name: "extra_dhcp_opts", Flags: post | put | visible, Default: nil, Validate: resource.Rules{"type:list_of_any_key_specs_or_none": []any{
			dhcpOptions(resource.Rules{"type:values": []any{"router", "classless-static-route"}}, "type:string_or_none"),
			dhcpOptions(resource.Rules{"type:oneline_not_empty_string": int64(64)}, "type:oneline_not_empty_string_or_none"),
		}}, Type: "list<object>|null"},
	)
	standard := resource.StandardAttributes(true)
	for i := range standard {
		if standard[i].Name == "tags" { // tag_ports_during_bulk_creation
			standard[i] = resource.Attribute{Name: "tags", Flags: post | visible | filter, Default: []any{}, Validate: resource.Rules{"type:list_of_unique_strings": int64(255)}, Type: "list<string>"}
		}
	}
	r.Add(standard...)
	return r
}
