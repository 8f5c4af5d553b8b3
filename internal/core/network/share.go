package network

import (
	"context"

	"isospin/internal/core/rbac"
	"isospin/internal/store"
)

// fill runs the Fill hooks.
func (s *Service) fill(tx *store.Tx, rows []*Network) error {
	for _, hook := range s.Fill {
		if err := hook(tx, rows); err != nil {
			return err
		}
	}
	return nil
}

// Shareable is networks as objects of RBAC policies.
func (s *Service) Shareable() rbac.Type {
	return rbac.Type{
		Name: "network", Actions: []string{rbac.AccessAsShared, rbac.AccessAsExternal},
		Owner: func(ctx context.Context, tx *store.Tx, id string) (string, error) {
			n, err := s.Find(ctx, tx, id)
			if err != nil {
				return "", err
			}
			return n.ProjectID, nil
		},
		Changed: s.accessChanged,
		Keep: func(tx *store.Tx, p *rbac.Policy) (string, error) {
			if p.Action != rbac.AccessAsExternal || p.Target != "*" {
				return "", nil
			}
			n, err := s.Load(tx, p.ObjectID)
			if err != nil || !n.IsDefault {
				return "", err
			}
			return "Default external networks must be shared to everyone.", nil
		},
	}
}

// accessChanged follows a change of the network's entries: one of
// access_as_external makes it external, without any it is internal.
func (s *Service) accessChanged(ctx context.Context, tx *store.Tx, id string) error {
	old, err := s.Load(tx, id)
	if err != nil {
		return err
	}
	want := *old
	if want.External, err = rbac.Granted(tx, "network", id, rbac.AccessAsExternal); err != nil {
		return err
	}
	if want.External != old.External {
		for _, hook := range s.BeforeUpdate {
			if err := hook(ctx, tx, old, &want); err != nil {
				return err
			}
		}
	}
	return s.Save(ctx, tx, &want)
}
