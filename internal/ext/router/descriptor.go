// Package router is the extension family of routers and floating IPs: external
// gateways, interfaces, static routes, association of floating IPs, scheduling
// of routers to hosts, and what hosts must know of them.
//
// It must not know how hosts route.
package router

import (
	"net/netip"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/quota"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "router", After: []string{"flavor"}, Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "router", Name: "Neutron L3 Router", Description: "Router abstraction for basic L3 forwarding between L2 Neutron networks and access to external networks via a NAT gateway.", Updated: "2012-07-20T10:00:00-00:00"},
		resource.Extension{Alias: "ext-gw-mode", Name: "Neutron L3 Configurable external gateway mode", Description: "Extension of the router abstraction for specifying whether SNAT should occur on the external gateway", Updated: "2013-03-28T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "extraroute", Name: "Neutron Extra Route", Description: "Extra routes configuration for L3 router", Updated: "2013-02-01T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "fip-port-details", Name: "Floating IP Port Details Extension", Description: "Add port_details attribute to Floating IP resource", Updated: "2018-04-09T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "l3-port-ip-change-not-allowed", Name: "Prevent L3 router ports IP address change extension", Description: "Prevent change of IP address for some L3 router ports", Updated: "2018-10-09T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "router_availability_zone", Name: "Router Availability Zone", Description: "Availability zone support for router.", Updated: "2015-01-01T10:00:00-00:00", Requires: []string{"router", "availability_zone"}},
		resource.Extension{Alias: "l3_agent_scheduler", Name: "L3 Agent Scheduler", Description: "Schedule routers among l3 agents", Updated: "2013-02-07T10:00:00-00:00", Requires: []string{"agent", "router"}},
	)
	s := newService(c)
	s.extend()
	c.Quotas.Register(quota.Limited{Resource: "router", Table: "router", Default: config.QuotaRouter.Of(c.Config)})
	c.Quotas.Register(quota.Limited{Resource: "floatingip", Table: "floatingip", Default: config.QuotaFloatingIP.Of(c.Config)})
	// Counted for each router where routes are set.
	c.Quotas.Register(quota.Limited{Resource: "router_route", Default: config.QuotaRouterRoute.Of(c.Config)})
	core.Add(c, s.routers)
	core.Add(c, s.floating)
	s.hook()
	c.L3.Routers = shared{s}
	s.registerScheduling()
	s.followNetworks()
	c.Background = append(c.Background, s.failover)
	c.Registry.Add(s.newPools().Resource)
	s.project(f)
	return nil
}

// Router routes between the subnets of its interfaces, and to an external network.
type Router struct {
	resource.Standard
	Name         string `json:"name" db:"name"`
	AdminStateUp bool   `json:"admin_state_up" db:"admin_state_up"`
	Status       string `json:"status" db:"status"`
	// Distributed and HA are what administrators ask for; see docs/operate/routers.md.
	Distributed bool `json:"distributed" db:"distributed"`
	HA          bool `json:"ha" db:"ha"`
	// DefaultRouteECMP: the default routes of all gateways share the traffic.
	DefaultRouteECMP bool `json:"enable_default_route_ecmp" db:"enable_default_route_ecmp"`
	// DefaultRouteBFD: default routes go to neighbors that answer to BFD.
	DefaultRouteBFD bool `json:"enable_default_route_bfd" db:"enable_default_route_bfd"`
	// EVPNVNI is the VNI under which the router's networks are advertised, nil: none.
	EVPNVNI *int `json:"evpn_vni" db:"evpn_vni"`
	// FlavorID is the flavor by which the router was made.
	FlavorID *string `json:"flavor_id" db:"flavor_id"`
	// GatewayPortID is the port on the external network; with several gateways, the first one's.
	GatewayPortID *string `json:"gateway_port_id" db:"gateway_port_id"`
	EnableSNAT    bool    `json:"enable_snat" db:"enable_snat"`
	Routes        []Route `json:"routes" db:"routes,json"`
	// AvailabilityZoneHints are the zones of which the host may be; none: of any.
	AvailabilityZoneHints []string `json:"availability_zone_hints" db:"availability_zone_hints,json"`
	// Generation counts changes of what the host must know; Reported is the
	// newest one that the host has spoken of.
	Generation int64 `json:"generation" db:"generation"`
	Reported   int64 `json:"-" db:"reported_generation"`

	// Child rows.
	// ExternalGateway is the first of ExternalGateways.
	ExternalGateway  *Gateway        `json:"external_gateway_info"`
	ExternalGateways []ListedGateway `json:"external_gateways"`
	// GatewayPortIDs are the ports of ExternalGateways.
	GatewayPortIDs []string `json:"gateway_port_ids"`
	// HostID is the host that serves the router; empty: none does.
	HostID string `json:"host"`
	// AvailabilityZones are those of the host's L3 agent.
	AvailabilityZones []string `json:"availability_zones"`
	// PortIDs are its interfaces.
	PortIDs []string `json:"port_ids"`
	// Slots are attributes of other families, which keep them.
	Slots resource.Slots `json:"slots,omitempty"`
}

