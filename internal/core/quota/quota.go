// Package quota limits how many objects a project may have: defaults from the
// configuration, limits of single projects in the database, exact also under
// concurrent creates.
//
// It must not know what it counts, but for the table that holds it.
package quota

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// Limited is a resource with a quota.
type Limited struct {
	// Resource is its name in the quotas API, e.g. "port".
	Resource string
	// Table holds one row with a project_id for each object. Empty: usage is always 0 and the owner checks the limit itself.
	Table string
	// Default limit; negative is unlimited.
	Default int
}

// Service keeps quotas.
type Service struct {
	store *store.Store
	// checks: a new limit may not be below what is used, unless forced.
	checks  bool
	limited map[string]Limited
}

// Schema of the package's table.
var Schema = store.Schema{Module: "core/quota", Steps: [][]string{{
	`CREATE TABLE quota (
		project_id VARCHAR(255) NOT NULL, resource VARCHAR(64) NOT NULL, quota_limit BIGINT NOT NULL,
		PRIMARY KEY (project_id, resource))`,
}}}

// New returns quotas without any limited resource. checks: a new limit below
// what is used is refused even when the client does not ask for the check.
func New(s *store.Store, checks bool) *Service {
	return &Service{store: s, checks: checks, limited: map[string]Limited{}}
}

// Register adds a limited resource; a duplicate panics.
func (s *Service) Register(l Limited) {
	if _, ok := s.limited[l.Resource]; ok {
		panic("quota of " + l.Resource + " is registered twice")
	}
	s.limited[l.Resource] = l
}

