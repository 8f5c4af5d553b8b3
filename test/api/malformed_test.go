package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"isospin/internal/resource"
	"isospin/test/servertest"
)

// sane tells what is wrong with an answer to a request that may be nonsense:
// errors of the server, and errors without their envelope.
func sane(a *servertest.Answer) string {
	switch {
	case a.Status == 501, a.Status < 400:
		return ""
	case a.Status >= 500:
		return "an error of the server"
	}
	if typ, message := a.Error(); typ == "" || message == "" {
		return "an error without type or message"
	}
	return ""
}

// TestFilters lists every collection by every attribute that can be filtered
// and sorted by, with values of every shape.
func TestFilters(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {"name": "n"}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}}`, network))
	s.Must(t, 201, "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network))
	values := []string{"", "x", "0", "-1", "99999999999999999999999", "1e400", "true", "null", "None", "[]", "{}", "10.0.0.0/24", "10.0.0.1", "2001:db8::1", "fa:16:3e:00:00:01",
		network, "ip_address=10.0.0.1", "subnet_id=", "a=b", "=", "%", "_", "'", `"`, `\`, "é", "\u202e", strings.Repeat("x", 5000), "x'; DROP TABLE network; --"}
	n := 0
	check := func(path string) {
		n++
		a, err := s.Do("GET", path, "")
		if err != nil {
			t.Errorf("GET %s: %v", path, err)
			return
		}
		if wrong := sane(a); wrong != "" {
			t.Errorf("GET %.300s: %s: %s", path, wrong, a)
		}
	}
	for _, r := range s.Core.Registry.Resources() {
		path := r.Prefix + "/" + r.Path
		if strings.Contains(path, "{") {
			continue
		}
		for _, a := range r.Attributes() {
			if a.Flags.Has(resource.Filter) {
				for _, v := range values {
					check(path + "?" + a.Name + "=" + url.QueryEscape(v))
				}
				check(path + "?" + strings.Repeat(a.Name+"=1&", 50) + "limit=2")
			}
			if a.Flags.Has(resource.Sort) {
				for _, rest := range []string{"", "&limit=1", "&limit=1&page_reverse=True", "&limit=1&marker=" + network, "&marker=x&limit=1"} {
					check(path + "?sort_dir=desc&sort_key=" + a.Name + rest)
				}
			}
		}
		for _, q := range []string{"?", "?&&&", "?=", "?fields=", "?fields=id&fields=id", "?limit=99999999999999999999", "?limit=", "?marker=", "?page_reverse=x&limit=1", "?%zz", "?a=%zz", "?%00=1", "?name=%00",
			"?tags=", "?tags=,,,&not-tags-any=", "?changed_since=", "?changed_since=2026-13-45T99:99:99", "?" + strings.Repeat("name=x&", 3000), "?name=" + strings.Repeat("%41", 30000), "?sort_key=&sort_dir="} {
			check(path + q)
		}
	}
	t.Logf("%d lists", n)
	if got := s.Must(t, 200, "GET", "/networks", "")["networks"].([]any); len(got) != 1 {
		t.Errorf("networks are now %v", got)
	}
}