// Route is a static route.
type Route struct {
	Destination string `json:"destination"`
	NextHop     string `json:"nexthop"`
}

// Gateway is how a router reaches an external network.
type Gateway struct {
	NetworkID  string            `json:"network_id"`
	FixedIPs   []ExternalFixedIP `json:"external_fixed_ips"`
	EnableSNAT bool              `json:"enable_snat"`
	// QoSPolicyID limits the gateway's address; empty: none.
	QoSPolicyID string `json:"qos_policy_id,omitempty"`
}

// ListedGateway is one of a router's gateways.
type ListedGateway struct {
	NetworkID string            `json:"network_id"`
	FixedIPs  []ExternalFixedIP `json:"external_fixed_ips"`
}

// ExternalFixedIP is one address of a gateway.
type ExternalFixedIP struct {
	SubnetID  string     `json:"subnet_id"`
	IPAddress netip.Addr `json:"ip_address"`
}

// FloatingIP is an address of an external network that stands for one of a port.
type FloatingIP struct {
	resource.Standard
	FloatingNetworkID string     `json:"floating_network_id" db:"floating_network_id"`
	FloatingIPAddress netip.Addr `json:"floating_ip_address" db:"floating_ip_address"`
	// FloatingPortID is the hidden port that holds the address.
	FloatingPortID string     `json:"floating_port_id" db:"floating_port_id"`
	PortID         *string    `json:"port_id" db:"port_id"`
	FixedIPAddress netip.Addr `json:"fixed_ip_address" db:"fixed_ip_address"`
	RouterID       *string    `json:"router_id" db:"router_id"`
	Status         string     `json:"status" db:"status"`
	// RouterGeneration is the generation of the router with which the present
	// association began; reports of hosts about older ones say nothing of it.
	RouterGeneration int64 `json:"router_generation" db:"router_generation"`

	Slots resource.Slots `json:"slots,omitempty" db:"slots,json"`

	PortDetails *PortDetails `json:"port_details"`
}

// PortDetails is what a floating IP shows of its port.
type PortDetails struct {
	Name         string `json:"name"`
	NetworkID    string `json:"network_id"`
	MACAddress   string `json:"mac_address"`
	AdminStateUp bool   `json:"admin_state_up"`
	Status       string `json:"status"`
	DeviceID     string `json:"device_id"`
	DeviceOwner  string `json:"device_owner"`
}

// Statuses of floating IPs.
const (
	statusActive = "ACTIVE"
	statusDown   = "DOWN"
	statusError  = "ERROR"
)

