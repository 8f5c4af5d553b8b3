package rest

import (
	"net/http"
	"net/url"
	"strings"

	"isospin/internal/fault"
	"isospin/internal/resource"
)

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// base is what links begin with, without a slash at the end.
func (c *call) base() string {
	if p := c.edge.LinkPrefix; p != "" {
		return strings.TrimRight(p, "/")
	}
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	if forwarded := strings.ToLower(c.r.Header.Get("X-Forwarded-Proto")); forwarded == "http" || forwarded == "https" {
		scheme = forwarded
	}
	return (&url.URL{Scheme: scheme, Host: c.r.Host}).String()
}

// versions is GET /, which needs no token.
func (c *call) versions() error {
	if c.r.Method != http.MethodGet {
		return &methodNotAllowed{http.MethodGet}
	}
	c.show(http.StatusOK, map[string]any{"versions": []any{map[string]any{
		"id": "v2.0", "status": "CURRENT", "links": []link{{"self", c.base() + "/v2.0/"}},
	}}})
	return nil
}

// health is /healthcheck, for load balancers.
func (c *call) health() error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return &methodNotAllowed{"GET, HEAD"}
	}
	if c.edge.Healthy != nil {
		if err := c.edge.Healthy(c.ctx); err != nil {
			c.logCause(err)
			c.write(http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte("UNAVAILABLE"))
			return nil
		}
	}
	c.write(http.StatusOK, "text/plain; charset=utf-8", []byte("OK"))
	return nil
}

func (e *edge) addDiscovery() {
	e.root.add(http.MethodGet, "/", "index", e.index)
	none := func(*call) error { return fault.New(fault.NotFound, "HTTPNotFound", "Resource not found.") }
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		e.root.add(method, "/extensions", "extension", none)
		e.root.add(method, "/extensions/{alias}", "extension", none)
	}
	e.root.add(http.MethodGet, "/extensions", "extension", func(c *call) error {
		all := []extension{}
		for _, x := range e.Registry.Extensions() {
			all = append(all, shown(x))
		}
		c.show(http.StatusOK, map[string]any{"extensions": all})
		return nil
	})
	e.root.add(http.MethodGet, "/extensions/{alias}", "extension", func(c *call) error {
		x, ok := e.Registry.Extension(c.params[0])
		if !ok {
			return fault.New(fault.NotFound, "HTTPNotFound", "Extension with alias %s does not exist", c.params[0])
		}
		c.show(http.StatusOK, map[string]extension{"extension": shown(x)})
		return nil
	})
}

type extension struct {
	Alias       string   `json:"alias"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Updated     string   `json:"updated"`
	Links       []string `json:"links"`
}

func shown(x resource.Extension) extension {
	return extension{x.Alias, x.Name, x.Description, x.Updated, []string{}}
}

// index is GET /v2.0/: the collections of the core.
func (e *edge) index(c *call) error {
	type entry struct {
		Name       string `json:"name"`
		Collection string `json:"collection"`
		Links      []link `json:"links"`
	}
	entries := []entry{}
	for _, name := range []string{"network", "subnet", "subnetpool", "port"} {
		if r := e.Registry.Named(name); r != nil {
			entries = append(entries, entry{r.Name, r.Collection, []link{{"self", c.base() + "/v2.0" + pathOf(r)}}})
		}
	}
	c.show(http.StatusOK, map[string]any{"resources": entries})
	return nil
}

func pathOf(r *resource.Resource) string { return r.URL() }
