// Package rbac is the RBAC policies extension: clients open objects to other
// projects, entry by entry.
//
// It must not know the objects: core/rbac says which types there are and what
// follows from their entries.
package rbac

import (
	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/quota"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

func init() {
	// After those that register types: which extensions there are follows from the types.
	ext.Register(ext.Module{Name: "rbac", Install: install, After: []string{"addressscope", "securitygroup", "subnetpool"}})
}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "rbac-policies", Name: "RBAC Policies", Updated: "2015-06-17T12:15:12-00:00",
		Description: "Allows creation and modification of policies that control tenant access to resources.",
	})
	for _, x := range ofTypes {
		if c.RBAC.Named(x.objectType) != nil {
			c.Registry.AddExtension(x.Extension)
		}
	}
	c.Quotas.Register(quota.Limited{Resource: "rbac_policy", Table: "rbac_policy", Default: config.QuotaRBACPolicy.Of(c.Config)})
	core.Add(c, newService(c).Collection)
	return nil
}

// ofTypes are the extensions that say that a type of objects has entries.
var ofTypes = []struct {
	objectType string
	resource.Extension
}{
	{"address_scope", resource.Extension{Alias: "rbac-address-scope", Name: "Add address_scope type to RBAC", Description: "Add address_scope type to RBAC", Updated: "2020-02-12T00:00:00-00:00", Requires: []string{"rbac-policies", "address-scope"}}},
	{"subnetpool", resource.Extension{Alias: "rbac-subnetpool", Name: "Add subnetpool type to RBAC", Description: "Add subnetpool type to RBAC", Updated: "2020-02-05T00:00:00-00:00", Requires: []string{"rbac-policies", "rbac-address-scope"}}},
	{"address_group", resource.Extension{Alias: "rbac-address-group", Name: "Add address_group type to RBAC", Description: "Add address_group type to RBAC", Updated: "2021-01-20T00:00:00-00:00", Requires: []string{"rbac-policies", "security-group"}}},
	{"security_group", resource.Extension{Alias: "rbac-security-groups", Name: "Add security_group type to network RBAC", Description: "Add security_group type to network RBAC", Updated: "2019-02-14T00:00:00-00:00", Requires: []string{"rbac-policies", "security-group"}}},
}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	policy  = resource.RequiredByPolicy
	enforce = resource.EnforcePolicy
)

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "rbac_policy", Collection: "rbac_policies", Path: "rbac-policies", Older: true, NoPaging: true, Quota: "rbac_policy",
		// Entries come and go with attributes of what they open, and are told as that.
		Untold: true,
		// The type of an entry that is not there is not known.
		NotFound: "RbacPolicyNotFound", NotFoundText: "RBAC policy of type unknown with ID %s not found",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "object_type", Flags: post | visible | enforce | filter, Default: nil, Convert: "convert_valid_object_type", Type: "string|null"},
		resource.Attribute{Name: "object_id", Flags: post | visible | enforce | filter, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "target_tenant", Flags: post | put | visible | enforce | filter, Required: true, Validate: resource.Rules{"type:valid_target_project": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "action", Flags: post | visible | enforce | filter, Required: true, Validate: resource.Rules{"type:string": 255}, Type: "string"},
	)
}
