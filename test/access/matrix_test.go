package access

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/identity/policy"
	"isospin/internal/resource"
	"isospin/internal/rest"
	"isospin/test/servertest"
)

var update = flag.Bool("update", false, "write testdata/matrix.txt anew")

// The callers, in the order of the columns. Keystone gives a role with those it implies.
var callers = []struct {
	name string
	identity.Context
}{
	{"admin", identity.Context{ProjectID: "admin", UserID: "root", Roles: []string{"admin", "manager", "member", "reader"}}},
	{"service", identity.Context{ProjectID: "service", UserID: "nova", Roles: []string{"service"}}},
	{"manager", identity.Context{ProjectID: "p1", UserID: "m1", Roles: []string{"manager", "member", "reader"}}},
	{"member", identity.Context{ProjectID: "p1", UserID: "u1", Roles: []string{"member", "reader"}}},
	{"reader", identity.Context{ProjectID: "p1", UserID: "r1", Roles: []string{"reader"}}},
	{"other", identity.Context{ProjectID: "p2", UserID: "u2", Roles: []string{"member", "reader"}}},
	// Over HTTP, who has no token ends at 401; the engine is asked all the same.
	{"nobody", identity.Context{}},
}

// A situation is whose the target is and whose what it belongs to.
type situation struct {
	name           string
	project, owner string // of the target; of its parents
	shared         bool   // both
}

// The situations, in the order of the columns. Attributes that rules look at
// have the value that is refused most: ports are network devices, RBAC
// policies are for everybody.
var situations = []situation{
	{name: "own", project: "p1", owner: "p1"},
	{name: "shared", project: "p3", owner: "p3", shared: true},
	// What a caller of p2 makes for itself on what is p1's.
	{name: "below", project: "p2", owner: "p1"},
}

// ours are actions for which Neutron has no rule of its own and lets its default
// rule decide; the defaults of internal/identity/policy have one all the same.
var ours = map[string]string{
	"update_port_binding":                "as the other calls on bindings: they say where a port is",
	"create_port_binding:vnic_type":      "Neutron knows no attributes of bindings when it enforces rules, and Nova, a service, gives these",
	"create_port_binding:profile":        "as above",
	"update_port_binding:vnic_type":      "as above",
	"update_port_binding:profile":        "as above",
	"update_security_group_rule":         "as deletion; nothing of a rule can be changed",
	"update_default_security_group_rule": "as deletion; nothing of a rule can be changed",
}

// target is one thing that policy decides about.
type target struct {
	name     string
	resource *resource.Resource // nil: of a route
}

// decisions are the engine's, by target, situation and caller.
type decisions map[string]map[string]map[string]bool

// contract reads the rules of the contract.
func contract(t *testing.T) (names []string, rules map[string]string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules = map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, expression, ok := strings.Cut(strings.TrimRight(line, "\n"), " "); ok && name != "#" {
			names = append(names, name)
			rules[name] = expression
		}
	}
	return names, rules
}

// actions are all policy actions of a registry, with their resources.
func actions(registry *resource.Registry) map[string]*resource.Resource {
	all := map[string]*resource.Resource{}
	for _, route := range registry.Routes() {
		if route.Action != "" {
			all[route.Action] = nil
		}
	}
	for _, r := range registry.Resources() {
		for _, verb := range []string{"get", "create", "update", "delete"} {
			all[r.PolicyAction(verb)] = r
			if r.Taggable {
				all[verb+"_"+r.Name+":tags"] = r
			}
		}
		for _, a := range r.Actions {
			all[a.Name] = r
		}
	}
	return all
}

// targets are those of the contract that a registry has.
func targets(t *testing.T, registry *resource.Registry) []target {
	t.Helper()
	known := actions(registry)
	names, _ := contract(t)
	var list []target
	for _, name := range slices.Concat(names, []string{"default"}, slices.Sorted(maps.Keys(ours))) {
		action, attribute, _ := strings.Cut(name, ":")
		r, ok := known[name]
		if !ok {
			if r, ok = known[action]; !ok && name != "default" {
				continue
			}
			attribute, key, _ := strings.Cut(attribute, ":")
			if r != nil && attribute != "" && r.Attribute(attribute) == nil && r.Attribute(attribute+":"+key) == nil && !inDocument(r, action) {
				continue // of an extension that is not loaded
			}
		}
		list = append(list, target{name, r})
	}
	return list
}

// inDocument tells whether the action has a document instead of attributes.
func inDocument(r *resource.Resource, action string) bool {
	return slices.ContainsFunc(r.Actions, func(a resource.Action) bool { return a.Name == action })
}

// values are the attributes of the target.
func (s *situation) values(r *resource.Resource) map[string]any {
	v := map[string]any{"tenant_id": s.project}
	if r == nil {
		return v
	}
	for name, value := range map[string]any{
		"shared": s.shared, "router:external": false, "device_owner": "network:dhcp", "target_tenant": "*", "belongs_to_default_sg": false,
		"network_id": "parent", "security_group_id": "parent",
	} {
		if r.Attribute(name) != nil {
			v[name] = value
		}
	}
	if r.Parent != nil {
		v[r.Parent.Name+"_id"] = "parent"
	}
	if strings.HasPrefix(r.Name, "alias_") {
		v["policy_id"] = "parent"
	}
	return v
}

// parents answers what rules ask of the objects that targets belong to.
type parents struct{ of *situation }

