package qos

import (
	"context"
	"errors"
	"slices"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/notify/placement"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// objectType of policies in RBAC entries.
const objectType = "qos_policy"

type service struct {
	core     *core.Core
	policies *collection.Collection[Policy, *Policy]
	kinds    []kind
	// placement is nil when there is none.
	placement allocator
	// tunnelled tells whether bandwidth may be promised on networks without a physical network.
	tunnelled bool
	// grouped tells whether requests have the form of the extension port-resource-request-groups.
	grouped bool
}

// newService fails when the way to Placement is configured and wrong.
func newService(c *core.Core) (*service, error) {
	s := &service{core: c, tunnelled: config.ML2TunnelledProvider.Of(c.Config) != "", grouped: !slices.Contains(config.DisabledExtensions.Of(c.Config), requestGroups)}
	if placement.Configured(c.Config) {
		client, err := placement.NewClient(c.Config)
		if err != nil {
			return nil, err
		}
		s.placement = client
	}
	table := store.NewTable[Policy]("qos_policy", store.TableOptions[Policy]{
		Kind:       "policy",
		Children:   []func(*store.Tx, []*Policy) error{collection.Tagged[Policy]("policy"), s.fillRules, fillShared},
		Conditions: map[string]func([]any) (string, []any){"shared": rbac.SharedCondition(objectType, "t.id")},
	})
	s.policies = collection.New[Policy](collection.Options[Policy]{
		Store: c.Store, Resource: newPolicyResource(), Table: table,
		Create: s.create, Update: s.update, Delete: s.delete,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'qos_policy' AND r.object_id = t.id AND r.target_project IN ('*', ?))", []any{who, who}
		},
		Present: func(ctx context.Context, rows []*Policy) {
			for _, p := range rows {
				p.Shared = p.sharedWith(identity.From(ctx).ProjectID)
			}
		},
	})
	s.policies.Resource.Shared = collection.Shared(func(p *Policy) []string { return p.SharedWith })
	return s, nil
}

// sharedWith tells whether an access_as_shared entry opens the policy to a project.
func (p *Policy) sharedWith(project string) bool {
	return slices.Contains(p.SharedWith, "*") || slices.Contains(p.SharedWith, project)
}

func index(rows []*Policy) ([]string, map[string]*Policy) {
	ids, by := make([]string, len(rows)), make(map[string]*Policy, len(rows))
	for i, p := range rows {
		ids[i], by[p.ID] = p.ID, p
	}
	return ids, by
}

func (s *service) fillRules(tx *store.Tx, rows []*Policy) error {
	ids, by := index(rows)
	for _, k := range s.kinds {
		if err := k.fill(tx, by, ids); err != nil {
			return err
		}
	}
	return nil
}

func fillShared(tx *store.Tx, rows []*Policy) error {
	ids, by := index(rows)
	return rbac.Targets(tx, objectType, rbac.AccessAsShared, ids, func(id, target string) {
		by[id].SharedWith = append(by[id].SharedWith, target)
	})
}

func defaultTaken(p *Policy, err error) error {
	if !store.Duplicate(err, "qos_policy", "project_id") {
		return err
	}
	return fault.New(fault.Conflict, "QoSPolicyDefaultAlreadyExists", "A default QoS policy exists for project %s.", p.ProjectID)
}

func (s *service) create(ctx context.Context, tx *store.Tx, p *Policy, _ *resource.Body) error {
	if p.ProjectID == "" {
		// What is missing is the project: the text is Neutron's.
		return fault.New(fault.Invalid, "BadRequest", "Bad %s request: %s.", "QoS policy", `Must have "policy_id"`)
	}
	p.Rules = nil // only shown
	if p.Shared {
		p.SharedWith = []string{"*"}
	}
	if err := s.policies.Insert(ctx, tx, p); err != nil {
		return defaultTaken(p, err)
	}
	if p.Shared {
		return rbac.Grant(ctx, tx, objectType, p.ID, p.ProjectID, rbac.AccessAsShared, "*")
	}
	return nil
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Policy, body *resource.Body) error {
	was := slices.Contains(old.SharedWith, "*")
	switch {
	case !body.Has("shared") || want.Shared == was:
	case want.Shared:
		want.SharedWith = append(slices.Clone(old.SharedWith), "*")
		if err := rbac.Grant(ctx, tx, objectType, want.ID, want.ProjectID, rbac.AccessAsShared, "*"); err != nil {
			return err
		}
	default:
		want.SharedWith = slices.DeleteFunc(slices.Clone(old.SharedWith), func(p string) bool { return p == "*" })
		if err := checkUnsharing(tx, want); err != nil {
			return err
		}
		if err := rbac.Revoke(tx, objectType, want.ID, rbac.AccessAsShared, "*"); err != nil {
			return err
		}
	}
	return defaultTaken(want, s.policies.Save(ctx, tx, want))
}