var schema = store.Schema{Module: "ext/router", Steps: [][]string{{
	`CREATE TABLE router (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, admin_state_up BOOLEAN NOT NULL, status VARCHAR(16) NOT NULL,
		gateway_port_id VARCHAR(36) REFERENCES port (id), enable_snat BOOLEAN NOT NULL, routes TEXT NOT NULL,
		generation BIGINT NOT NULL, reported_generation BIGINT NOT NULL)`,
	`CREATE INDEX router_project ON router (project_id)`,
	`CREATE UNIQUE INDEX router_gateway ON router (gateway_port_id)`,
	// The interfaces. A port is at most one router's.
	`CREATE TABLE router_port (
		port_id VARCHAR(36) PRIMARY KEY REFERENCES port (id) ON DELETE CASCADE,
		router_id VARCHAR(36) NOT NULL REFERENCES router (id))`,
	`CREATE INDEX router_port_router ON router_port (router_id)`,
	// An empty host: the router waits for one.
	`CREATE TABLE router_binding (
		router_id VARCHAR(36) PRIMARY KEY REFERENCES router (id) ON DELETE CASCADE, host VARCHAR(255) NOT NULL)`,
	`CREATE INDEX router_binding_host ON router_binding (host)`,
	`CREATE TABLE floatingip (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		floating_network_id VARCHAR(36) NOT NULL REFERENCES network (id), floating_ip_address VARCHAR(64) NOT NULL,
		floating_port_id VARCHAR(36) NOT NULL UNIQUE REFERENCES port (id), port_id VARCHAR(36) REFERENCES port (id),
		fixed_ip_address VARCHAR(64), router_id VARCHAR(36) REFERENCES router (id), status VARCHAR(16) NOT NULL,
		router_generation BIGINT NOT NULL)`,
	`CREATE INDEX floatingip_project ON floatingip (project_id)`,
	`CREATE INDEX floatingip_router ON floatingip (router_id)`,
	`CREATE INDEX floatingip_address ON floatingip (floating_ip_address)`,
	// Which of two associations of one address wins.
	`CREATE UNIQUE INDEX floatingip_fixed ON floatingip (port_id, fixed_ip_address, floating_network_id)`,
}, {
	`ALTER TABLE router ADD COLUMN availability_zone_hints VARCHAR(255) NOT NULL DEFAULT ''`,
}, {
	`ALTER TABLE floatingip ADD COLUMN slots TEXT NOT NULL DEFAULT '{"dns_name": "", "dns_domain": ""}'`,
}, {
	`ALTER TABLE router ADD COLUMN distributed BOOLEAN NOT NULL DEFAULT FALSE`,
	`ALTER TABLE router ADD COLUMN ha BOOLEAN NOT NULL DEFAULT FALSE`,
	`ALTER TABLE router ADD COLUMN enable_default_route_ecmp BOOLEAN NOT NULL DEFAULT FALSE`,
	`ALTER TABLE router ADD COLUMN enable_default_route_bfd BOOLEAN NOT NULL DEFAULT FALSE`,
	`ALTER TABLE router ADD COLUMN flavor_id VARCHAR(36) REFERENCES flavor (id)`,
	// All gateways, that of router.gateway_port_id among them.
	`CREATE TABLE router_gateway_port (
		port_id VARCHAR(36) PRIMARY KEY REFERENCES port (id) ON DELETE CASCADE,
		router_id VARCHAR(36) NOT NULL REFERENCES router (id), position INTEGER NOT NULL)`,
	`CREATE INDEX router_gateway_port_router ON router_gateway_port (router_id)`,
	`INSERT INTO router_gateway_port (port_id, router_id, position) SELECT gateway_port_id, id, 0 FROM router WHERE gateway_port_id IS NOT NULL`,
	// The one HA network of a project. own: the server made it, and takes it away.
	`CREATE TABLE ha_network (
		project_id VARCHAR(255) PRIMARY KEY, network_id VARCHAR(36) UNIQUE REFERENCES network (id) ON DELETE CASCADE, own BOOLEAN NOT NULL)`,
}, {
	`ALTER TABLE router ADD COLUMN evpn_vni INTEGER`,
	`CREATE INDEX router_evpn_vni ON router (evpn_vni)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
	enforce = resource.EnforcePolicy
)

func (s *service) newRouterResource() *resource.Resource {
	r := &resource.Resource{
		Name: "router", Collection: "routers", Path: "routers", Older: true, NoBulk: true,
		Standard: true, Taggable: true, Quota: "router",
		NotFound: "RouterNotFound", NotFoundText: "Router %s could not be found",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "admin_state_up", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "status", Flags: visible | sortKey, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "external_gateway_info", Flags: post | put | visible | enforce, Default: nil, Validate: resource.Rules{"type:dict_or_nodata": map[string]any{
			"network_id":         map[string]any{"type:uuid": nil, "required": true},
			"external_fixed_ips": map[string]any{"type:fixed_ips": nil, "required": false},
			// ext-gw-mode
			"enable_snat": map[string]any{"type:boolean": nil, "required": false, "convert_to": "convert_to_boolean"},
			// qos-gateway-ip
			"qos_policy_id": map[string]any{"type:uuid_or_none": nil, "required": false},
		}}, Type: "object|null"},
		// router_availability_zone
		resource.Attribute{Name: "availability_zones", Flags: visible, Type: "list<string>"},
		resource.Attribute{Name: "availability_zone_hints", Flags: post | visible, Default: []any{}, Validate: resource.Rules{"type:availability_zone_hint_list": nil}, Type: "list<string>"},
		// extraroute
		resource.Attribute{Name: "routes", Flags: put | visible, Default: resource.Unspecified, Convert: "convert_none_to_empty_list", Validate: resource.Rules{"type:hostroutes": nil}, Type: "list<object>"},
	)
	r.Add(resource.StandardAttributes(true)...)
	r.Actions = []resource.Action{
		{Method: "PUT", Name: "add_router_interface", Do: s.addInterface},
		{Method: "PUT", Name: "remove_router_interface", Do: s.removeInterface},
	}
	return r
}

func newFloatingResource() *resource.Resource {
	r := &resource.Resource{
		Name: "floatingip", Collection: "floatingips", Path: "floatingips", Older: true, NoBulk: true,
		Standard: true, Taggable: true, Quota: "floatingip",
		NotFound: "FloatingIPNotFound", NotFoundText: "Floating IP %s could not be found",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "floating_ip_address", Flags: post | visible | enforce | filter | sortKey, Default: nil, Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "subnet_id", Flags: post, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "floating_network_id", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "router_id", Flags: visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "port_id", Flags: post | put | visible | policy | filter, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "fixed_ip_address", Flags: post | put | visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "status", Flags: visible | filter | sortKey, Type: "string"},
		// fip-port-details
		resource.Attribute{Name: "port_details", Flags: visible, Default: resource.Unspecified, Type: "object|null"},
	)
	return r.Add(resource.StandardAttributes(true)...)
}
