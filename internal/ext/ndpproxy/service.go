package ndpproxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/l3"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Proxy, *Proxy]
	core *core.Core
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.Collection = collection.New[Proxy](collection.Options[Proxy]{
		Store: c.Store, Resource: newResource(), Table: store.NewTable[Proxy]("ndp_proxy", store.TableOptions[Proxy]{}),
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	return s
}

// gateway is what NDP proxies must know of a router's gateway.
type gateway struct {
	networkID string
	subnetIDs []string // those of IPv6 addresses
	scope     string   // of the network's IPv6 subnets; empty: none
}

// gatewayOf returns the router's gateway, nil when it has none.
func (s *service) gatewayOf(tx *store.Tx, r *l3.Router) (*gateway, error) {
	if r.GatewayPortID == nil {
		return nil, nil
	}
	p, err := s.core.Ports.Load(tx, *r.GatewayPortID)
	if err != nil {
		return nil, err
	}
	g := &gateway{networkID: p.NetworkID}
	for _, a := range p.FixedIPs {
		if a.IPAddress.Is6() {
			g.subnetIDs = append(g.subnetIDs, a.SubnetID)
		}
	}
	g.scope, err = scopeOf(tx, "s.network_id", p.NetworkID)
	return g, err
}

// scopeOf is the address scope of IPv6 subnets; empty: none.
func scopeOf(tx *store.Tx, column, id string) (string, error) {
	var scope string
	err := tx.Row("SELECT sp.address_scope_id FROM subnet s JOIN subnetpool sp ON sp.id = s.subnetpool_id WHERE s.ip_version = 6 AND sp.address_scope_id IS NOT NULL AND "+column+" = ? ORDER BY s.created_at, s.id LIMIT 1", []any{id}, &scope)
	if errors.Is(err, store.ErrNoRow) {
		err = nil
	}
	return scope, err
}

func invalidAddress(a netip.Addr, reason string) error {
	return fault.New(fault.Invalid, "InvalidAddress", "The address %s is invalid, reason: %s.", a, reason)
}

func unreachable(p *port.Port, r *l3.Router) error {
	return fault.New(fault.Conflict, "PortUnreachableRouter", "The port %s cannot reach the router %s by IPv6 subnet.", p.ID, r.ID)
}

// reachable are the subnets on which the router has interfaces.
func (s *service) reachable(tx *store.Tx, r *l3.Router) (map[string]bool, error) {
	subnets := map[string]bool{}
	err := tx.Query(func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		subnets[id] = true
		return err
	}, "SELECT a.subnet_id FROM router_port p JOIN ip_allocation a ON a.port_id = p.port_id WHERE p.router_id = ?", r.ID)
	return subnets, err
}

func (s *service) create(ctx context.Context, tx *store.Tx, o *Proxy, _ *resource.Body) error {
	r, err := s.core.L3.FindRouter(ctx, tx, o.RouterID)
	if err != nil {
		return err
	}
	p, err := s.core.Ports.Find(ctx, tx, o.PortID)
	if err != nil {
		return err
	}
	if on, err := enabled(tx, r.ID); err != nil {
		return err
	} else if !on {
		return fault.New(fault.Conflict, "RouterNDPProxyNotEnable", "The enable_ndp_proxy parameter of router %s must be set as True while create ndp proxy entry on it.", r.ID)
	}
	g, err := s.gatewayOf(tx, r)
	if err != nil {
		return err
	}
	if err := fit(r.ID, g); err != nil {
		return err
	}
	address, err := s.choose(tx, o, r, p)
	if err != nil {
		return err
	}
	scope, err := scopeOf(tx, "s.id", address.SubnetID)
	if err != nil {
		return err
	}
	if scope != g.scope {
		shown := func(scope string) string {
			if scope == "" {
				return "None"
			}
			return scope
		}
		return fault.New(fault.Conflict, "AddressScopeConflict", "The IPv6 address scope %s of external network conflict with internal network's IPv6 address scope %s.", shown(g.scope), shown(scope))
	}
	o.IPAddress = address.IPAddress
	if err := s.Insert(ctx, tx, o); err != nil {
		if !store.Duplicate(err, "ndp_proxy", "ip_address") {
			return err
		}
		return fault.New(fault.Conflict, "NeutronDbObjectDuplicateEntry", "Failed to create a duplicate NDPProxy: for attribute(s) %s with value(s) %s",
			value.Repr([]any{"router_id", "ip_address"}), value.Repr([]any{o.RouterID, o.IPAddress.String()}))
	}
	return s.core.L3.RouterChanged(ctx, tx, r.ID, false)
}

