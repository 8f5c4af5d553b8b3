package localip

import (
	"context"
	"net/netip"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	core         *core.Core
	addresses    *collection.Collection[LocalIP, *LocalIP]
	associations *collection.Collection[Association, *Association]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.addresses = collection.New[LocalIP](collection.Options[LocalIP]{
		Store: c.Store, Resource: newResource(), Table: store.NewTable[LocalIP]("local_ip", store.TableOptions[LocalIP]{}),
		Create: s.create,
		Update: func(ctx context.Context, tx *store.Tx, _, want *LocalIP, _ *resource.Body) error {
			return s.addresses.Save(ctx, tx, want)
		},
		Delete: s.delete,
	})
	r := newAssociationResource(s.addresses.Resource)
	s.associations = collection.New[Association](collection.Options[Association]{
		Store: c.Store, Resource: r, Table: store.NewTable[Association]("local_ip_association", store.TableOptions[Association]{}),
		Create: s.associate, Delete: s.disassociate,
	})
	within := s.associations.Within(collection.Parent[Association]{
		Member: "local_ip_id", Column: "local_ip_id",
		Of: func(a *Association) string { return a.LocalIPID },
		Enter: func(ctx context.Context, tx *store.Tx, id string) error {
			_, err := s.addresses.Find(ctx, tx, id)
			return err
		},
		NotFound: func(_, id string) error { return s.associations.NotFound(id) },
	})
	r.Within = func(localIPID string) resource.Service { return byPort{within(localIPID), localIPID} }
	return s
}

// byPort finds the associations of a local IP by their ports.
type byPort struct {
	resource.Service
	localIPID string
}

func (b byPort) fault(portID string, err error) error {
	if fault.Is(err, "LocalIPAssociationNotFound") {
		return fault.New(fault.NotFound, "LocalIPAssociationNotFound", "Local IP %s association with port %s could not be found.", b.localIPID, portID)
	}
	return err
}

// Get implements resource.Service.
func (b byPort) Get(ctx context.Context, portID string) (resource.Object, error) {
	o, err := b.Service.Get(ctx, associationID(b.localIPID, portID))
	return o, b.fault(portID, err)
}

// List implements resource.Service.
func (b byPort) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	if q.Marker != "" {
		at := *q
		at.Marker = associationID(b.localIPID, q.Marker)
		q = &at
	}
	return b.Service.List(ctx, q)
}

// Delete implements resource.Service.
func (b byPort) Delete(ctx context.Context, portID string, match resource.Match) error {
	return b.fault(portID, b.Service.Delete(ctx, associationID(b.localIPID, portID), match))
}

// elevated is the caller as an administrator: for ports of the server's own.
func elevated(ctx context.Context) context.Context {
	who := *identity.From(ctx)
	who.Admin = true
	return identity.With(ctx, &who)
}

func bad(what, format string, args ...any) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad "+what+" request: "+format+".", args...)
}

func invalid(typ, format string, args ...any) error {
	return fault.New(fault.Invalid, typ, format, args...)
}

// find returns a port that the caller may use.
func (s *service) find(ctx context.Context, tx *store.Tx, what, id string) (*port.Port, error) {
	p, err := s.core.Ports.Find(ctx, tx, id)
	if fault.Is(err, "PortNotFound") {
		return nil, bad(what, "Port %s not found", id)
	}
	return p, err
}

// addressOf is the IPv4 address of a port that was asked for, or its only one.
func addressOf(p *port.Port, asked netip.Addr) (netip.Addr, error) {
	var have []netip.Addr
	for _, f := range p.FixedIPs {
		if f.IPAddress.Is4() {
			have = append(have, f.IPAddress)
		}
	}
	switch {
	case len(have) == 0:
		return netip.Addr{}, invalid("LocalIPNoIP", "Specified Port %s has no fixed IPs configured.", p.ID)
	case asked.IsValid() && !slices.Contains(have, asked):
		return netip.Addr{}, invalid("LocalIPRequestedIPNotFound", "Specified Port %s does not have requested IP address: %s.", p.ID, asked)
	case asked.IsValid():
		return asked, nil
	case len(have) > 1:
		return netip.Addr{}, invalid("LocalIPNoRequestedIP", "Specified Port %s has several IPs, should specify exact IP address to use for Local IP.", p.ID)
	}
	return have[0], nil
}

func (s *service) create(ctx context.Context, tx *store.Tx, l *LocalIP, _ *resource.Body) error {
	l.ID = resource.NewID()
	if l.LocalPortID == "" && l.NetworkID == "" {
		return invalid("LocalIPPortOrNetworkRequired", "Either Port ID or Network ID must be specified for Local IP create.")
	}
	var p *port.Port
	var err error
	if l.LocalPortID != "" {
		p, err = s.find(ctx, tx, "local_ip", l.LocalPortID)
	} else {
		p, err = s.makePort(ctx, tx, l)
	}
	if err != nil {
		return err
	}
	if l.LocalIPAddress, err = addressOf(p, l.LocalIPAddress); err != nil {
		return err
	}
	l.LocalPortID, l.NetworkID = p.ID, p.NetworkID
	return s.addresses.Insert(ctx, tx, l)
}

