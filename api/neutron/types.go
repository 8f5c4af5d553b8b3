package neutron

import (
	"encoding/json"
	"time"
)

// Object is what most resources have in common.
type Object struct {
	ID             string     `json:"id,omitempty"`
	Name           string     `json:"name,omitempty"`
	Description    *string    `json:"description,omitempty"`
	ProjectID      string     `json:"project_id,omitempty"`
	TenantID       string     `json:"tenant_id,omitempty"` // the same as ProjectID, under its old name
	RevisionNumber int64      `json:"revision_number,omitempty"`
	CreatedAt      *time.Time `json:"created_at,omitempty"`
	UpdatedAt      *time.Time `json:"updated_at,omitempty"`
	Tags           []string   `json:"tags,omitempty"`
}

// Status values of networks, ports, routers and floating IPs.
const (
	StatusActive = "ACTIVE"
	StatusDown   = "DOWN"
	StatusBuild  = "BUILD"
	StatusError  = "ERROR"
)

// Network is an element of /v2.0/networks.
type Network struct {
	Object
	AdminStateUp        *bool            `json:"admin_state_up,omitempty"`
	Status              string           `json:"status,omitempty"`
	Shared              *bool            `json:"shared,omitempty"`
	External            *bool            `json:"router:external,omitempty"`
	IsDefault           *bool            `json:"is_default,omitempty"`
	MTU                 int              `json:"mtu,omitempty"`
	Subnets             []string         `json:"subnets,omitempty"`
	NetworkType         string           `json:"provider:network_type,omitempty"`
	PhysicalNetwork     *string          `json:"provider:physical_network,omitempty"`
	SegmentationID      *int             `json:"provider:segmentation_id,omitempty"`
	Segments            []NetworkSegment `json:"segments,omitempty"`
	PortSecurityEnabled *bool            `json:"port_security_enabled,omitempty"`
	VLANTransparent     *bool            `json:"vlan_transparent,omitempty"`
	QinQ                *bool            `json:"qinq,omitempty"`
	DNSDomain           *string          `json:"dns_domain,omitempty"`
	QoSPolicyID         *string          `json:"qos_policy_id,omitempty"`
	L2Adjacency         *bool            `json:"l2_adjacency,omitempty"`
	AvailabilityZones   []string         `json:"availability_zones,omitempty"`
	IPv4AddressScope    *string          `json:"ipv4_address_scope,omitempty"`
	IPv6AddressScope    *string          `json:"ipv6_address_scope,omitempty"`
}

// NetworkSegment is one of the segments of a multi-provider network.
type NetworkSegment struct {
	NetworkType     string  `json:"provider:network_type"`
	PhysicalNetwork *string `json:"provider:physical_network,omitempty"`
	SegmentationID  *int    `json:"provider:segmentation_id,omitempty"`
}

// Segment is an element of /v2.0/segments.
type Segment struct {
	Object
	NetworkID       string  `json:"network_id,omitempty"`
	NetworkType     string  `json:"network_type,omitempty"`
	PhysicalNetwork *string `json:"physical_network,omitempty"`
	SegmentationID  *int    `json:"segmentation_id,omitempty"`
}

// Subnet is an element of /v2.0/subnets.
type Subnet struct {
	Object
	NetworkID       string           `json:"network_id,omitempty"`
	CIDR            string           `json:"cidr,omitempty"`
	IPVersion       int              `json:"ip_version,omitempty"`
	GatewayIP       *string          `json:"gateway_ip,omitempty"` // in an answer, nil is no gateway
	EnableDHCP      *bool            `json:"enable_dhcp,omitempty"`
	AllocationPools []AllocationPool `json:"allocation_pools,omitempty"`
	DNSNameservers  []string         `json:"dns_nameservers,omitempty"`
	HostRoutes      []Route          `json:"host_routes,omitempty"`
	IPv6AddressMode *string          `json:"ipv6_address_mode,omitempty"`
	IPv6RAMode      *string          `json:"ipv6_ra_mode,omitempty"`
	SubnetPoolID    *string          `json:"subnetpool_id,omitempty"`
	PrefixLen       int              `json:"prefixlen,omitempty"`
	SegmentID       *string          `json:"segment_id,omitempty"`
	ServiceTypes    []string         `json:"service_types,omitempty"`
}

