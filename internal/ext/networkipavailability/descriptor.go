// Package networkipavailability is the network-ip-availability extension, with
// its details: how many addresses networks and their subnets have, and how many
// of them are in use.
//
// It must not know how addresses are chosen.
package networkipavailability

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

func init() { ext.Register(ext.Module{Name: "networkipavailability", Install: install}) }

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "network-ip-availability", Name: "Network IP Availability", Description: "Provides IP availability data for each network and subnet.", Updated: "2015-09-24T00:00:00-00:00"},
		resource.Extension{Alias: "network-ip-availability-details", Name: "Network IP Availability Details Extension", Description: "Add ip_availability_details attribute to network_ip_availability.", Updated: "2025-10-31T00:00:00-00:00", Requires: []string{"network-ip-availability"}},
	)
	c.Registry.Add(newService(c).Resource)
	return nil
}

const (
	visible = resource.Visible
	filter  = resource.Filter
)

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "network_ip_availability", Collection: "network_ip_availabilities", Path: "network-ip-availabilities", Older: true, NoBulk: true,
		NotFound: "NetworkNotFound", NotFoundText: "Network %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "network_id", Flags: visible | filter | resource.Sort | resource.PrimaryKey, Type: "string"},
		resource.Attribute{Name: "network_name", Flags: visible | filter, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: visible | filter, Type: "string"},
		resource.Attribute{Name: "total_ips", Flags: visible, Type: "int"},
		resource.Attribute{Name: "used_ips", Flags: visible, Type: "int"},
		resource.Attribute{Name: "subnet_ip_availability", Flags: visible, Type: "list<object>"},
		resource.Attribute{Name: "ip_version", Flags: filter, Type: "int"},
		resource.Attribute{Name: "ip_availability_details", Flags: visible, Type: "object"},
	)
}
