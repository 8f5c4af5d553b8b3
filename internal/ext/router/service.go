package router

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/quota"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct {
	core     *core.Core
	routers  *collection.Collection[Router, *Router]
	floating *collection.Collection[FloatingIP, *FloatingIP]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	routers := store.NewTable[Router]("router", store.TableOptions[Router]{
		Kind:       "router",
		Children:   []func(*store.Tx, []*Router) error{collection.Tagged[Router]("router"), fillGateways, fillHosts, fillPorts, s.fillShared},
		Conditions: c.L3.RouterConditions,
	})
	s.routers = collection.New[Router](collection.Options[Router]{
		Store: c.Store, Resource: s.newRouterResource(), Table: routers, Quota: c.Quotas,
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	floating := store.NewTable[FloatingIP]("floatingip", store.TableOptions[FloatingIP]{
		Kind:     "floatingip",
		Children: []func(*store.Tx, []*FloatingIP) error{collection.Tagged[FloatingIP]("floatingip"), fillPortDetails},
	})
	s.floating = collection.New[FloatingIP](collection.Options[FloatingIP]{
		Store: c.Store, Resource: newFloatingResource(), Table: floating, Quota: c.Quotas,
		Create: s.createFloating, Update: s.updateFloating, Delete: s.deleteFloating, Present: s.presentFloating,
	})
	return s
}

func index(rows []*Router) ([]string, map[string]*Router) {
	ids, by := make([]string, len(rows)), make(map[string]*Router, len(rows))
	for i, r := range rows {
		ids[i], by[r.ID] = r.ID, r
	}
	return ids, by
}

func fillHosts(tx *store.Tx, rows []*Router) error {
	ids, by := index(rows)
	return store.Gather(tx, `SELECT b.router_id, b.host, a.availability_zone FROM router_binding b LEFT JOIN agent a ON a.host = b.host AND a.agent_type = '`+agent.L3+`'
		WHERE %s`, "b.router_id", ids, func(scan func(...any) error) error {
		var id, host string
		var zone *string
		if err := scan(&id, &host, &zone); err != nil {
			return err
		}
		by[id].HostID, by[id].AvailabilityZones = host, nil
		if zone != nil {
			by[id].AvailabilityZones = []string{*zone}
		}
		return nil
	})
}

func fillPorts(tx *store.Tx, rows []*Router) error {
	ids, by := index(rows)
	return store.Gather(tx, "SELECT router_id, port_id FROM router_port WHERE %s ORDER BY router_id, port_id", "router_id", ids, func(scan func(...any) error) error {
		var id, portID string
		if err := scan(&id, &portID); err != nil {
			return err
		}
		by[id].PortIDs = append(by[id].PortIDs, portID)
		return nil
	})
}

// bad is neutron-lib's BadRequest.
func bad(what, format string, args ...any) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad "+what+" request: "+format+".", args...)
}

// elevated is the caller as an administrator: for what belongs to the server,
// on networks that the caller may not use directly.
func elevated(ctx context.Context) context.Context {
	who := *identity.From(ctx)
	who.Admin = true
	return identity.With(ctx, &who)
}

// touch makes a new generation of a router whose host must be told something
// that is no change of the router for clients.
func (s *service) touch(ctx context.Context, tx *store.Tx, r *Router) error {
	r.Generation++
	if err := s.routers.Table.Update(tx, r); err != nil {
		return err
	}
	who := identity.From(ctx)
	tx.Emit(store.Event{
		Kind: s.routers.Kind(), ID: r.ID, Op: store.Updated, Revision: r.Revision, ProjectID: r.ProjectID,
		RequestID: who.RequestID, UserID: who.UserID, UserProject: who.ProjectID, At: s.routers.Now().UnixMilli(), Object: r,
	})
	return nil
}

// save stores a changed router as a new generation and a new revision.
func (s *service) save(ctx context.Context, tx *store.Tx, r *Router) error {
	r.Generation++
	return s.routers.Save(ctx, tx, r)
}

