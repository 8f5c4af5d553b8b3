package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The page asks for no token, the API beside it does.
func TestTopologyPage(t *testing.T) {
	c := newCloud(t, "")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, want := range []struct {
		path     string
		status   int
		location string
		contains string
	}{
		{"/topology", 302, "topology/", ""},
		{"/topology/", 200, "", `<script src="app.js" type="module">`},
		{"/topology/app.js", 200, "", "../v2.0/"},
		{"/topology/none", 404, "", "not found"},
		{"/topologyx", 404, "", ""},
		{"/v2.0/networks", 401, "", "requires authentication"},
		{"/v2.0//networks", 401, "", "requires authentication"}, // no redirect to a clean path
		{"/", 200, "", "v2.0"},
	} {
		r, err := client.Get(c.server.URL + want.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != want.status || r.Header.Get("Location") != want.location || !strings.Contains(string(body), want.contains) {
			t.Errorf("GET %s: %d %v %.200s", want.path, r.StatusCode, r.Header, body)
		}
		page := strings.HasPrefix(want.path, "/topology/")
		if got := r.Header.Get("Content-Security-Policy") != ""; got != page {
			t.Errorf("GET %s: Content-Security-Policy there: %t; want %t", want.path, got, page)
		}
	}
	// A member may ask for what only administrators see, and gets the rest.
	c.expect("member1", "GET /networks?limit=1000&fields=id&fields=router%3Aexternal&fields=provider%3Asegmentation_id", "", 200)
	c.expect("member1", "GET /ports?limit=1000&fields=id&fields=binding%3Ahost_id", "", 200)
	c.expect("admin", "GET /agents?limit=1000&fields=id&fields=alive", "", 200)
	c.expect("member1", "GET /agents?limit=1000&fields=id", "", 200, `"agents":[]`)
}
