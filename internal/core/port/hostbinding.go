package port

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"

	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// vifNone is the VIF type of a port whose active binding was deleted; it is
// shown as unbound, and the next binding to be made is the active one.
const vifNone = ""

// maxProfile is the greatest length of a binding's profile as JSON, in bytes.
const maxProfile = 4095

// hostBindingTables: the active binding is in the port's row, these are the
// inactive ones. The key decides which of two that make one for a host has made it.
var hostBindingTables = []string{
	`CREATE TABLE port_binding (
		port_id VARCHAR(36) NOT NULL REFERENCES port (id) ON DELETE CASCADE, host VARCHAR(255) NOT NULL,
		vnic_type VARCHAR(64) NOT NULL, vif_type VARCHAR(64) NOT NULL, vif_details TEXT NOT NULL,
		profile TEXT NOT NULL, segment_id VARCHAR(36) NOT NULL, PRIMARY KEY (port_id, host))`,
}

// HostBinding is one of the bindings of a port: how it is plugged on a host, or
// would be once that binding is active. At most one is active.
type HostBinding struct {
	Host       string          `json:"host"`
	VIFType    string          `json:"vif_type"`
	VIFDetails json.RawMessage `json:"vif_details"`
	VNICType   string          `json:"vnic_type"`
	Profile    json.RawMessage `json:"profile"`
	// Status is ACTIVE or INACTIVE.
	Status    string `json:"status"`
	ProjectID string `json:"tenant_id"`
	// SegmentID is the segment that it uses or would use.
	SegmentID string `json:"-"`
}

// StatusInactive is that of a binding which waits to be activated.
const StatusInactive = "INACTIVE"

// active is the port's active binding, nil when there is none. A port that was
// never bound has one to no host.
func (p *Port) active() *HostBinding {
	if p.VIFType == vifNone {
		return nil
	}
	return &HostBinding{Host: p.HostID, VIFType: p.VIFType, VIFDetails: p.VIFDetails, VNICType: p.VNICType, Profile: p.Profile, Status: StatusActive, ProjectID: p.ProjectID, SegmentID: p.SegmentID}
}

// HostBindings returns the bindings of a port that the caller may see, the
// active one first, others by host. Faults: PortNotFound, BadRequest for ports
// that cannot have several.
func (s *Service) HostBindings(ctx context.Context, tx *store.Tx, portID string) (*Port, []*HostBinding, error) {
	p, err := s.Find(ctx, tx, portID)
	if err != nil {
		return nil, nil, err
	}
	if !strings.HasPrefix(p.DeviceOwner, "compute:") && !strings.HasPrefix(p.DeviceOwner, "manila:") {
		return nil, nil, fault.New(fault.Invalid, "BadRequest", "Bad port request: Invalid port %s. Operation only valid on compute and shared filesystem ports.", p.ID)
	}
	var list []*HostBinding
	if a := p.active(); a != nil {
		list = append(list, a)
	}
	err = tx.Query(func(scan func(...any) error) error {
		b := &HostBinding{Status: StatusInactive, ProjectID: p.ProjectID}
		var details, profile string
		err := scan(&b.Host, &b.VNICType, &b.VIFType, &details, &profile, &b.SegmentID)
		b.VIFDetails, b.Profile = json.RawMessage(details), json.RawMessage(profile)
		list = append(list, b)
		return err
	}, "SELECT host, vnic_type, vif_type, vif_details, profile, segment_id FROM port_binding WHERE port_id = ? ORDER BY host", p.ID)
	return p, list, err
}

func bindingOf(list []*HostBinding, portID, host string) (*HostBinding, error) {
	for _, b := range list {
		if b.Host == host {
			return b, nil
		}
	}
	return nil, fault.New(fault.NotFound, "PortBindingNotFound", "Binding for port %s for host %s could not be found.", portID, host)
}

func bindingFailed(portID, host string) error {
	return fault.New(fault.Unmapped, "PortBindingError", "Binding for port %s on host %s could not be created or updated.", portID, host)
}

// HostBinding returns the binding of a port for a host. Faults: as of
// HostBindings, and PortBindingNotFound.
func (s *Service) HostBinding(ctx context.Context, tx *store.Tx, portID, host string) (*Port, *HostBinding, error) {
	p, list, err := s.HostBindings(ctx, tx, portID)
	if err != nil {
		return nil, nil, err
	}
	b, err := bindingOf(list, portID, host)
	return p, b, err
}