func (s *service) create(ctx context.Context, tx *store.Tx, r *Router, body *resource.Body) error {
	r.ID, r.Status, r.ExternalGateway = resource.NewID(), "ACTIVE", nil
	r.EVPNVNI = nil // its family gives it, once it is reserved
	if err := s.chooseKind(ctx, tx, r, body); err != nil {
		return err
	}
	if err := s.core.Agents.CheckZones(tx, agent.L3, r.AvailabilityZoneHints); err != nil {
		return err
	}
	if err := s.routers.Insert(ctx, tx, r); err != nil {
		return err
	}
	if r.HA {
		if err := s.ensureHANetwork(ctx, tx, r.ProjectID); err != nil {
			return err
		}
	}
	request, err := gatewayRequest(body.Values["external_gateway_info"])
	if err != nil {
		return err
	}
	if err := s.setGateway(ctx, tx, r, request); err != nil {
		return err
	}
	if err := s.written(ctx, tx, nil, r, body); err != nil {
		return err
	}
	return s.save(ctx, tx, r)
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Router, body *resource.Body) error {
	want.ExternalGateway = old.ExternalGateway
	if err := s.changeKind(ctx, tx, old, want, body); err != nil {
		return err
	}
	if body.Has("external_gateway_info") {
		request, err := gatewayRequest(body.Values["external_gateway_info"])
		if err != nil {
			return err
		}
		if err := s.setGateway(ctx, tx, want, request); err != nil {
			return err
		}
	}
	if body.Has("routes") {
		if err := s.checkRoutes(tx, want, body.Values["routes"]); err != nil {
			return err
		}
	}
	if err := s.written(ctx, tx, old, want, body); err != nil {
		return err
	}
	return s.save(ctx, tx, want)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, r *Router) error {
	if len(r.PortIDs) > 0 {
		return fault.New(fault.Conflict, "RouterInUse", "Router %s %s", r.ID, "has ports still attached: "+strings.Join(r.PortIDs, ", "))
	}
	for _, hook := range s.core.L3.BeforeRouterDelete {
		if err := hook(ctx, tx, viewRouter(r)); err != nil {
			return err
		}
	}
	if err := s.dropGateways(ctx, tx, r); err != nil {
		return err
	}
	if err := s.routers.Remove(ctx, tx, r); err != nil || !r.HA {
		return err
	}
	return s.releaseHANetwork(ctx, tx, r.ProjectID)
}

