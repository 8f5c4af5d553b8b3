package network

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"strings"

	"isospin/internal/core/collection"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// Request is what a client asks of one segment; zero fields are left to the driver.
type Request struct {
	NetworkType     string
	PhysicalNetwork string
	SegmentationID  int
}

// SegmentDriver allocates the segments of one network type. Implementations
// live in package driver/segment. All methods are safe for concurrent use.
type SegmentDriver interface {
	// Type is the network type, e.g. "vxlan".
	Type() string
	// Reserve takes what the request names, choosing what it leaves open from
	// the ranges, in this transaction. Faults: InvalidInput, VlanIdInUse,
	// TunnelIdInUse, FlatNetworkInUse; ErrNoneFree.
	Reserve(tx *store.Tx, request Request, from Ranges, segmentID string) (Request, error)
	// MTU is the greatest that the segment can carry; 0 is unknown.
	MTU(physicalNetwork string) int
}

// Range is an inclusive range of segmentation ids, of a physical network where the type has any.
type Range struct {
	PhysicalNetwork string
	First, Last     int
}

// Ranges are what a driver chooses ids from for one project.
type Ranges struct {
	// Preferred are tried before Shared. Neither overlaps within itself.
	Preferred, Shared []Range
	// Physical are physical networks of which some project has a range.
	Physical []string
}

// RangedDriver is a SegmentDriver that takes ids from ranges.
type RangedDriver interface {
	SegmentDriver
	// Configured are the ranges of the configuration.
	Configured() []Range
	// Greatest is the greatest id of the type.
	Greatest() int
}

// ErrNoneFree is wrapped by a driver that has nothing left to choose from:
// the next network type is tried.
var ErrNoneFree = errors.New("no segment of this type is free")

// Options of New.
type Options struct {
	Store *store.Store // required
	// Drivers by network type. Required.
	Drivers map[string]SegmentDriver
	// TenantTypes are tried in order for networks without provider attributes ([ml2] tenant_network_types).
	TenantTypes []string
	// ExternalType is tried first for external networks ([ml2] external_network_type); empty: none.
	ExternalType string
	// PhysnetMTU is [DEFAULT] global_physnet_mtu.
	PhysnetMTU int
	Quota      collection.Quota
}

// Service is the networks collection.
type Service struct {
	*collection.Collection[Network, *Network]
	options Options
	// Ranges tells from which ranges the networks of a project get their ids, when
	// set. Default: those of the configuration, for everybody.
	Ranges func(tx *store.Tx, driver RangedDriver, project string) (Ranges, error)
	// BeforeRenumber hooks check whether a network's segment may get another number.
	BeforeRenumber []func(ctx context.Context, tx *store.Tx, n *Network) error
	// BeforeDelete hooks check and take along what belongs to a network, in order.
	BeforeDelete []func(ctx context.Context, tx *store.Tx, n *Network) error
	// BeforeUpdate hooks refuse updates that what belongs to a network forbids.
	BeforeUpdate []func(ctx context.Context, tx *store.Tx, old, want *Network) error
	// AfterCreate hooks read of a new network's body what is no member of it.
	AfterCreate []func(ctx context.Context, tx *store.Tx, n *Network, body *resource.Body) error
	// OnWrite hooks run before a network is created or updated.
	OnWrite []func(ctx context.Context, tx *store.Tx, n *Network) error
	// Fill hooks fill in members that extensions derive, for all rows at once.
	Fill []func(tx *store.Tx, rows []*Network) error
}

