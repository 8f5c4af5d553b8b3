package policy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/internal/config"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// Callers. Keystone gives roles with what they imply.
var (
	administrator = identity.Context{ProjectID: "admin", UserID: "root", Roles: []string{"admin", "manager", "member", "reader"}}
	projectLead   = identity.Context{ProjectID: "p1", UserID: "lead", Roles: []string{"manager", "member", "reader"}}
	member        = identity.Context{ProjectID: "p1", UserID: "u1", Roles: []string{"Member", "reader"}}
	reader        = identity.Context{ProjectID: "p1", UserID: "u2", Roles: []string{"reader"}}
	stranger      = identity.Context{ProjectID: "p2", UserID: "u3", Roles: []string{"member", "reader"}}
	service       = identity.Context{ProjectID: "service", UserID: "nova", Roles: []string{"service"}}
	nobody        = identity.Context{UserID: "u4"}
)

var callers = []struct {
	name string
	who  identity.Context
}{
	{"admin", administrator}, {"manager", projectLead}, {"member", member}, {"reader", reader},
	{"other", stranger}, {"service", service}, {"nobody", nobody},
}

// fakeParents are objects by "resource/id", with their attributes.
type fakeParents struct {
	objects map[string]map[string]any
	asked   []string
}

func (f *fakeParents) Parents(_ context.Context, resource string, ids []string) (map[string]Parent, error) {
	f.asked = append(f.asked, fmt.Sprint(resource, ids))
	found := map[string]Parent{}
	for _, id := range ids {
		if o, ok := f.objects[resource+"/"+id]; ok {
			found[id] = func(name string) (any, bool) { v, ok := o[name]; return v, ok }
		}
	}
	return found, nil
}

func (f *fakeParents) Absent(resource, id string) error {
	return fault.New(fault.NotFound, "Absent", "%s %s", resource, id)
}

type port struct {
	resource.Standard
	Name      string `json:"name"`
	NetworkID string `json:"network_id"`
	HostID    string `json:"binding:host_id"`
}

type portService struct {
	resource.Service
	*resource.Model
	encoder *resource.Encoder
}

func (s portService) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}

// world is an engine over one resource.
type world struct {
	*Engine
	port    *resource.Resource
	parents *fakeParents
	log     bytes.Buffer
	now     time.Time
}

