package segment

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Segment, *Segment]
	core *core.Core
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	table := store.NewTable[Segment]("network_segment", store.TableOptions[Segment]{
		Children: []func(*store.Tx, []*Segment) error{func(_ *store.Tx, rows []*Segment) error {
			for _, g := range rows {
				g.show()
			}
			return nil
		}},
	})
	s.Collection = collection.New[Segment](collection.Options[Segment]{
		Store: c.Store, Resource: newResource(), Table: table,
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	return s
}

func (s *service) create(ctx context.Context, tx *store.Tx, g *Segment, body *resource.Body) error {
	n, err := s.core.Networks.Load(tx, g.NetworkID)
	if err != nil {
		return err
	}
	r := network.Request{NetworkType: g.NetworkType}
	r.PhysicalNetwork, _ = body.Values["physical_network"].(string)
	switch v := body.Values["segmentation_id"].(type) {
	case int64:
		r.SegmentationID = int(v)
		if v == 0 { // given, and no type's
			r.SegmentationID = -1
		}
	case *big.Int: // of no type's range
		r.SegmentationID = -1
	}
	g.ID, g.ProjectID = resource.NewID(), ""
	got, err := s.core.Networks.Extend(tx, n, r, g.ID)
	if err != nil {
		return err
	}
	g.Physical, g.Number, g.Position = got.PhysicalNetwork, got.SegmentationID, got.Position
	g.show()
	if err := s.Insert(ctx, tx, g); errors.Is(err, store.ErrReferenced) {
		return s.core.Networks.NotFound(g.NetworkID)
	} else if err != nil {
		return err
	}
	return s.core.Networks.Bump(ctx, tx, g.NetworkID)
}

func (s *service) update(ctx context.Context, tx *store.Tx, _, want *Segment, _ *resource.Body) error {
	if err := s.Save(ctx, tx, want); err != nil {
		return err
	}
	return s.core.Networks.Bump(ctx, tx, want.NetworkID)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, g *Segment) error {
	subnets, err := s.core.Subnets.Table.SelectBare(tx, "WHERE t.segment_id = ? ORDER BY t.created_at, t.id", g.ID)
	if err != nil {
		return err
	}
	if len(subnets) > 0 {
		ids := make([]string, len(subnets))
		for i, n := range subnets {
			ids[i] = n.ID
		}
		return inUse(g.ID, "The segment is still associated with subnet(s) "+strings.Join(ids, ", "))
	}
	ports, err := s.core.Ports.OnSegment(tx, g.NetworkID, g.ID)
	if err != nil {
		return err
	}
	if len(ports) > 0 {
		return inUse(g.ID, "The segment is still associated with port(s) "+strings.Join(ports, ", "))
	}
	if err := s.Remove(ctx, tx, g); errors.Is(err, store.ErrReferenced) {
		return inUse(g.ID, "The segment is still associated with subnet(s)")
	} else if err != nil {
		return err
	}
	return s.core.Networks.Bump(ctx, tx, g.NetworkID)
}

func inUse(id, reason string) error {
	return fault.New(fault.Conflict, "SegmentInUse", "Segment '%s' cannot be deleted: %s.", id, reason)
}

// checkMembership: the segment is one of the subnet's network.
func (s *service) checkMembership(tx *store.Tx, n *subnet.Subnet) error {
	if n.SegmentID == nil {
		return nil
	}
	g, err := s.Load(tx, *n.SegmentID)
	if err != nil {
		return err
	}
	if g.NetworkID != n.NetworkID {
		return fault.New(fault.Invalid, "NetworkIdsDontMatch", "The subnet's network id, '%s', doesn't match the network_id of segment '%s'", n.NetworkID, g.ID)
	}
	return nil
}

func notAll(networkID string) error {
	return fault.New(fault.Invalid, "SubnetsNotAllAssociatedWithSegments", "All of the subnets on network '%s' must either all be associated with segments or all not associated with any segment.", networkID)
}

// everywhere tells whether the subnet is for addresses that are announced by
// routing, whatever the segment.
func everywhere(n *subnet.Subnet) bool { return slices.Contains(n.ServiceTypes, "network:routed") }

// beforeSubnet checks the segment of a new subnet.
func (s *service) beforeSubnet(_ context.Context, tx *store.Tx, n *subnet.Subnet, beside []*subnet.Subnet) error {
	if n.SegmentID != nil {
		if _, err := s.Load(tx, *n.SegmentID); err != nil {
			return err
		}
	}
	for _, b := range beside {
		if (b.SegmentID == nil) != (n.SegmentID == nil) && !everywhere(b) && !everywhere(n) {
			return notAll(n.NetworkID)
		}
	}
	return s.checkMembership(tx, n)
}

// beforeSubnetUpdate: the only subnet of a network with one segment can be put on it, once.
func (s *service) beforeSubnetUpdate(_ context.Context, tx *store.Tx, old, want *subnet.Subnet) error {
	if segmentOf(old) == segmentOf(want) {
		return nil
	}
	subnets, err := s.core.Subnets.OfNetwork(tx, want.NetworkID)
	if err != nil {
		return err
	}
	if len(subnets) > 1 {
		return notAll(want.NetworkID)
	}
	if old.SegmentID != nil {
		return fault.New(fault.Invalid, "SubnetSegmentAssociationChangeNotAllowed", "A subnet that is already associated with a segment cannot have its segment association changed.")
	}
	n, err := s.core.Networks.Load(tx, want.NetworkID)
	if err != nil {
		return err
	}
	if len(n.Segments) > 1 {
		return fault.New(fault.Invalid, "NoUpdateSubnetWhenMultipleSegmentsOnNetwork", "The network '%s' has multiple segments, it is only possible to associate an existing subnet with a segment on networks with a single segment.", n.ID)
	}
	return s.checkMembership(tx, want)
}

func segmentOf(n *subnet.Subnet) string {
	if n.SegmentID == nil {
		return ""
	}
	return *n.SegmentID
}
