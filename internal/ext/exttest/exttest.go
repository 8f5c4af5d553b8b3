// Package exttest is a whole server core for tests: configuration, store, core
// and all extension families, with the feed following, below the HTTP edge.
// Tests speak to it as clients do, in JSON, and as hosts do, in reports.
//
// Tests that use it are of an external package (package x_test), since it
// imports every extension. It must not know HTTP.
package exttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/driver/mech"
	_ "isospin/internal/driver/mech/all" // all drivers
	"isospin/internal/driver/segment"
	_ "isospin/internal/driver/segment/all" // all types
	"isospin/internal/ext"
	_ "isospin/internal/ext/all" // all families
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// Options of New.
type Options struct {
	// Config is added to DefaultConfig. Optional.
	Config string // optional
	// Logger of the core. Default: what is at least a warning becomes the test's log.
	Logger *slog.Logger // optional
	// Trace is told what transactions cost on a database server.
	Trace func(store.Cost) // optional
}

// DefaultConfig has VXLAN for projects, and flat and VLAN on any physical network "public" and "physnet1".
const DefaultConfig = `
[ml2]
project_network_types = vxlan
[ml2_type_vxlan]
vni_ranges = 1:1000
[ml2_type_vlan]
network_vlan_ranges = physnet1:100:199
`

// Deadline of everything that a test waits for.
const Deadline = 20 * time.Second

// Core is a running core. Its end is the test's.
type Core struct {
	*core.Core
	Hub *feed.Hub
	t   testing.TB

	segments   map[string]network.SegmentDriver
	mechanisms []port.Mechanism
	modules    []ext.Module
}

// New makes a core on a new database and follows its feed.
func New(t testing.TB, o Options) *Core {
	t.Helper()
	ctx := context.Background()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	c, err := config.FromText(DefaultConfig + o.Config)
	must(t, err)
	segments, err := segment.Load(c)
	must(t, err)
	mechanisms, err := mech.Load(c)
	must(t, err)
	modules, err := ext.Modules()
	must(t, err)
	schemas := core.Schemas()
	for _, m := range modules {
		schemas = append(schemas, m.Schemas...)
	}
	connection := storetest.NewPrepared(t, func(connection string) error {
		s, err := store.Open(ctx, store.Options{Connection: connection, Logger: o.Logger})
		if err != nil {
			return err
		}
		return errors.Join(s.Upgrade(ctx, schemas...), s.Close())
	})
	s, err := store.Open(ctx, store.Options{Connection: connection, Logger: o.Logger, Rehearse: storetest.Rehearse(), Trace: o.Trace})
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close of the store: %v", err)
		}
	})
	must(t, s.Upgrade(ctx, schemas...))
	k := &Core{t: t, segments: segments, mechanisms: mechanisms, modules: modules, Core: core.New(core.Options{Config: c, Store: s, Logger: o.Logger, Segments: segments, Mechanisms: mechanisms})}
	k.Hub = feed.New(feed.Options{Store: s, Logger: o.Logger})
	k.Hub.ProjectCore(feed.Services{Networks: k.Networks, Subnets: k.Subnets, Ports: k.Ports, Agents: k.Agents})
	k.Ports.Table.CompareRecalled()
	for _, m := range modules {
		must(t, m.Install(k.Core, k.Hub))
	}
	must(t, k.Seal())
	must(t, k.Hub.Start(ctx))
	running, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { k.Hub.Run(running) })
	for _, work := range k.Background {
		ended.Go(func() { work(running, time.Now()) })
	}
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type writer struct{ t testing.TB }

func (w writer) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// HostOptions of Core.Host.
type HostOptions struct {
	// Agents are the host's functions. Default: all that a host has.
	Agents []string // optional
	// Physical networks that the host reaches.
	Physical []string // optional
	// Zone of the DHCP and L3 agents. Default: none.
	Zone string // optional
	// TunnelIP is the host's tunnel endpoint. Default: 192.0.2.<number of hosts>.
	TunnelIP string // optional
}

