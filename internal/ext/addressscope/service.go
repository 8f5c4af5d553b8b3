package addressscope

import (
	"context"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/rbac"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Scope, *Scope]
	core *core.Core
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	table := store.NewTable[Scope]("address_scope", store.TableOptions[Scope]{Children: []func(*store.Tx, []*Scope) error{fillShared}})
	s.Collection = collection.New[Scope](collection.Options[Scope]{
		Store: c.Store, Resource: newResource(), Table: table,
		Create: s.create, Update: s.update, Delete: s.delete,
		Scope: func(ctx context.Context) (string, []any) {
			return rbac.VisibleCondition("address_scope", identity.From(ctx).ProjectID)
		},
		Present: func(ctx context.Context, rows []*Scope) {
			project := identity.From(ctx).ProjectID
			for _, a := range rows {
				a.Shared = rbac.Open(a.SharedWith, project)
			}
		},
	})
	s.Resource.Shared = collection.Shared(func(a *Scope) []string { return a.SharedWith })
	return s
}

func fillShared(tx *store.Tx, rows []*Scope) error {
	ids, by := make([]string, len(rows)), make(map[string]*Scope, len(rows))
	for i, a := range rows {
		ids[i], by[a.ID] = a.ID, a
	}
	return rbac.Targets(tx, "address_scope", rbac.AccessAsShared, ids, func(id, target string) {
		by[id].SharedWith = append(by[id].SharedWith, target)
	})
}

func (s *service) create(ctx context.Context, tx *store.Tx, a *Scope, _ *resource.Body) error {
	a.ID = resource.NewID()
	if a.Shared {
		a.SharedWith = []string{"*"}
		if err := rbac.Grant(ctx, tx, "address_scope", a.ID, a.ProjectID, rbac.AccessAsShared, "*"); err != nil {
			return err
		}
	}
	return s.Insert(ctx, tx, a)
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Scope, body *resource.Body) error {
	if body.Has("shared") && old.Shared != want.Shared {
		if !want.Shared {
			return fault.New(fault.Invalid, "AddressScopeUpdateError", "Unable to update address scope %s : %s.", old.ID, "Shared address scope can't be unshared")
		}
		want.SharedWith = append(slices.Clone(old.SharedWith), "*")
		if err := rbac.Grant(ctx, tx, "address_scope", want.ID, want.ProjectID, rbac.AccessAsShared, "*"); err != nil {
			return err
		}
	}
	return s.Save(ctx, tx, want)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, a *Scope) error {
	if err := s.lock(tx, a.ID); err != nil {
		return err
	}
	pools, err := s.core.Subnets.Pools.InScope(tx, a.ID)
	if err != nil {
		return err
	}
	if len(pools) > 0 {
		return fault.New(fault.Conflict, "AddressScopeInUse", "Unable to complete operation on address scope %s. There are one or more subnet pools in use on the address scope.", a.ID)
	}
	if err := rbac.RevokeAll(tx, "address_scope", a.ID); err != nil {
		return err
	}
	return s.Remove(ctx, tx, a)
}

// lock keeps others from adding prefixes to the scope until the transaction ends.
func (s *service) lock(tx *store.Tx, id string) error {
	n, err := tx.Exec("UPDATE address_scope SET associations = associations + 1 WHERE id = ?", id)
	if err == nil && n == 0 {
		err = s.NotFound(id)
	}
	return err
}

// checkPool refuses pools that do not fit into their address scope.
func (s *service) checkPool(ctx context.Context, tx *store.Tx, old, want *subnet.Pool) error {
	who := identity.From(ctx)
	if old != nil && old.AddressScopeID != "" {
		a, err := s.Load(tx, old.AddressScopeID)
		if err != nil {
			return err
		}
		if !who.Admin && a.ProjectID != who.ProjectID {
			return fault.New(fault.Invalid, "IllegalSubnetPoolUpdate", "Illegal subnetpool update : subnetpool %s cannot be updated when associated with shared address scope %s.", old.ID, a.ID)
		}
	}
	if want.AddressScopeID == "" {
		return s.checkNetworks(tx, old, want)
	}
	a, err := s.Find(ctx, tx, want.AddressScopeID)
	if err != nil {
		return err
	}
	// Who sees the scopes of all projects may not use them all.
	if !who.Admin && a.ProjectID != who.ProjectID && !slices.Contains(a.SharedWith, "*") && !slices.Contains(a.SharedWith, who.ProjectID) {
		return fault.New(fault.Invalid, "IllegalSubnetPoolAssociationToAddressScope",
			"Illegal subnetpool association: subnetpool %s cannot be associated with address scope %s.", want.ID, a.ID)
	}
	if a.IPVersion != want.IPVersion {
		return fault.New(fault.Invalid, "IllegalSubnetPoolIpVersionAssociationToAddressScope",
			"Illegal subnetpool association: subnetpool %s cannot associate with address scope %s because subnetpool ip_version is not %d.", want.ID, a.ID, a.IPVersion)
	}
	if err := s.lock(tx, a.ID); err != nil {
		return err
	}
	others, err := s.core.Subnets.Pools.InScope(tx, a.ID)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.ID != want.ID && overlap(o, want) {
			return fault.New(fault.Conflict, "AddressScopePrefixConflict", "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.")
		}
	}
	if old == nil {
		for _, target := range want.SharedWith {
			if err := openTo(a, want.ID, target); err != nil {
				return err
			}
		}
		return nil
	}
	return s.checkNetworks(tx, old, want)
}