// portsOf returns the router's interfaces, and its gateways last.
func (s *service) portsOf(tx *store.Tx, r *Router) ([]*port.Port, error) {
	var ports []*port.Port
	for _, id := range portsOf(r) {
		p, err := s.core.Ports.Load(tx, id)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// subnetsOf returns the subnets on which the router has addresses.
func (s *service) subnetsOf(tx *store.Tx, r *Router) ([]*subnet.Subnet, error) {
	return s.core.Subnets.Table.SelectBare(tx, `WHERE t.id IN (SELECT a.subnet_id FROM router_port p JOIN ip_allocation a ON a.port_id = p.port_id WHERE p.router_id = ?
		UNION SELECT a.subnet_id FROM router_gateway_port g JOIN ip_allocation a ON a.port_id = g.port_id WHERE g.router_id = ?) ORDER BY t.created_at, t.id`, r.ID, r.ID)
}

// checkSubnets refuses subnets that the router has already or that overlap with
// those that it has. For a gateway they may be those of another gateway on the
// same external network.
func (s *service) checkSubnets(tx *store.Tx, r *Router, adding []*subnet.Subnet, gateway bool) error {
	have, err := s.subnetsOf(tx, r)
	if err != nil {
		return err
	}
	if gateway {
		have = slices.DeleteFunc(have, func(h *subnet.Subnet) bool {
			return slices.ContainsFunc(r.ExternalGateways, func(g ListedGateway) bool { return g.NetworkID == h.NetworkID }) &&
				slices.ContainsFunc(adding, func(n *subnet.Subnet) bool { return n.NetworkID == h.NetworkID })
		})
	}
	for _, h := range have {
		if subnet.Of(adding, h.ID) != nil {
			return bad("router", "Router already has a port on subnet %s", h.ID)
		}
	}
	for _, h := range have {
		for _, n := range adding {
			if h.CIDR.Overlaps(n.CIDR) && !n.Pending() {
				return bad("router", "Cidr %s of subnet %s overlaps with cidr %s of subnet %s", n.CIDR, n.ID, h.CIDR, h.ID)
			}
		}
	}
	return nil
}

// checkRoutes checks the router's static routes. given is what the client sent.
func (s *service) checkRoutes(tx *store.Tx, r *Router, given any) error {
	limit, err := s.core.Quotas.Limit(tx, "router_route", r.ProjectID)
	if err != nil {
		return err
	}
	if limit >= 0 && len(r.Routes) > limit {
		return quota.Exceeded("router_route")
	}
	ports, err := s.portsOf(tx, r)
	if err != nil {
		return err
	}
	subnets, err := s.subnetsOf(tx, r)
	if err != nil {
		return err
	}
	invalid := func(reason string) error {
		return fault.New(fault.Invalid, "InvalidRoutes", "Invalid format for routes: %s, %s", value.Repr(given), reason)
	}
	for _, route := range r.Routes {
		hop, err := netip.ParseAddr(route.NextHop)
		if err != nil {
			return invalid("the nexthop is not an IP address")
		}
		if !slices.ContainsFunc(subnets, func(n *subnet.Subnet) bool { return n.CIDR.Contains(hop) }) {
			return invalid("the nexthop is not connected with router")
		}
		for _, p := range ports {
			if slices.ContainsFunc(p.FixedIPs, func(f port.FixedIP) bool { return f.IPAddress == hop }) {
				return invalid("the nexthop is used by router")
			}
		}
		// No host could follow such a route.
		if d, err := netip.ParsePrefix(route.Destination); err != nil || d.Addr().Is4() != hop.Is4() {
			return invalid("the destination and the nexthop are not of one IP version")
		}
	}
	return nil
}

// hook ties routers into networks, subnets and ports.
func (s *service) hook() {
	s.core.RBAC.Use("network", gatewayUse())
	s.core.Networks.BeforeUpdate = append(s.core.Networks.BeforeUpdate, s.checkNetwork)
	// Before the ports of the network are counted.
	s.core.Networks.BeforeDelete = slices.Insert(s.core.Networks.BeforeDelete, 0, s.dropIdleFloating)
	s.core.Subnets.AfterCreate = append(s.core.Subnets.AfterCreate, s.addGatewayAddresses)
	ports := s.core.Ports
	ports.BeforeCreate = append(ports.BeforeCreate, func(ctx context.Context, tx *store.Tx, p *port.Port, _ *resource.Body) error {
		return s.checkDevice(ctx, tx, p)
	})
	ports.BeforeUpdate = append(ports.BeforeUpdate, func(ctx context.Context, tx *store.Tx, old, want *port.Port, _ *resource.Body) error {
		if old.DeviceID == want.DeviceID && old.DeviceOwner == want.DeviceOwner {
			return nil
		}
		return s.checkDevice(ctx, tx, want)
	})
	ports.AfterAddresses = append(ports.AfterAddresses, s.checkAddresses)
	ports.BeforeClientDelete = append(ports.BeforeClientDelete, s.checkDelete)
	ports.BeforeDelete = append(ports.BeforeDelete, s.portGone)
}

// checkNetwork keeps a network external while routers have gateways there.
func (s *service) checkNetwork(_ context.Context, tx *store.Tx, old, want *network.Network) error {
	if !old.External || want.External {
		return nil
	}
	var n int
	if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM port WHERE network_id = ? AND device_owner = ? LIMIT 1) x", []any{want.ID, port.OwnerRouterGateway}, &n); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "ExternalNetworkInUse", "External network %s cannot be updated to be made non-external, since it has existing gateway ports.", want.ID)
	}
	return nil
}

// addGatewayAddresses gives the gateways on an external network an address of
// its new subnet when they have none of that family.
func (s *service) addGatewayAddresses(ctx context.Context, tx *store.Tx, n *subnet.Subnet) error {
	if n.AutoAddress() { // given by ports themselves
		return nil
	}
	ports, err := s.core.Ports.Table.Select(tx, "WHERE t.network_id = ? AND t.device_owner = ? ORDER BY t.id", n.NetworkID, port.OwnerRouterGateway)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if slices.ContainsFunc(p.FixedIPs, func(f port.FixedIP) bool { return f.IPAddress.Is4() == (n.IPVersion == 4) }) {
			continue
		}
		rows, err := s.routers.Table.Select(tx, "WHERE t.id IN (SELECT router_id FROM router_gateway_port WHERE port_id = ?)", p.ID)
		if err != nil {
			return err
		}
		if len(rows) == 0 || s.checkSubnets(tx, rows[0], []*subnet.Subnet{n}, true) != nil {
			continue // it would overlap with what the router has inside
		}
		err = s.core.Ports.SetAddresses(elevated(ctx), tx, p, append(slices.Clone(p.FixedIPs), port.FixedIP{SubnetID: n.ID}))
		if fault.Is(err, "IpAddressGenerationFailure") {
			return nil // the subnet is full: the other gateways go without
		}
		if err != nil {
			return err
		}
		if err := fillGateways(tx, rows[:1]); err != nil {
			return err
		}
		if err := s.save(ctx, tx, rows[0]); err != nil {
			return err
		}
	}
	return nil
}