// AllocationPool is a range of addresses, both ends included.
type AllocationPool struct {
	Start string `json:"start"`
	End   string `json:"end"`
}

// Route is a host route of a subnet or a static route of a router.
type Route struct {
	Destination string `json:"destination"` // CIDR
	NextHop     string `json:"nexthop"`
}

// SubnetPool is an element of /v2.0/subnetpools.
type SubnetPool struct {
	Object
	Prefixes         []string `json:"prefixes,omitempty"`
	DefaultPrefixLen int      `json:"default_prefixlen,omitempty"`
	MinPrefixLen     int      `json:"min_prefixlen,omitempty"`
	MaxPrefixLen     int      `json:"max_prefixlen,omitempty"`
	DefaultQuota     *int     `json:"default_quota,omitempty"`
	IPVersion        int      `json:"ip_version,omitempty"`
	AddressScopeID   *string  `json:"address_scope_id,omitempty"`
	Shared           *bool    `json:"shared,omitempty"`
	IsDefault        *bool    `json:"is_default,omitempty"`
}

// AddressScope is an element of /v2.0/address-scopes.
type AddressScope struct {
	Object
	IPVersion int   `json:"ip_version,omitempty"`
	Shared    *bool `json:"shared,omitempty"`
}

// Port is an element of /v2.0/ports.
type Port struct {
	Object
	NetworkID           string            `json:"network_id,omitempty"`
	AdminStateUp        *bool             `json:"admin_state_up,omitempty"`
	Status              string            `json:"status,omitempty"`
	MACAddress          string            `json:"mac_address,omitempty"`
	FixedIPs            []FixedIP         `json:"fixed_ips,omitempty"`
	DeviceID            *string           `json:"device_id,omitempty"`
	DeviceOwner         *string           `json:"device_owner,omitempty"`
	SecurityGroups      *[]string         `json:"security_groups,omitempty"`
	PortSecurityEnabled *bool             `json:"port_security_enabled,omitempty"`
	AllowedAddressPairs *[]AddressPair    `json:"allowed_address_pairs,omitempty"`
	ExtraDHCPOpts       []ExtraDHCPOption `json:"extra_dhcp_opts,omitempty"`
	HostID              *string           `json:"binding:host_id,omitempty"`
	VNICType            string            `json:"binding:vnic_type,omitempty"`
	VIFType             string            `json:"binding:vif_type,omitempty"`
	VIFDetails          map[string]any    `json:"binding:vif_details,omitempty"`
	Profile             map[string]any    `json:"binding:profile,omitempty"`
	DNSName             *string           `json:"dns_name,omitempty"`
	DNSDomain           *string           `json:"dns_domain,omitempty"`
	DNSAssignment       []DNSAssignment   `json:"dns_assignment,omitempty"`
	QoSPolicyID         *string           `json:"qos_policy_id,omitempty"`
	IPAllocation        string            `json:"ip_allocation,omitempty"`
	ResourceRequest     json.RawMessage   `json:"resource_request,omitempty"`
	TrunkDetails        *TrunkDetails     `json:"trunk_details,omitempty"`
}

// FixedIP is an address of a port, or a wish for one.
type FixedIP struct {
	SubnetID  string `json:"subnet_id,omitempty"`
	IPAddress string `json:"ip_address,omitempty"`
}

// AddressPair is an address, or CIDR, that a port may use besides its own.
type AddressPair struct {
	IPAddress  string `json:"ip_address"`
	MACAddress string `json:"mac_address,omitempty"`
}

// ExtraDHCPOption is a DHCP option of one port. A nil Value deletes it.
type ExtraDHCPOption struct {
	Name      string  `json:"opt_name"`
	Value     *string `json:"opt_value"`
	IPVersion int     `json:"ip_version,omitempty"`
}

// DNSAssignment is a name that the internal DNS gives to an address of a port.
type DNSAssignment struct {
	Hostname  string `json:"hostname"`
	FQDN      string `json:"fqdn"`
	IPAddress string `json:"ip_address"`
}

// TrunkDetails tells of the trunk of which a port is the parent.
type TrunkDetails struct {
	TrunkID  string    `json:"trunk_id"`
	SubPorts []SubPort `json:"sub_ports"`
}

