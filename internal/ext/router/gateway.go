package router

import (
	"context"
	"net/netip"
	"slices"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// fillGateways fills in the gateways, the first first.
func fillGateways(tx *store.Tx, rows []*Router) error {
	ids, by := index(rows)
	for _, r := range rows {
		r.GatewayPortIDs, r.ExternalGateways, r.ExternalGateway = nil, nil, nil
	}
	err := store.Child(tx, `SELECT g.router_id, g.port_id, p.network_id, a.subnet_id, a.ip_address FROM router_gateway_port g JOIN port p ON p.id = g.port_id
		LEFT JOIN ip_allocation a ON a.port_id = p.id WHERE %s ORDER BY g.router_id, g.position, g.port_id, a.position`, "g.router_id", ids, func(scan func(...any) error) error {
		var id, portID, networkID string
		var subnetID, text *string
		if err := scan(&id, &portID, &networkID, &subnetID, &text); err != nil {
			return err
		}
		r := by[id]
		if n := len(r.GatewayPortIDs); n == 0 || r.GatewayPortIDs[n-1] != portID {
			r.GatewayPortIDs = append(r.GatewayPortIDs, portID)
			r.ExternalGateways = append(r.ExternalGateways, ListedGateway{NetworkID: networkID, FixedIPs: []ExternalFixedIP{}})
		}
		if subnetID == nil || text == nil {
			return nil
		}
		a, err := netip.ParseAddr(*text)
		if err != nil {
			return err
		}
		g := &r.ExternalGateways[len(r.ExternalGateways)-1]
		g.FixedIPs = append(g.FixedIPs, ExternalFixedIP{*subnetID, a})
		return nil
	})
	for _, r := range rows {
		r.arrange()
	}
	return err
}

// arrange brings the first gateway to the front.
func (r *Router) arrange() {
	r.ExternalGateway = nil
	if r.GatewayPortID == nil {
		return
	}
	i := slices.Index(r.GatewayPortIDs, *r.GatewayPortID)
	if i < 0 {
		return
	}
	id, g := r.GatewayPortIDs[i], r.ExternalGateways[i]
	r.GatewayPortIDs = slices.Insert(slices.Delete(slices.Clone(r.GatewayPortIDs), i, i+1), 0, id)
	r.ExternalGateways = slices.Insert(slices.Delete(slices.Clone(r.ExternalGateways), i, i+1), 0, g)
	r.ExternalGateway = &Gateway{NetworkID: g.NetworkID, FixedIPs: g.FixedIPs, EnableSNAT: r.EnableSNAT}
}

// request is what a client asks of one gateway.
type request struct {
	networkID string
	addresses []port.FixedIP
	// snat is nil for the default.
	snat *bool
	// given is what the client wrote.
	given map[string]any
}

// gatewayRequest reads a gateway as clients write it; nil: none.
func gatewayRequest(v any) (*request, error) {
	members, _ := v.(map[string]any)
	if len(members) == 0 {
		return nil, nil
	}
	r := &request{given: members}
	r.networkID, _ = members["network_id"].(string)
	if snat, ok := members["enable_snat"].(bool); ok {
		r.snat = &snat
	}
	list, _ := members["external_fixed_ips"].([]any)
	for _, item := range list {
		var f port.FixedIP
		m, _ := item.(map[string]any)
		f.SubnetID, _ = m["subnet_id"].(string)
		if text, _ := m["ip_address"].(string); text != "" {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fault.InvalidInput("'%s' is not a valid IP address", text)
			}
			f.IPAddress = a
		}
		r.addresses = append(r.addresses, f)
	}
	return r, nil
}

// checkRequest refuses what cannot be a gateway. It returns the external network and its subnets.
func (s *service) checkRequest(ctx context.Context, tx *store.Tx, want *request) (*network.Network, []*subnet.Subnet, error) {
	parent, err := s.core.Networks.Find(ctx, tx, want.networkID)
	if err != nil {
		return nil, nil, err
	}
	if !parent.External {
		return nil, nil, bad("router", "Network %s is not an external network", parent.ID)
	}
	subnets, err := s.core.Subnets.OfNetwork(tx, parent.ID)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range want.addresses {
		if f.IPAddress.IsValid() && slices.ContainsFunc(subnets, func(n *subnet.Subnet) bool { return n.GatewayIP == f.IPAddress }) {
			return nil, nil, bad("router", "External IP %s is the same as the gateway IP", f.IPAddress)
		}
	}
	return parent, subnets, nil
}

