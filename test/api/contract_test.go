package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"isospin/internal/resource"
	"isospin/test/servertest"
)

// contractDir holds the facts of the API, one file for each extension.
const contractDir = "../../internal/resource/testdata/contract"

type fact struct {
	Alias, Name, Summary, Updated string
	Requires                      []string
	Core                          bool `json:"core_pseudo_alias"`
	Resources                     map[string]collection
	SubResources                  map[string]collection `json:"sub_resources"`
}

type collection struct {
	Kind, URL      string
	Member         *string
	BodyCollection string `json:"body_collection"`
	Bulk           *bool  `json:"allow_bulk"`
	Paging         *bool  `json:"allow_pagination"`
	Sorting        *bool  `json:"allow_sorting"`
	Attributes     map[string]attribute
}

// absent are collections of loaded extensions that are not served.
var absent = map[string]string{
	"auto_allocated_topologies": "served by routes: looking at one makes it",
	"next_providers":            "served by a route: it has no policy action",
}

// collections are those of a fact, sub-resources among them.
func (f *fact) collections() map[string]collection {
	all := maps.Clone(f.Resources)
	for name, c := range f.SubResources {
		if all == nil {
			all = map[string]collection{}
		}
		if _, taken := all[name]; taken {
			name = c.URL // service_profiles of flavors have other attributes than service_profiles
		}
		all[name] = c
	}
	for name := range absent {
		delete(all, name)
	}
	return all
}

type attribute struct {
	Post        bool           `json:"allow_post"`
	Put         bool           `json:"allow_put"`
	Visible     bool           `json:"is_visible"`
	RequiredBy  bool           `json:"required_by_policy"`
	Enforce     bool           `json:"enforce_policy"`
	Filter      bool           `json:"is_filter"`
	Sort        bool           `json:"is_sort_key"`
	PrimaryKey  bool           `json:"primary_key"`
	HasDefault  bool           `json:"has_default"`
	Default     any            `json:"default"`
	Convert     *string        `json:"convert_to"`
	ConvertList *string        `json:"convert_list_to"`
	Validate    map[string]any `json:"validate"`
	contributor string
}