func newWorld(t testing.TB, text string) *world {
	t.Helper()
	w := &world{now: time.Unix(1e9, 0), parents: &fakeParents{objects: map[string]map[string]any{
		"network/own":     {"project_id": "p1", "shared": false, "router:external": false},
		"network/theirs":  {"project_id": "p2", "shared": false, "router:external": false},
		"network/shared":  {"project_id": "p2", "shared": true, "router:external": false},
		"network/outside": {"project_id": "admin", "shared": false, "router:external": true},
	}}}
	w.port = &resource.Resource{Name: "port", Collection: "ports", Path: "ports"}
	const post, put, visible, enforce = resource.Post, resource.Put, resource.Visible, resource.EnforcePolicy
	w.port.Add(
		resource.Attribute{Name: "id", Flags: visible | resource.PrimaryKey},
		resource.Attribute{Name: "name", Flags: post | put | visible, Default: ""},
		resource.Attribute{Name: "tenant_id", Flags: post | visible},
		resource.Attribute{Name: "network_id", Flags: post | visible},
		resource.Attribute{Name: "mac_address", Flags: post | put | visible | enforce, Default: resource.Unspecified},
		resource.Attribute{Name: "fixed_ips", Flags: post | put | visible | enforce, Default: resource.Unspecified},
		resource.Attribute{Name: "device_owner", Flags: post | put | visible | enforce, Default: ""},
		resource.Attribute{Name: "binding:host_id", Flags: post | put | visible | enforce, Default: ""},
		resource.Attribute{Name: "options", Flags: post | put | visible | enforce, Default: nil, Validate: resource.Rules{"type:dict": map[string]any{"a": nil, "b": nil}}},
	)
	model := resource.NewModel[port]()
	w.port.Service = portService{Model: model, encoder: model.NewEncoder(w.port)}
	registry := resource.NewRegistry()
	registry.Add(w.port)
	c, err := config.FromText(text)
	if err != nil {
		t.Fatal(err)
	}
	w.Engine, err = New(Options{Config: c, Registry: registry, Logger: slog.New(slog.NewTextHandler(&w.log, nil)), Parents: w.parents, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// as makes a request's context.
func (w *world) as(who identity.Context) context.Context {
	w.Describe(&who)
	return identity.With(context.Background(), &who)
}

// body of a create as PrepareCreate makes it.
func (w *world) body(values map[string]any) *resource.Body {
	b := &resource.Body{Values: map[string]any{"name": "", "device_owner": "", "binding:host_id": "", "options": nil, "tenant_id": "p1", "network_id": "own"}, Given: map[string]bool{}}
	for name, v := range values {
		b.Values[name], b.Given[name] = v, true
	}
	return b
}

// The decision about every rule that the loaded resources use, for every
// caller, on what is p1's, against what the rule's text means to a reader.
func TestMatrix(t *testing.T) {
	const all = "admin manager member reader other service nobody"
	meaning := map[string]string{
		"":                "@" + all,
		"!":               "",
		"role:reader":     "admin manager member reader other",
		"rule:admin_only": "admin",
		"rule:admin_only or role:data_plane_integrator": "admin",
		"rule:service_api": "service",
		"role:service":     "service",
		"role:admin":       "admin",
		"(rule:admin_only) or (rule:service_api)":                                                                                                                            "admin service",
		"(rule:admin_only) or (role:manager and project_id:%(project_id)s)":                                                                                                  "admin manager",
		"(rule:admin_only) or (role:member and project_id:%(project_id)s)":                                                                                                   "admin manager member",
		"(rule:admin_only) or (role:reader and project_id:%(project_id)s)":                                                                                                   "admin manager member reader",
		"(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:service_api":                                                                               "admin manager member service",
		"(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:context_is_advsvc":                                                                         "admin manager member",
		"(rule:admin_only) or (rule:service_api) or role:member and project_id:%(project_id)s":                                                                               "admin manager member service",
		"(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner":                                                                                      "admin manager member service",
		"(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api":                                                                                      "admin manager member service",
		"(rule:admin_only) or (role:member and rule:network_owner)":                                                                                                          "admin manager member",
		"(rule:admin_only) or (rule:service_api) or role:manager and rule:network_owner":                                                                                     "admin manager service",
		"(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or rule:shared":                                                                       "admin manager member service",
		"not rule:network_device or (rule:admin_only) or (rule:service_api) or role:member and rule:network_owner":                                                           all,
		"(rule:admin_only) or (rule:service_api) or role:reader and rule:network_owner or role:reader and project_id:%(project_id)s":                                         "admin manager member reader service",
		"(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or role:member and project_id:%(project_id)s":                                         "admin manager member service",
		"rule:context_is_advsvc or (rule:admin_only) or (role:reader and rule:network_owner) or role:reader and project_id:%(project_id)s":                                   "admin manager member reader",
		"rule:context_is_advsvc or role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)":                                   "admin manager member",
		"role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)":                                                             "admin manager member",
		"(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:service_api or rule:shared or rule:external or rule:context_is_advsvc":                     "admin manager member reader service",
		"(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:shared or rule:external or rule:context_is_advsvc":                                         "admin manager member reader",
		"role:reader and project_id:%(project_id)s or rule:shared or rule:external_network or (rule:admin_only) or (role:reader and rule:network_owner) or rule:service_api": "admin manager member reader service",
		"role:reader and project_id:%(project_id)s or rule:shared or rule:external_network or (rule:admin_only) or (role:reader and rule:network_owner)":                     "admin manager member reader",
		"(rule:admin_only) or (role:member and rule:sg_owner)":                                                                                                               "admin manager member",
		"(rule:admin_only) or (role:reader and rule:sg_owner)":                                                                                                               "admin manager member reader",
		"(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:shared_security_group":                                                                     "admin manager member reader",
		"(rule:admin_only) or (role:member and rule:ext_parent_owner)":                                                                                                       "admin manager member",
		"(rule:admin_only) or (role:reader and rule:ext_parent_owner)":                                                                                                       "admin manager member reader",
		"(rule:admin_only) or (role:manager and rule:ext_parent_owner)":                                                                                                      "admin manager",
		"rule:admin_only or role:reader and project_id:%(project_id)s":                                                                                                       "admin manager member reader",
		"rule:delete_security_group_rule":         "admin manager member",
		"rule:delete_default_security_group_rule": "admin",
	}
	w := newWorld(t, "")
	w.parents.objects["security_group/own"] = map[string]any{"project_id": "p1"}
	for _, parent := range []string{"router", "policy"} {
		w.parents.objects[parent+"/own"] = map[string]any{"project_id": "p1"}
	}
	registry := exttest.New(t, exttest.Options{}).Registry
	all2, err := standards()
	if err != nil {
		t.Fatal(err)
	}
	// The targets below are not shared, so that these make no difference.
	shared := regexp.MustCompile(` or rule:shared_[a-z_]+$`)
	decided, skipped := 0, 0
	for _, d := range all2 {
		if !usedBy(registry, d.Name) {
			continue
		}
		want, ok := meaning[shared.ReplaceAllString(d.Check, "")]
		if !ok {
			skipped++
			t.Logf("no expectation for %s: %s", d.Name, d.Check)
			continue
		}
		for _, c := range callers {
			decided++
			target := &rest.Target{Params: map[string]string{"project_id": "p1", "network_id": "own", "security_group_id": "own", "router_id": "own", "policy_id": "own"}}
			got := w.Enforce(w.as(c.who), d.Name, target)
			allowed := slices.Contains(strings.Fields(want), c.name)
			if allowed != (got == nil) || got != nil && !fault.Is(got, "PolicyNotAuthorized") {
				t.Errorf("%s by %s (%s): %v; want allowed %v", d.Name, c.name, d.Check, got, allowed)
			}
		}
	}
	t.Logf("%d decisions, %d rules without expectation", decided, skipped)
	if decided < 1000 || skipped*len(callers)*20 > decided {
		t.Errorf("too few rules are covered: %d decisions, %d rules without expectation", decided, skipped)
	}
}

// usedBy tells whether a rule is about a resource, an action or a route of the registry.
func usedBy(registry *resource.Registry, name string) bool {
	action, _, _ := strings.Cut(name, ":")
	for _, r := range registry.Resources() {
		for _, verb := range []string{"get", "create", "update", "delete"} {
			if action == r.PolicyAction(verb) {
				return true
			}
		}
		for _, a := range r.Actions {
			if action == a.Name {
				return true
			}
		}
	}
	for _, route := range registry.Routes() {
		if action == route.Action {
			return true
		}
	}
	return false
}

func TestEveryResourceHasRules(t *testing.T) {
	core := exttest.New(t, exttest.Options{})
	c, err := config.FromText("")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := New(Options{Config: c, Registry: core.Registry, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Check(); err != nil {
		t.Error(err)
	}
	core.Registry.Add(new(resource.Resource).Add(resource.Attribute{Name: "color", Flags: resource.Post | resource.Put}))
	core.Registry.Handle(resource.Route{Method: "GET", Path: "/weather"}, resource.Route{Method: "GET", Path: "/moon", Action: "get_moon"})
	got := fmt.Sprint(engine.Check())
	want := `resource  has no policy rule "get_"
resource  has no policy rule "create_"
resource  has no policy rule "update_"
resource  has no policy rule "delete_"
route GET /weather names no policy action and is not open to all
route GET /moon has no policy rule "get_moon"`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAttributeRules(t *testing.T) {
	w := newWorld(t, "")
	ips := func(items ...map[string]any) []any {
		list := []any{}
		for _, i := range items {
			list = append(list, i)
		}
		return list
	}
	for _, c := range []struct {
		about  string
		who    identity.Context
		values map[string]any
		want   string // "" is allowed
	}{
		{"nothing special", member, nil, ""},
		{"a reader", reader, nil, "rule:create_port is disallowed by policy"},
		{"other's network", member, map[string]any{"network_id": "theirs"}, "rule:create_port is disallowed by policy"},
		{"a shared network", member, map[string]any{"network_id": "shared"}, ""},
		{"no such network", member, map[string]any{"network_id": "gone"}, "network gone"},
		{"the default, sent", member, map[string]any{"binding:host_id": ""}, ""},
		{"a host", member, map[string]any{"binding:host_id": "h"}, "(rule:create_port and rule:create_port:binding:host_id) is disallowed by policy"},
		{"a host, by admin", administrator, map[string]any{"binding:host_id": "h"}, ""},
		{"an address on a shared network", member, map[string]any{"network_id": "shared", "fixed_ips": ips(map[string]any{"subnet_id": "s"})}, ""},
		{"a chosen address on a shared network", member, map[string]any{"network_id": "shared", "fixed_ips": ips(map[string]any{"subnet_id": "s", "ip_address": "a"})},
			"(rule:create_port and (rule:create_port:fixed_ips and (rule:create_port:fixed_ips:ip_address and rule:create_port:fixed_ips:subnet_id))) is disallowed by policy"},
		{"a chosen address on an own network", member, map[string]any{"fixed_ips": ips(map[string]any{"ip_address": "a"})}, ""},
		{"two attributes", stranger, map[string]any{"network_id": "shared", "tenant_id": "p2", "mac_address": "m", "binding:host_id": "h"},
			"((rule:create_port and rule:create_port:mac_address) and rule:create_port:binding:host_id) is disallowed by policy"},
		{"no addresses", member, map[string]any{"network_id": "shared", "fixed_ips": ips()}, ""},
		{"a device of a tenant", member, map[string]any{"network_id": "shared", "device_owner": "compute:x"}, ""},
		{"a device of the network", member, map[string]any{"network_id": "shared", "device_owner": "network:dhcp"}, "(rule:create_port and rule:create_port:device_owner) is disallowed by policy"},
		// options has no rules of its own: default decides.
		{"an attribute without rules", member, map[string]any{"options": map[string]any{"a": 1, "c": 2}}, ""},
		{"an attribute without rules, of another project", member, map[string]any{"tenant_id": "p2", "options": map[string]any{"a": 1, "c": 2}},
			"(rule:create_port and (rule:create_port:options and (rule:create_port:options:a))) is disallowed by policy"},
	} {
		err := w.Enforce(w.as(c.who), "create_port", &rest.Target{Resource: w.port, Body: w.body(c.values)})
		got := ""
		if err != nil {
			got = fault.As(err).Message
		}
		if got != c.want {
			t.Errorf("%s: %q; want %q", c.about, got, c.want)
		}
	}
	// On update, what is named counts, also when it is the default.
	body := &resource.Body{Values: map[string]any{"binding:host_id": ""}, Given: map[string]bool{"binding:host_id": true}}
	err := w.Enforce(w.as(member), "update_port", &rest.Target{Resource: w.port, Body: body, Params: map[string]string{"project_id": "p1"}})
	if want := "(rule:update_port and rule:update_port:binding:host_id) is disallowed by policy"; !fault.Is(err, "PolicyNotAuthorized") || fault.As(err).Message != want {
		t.Errorf("update: %v; want %s", err, want)
	}
	// The path says what a sub-resource belongs to; the body cannot.
	w.parents.objects["policy/own"] = map[string]any{"project_id": "p1"}
	w.parents.objects["policy/theirs"] = map[string]any{"project_id": "p2"}
	sub := &resource.Resource{Name: "bandwidth_limit_rule", Parent: &resource.Resource{Name: "policy"}}
	for path, allowed := range map[string]bool{"own": true, "theirs": false} {
		spoof := &resource.Body{Values: map[string]any{"policy_id": "own", "ext_parent_policy_id": "own"}, Given: map[string]bool{"policy_id": true}}
		err := w.Enforce(w.as(projectLead), sub.PolicyAction("create"), &rest.Target{Resource: sub, Body: spoof, Params: map[string]string{"policy_id": path}})
		if (err == nil) != allowed {
			t.Errorf("a rule in the policy %s: %v", path, err)
		}
	}
	// A member action's document is looked into as well.
	err = w.Enforce(w.as(member), "update_port", &rest.Target{Resource: w.port, Document: map[string]any{"port": map[string]any{"binding:host_id": "x"}}, Params: map[string]string{"project_id": "p1"}})
	if !fault.Is(err, "PolicyNotAuthorized") {
		t.Errorf("action: %v", err)
	}
}

func TestVisible(t *testing.T) {
	w := newWorld(t, "")
	var objects []resource.Object
	for i, place := range []struct{ project, network string }{
		{"p1", "own"}, {"p1", "theirs"}, {"p2", "own"}, {"p2", "theirs"}, {"p2", "shared"}, {"p2", "gone"}, {"", "theirs"}, {"p3", "own"},
	} {
		objects = append(objects, &port{Standard: resource.Standard{ID: fmt.Sprint(i), ProjectID: place.project}, NetworkID: place.network})
	}
	see := func(who identity.Context) string {
		w.parents.asked = nil
		ctx, ids := w.as(who), ""
		for _, o := range w.Visible(ctx, w.port, objects) {
			ids += o.(*port).ID
		}
		if again := len(w.Visible(ctx, w.port, objects)); again != len(ids) {
			t.Errorf("the second time, %d are seen", again)
		}
		return fmt.Sprint(ids, " ", len(w.parents.asked))
	}
	// What only the network's owner may see is asked about once, for all of the page.
	for _, c := range []struct {
		who  identity.Context
		want string
	}{
		{administrator, "01234567 0"}, {member, "0127 1"}, {reader, "0127 1"}, {stranger, "123456 1"}, {service, "01234567 0"}, {nobody, " 0"},
		{identity.Context{UserID: "reader of nothing", Roles: []string{"reader", "member"}}, " 0"},
	} {
		if got := see(c.who); got != c.want {
			t.Errorf("%s sees %s; want %s", c.who.UserID, got, c.want)
		}
	}
}

func TestFields(t *testing.T) {
	w := newWorld(t, "")
	o := &port{Standard: resource.Standard{ID: "1", ProjectID: "p1"}, NetworkID: "own"}
	shown := func(who identity.Context, fields map[string]bool) string {
		return string(w.port.Service.Encode(nil, o, w.Fields(w.as(who), w.port, o, fields)))
	}
	for _, c := range []struct {
		who    identity.Context
		fields map[string]bool
		want   string
	}{
		{administrator, nil, `{"id":"1","name":"","tenant_id":"p1","project_id":"p1","network_id":"own","binding:host_id":""}`},
		{member, nil, `{"id":"1","name":"","tenant_id":"p1","project_id":"p1","network_id":"own"}`},
		{member, map[string]bool{"id": true, "binding:host_id": true}, `{"id":"1"}`},
		{member, map[string]bool{"id": true}, `{"id":"1"}`},
	} {
		if got := shown(c.who, c.fields); got != c.want {
			t.Errorf("%s, %v: %s; want %s", c.who.UserID, c.fields, got, c.want)
		}
	}
}

func TestScope(t *testing.T) {
	w := newWorld(t, "")
	system := identity.Context{UserID: "s", Roles: []string{"admin"}, SystemScope: "all"}
	domain := identity.Context{UserID: "d", Roles: []string{"admin"}, DomainID: "default"}
	target := &rest.Target{Params: map[string]string{"project_id": "p1"}}
	err := w.Enforce(w.as(system), "get_network", target)
	if want := "get_network requires a scope of ['project'], request was made with system scope."; !fault.Is(err, "InvalidScope") || fault.As(err).Message != want {
		t.Errorf("system: %v", err)
	}
	if err := w.Enforce(w.as(domain), "get_network", target); !fault.Is(err, "InvalidScope") {
		t.Errorf("domain: %v", err)
	}
	w = newWorld(t, "[oslo_policy]\nenforce_scope = false\n")
	if err := w.Enforce(w.as(system), "get_network", target); err != nil {
		t.Errorf("without enforce_scope: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	w := newWorld(t, "")
	for _, c := range []struct {
		who           identity.Context
		admin, global bool
	}{
		{administrator, true, true}, {member, false, false}, {service, false, true}, {nobody, false, false},
		{identity.Context{Roles: []string{"ADMIN"}}, true, true},
		{identity.Context{Roles: []string{"advsvc"}}, false, true},
		// Nobody brings along to be an administrator.
		{identity.Context{Admin: true, Global: true}, false, false},
	} {
		w.Describe(&c.who)
		if c.who.Admin != c.admin || c.who.Global != c.global {
			t.Errorf("%v: admin %v, global %v", c.who.Roles, c.who.Admin, c.who.Global)
		}
	}
}

func writeFile(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct{ text, want string }{
		{"", "[]"},
		{"# only\n\n   # comments\n---\n", "[]"},
		{`"a": "rule:b or role:c"`, "[a=rule:b or role:c]"},
		{"a: rule:b # note\n'b':   'it''s'\n\"c:d:e\": \"\"\n", "[a=rule:b b=it's c:d:e=]"},
		{"create_port:fixed_ips:ip_address: role:x\r\n", "[create_port:fixed_ips:ip_address=role:x]"},
		{`"a": "!" # never`, "[a=!]"},
		{`"a": "x\"y\u0041"`, `[a=x"yA]`},
		{"{}", "[]"},
		{`{"a": "rule:b", "c": [["role:x", "role:y"], "role:z", []]}`, "[a=rule:b c=(role:x and role:y) or (role:z)]"},
		{`{"a": []}`, "[a=]"},

		{"a: b\n  c: d\n", ":2: indented lines"},
		{"a: b\na: c\n", `:2: "a" is there already, in line 1`},
		{"a:\n", `:1: "a" has no expression`},
		{"a: !\n", "must be in quotes"},
		{"a: @\n", "must be in quotes"},
		{"a: [x]\n", "must be in quotes"},
		{"a: |\n", "must be in quotes"},
		{"a: null\n", "no expression"},
		{"- a\n", "must be in quotes"},
		{"a\n", `no ": " after`},
		{`"a" "b"`, `no ": " after`},
		{`"a": "b" c`, "follows the expression"},
		{`"a": "b`, "not closed"},
		{`"a": "\q"`, "escape"},
		{"a: b: c\n", "must be in quotes"},
		{"\xff", "not UTF-8"},
		{"{\n\"a\": 1}", `:2: "a": the expression must be a text`},
		{"{\n\"a\": \"x\",\n\"a\": \"y\"}", `:3: "a" is there already, in line 2`},
		{"{\"a\": \"x\"", "EOF"},
		{"{} {}", "follows the object"},
		{`{"a": [[1]]}`, "texts or lists"},
	} {
		file := writeFile(t, filepath.Join(dir, fmt.Sprint(i)), c.text)
		list, err := readFile(file)
		var got []string
		for _, o := range list {
			got = append(got, o.name+"="+o.text)
		}
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), file) {
				t.Errorf("%q: %v; want %s", c.text, err, c.want)
			}
		} else if fmt.Sprint(got) != c.want {
			t.Errorf("%q: %v; want %s", c.text, got, c.want)
		}
	}
}

func TestOverrides(t *testing.T) {
	allowed := func(r *rules, who identity.Context, action string) bool {
		e := evaluation{ctx: context.Background(), rules: r, caller: r.view(&who), target: &target{params: map[string]string{"project_id": "p1"}}}
		return e.rule(r.named(action))
	}
	build := func(old bool, pairs ...string) *rules {
		s := settings{fallback: "default", newDefaults: !old}
		for i := 0; i < len(pairs); i += 2 {
			s.overrides = append(s.overrides, override{name: pairs[i], text: pairs[i+1], file: "f", line: i})
		}
		r, err := compile(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		about string
		r     *rules
		who   identity.Context
		rule  string
		want  bool
	}{
		{"default", build(false), reader, "create_network", false},
		{"deprecated rule, off", build(false), nobody, "create_network", false},
		{"deprecated rule, on", build(true), nobody, "create_network", true},
		{"deprecated rule, but a file says otherwise", build(true, "create_network", "role:member"), nobody, "create_network", false},
		{"file", build(false, "create_network", "role:reader"), reader, "create_network", true},
		{"a base rule", build(false, "admin_only", "role:reader"), reader, "update_network:shared", true},
		{"the administrator", build(false, "context_is_admin", "role:boss"), identity.Context{Roles: []string{"boss"}}, "update_network:shared", true},
		{"the last file counts", build(false, "create_network", "@", "create_network", "!"), administrator, "create_network", false},
		{"under the deprecated name", build(false, "create_networks_tags", "role:reader"), reader, "create_network:tags", true},
		{"the deprecated name as an alias", build(false, "create_networks_tags", "rule:create_network:tags"), reader, "create_network:tags", false},
		{"a rule of one's own", build(false, "mine", "user_id:u2", "create_network", "rule:mine"), reader, "create_network", true},
		{"unknown action", build(false), reader, "paint_port", true}, // owner
		{"unknown action, other project", build(false), stranger, "paint_port", false},
		{"no default rule", build(false, "default", "!"), administrator, "paint_port", false},
		{"unknown rule", build(false, "create_network", "rule:nothing", "default", "!"), administrator, "create_network", false},
	} {
		if got := allowed(c.r, c.who, c.rule); got != c.want {
			t.Errorf("%s: %v", c.about, got)
		}
	}
	_, err := compile(settings{fallback: "default", overrides: []override{
		{"create_network", "rule:a", "x.yaml", 1}, {"a", "rule:b", "x.yaml", 2}, {"b", "not rule:a", "x.yaml", 3}, {"c", "role", "x.yaml", 4},
		{"get_port", "http://example.org", "x.yaml", 5},
	}})
	for _, want := range []string{"a -> b -> a", `x.yaml:4: policy rule "c"`, "x.yaml:5: policy rule \"get_port\": \"http://example.org\": http: checks are not supported"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want it to say %s", err, want)
		}
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, filepath.Join(dir, "policy.yaml"), `"create_port": "!"`)
	w := newWorld(t, fmt.Sprintf("[oslo_policy]\npolicy_file = %s\npolicy_dirs = %s\n", file, filepath.Join(dir, "policy.d")))
	allowed := func() bool {
		return w.Enforce(w.as(member), "create_port", &rest.Target{Resource: w.port, Body: w.body(nil)}) == nil
	}
	step := func(about string, want bool) {
		t.Helper()
		w.now = w.now.Add(interval)
		if got := allowed(); got != want {
			t.Errorf("%s: %v\n%s", about, got, w.log.String())
		}
	}
	step("the file", false)
	writeFile(t, file, `"create_port": "role:member"`)
	if allowed() {
		t.Error("files are looked at more often than they should be")
	}
	step("the changed file", true)
	writeFile(t, filepath.Join(dir, "policy.d", "10"), `"create_port": "role:manager"`)
	step("a new file in the directory", false)
	writeFile(t, filepath.Join(dir, "policy.d", "10"), `"create_port": "role:manager or"`)
	step("a mistake", false)
	step("a mistake, still", false)
	if n := strings.Count(w.log.String(), "are not used"); n != 1 || !strings.Contains(w.log.String(), "10:1: ") {
		t.Errorf("the mistake was logged %d times:\n%s", n, w.log.String())
	}
	if err := os.Remove(filepath.Join(dir, "policy.d", "10")); err != nil {
		t.Fatal(err)
	}
	step("without the directory's file", true)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "policy.d", "20"), `"create_port": "!"`)
	step("a lost file changes nothing", true)

	c, err := config.FromText("[oslo_policy]\npolicy_file = " + file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Config: c, Registry: resource.NewRegistry(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err == nil {
		t.Error("a configured file that is not there was no error")
	}
}

func BenchmarkEnforceCreatePort(b *testing.B) {
	w := newWorld(b, "")
	ctx := w.as(member)
	target := &rest.Target{Resource: w.port, Body: w.body(map[string]any{"fixed_ips": []any{map[string]any{"subnet_id": "s"}}})}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Enforce(ctx, "create_port", target); err != nil {
			b.Fatal(err)
		}
	}
}

// A request of its own for each: the caller's roles and the network are looked up anew.
func BenchmarkEnforceCreatePortNewRequest(b *testing.B) {
	w := newWorld(b, "")
	who := member
	w.Describe(&who)
	target := &rest.Target{Resource: w.port, Body: w.body(nil)}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Enforce(identity.With(context.Background(), &who), "create_port", target); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000Ports(b *testing.B) {
	w := newWorld(b, "")
	ctx := w.as(member)
	var objects []resource.Object
	for i := range 1000 {
		objects = append(objects, &port{Standard: resource.Standard{ID: fmt.Sprint(i), ProjectID: []string{"p1", "p2"}[i%2]}, NetworkID: "own"})
	}
	b.ReportAllocs()
	for b.Loop() {
		w.parents.asked = nil
		if seen := w.Visible(ctx, w.port, objects); len(seen) != 1000 || w.Fields(ctx, w.port, seen[0], nil)["binding:host_id"] {
			b.Fatal(len(seen))
		}
	}
}
