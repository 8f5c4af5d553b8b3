// Package policy decides what callers may do and see, by the rules of
// oslo.policy: Neutron's own, and what the operator's policy files make of
// them. It is the rest.Enforcer of auth_strategy = keystone.
//
// It must not know any particular resource, nor how callers are authenticated.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// What the operator configures.
var (
	policyFile = config.String("oslo_policy", "policy_file", "policy.yaml",
		"File of policy rules that differ from the defaults, YAML or JSON. A relative name is looked for beside the configuration files; the default name need not be there. Changes take effect without a restart.")
	policyDirs = config.Multi("oslo_policy", "policy_dirs", []string{"policy.d"},
		"Directories of more policy files, read in the order of their names after policy_file. They need not be there.")
	policyDefaultRule = config.String("oslo_policy", "policy_default_rule", "default",
		"Rule that decides about what has no rule of its own.")
	enforceScope = config.Bool("oslo_policy", "enforce_scope", true,
		"Refuse tokens whose scope (project, domain, system) is not one of the rule's.")
	enforceNewDefaults = config.Bool("oslo_policy", "enforce_new_defaults", true,
		"Only the present default rules hold. When false, the deprecated ones of earlier releases permit as well, and administrators are not checked.")
)

func init() {
	config.NoEffect("oslo_policy", "remote_ssl_verify_server_crt", "rules that ask another server are refused")
	config.NoEffect("oslo_policy", "remote_content_type", "rules that ask another server are refused")
	config.NoEffect("oslo_policy", "remote_ssl_ca_crt_file", "rules that ask another server are refused")
	config.NoEffect("oslo_policy", "remote_ssl_client_crt_file", "rules that ask another server are refused")
	config.NoEffect("oslo_policy", "remote_ssl_client_key_file", "rules that ask another server are refused")
	config.NoEffect("oslo_policy", "remote_timeout", "rules that ask another server are refused")
}

// interval is how often policy files are looked at, at most.
const interval = time.Second

// Options of New.
type Options struct {
	Config *config.Config // required
	Logger *slog.Logger   // required
	// Registry holds all resources and routes; it is complete.
	Registry *resource.Registry // required
	// Parents reads objects that targets name. Default: by the registry's services.
	Parents Parents // optional
	// Now is the clock. Default: time.Now.
	Now func() time.Time // optional
}

// Engine is the policy in force. It is safe for concurrent use.
type Engine struct {
	options  Options
	source   source
	settings settings

	rules atomic.Pointer[rules]
	// next is when files are to be looked at again, in nanoseconds since 1970.
	next    atomic.Int64
	loading sync.Mutex
	state   []stamp
	// trouble is what was last logged about the files.
	trouble string
}

var _ rest.Enforcer = (*Engine)(nil)

// New reads the policy files. Its errors name what is wrong with file and line.
func New(o Options) (*Engine, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Parents == nil {
		o.Parents = services{o.Registry}
	}
	e := &Engine{options: o, source: sourceOf(o.Config)}
	e.settings = settings{
		fallback: policyDefaultRule.Of(o.Config), enforceScope: enforceScope.Of(o.Config), newDefaults: enforceNewDefaults.Of(o.Config),
		convertersOf: func(collection, attribute string) string {
			for _, r := range o.Registry.Resources() {
				if r.Collection == collection {
					if a := r.Attribute(attribute); a != nil {
						return a.Convert
					}
				}
			}
			return ""
		},
		warnDeprecated: func(file string, line int, old, new string) {
			o.Logger.Warn("a policy rule has a new name; the old one still holds", "file", file, "line", line, "rule", old, "new name", new)
		},
	}
	if err := e.load(); err != nil {
		return nil, err
	}
	e.next.Store(o.Now().Add(interval).UnixNano())
	return e, nil
}

// sourceOf resolves names of files that are relative to the configuration's.
func sourceOf(c *config.Config) source {
	var dirs []string
	for _, f := range c.Files() {
		dirs = append(dirs, filepath.Dir(f))
	}
	resolve := func(name string) []string {
		if filepath.IsAbs(name) {
			return []string{name}
		}
		var list []string
		for _, d := range dirs {
			if p := filepath.Join(d, name); len(list) == 0 || list[len(list)-1] != p {
				list = append(list, p)
			}
		}
		return list
	}
	s := source{optional: !policyFile.IsSet(c)}
	if name := policyFile.Of(c); name != "" {
		for i, p := range resolve(name) {
			if i == 0 || exists(p) && !exists(s.file) {
				s.file = p
			}
		}
	}
	for _, d := range policyDirs.Of(c) {
		s.dirs = append(s.dirs, resolve(d)...)
	}
	return s
}

// load reads the files and replaces the rules.
func (e *Engine) load() error {
	overrides, state, err := e.source.read()
	e.state = state
	if err != nil {
		return err
	}
	s := e.settings
	s.overrides = overrides
	r, err := compile(s)
	if err != nil {
		return err
	}
	e.rules.Store(r)
	return nil
}

