package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "isospin/"

// edge forbids imports.
type edge struct {
	from []string // packages below and at these directories
	to   []string // may not import these; "*" is every package of ours
	but  []string // except these
	// deep: nor may anything of ours that they import.
	deep bool
	why  string
}

var edges = []edge{
	{from: []string{"internal/agent"}, deep: true,
		to:  []string{"internal/store", "internal/rest", "internal/core", "internal/ext", "internal/feed", "internal/driver"},
		why: "an agent knows the server by the feed's contract only"},
	{from: []string{"internal/core", "internal/ext"}, deep: true,
		to:  []string{"internal/rest", "internal/agent"},
		why: "the domain knows neither HTTP nor hosts"},
	{from: []string{"internal/core", "internal/ext"},
		to:  []string{"net/http"},
		why: "the domain does not know HTTP"},
	{from: []string{"internal/fault", "internal/config", "internal/telemetry", "internal/reconcile"},
		to: []string{"*"}, why: "it is at the bottom"},
	{from: []string{"internal/resource"},
		to: []string{"*", "net/http", "database/sql"}, but: []string{"internal/resource", "internal/fault"},
		why: "the schema kernel knows neither HTTP nor SQL nor any resource"},
	{from: []string{"internal/kernel"},
		to: []string{"*"}, but: []string{"internal/kernel", "internal/reconcile"},
		why: "a kernel surface knows no feature"},
	{from: []string{"internal/ovs"},
		to: []string{"*"}, but: []string{"internal/ovs", "internal/kernel", "internal/reconcile"},
		why: "Open vSwitch's protocols know no feature"},
	{from: []string{"api"},
		to: []string{"*"}, but: []string{"api"},
		why: "a contract does not know who keeps it"},
}

// plugins are the directories whose children plug themselves in, by an init
// function, and are listed in all/ and nowhere else.
var plugins = []string{"internal/ext", "internal/agent", "internal/driver/*", "internal/driver/*/*"}

// generic are names that say nothing of what is in there.
var generic = []string{"util", "utils", "common", "manager", "helper", "helpers"}

// pkg is one directory with Go files.
type pkg struct {
	dir       string   // from the root of the module, with slashes
	name      string   // without _test
	doc       string   // the package comment
	imports   []string // of files that are no tests; ours are directories
	plugsIn   bool     // has an init function
	generated bool     // all its files are
	files     []string
}

func TestSourceTree(t *testing.T) {
	packages, err := read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages were found", len(packages))
	}
	for _, wrong := range check(packages) {
		t.Error(wrong)
	}
}

// read parses the packages of a module. It opens every file itself, so that
// go test knows when its cached result is stale.
func read(root fs.FS) (map[string]*pkg, error) {
	packages := map[string]*pkg{}
	set := token.NewFileSet()
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file == "." {
				return nil
			}
			if _, err := fs.Stat(root, path.Join(file, "go.mod")); err == nil {
				return fs.SkipDir // another module
			}
			if name == "testdata" || name == "vendor" || name == "bin" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			return nil
		}
		source, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(set, file, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(file)
		p := packages[dir]
		if p == nil {
			p = &pkg{dir: dir, generated: true}
			packages[dir] = p
		}
		p.add(name, tree)
		return nil
	})
	return packages, err
}

func (p *pkg) add(file string, tree *ast.File) {
	p.files = append(p.files, file)
	p.name = strings.TrimSuffix(tree.Name.Name, "_test")
	p.generated = p.generated && ast.IsGenerated(tree)
	if tree.Doc != nil && !ast.IsGenerated(tree) {
		p.doc += tree.Doc.Text()
	}
	if strings.HasSuffix(file, "_test.go") {
		return
	}
	for _, i := range tree.Imports {
		if to, err := strconv.Unquote(i.Path.Value); err == nil {
			p.imports = append(p.imports, strings.TrimPrefix(to, module))
		}
	}
	for _, d := range tree.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			p.plugsIn = true
		}
	}
}