// Schema of the package's tables.
var Schema = store.Schema{Module: "core/network", Steps: [][]string{{
	`CREATE TABLE network (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, admin_state_up BOOLEAN NOT NULL, status VARCHAR(16) NOT NULL, mtu INTEGER NOT NULL,
		external BOOLEAN NOT NULL, is_default BOOLEAN NOT NULL, port_security_enabled BOOLEAN NOT NULL, slots TEXT NOT NULL)`,
	`CREATE INDEX network_project ON network (project_id)`,
	`CREATE INDEX network_name ON network (name)`,
	`CREATE UNIQUE INDEX network_default ON network (is_default) WHERE is_default`,
	`CREATE TABLE network_segment (
		id VARCHAR(36) PRIMARY KEY, network_id VARCHAR(36) NOT NULL REFERENCES network (id) ON DELETE CASCADE,
		network_type VARCHAR(32) NOT NULL, physical_network VARCHAR(64) NOT NULL, segmentation_id BIGINT NOT NULL, position INTEGER NOT NULL)`,
	`CREATE INDEX network_segment_network ON network_segment (network_id)`,
	// What may exist only once. Local segments take none.
	`CREATE TABLE segment_allocation (
		network_type VARCHAR(32) NOT NULL, physical_network VARCHAR(64) NOT NULL, segmentation_id BIGINT NOT NULL,
		segment_id VARCHAR(36) NOT NULL REFERENCES network_segment (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
		PRIMARY KEY (network_type, physical_network, segmentation_id))`,
	`CREATE INDEX segment_allocation_segment ON segment_allocation (segment_id)`,
}, {
	`ALTER TABLE network ADD COLUMN availability_zone_hints VARCHAR(255) NOT NULL DEFAULT ''`,
}, {
	// Segments are objects of the API. Their project is their network's.
	`ALTER TABLE network_segment ADD COLUMN project_id VARCHAR(255) NOT NULL DEFAULT ''`,
	`ALTER TABLE network_segment ADD COLUMN name VARCHAR(255)`,
	`ALTER TABLE network_segment ADD COLUMN description VARCHAR(255) NOT NULL DEFAULT ''`,
	`ALTER TABLE network_segment ADD COLUMN revision_number BIGINT NOT NULL DEFAULT 0`,
	`ALTER TABLE network_segment ADD COLUMN created_at VARCHAR(32) NOT NULL DEFAULT ''`,
	`ALTER TABLE network_segment ADD COLUMN updated_at VARCHAR(32) NOT NULL DEFAULT ''`,
	`UPDATE network_segment SET created_at = (SELECT n.created_at FROM network n WHERE n.id = network_segment.network_id),
		updated_at = (SELECT n.updated_at FROM network n WHERE n.id = network_segment.network_id)`,
}}}

var segments = store.NewTable[Segment]("network_segment", store.TableOptions[Segment]{})

// New returns the networks collection and registers nothing.
func New(o Options) *Service {
	s := &Service{options: o}
	table := store.NewTable[Network]("network", store.TableOptions[Network]{
		Kind: "network",
		Children: []func(*store.Tx, []*Network) error{
			collection.Tagged[Network]("network"), fillSegments, fillSubnets, fillShared, s.fill,
		},
		Columns: map[string]string{"router:external": "external"},
		Conditions: map[string]func([]any) (string, []any){
			"shared":                    rbac.SharedCondition("network", "t.id"),
			"provider:network_type":     segmentCondition("network_type"),
			"provider:physical_network": segmentCondition("physical_network"),
			"provider:segmentation_id":  segmentCondition("segmentation_id"),
		},
	})
	s.Collection = collection.New[Network](collection.Options[Network]{
		Store: o.Store, Resource: newResource(), Table: table, Quota: o.Quota,
		Create: s.create, Update: s.update, Delete: s.delete,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'network' AND r.object_id = t.id AND r.target_project IN ('*', ?))", []any{who, who}
		},
		Present: func(ctx context.Context, rows []*Network) {
			project := identity.From(ctx).ProjectID
			for _, n := range rows {
				n.present(project)
			}
		},
	})
	s.Resource.Shared = collection.Shared(func(n *Network) []string {
		return append(slices.Clone(n.SharedWith), n.ExternalWith...)
	})
	return s
}

func segmentCondition(column string) func([]any) (string, []any) {
	return func(values []any) (string, []any) {
		in, args := store.In("s."+column, values)
		return "EXISTS (SELECT 1 FROM network_segment s WHERE s.network_id = t.id AND " + in + ")", args
	}
}

func ids(rows []*Network) ([]string, map[string]*Network) {
	list, by := make([]string, len(rows)), make(map[string]*Network, len(rows))
	for i, n := range rows {
		list[i], by[n.ID] = n.ID, n
	}
	return list, by
}

func fillSegments(tx *store.Tx, rows []*Network) error {
	list, by := ids(rows)
	return store.Gather(tx, "SELECT id, network_id, network_type, physical_network, segmentation_id, position FROM network_segment WHERE %s ORDER BY network_id, position", "network_id", list, func(scan func(...any) error) error {
		var g Segment
		if err := scan(&g.ID, &g.NetworkID, &g.NetworkType, &g.PhysicalNetwork, &g.SegmentationID, &g.Position); err != nil {
			return err
		}
		n := by[g.NetworkID]
		n.Segments = append(n.Segments, g)
		return nil
	})
}