// current returns the rules, anew when a file has changed. Files with a
// mistake change nothing: what held before holds on, and the log says why.
func (e *Engine) current() *rules {
	if e.options.Now().UnixNano() >= e.next.Load() && e.loading.TryLock() {
		defer e.loading.Unlock()
		e.reload()
		e.next.Store(e.options.Now().Add(interval).UnixNano())
	}
	return e.rules.Load()
}

func (e *Engine) reload() {
	if !e.source.changed(e.state) {
		return
	}
	switch err := e.load(); {
	case err == nil:
		e.trouble = ""
		e.options.Logger.Info("policy files were read again")
	case err.Error() != e.trouble:
		e.trouble = err.Error()
		e.options.Logger.Error("the changed policy files are not used; the rules from before hold", "error", err)
	}
}

// Check returns an error that names every resource, action and route of the
// registry that has no rule: what nobody has thought about, nobody may reach.
func (e *Engine) Check() error {
	r := e.rules.Load()
	var wrong []error
	need := func(of, action string) {
		if r.byName[action] == nil {
			wrong = append(wrong, fmt.Errorf("%s has no policy rule %q", of, action))
		}
	}
	for _, res := range e.options.Registry.Resources() {
		of := "resource " + res.Name
		if res.Serves(resource.Show) || res.Serves(resource.List) {
			need(of, res.PolicyAction("get"))
		}
		// What has nothing that clients may write is only read, whatever else
		// its service refuses; the default rule goes before that refusal.
		var flags resource.Flags
		for _, a := range res.Attributes() {
			flags |= a.Flags
		}
		for _, o := range []resource.Operation{resource.Create, resource.Update, resource.Delete} {
			written := flags.Has(resource.Post) || flags.Has(resource.Put)
			if o == resource.Create {
				written = flags.Has(resource.Post)
			}
			if res.Serves(o) && written {
				need(of, res.PolicyAction(string(o)))
			}
		}
		if _, ok := res.Service.(resource.Tagger); ok && res.Taggable {
			for _, verb := range []string{"get", "create", "update", "delete"} {
				need(of, verb+"_"+res.Name+":tags")
			}
		}
		for _, a := range res.Actions {
			need(of, a.Name)
		}
	}
	for _, route := range e.options.Registry.Routes() {
		of := "route " + route.Method + " " + route.Path
		switch {
		case route.Action != "":
			need(of, route.Action)
		case !route.Open:
			wrong = append(wrong, fmt.Errorf("%s names no policy action and is not open to all", of))
		}
	}
	if r.fallback == nil {
		wrong = append(wrong, fmt.Errorf("[oslo_policy] policy_default_rule: there is no rule %q", e.settings.fallback))
	}
	return errors.Join(wrong...)
}

// Describe sets what the rules make of a caller: administrator, and seeing all projects.
func (e *Engine) Describe(who *identity.Context) {
	r := e.current()
	passes := func(name string) bool {
		l := r.byName[name]
		return l != nil && (&evaluation{ctx: context.Background(), rules: r, caller: r.view(who), target: &target{}}).rule(l)
	}
	who.Admin = passes("context_is_admin")
	who.Global = who.Admin || passes("context_with_global_access") || passes("service_api") || passes("context_is_advsvc")
}

// Authenticator describes the callers that another finds.
func (e *Engine) Authenticator(of identity.Authenticator) identity.Authenticator {
	return described{of, e}
}

type described struct {
	identity.Authenticator
	engine *Engine
}

func (d described) Authenticate(r *http.Request) (*identity.Context, error) {
	who, err := d.Authenticator.Authenticate(r)
	if err != nil {
		return nil, err
	}
	own := *who
	d.engine.Describe(&own)
	return &own, nil
}

// Enforce implements rest.Enforcer.
func (e *Engine) Enforce(ctx context.Context, action string, t *rest.Target) error {
	r := e.current()
	v := r.viewOf(ctx)
	if r.adminsPass && v.who.Admin {
		return nil
	}
	p := r.planOf(action, t.Resource)
	if err := r.checkScope(v, p.rule, action); err != nil {
		return err
	}
	about := &target{resource: t.Resource, body: t.Body, params: t.Params, load: t.Object}
	eval := evaluation{ctx: ctx, rules: r, caller: v, target: about, parents: parentsOf(ctx), from: e.options.Parents}
	ok, err := eval.decide(func() bool {
		if !eval.rule(p.rule) {
			return false
		}
		return p.each(t, func(of *attributePlan, subs []string) bool {
			if !eval.rule(of.rule) {
				return false
			}
			for _, s := range subs {
				if !eval.rule(r.named(s)) {
					return false
				}
			}
			return true
		})
	})
	switch {
	case err != nil:
		return err
	case ok:
		return nil
	case eval.absent != nil:
		return eval.absent
	}
	return fault.New(fault.Forbidden, "PolicyNotAuthorized", "%s is disallowed by policy", p.text(t))
}

func (r *rules) checkScope(v *callerView, l *rule, action string) error {
	if !r.enforceScope || l == nil || len(l.scope) == 0 {
		return nil
	}
	for _, s := range l.scope {
		if s == v.scope {
			return nil
		}
	}
	return fault.New(fault.Forbidden, "InvalidScope", "%s requires a scope of %s, request was made with %s scope.", action, listText(l.scope), v.scope)
}

