// Package autoallocate is the auto-allocated-topology extension: one call makes
// the network of a project, with subnets of the default pools and a router to
// the default external network, once.
//
// It must not know how networks, subnets and routers are made: it makes them
// as a client would.
package autoallocate

import (
	"context"
	"errors"
	"slices"
	"sync"

	"isospin/internal/core"
	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/ext"
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "autoallocate", Schemas: []store.Schema{schema}, Install: install, After: []string{"router"}})
}

var schema = store.Schema{Module: "ext/autoallocate", Steps: [][]string{{
	// The key decides which of two topologies that are made at once is the project's.
	`CREATE TABLE auto_allocated_topology (
		project_id VARCHAR(255) PRIMARY KEY,
		network_id VARCHAR(36) NOT NULL REFERENCES network (id) ON DELETE CASCADE,
		router_id VARCHAR(36) REFERENCES router (id) ON DELETE SET NULL)`,
	`CREATE INDEX auto_allocated_topology_network ON auto_allocated_topology (network_id)`,
	`CREATE INDEX auto_allocated_topology_router ON auto_allocated_topology (router_id)`,
}}}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "auto-allocated-topology", Name: "Auto Allocated Topology Services", Description: "Auto Allocated Topology Services.",
		Updated: "2016-01-01T00:00:00-00:00", Requires: []string{"router", "subnet_allocation", "external-net"},
	})
	s := &service{core: c, busy: map[string]*turn{}}
	const path = "/auto-allocated-topology/{project_id}"
	c.Registry.Handle(
		resource.Route{Method: "GET", Path: path, Action: "get_auto_allocated_topology", NoneIsCaller: true, Do: s.get},
		resource.Route{Method: "DELETE", Path: path, Action: "delete_auto_allocated_topology", NoneIsCaller: true, Status: 204, Do: s.delete},
	)
	return nil
}

type service struct {
	core *core.Core

	mu sync.Mutex
	// busy are the projects on which this server works.
	busy map[string]*turn
}

// turn lets one call at a time work on a project: those that race would make
// things only to take them away again, and use up the project's quota meanwhile.
type turn struct {
	free    chan struct{}
	waiting int
}

// enter waits for the project's turn; the caller ends it with what is returned.
func (s *service) enter(ctx context.Context, project string) (leave func(), err error) {
	s.mu.Lock()
	t := s.busy[project]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		s.busy[project] = t
	}
	t.waiting++
	s.mu.Unlock()
	done := func() {
		s.mu.Lock()
		if t.waiting--; t.waiting == 0 {
			delete(s.busy, project)
		}
		s.mu.Unlock()
	}
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// topology is what was made for a project.
type topology struct{ networkID, routerID string }

func failure(reason string) error {
	return fault.New(fault.Conflict, "AutoAllocationFailure", "Deployment error: %s.", reason)
}

// stored is the topology of a project; nil: none.
func (s *service) stored(ctx context.Context, project string) (*topology, error) {
	t := &topology{}
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		var router *string
		err := tx.Row("SELECT network_id, router_id FROM auto_allocated_topology WHERE project_id = ?", []any{project}, &t.networkID, &router)
		if router != nil {
			t.routerID = *router
		}
		return err
	})
	if errors.Is(err, store.ErrNoRow) {
		return nil, nil
	}
	return t, err
}

// requirements are the default external network, and the default pools.
func (s *service) requirements(ctx context.Context) (external string, pools []*subnet.Pool, err error) {
	err = s.core.Store.View(ctx, func(tx *store.Tx) error {
		err := tx.Row("SELECT id FROM network WHERE is_default AND external", nil, &external)
		if err != nil && !errors.Is(err, store.ErrNoRow) {
			return err
		}
		for _, version := range []int{4, 6} {
			if s.core.Subnets.Pools == nil {
				break
			}
			p, err := s.core.Subnets.Pools.Default(ctx, tx, version)
			if err != nil {
				return err
			}
			if p != nil {
				pools = append(pools, p)
			}
		}
		return nil
	})
	if err == nil && external == "" {
		err = failure("No default router:external network")
	}
	return external, pools, err
}

func (s *service) get(ctx context.Context, call resource.Call) (any, error) {
	project := call.Params["project_id"]
	show := func(id string) (any, error) {
		return map[string]any{"auto_allocated_topology": map[string]string{"id": id, "tenant_id": project, "project_id": project}}, nil
	}
	fields := call.Query["fields"]
	if slices.Contains(fields, "dry-run") {
		_, pools, err := s.requirements(ctx)
		if err == nil && len(pools) == 0 {
			err = failure("No default subnetpools defined")
		}
		if err != nil {
			return nil, err
		}
		return show("dry-run=pass")
	}
	if len(fields) > 0 {
		return nil, fault.New(fault.Invalid, "BadRequest", "Bad auto_allocate request: Unrecognized field.")
	}
	if project == "" {
		return nil, fault.BadRequest("Topologies are of projects, and the request has none")
	}
	leave, err := s.enter(ctx, project)
	if err != nil {
		return nil, err
	}
	defer leave()
	t, err := s.stored(ctx, project)
	if err == nil && t == nil {
		t, err = s.build(ctx, project)
	}
	if err != nil {
		return nil, err
	}
	return show(t.networkID)
}

func (s *service) delete(ctx context.Context, call resource.Call) (any, error) {
	project := call.Params["project_id"]
	leave, err := s.enter(ctx, project)
	if err != nil {
		return nil, err
	}
	defer leave()
	t, err := s.stored(ctx, project)
	if err != nil || t == nil {
		return nil, err
	}
	return nil, s.remove(ctx, t)
}