// tryOn is the port as it would be with that binding active, the binding's
// type and details those that the mechanisms give it. Fault: PortBindingError
// when none of them can.
func (s *Service) tryOn(tx *store.Tx, p *Port, b *HostBinding) error {
	if len(b.Profile) > maxProfile {
		return fault.InvalidInput("binding:profile value too large")
	}
	parent, err := s.options.Networks.Load(tx, p.NetworkID)
	if err != nil {
		return err
	}
	would := *p
	would.HostID, would.VNICType, would.Profile = b.Host, b.VNICType, b.Profile
	if b.SegmentID, b.VIFType, b.VIFDetails, err = s.attempt(tx, &would, parent); err != nil {
		return err
	}
	if b.VIFType == VIFBindingFailed {
		return bindingFailed(p.ID, b.Host)
	}
	return nil
}

func (s *Service) insertBinding(tx *store.Tx, portID string, b *HostBinding) error {
	err := tx.Put("INSERT INTO port_binding (port_id, host, vnic_type, vif_type, vif_details, profile, segment_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
		portID, b.Host, b.VNICType, b.VIFType, string(b.VIFDetails), string(b.Profile), b.SegmentID)
	if errors.Is(err, store.ErrDuplicate) {
		return bindingExists(portID, b.Host)
	}
	return err
}

func bindingExists(portID, host string) error {
	return fault.New(fault.Conflict, "PortBindingAlreadyExists", "Binding for port %s on host %s already exists.", portID, host)
}

// AddHostBinding makes a binding of the port for a further host, with b's host,
// VNIC type and profile, and completes b. It is inactive unless the port has no
// active one. Faults: those of HostBindings, PortBindingAlreadyExists,
// PortBindingError.
func (s *Service) AddHostBinding(ctx context.Context, tx *store.Tx, portID string, b *HostBinding) error {
	p, list, err := s.HostBindings(ctx, tx, portID)
	if err != nil {
		return err
	}
	if _, err := bindingOf(list, portID, b.Host); err == nil {
		return bindingExists(portID, b.Host)
	}
	b.ProjectID = p.ProjectID
	if p.active() == nil {
		return s.setActive(ctx, tx, p, b, true)
	}
	b.Status = StatusInactive
	if err := s.tryOn(tx, p, b); err != nil {
		return err
	}
	if err := s.insertBinding(tx, p.ID, b); err != nil {
		return err
	}
	return s.Save(ctx, tx, p) // for its host, nothing has changed
}

// ChangeHostBinding makes a binding of the port be as b says, whose host may be
// another, and completes b. An active one is made anew: the port is down until
// its host has wired it. Faults: as of AddHostBinding, and PortBindingNotFound.
func (s *Service) ChangeHostBinding(ctx context.Context, tx *store.Tx, portID, host string, b *HostBinding) error {
	p, list, err := s.HostBindings(ctx, tx, portID)
	if err != nil {
		return err
	}
	old, err := bindingOf(list, portID, host)
	if err != nil {
		return err
	}
	b.Status, b.ProjectID = old.Status, p.ProjectID
	if b.Host != host {
		if _, err := bindingOf(list, portID, b.Host); err == nil {
			return bindingExists(portID, b.Host)
		}
	}
	if old.Status == StatusActive {
		if b.Host == old.Host && b.VNICType == old.VNICType && string(b.Profile) == string(old.Profile) {
			*b = *old
			return nil
		}
		return s.setActive(ctx, tx, p, b, true)
	}
	if err := s.tryOn(tx, p, b); err != nil {
		return err
	}
	if err := tx.Put("DELETE FROM port_binding WHERE port_id = ? AND host = ?", p.ID, host); err != nil {
		return err
	}
	if err := s.insertBinding(tx, p.ID, b); err != nil {
		return err
	}
	return s.Save(ctx, tx, p)
}

