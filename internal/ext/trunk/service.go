package trunk

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct {
	core   *core.Core
	trunks *collection.Collection[Trunk, *Trunk]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.trunks = collection.New[Trunk](collection.Options[Trunk]{
		Store: c.Store, Resource: s.newResource(), Quota: c.Quotas,
		Table: store.NewTable[Trunk]("trunk", store.TableOptions[Trunk]{
			Kind: "trunk", Children: []func(*store.Tx, []*Trunk) error{collection.Tagged[Trunk]("trunk"), fillSubPorts},
		}),
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	return s
}

func fillSubPorts(tx *store.Tx, rows []*Trunk) error {
	ids, by := make([]string, len(rows)), make(map[string]*Trunk, len(rows))
	for i, t := range rows {
		ids[i], by[t.ID] = t.ID, t
	}
	return store.Gather(tx, "SELECT trunk_id, port_id, segmentation_type, segmentation_id FROM trunk_port WHERE segmentation_type <> '' AND %s ORDER BY trunk_id, segmentation_type, segmentation_id",
		"trunk_id", ids, func(scan func(...any) error) error {
			var id string
			var p SubPort
			if err := scan(&id, &p.PortID, &p.SegmentationType, &p.SegmentationID); err != nil {
				return err
			}
			by[id].SubPorts = append(by[id].SubPorts, p)
			return nil
		})
}

// elevated is the caller as an administrator: what follows from a call
// concerns networks that the caller may not use directly.
func elevated(ctx context.Context) context.Context {
	who := *identity.From(ctx)
	who.Admin = true
	return identity.With(ctx, &who)
}

func parentInUse(id string) error {
	return fault.New(fault.Conflict, "ParentPortInUse", "Port %s is currently in use and is not eligible for use as a parent port.", id)
}

func portInUse(id string) error {
	return fault.New(fault.Conflict, "TrunkPortInUse", "Port %s is in use by another trunk.", id)
}

// role is what a port is to a trunk; all empty: nothing.
func role(tx *store.Tx, portID string) (trunkID, segmentationType string, err error) {
	err = tx.Row("SELECT trunk_id, segmentation_type FROM trunk_port WHERE port_id = ?", []any{portID}, &trunkID, &segmentationType)
	if errors.Is(err, store.ErrNoRow) {
		err = nil
	}
	return trunkID, segmentationType, err
}

// checkFree refuses a port that is a trunk's already.
func checkFree(tx *store.Tx, portID string) error {
	trunkID, segmentationType, err := role(tx, portID)
	switch {
	case err != nil || trunkID == "":
		return err
	case segmentationType != "":
		return portInUse(portID)
	}
	return parentInUse(portID)
}

func (s *service) create(ctx context.Context, tx *store.Tx, t *Trunk, body *resource.Body) error {
	if err := checkFree(tx, t.PortID); err != nil {
		return err
	}
	parent, err := s.core.Ports.Find(ctx, tx, t.PortID)
	if err != nil {
		return err
	}
	if parent.HostID != "" { // its VIF is, or may be, plugged without a trunk
		return parentInUse(parent.ID)
	}
	list, _ := body.Values["sub_ports"].([]any)
	wanted, err := s.check(ctx, tx, parent, list)
	if err != nil {
		return err
	}
	t.Status, t.Generation, t.SubPorts = statusDown, 1, nil
	if err := s.trunks.Insert(ctx, tx, t); err != nil {
		return err
	}
	err = tx.Put("INSERT INTO trunk_port (port_id, trunk_id, segmentation_type, segmentation_id) VALUES (?, ?, '', 0)", parent.ID, t.ID)
	if errors.Is(err, store.ErrDuplicate) {
		return parentInUse(parent.ID)
	}
	if err != nil {
		return err
	}
	if err := s.insert(tx, t, wanted); err != nil {
		return err
	}
	return s.showDetails(ctx, tx, t, parent, nil)
}

// check reads the subports of a request and refuses what cannot be carried.
func (s *service) check(ctx context.Context, tx *store.Tx, parent *port.Port, list []any) ([]SubPort, error) {
	carrier, err := s.core.Networks.Load(tx, parent.NetworkID)
	if err != nil {
		return nil, err
	}
	var wanted []SubPort
	for _, item := range list {
		members, _ := item.(map[string]any)
		p := SubPort{}
		p.PortID, _ = members["port_id"].(string)
		if p.PortID == parent.ID {
			return nil, parentInUse(p.PortID)
		}
		o, err := s.core.Ports.Find(ctx, tx, p.PortID)
		if err != nil {
			return nil, err
		}
		network, err := s.core.Networks.Load(tx, o.NetworkID)
		if err != nil {
			return nil, err
		}
		if network.MTU > carrier.MTU {
			return nil, fault.New(fault.Conflict, "SubPortMtuGreaterThanTrunkPortMtu", "MTU %d of subport %s cannot be greater than MTU %d of trunk %s.", network.MTU, o.ID, carrier.MTU, parent.ID)
		}
		kind, hasKind := members["segmentation_type"]
		tag, hasTag := members["segmentation_id"]
		if kind == typeInherit {
			if len(network.Segments) == 0 {
				return nil, fault.InvalidInput("Cannot accept segmentation type %s", typeInherit)
			}
			segment := network.Segments[0]
			kind, tag, hasTag = segment.NetworkType, int64(segment.SegmentationID), true
		}
		if !hasKind || !hasTag {
			return nil, fault.InvalidInput("Invalid subport details '%s': missing segmentation information. Must specify both segmentation_id and segmentation_type", value.Text(item))
		}
		number, err := value.Convert("convert_to_int", tag)
		if err != nil {
			return nil, fault.InvalidInput("Invalid subport details: segmentation_id '%s' is not an integer", value.Text(tag))
		}
		if kind != typeVLAN {
			return nil, fault.InvalidInput("Unknown segmentation_type '%s'", value.Text(kind))
		}
		id, _ := number.(int64)
		if id < 1 || id > 4094 {
			return nil, fault.InvalidInput("Segmentation ID '%d' is not in range", id)
		}
		p.SegmentationType, p.SegmentationID = typeVLAN, int(id)
		if err := checkFree(tx, o.ID); err != nil {
			return nil, err
		}
		if o.DeviceID != "" {
			return nil, fault.New(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", o.ID, o.NetworkID, o.DeviceID)
		}
		wanted = append(wanted, p)
	}
	return wanted, nil
}

// insert adds subports to a trunk; the keys decide which of two that exclude each other is there.
func (s *service) insert(tx *store.Tx, t *Trunk, wanted []SubPort) error {
	taken := func(p SubPort) error {
		return fault.New(fault.Conflict, "DuplicateSubPort", "segmentation_type %s and segmentation_id %d already in use on trunk %s.", p.SegmentationType, p.SegmentationID, t.ID)
	}
	for _, p := range wanted {
		if slices.ContainsFunc(t.SubPorts, func(o SubPort) bool {
			return o.SegmentationType == p.SegmentationType && o.SegmentationID == p.SegmentationID
		}) {
			return taken(p)
		}
		err := tx.Put("INSERT INTO trunk_port (port_id, trunk_id, segmentation_type, segmentation_id) VALUES (?, ?, ?, ?)", p.PortID, t.ID, p.SegmentationType, p.SegmentationID)
		switch {
		case store.Duplicate(err, "trunk_port", "port_id"):
			return portInUse(p.PortID)
		case errors.Is(err, store.ErrDuplicate):
			return taken(p)
		case err != nil:
			return err
		}
		t.SubPorts = append(t.SubPorts, p)
	}
	slices.SortFunc(t.SubPorts, func(a, b SubPort) int { return a.SegmentationID - b.SegmentationID })
	return nil
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Trunk, _ *resource.Body) error {
	if old.AdminStateUp != want.AdminStateUp {
		want.Generation++
	}
	return s.trunks.Save(ctx, tx, want)
}

func manageable(t *Trunk) error {
	if t.AdminStateUp {
		return nil
	}
	return fault.New(fault.Conflict, "TrunkDisabled", "Trunk %s is currently disabled.", t.ID)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, t *Trunk) error {
	if err := manageable(t); err != nil {
		return err
	}
	parent, err := s.core.Ports.Load(tx, t.PortID)
	if err != nil {
		return err
	}
	if parent.HostID != "" {
		return fault.New(fault.Conflict, "TrunkInUse", "Trunk %s is currently in use.", t.ID)
	}
	for _, p := range t.SubPorts {
		if err := s.release(ctx, tx, p.PortID); err != nil {
			return err
		}
	}
	delete(parent.Slots, port.TrunkDetails)
	if err := s.core.Ports.Save(ctx, tx, parent); err != nil {
		return err
	}
	return s.trunks.Remove(ctx, tx, t)
}

// subPortsOf reads the list of a body of add_subports and remove_subports.
func subPortsOf(body any) ([]any, error) {
	members, ok := body.(map[string]any)
	given, there := members["sub_ports"]
	if !ok || !there {
		return nil, fault.InvalidInput("Invalid data format for subports: '%s' is not a list", value.Text(body))
	}
	reason, err := value.Validate("type:subports", nil, given)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		return nil, fault.InvalidInput("%s", reason)
	}
	list, _ := given.([]any)
	return list, nil
}

// change runs a change of a trunk's subports, for which it goes DOWN until its
// host has followed.
func (s *service) change(ctx context.Context, id string, body any, do func(tx *store.Tx, t *Trunk, parent *port.Port, list []any) error) (any, error) {
	list, err := subPortsOf(body)
	if err != nil {
		return nil, err
	}
	var t *Trunk
	err = s.core.Store.Tx(ctx, func(tx *store.Tx) (err error) {
		if t, err = s.trunks.Find(ctx, tx, id); err != nil {
			return err
		}
		parent, err := s.core.Ports.Load(tx, t.PortID)
		if err != nil {
			return err
		}
		if err := do(tx, t, parent, list); err != nil {
			return err
		}
		t.Status = statusDown
		t.Generation++
		if err := s.trunks.Save(ctx, tx, t); err != nil {
			return err
		}
		return s.showDetails(ctx, tx, t, parent, nil)
	})
	if err != nil {
		return nil, err
	}
	return json.RawMessage(s.trunks.Encode(nil, t, nil)), nil
}

func (s *service) addSubPorts(ctx context.Context, id string, body any) (any, error) {
	return s.change(ctx, id, body, func(tx *store.Tx, t *Trunk, parent *port.Port, list []any) error {
		wanted, err := s.check(ctx, tx, parent, list)
		if err != nil {
			return err
		}
		if err := manageable(t); err != nil {
			return err
		}
		if t.Status == statusError {
			return fault.New(fault.Conflict, "TrunkInErrorState", "Trunk %s is in error state. Attempt to resolve the error condition before proceeding.", t.ID)
		}
		if err := s.insert(tx, t, wanted); err != nil {
			return err
		}
		_, err = s.follow(ctx, tx, wanted, parent)
		return err
	})
}

func (s *service) removeSubPorts(ctx context.Context, id string, body any) (any, error) {
	return s.change(ctx, id, body, func(tx *store.Tx, t *Trunk, _ *port.Port, list []any) error {
		if err := manageable(t); err != nil {
			return err
		}
		for _, item := range list {
			members, _ := item.(map[string]any)
			portID, _ := members["port_id"].(string)
			at := slices.IndexFunc(t.SubPorts, func(p SubPort) bool { return p.PortID == portID })
			if at < 0 {
				return fault.New(fault.NotFound, "SubPortNotFound", "SubPort %s on trunk %s could not be found.", portID, t.ID)
			}
			t.SubPorts = slices.Delete(t.SubPorts, at, at+1)
			if err := tx.Put("DELETE FROM trunk_port WHERE port_id = ?", portID); err != nil {
				return err
			}
			if err := s.release(ctx, tx, portID); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *service) getSubPorts(ctx context.Context, id string, _ any) (any, error) {
	o, err := s.trunks.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	list := o.(*Trunk).SubPorts
	if list == nil {
		list = []SubPort{}
	}
	return map[string]any{"sub_ports": list}, nil
}

// showDetails makes the parent port show its trunk as it is now; macs are those
// of subports that are about to change.
func (s *service) showDetails(ctx context.Context, tx *store.Tx, t *Trunk, parent *port.Port, macs map[string]string) error {
	d := &details{TrunkID: t.ID, SubPorts: []subPortDetail{}}
	for _, p := range t.SubPorts {
		mac, known := macs[p.PortID]
		if !known {
			o, err := s.core.Ports.Load(tx, p.PortID)
			if err != nil {
				return err
			}
			mac = o.MACAddress
		}
		d.SubPorts = append(d.SubPorts, subPortDetail{SegmentationID: p.SegmentationID, SegmentationType: p.SegmentationType, PortID: p.PortID, MACAddress: mac})
	}
	if err := detailsOf.Set(&parent.Slots, d); err != nil {
		return err
	}
	return s.core.Ports.Save(ctx, tx, parent)
}