// build makes a topology and notes it; another's that was noted meanwhile stays.
func (s *service) build(ctx context.Context, project string) (*topology, error) {
	external, pools, err := s.requirements(ctx)
	if err != nil {
		return nil, err
	}
	t := &topology{}
	err = s.fill(ctx, project, t, external, pools)
	if err == nil {
		return t, nil
	}
	// What was asked for is over, also when the client went away: clean up anyway.
	after := context.WithoutCancel(ctx)
	if cleaned := s.remove(after, t); cleaned != nil {
		s.core.Logger.ErrorContext(ctx, "what was made of an automatic topology stays", "project", project, "network", t.networkID, "router", t.routerID, "error", cleaned)
	}
	if store.Duplicate(err, "auto_allocated_topology", "project_id") {
		if t, err := s.stored(after, project); err != nil || t != nil {
			return t, err
		}
	}
	return nil, err
}

// fill makes what a topology consists of. What was made before an error is in t.
func (s *service) fill(ctx context.Context, project string, t *topology, external string, pools []*subnet.Pool) (err error) {
	if len(pools) == 0 {
		return failure("Unable to provide tenant private network")
	}
	subnets, err := s.privateNetwork(ctx, project, t, pools)
	if f := fault.As(err); f != nil && (f.Kind == fault.Invalid || f.Kind == fault.NotFound || f.Type == "SubnetAllocationError") {
		s.core.Logger.WarnContext(ctx, "no automatic topology: its network cannot be made", "project", project, "error", err)
		return failure("Unable to provide tenant private network")
	}
	if err != nil {
		return err
	}
	err = s.connect(ctx, project, t, external, subnets)
	if fault.IsKind(err, fault.Invalid) {
		s.core.Logger.WarnContext(ctx, "no automatic topology: its router cannot be made", "project", project, "error", err)
		return failure("Unable to provide external connectivity")
	}
	if err != nil {
		return err
	}
	// With the note the network comes up.
	return s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		if err := tx.Put("INSERT INTO auto_allocated_topology (project_id, network_id, router_id) VALUES (?, ?, ?)", project, t.networkID, t.routerID); err != nil {
			return err
		}
		n, err := s.core.Networks.Load(tx, t.networkID)
		if err != nil {
			return err
		}
		up := new(network.Network)
		*up = *n
		up.AdminStateUp = true
		return s.core.Networks.Options.Update(ctx, tx, n, up, &resource.Body{Values: map[string]any{"admin_state_up": true}, Given: map[string]bool{"admin_state_up": true}})
	})
}

func (s *service) privateNetwork(ctx context.Context, project string, t *topology, pools []*subnet.Pool) (subnets []string, err error) {
	t.networkID, err = s.create(ctx, "network", project, map[string]any{"name": "auto_allocated_network", "admin_state_up": false, "shared": false})
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		name := map[int]string{4: "auto_allocated_subnet_v4", 6: "auto_allocated_subnet_v6"}[p.IPVersion]
		id, err := s.create(ctx, "subnet", project, map[string]any{"name": name, "network_id": t.networkID, "ip_version": int64(p.IPVersion), "subnetpool_id": p.ID})
		if err != nil {
			return nil, err
		}
		subnets = append(subnets, id)
	}
	return subnets, nil
}

func (s *service) connect(ctx context.Context, project string, t *topology, external string, subnets []string) (err error) {
	t.routerID, err = s.create(ctx, "router", project, map[string]any{
		"name": "auto_allocated_router", "admin_state_up": true, "external_gateway_info": map[string]any{"network_id": external},
	})
	if err != nil {
		return err
	}
	for _, id := range subnets {
		if err := s.interfaces(ctx, "add_router_interface", t.routerID, id); err != nil {
			return err
		}
	}
	return nil
}

// create makes an object of a resource for a project, and returns its id.
func (s *service) create(ctx context.Context, name, project string, item map[string]any) (string, error) {
	r := s.core.Registry.Named(name)
	item["tenant_id"] = project
	body, err := r.PrepareCreate(item, resource.Caller{ProjectID: identity.From(ctx).ProjectID, SetProject: true})
	if err != nil {
		return "", err
	}
	made, err := r.Service.Create(ctx, []*resource.Body{body})
	if err != nil {
		return "", err
	}
	return made[0].(resource.Based).Base().ID, nil
}

// interfaces adds or removes a router's interface on a subnet.
func (s *service) interfaces(ctx context.Context, action, routerID, subnetID string) error {
	for _, a := range s.core.Registry.Named("router").Actions {
		if a.Name == action {
			_, err := a.Do(ctx, routerID, map[string]any{"subnet_id": subnetID})
			return err
		}
	}
	return nil
}

// remove deletes what there is of a topology; what somebody deletes at the same
// time is no error.
func (s *service) remove(ctx context.Context, t *topology) error {
	gone := func(err error) error {
		if fault.IsKind(err, fault.NotFound) {
			return nil
		}
		return err
	}
	if t.routerID != "" {
		var subnets []*subnet.Subnet
		err := s.core.Store.View(ctx, func(tx *store.Tx) (err error) {
			subnets, err = s.core.Subnets.OfNetwork(tx, t.networkID)
			return err
		})
		if err != nil {
			return err
		}
		for _, n := range subnets {
			if err := gone(s.interfaces(ctx, "remove_router_interface", t.routerID, n.ID)); err != nil {
				return err
			}
		}
		if err := gone(s.core.Registry.Named("router").Service.Delete(ctx, t.routerID, resource.Match{})); err != nil {
			return err
		}
	}
	if t.networkID == "" {
		return nil
	}
	return gone(s.core.Networks.Delete(ctx, t.networkID, resource.Match{}))
}
