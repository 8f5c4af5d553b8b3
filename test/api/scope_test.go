package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"isospin/internal/resource"
	"isospin/test/servertest"
)

const (
	// aliasList names every extension of Neutron itself.
	aliasList = "testdata/aliases.txt"
	// aliasReasons are those that are not served, below the reason why.
	aliasReasons = "testdata/aliases.unserved"
)

// TestScope: every extension of Neutron is served, or is listed with a reason.
func TestScope(t *testing.T) {
	reasons := readReasons(t, aliasReasons)
	s := servertest.Start(t, servertest.Networks)
	served, all := 0, 0
	for _, alias := range neutrons(t) {
		all++
		_, there := s.Core.Registry.Extension(alias)
		reason := reasons[alias]
		delete(reasons, alias)
		switch {
		case there && reason != "":
			t.Errorf("%s is served; %s says that it is not: %s", alias, aliasReasons, reason)
		case !there && reason == "":
			t.Errorf("%s is not served, and %s has no reason", alias, aliasReasons)
		case there:
			served++
			if readFact(t, alias) == nil {
				t.Errorf("%s is served, but its facts are not in %s", alias, contractDir)
			}
		}
	}
	for alias := range reasons {
		t.Errorf("%s: %s is no extension of Neutron", aliasReasons, alias)
	}
	t.Logf("%d of %d extensions of Neutron are served; %d are listed with a reason", served, all, all-served)
}

// TestDeclared sends what attributes declare: each is a filter, a sort key, and
// a member of the bodies of POST and PUT as its flags say, and no other is.
func TestDeclared(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	right, all := map[string]int{}, map[string]int{}
	const absent = "00000000-0000-4000-8000-000000000000"
	check := func(kind string, a *resource.Attribute, method, at, body string, may bool, refusal string) {
		t.Helper()
		all[kind]++
		answer, err := s.Do(method, at, body)
		if err != nil {
			t.Fatal(err)
		}
		_, message := answer.Error()
		refused := answer.Status == http.StatusBadRequest && strings.Contains(message, refusal)
		if refused == may || answer.Status >= http.StatusInternalServerError && answer.Status != http.StatusNotImplemented {
			t.Errorf("%s %s %s: %s; %s may be %s: %v", method, at, body, answer, a.Name, kind, may)
			return
		}
		right[kind]++
	}
	for _, r := range s.Core.Registry.Resources() {
		at := r.URL()
		if r.Parent != nil {
			continue // an object above would have to be there; scripts have those
		}
		var required strings.Builder // in the place of what a create body must have
		for _, a := range r.Attributes() {
			if a.Required {
				fmt.Fprintf(&required, "%q: \"x\", ", a.Name)
			}
		}
		for _, a := range r.Attributes() {
			if r.Serves(resource.List) {
				check("filters", a, "GET", at+"?"+url.Values{a.Name: {"x"}}.Encode(), "", a.Flags.Has(resource.Filter), "is invalid attribute for filtering")
				if !r.NoSorting {
					check("sort keys", a, "GET", at+"?sort_dir=asc&sort_key="+url.QueryEscape(a.Name), "", a.Flags.Has(resource.Sort), "is invalid attribute for sort_keys")
				}
			}
			if r.Serves(resource.Create) && !a.Required {
				check("in POST", a, "POST", at, fmt.Sprintf(`{%q: {%s%q: []}}`, r.Name, required.String(), a.Name), a.Flags.Has(resource.Post), "not allowed in POST")
			}
			if r.Serves(resource.Update) {
				check("in PUT", a, "PUT", at+"/"+absent, fmt.Sprintf(`{%q: {%q: []}}`, r.Name, a.Name), a.Flags.Has(resource.Put), "Cannot update read-only attribute")
			}
		}
	}
	var parts []string
	for kind := range all {
		parts = append(parts, fmt.Sprintf("%d of %d %s", right[kind], all[kind], kind))
	}
	slices.Sort(parts)
	t.Logf("as declared: %s", strings.Join(parts, ", "))
}