// users are the projects that use a policy.
func users(tx *store.Tx, id string) ([]string, error) {
	return rbac.Projects(tx, `SELECT n.project_id FROM qos_network_policy b JOIN network n ON n.id = b.network_id WHERE b.qos_policy_id = ?
		UNION SELECT p.project_id FROM qos_port_policy b JOIN port p ON p.id = b.port_id WHERE b.qos_policy_id = ?
		UNION SELECT f.project_id FROM qos_floatingip_policy b JOIN floatingip f ON f.id = b.floatingip_id WHERE b.qos_policy_id = ?
		UNION SELECT r.project_id FROM qos_router_policy b JOIN router r ON r.id = b.router_id WHERE b.qos_policy_id = ?`, id, id, id, id)
}

// checkUnsharing refuses to take a policy away from projects that use it. As in
// Neutron, its own project is none of those that may use it anyway.
func checkUnsharing(tx *store.Tx, p *Policy) error {
	projects, err := users(tx, p.ID)
	if err != nil {
		return err
	}
	for _, project := range projects {
		if !p.sharedWith(project) {
			return rbac.InUse(p.ID, "project_id=*")
		}
	}
	return nil
}

// shareable is policies as objects of RBAC policies.
func (s *service) shareable() rbac.Type {
	return rbac.Type{
		Name: objectType,
		Owner: func(ctx context.Context, tx *store.Tx, id string) (string, error) {
			p, err := s.policies.Find(ctx, tx, id)
			if err != nil {
				return "", err
			}
			return p.ProjectID, nil
		},
		Changed: s.policies.Bump,
		Uses:    []rbac.Use{{Projects: users}}, TurnIsLoss: true, // as in Neutron
	}
}

func (s *service) delete(ctx context.Context, tx *store.Tx, p *Policy) error {
	for _, k := range s.kinds {
		if err := k.removeOf(ctx, tx, p.ID); err != nil {
			return err
		}
	}
	if err := rbac.RevokeAll(tx, objectType, p.ID); err != nil {
		return err
	}
	err := s.policies.Remove(ctx, tx, p)
	if !errors.Is(err, store.ErrReferenced) {
		return err
	}
	for _, use := range []struct{ kind, query string }{
		{"port", "SELECT port_id FROM qos_port_policy WHERE qos_policy_id = ? ORDER BY port_id"},
		{"network", "SELECT network_id FROM qos_network_policy WHERE qos_policy_id = ? ORDER BY network_id"},
		{"fip", "SELECT floatingip_id FROM qos_floatingip_policy WHERE qos_policy_id = ? ORDER BY floatingip_id"},
		{"router", "SELECT router_id FROM qos_router_policy WHERE qos_policy_id = ? ORDER BY router_id"},
	} {
		var id string
		if err := tx.Row(use.query, []any{p.ID}, &id); err == nil {
			return fault.New(fault.Conflict, "QosPolicyInUse", "QoS Policy %s is used by %s %s.", p.ID, use.kind, id)
		} else if !errors.Is(err, store.ErrNoRow) {
			return err
		}
	}
	return err
}

// rulesChanged makes a new revision of a policy, whose event has the rules as
// they are now, when all who have the policy can have them.
func (s *service) rulesChanged(ctx context.Context, tx *store.Tx, id, ruleType string) error {
	p, err := s.policies.Load(tx, id)
	if err != nil {
		return err
	}
	if err := s.checkUses(tx, p); err != nil {
		return err
	}
	if guarantees(ruleType) {
		if err := checkScheduled(tx, id); err != nil {
			return err
		}
	}
	return s.policies.Save(ctx, tx, p)
}