// SubPort is a port inside a trunk.
type SubPort struct {
	PortID           string `json:"port_id"`
	SegmentationType string `json:"segmentation_type,omitempty"`
	SegmentationID   int    `json:"segmentation_id,omitempty"`
	MACAddress       string `json:"mac_address,omitempty"`
}

// Trunk is an element of /v2.0/trunks.
type Trunk struct {
	Object
	AdminStateUp *bool     `json:"admin_state_up,omitempty"`
	Status       string    `json:"status,omitempty"`
	PortID       string    `json:"port_id,omitempty"`
	SubPorts     []SubPort `json:"sub_ports,omitempty"`
}

// Router is an element of /v2.0/routers.
type Router struct {
	Object
	AdminStateUp          *bool        `json:"admin_state_up,omitempty"`
	Status                string       `json:"status,omitempty"`
	ExternalGatewayInfo   *GatewayInfo `json:"external_gateway_info,omitempty"`
	Routes                *[]Route     `json:"routes,omitempty"`
	HA                    *bool        `json:"ha,omitempty"`
	Distributed           *bool        `json:"distributed,omitempty"`
	FlavorID              *string      `json:"flavor_id,omitempty"`
	AvailabilityZoneHints []string     `json:"availability_zone_hints,omitempty"`
	AvailabilityZones     []string     `json:"availability_zones,omitempty"`
}

// GatewayInfo is a router's external gateway.
type GatewayInfo struct {
	NetworkID        string    `json:"network_id"`
	EnableSNAT       *bool     `json:"enable_snat,omitempty"`
	ExternalFixedIPs []FixedIP `json:"external_fixed_ips,omitempty"`
	QoSPolicyID      *string   `json:"qos_policy_id,omitempty"`
}

// RouterInterface is the body and the answer of the router actions
// add_router_interface and remove_router_interface. A request has one of
// SubnetID and PortID.
type RouterInterface struct {
	ID        string   `json:"id,omitempty"` // of the router
	ProjectID string   `json:"project_id,omitempty"`
	NetworkID string   `json:"network_id,omitempty"`
	PortID    string   `json:"port_id,omitempty"`
	SubnetID  string   `json:"subnet_id,omitempty"`
	SubnetIDs []string `json:"subnet_ids,omitempty"`
}

// FloatingIP is an element of /v2.0/floatingips.
type FloatingIP struct {
	Object
	FloatingNetworkID string  `json:"floating_network_id,omitempty"`
	FloatingIPAddress string  `json:"floating_ip_address,omitempty"`
	PortID            *string `json:"port_id,omitempty"`
	FixedIPAddress    *string `json:"fixed_ip_address,omitempty"`
	RouterID          *string `json:"router_id,omitempty"`
	SubnetID          string  `json:"subnet_id,omitempty"` // in requests only
	Status            string  `json:"status,omitempty"`
	DNSName           *string `json:"dns_name,omitempty"`
	DNSDomain         *string `json:"dns_domain,omitempty"`
	QoSPolicyID       *string `json:"qos_policy_id,omitempty"`
}

// SecurityGroup is an element of /v2.0/security-groups.
type SecurityGroup struct {
	Object
	Stateful *bool               `json:"stateful,omitempty"`
	Shared   *bool               `json:"shared,omitempty"`
	Rules    []SecurityGroupRule `json:"security_group_rules,omitempty"`
}

// Directions and ethertypes of security group rules.
const (
	Ingress = "ingress"
	Egress  = "egress"
	IPv4    = "IPv4"
	IPv6    = "IPv6"
)

// SecurityGroupRule is an element of /v2.0/security-group-rules.
type SecurityGroupRule struct {
	Object
	SecurityGroupID      string  `json:"security_group_id,omitempty"`
	Direction            string  `json:"direction,omitempty"`
	Ethertype            string  `json:"ethertype,omitempty"`
	Protocol             *string `json:"protocol,omitempty"` // name or number; nil is any
	PortRangeMin         *int    `json:"port_range_min,omitempty"`
	PortRangeMax         *int    `json:"port_range_max,omitempty"`
	RemoteIPPrefix       *string `json:"remote_ip_prefix,omitempty"`
	RemoteGroupID        *string `json:"remote_group_id,omitempty"`
	RemoteAddressGroupID *string `json:"remote_address_group_id,omitempty"`
	NormalizedCIDR       *string `json:"normalized_cidr,omitempty"`
}