// Host registers a host's agents as its first report does, in one transaction.
// The id of each is returned by agent type.
func (k *Core) Host(name string, o HostOptions) map[string]string {
	k.t.Helper()
	if o.Agents == nil {
		o.Agents = []string{agent.OpenVSwitch, agent.DHCP, agent.L3, agent.Metadata}
	}
	ids := map[string]string{}
	must(k.t, k.Store.Tx(identity.System(context.Background()), func(tx *store.Tx) error {
		ctx := identity.System(context.Background())
		if o.TunnelIP == "" {
			var n int
			if err := tx.Row("SELECT COUNT(*) FROM (SELECT DISTINCT host FROM agent) x", nil, &n); err != nil {
				return err
			}
			o.TunnelIP = fmt.Sprintf("192.0.2.%d", n+1)
		}
		for _, function := range o.Agents {
			configurations := "{}"
			if function == agent.OpenVSwitch {
				c := agent.Configuration{TunnelTypes: []string{"vxlan"}, TunnelingIP: o.TunnelIP, DatapathType: "system", Bridge: "br-int", BridgeMappings: map[string]string{}}
				for _, p := range o.Physical {
					c.BridgeMappings[p] = "br-" + p
				}
				raw, err := json.Marshal(c)
				if err != nil {
					return err
				}
				configurations = string(raw)
			}
			report := &agent.Agent{Host: name, AgentType: function, Binary: "test", Topic: "test", Configurations: json.RawMessage(configurations)}
			if o.Zone != "" && (function == agent.DHCP || function == agent.L3) {
				report.AvailabilityZone = &o.Zone
			}
			a, err := k.Agents.Report(ctx, tx, report, true)
			if err != nil {
				return err
			}
			ids[function] = a.ID
		}
		return nil
	}))
	return ids
}

// Report stores a host's report as its stream does.
func (k *Core) Report(host string, applied ...*message.Applied) {
	k.t.Helper()
	must(k.t, k.Hub.Report(identity.System(context.Background()), host, applied))
}

// Settled waits until the feed has followed every committed change.
func (k *Core) Settled() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	var last int64
	must(k.t, k.Store.View(ctx, func(tx *store.Tx) (err error) {
		last, err = tx.LastSequence()
		return err
	}))
	must(k.t, k.Hub.Reached(ctx, last))
}

// Restarted is the feed of a server that starts now on the same database. It follows nothing.
func (k *Core) Restarted() *feed.Hub {
	k.t.Helper()
	c := core.New(core.Options{Config: k.Config, Store: k.Store, Logger: k.Logger, Segments: k.segments, Mechanisms: k.mechanisms})
	h := feed.New(feed.Options{Store: k.Store, Logger: k.Logger})
	h.ProjectCore(feed.Services{Networks: c.Networks, Subnets: c.Subnets, Ports: c.Ports, Agents: c.Agents})
	for _, m := range k.modules {
		must(k.t, m.Install(c, h))
	}
	must(k.t, h.Start(context.Background()))
	return h
}

// View is what a host must hold now, of one kind, by id.
func (k *Core) View(host string, kind message.Kind) map[string]*message.Object {
	k.t.Helper()
	k.Settled()
	view := map[string]*message.Object{}
	for key, o := range k.Hub.Snapshot(host) {
		if key.Kind == kind {
			view[key.ID] = o
		}
	}
	return view
}

// Stream is a host's stream, and what the host holds by it.
type Stream struct {
	k    *Core
	host string
	s    *feed.Stream
	held map[feed.Key]uint64
}

// Attach begins a host's stream. Its end is the test's.
func (k *Core) Attach(host string) *Stream {
	s, m := k.Hub.Open(host, nil)
	k.t.Cleanup(s.Close)
	a := &Stream{k, host, s, map[feed.Key]uint64{}}
	a.take(m)
	return a
}

