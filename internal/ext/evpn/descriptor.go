// Package evpn is the evpn extension: routers that have a VNI, under which their
// networks are advertised to others by EVPN routes of type 5 (RFC 9136). It is
// there only when it is configured ([DEFAULT] service_plugins).
//
// It must not know how hosts advertise.
package evpn

import (
	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "evpn", Schemas: []store.Schema{schema}, Install: install, After: []string{"router"}})
}

// attribute of routers is their VNI.
const attribute = "evpn_vni"

// greatest is the greatest VNI (RFC 7348).
const greatest = 1<<24 - 1

func install(c *core.Core, _ *feed.Hub) error {
	if !config.HasServicePlugin(c.Config, "evpn") {
		return nil
	}
	s := newService(c)
	c.Registry.AddExtension(resource.Extension{Alias: "evpn", Name: "EVPN", Description: "Per-router EVPN VNI to advertise type-5 routes.", Updated: "2026-04-28T00:00:00-00:00", Requires: []string{"router"}})
	c.L3.RouterResource().Add(resource.Attribute{
		Name: attribute, Flags: resource.Post | resource.Visible | resource.Filter | resource.Sort | resource.EnforcePolicy, Default: resource.Unspecified,
		Convert: "convert_to_int", Validate: resource.Rules{"type:range": []any{int64(0), int64(greatest)}}, Type: "int|null",
	})
	h := c.L3
	h.FillRouters = append(h.FillRouters, fill)
	h.OnRouterWrite = append(h.OnRouterWrite, s.onRouterWrite)
	h.OnInterfaceAdd = append(h.OnInterfaceAdd, s.onInterfaceAdd)
	h.BeforeInterfaceRemoval = append(h.BeforeInterfaceRemoval, onInterfaceRemoval)
	return nil
}

var schema = store.Schema{Module: "ext/evpn", Steps: [][]string{{
	// Whose each VNI is. Routers show it in a column of their own.
	`CREATE TABLE evpn_vni (
		vni INTEGER PRIMARY KEY, router_id VARCHAR(36) NOT NULL UNIQUE REFERENCES router (id) ON DELETE CASCADE)`,
	// Subnets whose ports are advertised one by one.
	`CREATE TABLE evpn_host_subnet (
		port_id VARCHAR(36) NOT NULL REFERENCES port (id) ON DELETE CASCADE, subnet_id VARCHAR(36) NOT NULL,
		router_id VARCHAR(36) NOT NULL, PRIMARY KEY (port_id, subnet_id))`,
	`CREATE INDEX evpn_host_subnet_router ON evpn_host_subnet (router_id)`,
}}}
