// Package metering is the metering extension family: labels that count the
// external traffic of a project's routers, their rules, and what the hosts of
// the routers must know of them.
//
// It must not know how hosts count, nor how routers are kept.
package metering

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "metering", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "metering", Name: "Neutron Metering", Description: "Neutron Metering extension.", Updated: "2013-06-12T10:00:00-00:00"},
		resource.Extension{Alias: "metering_source_and_destination_fields", Name: "Neutron Metering with source and destination filtering", Description: "Neutron Metering extension with the source and destination prefixes of rules.", Updated: "2020-08-21T08:12:00-00:00", Requires: []string{"metering"}},
	)
	s := newService(c)
	core.Add(c, s.labels)
	core.Add(c, s.rules)
	s.project(f)
	return nil
}

// Label counts traffic: that which its rules select.
type Label struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// Shared: it counts that of all projects' routers, each by itself.
	Shared bool `json:"shared" db:"shared"`
	// Rules are its child rows.
	Rules []*Rule `json:"rules"`
}

// Rule selects traffic in one direction.
type Rule struct {
	resource.Standard
	LabelID   string `json:"metering_label_id" db:"metering_label_id"`
	Direction string `json:"direction" db:"direction"`
	// Excluded: what it selects is not counted, whatever other rules say.
	Excluded bool `json:"excluded" db:"excluded"`
	// RemotePrefix is of addresses outside; it excludes the other two.
	RemotePrefix      *string `json:"remote_ip_prefix" db:"remote_ip_prefix"`
	SourcePrefix      *string `json:"source_ip_prefix" db:"source_ip_prefix"`
	DestinationPrefix *string `json:"destination_ip_prefix" db:"destination_ip_prefix"`
}

const standardColumns = `id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL`

var schema = store.Schema{Module: "ext/metering", Steps: [][]string{{
	`CREATE TABLE metering_label (` + standardColumns + `, name VARCHAR(255) NOT NULL, shared BOOLEAN NOT NULL)`,
	`CREATE INDEX metering_label_project ON metering_label (project_id)`,
	`CREATE TABLE metering_label_rule (` + standardColumns + `,
		metering_label_id VARCHAR(36) NOT NULL REFERENCES metering_label (id), direction VARCHAR(16) NOT NULL, excluded BOOLEAN NOT NULL,
		remote_ip_prefix VARCHAR(64), source_ip_prefix VARCHAR(64), destination_ip_prefix VARCHAR(64))`,
	`CREATE INDEX metering_label_rule_label ON metering_label_rule (metering_label_id)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
	shown   = post | visible | filter | sortKey
)

func newLabelResource() *resource.Resource {
	r := &resource.Resource{
		Name: "metering_label", Collection: "metering_labels", Path: "metering-labels", Prefix: "/metering", Older: true,
		// No update: policies have no action for it.
		Only:     []resource.Operation{resource.Show, resource.List, resource.Create, resource.Delete},
		NotFound: "MeteringLabelNotFound", NotFoundText: "Metering label '%s' does not exist.",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Type: "string"},
		resource.Attribute{Name: "name", Flags: shown, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "description", Flags: shown, Default: "", Validate: resource.Rules{"type:string": 1024}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: shown | policy, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "shared", Flags: shown, Default: false, Convert: "convert_to_boolean", Type: "bool"},
	)
}

func newRuleResource() *resource.Resource {
	r := &resource.Resource{
		Name: "metering_label_rule", Collection: "metering_label_rules", Path: "metering-label-rules", Prefix: "/metering", Older: true,
		// No update, though attributes look as if there were one: policies have no action for it.
		Only:     []resource.Operation{resource.Show, resource.List, resource.Create, resource.Delete},
		NotFound: "MeteringLabelRuleNotFound", NotFoundText: "Metering label rule '%s' does not exist.",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Type: "string"},
		resource.Attribute{Name: "metering_label_id", Flags: shown | policy, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "direction", Flags: shown, Required: true, Validate: resource.Rules{"type:values": []any{"ingress", "egress"}}, Type: "string"},
		resource.Attribute{Name: "excluded", Flags: shown, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		// metering_source_and_destination_fields
		resource.Attribute{Name: "remote_ip_prefix", Flags: shown, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "source_ip_prefix", Flags: shown | put, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "destination_ip_prefix", Flags: shown | put, Default: nil, Type: "string|null"},
	)
}