// setGateway makes the router's first gateway be as asked; nil takes it away,
// and the next one is the first.
func (s *service) setGateway(ctx context.Context, tx *store.Tx, r *Router, want *request) error {
	r.EnableSNAT = config.EnableSNATByDefault.Of(s.core.Config)
	if want == nil {
		if r.GatewayPortID == nil {
			return nil
		}
		return s.dropGateway(ctx, tx, r, *r.GatewayPortID)
	}
	if want.snat != nil {
		r.EnableSNAT = *want.snat
	}
	parent, subnets, err := s.checkRequest(ctx, tx, want)
	if err != nil {
		return err
	}
	if r.GatewayPortID != nil {
		present, err := s.core.Ports.Load(tx, *r.GatewayPortID)
		if err != nil {
			return err
		}
		if present.NetworkID == parent.ID {
			return s.readdress(ctx, tx, r, present, want)
		}
		// The further ones stay what they are.
		further := r.GatewayPortIDs[1:]
		if err := s.dropGateway(ctx, tx, r, present.ID); err != nil {
			return err
		}
		if err := s.addGateway(ctx, tx, r, parent, subnets, want); err != nil || len(further) == 0 {
			return err
		}
		return s.makeFirst(tx, r, r.GatewayPortIDs[len(r.GatewayPortIDs)-1])
	}
	return s.addGateway(ctx, tx, r, parent, subnets, want)
}

// readdress gives a gateway the addresses that were asked for.
func (s *service) readdress(ctx context.Context, tx *store.Tx, r *Router, p *port.Port, want *request) error {
	if !satisfied(p.FixedIPs, want.addresses) {
		if err := s.core.Ports.SetAddresses(elevated(ctx), tx, p, want.addresses); err != nil {
			return err
		}
	}
	return fillGateways(tx, []*Router{r})
}

// addGateway adds a gateway behind those that there are.
func (s *service) addGateway(ctx context.Context, tx *store.Tx, r *Router, parent *network.Network, subnets []*subnet.Subnet, want *request) error {
	if err := s.checkSubnets(tx, r, subnets, true); err != nil {
		return err
	}
	if err := s.place(ctx, tx, r, parent); err != nil {
		return err
	}
	p, err := s.core.Ports.Make(elevated(ctx), tx, port.Draft{Plain: true, Addresses: want.addresses, Port: port.Port{
		NetworkID: parent.ID, DeviceOwner: port.OwnerRouterGateway, DeviceID: r.ID, HostID: r.HostID,
	}})
	if err != nil {
		return err
	}
	if err := tx.Put(`INSERT INTO router_gateway_port (port_id, router_id, position)
		SELECT ?, ?, COALESCE(MAX(g.position), -1) + 1 FROM router_gateway_port g WHERE g.router_id = ?`, p.ID, r.ID, r.ID); err != nil {
		return err
	}
	if r.GatewayPortID == nil {
		r.GatewayPortID = &p.ID
	}
	return fillGateways(tx, []*Router{r})
}

// makeFirst makes one of the gateways the first.
func (s *service) makeFirst(tx *store.Tx, r *Router, portID string) error {
	// Unique in the table: what is being dropped may not hold it any longer.
	r.GatewayPortID = &portID
	r.arrange()
	err := tx.Put("UPDATE router SET gateway_port_id = ? WHERE id = ?", portID, r.ID)
	return err
}

// satisfied tells whether the addresses that are there are those asked for; none asked for: any.
func satisfied(have, want []port.FixedIP) bool {
	if len(want) == 0 {
		return true
	}
	left := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(left, func(h port.FixedIP) bool {
			return (w.SubnetID == "" || w.SubnetID == h.SubnetID) && (!w.IPAddress.IsValid() || w.IPAddress == h.IPAddress)
		})
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return len(left) == 0
}

