package rbac

import (
	"context"
	"errors"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[rbac.Policy, *rbac.Policy]
	types *rbac.Types
}

func newService(c *core.Core) *service {
	s := &service{types: c.RBAC}
	table := store.NewTable[rbac.Policy]("rbac_policy", store.TableOptions[rbac.Policy]{Columns: map[string]string{"target_tenant": "target_project"}})
	s.Collection = collection.New[rbac.Policy](collection.Options[rbac.Policy]{
		Store: c.Store, Resource: newResource(), Table: table, Quota: c.Quotas,
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	return s
}

func (s *service) typeOf(p *rbac.Policy) (*rbac.Type, error) {
	t := s.types.Named(p.ObjectType)
	if t == nil {
		return nil, fault.InvalidInput("'%s' is not a valid RBAC object type", p.ObjectType)
	}
	return t, nil
}

// owner is the project of the entry's object, when the caller may change who
// else uses it.
func owner(ctx context.Context, tx *store.Tx, t *rbac.Type, p *rbac.Policy) (string, error) {
	project, err := t.Owner(ctx, tx, p.ObjectID)
	if err != nil {
		return "", err
	}
	if who := identity.From(ctx); !who.Admin && project != who.ProjectID {
		what := "objects"
		if t.Name == "network" {
			what = "networks"
		}
		return "", fault.InvalidInput("Only admins can manipulate policies on %s they do not own", what)
	}
	return project, nil
}

func duplicate(err error) error {
	if errors.Is(err, store.ErrDuplicate) {
		return fault.New(fault.Conflict, "DuplicateRbacPolicy", "An RBAC policy already exists with those values.")
	}
	return err
}

func (s *service) create(ctx context.Context, tx *store.Tx, p *rbac.Policy, _ *resource.Body) error {
	t, err := s.typeOf(p)
	if err != nil {
		return err
	}
	if err := t.CheckAction(p.Action); err != nil {
		return err
	}
	if _, err := owner(ctx, tx, t, p); err != nil {
		return err
	}
	if err := check(tx, t, p); err != nil {
		return err
	}
	if err := duplicate(s.Insert(ctx, tx, p)); err != nil {
		return err
	}
	return t.Changed(ctx, tx, p.ObjectID)
}

func check(tx *store.Tx, t *rbac.Type, p *rbac.Policy) error {
	for _, check := range t.Checks {
		if err := check(tx, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *rbac.Policy, _ *resource.Body) error {
	t, err := s.typeOf(old)
	if err != nil {
		return err
	}
	project, err := owner(ctx, tx, t, old)
	if err != nil {
		return err
	}
	if want.Target != old.Target {
		if err := t.CheckLoss(tx, old, project, want.Target); err != nil {
			return err
		}
		if err := check(tx, t, want); err != nil {
			return err
		}
	}
	if err := duplicate(s.Save(ctx, tx, want)); err != nil {
		return err
	}
	return t.Changed(ctx, tx, old.ObjectID)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, p *rbac.Policy) error {
	t, err := s.typeOf(p)
	if err != nil {
		return err
	}
	// Who made an entry may take it away, whoever's the object is.
	project, err := t.Owner(identity.System(ctx), tx, p.ObjectID)
	if err != nil {
		return err
	}
	if err := t.CheckLoss(tx, p, project, ""); err != nil {
		return err
	}
	if err := s.Remove(ctx, tx, p); err != nil {
		return err
	}
	err = t.Changed(ctx, tx, p.ObjectID)
	if f := fault.As(err); f != nil && f.Kind == fault.Conflict {
		// What the object becomes without the entry is refused by what uses it.
		return rbac.InUse(p.ObjectID, f.Message)
	}
	return err
}
