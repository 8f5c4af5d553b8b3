// Package logging is the logging extension: packet logs, which ask for records
// of what security groups accept and drop, the types of resources that can be
// logged, and what hosts must know of the logs that concern their ports.
//
// It must not know how hosts notice packets, nor where records go.
package logging

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "logging", Schemas: []store.Schema{schema}, Install: install, After: []string{"securitygroup"}})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "logging", Name: "Logging API Extension", Description: "Provides a logging API for resources such as security group and firewall groups.", Updated: "2017-01-01T10:00:00-00:00",
	})
	s := newService(c)
	core.Add(c, s.logs)
	c.Registry.Add(newTypes().Resource)
	s.hook()
	s.project(f)
	return nil
}

// Log asks for records of packets of ports: of those that have a security
// group, of one port, of one port as long as it has the group, or of all of
// the project.
type Log struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// ResourceType is one of the loggable ones: security_group.
	ResourceType string `json:"resource_type" db:"resource_type"`
	// ResourceID is a security group, nil: any.
	ResourceID *string `json:"resource_id" db:"resource_id"`
	// TargetID is a port, nil: any.
	TargetID *string `json:"target_id" db:"target_id"`
	// Event is ACCEPT, DROP or ALL.
	Event   string `json:"event" db:"event"`
	Enabled bool   `json:"enabled" db:"enabled"`
}

// typeSecurityGroup is what can be logged.
const typeSecurityGroup = "security_group"

var schema = store.Schema{Module: "ext/logging", Steps: [][]string{{
	`CREATE TABLE packet_log (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, resource_type VARCHAR(255) NOT NULL,
		resource_id VARCHAR(36) REFERENCES security_group (id), target_id VARCHAR(36) REFERENCES port (id),
		event VARCHAR(16) NOT NULL, enabled BOOLEAN NOT NULL)`,
	`CREATE INDEX packet_log_project ON packet_log (project_id)`,
	`CREATE INDEX packet_log_resource ON packet_log (resource_id)`,
	`CREATE INDEX packet_log_target ON packet_log (target_id)`,
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
		Name: "log", Collection: "logs", Path: "logs", Prefix: "/log", Older: true, Standard: true,
		NotFound: "LogResourceNotFound", NotFoundText: "Log resource %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "resource_type", Flags: post | visible | policy | filter | sortKey, Required: true, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "resource_id", Flags: post | visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "event", Flags: post | visible | filter, Default: "ALL", Validate: resource.Rules{"type:values": []any{"ACCEPT", "DROP", "ALL"}}, Type: "string"},
		resource.Attribute{Name: "target_id", Flags: post | visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "enabled", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
	)
	return r.Add(resource.StandardAttributes(false)...)
}