// check returns what is wrong, sorted.
func check(packages map[string]*pkg) []string {
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, p := range packages {
		for _, e := range edges {
			checkEdge(packages, p, e, complain)
		}
		checkPlugin(packages, p, complain)
		checkNames(p, complain)
		if !p.generated && !strings.HasPrefix(p.doc, "Package "+p.name+" ") &&
			!(p.name == "main" && strings.HasPrefix(p.doc, "Command "+path.Base(p.dir)+" ")) {
			complain("%s: one comment above a package clause must begin %q and say what the package is for", p.dir, "Package "+p.name)
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

func checkEdge(packages map[string]*pkg, p *pkg, e edge, complain func(string, ...any)) {
	if !slices.ContainsFunc(e.from, func(d string) bool { return within(p.dir, d) }) {
		return
	}
	forbidden := func(to string) bool {
		if slices.ContainsFunc(e.but, func(d string) bool { return within(to, d) }) {
			return false
		}
		return slices.ContainsFunc(e.to, func(d string) bool { return d == "*" && packages[to] != nil || within(to, d) })
	}
	seen := map[string]bool{p.dir: true}
	var follow func(q *pkg, way string)
	follow = func(q *pkg, way string) {
		for _, to := range q.imports {
			if forbidden(to) {
				complain("%s imports %s%s: %s", p.dir, to, way, e.why)
				continue
			}
			// Packages below e.from are checked themselves.
			next := packages[to]
			if e.deep && next != nil && !seen[to] && !slices.ContainsFunc(e.from, func(d string) bool { return within(to, d) }) {
				seen[to] = true
				follow(next, " by way of "+to)
			}
		}
	}
	follow(p, "")
}

// family is the directory of plug-ins that the package at dir is one of, the
// nearest one; name is its directory there. A harness for tests (exttest) is
// none, and may use all of them.
func family(dir string) (parent string, ok bool) {
	parent = path.Dir(dir)
	for _, pattern := range plugins {
		if match, _ := path.Match(pattern, parent); match && path.Base(dir) != "all" && !strings.HasSuffix(dir, "test") {
			return parent, true
		}
	}
	return "", false
}

func checkPlugin(packages map[string]*pkg, p *pkg, complain func(string, ...any)) {
	if parent := path.Dir(p.dir); path.Base(p.dir) == "all" {
		for _, to := range p.imports {
			if q := packages[to]; q != nil && within(to, parent) && to != parent && !q.plugsIn {
				complain("%s imports %s, which has no init function that registers it", p.dir, to)
			}
		}
		return
	}
	parent, ok := family(p.dir)
	if !ok {
		// A part of a plug-in: the rule below holds for it too.
		for d := path.Dir(p.dir); d != "."; d = path.Dir(d) {
			if q, isPlugin := family(d); isPlugin && packages[d] != nil {
				checkSiblings(packages, p, d, q, complain)
			}
		}
		return
	}
	if p.plugsIn || parent == "internal/ext" {
		// The nearest list: internal/driver/mech/all for internal/driver/mech/x.
		list := packages[path.Join(parent, "all")]
		switch {
		case !p.plugsIn:
			complain("%s has no init function that registers it", p.dir)
		case list == nil:
			complain("%s registers itself, but there is no %s/all to list it", p.dir, parent)
		case !slices.Contains(list.imports, p.dir):
			complain("%s registers itself, but %s/all does not list it", p.dir, parent)
		}
	}
	checkSiblings(packages, p, p.dir, parent, complain)
}

// checkSiblings: a plug-in, or a part of it, imports no other one.
func checkSiblings(packages map[string]*pkg, p *pkg, self, parent string, complain func(string, ...any)) {
	for _, to := range p.imports {
		if !within(to, parent) || to == parent || within(to, self) {
			continue
		}
		sibling := path.Join(parent, strings.SplitN(strings.TrimPrefix(to, parent+"/"), "/", 2)[0])
		if q := packages[sibling]; q != nil && q.plugsIn || parent == "internal/ext" {
			complain("%s imports %s: a plug-in uses another only through an interface that %s declares", p.dir, to,
				map[bool]string{true: "internal/core", false: "their parent"}[parent == "internal/ext"])
		}
	}
}

func checkNames(p *pkg, complain func(string, ...any)) {
	for element := range strings.SplitSeq(p.dir, "/") {
		if slices.Contains(generic, strings.ToLower(element)) {
			complain("%s: the directory's name %q says nothing of what is there", p.dir, element)
		}
	}
	if slices.Contains(generic, strings.ToLower(p.name)) {
		complain("%s: the package's name %q says nothing of what is there", p.dir, p.name)
	}
	for _, file := range p.files {
		stem := strings.TrimSuffix(strings.TrimSuffix(file, ".go"), "_test")
		if slices.Contains(generic, strings.ToLower(stem)) {
			complain("%s: the file's name says nothing of what is there", filepath.ToSlash(path.Join(p.dir, file)))
		}
	}
}

// within tells whether the package at dir is at or below top.
func within(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }
