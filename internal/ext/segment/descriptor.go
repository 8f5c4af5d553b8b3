// Package segment is the extension family of network segments and routed
// networks: segments as objects, subnets that belong to one, routes between
// them, and how ports of such networks get their addresses.
//
// It must not know how segment ids are chosen or carried, nor which host is
// connected to what.
package segment

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

func init() { ext.Register(ext.Module{Name: "segment", Install: install}) }

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "segment", Name: "Segment", Description: "Segments extension.", Updated: "2016-02-24T17:00:00-00:00", Requires: []string{"standard-attr-description"}},
		resource.Extension{Alias: "standard-attr-segment", Name: "Standard Attribute Segment Extension", Description: "Add standard attributes to Segment resource", Updated: "2018-04-09T10:00:00-00:00", Requires: []string{"segment"}},
		resource.Extension{Alias: "ip_allocation", Name: "IP Allocation", Description: "IP allocation extension.", Updated: "2016-06-10T23:00:00-00:00"},
		resource.Extension{Alias: "l2_adjacency", Name: "L2 Adjacency", Description: "Display L2 Adjacency for Neutron Networks.", Updated: "2016-04-12T16:00:00-00:00"},
		resource.Extension{Alias: "subnet-segmentid-writable", Name: "Subnet SegmentID (writable)", Description: "Provides a writable segment_id attribute for a subnet resource.", Updated: "2018-03-12T00:00:00-00:00", Requires: []string{"segment"}},
		resource.Extension{Alias: "segments-peer-subnet-host-routes", Name: "Segments peer-subnet host routes", Description: "Add host routes to subnets on a routed network (segments)", Updated: "2018-06-12T10:00:00-00:00", Requires: []string{"segment"}},
	)
	c.Networks.Resource.Add(resource.Attribute{Name: "l2_adjacency", Flags: visible, Type: "bool"})
	c.Ports.Resource.Add(resource.Attribute{Name: "ip_allocation", Flags: visible | filter | sortKey, Type: "string"})
	c.Subnets.Resource.Add(resource.Attribute{Name: "segment_id", Flags: post | put | visible | filter | sortKey, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"})
	s := newService(c)
	core.Add(c, s.Collection)
	c.Subnets.BeforeCreate = append(c.Subnets.BeforeCreate, s.beforeSubnet, routesOfNew)
	c.Subnets.AfterCreate = append(c.Subnets.AfterCreate, s.routesBeside)
	c.Subnets.BeforeUpdate = append(c.Subnets.BeforeUpdate, s.beforeSubnetUpdate, s.routesOfChanged)
	c.Subnets.BeforeDelete = append(c.Subnets.BeforeDelete, s.routesWithout)
	return nil
}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
)

// Segment is one segment of a network.
type Segment struct {
	resource.Standard
	Name        *string `json:"name" db:"name"`
	NetworkID   string  `json:"network_id" db:"network_id"`
	NetworkType string  `json:"network_type" db:"network_type"`
	// Physical is empty for types without one.
	Physical string `json:"-" db:"physical_network"`
	// Number is the segmentation id; 0 is none.
	Number   int `json:"-" db:"segmentation_id"`
	Position int `json:"position" db:"position"`

	// What follows is only shown.
	PhysicalNetwork *string `json:"physical_network"`
	SegmentationID  *int    `json:"segmentation_id"`
}

// show fills in the members whose absence is null.
func (g *Segment) show() {
	g.PhysicalNetwork, g.SegmentationID = nil, nil
	if g.Physical != "" {
		g.PhysicalNetwork = &g.Physical
	}
	if g.Number != 0 {
		g.SegmentationID = &g.Number
	}
}

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "segment", Collection: "segments", Path: "segments", Standard: true, NoBulk: true,
		// The first segments of a network come and go with it.
		Untold:   true,
		NotFound: "SegmentNotFound", NotFoundText: "Segment %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "network_id", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "physical_network", Flags: post | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:string": 64}, Type: "string|null"},
		resource.Attribute{Name: "network_type", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:string": 32}, Type: "string"},
		resource.Attribute{Name: "segmentation_id", Flags: post | visible | sortKey, Default: resource.Unspecified, Convert: "convert_to_int", Type: "int|null"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: resource.Unspecified, Validate: resource.Rules{"type:name_string_or_none": 255}, Type: "string|null"},
	)
	return r.Add(resource.StandardAttributes(false)...)
}
