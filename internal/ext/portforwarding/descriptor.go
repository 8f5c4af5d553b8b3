// Package portforwarding is the extension family of port forwardings: ports, or
// ranges of them, of a floating IP that stand for those of fixed addresses.
//
// It must not know how hosts forward.
package portforwarding

import (
	"net/netip"

	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "portforwarding", Schemas: []store.Schema{schema}, Install: install, After: []string{"router"}})
}

func install(c *core.Core, f *feed.Hub) error {
	e := func(alias, name, description, updated string, requires ...string) resource.Extension {
		return resource.Extension{Alias: alias, Name: name, Description: description, Updated: updated, Requires: requires}
	}
	c.Registry.AddExtension(
		e("floating-ip-port-forwarding", "Floating IP Port Forwarding", "Expose floating IP port forwarding", "2018-01-19T10:00:00-00:00", "router"),
		e("floating-ip-port-forwarding-description", "Floating IP Port Forwarding new attribute description", "Add a description field to Port Forwarding rules", "2019-11-01T10:00:00-00:00", "floating-ip-port-forwarding"),
		e("floating-ip-port-forwarding-detail", "Floating IP port forwarding detail", "Exposes the id and internal_port_id of the port forwardings of a floating IP", "2022-05-06T10:00:00-00:00"),
		e("floating-ip-port-forwarding-port-ranges", "Floating IP Port Forwarding support port ranges", "Allow to configure port forwardings of ranges of ports", "2020-07-01T10:00:00-00:00", "floating-ip-port-forwarding"),
		e("expose-port-forwarding-in-fip", "Expose Floating IP port forwardings", "Expose the port forwardings of a floating IP within it", "2018-06-28T16:00:00-00:00", "router", "floating-ip-port-forwarding"),
	)
	c.L3.FloatingIPResource().Add(resource.Attribute{Name: exposed, Flags: resource.Visible, Default: nil, Type: "list<object>|null"})
	s := newService(c)
	core.Add(c, s.Collection)
	s.hook()
	s.project(f)
	return nil
}

// exposed is the attribute of floating IPs that lists their forwardings.
const exposed = "port_forwardings"

// Forwarding sends what arrives for a port, or a range of ports, of a floating
// IP to those of a fixed address.
type Forwarding struct {
	resource.Standard
	FloatingIPID      string     `json:"floatingip_id" db:"floatingip_id"`
	Protocol          string     `json:"protocol" db:"protocol"`
	InternalPortID    string     `json:"internal_port_id" db:"internal_port_id"`
	InternalIPAddress netip.Addr `json:"internal_ip_address" db:"internal_ip_address"`
	// A single port is a range, too: "80:80". Neither: protocols without ports.
	ExternalPort      *int    `json:"external_port" db:"external_port"`
	ExternalPortRange *string `json:"external_port_range" db:"external_port_range"`
	InternalPort      *int    `json:"internal_port" db:"internal_port"`
	InternalPortRange *string `json:"internal_port_range" db:"internal_port_range"`
}

var schema = store.Schema{Module: "ext/portforwarding", Steps: [][]string{{
	`CREATE TABLE port_forwarding (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		floatingip_id VARCHAR(36) NOT NULL REFERENCES floatingip (id), protocol VARCHAR(40) NOT NULL,
		internal_port_id VARCHAR(36) NOT NULL REFERENCES port (id), internal_ip_address VARCHAR(64) NOT NULL,
		external_port INTEGER, external_port_range VARCHAR(16), internal_port INTEGER, internal_port_range VARCHAR(16))`,
	`CREATE INDEX port_forwarding_floatingip ON port_forwarding (floatingip_id)`,
	`CREATE INDEX port_forwarding_port ON port_forwarding (internal_port_id)`,
}}}

// unfilterable is the answer of a server that takes any filter ([DEFAULT]
// filter_validation) to lists that are filtered by an internal address or port.
func unfilterable(attribute string) error {
	return fault.New(fault.Invalid, "PortForwardingNotSupportFilterField", "Port Forwarding filter %s is not supported.", attribute)
}

func newResource(parent *resource.Resource) *resource.Resource {
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
		filter  = resource.Filter
		sortKey = resource.Sort
	)
	r := &resource.Resource{
		Name: "port_forwarding", Collection: "port_forwardings", Path: "port_forwardings", Parent: parent, Older: true,
		NotFound: "PortForwardingNotFound", NotFoundText: "Port Forwarding %s could not be found.",
	}
	number := resource.Rules{"type:range_or_none": []any{int64(1), int64(65535)}}
	ports := resource.Rules{"type:port_range": []any{int64(1), int64(65535)}}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | resource.RequiredByPolicy, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "external_port", Flags: post | put | visible | filter | sortKey, Unsortable: resource.NoColumn("portforwardings", "external_port"), Default: nil, Validate: number, Type: "int|null"},
		resource.Attribute{Name: "internal_port", Flags: post | put | visible, Unfilterable: unfilterable("internal_port"), Default: nil, Validate: number, Type: "int|null"},
		resource.Attribute{Name: "internal_ip_address", Flags: post | put | visible, Unfilterable: unfilterable("internal_ip_address"), Required: true, Validate: resource.Rules{"type:ip_address": nil}, Type: "string"},
		resource.Attribute{Name: "protocol", Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_protocol",
			Validate: resource.Rules{"type:values": []any{"dccp", "icmp", "ipv6-icmp", "sctp", "tcp", "udp"}}, Type: "string"},
		resource.Attribute{Name: "internal_port_id", Flags: post | put | visible | filter | sortKey, Unsortable: resource.NoColumn("portforwardings", "internal_port_id"), Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		// floating-ip-port-forwarding-description
		resource.Attribute{Name: "description", Flags: post | put | visible | filter, Default: "", Validate: resource.Rules{"type:string": int64(1024)}, Type: "string"},
		// floating-ip-port-forwarding-port-ranges
		resource.Attribute{Name: "external_port_range", Flags: post | put | visible | filter | sortKey, Unsortable: resource.NoColumn("portforwardings", "external_port_range"), Default: nil, Validate: ports, Type: "string|null"},
		resource.Attribute{Name: "internal_port_range", Flags: post | put | visible, Default: nil, Validate: ports, Type: "string|null"},
	)
}