func (a *Stream) take(m *message.ServerMessage) {
	for _, o := range m.Upserts {
		kind, id := o.KindAndID()
		a.held[feed.Key{Kind: kind, ID: id}] = o.Version
	}
	for _, d := range m.Deletes {
		delete(a.held, feed.Key{Kind: d.Kind, ID: d.Id})
	}
	for _, d := range m.ForwardingDeltas {
		a.held[feed.Key{Kind: message.Kind_KIND_FORWARDING, ID: d.NetworkId}] = d.Version
	}
	for _, d := range m.AddressSetDeltas {
		a.held[feed.Key{Kind: message.Kind_KIND_ADDRESS_SET, ID: d.Id}] = d.Version
	}
}

// Agrees makes sure that the stream has brought the host all that it must
// hold now, in the versions of now, and nothing else.
func (a *Stream) Agrees() {
	a.k.t.Helper()
	a.k.Settled()
	want := map[feed.Key]uint64{}
	for key, o := range a.k.Hub.Snapshot(a.host) {
		want[key] = o.Version
	}
	// What is due was marked before Settled returned: there is nothing to wait for.
	if m := a.s.Due(); m != nil {
		a.take(m)
	}
	for key, version := range want {
		if held, ok := a.held[key]; !ok || held != version {
			a.k.t.Errorf("%s was not told %s %s as it is now (held: %v)", a.host, key.Kind, key.ID, ok)
		}
	}
	for key := range a.held {
		if _, ok := want[key]; !ok {
			a.k.t.Errorf("%s was not told that %s %s is gone", a.host, key.Kind, key.ID)
		}
	}
}

// LastSequence is where the feed ends now.
func (k *Core) LastSequence() int64 {
	k.t.Helper()
	var last int64
	must(k.t, k.Store.View(context.Background(), func(tx *store.Tx) (err error) {
		last, err = tx.LastSequence()
		return err
	}))
	return last
}

// Events are the changes after a sequence number, as "create port <id>", with
// ids replaced by the names that names gives them.
func (k *Core) Events(after int64, names map[string]string) []string {
	k.t.Helper()
	var list []string
	must(k.t, k.Store.View(context.Background(), func(tx *store.Tx) error {
		events, err := tx.Events(after, 10000)
		for _, e := range events {
			id := e.ID
			if n, ok := names[id]; ok {
				id = n
			}
			list = append(list, fmt.Sprintf("%s %s %s", e.Op, e.Kind, id))
		}
		return err
	}))
	return list
}

// Rows are the rows of a query, each as its columns' values.
func (k *Core) Rows(columns int, query string, args ...any) [][]any {
	k.t.Helper()
	var rows [][]any
	must(k.t, k.Store.View(context.Background(), func(tx *store.Tx) error {
		return tx.Query(func(scan func(...any) error) error {
			row, dest := make([]any, columns), make([]any, columns)
			for i := range row {
				dest[i] = &row[i]
			}
			rows = append(rows, row)
			err := scan(dest...)
			for i := range row { // as SQLite has them
				switch v := row[i].(type) {
				case []byte:
					row[i] = string(v)
				case int32:
					row[i] = int64(v)
				}
			}
			return err
		}, query, args...)
	}))
	return rows
}

// Client calls as one caller.
type Client struct {
	k   *Core
	who identity.Context
	// parent is the id of the object that sub-resources are of.
	parent string
}

// In is the client for sub-resources of one object.
func (c *Client) In(parentID string) *Client { return &Client{k: c.k, who: c.who, parent: parentID} }

func (c *Client) service(r *resource.Resource) resource.Service {
	if r.Parent == nil {
		return r.Service
	}
	return r.Within(c.parent)
}

// Admin is an administrator of the project "admin".
func (k *Core) Admin() *Client {
	return &Client{k: k, who: identity.Context{ProjectID: "admin", Admin: true, Roles: []string{"admin"}}}
}

// As is a member of a project.
func (k *Core) As(project string) *Client {
	return &Client{k: k, who: identity.Context{ProjectID: project, Roles: []string{"member"}}}
}

// Context carries the caller.
func (c *Client) Context() context.Context {
	who := c.who
	who.RequestID = identity.NewRequestID()
	return identity.With(context.Background(), &who)
}

// Object is an object as the API shows it.
type Object map[string]any

// ID of the object.
func (o Object) ID() string { return o.Text("id") }

