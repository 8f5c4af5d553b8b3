package rbac

import (
	"context"
	"slices"
	"strings"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// Policy is one entry.
type Policy struct {
	resource.Standard
	ObjectType string `json:"object_type" db:"object_type"`
	ObjectID   string `json:"object_id" db:"object_id"`
	Action     string `json:"action" db:"action"`
	// Target is a project, or "*" for all.
	Target string `json:"target_tenant" db:"target_project"`
}

// Type is a type of objects that clients may open to other projects.
type Type struct {
	// Name is the resource's, e.g. "subnetpool".
	Name string // required
	// Actions of its entries. Default: access_as_shared.
	Actions []string // optional
	// Owner is the project of an object that the caller may see; the
	// resource's NotFound fault when there is none.
	Owner func(ctx context.Context, tx *store.Tx, id string) (string, error) // required
	// Changed brings an object up to date whose entries have changed: a new
	// revision, and an event with the projects that it is open to.
	Changed func(ctx context.Context, tx *store.Tx, id string) error // required
	// Checks refuse an entry that is about to be stored.
	Checks []func(tx *store.Tx, p *Policy) error // optional
	// Keep gives the reason why an entry must stay as it is, "" when there is none.
	Keep func(tx *store.Tx, p *Policy) (string, error) // optional
	// Uses say who depends on access to an object.
	Uses []Use // optional
	// TurnIsLoss: to turn an entry to another project is to take it away, even
	// if it is turned to the one that depends on it.
	TurnIsLoss bool // optional
}

// Use is a way of using other projects' objects.
type Use struct {
	// Action that the use needs. Default: access_as_shared.
	Action string // optional
	// Projects that use the object. The owner and "" do not matter.
	Projects func(tx *store.Tx, id string) ([]string, error) // required
	// Details of the refusal to take away an entry. Default: "project_id=<target>".
	Details func(p *Policy) string // optional
}

// Types are the types of objects that there are.
type Types struct{ byName map[string]*Type }

// NewTypes returns none.
func NewTypes() *Types { return &Types{byName: map[string]*Type{}} }

// Register adds a type; a duplicate panics.
func (t *Types) Register(n Type) {
	if t.byName[n.Name] != nil {
		panic("RBAC object type " + n.Name + " is registered twice")
	}
	if n.Actions == nil {
		n.Actions = []string{AccessAsShared}
	}
	t.byName[n.Name] = &n
}

// Use adds a use to a type that is registered.
func (t *Types) Use(name string, u Use) { t.byName[name].Uses = append(t.byName[name].Uses, u) }

// Check adds a check of new entries to a type that is registered.
func (t *Types) Check(name string, check func(tx *store.Tx, p *Policy) error) {
	t.byName[name].Checks = append(t.byName[name].Checks, check)
}

// Named returns a type, nil when there is none of that name.
func (t *Types) Named(name string) *Type { return t.byName[name] }

// CheckAction refuses an action that entries of the type cannot have.
func (t *Type) CheckAction(action string) error {
	if slices.Contains(t.Actions, action) {
		return nil
	}
	quoted := make([]string, len(t.Actions))
	for i, a := range t.Actions {
		quoted[i] = value.Repr(a)
	}
	valid := "(" + strings.Join(quoted, ", ")
	if len(quoted) == 1 {
		valid += ","
	}
	return fault.New(fault.Invalid, "InvalidActionForType", "Invalid action '%s' for object type '%s'. Valid actions: %s)", action, t.Name, valid)
}

// CheckLoss refuses to take an entry away (or to turn it to another target,
// when that is not empty) on which somebody depends. owner is the object's project.
func (t *Type) CheckLoss(tx *store.Tx, p *Policy, owner, other string) error {
	if t.Keep != nil {
		reason, err := t.Keep(tx, p)
		if err != nil {
			return err
		}
		if reason != "" {
			return InUse(p.ObjectID, reason)
		}
	}
	left := []string{""}
	if p.Action == AccessAsShared { // an owner needs no entry to use what is shared
		left = append(left, owner)
	}
	if other == "*" || other != "" && !t.TurnIsLoss {
		left = append(left, other)
	}
	err := tx.Query(func(scan func(...any) error) error {
		var target string
		err := scan(&target)
		left = append(left, target)
		return err
	}, "SELECT target_project FROM rbac_policy WHERE object_id = ? AND object_type = ? AND action = ? AND id <> ?", p.ObjectID, p.ObjectType, p.Action, p.ID)
	if err != nil || slices.Contains(left, "*") {
		return err
	}
	for _, u := range t.Uses {
		if u.Action == "" {
			u.Action = AccessAsShared
		}
		if u.Action != p.Action {
			continue
		}
		projects, err := u.Projects(tx, p.ObjectID)
		if err != nil {
			return err
		}
		for _, project := range projects {
			if (p.Target == "*" || p.Target == project) && !slices.Contains(left, project) {
				details := "project_id=" + p.Target
				if u.Details != nil {
					details = u.Details(p)
				}
				return InUse(p.ObjectID, details)
			}
		}
	}
	return nil
}

// InUse is the fault for an entry that cannot go yet.
func InUse(objectID, details string) error {
	return fault.New(fault.Conflict, "RbacPolicyInUse", "RBAC policy on object %s cannot be removed because other objects depend on it.\nDetails: %s", objectID, details)
}

// Projects reads the one column of a query.
func Projects(tx *store.Tx, query string, args ...any) ([]string, error) {
	var projects []string
	err := tx.Query(func(scan func(...any) error) error {
		var project string
		err := scan(&project)
		projects = append(projects, project)
		return err
	}, query, args...)
	return projects, err
}
