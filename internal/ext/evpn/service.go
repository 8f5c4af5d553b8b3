package evpn

import (
	"context"
	"errors"
	"math/rand/v2"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/l3"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct{ first, last int }

func newService(c *core.Core) *service {
	first, last := config.EVPNVNIs(c.Config)
	return &service{first, last}
}

// onRouterWrite gives a new router the VNI that was asked for. It cannot be changed.
func (s *service) onRouterWrite(_ context.Context, tx *store.Tx, old, now *l3.Router, body *resource.Body) error {
	if old != nil || !body.Has(attribute) || body.Values[attribute] == nil {
		return nil
	}
	n, err := value.Convert("convert_to_int", body.Values[attribute])
	if err != nil {
		return err
	}
	vni := 0
	switch n := n.(type) {
	case int64:
		vni = int(n)
	case int:
		vni = n
	}
	if vni == 0 {
		vni, err = s.choose(tx, now.ID)
	} else if taken, e := take(tx, vni, now.ID); e != nil || !taken {
		if err = e; err == nil {
			err = fault.New(fault.Conflict, "EVPNVNIInUse", "EVPN VNI %d is already in use.", vni)
		}
	}
	now.EVPNVNI = &vni
	return err
}

// take reserves a VNI; false: it is in use.
func take(tx *store.Tx, vni int, routerID string) (bool, error) {
	n, err := tx.Exec("INSERT INTO evpn_vni (vni, router_id) VALUES (?, ?) ON CONFLICT DO NOTHING", vni, routerID)
	return n > 0, err
}

// tries at random before the range is searched: with half of it in use, all fail once in 16 times.
const tries = 4

// choose reserves a free VNI of the range.
func (s *service) choose(tx *store.Tx, routerID string) (int, error) {
	for range tries {
		vni := s.first + rand.IntN(s.last-s.first+1)
		if taken, err := take(tx, vni, routerID); err != nil || taken {
			return vni, err
		}
	}
	for {
		// The lowest that is free: the first of the range, or one behind a taken one.
		vni := s.first
		var n int
		if err := tx.Row("SELECT COUNT(*) FROM evpn_vni WHERE vni = ?", []any{vni}, &n); err != nil {
			return 0, err
		}
		if n > 0 {
			err := tx.Row(`SELECT a.vni + 1 FROM evpn_vni a LEFT JOIN evpn_vni b ON b.vni = a.vni + 1
				WHERE a.vni >= ? AND a.vni < ? AND b.vni IS NULL ORDER BY a.vni LIMIT 1`, []any{s.first, s.last}, &vni)
			if errors.Is(err, store.ErrNoRow) {
				return 0, fault.New(fault.Conflict, "EVPNNoVniAvailable", "No EVPN VNI available in range [%d, %d].", s.first, s.last)
			}
			if err != nil {
				return 0, err
			}
		}
		if taken, err := take(tx, vni, routerID); err != nil || taken {
			return vni, err
		}
	}
}

// onInterfaceAdd notes which subnets' ports are advertised one by one.
func (s *service) onInterfaceAdd(_ context.Context, tx *store.Tx, r *l3.Router, p *port.Port, subnets []string, body map[string]any) error {
	given, ok := body["advertise_host"]
	if !ok || given == nil {
		return nil
	}
	v, err := value.Convert("convert_to_boolean", given)
	if err != nil {
		return err
	}
	if on, _ := v.(bool); !on {
		return nil
	}
	if r.EVPNVNI == nil {
		return fault.New(fault.NotFound, "EVPNVNINotFound", "EVPN VNI not found for router %s.", r.ID)
	}
	for _, id := range subnets {
		if err := tx.Put("INSERT INTO evpn_host_subnet (port_id, subnet_id, router_id) VALUES (?, ?, ?)", p.ID, id, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// onInterfaceRemoval forgets the subnet; with the port it would go anyway.
func onInterfaceRemoval(tx *store.Tx, r *l3.Router, n *subnet.Subnet) error {
	return tx.Put("DELETE FROM evpn_host_subnet WHERE router_id = ? AND subnet_id = ?", r.ID, n.ID)
}

// fill adds to routers what their hosts advertise.
func fill(tx *store.Tx, rows []*l3.Router) error {
	ids, of := make([]string, len(rows)), map[string]*l3.Advertised{}
	for i, r := range rows {
		ids[i] = r.ID
	}
	err := store.Child(tx, `SELECT v.router_id, v.vni, h.subnet_id FROM evpn_vni v LEFT JOIN evpn_host_subnet h ON h.router_id = v.router_id
		WHERE %s ORDER BY v.router_id, h.subnet_id`, "v.router_id", ids, func(scan func(...any) error) error {
		var id string
		var vni int
		var subnetID *string
		if err := scan(&id, &vni, &subnetID); err != nil {
			return err
		}
		if of[id] == nil {
			of[id] = &l3.Advertised{VNI: vni}
		}
		if subnetID != nil {
			of[id].HostSubnets = append(of[id].HostSubnets, *subnetID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := r.SetAdvertised(of[r.ID]); err != nil {
			return err
		}
	}
	return nil
}
