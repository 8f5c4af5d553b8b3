package rest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// answerable fails the test when an answer is a server's fault or no JSON.
func answerable(t *testing.T, r *httptest.ResponseRecorder) {
	t.Helper()
	if r.Code >= 500 {
		t.Errorf("%s", text(r))
	}
	if r.Code != http.StatusNoContent && !json.Valid(r.Body.Bytes()) {
		t.Errorf("no JSON: %s", text(r))
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"id=a&id=b&name=", "fixed_ips=ip_address=1.2.3.4&fixed_ips=x", "tags=a,b&not-tags-any=c", "changed_since=2026-01-01T00:00:00Z",
		"sort_key=name&sort_dir=desc&limit=1&marker=x&page_reverse=True&fields=id", "admin_state_up=yes&revision_number=1_0", "%zz=%ff&;=&&",
	} {
		f.Add(seed)
	}
	w := newWorld()
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{"/v2.0/ports", "/v2.0/security-groups", "/v2.0/ports/p1", "/v2.0/quotas/x/details"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.URL.RawQuery = query
			recorder := httptest.NewRecorder()
			w.handler.ServeHTTP(recorder, r)
			answerable(t, recorder)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"port":{"network_id":"n"}}`, `{"ports":[{"network_id":"n"},{"port":{}}]}`, `{"ports":[]}`, `{"security_group":{"network_id":"n","name":1e400}}`,
		`{"tags":["a","a"]}`, `[]`, `nul`, `{"port":{"fixed_ips":[[{}]],"network_id":"n","description":null,"binding:host_id":{"a":1}}}`, `"\u0000"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := newWorld()
		for _, call := range []string{
			"POST /v2.0/ports", "POST /v2.0/security_groups", "PUT /v2.0/ports/p1", "PUT /v2.0/security-groups/g1", "PUT /v2.0/ports/p1/tags",
			"POST /v2.0/ports/p1/tags", "DELETE /v2.0/ports/p9", "PUT /v2.0/security-groups/g1/add_rule", "PUT /v2.0/quotas/x",
		} {
			answerable(t, w.do(call+"\n\n"+body))
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/v2.0", "/v2.0/", "/v2.0/ports/p1/tags/%2F", "/v2.0/ports//tags", "/v2.0/quotas/tenant/details.json", "/v2.0/%00/../ports", "//"} {
		f.Add("GET", seed, "revision_number=1")
	}
	w := newWorld()
	f.Fuzz(func(t *testing.T, method, path, match string) {
		decoded, err := url.PathUnescape(path)
		if err != nil || !strings.HasPrefix(decoded, "/") || method == "DELETE" || decoded == "/healthcheck" {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Method = method
		r.URL.Path, r.URL.RawPath = decoded, path
		r.Header["If-Match"] = []string{match}
		recorder := httptest.NewRecorder()
		w.handler.ServeHTTP(recorder, r)
		answerable(t, recorder)
	})
}