// Text is a member that is a string; "" when it is not.
func (o Object) Text(name string) string {
	s, _ := o[name].(string)
	return s
}

// JSON is a member's JSON form, keys sorted.
func (o Object) JSON(name string) string {
	raw, err := json.Marshal(o[name])
	if err != nil { // it was JSON
		return err.Error()
	}
	return string(raw)
}

func (c *Client) resource(name string) *resource.Resource {
	r := c.k.Registry.Named(name)
	if r == nil {
		c.k.t.Helper()
		c.k.t.Fatalf("there is no resource %s", name)
	}
	return r
}

func (c *Client) decode(text string, args []any) (map[string]any, error) {
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	v, err := value.Decode([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", text)
	}
	return m, nil
}

func show(r *resource.Resource, o resource.Object) (Object, error) {
	raw := r.Service.Encode(nil, o, nil)
	var shown Object
	if err := json.Unmarshal(raw, &shown); err != nil {
		return nil, fmt.Errorf("%s is shown as %s: %w", r.Name, raw, err)
	}
	return shown, nil
}

func (c *Client) caller() resource.Caller {
	return resource.Caller{ProjectID: c.who.ProjectID, SetProject: c.who.Admin}
}

// TryCreate makes an object of a resource (its singular name) from the inner
// body: `{"name": %q}` with args as fmt has them.
func (c *Client) TryCreate(name, body string, args ...any) (Object, error) {
	r := c.resource(name)
	item, err := c.decode(body, args)
	if err != nil {
		return nil, err
	}
	prepared, err := r.PrepareCreate(item, c.caller())
	if err != nil {
		return nil, err
	}
	made, err := c.service(r).Create(c.Context(), []*resource.Body{prepared})
	if err != nil {
		return nil, err
	}
	return show(r, made[0])
}

// Create is TryCreate that must succeed.
func (c *Client) Create(name, body string, args ...any) Object {
	c.k.t.Helper()
	o, err := c.TryCreate(name, body, args...)
	if err != nil {
		c.k.t.Fatalf("create %s %s: %v", name, fmt.Sprintf(body, args...), err)
	}
	return o
}

// TryUpdate changes an object.
func (c *Client) TryUpdate(name, id, body string, args ...any) (Object, error) {
	r := c.resource(name)
	item, err := c.decode(body, args)
	if err != nil {
		return nil, err
	}
	prepared, err := r.PrepareUpdate(item, c.caller())
	if err != nil {
		return nil, err
	}
	o, err := c.service(r).Update(c.Context(), id, prepared, resource.Match{})
	if err != nil {
		return nil, err
	}
	return show(r, o)
}

// Update is TryUpdate that must succeed.
func (c *Client) Update(name, id, body string, args ...any) Object {
	c.k.t.Helper()
	o, err := c.TryUpdate(name, id, body, args...)
	if err != nil {
		c.k.t.Fatalf("update %s %s %s: %v", name, id, fmt.Sprintf(body, args...), err)
	}
	return o
}

// TryGet reads an object.
func (c *Client) TryGet(name, id string) (Object, error) {
	r := c.resource(name)
	o, err := c.service(r).Get(c.Context(), id)
	if err != nil {
		return nil, err
	}
	return show(r, o)
}

// Get is TryGet that must succeed.
func (c *Client) Get(name, id string) Object {
	c.k.t.Helper()
	o, err := c.TryGet(name, id)
	if err != nil {
		c.k.t.Fatalf("get %s %s: %v", name, id, err)
	}
	return o
}

// List reads the objects that match a filter: attribute and values, one after the other.
func (c *Client) List(name string, filter ...string) []Object {
	c.k.t.Helper()
	r := c.resource(name)
	q := &resource.Query{}
	for i := 0; i+1 < len(filter); i += 2 {
		a := r.Attribute(filter[i])
		if a == nil || !a.Flags.Has(resource.Filter) {
			c.k.t.Fatalf("%s has no filter %s", name, filter[i])
		}
		values, err := a.Values([]string{filter[i+1]})
		must(c.k.t, err)
		q.Filters = append(q.Filters, resource.FilterBy{Attribute: a, Values: values})
	}
	rows, err := c.service(r).List(c.Context(), q)
	must(c.k.t, err)
	list := make([]Object, len(rows))
	for i, o := range rows {
		list[i], err = show(r, o)
		must(c.k.t, err)
	}
	return list
}

// TryDelete deletes an object.
func (c *Client) TryDelete(name, id string) error {
	return c.service(c.resource(name)).Delete(c.Context(), id, resource.Match{})
}

// Delete is TryDelete that must succeed.
func (c *Client) Delete(name, id string) {
	c.k.t.Helper()
	if err := c.TryDelete(name, id); err != nil {
		c.k.t.Fatalf("delete %s %s: %v", name, id, err)
	}
}

// TryAct calls a member action (PUT /routers/{id}/add_router_interface).
func (c *Client) TryAct(name, id, action, body string, args ...any) (Object, error) {
	for _, a := range c.resource(name).Actions {
		if a.Name != action {
			continue
		}
		item, err := c.decode(body, args)
		if err != nil {
			return nil, err
		}
		v, err := a.Do(c.Context(), id, item)
		if err != nil {
			return nil, err
		}
		if shown, ok := v.(resource.Shown); ok {
			return show(c.resource(name), shown.Object)
		}
		return object(v)
	}
	return nil, fmt.Errorf("%s has no action %s", name, action)
}

// Act is TryAct that must succeed.
func (c *Client) Act(name, id, action, body string, args ...any) Object {
	c.k.t.Helper()
	o, err := c.TryAct(name, id, action, body, args...)
	if err != nil {
		c.k.t.Fatalf("%s of %s %s %s: %v", action, name, id, fmt.Sprintf(body, args...), err)
	}
	return o
}

// TryCall calls a route of no resource by method and the path as it is
// registered, e.g. "/quotas/{project_id}", with its parameters in order.
func (c *Client) TryCall(method, path string, params []string, body string, args ...any) (Object, error) {
	for _, r := range c.k.Registry.Routes() {
		if r.Method != method || r.Path != path {
			continue
		}
		call := resource.Call{Params: map[string]string{}}
		names := parameters(path)
		if len(names) != len(params) {
			return nil, fmt.Errorf("%s has %d parameters", path, len(names))
		}
		for i, n := range names {
			call.Params[n] = params[i]
		}
		if body != "" {
			item, err := c.decode(body, args)
			if err != nil {
				return nil, err
			}
			call.Body = item
		}
		v, err := r.Do(c.Context(), call)
		if err != nil {
			return nil, err
		}
		return object(v)
	}
	return nil, fmt.Errorf("there is no route %s %s", method, path)
}

// Call is TryCall that must succeed.
func (c *Client) Call(method, path string, params []string, body string, args ...any) Object {
	c.k.t.Helper()
	o, err := c.TryCall(method, path, params, body, args...)
	if err != nil {
		c.k.t.Fatalf("%s %s %v: %v", method, path, params, err)
	}
	return o
}

func parameters(path string) []string {
	var names []string
	for at := 0; at < len(path); at++ {
		if path[at] != '{' {
			continue
		}
		for end := at; end < len(path); end++ {
			if path[end] == '}' {
				names = append(names, path[at+1:end])
				break
			}
		}
	}
	return names
}

func object(v any) (Object, error) {
	if v == nil {
		return nil, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var o Object
	return o, json.Unmarshal(raw, &o)
}

// Refused makes sure that err is the fault of that kind, type and message; an
// empty message is any.
func (k *Core) Refused(err error, kind fault.Kind, typ, text string) {
	k.t.Helper()
	var f *fault.Error
	switch {
	case err == nil:
		k.t.Errorf("not refused; want %s: %s", typ, text)
	case !errors.As(err, &f):
		k.t.Errorf("got %v; want %s: %s", err, typ, text)
	case f.Kind != kind || f.Type != typ || text != "" && f.Message != text:
		k.t.Errorf("got %d %s: %s\nwant %d %s: %s", f.Kind, f.Type, f.Message, kind, typ, text)
	}
}
