package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"isospin/internal/resource"
	"isospin/internal/rest"
)

// asked shows a query in one line.
func asked(q *resource.Query) string {
	var s []string
	for _, f := range q.Filters {
		raw, err := json.Marshal(f.Values)
		if err != nil {
			return err.Error()
		}
		s = append(s, f.Attribute.Name+"="+string(raw))
	}
	for _, t := range q.Tags {
		s = append(s, fmt.Sprintf("tags%q any=%t not=%t", t.Tags, t.Any, t.Not))
	}
	if q.ChangedSince != nil {
		s = append(s, "since "+q.ChangedSince.Format(time.RFC3339))
	}
	for _, k := range q.Sort {
		s = append(s, fmt.Sprintf("sort %s desc=%t", k.Attribute, k.Desc))
	}
	if q.Limit != 0 || q.Marker != "" || q.Reverse {
		s = append(s, fmt.Sprintf("limit %d marker %q reverse=%t", q.Limit, q.Marker, q.Reverse))
	}
	return strings.Join(s, "; ")
}

func TestQuery(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"", ""},
		{"id=a&status&&id=b", "400 HTTPBadRequest: ['status'] is invalid attribute for filtering"},
		{"id=a&name=x%20y+z&id=b", `id=["a","b"]; name=["x y z"]`},
		{"name=", `name=[""]`},
		{"name=a;b", `name=["a;b"]`},
		{"binding%3Ahost_id=h", `binding:host_id=["h"]`},
		{"admin_state_up=True&admin_state_up=0", `admin_state_up=[true,false]`},
		{"admin_state_up=maybe", "400 InvalidInput: Invalid input for operation: 'maybe' cannot be converted to boolean."},
		{"revision_number=3&revision_number=-9999999999999999999999", "revision_number=[3,-9223372036854775808]"},
		{"project_id=p", `tenant_id=["p"]`},
		{"tenant_id=p&project_id=q", "400 TenantIdProjectIdFilterConflict: Both tenant_id and project_id passed as filters."},
		{"fixed_ips=ip_address%3D10.0.0.5&fixed_ips=subnet_id=s", `fixed_ips=[{"ip_address":["10.0.0.5"],"subnet_id":["s"]}]`},
		{"fixed_ips=True", ""},
		{"fixed_ips=x", "400 InvalidInput: Invalid input for operation: 'x' is not of the form <key>=[value]."},
		{"foo=1&it's=2&id=3", `400 HTTPBadRequest: ['foo', "it's"] is invalid attribute for filtering`},
		{"secret=1", "400 HTTPBadRequest: ['secret'] is invalid attribute for filtering"},
		{"get=1&update=2&items=3&fields=id&sort_key=&page_reverse=", ""},
		{"tags=b,a&tags=a&not-tags-any=x&tags-any=y&not-tags=z",
			`tags["a" "b"] any=false not=false; tags["x"] any=true not=true; tags["y"] any=true not=false; tags["z"] any=false not=true`},
		{"changed_since=2026-01-01T00:00:00", "since 2026-01-01T00:00:00Z"},
		{"changed_since=2026-01-01T00:00:00.5%2B02:00&changed_since=x", "since 2025-12-31T22:00:01Z"},
		{"changed_since=2026-01-01", "since 2026-01-01T00:00:00Z"},
		{"changed_since=2026-13-01", "400 InvalidInput: Invalid input for operation: The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SSZ."},
		{"changed_since=yesterday", "400 InvalidInput: Invalid input for operation: The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SSZ."},
		{"sort_key=name&sort_dir=desc&sort_key=id&sort_dir=asc", "sort name desc=true; sort id desc=false"},
		{"sort_key=project_id&sort_dir=asc&sort_key=tenant_id&sort_dir=desc", "sort tenant_id desc=false"},
		{"sort_key=name", "400 HTTPBadRequest: The number of sort_keys and sort_dirs must be same"},
		{"sort_key=x&sort_dir=asc&sort_key=description&sort_dir=up", "400 HTTPBadRequest: ['x', 'description'] is invalid attribute for sort_keys"},
		{"sort_key=id&sort_dir=up", "400 HTTPBadRequest: ['up'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"},
		{"limit=2&marker=m&page_reverse=True", `limit 2 marker "m" reverse=true`},
		{"limit=0&marker=m&page_reverse=True", ""},
		{"marker=m", ""},
		{"limit=%202%20", `limit 2 marker "" reverse=false`},
		{"limit=99999999999999999999999", `limit 2147483647 marker "" reverse=false`},
		{"limit=-1", "400 BadRequest: Bad limit request: Limit must be an integer 0 or greater and not '-1'."},
		{"limit=x", "400 BadRequest: Bad limit request: Limit must be an integer 0 or greater and not 'x'."},
		{"limit=", "400 BadRequest: Bad limit request: Limit must be an integer 0 or greater and not ''."},
		{"name=%zz", "400 HTTPBadRequest: The query string is malformed"},
		{"name=%ff", "400 HTTPBadRequest: The query string is malformed"},
		{"name=%00", "400 HTTPBadRequest: The query string is malformed"},
		{strings.Repeat("id=a&", 4096), "400 HTTPBadRequest: The query string has more than 4096 parameters"},
		{"name=" + strings.Repeat("a", 64<<10), "400 HTTPBadRequest: The query string is longer than 65536 bytes"},
		{"tags=" + manyTags(5000), "400 HTTPBadRequest: The query string has more than 4096 values"},
	} {
		w.ports.asked = nil
		if strings.HasPrefix(c[1], "400") {
			check(t, w, "GET /v2.0/ports?"+c[0], c[1])
			continue
		}
		if answer := w.do("GET /v2.0/ports?" + c[0]); answer.Code != http.StatusOK {
			t.Errorf("%s: %s", c[0], text(answer))
			continue
		}
		if got := asked(w.ports.asked); got != c[1] {
			t.Errorf("%s\n got %s\nwant %s", c[0], got, c[1])
		}
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()
}

