// Package portbinding is the binding-extended extension: the bindings of a port
// as a sub-resource, by which compute services prepare a port on the host that
// an instance migrates to, and move it there in one step.
//
// It must not know how ports are bound.
package portbinding

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

func init() { ext.Register(ext.Module{Name: "portbinding", Install: install}) }

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "binding-extended", Name: "Port Bindings Extended",
		Description: "Expose port bindings of a virtual port to external application", Updated: "2017-07-17T10:00:00-00:00",
	})
	s := newService(c)
	c.Registry.Add(s.resource)
	c.Registry.Handle(resource.Route{Method: "PUT", Path: "/ports/{port_id}/bindings/{host}/activate", Action: "activate", Do: s.activate})
	return nil
}

func newResource(ports *resource.Resource) *resource.Resource {
	r := &resource.Resource{
		Name: "binding", Collection: "bindings", Path: "bindings", Parent: ports, Older: true, NoBulk: true,
		NotFound: "PortBindingNotFound",
	}
	// As the port's own binding:vnic_type and binding:profile.
	vnic, profile := ports.Attribute("binding:vnic_type"), ports.Attribute("binding:profile")
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
		enforce = resource.EnforcePolicy
		filter  = resource.Filter
	)
	return r.Add(
		resource.Attribute{Name: "host", Flags: post | put | visible | filter | resource.PrimaryKey, Required: true, Type: "string"},
		resource.Attribute{Name: "vif_type", Flags: visible | enforce | filter, Default: resource.Unspecified, Type: "string"},
		resource.Attribute{Name: "vif_details", Flags: visible | enforce, Default: resource.Unspecified, Type: "object"},
		resource.Attribute{Name: "vnic_type", Flags: post | put | visible | enforce | filter, Default: vnic.Default, Validate: vnic.Validate, Type: "string"},
		resource.Attribute{Name: "profile", Flags: post | put | visible | enforce, Default: resource.Unspecified, Validate: profile.Validate, Type: "object|null"},
		resource.Attribute{Name: "status", Flags: visible | filter, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | resource.RequiredByPolicy, Validate: resource.Rules{"type:string": 255}, Type: "string"},
	)
}
