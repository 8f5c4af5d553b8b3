package api

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"isospin/test/servertest"
)

const (
	// featureList says what of each extension hosts do.
	featureList = "testdata/features.txt"
	// featurePage is written from it.
	featurePage = "../../docs/reference/features.md"
)

// TestFeatures: docs/reference/features.md says of every extension that is
// served what hosts do of it, as testdata/features.txt has it; and each test
// that shows a data path is there.
//
//	go test ./test/api -run TestFeatures -update    writes the page
func TestFeatures(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	raw, err := os.ReadFile(featureList)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for i, line := range strings.Split(string(raw), "\n") {
		if alias, what, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			if lines[alias] != "" {
				t.Errorf("%s:%d: %s is there twice", featureList, i+1, alias)
			}
			lines[alias] = what
		}
	}
	unserved := readReasons(t, aliasReasons)
	ours := neutrons(t)
	var rows, absent []string
	counts := map[string]int{}
	for _, alias := range ours {
		if reason := unserved[alias]; reason != "" {
			absent = append(absent, fmt.Sprintf("| `%s` | %s |", alias, reason))
			continue
		}
		x, served := s.Core.Registry.Extension(alias)
		if !served {
			continue // TestScope tells
		}
		kind, rest, _ := strings.Cut(lines[alias], " ")
		delete(lines, alias)
		counts[kind]++
		var data, by string
		switch kind {
		case "hosts":
			dir, test, _ := strings.Cut(rest, " ")
			if !hasTest(t, filepath.Join("../..", dir), test) {
				t.Errorf("%s: %s has no %s", alias, dir, test)
			}
			data, by = "yes", fmt.Sprintf("`%s` in `%s`", test, dir)
		case "api":
			data, by = "API only", rest
		case "server":
			data, by = "–", "nothing for hosts to do"
		default:
			t.Errorf("%s: %s does not say what hosts do of %s", featureList, kind, alias)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", alias, x.Name, data, by))
	}
	for alias := range lines {
		t.Errorf("%s: %s is not served", featureList, alias)
	}
	drivers := mechanisms(t)
	page := fmt.Sprintf(`# What is there of Neutron's extensions

<!-- Written by go test ./test/api -run TestFeatures -update from test/api/testdata/features.txt. -->

Mechanism drivers: %s. Of the %d extensions that are served, %d have a data path on
hosts, %d have an API whose data path is another than Neutron's or none, and %d need
nothing of hosts. How the API is compared with Neutron's: [api.md](api.md).

| Extension | Name | Data path (openvswitch) | Shown by, or what is different |
| --- | --- | --- | --- |
%s

## Not served

| Extension | Why |
| --- | --- |
%s
`, strings.Join(drivers, ", "), len(rows), counts["hosts"], counts["api"], counts["server"], strings.Join(rows, "\n"), strings.Join(absent, "\n"))
	if *update {
		if err := os.MkdirAll(filepath.Dir(featurePage), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(featurePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(featurePage); err != nil || string(have) != page {
		t.Errorf("%s is stale: go test ./test/api -run TestFeatures -update (%v)", featurePage, err)
	}
}

// neutrons are the names of Neutron's own extensions.
func neutrons(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(aliasList)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return slices.DeleteFunc(list, func(line string) bool { return strings.HasPrefix(line, "#") })
}

// mechanisms are the drivers that internal/driver/mech has.
func mechanisms(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../../internal/driver/mech/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range found {
		if name := filepath.Base(filepath.Dir(file)); name != "all" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// hasTest tells whether a package has a test.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	declaration := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(name) + `\(t \*testing\.T\)`)
	return slices.ContainsFunc(files, func(file string) bool {
		raw, err := os.ReadFile(file)
		return err == nil && declaration.Match(raw)
	})
}
