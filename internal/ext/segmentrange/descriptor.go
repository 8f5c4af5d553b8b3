// Package segmentrange is the network-segment-range extension: from which VLANs
// and tunnel ids networks get theirs, for everybody or for one project.
//
// It must not know how an id is taken from a range: segment type drivers do.
package segmentrange

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "segmentrange", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "network-segment-range", Name: "Neutron Network Segment Range", Description: "Provides support for the network segment range management",
		Updated: "2018-11-29T00:00:00-00:00", Requires: []string{"provider"},
	})
	s := newService(c)
	core.Add(c, s.Collection)
	s.Resource.Service = s
	c.Networks.Ranges = s.ranges
	ctx := identity.System(context.Background())
	return c.Store.Tx(ctx, func(tx *store.Tx) error { return s.keepDefaults(ctx, tx) })
}

// Range is a range of segmentation ids.
type Range struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// Default: it is of the configuration, for everybody, and nobody changes it.
	Default bool `json:"default" db:"is_default"`
	// Shared: it is for everybody, else for the networks of its project.
	Shared      bool   `json:"shared" db:"shared"`
	NetworkType string `json:"network_type" db:"network_type"`
	// PhysicalNetwork of VLANs; else empty.
	PhysicalNetwork string `json:"physical_network" db:"physical_network"`
	Minimum         int    `json:"minimum" db:"minimum"`
	Maximum         int    `json:"maximum" db:"maximum"`

	// What follows is only shown.

	// Owner is the project, null for everybody's ranges.
	Owner *string `json:"tenant_id"`
	// Used are the projects of the networks whose segments have the ids.
	Used map[int]string `json:"used"`
	// Available are the free ids, of large ranges only the first.
	Available []int `json:"available"`
}

// plain drops what is only shown, but the owner.
func (r *Range) plain() {
	r.Owner, r.Used, r.Available = nil, nil, nil
	if r.ProjectID != "" {
		owner := r.ProjectID
		r.Owner = &owner
	}
}

var schema = store.Schema{Module: "ext/segmentrange", Steps: [][]string{{
	`CREATE TABLE network_segment_range (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, is_default BOOLEAN NOT NULL, shared BOOLEAN NOT NULL, network_type VARCHAR(32) NOT NULL,
		physical_network VARCHAR(64) NOT NULL, minimum BIGINT NOT NULL, maximum BIGINT NOT NULL)`,
	`CREATE UNIQUE INDEX network_segment_range_span ON network_segment_range (network_type, physical_network, minimum, maximum, is_default)`,
	// Who changes the ranges of a type holds its row, so that no two overlap.
	`CREATE TABLE network_segment_range_type (network_type VARCHAR(32) PRIMARY KEY, changes BIGINT NOT NULL)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
)

func newResource() *resource.Resource {
	bounds := resource.Rules{"type:range": []any{int64(1), int64(4294967295)}}
	r := &resource.Resource{
		Name: "network_segment_range", Collection: "network_segment_ranges", Path: "network-segment-ranges", NativePaging: true,
		Standard: true, Taggable: true, Aside: []string{"used", "available"},
		NotFound: "NetworkSegmentRangeNotFound", NotFoundText: "Network Segment Range %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "default", Flags: visible, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "shared", Flags: post | visible, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | resource.RequiredByPolicy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string|null"},
		resource.Attribute{Name: "network_type", Flags: post | visible | filter, Default: resource.Unspecified, Validate: resource.Rules{"type:values": []any{"vlan", "vxlan", "gre", "geneve"}}, Type: "string"},
		resource.Attribute{Name: "physical_network", Flags: post | visible | filter, Default: resource.Unspecified, Validate: resource.Rules{"type:string": 64}, Type: "string"},
		resource.Attribute{Name: "minimum", Flags: post | put | visible, Required: true, Convert: "convert_to_int", Validate: bounds, Type: "int"},
		resource.Attribute{Name: "maximum", Flags: post | put | visible, Required: true, Convert: "convert_to_int", Validate: bounds, Type: "int"},
		resource.Attribute{Name: "used", Flags: visible, Type: "object"},
		resource.Attribute{Name: "available", Flags: visible, Convert: "convert_none_to_empty_list", Type: "list"},
	)
	return r.Add(resource.StandardAttributes(true)...)
}
