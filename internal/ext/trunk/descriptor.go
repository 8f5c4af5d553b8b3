// Package trunk is the trunk extension family: trunks, which carry the
// networks of their subports over the VIF of their parent port, each under a
// tag, and the details of a trunk that its parent port shows.
//
// It must not know how hosts wire trunks.
package trunk

import (
	"encoding/json"
	"strconv"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/port"
	"isospin/internal/core/quota"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "trunk", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "trunk", Name: "Trunk Extension", Description: "Provides support for trunk ports", Updated: "2016-01-01T10:00:00-00:00", Requires: []string{"binding"}},
		resource.Extension{Alias: "trunk-details", Name: "Trunk port details", Description: "Expose trunk port details", Updated: "2016-01-01T10:00:00-00:00", Requires: []string{"trunk"}},
	)
	c.Ports.Resource.Add(resource.Attribute{
		Name: port.TrunkDetails, Flags: resource.Visible | resource.RequiredByPolicy | resource.EnforcePolicy,
		Default: resource.Unspecified, Type: "object",
	})
	s := newService(c)
	c.Quotas.Register(quota.Limited{Resource: "trunk", Table: "trunk", Default: config.QuotaTrunk.Of(c.Config)})
	core.Add(c, s.trunks)
	s.hook()
	s.project(f)
	return nil
}

// Trunk is a port whose VIF carries the networks of other ports, too.
type Trunk struct {
	resource.Standard
	Name         string `json:"name" db:"name"`
	AdminStateUp bool   `json:"admin_state_up" db:"admin_state_up"`
	// PortID is the parent: its network is the one without a tag.
	PortID string `json:"port_id" db:"port_id"`
	Status string `json:"status" db:"status"`
	// Generation counts changes of what the host must know.
	Generation int64 `json:"generation" db:"generation"`

	// SubPorts are child rows.
	SubPorts []SubPort `json:"sub_ports"`
}

// SubPort is a port whose network is carried under a tag.
type SubPort struct {
	SegmentationID   int    `json:"segmentation_id"`
	SegmentationType string `json:"segmentation_type"`
	PortID           string `json:"port_id"`
}

// UnmarshalJSON takes tags as clients may write them, as text, too. What is no
// number is 0 here; requests are checked apart.
func (s *SubPort) UnmarshalJSON(raw []byte) error {
	var m struct {
		ID     any `json:"segmentation_id"`
		Type   any `json:"segmentation_type"`
		PortID any `json:"port_id"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	*s = SubPort{}
	switch id := m.ID.(type) {
	case float64:
		s.SegmentationID = int(id)
	case string:
		s.SegmentationID, _ = strconv.Atoi(id)
	}
	s.SegmentationType, _ = m.Type.(string)
	s.PortID, _ = m.PortID.(string)
	return nil
}

// details is what the parent port shows of its trunk.
type details struct {
	TrunkID  string          `json:"trunk_id"`
	SubPorts []subPortDetail `json:"sub_ports"`
}

type subPortDetail struct {
	SegmentationID   int    `json:"segmentation_id"`
	SegmentationType string `json:"segmentation_type"`
	PortID           string `json:"port_id"`
	MACAddress       string `json:"mac_address"`
}

var detailsOf = resource.NewSlot[*details](port.TrunkDetails)

// ownerSubPort is the device_owner of wired subports.
const ownerSubPort = "trunk:subport"

// Segmentation types.
const (
	typeVLAN    = "vlan"
	typeInherit = "inherit"
)

// Statuses of trunks.
const (
	statusDown     = "DOWN"
	statusBuild    = "BUILD"
	statusActive   = "ACTIVE"
	statusDegraded = "DEGRADED"
	statusError    = "ERROR"
)

var schema = store.Schema{Module: "ext/trunk", Steps: [][]string{{
	`CREATE TABLE trunk (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, admin_state_up BOOLEAN NOT NULL, port_id VARCHAR(36) NOT NULL REFERENCES port (id),
		status VARCHAR(16) NOT NULL, generation BIGINT NOT NULL)`,
	`CREATE INDEX trunk_project ON trunk (project_id)`,
	`CREATE INDEX trunk_port_id ON trunk (port_id)`,
	// The parent (no type, tag 0) and the subports of all trunks: a port is one of them once, and a tag is one port's.
	`CREATE TABLE trunk_port (
		port_id VARCHAR(36) PRIMARY KEY REFERENCES port (id),
		trunk_id VARCHAR(36) NOT NULL REFERENCES trunk (id) ON DELETE CASCADE,
		segmentation_type VARCHAR(16) NOT NULL, segmentation_id INTEGER NOT NULL,
		UNIQUE (trunk_id, segmentation_type, segmentation_id))`,
}}}

func (s *service) newResource() *resource.Resource {
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
		filter  = resource.Filter
		sortKey = resource.Sort
		policy  = resource.RequiredByPolicy
	)
	r := &resource.Resource{
		Name: "trunk", Collection: "trunks", Path: "trunks", Older: true, NoBulk: true,
		Standard: true, Taggable: true, Quota: "trunk",
		NotFound: "TrunkNotFound", NotFoundText: "Trunk %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "admin_state_up", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "port_id", Flags: post | visible | policy | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "status", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "sub_ports", Flags: post | visible | resource.EnforcePolicy, Default: []any{}, ConvertList: "convert_kvp_list_to_dict", Validate: resource.Rules{"type:subports": nil}, Type: "list<object>"},
	)
	r.Add(resource.StandardAttributes(true)...)
	r.Actions = []resource.Action{
		{Method: "PUT", Name: "add_subports", Do: s.addSubPorts},
		{Method: "PUT", Name: "remove_subports", Do: s.removeSubPorts},
		{Method: "GET", Name: "get_subports", Do: s.getSubPorts},
	}
	return r
}
