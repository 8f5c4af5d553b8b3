package server

import (
	"log/slog"
	"strings"
	"testing"

	"isospin/internal/config"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// TestNoRule: a server with a resource, an action or a route that nobody gave a
// policy rule does not start, whether it asks Keystone who calls or nobody.
func TestNoRule(t *testing.T) {
	c, err := config.FromText("")
	if err != nil {
		t.Fatal(err)
	}
	name := resource.Attribute{Name: "name", Flags: resource.Post | resource.Put | resource.Visible, Default: "", Type: "string"}
	for what, add := range map[string]func(*resource.Registry){
		`resource unruly has no policy rule "get_unruly"`: func(r *resource.Registry) {
			r.Add((&resource.Resource{Name: "unruly", Collection: "unrulies", Path: "unrulies"}).Add(name))
		},
		`route GET /unruly has no policy rule "get_unruliness"`: func(r *resource.Registry) {
			r.Handle(resource.Route{Method: "GET", Path: "/unruly", Action: "get_unruliness"})
		},
	} {
		for strategy, a := range map[string]*access{
			"keystone": {},
			"noauth":   {authenticator: identity.NoAuth{}, enforcer: rest.AllowAll{}},
		} {
			registry := resource.NewRegistry()
			add(registry)
			if err := a.complete(c, slog.New(slog.DiscardHandler), registry); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s, %s: %v", strategy, what, err)
			}
		}
	}
}