// makePort makes the port that holds an address on a network.
func (s *service) makePort(ctx context.Context, tx *store.Tx, l *LocalIP) (*port.Port, error) {
	network, err := s.core.Networks.Find(ctx, tx, l.NetworkID)
	if err != nil {
		return nil, err
	}
	subnets, err := s.core.Subnets.OfNetwork(tx, network.ID)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(subnets, func(n *subnet.Subnet) bool { return n.IPVersion == 4 })
	if at < 0 {
		return nil, bad("local_ip", "Network %s does not contain any IPv4 subnet", network.ID)
	}
	wanted := port.FixedIP{SubnetID: subnets[at].ID}
	if l.LocalIPAddress.IsValid() {
		wanted = port.FixedIP{IPAddress: l.LocalIPAddress}
	}
	return s.core.Ports.Make(elevated(ctx), tx, port.Draft{Plain: true, Addresses: []port.FixedIP{wanted}, Port: port.Port{
		Standard: resource.Standard{ProjectID: l.ProjectID}, NetworkID: network.ID, DeviceOwner: ownerLocalIP, DeviceID: l.ID,
	}})
}

func (s *service) delete(ctx context.Context, tx *store.Tx, l *LocalIP) error {
	var n int
	if err := tx.Row("SELECT COUNT(*) FROM local_ip_association WHERE local_ip_id = ?", []any{l.ID}, &n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "LocalIPInUse", "Local IP %s is still associated with one or more ports.", l.ID)
	}
	if err := s.addresses.Remove(ctx, tx, l); err != nil {
		return err
	}
	p, err := s.core.Ports.Load(tx, l.LocalPortID)
	if err != nil || p.DeviceOwner != ownerLocalIP {
		return err
	}
	return s.core.Ports.Drop(elevated(ctx), tx, p)
}

func (s *service) associate(ctx context.Context, tx *store.Tx, a *Association, _ *resource.Body) error {
	l, err := s.addresses.Load(tx, a.LocalIPID)
	if err != nil {
		return err
	}
	p, err := s.find(ctx, tx, "local_ip_port_association", a.FixedPortID)
	if err != nil {
		return err
	}
	if a.FixedIP, err = addressOf(p, a.FixedIP); err != nil {
		return err
	}
	a.ID, a.ProjectID, a.LocalIPAddress, a.Host = associationID(l.ID, p.ID), l.ProjectID, l.LocalIPAddress, p.HostID
	if err := s.associations.Insert(ctx, tx, a); err != nil {
		if store.Duplicate(err, "local_ip_association", "id") || store.Duplicate(err, "local_ip_association", "local_ip_id") {
			return fault.New(fault.Conflict, "Conflict", "Local IP %s association to port %s already exists.", l.ID, p.ID)
		}
		return err
	}
	list := append(localIPs.Get(p.Slots), port.LocalIP{ID: l.ID, Address: l.LocalIPAddress, FixedIP: a.FixedIP, Mode: l.IPMode, NetworkID: l.NetworkID})
	return s.tell(ctx, tx, p, list)
}

func (s *service) disassociate(ctx context.Context, tx *store.Tx, a *Association) error {
	if err := s.associations.Remove(ctx, tx, a); err != nil {
		return err
	}
	p, err := s.core.Ports.Load(tx, a.FixedPortID)
	if err != nil {
		return err
	}
	return s.tell(ctx, tx, p, slices.DeleteFunc(localIPs.Get(p.Slots), func(l port.LocalIP) bool { return l.ID == a.LocalIPID }))
}

// tell gives the host of a port the port's local IPs.
func (s *service) tell(ctx context.Context, tx *store.Tx, p *port.Port, list []port.LocalIP) error {
	if len(list) == 0 {
		delete(p.Slots, port.LocalIPs)
	} else if err := localIPs.Set(&p.Slots, list); err != nil {
		return err
	}
	return s.core.Ports.Renew(ctx, tx, p)
}

// hook attaches the family's rules to ports.
func (s *service) hook() {
	ports := s.core.Ports
	ports.AfterBind = append(ports.AfterBind, func(_ context.Context, tx *store.Tx, p *port.Port) error {
		if _, ok := p.Slots[port.LocalIPs]; !ok {
			return nil
		}
		err := tx.Put("UPDATE local_ip_association SET host = ? WHERE fixed_port_id = ?", p.HostID, p.ID)
		return err
	})
	ports.BeforeDelete = append(ports.BeforeDelete, s.portGone)
}

// portGone refuses to delete a port that holds a local IP, and ends the
// associations of others.
func (s *service) portGone(ctx context.Context, tx *store.Tx, p *port.Port) error {
	var n int
	if err := tx.Row("SELECT COUNT(*) FROM local_ip WHERE local_port_id = ?", []any{p.ID}, &n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "ServicePortInUse", "Port %s cannot be deleted directly via the port API: %s.", p.ID, "still referenced by Local IPs")
	}
	list, err := s.associations.Table.Select(tx, "WHERE t.fixed_port_id = ?", p.ID)
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := s.associations.Remove(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}
