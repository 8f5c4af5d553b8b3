package ndpproxy

import (
	"context"

	"isospin/internal/config"
	"isospin/internal/core/l3"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// hook ties proxies into routers and ports.
func (s *service) hook() {
	h := s.core.L3
	h.FillRouters = append(h.FillRouters, fill)
	h.OnRouterWrite = append(h.OnRouterWrite, s.onRouterWrite)
	h.BeforeInterfaceRemoval = append(h.BeforeInterfaceRemoval, s.checkInterface)
	h.RouterConditions[enableAttribute] = func(values []any) (string, []any) {
		// Neither of both, one of them, or all.
		condition, with, without := "1 = 0", false, false
		for _, v := range values {
			on, _ := v.(bool)
			with, without = with || on, without || !on
		}
		switch {
		case with && without:
			condition = "1 = 1"
		case with:
			condition = "EXISTS (SELECT 1 FROM router_ndp_proxy e WHERE e.router_id = t.id)"
		case without:
			condition = "NOT EXISTS (SELECT 1 FROM router_ndp_proxy e WHERE e.router_id = t.id)"
		}
		return condition, nil
	}
	ports := s.core.Ports
	ports.AfterAddresses = append(ports.AfterAddresses, func(ctx context.Context, tx *store.Tx, _, now *port.Port) error {
		return s.drop(ctx, tx, now.ID, func(o *Proxy) bool {
			for _, f := range now.FixedIPs {
				if f.IPAddress == o.IPAddress {
					return false
				}
			}
			return true
		})
	})
	ports.BeforeDelete = append(ports.BeforeDelete, func(ctx context.Context, tx *store.Tx, p *port.Port) error {
		return s.drop(ctx, tx, p.ID, func(*Proxy) bool { return true })
	})
}

// drop removes those proxies of a port that have lost their address.
func (s *service) drop(ctx context.Context, tx *store.Tx, portID string, lost func(*Proxy) bool) error {
	rows, err := s.Table.Select(tx, "WHERE t.port_id = ? ORDER BY t.id", portID)
	if err != nil {
		return err
	}
	for _, o := range rows {
		if lost(o) {
			if err := s.delete(ctx, tx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

var slot = resource.NewSlot[bool](enableAttribute)

// fill shows which routers may have proxies.
func fill(tx *store.Tx, rows []*l3.Router) error {
	on, ids := map[string]bool{}, make([]string, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	err := store.Child(tx, "SELECT router_id FROM router_ndp_proxy WHERE %s", "router_id", ids, func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		on[id] = true
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := slot.Set(r.Slots, on[r.ID]); err != nil {
			return err
		}
	}
	return nil
}

// onRouterWrite keeps enable_ndp_proxy, and a gateway with which it works.
func (s *service) onRouterWrite(_ context.Context, tx *store.Tx, old, now *l3.Router, body *resource.Body) error {
	g, err := s.gatewayOf(tx, now)
	if err != nil {
		return err
	}
	if old != nil {
		if err := s.checkGateway(tx, now, g); err != nil {
			return err
		}
	}
	asked, given := body.Values[enableAttribute].(bool)
	given = given && body.Has(enableAttribute)
	switch {
	case given && asked:
		if err := fit(now.ID, g); err != nil {
			return err
		}
	case !given && old != nil:
		return nil
	case !given:
		asked = config.EnableNDPProxyByDefault.Of(s.core.Config) && fit(now.ID, g) == nil
	}
	on, err := enabled(tx, now.ID)
	if err != nil || on == asked {
		return err
	}
	statement := "DELETE FROM router_ndp_proxy WHERE router_id = ?"
	if asked {
		statement = "INSERT INTO router_ndp_proxy (router_id) VALUES (?)"
	}
	err = tx.Put(statement, now.ID)
	return err
}

// checkGateway refuses a gateway that the router's proxies cannot do with.
func (s *service) checkGateway(tx *store.Tx, r *l3.Router, g *gateway) error {
	if g != nil && len(g.subnetIDs) > 0 {
		return nil
	}
	list, err := s.proxiesOf(tx, r.ID)
	if err != nil || len(list) == 0 {
		return err
	}
	if g == nil {
		return fault.New(fault.Conflict, "RouterGatewayInUseByNDPProxy", "Unable to unset external gateway of router %s, There are one or more ndp proxies still in use on the router.", r.ID)
	}
	return fault.New(fault.Conflict, "RouterIPv6GatewayInUse", "Can't remove the IPv6 subnet from external gateway of router %s, the IPv6 subnet in use by the router's ndp proxy.", r.ID)
}
