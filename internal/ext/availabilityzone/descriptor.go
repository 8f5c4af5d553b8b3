// Package availabilityzone is the extension family of availability zones: the
// list of zones, which agents report, and zones of networks. Zones of routers
// are with the routers, which are scheduled by them.
//
// It must not know how anything is scheduled.
package availabilityzone

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() { ext.Register(ext.Module{Name: "availabilityzone", Install: install}) }

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "availability_zone", Name: "Availability Zone", Description: "The availability zone extension.", Updated: "2015-01-01T10:00:00-00:00", Requires: []string{"agent"}},
		resource.Extension{Alias: "availability_zone_filter", Name: "Availability Zone Filter Extension", Description: "Add filter parameters to AvailabilityZone resource", Updated: "2018-06-22T10:00:00-00:00", Requires: []string{"availability_zone"}},
		resource.Extension{Alias: "network_availability_zone", Name: "Network Availability Zone", Description: "Availability zone support for network.", Updated: "2015-01-01T10:00:00-00:00", Requires: []string{"availability_zone"}},
	)
	c.Registry.Add(newService(c).Resource)
	c.Networks.Resource.Add(
		resource.Attribute{Name: zonesAttribute, Flags: visible, Type: "list<string>"},
		resource.Attribute{
			Name: "availability_zone_hints", Flags: resource.Post | visible | resource.Sort, Default: []any{},
			Validate: resource.Rules{"type:availability_zone_hint_list": nil}, Type: "list<string>",
		},
	)
	c.Networks.OnWrite = append(c.Networks.OnWrite, func(_ context.Context, tx *store.Tx, n *network.Network) error {
		if n.CreatedAt != "" { // hints are given once; their zones may have gone since
			return nil
		}
		return c.Agents.CheckZones(tx, agent.DHCP, n.AvailabilityZoneHints)
	})
	p := newProjection()
	f.Project(p)
	present := c.Networks.Present
	c.Networks.Present = func(ctx context.Context, rows []*network.Network) {
		present(ctx, rows)
		p.present(rows)
	}
	return nil
}

const (
	visible = resource.Visible
	filter  = resource.Filter
)

// zonesAttribute is the slot of a network that is shown and never stored.
const zonesAttribute = "availability_zones"

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "availability_zone", Collection: "availability_zones", Path: "availability_zones", Older: true, NoBulk: true, NoPaging: true, NoSorting: true,
		NotFound: "AvailabilityZoneNotFound", NotFoundText: "AvailabilityZone %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "name", Flags: visible | filter, Type: "string"},
		resource.Attribute{Name: "resource", Flags: visible | filter, Type: "string"},
		resource.Attribute{Name: "state", Flags: visible | filter, Type: "string"},
	)
}