func overlap(a, b *subnet.Pool) bool {
	for _, p := range a.Prefixes {
		for _, q := range b.Prefixes {
			if p.Overlaps(q) {
				return true
			}
		}
	}
	return false
}

// checkNetworks refuses to take a pool to another scope whose subnets share a
// network with subnets of other pools that stay behind.
func (s *service) checkNetworks(tx *store.Tx, old, want *subnet.Pool) error {
	if old == nil || old.AddressScopeID == want.AddressScopeID {
		return nil
	}
	neighbours, err := rbac.Projects(tx, `SELECT DISTINCT b.subnetpool_id FROM subnet a JOIN subnet b ON b.network_id = a.network_id AND b.ip_version = a.ip_version
		WHERE a.subnetpool_id = ? AND b.subnetpool_id <> a.subnetpool_id`, old.ID)
	if err != nil {
		return err
	}
	pools, err := s.core.Subnets.Pools.Load(tx, neighbours...)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if p.AddressScopeID != want.AddressScopeID {
			return subnet.ScopeAffinity()
		}
	}
	return nil
}

// fillNetworks fills in the address scopes of networks: those of their subnets' pools.
func (s *service) fillNetworks(tx *store.Tx, rows []*network.Network) error {
	ids, by := make([]string, len(rows)), make(map[string]*network.Network, len(rows))
	for i, n := range rows {
		ids[i], by[n.ID] = n.ID, n
	}
	type of struct {
		network, pool string
		version       int
	}
	var list []of
	seen := map[string]bool{}
	var pools []string
	err := store.Child(tx, "SELECT DISTINCT network_id, subnetpool_id, ip_version FROM subnet WHERE subnetpool_id IS NOT NULL AND %s", "network_id", ids, func(scan func(...any) error) error {
		var o of
		if err := scan(&o.network, &o.pool, &o.version); err != nil {
			return err
		}
		list = append(list, o)
		if !seen[o.pool] {
			seen[o.pool] = true
			pools = append(pools, o.pool)
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		return err
	}
	loaded, err := s.core.Subnets.Pools.Load(tx, pools...)
	if err != nil {
		return err
	}
	for _, o := range list {
		p := loaded[o.pool]
		if p == nil || p.AddressScopeID == "" {
			continue
		}
		n := by[o.network]
		if o.version == 4 {
			n.IPv4AddressScope = &p.AddressScopeID
		} else {
			n.IPv6AddressScope = &p.AddressScopeID
		}
	}
	return nil
}

// owner, accessChanged, users and checkPoolAccess are about RBAC policies.

func (s *service) owner(ctx context.Context, tx *store.Tx, id string) (string, error) {
	a, err := s.Find(ctx, tx, id)
	if err != nil {
		return "", err
	}
	return a.ProjectID, nil
}

func (s *service) accessChanged(ctx context.Context, tx *store.Tx, id string) error {
	a, err := s.Load(tx, id)
	if err != nil {
		return err
	}
	a.Shared = slices.Contains(a.SharedWith, "*")
	return s.Save(ctx, tx, a)
}

// users are the projects with pools in the scope.
func (s *service) users(tx *store.Tx, id string) ([]string, error) {
	pools, err := s.core.Subnets.Pools.InScope(tx, id)
	projects := make([]string, len(pools))
	for i, p := range pools {
		projects[i] = p.ProjectID
	}
	return projects, err
}

// checkPoolAccess: a pool may be opened only to whom its address scope is open.
func (s *service) checkPoolAccess(tx *store.Tx, e *rbac.Policy) error {
	pools, err := s.core.Subnets.Pools.Load(tx, e.ObjectID)
	if err != nil {
		return err
	}
	p := pools[e.ObjectID]
	if p == nil || p.AddressScopeID == "" {
		return nil
	}
	a, err := s.Load(tx, p.AddressScopeID)
	if err != nil {
		return err
	}
	return openTo(a, p.ID, e.Target)
}

// openTo refuses an entry of a pool for a project to which its scope is not open.
func openTo(a *Scope, pool, target string) error {
	if slices.Contains(a.SharedWith, "*") || target != "*" && (a.ProjectID == target || slices.Contains(a.SharedWith, target)) {
		return nil
	}
	return fault.InvalidInput("Failed to create RBAC policy on object %s because the address scope %s of the subnet pool is not shared with project %s", pool, a.ID, target)
}
