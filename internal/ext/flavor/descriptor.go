// Package flavor is the extension family of service flavors: flavors, the
// profiles that say by which provider what has a flavor is served, and the list
// of service providers.
//
// It must not know what has flavors, nor what providers do.
package flavor

import (
	"fmt"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "flavor", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "flavors", Name: "Neutron Service Flavors", Description: "Flavor specification for Neutron advanced services.", Updated: "2015-09-17T10:00:00-00:00"},
		resource.Extension{Alias: "service-type", Name: "Neutron Service Type Management", Description: "API for retrieving service providers for Neutron advanced services", Updated: "2013-01-20T00:00:00-00:00"},
	)
	if err := addProviders(c); err != nil {
		return err
	}
	s := newService(c)
	c.Flavors = s
	core.Add(c, s.flavors)
	core.Add(c, s.profiles)
	c.Registry.Add(newBindings(s).Resource)
	c.Registry.Add(newProviders(c.Providers).Resource)
	c.Registry.Handle(resource.Route{Method: "GET", Path: "/flavors/{flavor_id}/next_providers", Action: "get_flavor", Do: s.nextProviders})
	return nil
}

// addProviders adds those of the configuration, and of routers.
func addProviders(c *core.Core) error {
	for _, text := range config.ServiceProviders.Of(c.Config) {
		parts := strings.Split(text, ":")
		if len(parts) < 3 || len(parts) > 4 || len(parts) == 4 && parts[3] != "default" {
			return fmt.Errorf("[service_providers] service_provider = %s: must be <service type>:<name>:<driver>[:default]", text)
		}
		if err := c.Providers.Add(core.ServiceProvider{ServiceType: parts[0], Name: parts[1], Driver: parts[2], Default: len(parts) == 4}); err != nil {
			return fmt.Errorf("[service_providers]: %w", err)
		}
	}
	for _, p := range [][2]string{{"dvrha", "dvrha.DvrHaDriver"}, {"dvr", "dvr.DvrDriver"}, {"ha", "ha.HaDriver"}, {"single_node", "single_node.SingleNodeDriver"}} {
		// An operator's provider of the same name or driver goes before: the error says no more.
		_ = c.Providers.Add(core.ServiceProvider{ServiceType: core.L3RouterNAT, Name: p[0], Driver: "neutron.services.l3_router.service_providers." + p[1]})
	}
	return nil
}

// Flavor is a kind of service that clients choose by its name.
type Flavor struct {
	resource.Standard
	Name        string `json:"name" db:"name"`
	ServiceType string `json:"service_type" db:"service_type"`
	Enabled     bool   `json:"enabled" db:"enabled"`
	// Profiles by their ids.
	Profiles []string `json:"service_profiles"`
}

// Profile says what provider serves, by its driver, and what that must know.
type Profile struct {
	resource.Standard
	Driver   string `json:"driver" db:"driver"`
	Metainfo string `json:"metainfo" db:"metainfo"`
	Enabled  bool   `json:"enabled" db:"enabled"`
}

const standardColumns = `id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL`

var schema = store.Schema{Module: "ext/flavor", Steps: [][]string{{
	`CREATE TABLE flavor (` + standardColumns + `, name VARCHAR(255) NOT NULL, service_type VARCHAR(36) NOT NULL, enabled BOOLEAN NOT NULL)`,
	`CREATE TABLE service_profile (` + standardColumns + `, driver VARCHAR(1024) NOT NULL, metainfo VARCHAR(4096) NOT NULL, enabled BOOLEAN NOT NULL)`,
	`CREATE TABLE flavor_service_profile (
		flavor_id VARCHAR(36) NOT NULL REFERENCES flavor (id) ON DELETE CASCADE,
		service_profile_id VARCHAR(36) NOT NULL REFERENCES service_profile (id),
		PRIMARY KEY (flavor_id, service_profile_id))`,
	`CREATE INDEX flavor_service_profile_profile ON flavor_service_profile (service_profile_id)`,
}}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	all     = post | put | visible | filter | sortKey
)

func id() resource.Attribute {
	return resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"}
}

func description() resource.Attribute {
	return resource.Attribute{Name: "description", Flags: all, Default: "", Validate: resource.Rules{"type:string_or_none": 1024}, Type: "string|null"}
}

func enabled() resource.Attribute {
	return resource.Attribute{Name: "enabled", Flags: all, Default: true, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"}
}

func newFlavorResource() *resource.Resource {
	r := &resource.Resource{
		Name: "flavor", Collection: "flavors", Path: "flavors", Older: true, NoBulk: true,
		NotFound: "FlavorNotFound", NotFoundText: "Flavor %s could not be found.",
	}
	return r.Add(
		id(),
		resource.Attribute{Name: "name", Flags: all, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		description(),
		resource.Attribute{Name: "service_type", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:service_plugin_type": nil}, Type: "string"},
		resource.Attribute{Name: "service_profiles", Flags: post | put | visible, Default: []any{}, Validate: resource.Rules{"type:uuid_list": nil}, Type: "list<string>"},
		enabled(),
	)
}

func newProfileResource() *resource.Resource {
	r := &resource.Resource{
		Name: "service_profile", Collection: "service_profiles", Path: "service_profiles", Older: true, NoBulk: true,
		NotFound: "ServiceProfileNotFound", NotFoundText: "Service Profile %s could not be found.",
	}
	return r.Add(
		id(),
		description(),
		resource.Attribute{Name: "driver", Flags: all, Default: "", Validate: resource.Rules{"type:string": 1024}, Type: "string"},
		resource.Attribute{Name: "metainfo", Flags: post | put | visible | sortKey, Default: "", Type: "string"},
		enabled(),
	)
}