// Visible implements rest.Enforcer.
func (e *Engine) Visible(ctx context.Context, res *resource.Resource, objects []resource.Object) []resource.Object {
	kept, err := e.Seen(ctx, res, objects)
	if err != nil {
		e.options.Logger.ErrorContext(ctx, "objects are left out of a list, since policy could not be decided", "resource", res.Name, "error", err)
	}
	return kept
}

// Seen returns those of the objects that the caller may see, in their order.
// With an error, it could not be found out for others, and may be later.
func (e *Engine) Seen(ctx context.Context, res *resource.Resource, objects []resource.Object) ([]resource.Object, error) {
	r := e.current()
	v := r.viewOf(ctx)
	if len(objects) == 0 || r.adminsPass && v.who.Admin {
		return objects, nil
	}
	l := r.planOf(res.PolicyAction("get"), res).rule
	if r.checkScope(v, l, "") != nil {
		return nil, nil
	}
	about := target{resource: res}
	eval := evaluation{ctx: ctx, rules: r, caller: v, target: &about, parents: parentsOf(ctx), from: e.options.Parents}
	// What other objects decide is found out for all of the page at once.
	for {
		eval.missing = eval.missing[:0]
		kept := make([]resource.Object, 0, len(objects))
		var undecided error
		for _, o := range objects {
			about.object = o
			if eval.rule(l) && eval.err == nil {
				kept = append(kept, o)
			}
			undecided, eval.err = errors.Join(undecided, eval.err), nil
		}
		if len(eval.missing) == 0 {
			return kept, undecided
		}
		if err := eval.parents.fetch(ctx, e.options.Parents, eval.missing); err != nil {
			return nil, e.lasting(ctx, res, err)
		}
	}
}

// lasting logs an error that lasts until the rules change: what cannot be
// decided because of it is not shown. It returns all others.
func (e *Engine) lasting(ctx context.Context, res *resource.Resource, err error) error {
	if !errors.Is(err, errNoResource) {
		return err
	}
	e.options.Logger.ErrorContext(ctx, "what policy cannot decide about is not shown", "resource", res.Name, "error", err)
	return nil
}

// Assume returns a context for the same caller in which an object is as given:
// rules that ask for the owner of a port's network, or for what is shared of
// it, see that one instead of what is stored now.
func (e *Engine) Assume(ctx context.Context, res *resource.Resource, o resource.Object) context.Context {
	b, ok := o.(resource.Based)
	if !ok {
		return ctx
	}
	ctx = identity.With(ctx, identity.From(ctx))
	parentsOf(ctx).byID[parentKey{res.Name, b.Base().ID}] = func(attribute string) (any, bool) { return valueOf(res, o, attribute) }
	return ctx
}

// Fields implements rest.Enforcer.
func (e *Engine) Fields(ctx context.Context, res *resource.Resource, o resource.Object, fields map[string]bool) map[string]bool {
	shown, err := e.Shown(ctx, res, o, fields)
	if err != nil {
		e.options.Logger.ErrorContext(ctx, "attributes are not shown, since policy could not be decided", "resource", res.Name, "error", err)
	}
	return shown
}

// Shown returns the members of the object that are shown: those of fields
// (nil: all) that the caller may see. With an error, it could not be found out
// for others, and may be later.
func (e *Engine) Shown(ctx context.Context, res *resource.Resource, o resource.Object, fields map[string]bool) (map[string]bool, error) {
	r := e.current()
	v := r.viewOf(ctx)
	if r.adminsPass && v.who.Admin {
		return fields, nil
	}
	guarded := r.planOf(res.PolicyAction("get"), res).shown
	eval := evaluation{ctx: ctx, rules: r, caller: v, target: &target{resource: res, object: o}, parents: parentsOf(ctx), from: e.options.Parents}
	var shown map[string]bool
	var undecided error
	for _, g := range guarded {
		if fields != nil && !fields[g.attribute] {
			continue
		}
		ok, err := eval.decide(func() bool { return eval.rule(g.rule) })
		if err != nil {
			undecided = errors.Join(undecided, e.lasting(ctx, res, fmt.Errorf("attribute %s: %w", g.attribute, err)))
			eval.err = nil
		}
		if ok && err == nil {
			continue
		}
		if shown == nil {
			shown = allOf(res, fields)
		}
		delete(shown, g.attribute)
	}
	if shown == nil {
		return fields, undecided
	}
	return shown, undecided
}

// allOf returns a copy of fields, or the names of all visible attributes.
func allOf(res *resource.Resource, fields map[string]bool) map[string]bool {
	list := make(map[string]bool, len(res.Attributes())+1)
	if fields != nil {
		for name, asked := range fields {
			list[name] = asked
		}
		return list
	}
	for _, a := range res.Attributes() {
		if a.Flags.Has(resource.Visible) {
			list[a.Name] = true
			if a.Name == "tenant_id" {
				list["project_id"] = true
			}
		}
	}
	return list
}
