// Package subnetpool is the extension family of subnet pools: prefixes from
// which subnets are allocated, default pools, onboarding of subnets.
//
// It must not know address scopes (they hook into pools), nor what uses subnets.
package subnetpool

import (
	"encoding/json"
	"net/netip"
	"strconv"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/quota"
	"isospin/internal/core/rbac"
	"isospin/internal/core/subnet"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "subnetpool", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "subnet_allocation", Name: "Subnet Allocation", Description: "Enables allocation of subnets from a subnet pool", Updated: "2015-03-30T10:00:00-00:00"},
		resource.Extension{Alias: "default-subnetpools", Name: "Default Subnetpools", Description: "Provides ability to mark and use a subnetpool as the default.", Updated: "2016-02-18T18:00:00-00:00", Requires: []string{"subnet_allocation"}},
		resource.Extension{Alias: "subnet_onboard", Name: "Subnet Onboard", Description: "Provides support for onboarding subnets into subnet pools", Updated: "2018-12-18T09:00:00-00:00", Requires: []string{"subnet_allocation"}},
		resource.Extension{Alias: "subnetpool-prefix-ops", Name: "Subnet Pool Prefix Operations", Description: "Provides support for adjusting the prefix list of subnet pools", Updated: "2019-02-08T10:00:00-00:00", Requires: []string{"subnet_allocation"}},
	)
	c.Subnets.Resource.Add(resource.Attribute{Name: "use_default_subnetpool", Flags: resource.Post, Default: false, Convert: "convert_to_boolean", Type: "bool"})
	s := newService(c)
	c.Subnets.Pools = s
	c.Quotas.Register(quota.Limited{Resource: "subnetpool", Table: "subnetpool", Default: config.QuotaSubnetPool.Of(c.Config)})
	core.Add(c, s.Collection)
	c.RBAC.Register(rbac.Type{
		Name: "subnetpool", Owner: s.owner, Changed: s.accessChanged,
		Uses: []rbac.Use{{Projects: func(tx *store.Tx, id string) ([]string, error) {
			return rbac.Projects(tx, "SELECT DISTINCT project_id FROM subnet WHERE subnetpool_id = ?", id)
		}}},
	})
	return nil
}

// Pool is a subnet pool.
type Pool struct {
	resource.Standard
	Name      string `json:"name" db:"name"`
	IPVersion int    `json:"ip_version" db:"ip_version"`
	// Prefixes are compact: see ipam.Compact.
	Prefixes []netip.Prefix `json:"prefixes" db:"prefixes,json"`
	// Least and Most bound the length of allocated prefixes, Usual is what is
	// allocated when nobody asks for a length.
	Least int `json:"least_prefixlen" db:"min_prefixlen"`
	Most  int `json:"most_prefixlen" db:"max_prefixlen"`
	Usual int `json:"usual_prefixlen" db:"default_prefixlen"`
	// DefaultQuota limits what one project may allocate, in /32 or /64; nil and 0 are no limit.
	DefaultQuota *int `json:"default_quota" db:"default_quota"`
	IsDefault    bool `json:"is_default" db:"is_default"`
	// Shared with all projects; in answers, with the caller's.
	Shared bool `json:"shared" db:"shared"`
	// AddressScopeID is kept here, and looked after by the address scopes.
	AddressScopeID *string `json:"address_scope_id" db:"address_scope_id"`

	// SharedWith are the projects ("*": all) with access_as_shared.
	SharedWith []string `json:"shared_with,omitempty"`

	// What follows is only shown: strings, but in answers to updates.
	MinPrefixlen     json.RawMessage `json:"min_prefixlen,omitempty"`
	MaxPrefixlen     json.RawMessage `json:"max_prefixlen,omitempty"`
	DefaultPrefixlen json.RawMessage `json:"default_prefixlen,omitempty"`
}

// forget drops what a client wrote: the service reads it from the body.
func (p *Pool) forget() { p.MinPrefixlen, p.MaxPrefixlen, p.DefaultPrefixlen = nil, nil, nil }

// show fills in what is only shown, the lengths as Neutron has them: text, or
// numbers in answers to updates.
func (p *Pool) show(text bool) {
	form := func(n int) json.RawMessage {
		if text {
			return json.RawMessage(strconv.Quote(strconv.Itoa(n)))
		}
		return json.RawMessage(strconv.Itoa(n))
	}
	p.MinPrefixlen, p.MaxPrefixlen, p.DefaultPrefixlen = form(p.Least), form(p.Most), form(p.Usual)
}

// plain is what others must know of the pool.
func (p *Pool) plain() *subnet.Pool {
	n := &subnet.Pool{ID: p.ID, ProjectID: p.ProjectID, IPVersion: p.IPVersion, Prefixes: p.Prefixes, SharedWith: p.SharedWith}
	if p.AddressScopeID != nil {
		n.AddressScopeID = *p.AddressScopeID
	}
	return n
}

var schema = store.Schema{Module: "ext/subnetpool", Steps: [][]string{{
	// allocations is what transactions that allocate, or change the prefixes,
	// are in each other's way with.
	`CREATE TABLE subnetpool (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, ip_version INTEGER NOT NULL, prefixes TEXT NOT NULL,
		min_prefixlen INTEGER NOT NULL, max_prefixlen INTEGER NOT NULL, default_prefixlen INTEGER NOT NULL,
		default_quota BIGINT, is_default BOOLEAN NOT NULL, shared BOOLEAN NOT NULL, address_scope_id VARCHAR(36),
		allocations BIGINT NOT NULL DEFAULT 0)`,
	`CREATE INDEX subnetpool_project ON subnetpool (project_id)`,
	`CREATE INDEX subnetpool_address_scope ON subnetpool (address_scope_id)`,
	`CREATE UNIQUE INDEX subnetpool_default ON subnetpool (ip_version) WHERE is_default`,
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
	length := func(name, kind string) resource.Attribute {
		return resource.Attribute{Name: name, Flags: post | put | visible | filter | sortKey, Default: resource.Unspecified, Convert: "convert_to_int", Validate: resource.Rules{"type:non_negative": nil}, Type: kind}
	}
	r := &resource.Resource{
		Name: "subnetpool", Collection: "subnetpools", Path: "subnetpools", Older: true,
		Standard: true, Taggable: true, Quota: "subnetpool",
		NotFound: "SubnetPoolNotFound", NotFoundText: "Subnet pool %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:not_empty_name_string": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "prefixes", Flags: post | put | visible, Required: true, Validate: resource.Rules{"type:subnet_list": nil}, Type: "list<string>"},
		length("default_quota", "int|null"),
		resource.Attribute{Name: "ip_version", Flags: visible | filter | sortKey, Type: "int"},
		length("default_prefixlen", "int|string"),
		length("min_prefixlen", "int|string"),
		length("max_prefixlen", "int|string"),
		resource.Attribute{Name: "is_default", Flags: post | put | visible | policy | enforce | filter | sortKey, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "shared", Flags: post | visible | policy | enforce | filter | sortKey, Unsortable: resource.NoColumn("subnetpools", "shared"), Default: false, Convert: "convert_to_boolean", Type: "bool"},
	)
	return r.Add(resource.StandardAttributes(true)...)
}
