// Package localip is the local_ip extension: addresses that each host keeps to
// itself. Guests of a host reach one of the associated ports of that host under
// them, and nobody else does.
//
// It must not know how hosts translate.
package localip

import (
	"net/netip"

	"github.com/google/uuid"

	"isospin/internal/core"
	"isospin/internal/core/port"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "localip", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "local_ip", Name: "Local IP", Description: "Virtual IP address local to each physical node", Updated: "2021-07-26T10:00:00-00:00",
	})
	s := newService(c)
	core.Add(c, s.addresses)
	core.Add(c, s.associations)
	s.hook()
	return nil
}

// LocalIP is an address that hosts keep to themselves. Only IPv4 is served.
type LocalIP struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// LocalPortID is the port that holds the address.
	LocalPortID    string     `json:"local_port_id" db:"local_port_id"`
	NetworkID      string     `json:"network_id" db:"network_id"`
	LocalIPAddress netip.Addr `json:"local_ip_address" db:"local_ip_address"`
	// IPMode is translate, or passthrough: the guest itself has the address.
	IPMode string `json:"ip_mode" db:"ip_mode"`
}

// Association is a port that guests of its host reach under a local IP.
type Association struct {
	resource.Standard
	LocalIPID      string     `json:"local_ip_id" db:"local_ip_id"`
	LocalIPAddress netip.Addr `json:"local_ip_address" db:"local_ip_address"`
	FixedPortID    string     `json:"fixed_port_id" db:"fixed_port_id"`
	FixedIP        netip.Addr `json:"fixed_ip" db:"fixed_ip"`
	// Host of the port; it follows the port.
	Host string `json:"host" db:"host"`
}

// ownerLocalIP is the device_owner of ports that are made for local IPs.
const ownerLocalIP = "network:local_ip"

// associationID is the same for the same local IP and port: a port is
// associated once, and found by its own id.
func associationID(localIPID, portID string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(localIPID+"/"+portID)).String()
}

// localIPs of a port are kept with it, for its host.
var localIPs = resource.NewSlot[[]port.LocalIP](port.LocalIPs)

var schema = store.Schema{Module: "ext/localip", Steps: [][]string{{
	`CREATE TABLE local_ip (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, local_port_id VARCHAR(36) NOT NULL REFERENCES port (id), network_id VARCHAR(36) NOT NULL,
		local_ip_address VARCHAR(64) NOT NULL, ip_mode VARCHAR(32) NOT NULL)`,
	`CREATE INDEX local_ip_project ON local_ip (project_id)`,
	`CREATE INDEX local_ip_port ON local_ip (local_port_id)`,
	`CREATE TABLE local_ip_association (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		local_ip_id VARCHAR(36) NOT NULL REFERENCES local_ip (id), local_ip_address VARCHAR(64) NOT NULL,
		fixed_port_id VARCHAR(36) NOT NULL REFERENCES port (id), fixed_ip VARCHAR(64) NOT NULL, host VARCHAR(255) NOT NULL,
		UNIQUE (local_ip_id, fixed_port_id))`,
	`CREATE INDEX local_ip_association_port ON local_ip_association (fixed_port_id)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
)

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "local_ip", Collection: "local_ips", Path: "local-ips", Older: true, Standard: true,
		NotFound: "LocalIPNotFound", NotFoundText: "Local IP %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "local_port_id", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "network_id", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "local_ip_address", Flags: post | visible | resource.EnforcePolicy | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "ip_mode", Flags: post | visible | filter | sortKey, Default: "translate", Validate: resource.Rules{"type:values": []any{"translate", "passthrough"}}, Type: "string"},
	)
	for _, a := range resource.StandardAttributes(false) {
		if a.Name == "description" { // longer than that of others, and in sort keys
			a.Flags |= sortKey
			a.Validate = resource.Rules{"type:string": int64(1024)}
		}
		r.Add(a)
	}
	return r
}

func newAssociationResource(parent *resource.Resource) *resource.Resource {
	r := &resource.Resource{
		Name: "port_association", Collection: "port_associations", Path: "port_associations", Parent: parent, Older: true,
		Only:     []resource.Operation{resource.Show, resource.List, resource.Create, resource.Delete},
		Key:      &resource.Key{Attribute: "fixed_port_id", ID: associationID},
		NotFound: "LocalIPAssociationNotFound", NotFoundText: "Local IP association with port %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "local_ip_id", Flags: visible, Type: "string"},
		resource.Attribute{Name: "local_ip_address", Flags: visible | filter | sortKey, Unsortable: resource.NoColumn("local_ip_associations", "local_ip_address"), Unfilterable: resource.NoField("local_ip_address"), Type: "string"},
		resource.Attribute{Name: "fixed_port_id", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "fixed_ip", Flags: post | visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "host", Flags: visible | filter | sortKey, Unsortable: resource.NoColumn("local_ip_associations", "host"), Unfilterable: resource.NoField("host"), Type: "string|null"},
		resource.Attribute{Name: "tenant_id", Flags: post | policy, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
	)
}
