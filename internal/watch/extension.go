package watch

import "isospin/internal/resource"

// Extensions are the aliases by which clients find the watch and the history.
func Extensions() []resource.Extension {
	return []resource.Extension{
		{Alias: "isospin-watch", Name: "Watch", Description: "A stream of the committed changes of all resources, which can be resumed", Updated: "2026-11-21T00:00:00-00:00"},
		{Alias: "isospin-history", Name: "History", Description: "The changes of each object: when, by whom, and what", Updated: "2026-11-21T00:00:00-00:00"},
	}
}
