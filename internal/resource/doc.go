// Package resource is the schema kernel: what a resource, an attribute and an
// extension are, how a request body becomes a typed object and back, and what
// a list query asks for. Everything that is derived from the schema (routes,
// validation, defaults, filters, sort keys, policy targets, quotas, OpenAPI)
// is derived from the values of this package.
//
// It must not know HTTP or SQL, nor any particular resource.
package resource
