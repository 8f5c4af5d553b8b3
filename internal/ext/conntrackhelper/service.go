package conntrackhelper

import (
	"context"
	"slices"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/l3"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Helper, *Helper]
	core *core.Core
	// allowed: helper → protocols.
	allowed map[string][]string
}

func newService(c *core.Core) *service {
	s := &service{core: c, allowed: map[string][]string{}}
	for _, text := range config.AllowedConntrackHelpers.Of(c.Config) {
		name, protocol := config.ConntrackHelper(text)
		s.allowed[name] = append(s.allowed[name], protocol)
	}
	res := newResource(c.L3.RouterResource())
	s.Collection = collection.New[Helper](collection.Options[Helper]{
		Store: c.Store, Resource: res, Table: store.NewTable[Helper]("conntrack_helper", store.TableOptions[Helper]{}),
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	res.Within = s.Within(collection.Parent[Helper]{
		Member: "router_id", Column: "router_id",
		Of: func(h *Helper) string { return h.RouterID },
		Enter: func(ctx context.Context, tx *store.Tx, id string) error {
			_, err := c.L3.FindRouter(ctx, tx, id)
			return err
		},
		NotFound: func(_, id string) error { return s.NotFound(id) },
	})
	return s
}

// check refuses helpers that the operator does not allow.
func (s *service) check(h *Helper) error {
	protocols := s.allowed[h.Helper]
	if len(protocols) == 0 {
		return fault.New(fault.Invalid, "ConntrackHelperNotAllowed", "Conntrack Helper %s is not allowed.", h.Helper)
	}
	if !slices.Contains(protocols, h.Protocol) {
		return fault.New(fault.Invalid, "InvalidProtocolForHelper", "Conntrack Helper %s does not support: %s. Supported protocols are: %s", h.Helper, h.Protocol, strings.Join(protocols, ", "))
	}
	return nil
}

// taken is the fault of a helper that is there already.
func taken(err error, h *Helper) error {
	if !store.Duplicate(err, "conntrack_helper", "router_id") {
		return err
	}
	values := value.Repr(map[string]any{"router_id": h.RouterID, "protocol": h.Protocol, "port": int64(h.Port), "helper": h.Helper})
	return fault.New(fault.Invalid, "BadRequest", "Bad conntrack_helper request: A duplicate conntrack helper entry with same attributes already exists, conflicting values are %s.", values)
}

func (s *service) create(ctx context.Context, tx *store.Tx, h *Helper, _ *resource.Body) error {
	if err := s.check(h); err != nil {
		return err
	}
	r, err := s.core.L3.LoadRouter(tx, h.RouterID)
	if err != nil {
		return err
	}
	h.ProjectID = r.ProjectID
	if err := s.Insert(ctx, tx, h); err != nil {
		return taken(err, h)
	}
	return s.core.L3.RouterChanged(ctx, tx, h.RouterID, true)
}

func (s *service) update(ctx context.Context, tx *store.Tx, _, want *Helper, _ *resource.Body) error {
	if err := s.check(want); err != nil {
		return err
	}
	if err := s.Save(ctx, tx, want); err != nil {
		return taken(err, want)
	}
	return s.core.L3.RouterChanged(ctx, tx, want.RouterID, true)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, h *Helper) error {
	if err := s.Remove(ctx, tx, h); err != nil {
		return err
	}
	return s.core.L3.RouterChanged(ctx, tx, h.RouterID, true)
}

// dropOf removes the helpers of a router that goes.
func (s *service) dropOf(ctx context.Context, tx *store.Tx, r *l3.Router) error {
	rows, err := s.Table.Select(tx, "WHERE t.router_id = ? ORDER BY t.id", r.ID)
	if err != nil {
		return err
	}
	for _, h := range rows {
		if err := s.Remove(ctx, tx, h); err != nil {
			return err
		}
	}
	return nil
}

// shown is a helper as it stands inside of its router.
type shown struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
	Helper   string `json:"helper"`
}

var slot = resource.NewSlot[[]shown](exposed)

// fill gives routers their helpers.
func (s *service) fill(tx *store.Tx, rows []*l3.Router) error {
	by, ids := map[string][]shown{}, make([]string, len(rows))
	for i, r := range rows {
		ids[i], by[r.ID] = r.ID, []shown{}
	}
	err := store.Child(tx, "SELECT router_id, protocol, port, helper FROM conntrack_helper WHERE %s ORDER BY router_id, created_at, id", "router_id", ids, func(scan func(...any) error) error {
		var id string
		var h shown
		err := scan(&id, &h.Protocol, &h.Port, &h.Helper)
		by[id] = append(by[id], h)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := slot.Set(r.Slots, by[r.ID]); err != nil {
			return err
		}
	}
	return nil
}
