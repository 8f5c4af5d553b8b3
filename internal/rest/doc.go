// Package rest is the HTTP edge of the Neutron API: it turns requests into
// calls of the services in a resource.Registry, and what they return into
// JSON. Routes, bodies, filters, sort keys and links follow from the
// declarations of resources; statuses and error documents from faults.
//
// It must not know any particular resource, nor SQL.
package rest