// dropGateway takes away a gateway that nothing needs. When it was the first,
// the next one is.
func (s *service) dropGateway(ctx context.Context, tx *store.Tx, r *Router, portID string) error {
	p, err := s.core.Ports.Load(tx, portID)
	if err != nil {
		return err
	}
	alike := 0
	for _, g := range r.ExternalGateways {
		if g.NetworkID == p.NetworkID {
			alike++
		}
	}
	if alike < 2 {
		var used int
		if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM floatingip WHERE router_id = ? AND floating_network_id = ? LIMIT 1) x", []any{r.ID, p.NetworkID}, &used); err != nil {
			return err
		}
		if used > 0 {
			return fault.New(fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router %s, since a gateway to external network %s is required by one or more floating IPs.", r.ID, p.NetworkID)
		}
	}
	if i := slices.Index(r.GatewayPortIDs, portID); i >= 0 {
		r.GatewayPortIDs = slices.Delete(slices.Clone(r.GatewayPortIDs), i, i+1)
		r.ExternalGateways = slices.Delete(slices.Clone(r.ExternalGateways), i, i+1)
	}
	if r.GatewayPortID != nil && *r.GatewayPortID == portID {
		if err := s.revokeAll(ctx, tx, r); err != nil {
			return err
		}
		if r.GatewayPortID = nil; len(r.GatewayPortIDs) > 0 {
			first := r.GatewayPortIDs[0]
			r.GatewayPortID = &first
		}
		if err := tx.Put("UPDATE router SET gateway_port_id = ? WHERE id = ?", r.GatewayPortID, r.ID); err != nil {
			return err
		}
		r.arrange()
	}
	if err := tx.Put("DELETE FROM router_gateway_port WHERE port_id = ?", portID); err != nil {
		return err
	}
	return s.core.Ports.Drop(elevated(ctx), tx, p)
}

// dropGateways takes all gateways away, the first last.
func (s *service) dropGateways(ctx context.Context, tx *store.Tx, r *Router) error {
	for len(r.GatewayPortIDs) > 0 {
		if err := s.dropGateway(ctx, tx, r, r.GatewayPortIDs[len(r.GatewayPortIDs)-1]); err != nil {
			return err
		}
	}
	return nil
}

// gatewayKeys are what a gateway is described with.
func gatewayKeys() map[string]any {
	return map[string]any{
		"network_id":         map[string]any{"type:uuid": nil, "required": true},
		"external_fixed_ips": map[string]any{"type:fixed_ips": nil, "required": false},
		"enable_snat":        map[string]any{"type:boolean": nil, "required": false, "convert_to": "convert_to_boolean"},
	}
}

// unable are the faults of references to gateways; Neutron answers 500, and so do we.
func unable(what, text, routerID string) error {
	return fault.New(fault.Unmapped, "UnableTo"+what+"Gateways", "Unable to "+text+" %s", routerID)
}

func unmatched(r *Router) error {
	return unable("Match", "match a requested gateway port to existing gateway ports for router", r.ID)
}

// gatewayAction makes an action of a change of gateways, whose body is
// {"router": {"external_gateways": […]}}. change returns what the first gateway
// was asked to be, nil when it was not: other families follow the first.
func (s *service) gatewayAction(change func(ctx context.Context, tx *store.Tx, r *Router, list []*request) (first *request, err error)) func(ctx context.Context, id string, body any) (any, error) {
	return s.routerAction("external_gateways", func(ctx context.Context, tx *store.Tx, r *Router, given any) error {
		if given == nil {
			given = []any{}
		}
		keys := gatewayKeys()
		keys["qos_policy_id"] = map[string]any{"type:uuid_or_none": nil, "required": false}
		reason, err := value.Validate("type:list_of_dict_or_nodata", keys, given)
		if err != nil {
			return err
		}
		if reason != "" {
			return fault.BadRequest("Invalid input for external_gateways. Reason: %s.", reason)
		}
		items, _ := given.([]any)
		list := make([]*request, len(items))
		for i, item := range items {
			if list[i], err = gatewayRequest(item); err != nil {
				return err
			}
			if list[i] == nil {
				return fault.BadRequest("Invalid input for external_gateways. Reason: Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: set().")
			}
		}
		before := *r
		first, err := change(ctx, tx, r, list)
		if err != nil {
			return err
		}
		for _, want := range list {
			if want != first && want.given["qos_policy_id"] != nil {
				return fault.BadRequest("Invalid input for external_gateways. Reason: Unexpected keys supplied: qos_policy_id.")
			}
		}
		if first == nil {
			return s.fillShared(tx, []*Router{r})
		}
		return s.written(ctx, tx, &before, r, &resource.Body{
			Values: map[string]any{"external_gateway_info": first.given}, Given: map[string]bool{"external_gateway_info": true},
		})
	})
}

