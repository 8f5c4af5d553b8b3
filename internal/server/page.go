package server

import (
	"net/http"
	"strings"

	"isospin/web"
)

// topology is where the page is, beside the API that it calls.
const topology = "/topology"

// withPage adds the topology page to the API. The rest of the paths are the
// API's, untouched: http.ServeMux would clean and redirect them.
func withPage(api http.Handler) http.Handler {
	page := http.StripPrefix(topology+"/", web.New())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == topology:
			// Relative, for there may be a prefix that a proxy takes away.
			w.Header().Set("Location", strings.TrimPrefix(topology, "/")+"/")
			w.WriteHeader(http.StatusFound)
		case strings.HasPrefix(r.URL.Path, topology+"/"):
			page.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	})
}