// ActivateHostBinding swaps the port's active binding for the inactive one of
// that host: from this commit on the port is on that host and on no other. The
// former active binding becomes inactive, and unbound, as the host that had it
// takes the port away. Faults: those of HostBindings, PortBindingAlreadyActive,
// PortBindingNotFound, PortBindingError.
func (s *Service) ActivateHostBinding(ctx context.Context, tx *store.Tx, portID, host string) (*HostBinding, error) {
	p, list, err := s.HostBindings(ctx, tx, portID)
	if err != nil {
		return nil, err
	}
	former := p.active()
	if former != nil && former.Host == host {
		return nil, fault.New(fault.Conflict, "PortBindingAlreadyActive", "Binding for port %s on host %s is already active.", portID, host)
	}
	b, err := bindingOf(list, portID, host)
	if err != nil {
		return nil, err
	}
	if err := tx.Put("DELETE FROM port_binding WHERE port_id = ? AND host = ?", p.ID, host); err != nil {
		return nil, err
	}
	if former != nil && former.Host != "" {
		former.VIFType, former.VIFDetails, former.SegmentID = VIFUnbound, json.RawMessage("{}"), ""
		if err := s.insertBinding(tx, p.ID, former); err != nil {
			return nil, err
		}
	}
	// One that was active before has been unbound since.
	if err := s.setActive(ctx, tx, p, b, b.VIFType == VIFUnbound); err != nil {
		return nil, err
	}
	return b, nil
}

// setActive makes b the port's active binding. anew: the mechanisms decide how
// it is bound; else b says it.
func (s *Service) setActive(ctx context.Context, tx *store.Tx, old *Port, b *HostBinding, anew bool) error {
	if anew {
		if err := s.tryOn(tx, old, b); err != nil {
			return err
		}
	}
	parent, err := s.options.Networks.Load(tx, old.NetworkID)
	if err != nil {
		return err
	}
	want := *old
	want.Slots = maps.Clone(old.Slots)
	want.HostID, want.VNICType, want.Profile = b.Host, b.VNICType, b.Profile
	want.VIFType, want.VIFDetails, want.SegmentID = b.VIFType, b.VIFDetails, b.SegmentID
	body := &resource.Body{Values: map[string]any{}, Given: map[string]bool{}}
	for _, hook := range s.BeforeUpdate {
		if err := hook(ctx, tx, old, &want, body); err != nil {
			return err
		}
	}
	if err := s.follow(tx, old, &want, parent, body); err != nil {
		return err
	}
	if want.MACAddress != old.MACAddress {
		subnets, err := s.options.Subnets.OfNetwork(tx, want.NetworkID)
		if err != nil {
			return err
		}
		if err := s.moveAddresses(ctx, tx, old, &want, parent, subnets, body); err != nil {
			return err
		}
	}
	want.begin()
	want.BindingGeneration = want.Generation + 1
	for _, hook := range s.AfterBind {
		if err := hook(ctx, tx, &want); err != nil {
			return err
		}
	}
	b.Status, b.Profile = StatusActive, want.Profile
	return s.storeBound(ctx, tx, &want)
}

// moveAddresses is what a change of the MAC asks for.
func (s *Service) moveAddresses(ctx context.Context, tx *store.Tx, old, want *Port, parent *network.Network, subnets []*subnet.Subnet, body *resource.Body) error {
	if err := s.reallocate(tx, old, want, parent, subnets, body); err != nil {
		return err
	}
	for _, hook := range s.AfterAddresses {
		if err := hook(ctx, tx, old, want); err != nil {
			return err
		}
	}
	return nil
}

// RemoveHostBinding deletes a binding of the port. Without its active one the
// port is unbound. Faults: those of HostBindings, PortBindingNotFound.
func (s *Service) RemoveHostBinding(ctx context.Context, tx *store.Tx, portID, host string) error {
	p, list, err := s.HostBindings(ctx, tx, portID)
	if err != nil {
		return err
	}
	b, err := bindingOf(list, portID, host)
	if err != nil {
		return err
	}
	if b.Status == StatusInactive {
		if err := tx.Put("DELETE FROM port_binding WHERE port_id = ? AND host = ?", p.ID, host); err != nil {
			return err
		}
		return s.Save(ctx, tx, p)
	}
	none := &HostBinding{VIFType: vifNone, VNICType: p.VNICType, VIFDetails: json.RawMessage("{}"), Profile: json.RawMessage("{}")}
	return s.setActive(ctx, tx, p, none, false)
}
