package trunk

import (
	"context"

	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// hook attaches the family's rules to ports.
func (s *service) hook() {
	ports := s.core.Ports
	ports.AfterBind = append(ports.AfterBind, s.parentBound)
	ports.BeforeUpdate = append(ports.BeforeUpdate, func(ctx context.Context, tx *store.Tx, old, want *port.Port, _ *resource.Body) error {
		if old.MACAddress == want.MACAddress {
			return nil
		}
		return s.changeMAC(ctx, tx, want)
	})
	ports.BeforeDelete = append(ports.BeforeDelete, s.checkDelete)
}

// checkDelete refuses to delete a port that is a trunk's.
func (s *service) checkDelete(_ context.Context, tx *store.Tx, p *port.Port) error {
	trunkID, segmentationType, err := role(tx, p.ID)
	switch {
	case err != nil || trunkID == "":
		return err
	case segmentationType != "":
		return fault.New(fault.Conflict, "PortInUseAsSubPort", "Port %s is currently a subport for trunk %s.", p.ID, trunkID)
	}
	return fault.New(fault.Conflict, "PortInUseAsTrunkParent", "Port %s is currently a parent port for trunk %s.", p.ID, trunkID)
}

// changeMAC lets the parent show the MAC that a subport gets.
func (s *service) changeMAC(ctx context.Context, tx *store.Tx, p *port.Port) error {
	trunkID, segmentationType, err := role(tx, p.ID)
	if err != nil || segmentationType == "" {
		return err
	}
	t, err := s.trunks.Load(tx, trunkID)
	if err != nil {
		return err
	}
	parent, err := s.core.Ports.Load(tx, t.PortID)
	if err != nil {
		return err
	}
	return s.showDetails(ctx, tx, t, parent, map[string]string{p.ID: p.MACAddress})
}

// hostOf is the host that a trunk with this parent is on; empty: none.
func hostOf(parent *port.Port) string {
	if !parent.Bound() {
		return ""
	}
	return parent.HostID
}

// parentBound makes the subports of a port's trunk, if it has one, follow it.
func (s *service) parentBound(ctx context.Context, tx *store.Tx, parent *port.Port) error {
	d := detailsOf.Get(parent.Slots)
	if d == nil {
		return nil
	}
	t, err := s.trunks.Load(tx, d.TrunkID)
	if err != nil {
		return err
	}
	all, err := s.follow(ctx, tx, t.SubPorts, parent)
	if err != nil {
		return err
	}
	switch {
	case hostOf(parent) == "":
		t.Status = statusDown
	case !all:
		t.Status = statusDegraded
	default:
		t.Status = statusBuild
	}
	t.Generation++
	return s.trunks.Save(ctx, tx, t)
}

// follow binds subports to the host of their parent, and tells whether all of
// them could be bound.
func (s *service) follow(ctx context.Context, tx *store.Tx, list []SubPort, parent *port.Port) (bool, error) {
	host, all := hostOf(parent), true
	for _, sub := range list {
		p, err := s.core.Ports.Load(tx, sub.PortID)
		if err != nil {
			return false, err
		}
		if p.HostID != host || host != "" && (p.DeviceOwner != ownerSubPort || !p.Bound()) {
			if host != "" {
				p.DeviceOwner = ownerSubPort
			}
			if err := s.core.Ports.Move(elevated(ctx), tx, p, host); err != nil {
				return false, err
			}
		}
		all = all && (host == "" || p.Bound())
	}
	return all, nil
}

// release gives a port back that was a subport.
func (s *service) release(ctx context.Context, tx *store.Tx, portID string) error {
	p, err := s.core.Ports.Load(tx, portID)
	if err != nil {
		return err
	}
	if p.DeviceOwner == ownerSubPort {
		p.DeviceOwner = ""
	} else if p.HostID == "" {
		return nil
	}
	if p.HostID == "" {
		return s.core.Ports.Renew(ctx, tx, p)
	}
	return s.core.Ports.Move(elevated(ctx), tx, p, "")
}
