package segmentrange

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// listed bounds how many free ids are shown of one range. VLANs are far below.
const listed = 1 << 16

type service struct {
	*collection.Collection[Range, *Range]
	core *core.Core
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	table := store.NewTable[Range]("network_segment_range", store.TableOptions[Range]{
		Kind:     "network_segment_range",
		Children: []func(*store.Tx, []*Range) error{collection.Tagged[Range]("network_segment_range")},
	})
	s.Collection = collection.New[Range](collection.Options[Range]{
		Store: c.Store, Resource: newResource(), Table: table,
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	return s
}

// hold keeps others from changing ranges of the type until the transaction ends.
func (s *service) hold(tx *store.Tx, networkType string) error {
	for {
		n, err := tx.Exec("UPDATE network_segment_range_type SET changes = changes + 1 WHERE network_type = ?", networkType)
		if err != nil || n > 0 {
			return err
		}
		if err := tx.Put("INSERT INTO network_segment_range_type (network_type, changes) VALUES (?, 0) ON CONFLICT DO NOTHING", networkType); err != nil {
			return err
		}
	}
}

func (s *service) create(ctx context.Context, tx *store.Tx, r *Range, body *resource.Body) error {
	driver := s.core.Networks.Ranged()[r.NetworkType]
	if driver == nil {
		return fault.New(fault.Invalid, "NetworkSegmentRangeNetTypeNotSupported", "Network type %s does not support network segment ranges.", r.NetworkType)
	}
	if r.Owner != nil {
		r.ProjectID = *r.Owner
	}
	switch {
	case r.NetworkType != "vlan":
		r.PhysicalNetwork = ""
	case r.PhysicalNetwork == "":
		return fault.New(fault.Invalid, "BadRequest", "Bad network_segment_range request: Network type vlan requires 'physical_network' to be specified while creating new range.")
	}
	switch {
	case r.Shared:
		r.ProjectID = ""
	case r.ProjectID == "":
		return fault.New(fault.Unmapped, "ObjectActionError", "Object action create failed because: if NetworkSegmentRange is not shared, it must have a project_id.")
	}
	r.plain()
	if err := checkBounds(r, driver); err != nil {
		return err
	}
	if err := s.hold(tx, r.NetworkType); err != nil {
		return err
	}
	if err := s.checkOverlap(tx, r); err != nil {
		return err
	}
	return s.Insert(ctx, tx, r)
}

// checkBounds refuses ids that the type does not have.
func checkBounds(r *Range, driver network.RangedDriver) error {
	invalid := func(reason string, args ...any) error {
		typ, kind, text := "NetworkTunnelRangeError", "tunnel", "Invalid network %s range: '(%d, %d)' - "+reason+"."
		if r.NetworkType == "vlan" {
			typ, kind, text = "NetworkVlanRangeError", "VLAN", "Invalid network %s range: '(%d, %d)' - '"+reason+"'."
		}
		return fault.New(fault.Unmapped, typ, text, append([]any{kind, r.Minimum, r.Maximum}, args...)...)
	}
	for _, id := range []int{r.Minimum, r.Maximum} {
		if id < 1 || id > driver.Greatest() {
			if r.NetworkType == "vlan" {
				return invalid("%d is not a valid VLAN tag", id)
			}
			return invalid("%d is not a valid %s identifier", id, r.NetworkType)
		}
	}
	if r.Maximum < r.Minimum {
		if r.NetworkType == "vlan" {
			return invalid("End of VLAN range is less than start of VLAN range")
		}
		return invalid("End of tunnel range is less than start of tunnel range")
	}
	return nil
}

func (s *service) checkOverlap(tx *store.Tx, r *Range) error {
	rows, err := s.Table.SelectBare(tx, "WHERE t.network_type = ? AND t.physical_network = ? AND NOT t.is_default AND t.id <> ? AND t.minimum <= ? AND t.maximum >= ? ORDER BY t.minimum",
		r.NetworkType, r.PhysicalNetwork, r.ID, r.Maximum, r.Minimum)
	if err != nil || len(rows) == 0 {
		return err
	}
	ids := make([]string, len(rows))
	for i, o := range rows {
		ids[i] = o.ID
	}
	return fault.New(fault.Conflict, "NetworkSegmentRangeOverlaps", "Network segment range overlaps with range(s) with id %s", strings.Join(ids, ", "))
}

func readOnly(id string) error {
	return fault.New(fault.Invalid, "NetworkSegmentRangeDefaultReadOnly", "Network Segment Range %s is a default segment range which could not be updated or deleted.", id)
}

func referenced(id string) error {
	return fault.New(fault.Conflict, "NetworkSegmentRangeReferencedByProject", "Network Segment Range %s is referenced by one or more project networks.", id)
}

// usedBounds are the least and the greatest id of the range that segments have; 0: none has any.
func usedBounds(tx *store.Tx, r *Range) (least, greatest int, err error) {
	err = tx.Row("SELECT COALESCE(MIN(segmentation_id), 0), COALESCE(MAX(segmentation_id), 0) FROM segment_allocation WHERE network_type = ? AND physical_network = ? AND segmentation_id BETWEEN ? AND ?",
		[]any{r.NetworkType, r.PhysicalNetwork, r.Minimum, r.Maximum}, &least, &greatest)
	return least, greatest, err
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Range, body *resource.Body) error {
	if old.Default {
		return readOnly(old.ID)
	}
	if err := s.hold(tx, old.NetworkType); err != nil {
		return err
	}
	least, greatest, err := usedBounds(tx, old)
	if err != nil {
		return err
	}
	// As in Neutron, a new bound must leave the ids in use behind it.
	if least > 0 && (body.Has("minimum") && want.Minimum >= least || body.Has("maximum") && want.Maximum <= greatest) {
		return referenced(old.ID)
	}
	if driver := s.core.Networks.Ranged()[want.NetworkType]; driver != nil { // else the type is no longer configured
		if err := checkBounds(want, driver); err != nil {
			return err
		}
	}
	if err := s.checkOverlap(tx, want); err != nil {
		return err
	}
	want.plain()
	return s.Save(ctx, tx, want)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, r *Range) error {
	if r.Default {
		return readOnly(r.ID)
	}
	if err := s.hold(tx, r.NetworkType); err != nil {
		return err
	}
	least, _, err := usedBounds(tx, r)
	if err != nil {
		return err
	}
	if least > 0 {
		return referenced(r.ID)
	}
	return s.Remove(ctx, tx, r)
}

// keepDefaults makes the default ranges be those of the configuration. What is the same keeps its id.
func (s *service) keepDefaults(ctx context.Context, tx *store.Tx) error {
	gone, missing, err := s.compareDefaults(tx)
	if err != nil || len(gone) == 0 && len(missing) == 0 {
		return err
	}
	// Another server may start now: what it has done is seen once the types are held.
	for _, t := range slices.Sorted(maps.Keys(s.core.Networks.Ranged())) {
		if err := s.hold(tx, t); err != nil {
			return err
		}
	}
	if gone, missing, err = s.compareDefaults(tx); err != nil {
		return err
	}
	for _, r := range gone {
		if err := s.Remove(ctx, tx, r); err != nil {
			return err
		}
	}
	for _, r := range missing {
		if err := s.Insert(ctx, tx, r); err != nil {
			return err
		}
	}
	return nil
}

// compareDefaults are the default ranges that the configuration has no longer, and those that it has anew.
func (s *service) compareDefaults(tx *store.Tx) (gone, missing []*Range, err error) {
	have, err := s.Table.Select(tx, "WHERE t.is_default")
	if err != nil {
		return nil, nil, err
	}
	same := func(r *Range, networkType string, c network.Range) bool {
		return r.NetworkType == networkType && c == network.Range{PhysicalNetwork: r.PhysicalNetwork, First: r.Minimum, Last: r.Maximum}
	}
	drivers := s.core.Networks.Ranged()
	for _, t := range slices.Sorted(maps.Keys(drivers)) {
		for _, c := range drivers[t].Configured() {
			is := func(r *Range) bool { return same(r, t, c) }
			if !slices.ContainsFunc(have, is) && !slices.ContainsFunc(missing, is) {
				missing = append(missing, &Range{Default: true, Shared: true, NetworkType: t, PhysicalNetwork: c.PhysicalNetwork, Minimum: c.First, Maximum: c.Last})
			}
		}
	}
	for _, r := range have {
		d := drivers[r.NetworkType]
		if d == nil || !slices.ContainsFunc(d.Configured(), func(c network.Range) bool { return same(r, r.NetworkType, c) }) {
			gone = append(gone, r)
		}
	}
	return gone, missing, nil
}

// ranges are those that a project's networks get their ids from: its own, then
// everybody's without those of other projects.
func (s *service) ranges(tx *store.Tx, d network.RangedDriver, project string) (network.Ranges, error) {
	rows, err := s.Table.SelectBare(tx, "WHERE t.network_type = ?", d.Type())
	if err != nil {
		return network.Ranges{}, err
	}
	var from network.Ranges
	var others []network.Range
	for _, r := range rows {
		span := network.Range{PhysicalNetwork: r.PhysicalNetwork, First: r.Minimum, Last: r.Maximum}
		switch {
		case r.Default || r.Shared:
			from.Shared = append(from.Shared, span)
		case r.ProjectID == project:
			from.Preferred = append(from.Preferred, span)
		default:
			others = append(others, span)
		}
		if !slices.Contains(from.Physical, r.PhysicalNetwork) {
			from.Physical = append(from.Physical, r.PhysicalNetwork)
		}
	}
	from.Preferred = merge(from.Preferred)
	from.Shared = without(merge(from.Shared), append(others, from.Preferred...))
	return from, nil
}

// merge makes ranges disjoint and sorts them.
func merge(ranges []network.Range) []network.Range {
	sort.Slice(ranges, func(i, j int) bool {
		a, b := ranges[i], ranges[j]
		return a.PhysicalNetwork < b.PhysicalNetwork || a.PhysicalNetwork == b.PhysicalNetwork && a.First < b.First
	})
	var merged []network.Range
	for _, r := range ranges {
		if last := len(merged) - 1; last >= 0 && merged[last].PhysicalNetwork == r.PhysicalNetwork && r.First <= merged[last].Last+1 {
			merged[last].Last = max(merged[last].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// without is what is left of disjoint ranges.
func without(ranges, taken []network.Range) []network.Range {
	for _, t := range taken {
		var left []network.Range
		for _, r := range ranges {
			if r.PhysicalNetwork != t.PhysicalNetwork || t.Last < r.First || r.Last < t.First {
				left = append(left, r)
				continue
			}
			if r.First < t.First {
				left = append(left, network.Range{PhysicalNetwork: r.PhysicalNetwork, First: r.First, Last: t.First - 1})
			}
			if t.Last < r.Last {
				left = append(left, network.Range{PhysicalNetwork: r.PhysicalNetwork, First: t.Last + 1, Last: r.Last})
			}
		}
		ranges = left
	}
	return ranges
}
