// Package ndpproxy is the extension family of NDP proxies: IPv6 addresses of
// ports for which their router answers on its external network.
//
// It must not know how hosts answer.
package ndpproxy

import (
	"net/netip"

	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "ndpproxy", Schemas: []store.Schema{schema}, Install: install, After: []string{"router", "subnetpool", "addressscope"}})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "l3-ndp-proxy", Name: "name", Description: "NDP proxies that publish IPv6 addresses of ports on external networks", Updated: "2021-06-29T10:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "l3-ext-ndp-proxy", Name: "Router support to enable NDP proxy", Description: "Router support to enable NDP proxy", Updated: "2020-08-25T00:00:00-00:00", Requires: []string{"router", "ext-gw-mode"}},
	)
	c.L3.RouterResource().Add(resource.Attribute{Name: enableAttribute, Flags: resource.Post | resource.Put | resource.Visible | resource.Filter, Default: resource.Unspecified, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"})
	s := newService(c)
	core.Add(c, s.Collection)
	s.hook()
	s.project(f)
	return nil
}

// enableAttribute of routers allows them to have NDP proxies.
const enableAttribute = "enable_ndp_proxy"

// Proxy makes a router answer for an address of a port on its external network.
type Proxy struct {
	resource.Standard
	Name      string     `json:"name" db:"name"`
	RouterID  string     `json:"router_id" db:"router_id"`
	PortID    string     `json:"port_id" db:"port_id"`
	IPAddress netip.Addr `json:"ip_address" db:"ip_address"`
}

var schema = store.Schema{Module: "ext/ndpproxy", Steps: [][]string{{
	`CREATE TABLE ndp_proxy (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, router_id VARCHAR(36) NOT NULL REFERENCES router (id), port_id VARCHAR(36) NOT NULL REFERENCES port (id),
		ip_address VARCHAR(64) NOT NULL, UNIQUE (router_id, ip_address))`,
	`CREATE INDEX ndp_proxy_project ON ndp_proxy (project_id)`,
	`CREATE INDEX ndp_proxy_port ON ndp_proxy (port_id)`,
	// The routers whose enable_ndp_proxy is true.
	`CREATE TABLE router_ndp_proxy (router_id VARCHAR(36) PRIMARY KEY REFERENCES router (id) ON DELETE CASCADE)`,
}}}

func newResource() *resource.Resource {
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
		sortKey = resource.Sort
	)
	r := &resource.Resource{
		Name: "ndp_proxy", Collection: "ndp_proxies", Path: "ndp-proxies", Older: true, Standard: true,
		NotFound: "NDPProxyNotFound", NotFoundText: "Ndp proxy %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | resource.Filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | resource.RequiredByPolicy | sortKey, Validate: resource.Rules{"type:string": int64(255)}, Type: "string"},
		resource.Attribute{Name: "router_id", Flags: post | visible | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "port_id", Flags: post | visible | sortKey, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "ip_address", Flags: post | visible | sortKey, Default: nil, Validate: resource.Rules{"type:ip_address_or_none": nil}, Type: "string|null"},
	)
	for _, a := range resource.StandardAttributes(false) {
		if a.Name == "description" { // longer than that of others, and no filter
			a.Flags &^= resource.Filter
			a.Validate = resource.Rules{"type:string": int64(1024)}
		}
		r.Add(a)
	}
	return r
}