func fillSubnets(tx *store.Tx, rows []*Network) error {
	list, by := ids(rows)
	for _, n := range rows {
		n.L2Adjacency = true
	}
	return store.Gather(tx, "SELECT network_id, id, CASE WHEN segment_id IS NULL THEN 1 ELSE 0 END FROM subnet WHERE %s ORDER BY network_id, created_at, id", "network_id", list, func(scan func(...any) error) error {
		var network, id string
		var everywhere int64
		if err := scan(&network, &id, &everywhere); err != nil {
			return err
		}
		n := by[network]
		n.SubnetIDs = append(n.SubnetIDs, id)
		n.L2Adjacency = n.L2Adjacency && everywhere == 1
		return nil
	})
}

func fillShared(tx *store.Tx, rows []*Network) error {
	list, by := ids(rows)
	return rbac.Entries(tx, "network", list, func(id, action, target string) {
		switch n := by[id]; action {
		case rbac.AccessAsShared:
			n.SharedWith = append(n.SharedWith, target)
			n.Shared = n.Shared || target == "*"
		case rbac.AccessAsExternal:
			n.ExternalWith = append(n.ExternalWith, target)
		}
	})
}

func (s *Service) create(ctx context.Context, tx *store.Tx, n *Network, body *resource.Body) error {
	n.ID, n.Status, n.L2Adjacency = resource.NewID(), "ACTIVE", true
	n.forget()
	requests, err := providerRequests(body)
	if err != nil {
		return err
	}
	for _, hook := range s.OnWrite {
		if err := hook(ctx, tx, n); err != nil {
			return err
		}
	}
	shared := n.Shared
	if shared {
		n.SharedWith = []string{"*"}
	}
	mtu := n.MTU
	if err := s.Insert(ctx, tx, n); err != nil {
		return defaultTaken(tx, err)
	}
	if n.Segments, err = s.allocate(tx, n, requests); err != nil {
		return err
	}
	if n.MTU, err = s.mtu(n, mtu); err != nil {
		return err
	}
	if n.MTU != mtu {
		if err := tx.Put("UPDATE network SET mtu = ? WHERE id = ?", n.MTU, n.ID); err != nil {
			return err
		}
	}
	for _, hook := range s.AfterCreate {
		if err := hook(ctx, tx, n, body); err != nil {
			return err
		}
	}
	if shared {
		if err := rbac.Grant(ctx, tx, "network", n.ID, n.ProjectID, rbac.AccessAsShared, "*"); err != nil {
			return err
		}
	}
	if n.External {
		// Noted in the event, which is written when all of it is done.
		n.ExternalWith = []string{"*"}
		return rbac.Grant(ctx, tx, "network", n.ID, n.ProjectID, rbac.AccessAsExternal, "*")
	}
	return nil
}

func defaultTaken(tx *store.Tx, err error) error {
	if !store.Duplicate(err, "network", "is_default") {
		return err
	}
	var id string
	if err := tx.Row("SELECT id FROM network WHERE is_default", nil, &id); err != nil {
		return err
	}
	return fault.New(fault.Conflict, "DefaultExternalNetworkExists", "A default external network already exists: %s.", id)
}

// allocate reserves the segments that were asked for, or one of a tenant type.
func (s *Service) allocate(tx *store.Tx, n *Network, requests []Request) ([]Segment, error) {
	if requests == nil {
		types := s.options.TenantTypes
		if n.External && s.options.ExternalType != "" {
			types = append([]string{s.options.ExternalType}, types...)
		}
		for _, t := range types {
			driver := s.options.Drivers[t]
			if driver == nil {
				continue
			}
			segment, err := s.reserve(tx, n, driver, Request{NetworkType: t}, 0)
			if errors.Is(err, ErrNoneFree) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return []Segment{segment}, nil
		}
		return nil, noneAvailable()
	}
	var list []Segment
	for i, r := range requests {
		driver, err := s.driver(r.NetworkType)
		if err != nil {
			return nil, err
		}
		segment, err := s.reserve(tx, n, driver, r, i)
		if errors.Is(err, ErrNoneFree) {
			return nil, noneAvailable()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, segment)
	}
	return list, nil
}

func noneAvailable() error {
	return fault.New(fault.Unavailable, "NoNetworkAvailable", "Unable to create the network. No project network is available for allocation.")
}

func (s *Service) driver(networkType string) (SegmentDriver, error) {
	d := s.options.Drivers[networkType]
	if d == nil {
		return nil, fault.InvalidInput("network_type value '%s' not supported", networkType)
	}
	return d, nil
}

