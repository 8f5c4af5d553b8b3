package policy

import (
	"context"
	"strings"
	"testing"

	"isospin/internal/identity"
	"isospin/internal/resource"
)

// Whatever is read can be decided, twice alike.
func FuzzParse(f *testing.F) {
	all, err := standards()
	if err != nil {
		f.Fatal(err)
	}
	for _, d := range all {
		f.Add(d.Check)
	}
	for _, s := range []string{"'a':%(b)s", "not(rule:a)", "((@", "%(", "field:a:b=~(", "role:%(a)s%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		if err != nil {
			return
		}
		x := &rule{name: "x", check: c}
		r := &rules{byName: map[string]*rule{"x": x}, roles: map[string]int{}}
		if err := r.link(x, nil, nil); err != nil {
			return
		}
		e := evaluation{
			ctx: context.Background(), rules: r, caller: r.view(&identity.Context{Roles: []string{"member"}, ProjectID: "p"}),
			target: &target{body: &resource.Body{Values: map[string]any{"tenant_id": "p", "shared": true}}},
		}
		if first := e.rule(x); first != e.rule(x) {
			t.Errorf("%q: two decisions differ", text)
		}
	})
}

// Whatever a file holds, it is read, or refused with its name.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"\"a\": \"b\" # c\n'd': ''''\n", "a: b", `{"a": [["b"], "c"]}`, `a: "\`, "---\n...", ": x", "'': x", "a : b", `{"a": 1`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(string, string) ([]override, error){
			parseYAML, func(file, text string) ([]override, error) { return parseJSON(file, []byte(text)) },
		} {
			list, err := read("file", text)
			if err != nil && !strings.HasPrefix(err.Error(), "file:") {
				t.Errorf("%q: %v", text, err)
			}
			for _, o := range list {
				_, _ = parse(o.text) // an error is as good
			}
		}
	})
}
