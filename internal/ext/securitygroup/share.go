package securitygroup

import (
	"context"
	"slices"

	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/store"
)

// shareables are groups and address groups as objects of RBAC policies.
func (s *service) shareables() []rbac.Type {
	return []rbac.Type{{
		Name: "security_group",
		Owner: func(ctx context.Context, tx *store.Tx, id string) (string, error) {
			g, err := s.visibleGroup(ctx, tx, id)
			if err != nil {
				return "", err
			}
			return g.ProjectID, nil
		},
		Changed: s.groups.Bump,
		Uses: []rbac.Use{{Projects: func(tx *store.Tx, id string) ([]string, error) {
			return rbac.Projects(tx, "SELECT DISTINCT p.project_id FROM port_security_group g JOIN port p ON p.id = g.port_id WHERE g.security_group_id = ?", id)
		}}},
	}, {
		Name: "address_group",
		Owner: func(ctx context.Context, tx *store.Tx, id string) (string, error) {
			g, err := s.addressGroups.Find(ctx, tx, id)
			if err != nil {
				return "", err
			}
			return g.ProjectID, nil
		},
		Changed: s.addressGroups.Bump,
		Uses: []rbac.Use{{Projects: func(tx *store.Tx, id string) ([]string, error) {
			return rbac.Projects(tx, "SELECT DISTINCT project_id FROM security_group_rule WHERE remote_address_group_id = ?", id)
		}}},
	}}
}

func fillGroupTargets(tx *store.Tx, rows []*Group) error {
	ids, by := make([]string, len(rows)), make(map[string]*Group, len(rows))
	for i, g := range rows {
		ids[i], by[g.ID] = g.ID, g
	}
	return rbac.Targets(tx, "security_group", rbac.AccessAsShared, ids, func(id, target string) {
		by[id].SharedWith = append(by[id].SharedWith, target)
	})
}

// sharedGroup is a condition on rows with the column of a group's id: the group
// is open to a project.
func sharedGroup(column, project string) (string, []any) {
	return "EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'security_group' AND r.object_id = " + column + " AND r.target_project IN ('*', ?))", []any{project}
}

// openTo tells whether a group of another project is open to a project.
func openTo(tx *store.Tx, id, project string) (bool, error) {
	var targets []string
	err := rbac.Targets(tx, "security_group", rbac.AccessAsShared, []string{id}, func(_, target string) { targets = append(targets, target) })
	return slices.Contains(targets, "*") || project != "" && slices.Contains(targets, project), err
}

// ownGroup is a group that the caller may give rules to.
func (s *service) ownGroup(ctx context.Context, tx *store.Tx, id string) (*Group, error) {
	g, err := s.visibleGroup(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if !owns(ctx, g) {
		return nil, fault.New(fault.Forbidden, "NotAuthorized", "Not authorized.")
	}
	return g, nil
}