// checkDevice refuses to make a port look like one of another project's router.
func (s *service) checkDevice(ctx context.Context, tx *store.Tx, p *port.Port) error {
	if identity.From(ctx).Admin || p.DeviceID == "" || !slices.Contains(interfaceOwners, p.DeviceOwner) {
		return nil
	}
	var project string
	err := tx.Row("SELECT project_id FROM router WHERE id = ?", []any{p.DeviceID}, &project)
	if errors.Is(err, store.ErrNoRow) || err == nil && project == p.ProjectID {
		return nil
	}
	if err != nil {
		return err
	}
	return notOwned(p.DeviceID)
}

func notOwned(deviceID string) error {
	return fault.New(fault.Conflict, "DeviceIDNotOwnedByTenant", "The following device_id %s is not owned by your project or matches another project router.", deviceID)
}

// checkAddresses keeps the addresses that floating IPs and routers stand on.
func (s *service) checkAddresses(_ context.Context, tx *store.Tx, old, now *port.Port) error {
	if slices.Contains(interfaceOwners, old.DeviceOwner) || old.DeviceOwner == port.OwnerFloatingIP {
		if !slices.Equal(addresses4(old), addresses4(now)) {
			return fault.New(fault.Invalid, "IPAddressChangeNotAllowed", "IP updates for port %s are not allowed", old.ID)
		}
	}
	list, err := s.floating.Table.SelectBare(tx, "WHERE t.port_id = ?", old.ID)
	if err != nil {
		return err
	}
	for _, f := range list {
		if !slices.Contains(addresses4(now), f.FixedIPAddress) {
			return bad("port", "Cannot update the fixed_ips of the port %s, because its original fixed_ip has been associated to a floating ip", old.ID)
		}
	}
	return nil
}

// addresses4 are a port's IPv4 addresses, sorted.
func addresses4(p *port.Port) []netip.Addr {
	var list []netip.Addr
	for _, f := range p.FixedIPs {
		if f.IPAddress.Is4() {
			list = append(list, f.IPAddress)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// checkDelete refuses to delete the ports of routers and floating IPs directly.
func (s *service) checkDelete(_ context.Context, tx *store.Tx, p *port.Port) error {
	var n int
	if err := tx.Row(`SELECT (SELECT COUNT(*) FROM router_port WHERE port_id = ?) + (SELECT COUNT(*) FROM router_gateway_port WHERE port_id = ?)
		+ (SELECT COUNT(*) FROM floatingip WHERE floating_port_id = ?)`, []any{p.ID, p.ID, p.ID}, &n); err != nil || n == 0 {
		return err
	}
	return fault.New(fault.Conflict, "ServicePortInUse", "Port %s cannot be deleted directly via the port API: has device owner %s.", p.ID, p.DeviceOwner)
}

// portGone takes a port that is being deleted away from what uses it.
func (s *service) portGone(ctx context.Context, tx *store.Tx, p *port.Port) error {
	list, err := s.floating.Table.Select(tx, "WHERE t.port_id = ? ORDER BY t.id", p.ID)
	if err != nil {
		return err
	}
	who := identity.From(ctx)
	for _, f := range list {
		if !who.Admin && f.ProjectID != who.ProjectID {
			return fault.New(fault.Conflict, "FipAssociated", "Unable to complete the operation on port %s because the port still has an associated floating IP.", p.ID)
		}
	}
	for _, f := range list {
		if err := s.disassociate(ctx, tx, f); err != nil {
			return err
		}
	}
	var id string
	err = tx.Row("SELECT router_id FROM router_port WHERE port_id = ?", []any{p.ID}, &id)
	if errors.Is(err, store.ErrNoRow) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := tx.Put("DELETE FROM router_port WHERE port_id = ?", p.ID); err != nil {
		return err
	}
	r, err := s.routers.Load(tx, id)
	if err != nil {
		return err
	}
	return s.save(ctx, tx, r)
}