// addGateways adds gateways; the first one of a router without any is its first.
func (s *service) addGateways(ctx context.Context, tx *store.Tx, r *Router, list []*request) (first *request, err error) {
	for _, want := range list {
		if len(r.GatewayPortIDs) == 0 {
			if err := s.setGateway(ctx, tx, r, want); err != nil {
				return nil, err
			}
			first = want
			continue
		}
		parent, subnets, err := s.checkRequest(ctx, tx, want)
		if err != nil {
			return nil, err
		}
		if err := s.addGateway(ctx, tx, r, parent, subnets, want); err != nil {
			return nil, err
		}
	}
	return first, nil
}

// match finds the gateway that a request means: the only one on its network
// when it names no addresses, else one that has one of them. ok is false when
// no gateway is on the network; a request that fits none, or several, fails,
// but for addresses that are new when they may be.
func match(r *Router, want *request, newAddresses bool) (portID string, ok bool, err error) {
	var on []int
	for i, g := range r.ExternalGateways {
		if g.NetworkID == want.networkID {
			on = append(on, i)
		}
	}
	if len(on) == 0 {
		return "", false, nil
	}
	if len(want.addresses) == 0 {
		if len(on) == 1 {
			return r.GatewayPortIDs[on[0]], true, nil
		}
		return "", false, unmatched(r)
	}
	for _, i := range on {
		for _, f := range want.addresses {
			if slices.ContainsFunc(r.ExternalGateways[i].FixedIPs, func(h ExternalFixedIP) bool { return h.IPAddress == f.IPAddress }) {
				return r.GatewayPortIDs[i], true, nil
			}
		}
	}
	if newAddresses {
		return "", false, nil
	}
	return "", false, unmatched(r)
}

