package securitygroup

import (
	"context"
	"errors"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Statefulness says whether new groups of a project are stateful unless they
// say it themselves; without project, those of all projects that have none.
type Statefulness struct {
	resource.Standard
	Stateful bool `json:"stateful" db:"stateful"`
	// Project is what is shown: nil for all projects.
	Project *string `json:"tenant_id"`
}

var statefulnessTables = []string{
	`CREATE TABLE default_statefulness (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL UNIQUE, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL, stateful BOOLEAN NOT NULL)`,
}

func newStatefulnessResource() *resource.Resource {
	r := &resource.Resource{
		Name: "security_groups_default_statefulness", Collection: "security_groups_default_statefulness", Path: "security-groups-default-statefulness",
		Older: true, NoBulk: true,
		NotFound: "SecurityGroupDefaultStatefulnessNotFound", NotFoundText: "Security group default statefulness %s could not be found.",
	}
	return r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Default: nil, Validate: resource.Rules{"type:string_or_none": 255}, Type: "string|null"},
		resource.Attribute{Name: "stateful", Flags: post | put | visible | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
	)
}

func newStatefulness(c *core.Core) *collection.Collection[Statefulness, *Statefulness] {
	var l *collection.Collection[Statefulness, *Statefulness]
	l = collection.New[Statefulness](collection.Options[Statefulness]{
		Store: c.Store, Resource: newStatefulnessResource(),
		Table: store.NewTable[Statefulness]("default_statefulness", store.TableOptions[Statefulness]{Children: []func(*store.Tx, []*Statefulness) error{
			func(_ *store.Tx, rows []*Statefulness) error {
				for _, d := range rows {
					if d.ProjectID != "" {
						d.Project = &d.ProjectID
					}
				}
				return nil
			},
		}}),
		Create: func(ctx context.Context, tx *store.Tx, d *Statefulness, _ *resource.Body) error {
			whose := "system-wide"
			if d.Project != nil && *d.Project != "" {
				d.ProjectID, whose = *d.Project, *d.Project
			}
			err := l.Insert(ctx, tx, d)
			if errors.Is(err, store.ErrDuplicate) {
				return fault.New(fault.Conflict, "SecurityGroupDefaultStatefulnessAlreadyExists", "A security group default statefulness setting already exists for project '%s'.", whose)
			}
			return err
		},
		Update: func(ctx context.Context, tx *store.Tx, _, want *Statefulness, _ *resource.Body) error {
			return l.Save(ctx, tx, want)
		},
		Delete: func(ctx context.Context, tx *store.Tx, d *Statefulness) error { return l.Remove(ctx, tx, d) },
	})
	return l
}

// stateful tells whether a group of the project that does not say it itself is stateful.
func stateful(tx *store.Tx, project string) (bool, error) {
	is := true
	err := tx.Row("SELECT stateful FROM default_statefulness WHERE project_id IN (?, '') ORDER BY project_id DESC LIMIT 1", []any{project}, &is)
	if errors.Is(err, store.ErrNoRow) {
		return true, nil
	}
	return is, err
}
