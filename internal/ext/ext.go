// Package ext is the registry of extension families. Each is a directory with
// its descriptor, service, tables and feed projection, and one line in ext/all.
//
// It must not know any extension.
package ext

import (
	"fmt"

	"isospin/internal/core"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// Module is one extension family.
type Module struct {
	// Name is the directory's, e.g. "router".
	Name string // required
	// Schemas of its tables.
	Schemas []store.Schema
	// Install builds the services, registers resources and extensions, hooks
	// into the core's, and adds projections to the feed.
	Install func(c *core.Core, f *feed.Hub) error // required
	// After names modules whose tables or services must be there first.
	After []string
}

var modules []Module

// Register adds a module; a duplicate panics.
func Register(m Module) {
	for _, have := range modules {
		if have.Name == m.Name {
			panic("extension family " + m.Name + " is registered twice")
		}
	}
	modules = append(modules, m)
}

// Modules returns the registered modules, each after those it comes after.
func Modules() ([]Module, error) {
	var sorted []Module
	done := map[string]bool{}
	for len(sorted) < len(modules) {
		before := len(sorted)
		for _, m := range modules {
			ready := !done[m.Name]
			for _, a := range m.After {
				ready = ready && done[a]
			}
			if ready {
				done[m.Name] = true
				sorted = append(sorted, m)
			}
		}
		if len(sorted) == before {
			return nil, fmt.Errorf("extension families wait for each other or for one that is not there: %d of %d are ready", len(sorted), len(modules))
		}
	}
	return sorted, nil
}
