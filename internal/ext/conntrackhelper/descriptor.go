// Package conntrackhelper is the extension family of connection tracking
// helpers: which application protocols a router follows, and on which port.
//
// It must not know what the helpers of kernels do.
package conntrackhelper

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "conntrackhelper", Schemas: []store.Schema{schema}, Install: install, After: []string{"router"}})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "l3-conntrack-helper", Name: "L3 Conntrack helper", Description: "Management of CT target iptables rules for conntrack helper", Updated: "2019-04-04T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "expose-l3-conntrack-helper", Name: "Expose CT target rules for conntrack helper", Description: "Expose the conntrack helpers of a router within it", Updated: "2019-04-04T10:00:00-00:00", Requires: []string{"router", "l3-conntrack-helper"}},
	)
	c.L3.RouterResource().Add(resource.Attribute{Name: exposed, Flags: resource.Visible, Default: nil, Type: "list<object>|null"})
	s := newService(c)
	core.Add(c, s.Collection)
	c.L3.FillRouters = append(c.L3.FillRouters, s.fill)
	c.L3.BeforeRouterDelete = append(c.L3.BeforeRouterDelete, s.dropOf)
	s.project(f)
	return nil
}

// exposed is the attribute of routers that lists their helpers.
const exposed = "conntrack_helpers"

// Helper lets a router follow an application protocol on a port.
type Helper struct {
	resource.Standard
	RouterID string `json:"router_id" db:"router_id"`
	Protocol string `json:"protocol" db:"protocol"`
	Port     int    `json:"port" db:"port"`
	Helper   string `json:"helper" db:"helper"`
}

var schema = store.Schema{Module: "ext/conntrackhelper", Steps: [][]string{{
	`CREATE TABLE conntrack_helper (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		router_id VARCHAR(36) NOT NULL REFERENCES router (id), protocol VARCHAR(40) NOT NULL, port INTEGER NOT NULL, helper VARCHAR(64) NOT NULL,
		UNIQUE (router_id, protocol, port, helper))`,
}}}

func newResource(parent *resource.Resource) *resource.Resource {
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
		filter  = resource.Filter
		sortKey = resource.Sort
	)
	r := &resource.Resource{
		Name: "conntrack_helper", Collection: "conntrack_helpers", Path: "conntrack_helpers", Parent: parent, Older: true,
		NotFound: "ConntrackHelperNotFound", NotFoundText: "Conntrack Helper %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | resource.RequiredByPolicy, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "protocol", Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_protocol",
			Validate: resource.Rules{"type:values": []any{"dccp", "icmp", "ipv6-icmp", "sctp", "tcp", "udp"}}, Type: "string"},
		resource.Attribute{Name: "port", Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_int", Validate: resource.Rules{"type:range": []any{int64(1), int64(65535)}}, Type: "int"},
		resource.Attribute{Name: "helper", Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_string", Validate: resource.Rules{"type:string": int64(64)}, Type: "string"},
	)
}