func readFact(t *testing.T, alias string) *fact {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(contractDir, alias+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	f := &fact{}
	if err := json.Unmarshal(raw, f); err != nil {
		t.Fatalf("%s: %v", alias, err)
	}
	return f
}

// ahead are attributes that are served though the extension that defines them
// is not loaded, since the rest of it is not there.
var ahead = map[string]string{}

// ownWay are facts from which the server differs on purpose.
var ownWay = map[string]string{
	"agents.alive.convert_to": "filters are checked by the attribute's converter, where Neutron calls the same converter in its database layer",
}

// loadedFacts are the facts of the core and of all loaded extensions, each
// after those that it requires: a later one redefines what an earlier one defines.
func loadedFacts(t *testing.T, registry *resource.Registry) []*fact {
	t.Helper()
	names := []string{}
	for _, core := range []string{"network", "port", "subnet", "subnetpool"} {
		if registry.Named(core) != nil {
			names = append(names, core)
		}
	}
	for _, x := range registry.Extensions() {
		names = append(names, x.Alias)
	}
	facts := map[string]*fact{}
	for _, n := range names {
		f := readFact(t, n)
		if f == nil {
			t.Errorf("extension %s: there are no facts in %s", n, contractDir)
			continue
		}
		facts[n] = f
	}
	var sorted []*fact
	done := map[string]bool{}
	var visit func(n string)
	visit = func(n string) {
		f := facts[n]
		if f == nil || done[n] {
			return
		}
		done[n] = true
		sort.Strings(f.Requires)
		for _, r := range f.Requires {
			visit(r)
		}
		sorted = append(sorted, f)
	}
	for _, n := range names {
		visit(n)
	}
	return sorted
}

// plain brings rules and defaults into the form that JSON has.
func plain(t *testing.T, v any) any {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func describe(t *testing.T, a *resource.Attribute) map[string]any {
	d := map[string]any{
		"allow_post": a.Flags.Has(resource.Post), "allow_put": a.Flags.Has(resource.Put), "is_visible": a.Flags.Has(resource.Visible),
		"required_by_policy": a.Flags.Has(resource.RequiredByPolicy), "enforce_policy": a.Flags.Has(resource.EnforcePolicy),
		"is_filter": a.Flags.Has(resource.Filter), "is_sort_key": a.Flags.Has(resource.Sort), "primary_key": a.Flags.Has(resource.PrimaryKey),
		"convert_to": a.Convert, "convert_list_to": a.ConvertList, "validate": plain(t, a.Validate),
	}
	if a.Flags.Has(resource.Post) {
		switch {
		case a.Required:
			d["default"] = "required"
		case a.Default == resource.Unspecified:
			d["default"] = "@ATTR_NOT_SPECIFIED"
		default:
			d["default"] = plain(t, a.Default)
		}
	}
	return d
}

func (a attribute) describe(t *testing.T, name string) map[string]any {
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	var rules any
	if len(a.Validate) > 0 {
		rules = plain(t, a.Validate)
	}
	d := map[string]any{
		"allow_post": a.Post, "allow_put": a.Put, "is_visible": a.Visible, "required_by_policy": a.RequiredBy, "enforce_policy": a.Enforce,
		"is_filter": a.Filter, "is_sort_key": a.Sort, "primary_key": a.PrimaryKey,
		"convert_to": text(a.Convert), "convert_list_to": text(a.ConvertList), "validate": rules,
	}
	if a.Post {
		switch {
		case name == "tenant_id": // filled in from the caller before anything is required
			d["default"] = nil
		case !a.HasDefault:
			d["default"] = "required"
		default:
			d["default"] = plain(t, a.Default)
		}
	}
	return d
}

// TestAttributes compares every attribute of every loaded resource with the facts.
func TestAttributes(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	want := map[string]map[string]attribute{} // by collection
	urls := map[string]string{}
	for _, f := range loadedFacts(t, s.Core.Registry) {
		for collection, r := range f.collections() {
			if want[collection] == nil {
				want[collection] = map[string]attribute{}
			}
			if r.Kind == "resource" && r.Member != nil && len(r.Attributes) > 0 {
				urls[collection] = strings.TrimPrefix(r.URL, "/v2.0")
			}
			for name, a := range r.Attributes {
				if name == "project_id" {
					name = "tenant_id"
				}
				if collection == "port_associations" && strings.HasPrefix(f.Alias, "standard-attr-") {
					continue // of BGP VPNs, which have a sub-resource of the same name as local IPs
				}
				if _, ok := want[collection][name]; ok && f.Alias == "standard-attr-description" {
					continue // for those that define none of their own
				}
				a.contributor = f.Alias
				want[collection][name] = a
			}
		}
	}
	for name, alias := range ahead {
		collection, attribute, _ := strings.Cut(name, ".")
		if _, loaded := s.Core.Registry.Extension(alias); loaded {
			t.Errorf("%s is loaded: %s needs no exception", alias, name)
		}
		if f := readFact(t, alias); f != nil {
			want[collection][attribute] = f.Resources[collection].Attributes[attribute]
		}
	}
	total, equal := 0, 0
	for collection, attributes := range want {
		at, ours := urls[collection]
		if !ours {
			continue
		}
		r := s.Core.Registry.Lookup(at)
		if r == nil {
			t.Errorf("%s: nothing is at %s", collection, at)
			continue
		}
		names := make([]string, 0, len(attributes))
		for n := range attributes {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			a := r.Attribute(n)
			if a == nil && r.Taggable && slices.Contains([]string{"tags-any", "not-tags", "not-tags-any"}, n) {
				continue // not attributes, but conditions of lists
			}
			total++
			if a == nil {
				t.Errorf("%s.%s (of %s) is missing", collection, n, attributes[n].contributor)
				continue
			}
			have, facts := describe(t, a), attributes[n].describe(t, n)
			for k := range facts {
				if ownWay[collection+"."+n+"."+k] != "" {
					delete(facts, k)
					delete(have, k)
				}
			}
			if reflect.DeepEqual(have, facts) {
				equal++
				continue
			}
			var parts []string
			for k := range facts {
				if !reflect.DeepEqual(have[k], facts[k]) {
					parts = append(parts, fmt.Sprintf("%s is %v, must be %v", k, have[k], facts[k]))
				}
			}
			slices.Sort(parts)
			t.Errorf("%s.%s (of %s): %s", collection, n, attributes[n].contributor, strings.Join(parts, "; "))
		}
		for _, a := range r.Attributes() {
			if _, ok := attributes[a.Name]; !ok {
				t.Errorf("%s.%s is in no loaded extension's facts", collection, a.Name)
			}
		}
	}
	t.Logf("%d of %d attributes are as in the contract", equal, total)
}

// TestCollections compares names and abilities of the loaded collections with the facts.
func TestCollections(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	total := 0
	for _, f := range loadedFacts(t, s.Core.Registry) {
		for collection, c := range f.collections() {
			if c.Kind != "resource" || c.Member == nil || len(c.Attributes) == 0 {
				continue
			}
			r := s.Core.Registry.Lookup(strings.TrimPrefix(c.URL, "/v2.0"))
			if r == nil {
				continue // TestAttributes tells
			}
			total++
			if r.Name != *c.Member || r.Collection != c.BodyCollection {
				t.Errorf("%s: body keys are %s and %s, must be %s and %s", collection, r.Name, r.Collection, *c.Member, c.BodyCollection)
			}
			for _, ability := range []struct {
				name       string
				have, must bool
			}{
				{"bulk creation", !r.NoBulk, c.Bulk == nil || *c.Bulk},
				{"paging", !r.NoPaging, c.Paging == nil || *c.Paging},
				{"sorting", !r.NoSorting, c.Sorting == nil || *c.Sorting},
			} {
				if ability.have != ability.must {
					t.Errorf("%s: %s is %v, must be %v", collection, ability.name, ability.have, ability.must)
				}
			}
		}
	}
	t.Logf("%d collections compared", total)
}

// TestExtensions compares GET /v2.0/extensions with the facts.
func TestExtensions(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	a, err := s.Do("GET", "/extensions", "")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Extensions []struct {
			Alias, Name, Description, Updated string
			Links                             []any
		}
	}
	if err := a.Decode(&doc); err != nil || a.Status != 200 {
		t.Fatalf("%s: %v", a, err)
	}
	equal := 0
	for _, x := range doc.Extensions {
		f := readFact(t, x.Alias)
		switch {
		case f == nil:
			t.Errorf("%s is in no facts", x.Alias)
		case x.Alias == "standard-attr-tag" && strings.HasPrefix(x.Name, f.Name): // the name goes on with what is loaded
			equal++
		case x.Name != f.Name || x.Updated != f.Updated:
			t.Errorf("%s: name %q, updated %q; must be %q, %q", x.Alias, x.Name, x.Updated, f.Name, f.Updated)
		case x.Description == "" || x.Links == nil:
			t.Errorf("%s: description %q, links %v", x.Alias, x.Description, x.Links)
		default:
			equal++
		}
		for _, need := range requires(f) {
			if _, ok := s.Core.Registry.Extension(need); !ok {
				t.Errorf("%s requires %s, which is not loaded", x.Alias, need)
			}
		}
		one := s.Must(t, 200, "GET", "/extensions/"+x.Alias, "")
		if one["alias"] != x.Alias || one["name"] != x.Name {
			t.Errorf("GET /extensions/%s: %v", x.Alias, one)
		}
	}
	t.Logf("%d of %d extensions are as in the contract", equal, len(doc.Extensions))
}

func requires(f *fact) []string {
	if f == nil {
		return nil
	}
	return f.Requires
}