// Ranged returns the drivers that take ids from ranges, by type.
func (s *Service) Ranged() map[string]RangedDriver {
	all := map[string]RangedDriver{}
	for t, d := range s.options.Drivers {
		if r, ok := d.(RangedDriver); ok {
			all[t] = r
		}
	}
	return all
}

// take reserves what a request asks for, choosing from the ranges of the network's project.
func (s *Service) take(tx *store.Tx, n *Network, driver SegmentDriver, r Request, segmentID string) (Request, error) {
	var from Ranges
	if d, ok := driver.(RangedDriver); ok {
		if s.Ranges == nil {
			from.Shared = d.Configured()
		} else {
			var err error
			if from, err = s.Ranges(tx, d, n.ProjectID); err != nil {
				return r, err
			}
		}
	}
	return driver.Reserve(tx, r, from, segmentID)
}

func (s *Service) reserve(tx *store.Tx, n *Network, driver SegmentDriver, r Request, position int) (Segment, error) {
	id := resource.NewID()
	got, err := s.take(tx, n, driver, r, id)
	if err != nil {
		return Segment{}, err
	}
	segment := Segment{
		ID: id, NetworkID: n.ID, NetworkType: got.NetworkType, PhysicalNetwork: got.PhysicalNetwork, SegmentationID: got.SegmentationID, Position: position,
		CreatedAt: n.CreatedAt, UpdatedAt: n.CreatedAt,
	}
	return segment, segments.Insert(tx, &segment)
}

// Extend reserves one more segment of a network, which the caller stores under
// that id in the same transaction.
func (s *Service) Extend(tx *store.Tx, n *Network, r Request, segmentID string) (Segment, error) {
	driver, err := s.driver(r.NetworkType)
	if err != nil {
		return Segment{}, err
	}
	got, err := s.take(tx, n, driver, r, segmentID)
	if errors.Is(err, ErrNoneFree) {
		err = noneAvailable()
	}
	if err != nil {
		return Segment{}, err
	}
	g := Segment{ID: segmentID, NetworkID: n.ID, NetworkType: got.NetworkType, PhysicalNetwork: got.PhysicalNetwork, SegmentationID: got.SegmentationID}
	for _, have := range n.Segments {
		g.Position = max(g.Position, have.Position+1)
	}
	wider := *n
	wider.Segments = append(slices.Clone(n.Segments), g)
	_, err = s.mtu(&wider, n.MTU)
	return g, err
}

// providerRequests reads provider:* or segments of a body; nil: the client named none.
func providerRequests(body *resource.Body) ([]Request, error) {
	single, many := Request{}, []Request(nil)
	given := false
	read := func(v any, name string, r *Request) error {
		switch v := v.(type) {
		case nil, value.NotSpecified:
		case string:
			if name == "provider:network_type" {
				r.NetworkType = v
			} else {
				r.PhysicalNetwork = v
			}
		case int64:
			r.SegmentationID = int(v)
		case *big.Int: // of no type's range
			r.SegmentationID = -1
		default:
			return fault.InvalidInput("%s is not of the right type", name)
		}
		return nil
	}
	names := []string{"provider:network_type", "provider:physical_network", "provider:segmentation_id"}
	for _, name := range names {
		if v, ok := body.Values[name]; ok && v != nil {
			given = true
			if err := read(v, name, &single); err != nil {
				return nil, err
			}
		}
	}
	list, _ := body.Values["segments"].([]any)
	for _, item := range list {
		members, _ := item.(map[string]any)
		var r Request
		for _, name := range names {
			if err := read(members[name], name, &r); err != nil {
				return nil, err
			}
		}
		many = append(many, r)
	}
	switch {
	case given && many != nil:
		return nil, fault.New(fault.Invalid, "SegmentsSetInConjunctionWithProviders", "Segments and provider values cannot both be set.")
	case many != nil:
	case given:
		many = []Request{single}
	}
	for i, r := range many {
		if r.NetworkType == "" {
			return nil, fault.InvalidInput("network_type required")
		}
		if slices.Contains(many[:i], r) {
			return nil, fault.New(fault.Invalid, "SegmentsContainDuplicateEntry", "Duplicate segment entry in request.")
		}
	}
	return many, nil
}

// mtu is what is asked for (0: the greatest possible), checked against what the segments carry.
func (s *Service) mtu(n *Network, asked int) (int, error) {
	best := 0
	for _, g := range n.Segments {
		if m := s.options.Drivers[g.NetworkType].MTU(g.PhysicalNetwork); m > 0 && (best == 0 || m < best) {
			best = m
		}
	}
	if asked == 0 {
		return best, nil
	}
	if best > 0 && asked > best {
		return 0, fault.InvalidInput("Requested MTU is too big, maximum is %d", best)
	}
	return asked, nil
}