// TestNonsense sends documents that fit no contract, or fit it only partly, to
// every collection and to objects that are there.
func TestNonsense(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {"name": "n"}}`)["id"].(string)
	subnet := s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}}`, network))["id"].(string)
	port := s.Must(t, 201, "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network))["id"].(string)
	group := s.Must(t, 200, "GET", "/security-groups", "")["security_groups"].([]any)[0].(map[string]any)["id"].(string)
	s.Must(t, 200, "PUT", "/quotas/fake_project_id", `{"quota": {"network": -1, "subnet": -1, "port": -1, "security_group": -1, "security_group_rule": -1}}`)
	existing := map[string]string{"network": network, "subnet": subnet, "port": port, "security_group": group}

	words := rapid.SampledFrom([]string{"", "x", "0", "-1", "4", "6", "true", "10.0.0.0/24", "10.9.0.0/16", "0.0.0.0/0", "10.0.0.77", "::", "2001:db8::/64", "2001:db8::1", "fa:16:3e:00:00:01", "00:00:00:00:00:00",
		"ingress", "egress", "IPv4", "IPv6", "tcp", "icmp", "vlan", "vxlan", "flat", "physnet1", "network:dhcp", "network:router_interface", "network:floatingip", "default", "slaac",
		"\u0000", "\n", "'", "é", "\U0010ffff", strings.Repeat("y", 300), network, subnet, port, group, "00000000-0000-4000-8000-000000000000"})
	members := rapid.SampledFrom([]string{"id", "name", "start", "end", "destination", "nexthop", "ip_address", "subnet_id", "mac_address", "opt_name", "opt_value", "ip_version", "network_id",
		"provider:network_type", "provider:segmentation_id", "provider:physical_network", "enable_snat", "external_fixed_ips"})
	var document func(depth int) *rapid.Generator[any]
	document = func(depth int) *rapid.Generator[any] {
		plain := []*rapid.Generator[any]{
			rapid.Map(words, func(s string) any { return s }), rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
			rapid.Map(rapid.SampledFrom([]string{"0", "-1", "4", "6", "24", "65535", "65536", "2147483648", "-9223372036854775809", "9223372036854775807", "1e400", "1.5", "18446744073709551616"}),
				func(s string) any { return json.Number(s) }),
		}
		if depth > 0 {
			plain = append(plain, rapid.Map(rapid.SliceOfN(document(depth-1), 0, 3), func(l []any) any { return l }),
				rapid.Map(rapid.MapOfN(members, document(depth-1), 0, 4), func(m map[string]any) any { return m }))
		}
		return rapid.OneOf(plain...)
	}
	resources := s.Core.Registry.Resources()
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom(resources).Draw(t, "resource")
		path := r.Prefix + "/" + r.Path
		if strings.Contains(path, "{") {
			t.Skip("of another resource")
		}
		item := map[string]any{}
		for _, a := range r.Attributes() {
			if a.Required && rapid.IntRange(0, 9).Draw(t, "with") > 0 || rapid.IntRange(0, 3).Draw(t, "with") == 0 {
				if a.Flags.Has(resource.Post) || rapid.IntRange(0, 19).Draw(t, "read-only") == 0 {
					item[a.Name] = document(2).Draw(t, a.Name)
				}
			}
		}
		if r.Attribute("network_id") != nil && rapid.Bool().Draw(t, "there") {
			item["network_id"] = network
		}
		method := "POST"
		if id := existing[r.Name]; id != "" && rapid.Bool().Draw(t, "update") {
			method, path = "PUT", path+"/"+id
			for k := range item {
				if !r.Attribute(k).Flags.Has(resource.Put) {
					delete(item, k)
				}
			}
		}
		var body any = map[string]any{r.Name: item}
		if rapid.IntRange(0, 9).Draw(t, "bare") == 0 {
			body = document(3).Draw(t, "body")
		}
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Do(method, path, string(raw))
		if err != nil {
			t.Fatal(err)
		}
		if wrong := sane(a); wrong != "" {
			t.Fatalf("%s %s %s\n%s: %s", method, path, raw, wrong, a)
		}
	})
	// Whatever was stored can be read.
	for _, r := range resources {
		path := r.Prefix + "/" + r.Path
		if strings.Contains(path, "{") {
			continue
		}
		if a, err := s.Do("GET", path, ""); err != nil || sane(a) != "" || !json.Valid(a.Body) {
			t.Errorf("GET %s: %v, %.500s", path, err, a)
		}
	}
	s.Settle(t)
}

// TestLimits: what is too large or of another kind is refused as such.
func TestLimits(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		typ                string
	}{
		{"POST", "/networks", `{"network": {"name": "` + strings.Repeat("x", 200000) + `"}}`, nil, 413, "HTTPRequestEntityTooLarge"},
		{"POST", "/networks", `{"network": {"name": "` + strings.Repeat("x", 256) + `"}}`, nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", `{"network": {"description": "` + strings.Repeat("é", 256) + `"}}`, nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", `{"network": {"description": "` + strings.Repeat("é", 255) + `"}}`, nil, 201, ""},
		{"POST", "/networks", strings.Repeat("[", 50000), nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", strings.Repeat(`{"network":`, 9000) + "1" + strings.Repeat("}", 9000), nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", "{\"network\": {\"name\": \"\xff\xfe\"}}", nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", `{"network": {"name": "a\u0000b"}}`, nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", `{"network": {"name": "a"}} trailing`, nil, 400, "HTTPBadRequest"},
		{"POST", "/networks", `{"network": {"name": "a"}}`, []string{"Content-Type: text/plain"}, 400, "HTTPBadRequest"},
		{"GET", "/networks/" + strings.Repeat("x", 9000), "", nil, 404, "NetworkNotFound"},
		{"GET", "/networks/%00", "", nil, 404, "HTTPNotFound"},
		{"GET", "/networks/a%2Fb", "", nil, 404, "NetworkNotFound"},
		{"GET", "/../networks", "", nil, 404, "HTTPNotFound"},
		{"PATCH", "/networks", "", nil, 405, "HTTPMethodNotAllowed"},
		{"BREW", "/networks", "", nil, 405, "HTTPMethodNotAllowed"},
	} {
		a, err := s.Do(c.method, c.path, c.body, c.header...)
		if err != nil {
			t.Errorf("%s %.60s: %v", c.method, c.path, err)
			continue
		}
		if typ, _ := a.Error(); a.Status != c.status || typ != c.typ {
			t.Errorf("%s %.60s %.60s: %.300s, want %d %s", c.method, c.path, c.body, a, c.status, c.typ)
		}
		if id := a.Header.Get("X-Openstack-Request-Id"); !strings.HasPrefix(id, "req-") {
			t.Errorf("%s %.60s: request id %q", c.method, c.path, id)
		}
	}
}
