package router

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func fillPortDetails(tx *store.Tx, rows []*FloatingIP) error {
	by := map[string][]*FloatingIP{}
	var ids []string
	for _, f := range rows {
		f.PortDetails = nil
		if f.PortID != nil {
			if by[*f.PortID] == nil {
				ids = append(ids, *f.PortID)
			}
			by[*f.PortID] = append(by[*f.PortID], f)
		}
	}
	return store.Gather(tx, "SELECT id, name, network_id, mac_address, admin_state_up, status, device_id, device_owner FROM port WHERE %s", "id", ids, func(scan func(...any) error) error {
		var id string
		d := &PortDetails{}
		if err := scan(&id, &d.Name, &d.NetworkID, &d.MACAddress, &d.AdminStateUp, &d.Status, &d.DeviceID, &d.DeviceOwner); err != nil {
			return err
		}
		for _, f := range by[id] {
			f.PortDetails = d
		}
		return nil
	})
}

func (s *service) createFloating(ctx context.Context, tx *store.Tx, f *FloatingIP, body *resource.Body) error {
	f.ID, f.Status = resource.NewID(), statusDown
	if f.FixedIPAddress.IsValid() && f.PortID == nil {
		return withoutPort()
	}
	subnetID, _ := body.Values["subnet_id"].(string)
	p, err := s.holder(ctx, tx, f, subnetID)
	if err != nil {
		return err
	}
	f.FloatingPortID = p.ID
	to, err := s.resolve(ctx, tx, f, f.PortID, f.FixedIPAddress)
	if err != nil {
		return err
	}
	to.apply(f)
	if err := s.floating.Insert(ctx, tx, f); err != nil {
		return taken(err, f)
	}
	if err := fillPortDetails(tx, []*FloatingIP{f}); err != nil {
		return err
	}
	if err := s.floatingWritten(ctx, tx, nil, f, body); err != nil {
		return err
	}
	if to.router == nil {
		return nil
	}
	return s.touch(ctx, tx, to.router)
}

func withoutPort() error {
	return bad("floatingip", "fixed_ip_address cannot be specified without a port_id")
}

