package gophercloud

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// networking is the part of the module that this test is about.
const networking = "github.com/gophercloud/gophercloud/v2/openstack/networking/v2"

// unserved are packages whose API is not served.
var unserved = map[string]string{
	"extensions/bgp/peers":              "BGP dynamic routing",
	"extensions/bgp/speakers":           "BGP dynamic routing",
	"extensions/bgpvpns":                "BGP VPNs",
	"extensions/fwaas_v2/groups":        "firewalls",
	"extensions/fwaas_v2/policies":      "firewalls",
	"extensions/fwaas_v2/rules":         "firewalls",
	"extensions/taas/tapmirrors":        "taps",
	"extensions/vpnaas/endpointgroups":  "VPNs",
	"extensions/vpnaas/ikepolicies":     "VPNs",
	"extensions/vpnaas/ipsecpolicies":   "VPNs",
	"extensions/vpnaas/services":        "VPNs",
	"extensions/vpnaas/siteconnections": "VPNs",
}

// uncalled are functions whose API is not served, of packages that are used.
var uncalled = map[string]string{
	"extensions/agents.ListBGPSpeakers":               "BGP dynamic routing",
	"extensions/agents.ScheduleBGPSpeaker":            "BGP dynamic routing",
	"extensions/agents.RemoveBGPSpeaker":              "BGP dynamic routing",
	"extensions/agents.ListDRAgentHostingBGPSpeakers": "BGP dynamic routing",
}

// TestComplete: the other tests of this package call every function of every
// package of the module that makes a request, but those of what is not served.
func TestComplete(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", networking+"/networks").Output()
	if err != nil {
		t.Skipf("skipped: the module's source is not there: %v", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	called := calls(t)
	packages, served, functions, used := 0, 0, 0, 0
	err = filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == "testing" {
			return filepath.SkipDir
		}
		requests := requests(t, dir)
		name := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(dir, root), string(filepath.Separator)))
		types := exported(t, dir)
		if len(requests) == 0 && !types {
			return nil
		}
		if reason, listed := unserved[name]; listed {
			if called[name] != nil {
				t.Errorf("package %s is used; unserved says that it is not: %s", name, reason)
			}
			return nil
		}
		packages++
		if called[name] != nil {
			served++
		} else {
			t.Errorf("package %s is not used, and unserved has no line", name)
			return nil
		}
		for _, f := range requests {
			if uncalled[name+"."+f] != "" {
				continue
			}
			functions++
			if called[name][f] {
				used++
			} else {
				t.Errorf("%s.%s is not called", name, f)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d packages and %d of %d functions that make requests are used; %d packages are of what is not served", served, packages, used, functions, len(unserved))
}

// parsed are the files of a directory that match.
func parsed(t *testing.T, dir string, match func(name string) bool) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if !match(filepath.Base(name)) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func source(name string) bool { return !strings.HasSuffix(name, "_test.go") }

// requests are the exported functions of a package that take a client.
func requests(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, file := range parsed(t, dir, source) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() {
				continue
			}
			if slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
				star, ok := p.Type.(*ast.StarExpr)
				if !ok {
					return false
				}
				x, ok := star.X.(*ast.SelectorExpr)
				return ok && x.Sel.Name == "ServiceClient"
			}) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// exported tells whether a package has a type for clients.
func exported(t *testing.T, dir string) bool {
	t.Helper()
	for _, file := range parsed(t, dir, source) {
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE && slices.ContainsFunc(g.Specs, func(s ast.Spec) bool { return s.(*ast.TypeSpec).Name.IsExported() }) {
				return true
			}
		}
	}
	return false
}

// calls are what the tests of this package use of the module: package → names.
func calls(t *testing.T) map[string]map[string]bool {
	t.Helper()
	used := map[string]map[string]bool{}
	for _, file := range parsed(t, ".", func(name string) bool { return strings.HasSuffix(name, "_test.go") }) {
		local := map[string]string{}
		for _, i := range file.Imports {
			at, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			below, ok := strings.CutPrefix(at, networking+"/")
			if !ok {
				continue
			}
			name := path.Base(at)
			if i.Name != nil {
				name = i.Name.Name
			}
			local[name] = below
			if used[below] == nil {
				used[below] = map[string]bool{}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if x, ok := n.(*ast.SelectorExpr); ok {
				if of, ok := x.X.(*ast.Ident); ok && local[of.Name] != "" {
					used[local[of.Name]][x.Sel.Name] = true
				}
			}
			return true
		})
	}
	return used
}