func (s *Service) update(ctx context.Context, tx *store.Tx, old, want *Network, body *resource.Body) error {
	if body.Has("provider:network_type") || body.Has("provider:physical_network") || body.Has("segments") {
		var refused []string
		for _, name := range []string{"provider:network_type", "provider:physical_network", "segments"} {
			if body.Has(name) {
				refused = append(refused, name)
			}
		}
		return fault.InvalidInput("Plugin does not support updating the following provider network attributes: %s", strings.Join(refused, ", "))
	}
	want.forget()
	for _, hook := range s.OnWrite {
		if err := hook(ctx, tx, want); err != nil {
			return err
		}
	}
	for _, hook := range s.BeforeUpdate {
		if err := hook(ctx, tx, old, want); err != nil {
			return err
		}
	}
	if v, ok := body.Values["provider:segmentation_id"].(int64); ok {
		if err := s.renumber(ctx, tx, want, int(v)); err != nil {
			return err
		}
	}
	if body.Has("mtu") {
		var err error
		if want.MTU, err = s.mtu(want, want.MTU); err != nil {
			return err
		}
	}
	if body.Has("shared") {
		wasShared := slices.Contains(old.SharedWith, "*")
		switch {
		case want.Shared && !wasShared:
			want.SharedWith = append(slices.Clone(old.SharedWith), "*")
			if err := rbac.Grant(ctx, tx, "network", want.ID, want.ProjectID, rbac.AccessAsShared, "*"); err != nil {
				return err
			}
		case !want.Shared && wasShared:
			want.SharedWith = slices.DeleteFunc(slices.Clone(old.SharedWith), func(p string) bool { return p == "*" })
			if err := rbac.Revoke(tx, "network", want.ID, rbac.AccessAsShared, "*"); err != nil {
				return err
			}
		}
	}
	if want.External != old.External {
		var err error
		want.ExternalWith = nil
		if want.External {
			want.ExternalWith = []string{"*"}
			err = rbac.Grant(ctx, tx, "network", want.ID, want.ProjectID, rbac.AccessAsExternal, "*")
		} else {
			err = rbac.RevokeAction(tx, "network", want.ID, rbac.AccessAsExternal)
		}
		if err != nil {
			return err
		}
	}
	return defaultTaken(tx, s.Save(ctx, tx, want))
}

// renumber gives the only segment of a VLAN network another VLAN.
func (s *Service) renumber(ctx context.Context, tx *store.Tx, n *Network, id int) error {
	if len(n.Segments) != 1 {
		return fault.InvalidInput("Provider network attributes can be updated only in provider networks with a single segment.")
	}
	for _, hook := range s.BeforeRenumber {
		if err := hook(ctx, tx, n); err != nil {
			return err
		}
	}
	if n.Segments[0].NetworkType != "vlan" {
		return fault.InvalidInput("Only VLAN type networks can be updated.")
	}
	g := &n.Segments[0]
	if g.SegmentationID == id {
		return nil
	}
	if err := tx.Put("DELETE FROM segment_allocation WHERE segment_id = ?", g.ID); err != nil {
		return err
	}
	if _, err := s.take(tx, n, s.options.Drivers["vlan"], Request{NetworkType: "vlan", PhysicalNetwork: g.PhysicalNetwork, SegmentationID: id}, g.ID); err != nil {
		return err
	}
	g.SegmentationID = id
	err := tx.Put("UPDATE network_segment SET segmentation_id = ? WHERE id = ?", id, g.ID)
	return err
}

func (s *Service) delete(ctx context.Context, tx *store.Tx, n *Network) error {
	for _, hook := range s.BeforeDelete {
		if err := hook(ctx, tx, n); err != nil {
			return err
		}
	}
	if err := rbac.RevokeAll(tx, "network", n.ID); err != nil {
		return err
	}
	if err := s.Remove(ctx, tx, n); errors.Is(err, store.ErrReferenced) {
		return InUse(n.ID, "There are one or more ports still in use on the network")
	} else if err != nil {
		return err
	}
	return nil
}

// InUse is the fault for a network that cannot go yet.
func InUse(id, reason string) error {
	return fault.New(fault.Conflict, "NetworkInUse", "Unable to complete operation on network %s. %s.", id, reason)
}
