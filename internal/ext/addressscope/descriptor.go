// Package addressscope is the address-scope extension: routing domains in which
// subnet pools do not overlap.
//
// It must not know how pools are kept (core/subnet says what they are), nor how
// hosts route.
package addressscope

import (
	"isospin/internal/core"
	"isospin/internal/core/rbac"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	// After the subnet pools, to which it adds an attribute.
	ext.Register(ext.Module{Name: "addressscope", Schemas: []store.Schema{schema}, Install: install, After: []string{"subnetpool"}})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{Alias: "address-scope", Name: "Address scope", Description: "Address scopes extension.", Updated: "2015-07-26T10:00:00-00:00"})
	c.Registry.Named("subnetpool").Add(resource.Attribute{
		Name: "address_scope_id", Flags: post | put | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null",
	})
	c.Networks.Resource.Add(
		resource.Attribute{Name: "ipv4_address_scope", Flags: visible, Type: "string|null"},
		resource.Attribute{Name: "ipv6_address_scope", Flags: visible, Type: "string|null"},
	)
	s := newService(c)
	core.Add(c, s.Collection)
	c.Subnets.BeforePool = append(c.Subnets.BeforePool, s.checkPool)
	c.Networks.Fill = append(c.Networks.Fill, s.fillNetworks)
	c.RBAC.Register(rbac.Type{
		Name: "address_scope", Owner: s.owner, Changed: s.accessChanged, Uses: []rbac.Use{{Projects: s.users}},
	})
	c.RBAC.Check("subnetpool", s.checkPoolAccess)
	return nil
}

// Scope is an address scope.
type Scope struct {
	resource.Standard
	Name      string `json:"name" db:"name"`
	IPVersion int    `json:"ip_version" db:"ip_version"`
	// Shared with all projects; in answers, with the caller's.
	Shared bool `json:"shared" db:"shared"`

	// SharedWith are the projects ("*": all) with access_as_shared.
	SharedWith []string `json:"shared_with,omitempty"`
}

var schema = store.Schema{Module: "ext/addressscope", Steps: [][]string{{
	// associations is what transactions that change the scope's prefixes are in
	// each other's way with.
	`CREATE TABLE address_scope (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, ip_version INTEGER NOT NULL, shared BOOLEAN NOT NULL,
		associations BIGINT NOT NULL DEFAULT 0)`,
	`CREATE INDEX address_scope_project ON address_scope (project_id)`,
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

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "address_scope", Collection: "address_scopes", Path: "address-scopes", Older: true,
		NotFound: "AddressScopeNotFound", NotFoundText: "Address scope %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "shared", Flags: post | put | visible | policy | enforce | filter | sortKey, Unsortable: resource.NoColumn("address_scopes", "shared"), Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "ip_version", Flags: post | visible | filter | sortKey, Required: true, Convert: "convert_to_int", Validate: resource.Rules{"type:values": []any{int64(4), int64(6)}}, Type: "int"},
	)
}