func (p *parents) Parents(_ context.Context, _ string, ids []string) (map[string]policy.Parent, error) {
	found := map[string]policy.Parent{}
	for _, id := range ids {
		found[id] = func(name string) (any, bool) {
			v, ok := map[string]any{"project_id": p.of.owner, "tenant_id": p.of.owner, "shared": p.of.shared, "router:external": false}[name]
			return v, ok
		}
	}
	return found, nil
}

func (p *parents) Absent(resource, id string) error {
	return fault.New(fault.NotFound, "NotFound", "%s %s", resource, id)
}

// decide asks the engine about everything.
func decide(t *testing.T, registry *resource.Registry, list []target) decisions {
	t.Helper()
	c, err := config.FromText("")
	if err != nil {
		t.Fatal(err)
	}
	p := &parents{}
	engine, err := policy.New(policy.Options{Config: c, Logger: slog.New(slog.DiscardHandler), Registry: registry, Parents: p})
	if err != nil {
		t.Fatal(err)
	}
	all := decisions{}
	for _, of := range list {
		all[of.name] = map[string]map[string]bool{}
		for i := range situations {
			p.of = &situations[i]
			all[of.name][p.of.name] = map[string]bool{}
			for _, caller := range callers {
				who := caller.Context
				engine.Describe(&who)
				about := rest.Target{Resource: of.resource, Body: &resource.Body{Values: p.of.values(of.resource)}}
				err := engine.Enforce(identity.With(context.Background(), &who), of.name, &about)
				if err != nil && !fault.IsKind(err, fault.Forbidden) {
					t.Fatalf("%s: %v", of.name, err)
				}
				all[of.name][p.of.name][caller.name] = err == nil
			}
		}
	}
	return all
}

// text is the matrix as testdata/matrix.txt has it.
func (d decisions) text(list []target) string {
	var b strings.Builder
	b.WriteString("# Who may do what: + yes, - no. Written by go test ./test/access -update; TestMatrix and TestPeer tell how it is checked.\n#")
	for _, s := range situations {
		fmt.Fprintf(&b, "\n# %s:", s.name)
		for _, c := range callers {
			b.WriteString(" " + c.name)
		}
	}
	b.WriteString("\n")
	for _, of := range list {
		fmt.Fprintf(&b, "%-62s", of.name)
		for _, s := range situations {
			b.WriteString(" ")
			for _, c := range callers {
				b.WriteString(map[bool]string{true: "+", false: "-"}[d[of.name][s.name][c.name]])
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestMatrix: the engine decides as testdata/matrix.txt says, which has a line
// for every rule of the contract that concerns what is loaded. A change of the
// file is a change of who may do what: review it line by line. TestPeer checks
// the same against oslo.policy and the contract's expressions.
func TestMatrix(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	list := targets(t, s.Core.Registry)
	have := decide(t, s.Core.Registry, list).text(list)
	const file = "testdata/matrix.txt"
	if *update {
		if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(want), "\n")
	equal, total := 0, 0
	for line := range strings.Lines(have) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		total++
		if i := slices.Index(lines, line); i < 0 {
			t.Errorf("not in %s:\n%s", file, line)
			continue
		}
		equal++
	}
	if n := len(lines) - 1; n != strings.Count(have, "\n") {
		t.Errorf("%s has %d lines, %d are wanted", file, n, strings.Count(have, "\n"))
	}
	t.Logf("%d of %d targets, each for %d callers in %d situations", equal, total, len(callers), len(situations))
}

// TestPeer: oslo.policy decides from the contract's expressions as our engine
// from its own defaults.
func TestPeer(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import oslo_policy").CombinedOutput(); err != nil {
		t.Skipf("skipped: there is no oslo.policy (python3-oslo.policy): %v %.300s", err, out)
	}
	s := servertest.Start(t, servertest.Networks)
	list := targets(t, s.Core.Registry)
	decided := decide(t, s.Core.Registry, list)
	_, rules := contract(t)
	type question struct {
		of     target
		s      situation
		caller string
	}
	var questions []question
	var asked [][]any
	for _, of := range list {
		if ours[of.name] != "" {
			continue
		}
		for _, s := range situations {
			about := maps.Clone(s.values(of.resource))
			about["project_id"] = s.project
			for _, parent := range []string{"network", "security_group", "ext_parent"} {
				about[parent+":project_id"] = s.owner
			}
			if about["network_id"] != nil {
				about["shared"], about["router:external"] = s.shared, false
			}
			for _, c := range callers {
				questions = append(questions, question{of, s, c.name})
				creds := map[string]any{"roles": append([]string{}, c.Roles...)}
				if c.ProjectID != "" {
					creds["project_id"], creds["user_id"] = c.ProjectID, c.UserID
				}
				asked = append(asked, []any{of.name, about, creds})
			}
		}
	}
	in, err := json.Marshal(map[string]any{"rules": rules, "questions": asked})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/evaluate.py")
	cmd.Stdin = bytes.NewReader(in)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || len(out) != len(questions) {
		t.Fatalf("%v, %d answers to %d questions: %s", err, len(out), len(questions), complaints.String())
	}
	equal := 0
	for i, q := range questions {
		if have := decided[q.of.name][q.s.name][q.caller]; have != (out[i] == '+') {
			t.Errorf("%s, %s, %s: %v, and oslo.policy says %c", q.of.name, q.s.name, q.caller, have, out[i])
			continue
		}
		equal++
	}
	t.Logf("%d of %d decisions are oslo.policy's", equal, len(questions))
}
