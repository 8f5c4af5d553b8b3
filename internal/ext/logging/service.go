package logging

import (
	"context"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	core *core.Core
	logs *collection.Collection[Log, *Log]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.logs = collection.New[Log](collection.Options[Log]{
		Store: c.Store, Resource: newResource(), Table: store.NewTable[Log]("packet_log", store.TableOptions[Log]{}),
		Create: s.create,
		Update: func(ctx context.Context, tx *store.Tx, _, want *Log, _ *resource.Body) error {
			return s.logs.Save(ctx, tx, want)
		},
		Delete: func(ctx context.Context, tx *store.Tx, l *Log) error { return s.logs.Remove(ctx, tx, l) },
	})
	return s
}

// The bindings whose packets hosts can notice.
var (
	vifTypes  = []string{"ovs", "vhostuser"}
	vnicTypes = []string{"normal", "virtio-forwarder", "smart-nic", "vdpa", "remote-managed"}
)

// loggable tells whether hosts can notice the packets of a port; of one that is
// not bound yet, its VNIC type tells.
func loggable(p *port.Port) bool {
	return slices.Contains(vnicTypes, p.VNICType) && (!p.Bound() || slices.Contains(vifTypes, p.VIFType))
}

func (s *service) create(ctx context.Context, tx *store.Tx, l *Log, _ *resource.Body) error {
	if l.ResourceType != typeSecurityGroup {
		return fault.New(fault.Invalid, "InvalidLogResourceType", "Invalid log resource_type: %s.", l.ResourceType)
	}
	if l.ResourceID != nil {
		if err := s.core.SecurityGroups.Check(ctx, tx, *l.ResourceID); err != nil {
			if fault.Is(err, "SecurityGroupNotFound") {
				return fault.New(fault.NotFound, "ResourceNotFound", "Resource %s could not be found.", *l.ResourceID)
			}
			return err
		}
	}
	if l.TargetID != nil {
		p, err := s.core.Ports.Find(ctx, tx, *l.TargetID)
		if err != nil {
			if fault.Is(err, "PortNotFound") {
				return fault.New(fault.NotFound, "TargetResourceNotFound", "Target resource %s could not be found.", *l.TargetID)
			}
			return err
		}
		if !loggable(p) {
			return fault.New(fault.Conflict, "LoggingTypeNotSupported", "Logging type %s is not supported on port %s.", l.ResourceType, p.ID)
		}
		if l.ResourceID != nil && !slices.Contains(p.SecurityGroups, *l.ResourceID) {
			return fault.New(fault.Invalid, "InvalidResourceConstraint", "Invalid resource constraint between resource (%s %s) and target resource (%s %s).",
				typeSecurityGroup, *l.ResourceID, "port", p.ID)
		}
	}
	return s.logs.Insert(ctx, tx, l)
}

// hook makes logs go with the group or the port that they are about.
func (s *service) hook() {
	s.core.Ports.BeforeDelete = append(s.core.Ports.BeforeDelete, func(ctx context.Context, tx *store.Tx, p *port.Port) error {
		return s.drop(ctx, tx, "WHERE t.target_id = ?", p.ID)
	})
	s.core.SecurityGroups.BeforeDelete = append(s.core.SecurityGroups.BeforeDelete, func(ctx context.Context, tx *store.Tx, id string) error {
		return s.drop(ctx, tx, "WHERE t.resource_id = ?", id)
	})
}

func (s *service) drop(ctx context.Context, tx *store.Tx, condition, id string) error {
	logs, err := s.logs.Table.Select(tx, condition, id)
	if err != nil {
		return err
	}
	for _, l := range logs {
		if err := s.logs.Remove(ctx, tx, l); err != nil {
			return err
		}
	}
	return nil
}
