package router

import (
	"context"

	"isospin/internal/core/l3"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// shared is the service as other families have it.
type shared struct{ s *service }

var _ l3.Routers = shared{}

func viewRouter(r *Router) *l3.Router {
	if r == nil {
		return nil
	}
	v := &l3.Router{ID: r.ID, ProjectID: r.ProjectID, GatewayPortID: r.GatewayPortID, EVPNVNI: r.EVPNVNI, Slots: &r.Slots}
	if r.ExternalGateway != nil && r.ExternalGateway.QoSPolicyID != "" {
		v.GatewayQoSPolicyID = &r.ExternalGateway.QoSPolicyID
	}
	return v
}

func viewFloating(f *FloatingIP) *l3.FloatingIP {
	if f == nil {
		return nil
	}
	return &l3.FloatingIP{
		ID: f.ID, ProjectID: f.ProjectID, NetworkID: f.FloatingNetworkID, Address: f.FloatingIPAddress,
		PortID: f.PortID, FixedIP: f.FixedIPAddress, RouterID: f.RouterID, Slots: &f.Slots,
	}
}

// fillShared adds what other families keep of routers.
func (s *service) fillShared(tx *store.Tx, rows []*Router) error {
	views := make([]*l3.Router, len(rows))
	for i, r := range rows {
		views[i] = viewRouter(r)
	}
	for _, fill := range s.core.L3.FillRouters {
		if err := fill(tx, views); err != nil {
			return err
		}
	}
	for i, r := range rows {
		if r.ExternalGateway != nil {
			r.ExternalGateway.QoSPolicyID = ""
			if id := views[i].GatewayQoSPolicyID; id != nil {
				r.ExternalGateway.QoSPolicyID = *id
			}
		}
	}
	return nil
}

// written tells other families of a router that a client made or changed, and
// adds what they keep of it now.
func (s *service) written(ctx context.Context, tx *store.Tx, old, now *Router, body *resource.Body) error {
	view := viewRouter(now)
	for _, hook := range s.core.L3.OnRouterWrite {
		if err := hook(ctx, tx, viewRouter(old), view, body); err != nil {
			return err
		}
	}
	now.EVPNVNI = view.EVPNVNI
	return s.fillShared(tx, []*Router{now})
}

// floatingWritten tells other families of a floating IP that a client made or changed.
func (s *service) floatingWritten(ctx context.Context, tx *store.Tx, old, now *FloatingIP, body *resource.Body) error {
	for _, hook := range s.core.L3.OnFloatingIPWrite {
		if err := hook(ctx, tx, viewFloating(old), viewFloating(now), body); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) presentFloating(ctx context.Context, rows []*FloatingIP) {
	views := make([]*l3.FloatingIP, len(rows))
	for i, f := range rows {
		views[i] = viewFloating(f)
	}
	for _, present := range s.core.L3.PresentFloatingIPs {
		present(ctx, views)
	}
}

// RouterResource implements l3.Routers.
func (h shared) RouterResource() *resource.Resource { return h.s.routers.Resource }

// FloatingIPResource implements l3.Routers.
func (h shared) FloatingIPResource() *resource.Resource { return h.s.floating.Resource }

// FindRouter implements l3.Routers.
func (h shared) FindRouter(ctx context.Context, tx *store.Tx, id string) (*l3.Router, error) {
	r, err := h.s.routers.Find(ctx, tx, id)
	return viewRouter(r), err
}

// LoadRouter implements l3.Routers.
func (h shared) LoadRouter(tx *store.Tx, id string) (*l3.Router, error) {
	r, err := h.s.routers.Load(tx, id)
	return viewRouter(r), err
}

// RouterChanged implements l3.Routers.
func (h shared) RouterChanged(ctx context.Context, tx *store.Tx, id string, changed bool) error {
	r, err := h.s.routers.Load(tx, id)
	if err != nil {
		return err
	}
	if changed {
		return h.s.save(ctx, tx, r)
	}
	return h.s.touch(ctx, tx, r)
}

// FindFloatingIP implements l3.Routers.
func (h shared) FindFloatingIP(ctx context.Context, tx *store.Tx, id string) (*l3.FloatingIP, error) {
	f, err := h.s.floating.Find(ctx, tx, id)
	return viewFloating(f), err
}

// LoadFloatingIP implements l3.Routers.
func (h shared) LoadFloatingIP(tx *store.Tx, id string) (*l3.FloatingIP, error) {
	f, err := h.s.floating.Load(tx, id)
	return viewFloating(f), err
}

// FloatingIPOf implements l3.Routers.
func (h shared) FloatingIPOf(tx *store.Tx, portID string) (*l3.FloatingIP, error) {
	list, err := h.s.floating.Table.SelectBare(tx, "WHERE t.port_id = ? ORDER BY t.id LIMIT 1", portID)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return viewFloating(list[0]), nil
}

// HoldFloatingIP implements l3.Routers.
func (h shared) HoldFloatingIP(ctx context.Context, tx *store.Tx, id string, routerID *string) error {
	f, err := h.s.floating.Load(tx, id)
	if err != nil {
		return err
	}
	before := f.RouterID
	association{}.apply(f)
	if routerID != nil {
		r, err := h.s.routers.Load(tx, *routerID)
		if err != nil {
			return err
		}
		f.RouterID, f.RouterGeneration = &r.ID, r.Generation+1
	}
	if err := h.s.floating.Save(ctx, tx, f); err != nil {
		return err
	}
	for _, id := range []*string{before, routerID} {
		if id != nil {
			if err := h.s.touchID(ctx, tx, *id); err != nil {
				return err
			}
		}
	}
	return nil
}

// RouterBetween implements l3.Routers.
func (h shared) RouterBetween(tx *store.Tx, subnetID, externalID string) (string, error) {
	r, err := h.s.routerBetween(tx, subnetID, externalID)
	if r == nil {
		return "", err
	}
	return r.ID, err
}

var (
	_ l3.LimitedRouter     = (*Router)(nil)
	_ l3.LimitedFloatingIP = (*FloatingIP)(nil)
)

// GatewayLimit implements l3.LimitedRouter.
func (r *Router) GatewayLimit() (host, policyID string) {
	if r.ExternalGateway != nil {
		policyID = r.ExternalGateway.QoSPolicyID
	}
	return r.HostID, policyID
}

var floatingPolicy = resource.NewSlot[string]("qos_policy_id")

// Limit implements l3.LimitedFloatingIP.
func (f *FloatingIP) Limit() (routerID, networkID, policyID string) {
	if f.RouterID != nil {
		routerID = *f.RouterID
	}
	return routerID, f.FloatingNetworkID, floatingPolicy.Get(f.Slots)
}