// holder makes the hidden port with the floating address, which it writes into f.
func (s *service) holder(ctx context.Context, tx *store.Tx, f *FloatingIP, subnetID string) (*port.Port, error) {
	parent, err := s.core.Networks.Find(elevated(ctx), tx, f.FloatingNetworkID)
	if err != nil && !fault.IsKind(err, fault.NotFound) {
		return nil, err
	}
	if err != nil || !parent.External {
		return nil, bad("floatingip", "Network %s is not a valid external network", f.FloatingNetworkID)
	}
	// An external network may be one of other projects.
	if _, err := s.core.Networks.Find(ctx, tx, parent.ID); err != nil {
		return nil, err
	}
	subnets, err := s.core.Subnets.OfNetwork(tx, parent.ID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(subnets, func(n *subnet.Subnet) bool { return n.IPVersion == 4 }) {
		return nil, bad("floatingip", "Network %s does not contain any IPv4 subnet", parent.ID)
	}
	draft := port.Draft{Plain: true, Port: port.Port{NetworkID: parent.ID, DeviceOwner: port.OwnerFloatingIP, DeviceID: f.ID}}
	if subnetID != "" || f.FloatingIPAddress.IsValid() {
		draft.Addresses = []port.FixedIP{{SubnetID: subnetID, IPAddress: f.FloatingIPAddress}}
	}
	p, err := s.core.Ports.Make(elevated(ctx), tx, draft)
	if err != nil {
		return nil, err
	}
	own := addresses4(p)
	if len(own) == 0 {
		return nil, fault.New(fault.Invalid, "ExternalIpAddressExhausted", "Unable to find any IP address on external network %s.", parent.ID)
	}
	f.FloatingIPAddress = own[0]
	return p, nil
}

// association is what a floating IP stands for; the zero value: nothing.
type association struct {
	portID *string
	fixed  netip.Addr
	router *Router
}

// apply writes the association into f, which waits for the router's next generation.
func (a association) apply(f *FloatingIP) {
	f.PortID, f.FixedIPAddress, f.RouterID, f.RouterGeneration, f.Status = a.portID, a.fixed, nil, 0, statusDown
	if a.router != nil {
		f.RouterID, f.RouterGeneration = &a.router.ID, a.router.Generation+1
	}
}

// resolve finds what a floating IP is to stand for: the port's address, and
// the router between it and the external network.
func (s *service) resolve(ctx context.Context, tx *store.Tx, f *FloatingIP, portID *string, fixed netip.Addr) (association, error) {
	if portID == nil {
		return association{}, nil
	}
	p, err := s.core.Ports.Find(ctx, tx, *portID)
	if err != nil {
		return association{}, err
	}
	if p.ProjectID != f.ProjectID && !identity.From(ctx).Admin {
		return association{}, bad("floatingip", "Cannot process floating IP association with Port %s, since that port is owned by a different project", p.ID)
	}
	if p.DeviceOwner == port.OwnerDHCP {
		// The text has its parameter unfilled in Neutron, too.
		return association{}, bad("floatingip", "Port %s is unable to be assigned a floating IP", "%(id)s")
	}
	address, err := internalAddress(p, fixed)
	if err != nil {
		return association{}, err
	}
	r, err := s.routerBetween(tx, address.SubnetID, f.FloatingNetworkID)
	if err != nil {
		return association{}, err
	}
	if r == nil {
		return association{}, fault.New(fault.NotFound, "ExternalGatewayForFloatingIPNotFound", "External network %s is not reachable from subnet %s.  Therefore, cannot associate Port %s with a Floating IP.",
			f.FloatingNetworkID, address.SubnetID, p.ID)
	}
	if r.Distributed && !slices.Contains(bridged, p.VNICType) {
		return association{}, bad("floatingip", "Port VNIC type is not valid to associate a FIP in DVR mode")
	}
	return association{&p.ID, address.IPAddress, r}, nil
}

// bridged are the types of ports that hosts have on a bridge: those of others
// have no floating IP by a distributed router.
var bridged = []string{"normal", "smart-nic"}

// internalAddress is the port's address that was asked for, or its only IPv4 address.
func internalAddress(p *port.Port, fixed netip.Addr) (port.FixedIP, error) {
	if fixed.IsValid() {
		if !fixed.Is4() {
			return port.FixedIP{}, bad("floatingip", "Cannot process floating IP association with %s, since that is not an IPv4 address", fixed)
		}
		for _, f := range p.FixedIPs {
			if f.IPAddress == fixed {
				return f, nil
			}
		}
		return port.FixedIP{}, bad("floatingip", "Port %s does not have fixed ip %s", p.ID, fixed)
	}
	var found []port.FixedIP
	for _, f := range p.FixedIPs {
		if f.IPAddress.Is4() {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		return port.FixedIP{}, bad("floatingip", "Cannot add floating IP to port %s that has no fixed IPv4 addresses", p.ID)
	case 1:
		return found[0], nil
	}
	return port.FixedIP{}, bad("floatingip", "Port %s has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP", p.ID)
}

// routerBetween is the router with an interface on the subnet and its gateway
// on the external network, preferably the one that is the subnet's gateway; nil: none.
func (s *service) routerBetween(tx *store.Tx, subnetID, externalID string) (*Router, error) {
	var id string
	// By the interfaces on the network, which are few, not by the addresses of
	// the subnet: the || keeps the database from its index.
	err := tx.Row(`SELECT t.id FROM subnet n JOIN port p ON p.network_id = n.network_id AND p.device_owner IN (?, ?, ?)
		JOIN router_port rp ON rp.port_id = p.id JOIN ip_allocation a ON a.port_id = p.id AND a.subnet_id || '' = n.id
		JOIN router t ON t.id = rp.router_id
		WHERE n.id = ? AND EXISTS (SELECT 1 FROM router_gateway_port gp JOIN port g ON g.id = gp.port_id WHERE gp.router_id = t.id AND g.network_id = ?) ORDER BY CASE WHEN a.ip_address = n.gateway_ip THEN 0 ELSE 1 END, t.created_at, t.id LIMIT 1`,
		[]any{port.OwnerRouterInterface, ownerDistributed, ownerReplicated, subnetID, externalID}, &id)
	if errors.Is(err, store.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.routers.Load(tx, id)
}

// taken is the fault of a second floating IP for one address.
func taken(err error, f *FloatingIP) error {
	if !store.Duplicate(err, "floatingip", "fixed_ip_address") {
		return err
	}
	portID := ""
	if f.PortID != nil {
		portID = *f.PortID
	}
	return fault.New(fault.Conflict, "FloatingIPPortAlreadyAssociated", "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.",
		f.FloatingIPAddress, f.ID, portID, f.FixedIPAddress, f.FloatingNetworkID)
}

func (s *service) updateFloating(ctx context.Context, tx *store.Tx, old, want *FloatingIP, body *resource.Body) error {
	fixed := netip.Addr{}
	if body.Has("fixed_ip_address") {
		fixed = want.FixedIPAddress
	}
	if fixed.IsValid() && (!body.Has("port_id") || want.PortID == nil) {
		return withoutPort()
	}
	portID := want.PortID
	switch {
	case len(body.Values) == 0:
		// Floating IPs once had nothing but their association: to say nothing clears it.
		portID = nil
	case !body.Has("port_id"):
		portID, fixed = old.PortID, old.FixedIPAddress
	}
	to, err := s.resolve(ctx, tx, want, portID, fixed)
	if err != nil {
		return err
	}
	want.PortID, want.FixedIPAddress, want.RouterID = old.PortID, old.FixedIPAddress, old.RouterID
	// One that port forwardings hold stays with its router.
	held := old.PortID == nil && old.RouterID != nil && to.portID == nil
	changed := !held && (!same(old.PortID, to.portID) || old.FixedIPAddress != to.fixed || (to.router == nil) != (old.RouterID == nil) || to.router != nil && *old.RouterID != to.router.ID)
	if changed {
		to.apply(want)
	}
	if err := s.floating.Save(ctx, tx, want); err != nil {
		return taken(err, want)
	}
	if err := s.floatingWritten(ctx, tx, old, want, body); err != nil {
		return err
	}
	if err := fillPortDetails(tx, []*FloatingIP{want}); err != nil || !changed {
		return err
	}
	if old.RouterID != nil && (to.router == nil || to.router.ID != *old.RouterID) {
		if err := s.touchID(ctx, tx, *old.RouterID); err != nil {
			return err
		}
	}
	if to.router == nil {
		return nil
	}
	return s.touch(ctx, tx, to.router)
}

func same(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func (s *service) touchID(ctx context.Context, tx *store.Tx, id string) error {
	r, err := s.routers.Load(tx, id)
	if err != nil {
		return err
	}
	return s.touch(ctx, tx, r)
}

// disassociate lets a floating IP stand for nothing.
func (s *service) disassociate(ctx context.Context, tx *store.Tx, f *FloatingIP) error {
	router := f.RouterID
	association{}.apply(f)
	f.PortDetails = nil
	if err := s.floating.Save(ctx, tx, f); err != nil || router == nil {
		return err
	}
	return s.touchID(ctx, tx, *router)
}

// dropIdleFloating deletes the floating IPs of an external network that stand
// for nothing: they do not keep it.
func (s *service) dropIdleFloating(ctx context.Context, tx *store.Tx, n *network.Network) error {
	if !n.External {
		return nil
	}
	list, err := s.floating.Table.Select(tx, "WHERE t.floating_network_id = ? AND t.port_id IS NULL AND t.router_id IS NULL ORDER BY t.id", n.ID)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := s.deleteFloating(ctx, tx, f); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) deleteFloating(ctx context.Context, tx *store.Tx, f *FloatingIP) error {
	for _, hook := range s.core.L3.BeforeFloatingIPDelete {
		if err := hook(ctx, tx, viewFloating(f)); err != nil {
			return err
		}
	}
	if err := s.floating.Remove(ctx, tx, f); err != nil {
		return err
	}
	p, err := s.core.Ports.Load(tx, f.FloatingPortID)
	if err != nil {
		return err
	}
	if err := s.core.Ports.Drop(elevated(ctx), tx, p); err != nil || f.RouterID == nil {
		return err
	}
	return s.touchID(ctx, tx, *f.RouterID)
}