// TestQueryWithoutExtensions shows what the extensions filter-validation and
// empty-string-filtering change.
func TestQueryWithoutExtensions(t *testing.T) {
	w := newWorld(func(o *rest.Options) {
		ports := o.Registry.Named("port")
		o.Registry = resource.NewRegistry()
		o.Registry.Add(ports)
	})
	if answer := w.do("GET /v2.0/ports?foo=1&name=&id=&id=x"); answer.Code != http.StatusOK {
		t.Fatal(text(answer))
	}
	if got, want := asked(w.ports.asked), `id=["x"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// zones is a collection of objects that are no standard ones: a name
// identifies them, and each is a *string.
type zones struct {
	resource.Service
	asked *resource.Query
}

func (z *zones) List(_ context.Context, q *resource.Query) ([]resource.Object, error) {
	z.asked = q
	name := "nova"
	return []resource.Object{&name}, nil
}

func (z *zones) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	if fields != nil && !fields["name"] {
		return append(b, "{}"...)
	}
	return fmt.Appendf(b, `{"name":%q}`, *o.(*string))
}

func TestCollectionsThatDoNotPageOrSort(t *testing.T) {
	service := &zones{}
	zone := &resource.Resource{Name: "zone", Collection: "zones", Path: "zones", Service: service}
	zone.Add(resource.Attribute{Name: "name", Flags: resource.Visible | resource.PrimaryKey})
	w := newWorld(func(o *rest.Options) { o.Registry.Add(zone) })
	check(t, w, "GET /v2.0/zones?limit=1&fields=state", `200 {"zones":[{}],"zones_links":[`+
		`{"rel":"next","href":"http://api.example/v2.0/zones?limit=1&fields=state&marker=nova"},`+
		`{"rel":"previous","href":"http://api.example/v2.0/zones?limit=1&fields=state&marker=nova&page_reverse=True"}]}`)
	zone.NoPaging, zone.NoSorting = true, true
	check(t, w, "GET /v2.0/zones?limit=x&sort_key=y", `200 {"zones":[{"name":"nova"}]}`)
	if got := asked(service.asked); got != "" {
		t.Errorf("asked %s", got)
	}
	check(t, w, "GET /v2.0/zones?tags=a&changed_since=b", "400 HTTPBadRequest: ['tags', 'changed_since'] is invalid attribute for filtering")
}

func TestLinks(t *testing.T) {
	const at = "http://api.example/v2.0/ports?"
	list := func(t *testing.T, w *world, query string) string {
		t.Helper()
		var answer struct {
			Ports []struct{ ID string }
			Links []struct{ Rel, Href string } `json:"ports_links"`
		}
		if err := json.Unmarshal(w.do("GET /v2.0/ports?"+query).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		s := fmt.Sprint(len(answer.Ports))
		for _, l := range answer.Links {
			s += " " + l.Rel + "=" + strings.TrimPrefix(l.Href, at)
		}
		return s
	}
	w := newWorld()
	for _, c := range [][2]string{
		{"fields=id", "2"},
		{"limit=1&fields=name&name=a%20b", "1 next=limit=1&fields=name&name=a+b&marker=p1 previous=limit=1&fields=name&name=a+b&marker=p1&page_reverse=True"},
		{"limit=2&marker=p0", "2 next=limit=2&marker=p2 previous=limit=2&marker=p1&page_reverse=True"},
		{"limit=3", "2 previous=limit=3&marker=p1&page_reverse=True"},
		{"page_reverse=True&limit=3", "2 next=limit=3&marker=p2"},
		{"page_reverse=True&limit=2", "2 next=limit=2&marker=p2 previous=limit=2&marker=p1&page_reverse=True"},
	} {
		if got := list(t, w, c[0]); got != c[1] {
			t.Errorf("%s\n got %s\nwant %s", c[0], got, c[1])
		}
	}
	w = newWorld(func(o *rest.Options) { o.PaginationMaxLimit = 1 })
	if got, want := list(t, w, "limit=7"), "1 next=limit=7&marker=p1 previous=limit=7&marker=p1&page_reverse=True"; got != want {
		t.Errorf("greatest limit\n got %s\nwant %s", got, want)
	}
	if got, want := list(t, w, ""), "1 next=marker=p1 previous=marker=p1&page_reverse=True"; got != want {
		t.Errorf("greatest limit, none asked for\n got %s\nwant %s", got, want)
	}
}