func (s *Service) names() []string {
	names := make([]string, 0, len(s.limited))
	for n := range s.limited {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Limit is the project's limit on a resource; -1 is unlimited.
func (s *Service) Limit(tx *store.Tx, name, project string) (int, error) {
	l, ok := s.limited[name]
	if !ok {
		return -1, nil
	}
	limit := l.Default
	err := tx.Row("SELECT quota_limit FROM quota WHERE project_id = ? AND resource = ?", []any{project, name}, &limit)
	if errors.Is(err, store.ErrNoRow) {
		err = nil
	}
	return max(limit, -1), err
}

// Reserve implements collection.Quota: what the project has and n more must
// fit. Counting stops at the limit, so its cost is bounded by the limit, and an
// unlimited project is not counted at all.
func (s *Service) Reserve(_ context.Context, tx *store.Tx, name, project string, n int) error {
	l, ok := s.limited[name]
	if !ok {
		return nil
	}
	if l.Table == "" || l.Default < 0 {
		limit, err := s.Limit(tx, name, project)
		if err != nil || limit < 0 {
			return err
		}
		return s.fits(tx, l, project, n, limit)
	}
	used, limit, err := tx.Tally(name+" "+project, l.Table, "quota", n, func() (used, limit int, err error) {
		// Most projects have the default: limit and usage in one question.
		var own *int
		err = tx.Row("SELECT (SELECT quota_limit FROM quota WHERE project_id = ? AND resource = ?), COUNT(*) FROM (SELECT 1 FROM "+l.Table+" WHERE project_id = ? LIMIT ?) x",
			[]any{project, name, project, l.Default + 1}, &own, &used)
		switch {
		case err != nil || own == nil:
			return used, l.Default, err
		case *own < 0:
			return used, math.MaxInt, nil
		case *own > l.Default && used > l.Default: // there may be more than were counted
			used, err = s.count(tx, l, project, *own+1)
		}
		return used, *own, err
	})
	if err != nil {
		return err
	}
	if used > limit-n {
		return Exceeded(name)
	}
	return nil
}

// fits checks a limit.
func (s *Service) fits(tx *store.Tx, l Limited, project string, n, limit int) error {
	used, err := s.count(tx, l, project, limit+1)
	if err != nil {
		return err
	}
	if used+n > limit {
		return Exceeded(l.Resource)
	}
	return nil
}

// Exceeded is the fault of going over a limit.
func Exceeded(names ...string) error {
	return fault.New(fault.Conflict, "OverQuota", "Quota exceeded for resources: %s.", value.Repr(toAny(names)))
}

func toAny(names []string) []any {
	list := make([]any, len(names))
	for i, n := range names {
		list[i] = n
	}
	return list
}

// count is the number of rows of a project, at most ceiling (0: all).
func (s *Service) count(tx *store.Tx, l Limited, project string, ceiling int) (int, error) {
	if l.Table == "" {
		return 0, nil
	}
	var n int
	query, args := "SELECT COUNT(*) FROM "+l.Table+" WHERE project_id = ?", []any{project}
	if ceiling > 0 {
		query = "SELECT COUNT(*) FROM (SELECT 1 FROM " + l.Table + " WHERE project_id = ? LIMIT ?) x"
		args = append(args, ceiling)
	}
	return n, tx.Row(query, args, &n)
}

// Install registers the quotas API.
func (s *Service) Install(r *resource.Registry) {
	r.AddExtension(
		resource.Extension{Alias: "quotas", Name: "Quota management support", Description: "Expose functions for quotas management per project", Updated: "2012-07-29T10:00:00-00:00"},
		resource.Extension{Alias: "quota_details", Name: "Quota details management support", Description: "Expose functions for quotas usage statistics per project", Updated: "2017-02-10T10:00:00-00:00", Requires: []string{"quotas"}},
		resource.Extension{Alias: "quota-check-limit", Name: "Quota engine limit check", Description: "Support for checking the resource usage before applying a new quota limit", Updated: "2021-09-08T16:00:00-00:00"},
	)
	project := func(c resource.Call) string { return c.Params["project_id"] }
	r.Handle(
		resource.Route{Method: "GET", Path: "/quotas", Action: "get_quota", Do: func(ctx context.Context, _ resource.Call) (any, error) {
			list, err := s.overrides(ctx)
			return map[string]any{"quotas": list}, err
		}},
		resource.Route{Method: "POST", Path: "/quotas", Open: true, Do: func(context.Context, resource.Call) (any, error) {
			return nil, fault.New(fault.NotImplemented, "HTTPNotImplemented", "POST requests are not supported on this resource.")
		}},
		whoAmI("tenant"), whoAmI("project"),
		resource.Route{Method: "GET", Path: "/quotas/{project_id}", Action: "get_quota", OwnFree: true, Do: func(ctx context.Context, c resource.Call) (any, error) {
			q, err := s.show(ctx, project(c))
			return map[string]any{"quota": q}, err
		}},
		resource.Route{Method: "GET", Path: "/quotas/{project_id}/default", Action: "get_quota", OwnFree: true, Do: func(context.Context, resource.Call) (any, error) {
			q := map[string]any{}
			for n, l := range s.limited {
				q[n] = max(l.Default, -1)
			}
			return map[string]any{"quota": q}, nil
		}},
		resource.Route{Method: "GET", Path: "/quotas/{project_id}/details", Open: true, Do: func(ctx context.Context, c resource.Call) (any, error) {
			if who := identity.From(ctx); !who.Admin && (who.ProjectID == "" || project(c) != who.ProjectID) {
				return nil, fault.New(fault.Forbidden, "AdminRequired", "User does not have admin privileges: %s.", "Only admin is authorized to access quotas for another project")
			}
			q, err := s.details(ctx, project(c))
			return map[string]any{"quota": q}, err
		}},
		resource.Route{Method: "PUT", Path: "/quotas/{project_id}", Action: "update_quota", Do: func(ctx context.Context, c resource.Call) (any, error) {
			q, err := s.update(ctx, project(c), c.Body)
			return map[string]any{"quota": q}, err
		}},
		resource.Route{Method: "DELETE", Path: "/quotas/{project_id}", Action: "delete_quota", Status: 204, Do: func(ctx context.Context, c resource.Call) (any, error) {
			return nil, s.reset(ctx, project(c))
		}},
	)
}

// whoAmI tells old clients their project.
func whoAmI(name string) resource.Route {
	return resource.Route{Method: "GET", Path: "/quotas/" + name, Open: true, Do: func(ctx context.Context, _ resource.Call) (any, error) {
		project := identity.From(ctx).ProjectID
		if project == "" {
			return nil, fault.New(fault.Invalid, "QuotaMissingTenant", "Tenant-id was missing from quota request.")
		}
		return map[string]any{name: map[string]any{name + "_id": project}}, nil
	}}
}

func (s *Service) show(ctx context.Context, project string) (map[string]any, error) {
	q := map[string]any{}
	err := s.store.View(ctx, func(tx *store.Tx) error {
		for _, n := range s.names() {
			limit, err := s.Limit(tx, n, project)
			if err != nil {
				return err
			}
			q[n] = limit
		}
		return nil
	})
	return q, err
}

func (s *Service) details(ctx context.Context, project string) (map[string]any, error) {
	q := map[string]any{}
	err := s.store.View(ctx, func(tx *store.Tx) error {
		for _, n := range s.names() {
			limit, err := s.Limit(tx, n, project)
			if err != nil {
				return err
			}
			used, err := s.count(tx, s.limited[n], project, 0)
			if err != nil {
				return err
			}
			q[n] = map[string]any{"limit": limit, "used": used, "reserved": 0}
		}
		return nil
	})
	return q, err
}

func (s *Service) overrides(ctx context.Context) ([]any, error) {
	byProject := map[string]map[string]any{}
	var order []string
	err := s.store.View(ctx, func(tx *store.Tx) error {
		return tx.Query(func(scan func(...any) error) error {
			var project, name string
			var limit int
			if err := scan(&project, &name, &limit); err != nil {
				return err
			}
			q := byProject[project]
			if q == nil {
				q = map[string]any{"tenant_id": project, "project_id": project}
				for n, l := range s.limited {
					q[n] = max(l.Default, -1)
				}
				byProject[project] = q
				order = append(order, project)
			}
			if _, ok := s.limited[name]; ok {
				q[name] = max(limit, -1)
			}
			return nil
		}, "SELECT project_id, resource, quota_limit FROM quota ORDER BY project_id, resource")
	})
	list := []any{}
	for _, p := range order {
		list = append(list, byProject[p])
	}
	return list, err
}

func (s *Service) update(ctx context.Context, project string, body any) (map[string]any, error) {
	outer, _ := body.(map[string]any)
	wanted, ok := outer["quota"].(map[string]any)
	if !ok {
		return nil, fault.BadRequest("Unable to find 'quota' in request body")
	}
	limits := map[string]int{}
	check := s.checks
	var unknown []string
	for name, v := range wanted {
		switch name {
		case "force": // the limit may be below what is used already
			wants, err := value.Convert("convert_to_boolean", v)
			if err != nil {
				return nil, err
			}
			check = check && wants != true
			continue
		case "check_limit":
			wants, err := value.Convert("convert_to_boolean", v)
			if err != nil {
				return nil, err
			}
			check = check || wants == true
			continue
		case "tenant_id", "project_id":
			continue
		}
		if _, ok := s.limited[name]; !ok {
			unknown = append(unknown, name)
			continue
		}
		converted, err := value.Convert("convert_to_int", v)
		if err != nil {
			return nil, err
		}
		n, isInt := converted.(int64)
		if !isInt || n < -1 || n > 2147483647 {
			return nil, fault.BadRequest("Invalid input for %s. Reason: '%s' is not in valid range between '-1' and '2147483647'.", name, value.Text(converted))
		}
		limits[name] = int(n)
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return nil, fault.BadRequest("Unrecognized attribute(s) '%s'", strings.Join(unknown, ", "))
	}
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		for name, limit := range limits {
			if check && limit >= 0 {
				used, err := s.count(tx, s.limited[name], project, 0)
				if err != nil {
					return err
				}
				if used > limit {
					return fault.BadRequest("Quota limit %d for %s must be greater than or equal to already used %d", limit, name, used)
				}
			}
			if err := tx.Put("INSERT INTO quota (project_id, resource, quota_limit) VALUES (?, ?, ?) ON CONFLICT (project_id, resource) DO UPDATE SET quota_limit = excluded.quota_limit", project, name, limit); err != nil {
				return fmt.Errorf("quota of %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.show(ctx, project)
}

func (s *Service) reset(ctx context.Context, project string) error {
	return s.store.Tx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec("DELETE FROM quota WHERE project_id = ?", project)
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, "TenantQuotaNotFound", "Quota for project %s could not be found.", project)
		}
		return err
	})
}