// AddressGroup is an element of /v2.0/address-groups.
type AddressGroup struct {
	Object
	Addresses []string `json:"addresses,omitempty"`
	Shared    *bool    `json:"shared,omitempty"`
}

// Agent is an element of /v2.0/agents.
type Agent struct {
	ID                 string         `json:"id,omitempty"`
	AgentType          string         `json:"agent_type,omitempty"`
	Binary             string         `json:"binary,omitempty"`
	Topic              string         `json:"topic,omitempty"`
	Host               string         `json:"host,omitempty"`
	AvailabilityZone   *string        `json:"availability_zone,omitempty"`
	AdminStateUp       *bool          `json:"admin_state_up,omitempty"`
	Alive              bool           `json:"alive,omitempty"`
	Description        *string        `json:"description,omitempty"`
	Configurations     map[string]any `json:"configurations,omitempty"`
	CreatedAt          string         `json:"created_at,omitempty"` // "2006-01-02 15:04:05", UTC
	StartedAt          string         `json:"started_at,omitempty"`
	HeartbeatTimestamp string         `json:"heartbeat_timestamp,omitempty"`
	ResourcesSynced    *bool          `json:"resources_synced,omitempty"`
}

// Quota is the limits of one project, by the name of the quota resource
// ("port", "security_group_rule"); -1 is no limit.
type Quota map[string]int

// Extension is an element of /v2.0/extensions.
type Extension struct {
	Alias       string `json:"alias"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Updated     string `json:"updated"`
}

// NetworkIPAvailability is an element of /v2.0/network-ip-availabilities.
type NetworkIPAvailability struct {
	NetworkID   string                 `json:"network_id"`
	NetworkName string                 `json:"network_name"`
	ProjectID   string                 `json:"project_id"`
	TotalIPs    json.Number            `json:"total_ips"`
	UsedIPs     json.Number            `json:"used_ips"`
	Subnets     []SubnetIPAvailability `json:"subnet_ip_availability"`
}

// SubnetIPAvailability is one subnet's part of a NetworkIPAvailability.
type SubnetIPAvailability struct {
	SubnetID   string      `json:"subnet_id"`
	SubnetName string      `json:"subnet_name"`
	CIDR       string      `json:"cidr"`
	IPVersion  int         `json:"ip_version"`
	TotalIPs   json.Number `json:"total_ips"`
	UsedIPs    json.Number `json:"used_ips"`
}

// Resource is a type whose collection is known.
type Resource interface {
	// Collection returns the path below /v2.0/ and the key of one element in
	// a body: "security-groups", "security_group". The key of a list is the
	// path with underscores.
	Collection() (path, member string)
}

func (Network) Collection() (string, string)       { return "networks", "network" }
func (Segment) Collection() (string, string)       { return "segments", "segment" }
func (Subnet) Collection() (string, string)        { return "subnets", "subnet" }
func (SubnetPool) Collection() (string, string)    { return "subnetpools", "subnetpool" }
func (AddressScope) Collection() (string, string)  { return "address-scopes", "address_scope" }
func (Port) Collection() (string, string)          { return "ports", "port" }
func (Trunk) Collection() (string, string)         { return "trunks", "trunk" }
func (Router) Collection() (string, string)        { return "routers", "router" }
func (FloatingIP) Collection() (string, string)    { return "floatingips", "floatingip" }
func (SecurityGroup) Collection() (string, string) { return "security-groups", "security_group" }
func (SecurityGroupRule) Collection() (string, string) {
	return "security-group-rules", "security_group_rule"
}
func (AddressGroup) Collection() (string, string) { return "address-groups", "address_group" }
func (Agent) Collection() (string, string)        { return "agents", "agent" }
func (Quota) Collection() (string, string)        { return "quotas", "quota" }
func (Extension) Collection() (string, string)    { return "extensions", "extension" }
func (NetworkIPAvailability) Collection() (string, string) {
	return "network-ip-availabilities", "network_ip_availability"
}
