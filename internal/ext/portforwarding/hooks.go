package portforwarding

import (
	"context"

	"isospin/internal/core/l3"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// hook ties forwardings into floating IPs, routers and ports.
func (s *service) hook() {
	h := s.core.L3
	h.OnFloatingIPWrite = append(h.OnFloatingIPWrite, s.checkAssociation)
	h.BeforeFloatingIPDelete = append(h.BeforeFloatingIPDelete, func(_ context.Context, tx *store.Tx, f *l3.FloatingIP) error {
		return s.checkUnused(tx, f.ID)
	})
	h.BeforeInterfaceRemoval = append(h.BeforeInterfaceRemoval, s.checkInterface)
	h.PresentFloatingIPs = append(h.PresentFloatingIPs, s.present)
	ports := s.core.Ports
	ports.AfterAddresses = append(ports.AfterAddresses, func(ctx context.Context, tx *store.Tx, _, now *port.Port) error {
		return s.drop(ctx, tx, now.ID, func(f *Forwarding) bool { return !has(now, f) })
	})
	ports.BeforeDelete = append(ports.BeforeDelete, func(ctx context.Context, tx *store.Tx, p *port.Port) error {
		return s.drop(ctx, tx, p.ID, func(*Forwarding) bool { return true })
	})
}

func (s *service) checkUnused(tx *store.Tx, floatingID string) error {
	n, err := s.count(tx, floatingID)
	if err != nil || n == 0 {
		return err
	}
	return fault.New(fault.Conflict, "FipInUseByPortForwarding", "Floating IP %s in use by Port Forwarding resources.", floatingID)
}

// checkAssociation keeps floating IPs that stand for a port, and ports that they
// stand for, apart from forwardings.
func (s *service) checkAssociation(_ context.Context, tx *store.Tx, old, now *l3.FloatingIP, _ *resource.Body) error {
	if now.PortID == nil || old != nil && old.PortID != nil && *old.PortID == *now.PortID {
		return nil
	}
	if err := s.checkUnused(tx, now.ID); err != nil {
		return err
	}
	var n int
	if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM port_forwarding WHERE internal_port_id = ? LIMIT 1) x", []any{*now.PortID}, &n); err != nil || n == 0 {
		return err
	}
	return fault.New(fault.Invalid, "PortHasPortForwarding", "Cannot associate floating IP to port %s because it already has a Port Forwarding binding.", *now.PortID)
}

// checkInterface keeps the subnets that forwardings of a router's floating IPs lead to.
func (s *service) checkInterface(tx *store.Tx, r *l3.Router, n *subnet.Subnet) error {
	rows, err := s.Table.SelectBare(tx, "WHERE t.floatingip_id IN (SELECT id FROM floatingip WHERE router_id = ?)", r.ID)
	if err != nil {
		return err
	}
	for _, f := range rows {
		if n.CIDR.Contains(f.InternalIPAddress) {
			return fault.New(fault.Conflict, "RouterInterfaceInUseByFloatingIP", "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", n.ID, r.ID)
		}
	}
	return nil
}

// drop removes those forwardings to a port that have lost what they lead to.
func (s *service) drop(ctx context.Context, tx *store.Tx, portID string, lost func(*Forwarding) bool) error {
	rows, err := s.Table.Select(tx, "WHERE t.internal_port_id = ? ORDER BY t.id", portID)
	if err != nil {
		return err
	}
	for _, f := range rows {
		if lost(f) {
			if err := s.delete(ctx, tx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// shown is a forwarding as it stands inside of its floating IP.
type shown struct {
	ID                string  `json:"id"`
	Protocol          string  `json:"protocol"`
	InternalPortID    string  `json:"internal_port_id"`
	InternalIPAddress string  `json:"internal_ip_address"`
	InternalPort      *int    `json:"internal_port,omitempty"`
	InternalPortRange *string `json:"internal_port_range,omitempty"`
	ExternalPort      *int    `json:"external_port,omitempty"`
	ExternalPortRange *string `json:"external_port_range,omitempty"`
}

var exposedSlot = resource.NewSlot[[]shown](exposed)

// present shows floating IPs with their forwardings.
func (s *service) present(ctx context.Context, rows []*l3.FloatingIP) {
	by := map[string][]shown{}
	values := make([]any, len(rows))
	for i, f := range rows {
		by[f.ID], values[i] = []shown{}, f.ID
	}
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		for len(values) > 0 {
			n := min(len(values), 512)
			in, args := store.In("t.floatingip_id", values[:n])
			list, err := s.Table.Select(tx, "WHERE "+in+" ORDER BY t.created_at, t.id", args...)
			if err != nil {
				return err
			}
			for _, f := range list {
				v := shown{ID: f.ID, Protocol: f.Protocol, InternalPortID: f.InternalPortID, InternalIPAddress: f.InternalIPAddress.String(), InternalPort: f.InternalPort, ExternalPort: f.ExternalPort}
				if v.InternalPort == nil {
					v.InternalPortRange = f.InternalPortRange
				}
				if v.ExternalPort == nil {
					v.ExternalPortRange = f.ExternalPortRange
				}
				by[f.FloatingIPID] = append(by[f.FloatingIPID], v)
			}
			values = values[n:]
		}
		return nil
	})
	if err != nil {
		s.core.Logger.ErrorContext(ctx, "port forwardings are not shown with floating IPs", "error", err)
		return
	}
	for _, f := range rows {
		if err := exposedSlot.Set(f.Slots, by[f.ID]); err != nil {
			s.core.Logger.ErrorContext(ctx, "port forwardings are not shown with a floating IP", "floating IP", f.ID, "error", err)
		}
	}
}