// removeGateways takes gateways away, the first one last.
func (s *service) removeGateways(ctx context.Context, tx *store.Tx, r *Router, list []*request) (*request, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(r.GatewayPortIDs) == 0 {
		return nil, unable("Remove", "remove extra gateways from a router", r.ID)
	}
	var ids []string
	for _, want := range list {
		if _, _, err := s.checkRequest(ctx, tx, want); err != nil {
			return nil, err
		}
		id, ok, err := match(r, want, false)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, unmatched(r)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	first := r.GatewayPortIDs[0]
	slices.SortStableFunc(ids, func(a, b string) int {
		switch first {
		case a:
			return 1
		case b:
			return -1
		}
		return 0
	})
	for _, id := range ids {
		if err := s.dropGateway(ctx, tx, r, id); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(ids, first) {
		return nil, nil
	}
	r.EnableSNAT = config.EnableSNATByDefault.Of(s.core.Config)
	r.arrange()
	next := &request{}
	if r.ExternalGateway != nil {
		next.given = map[string]any{"network_id": r.ExternalGateway.NetworkID}
	}
	return next, nil
}

// updateGateways makes the gateways be those of the list, of which the first is
// the first; an empty list takes all away. Gateways that are meant by the list
// keep their ports.
func (s *service) updateGateways(ctx context.Context, tx *store.Tx, r *Router, list []*request) (*request, error) {
	if len(list) == 0 {
		r.EnableSNAT = config.EnableSNATByDefault.Of(s.core.Config)
		return &request{}, s.dropGateways(ctx, tx, r)
	}
	for _, want := range list {
		if _, _, err := s.checkRequest(ctx, tx, want); err != nil {
			return nil, err
		}
	}
	id, ok, err := match(r, list[0], true)
	if err != nil {
		return nil, err
	}
	if ok && id != *r.GatewayPortID {
		if err := s.makeFirst(tx, r, id); err != nil {
			return nil, err
		}
	}
	if err := s.setGateway(ctx, tx, r, list[0]); err != nil {
		return nil, err
	}
	kept := []string{*r.GatewayPortID}
	var missing []*request
	for _, want := range list[1:] {
		id, ok, err := match(r, want, true)
		if err != nil {
			return nil, err
		}
		if !ok || slices.Contains(kept, id) {
			missing = append(missing, want)
			continue
		}
		p, err := s.core.Ports.Load(tx, id)
		if err != nil {
			return nil, err
		}
		if err := s.readdress(ctx, tx, r, p, want); err != nil {
			return nil, err
		}
		kept = append(kept, id)
	}
	for _, id := range slices.Clone(r.GatewayPortIDs) {
		if !slices.Contains(kept, id) {
			if err := s.dropGateway(ctx, tx, r, id); err != nil {
				return nil, err
			}
		}
	}
	_, err = s.addGateways(ctx, tx, r, missing)
	return list[0], err
}

// routerAction makes an action of a change of a router, whose body is
// {"router": {name: given}}; a body without the name changes nothing.
func (s *service) routerAction(name string, change func(ctx context.Context, tx *store.Tx, r *Router, given any) error) func(ctx context.Context, id string, body any) (any, error) {
	return func(ctx context.Context, id string, body any) (any, error) {
		document, _ := body.(map[string]any)
		members, ok := document["router"].(map[string]any)
		if !ok {
			return nil, fault.BadRequest("Unable to find '%s' in request body", "router")
		}
		var r *Router
		err := s.core.Store.Tx(ctx, func(tx *store.Tx) (err error) {
			if r, err = s.routers.Find(ctx, tx, id); err != nil {
				return err
			}
			given, ok := members[name]
			if !ok {
				return nil
			}
			if err := change(ctx, tx, r, given); err != nil {
				return err
			}
			return s.save(ctx, tx, r)
		})
		if err != nil {
			return nil, err
		}
		return resource.Shown{Object: r}, nil
	}
}

// routesAction adds routes to the router's, or removes them.
func (s *service) routesAction(apply func(have, given []Route) []Route) func(ctx context.Context, id string, body any) (any, error) {
	return s.routerAction("routes", func(_ context.Context, tx *store.Tx, r *Router, given any) error {
		if given == nil {
			given = []any{}
		}
		list, ok := given.([]any)
		if ok { // repetitions are fine
			var once []any
			for _, item := range list {
				if !slices.ContainsFunc(once, func(have any) bool { return value.Repr(have) == value.Repr(item) }) {
					once = append(once, item)
				}
			}
			given, list = append([]any{}, once...), once
		}
		reason, err := value.Validate("type:hostroutes", nil, given)
		if err != nil {
			return err
		}
		if reason != "" {
			return fault.BadRequest("Invalid input for routes. Reason: %s.", reason)
		}
		var routes []Route
		for _, item := range list {
			m, _ := item.(map[string]any)
			destination, _ := m["destination"].(string)
			hop, _ := m["nexthop"].(string)
			routes = append(routes, Route{destination, hop})
		}
		r.Routes = apply(r.Routes, routes)
		all := make([]any, len(r.Routes))
		for i, route := range r.Routes {
			all[i] = map[string]any{"destination": route.Destination, "nexthop": route.NextHop}
		}
		return s.checkRoutes(tx, r, all)
	})
}

// same tells whether two routes are one, however they are written.
func (r Route) same(o Route) bool {
	a, err := netip.ParsePrefix(r.Destination)
	b, err2 := netip.ParsePrefix(o.Destination)
	c, err3 := netip.ParseAddr(r.NextHop)
	d, err4 := netip.ParseAddr(o.NextHop)
	if err != nil || err2 != nil || err3 != nil || err4 != nil {
		return r == o
	}
	return a == b && c == d
}

func withRoutes(have, given []Route) []Route {
	list := slices.Clone(have)
	for _, g := range given {
		if !slices.ContainsFunc(list, g.same) {
			list = append(list, g)
		}
	}
	return list
}

func withoutRoutes(have, given []Route) []Route {
	return slices.DeleteFunc(slices.Clone(have), func(r Route) bool { return slices.ContainsFunc(given, r.same) })
}