// choose is the address that a proxy asks for, or the port's first that the router reaches.
func (s *service) choose(tx *store.Tx, o *Proxy, r *l3.Router, p *port.Port) (port.FixedIP, error) {
	subnets, err := s.reachable(tx, r)
	if err != nil {
		return port.FixedIP{}, err
	}
	if o.IPAddress.IsValid() && !o.IPAddress.Is6() {
		return port.FixedIP{}, invalidAddress(o.IPAddress, "it is not an IPv6 address")
	}
	own := slices.DeleteFunc(slices.Clone(p.FixedIPs), func(f port.FixedIP) bool { return !f.IPAddress.Is6() })
	if len(own) == 0 {
		return port.FixedIP{}, fault.New(fault.Invalid, "BadRequest", "Bad ndp_proxy request: Requested port %s must allocate one IPv6 address at least.", p.ID)
	}
	if o.IPAddress.IsValid() {
		i := slices.IndexFunc(own, func(f port.FixedIP) bool { return f.IPAddress == o.IPAddress })
		if i < 0 {
			return port.FixedIP{}, invalidAddress(o.IPAddress, "it does not belong to the requested port "+p.ID)
		}
		own = own[i : i+1]
	}
	for _, f := range own {
		if subnets[f.SubnetID] {
			return f, nil
		}
	}
	return port.FixedIP{}, unreachable(p, r)
}

func (s *service) update(ctx context.Context, tx *store.Tx, _, want *Proxy, _ *resource.Body) error {
	return s.Save(ctx, tx, want)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, o *Proxy) error {
	if err := s.Remove(ctx, tx, o); err != nil {
		return err
	}
	return s.core.L3.RouterChanged(ctx, tx, o.RouterID, false)
}

// enabled tells whether a router may have NDP proxies.
func enabled(tx *store.Tx, routerID string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM router_ndp_proxy WHERE router_id = ?", []any{routerID}, &n)
	return n > 0, err
}

// fit refuses NDP proxies on a router whose gateway cannot have them.
func fit(routerID string, g *gateway) error {
	reason := ""
	switch {
	case g == nil:
		reason = "the router has no external gateway"
	case len(g.subnetIDs) == 0:
		reason = "the external gateway has no IPv6 address"
	case g.scope == "":
		reason = "the external network " + g.networkID + " has no IPv6 address scope"
	default:
		return nil
	}
	return fault.New(fault.Conflict, "RouterGatewayNotValid", "Can not enable ndp proxy on router %s, %s.", routerID, reason)
}

// proxiesOf are the proxies of a router.
func (s *service) proxiesOf(tx *store.Tx, routerID string) ([]*Proxy, error) {
	return s.Table.SelectBare(tx, "WHERE t.router_id = ? ORDER BY t.id", routerID)
}

// checkInterface keeps the subnets with addresses that have proxies.
func (s *service) checkInterface(tx *store.Tx, r *l3.Router, n *subnet.Subnet) error {
	list, err := s.proxiesOf(tx, r.ID)
	if err != nil {
		return err
	}
	for _, o := range list {
		if n.CIDR.Contains(o.IPAddress) {
			return fault.New(fault.Conflict, "RouterInterfaceInUseByNDPProxy", "Unable to remove subnet %s from router %s, There are one or more ndp proxies still in use on the subnet.", n.ID, r.ID)
		}
	}
	return nil
}
