package router

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sort"

	message "isospin/api/feed"
	"isospin/internal/core/l3"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection tells hosts the routers that they serve.
type projection struct {
	// byHost: host → router → present.
	byHost map[string]map[string]struct{}
	// byPort: port → its router, interfaces and gateways.
	byPort map[string]string
	// byNetwork: network → port of a router → present.
	byNetwork map[string]map[string]struct{}
	// floating: router → floating IP → present.
	floating map[string]map[string]struct{}
}

func (s *service) project(h *feed.Hub) {
	feed.Keep(h, "router", func(tx *store.Tx) ([]*Router, error) { return s.routers.Table.Select(tx, "") }, func(r *Router) string { return r.ID })
	feed.Keep(h, "floatingip", func(tx *store.Tx) ([]*FloatingIP, error) { return s.floating.Table.Select(tx, "") }, func(f *FloatingIP) string { return f.ID })
	h.Project(&projection{
		byHost: map[string]map[string]struct{}{}, byPort: map[string]string{},
		byNetwork: map[string]map[string]struct{}{}, floating: map[string]map[string]struct{}{},
	})
	h.OnApplied(message.Kind_KIND_ROUTER, s.report)
}

func key(id string) feed.Key { return feed.Key{Kind: message.Kind_KIND_ROUTER, ID: id} }

func add(m map[string]map[string]struct{}, k, member string) {
	if m[k] == nil {
		m[k] = map[string]struct{}{}
	}
	m[k][member] = struct{}{}
}

func remove(m map[string]map[string]struct{}, k, member string) {
	delete(m[k], member)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

func (p *projection) Apply(c *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "router":
		old, _ := ch.Old.(*Router)
		now, _ := ch.New.(*Router)
		p.router(c, old, now, mark)
	case "port":
		if id, ok := p.byPort[ch.ID]; ok {
			p.mark(c, id, mark)
			if now, _ := ch.New.(*port.Port); now != nil {
				add(p.byNetwork, now.NetworkID, now.ID)
			} else if old, _ := ch.Old.(*port.Port); old != nil {
				remove(p.byNetwork, old.NetworkID, old.ID)
				p.markNetwork(c, old.NetworkID, mark) // another router asks for its prefixes now
			}
		}
	case "network":
		p.markNetwork(c, ch.ID, mark)
	case "subnet":
		n, _ := ch.New.(*subnet.Subnet)
		if n == nil {
			n, _ = ch.Old.(*subnet.Subnet)
		}
		p.markNetwork(c, n.NetworkID, mark)
	case "floatingip":
		if old, _ := ch.Old.(*FloatingIP); old != nil && old.RouterID != nil {
			remove(p.floating, *old.RouterID, old.ID)
			p.mark(c, *old.RouterID, mark)
		}
		if now, _ := ch.New.(*FloatingIP); now != nil && now.RouterID != nil {
			add(p.floating, *now.RouterID, now.ID)
			p.mark(c, *now.RouterID, mark)
		}
	}
}

// portsOf are a router's interfaces, and its gateways last.
func portsOf(r *Router) []string {
	if r == nil {
		return nil
	}
	return append(slices.Clone(r.PortIDs), r.GatewayPortIDs...)
}

func (p *projection) router(c *feed.Copy, old, now *Router, mark feed.Marker) {
	before, after := portsOf(old), portsOf(now)
	for _, id := range before {
		if !slices.Contains(after, id) {
			delete(p.byPort, id)
			if o := feed.Get[port.Port](c, "port", id); o != nil {
				remove(p.byNetwork, o.NetworkID, id)
			}
		}
	}
	for _, id := range after {
		p.byPort[id] = now.ID
		if o := feed.Get[port.Port](c, "port", id); o != nil {
			add(p.byNetwork, o.NetworkID, id)
		}
	}
	if old != nil && old.HostID != "" {
		if now == nil || now.HostID != old.HostID {
			remove(p.byHost, old.HostID, old.ID)
		}
		mark.Object(old.HostID, key(old.ID))
	}
	if now != nil && now.HostID != "" {
		add(p.byHost, now.HostID, now.ID)
		mark.Object(now.HostID, key(now.ID))
	}
}

func (p *projection) mark(c *feed.Copy, id string, mark feed.Marker) {
	if r := feed.Get[Router](c, "router", id); r != nil && r.HostID != "" {
		mark.Object(r.HostID, key(id))
	}
}

func (p *projection) markNetwork(c *feed.Copy, id string, mark feed.Marker) {
	for portID := range p.byNetwork[id] {
		p.mark(c, p.byPort[portID], mark)
	}
}

func (p *projection) Keys(_ *feed.Copy, host string, each func(feed.Key)) {
	for id := range p.byHost[host] {
		each(key(id))
	}
}

func (p *projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}

func (p *projection) Render(c *feed.Copy, host string, k feed.Key) *message.Object {
	if k.Kind != message.Kind_KIND_ROUTER {
		return nil
	}
	r := feed.Get[Router](c, "router", k.ID)
	if r == nil || r.HostID != host {
		return nil
	}
	return &message.Object{Body: &message.Object_Router{Router: p.message(c, r)}}
}

// attachment is a port of a router with what hosts must know of its network.
type attachment struct {
	port      *port.Port
	mtu       int32
	addresses []string
	prefixes  []netip.Prefix
	subnets   []*message.Subnet
	// gateways are those of the subnets, of each family the first.
	gateways []string
}

// attached reads a router's port; nil when it is not bound to the router's host.
func attached(c *feed.Copy, r *Router, id string) *attachment {
	o := feed.Get[port.Port](c, "port", id)
	if o == nil || !o.Bound() || o.HostID != r.HostID {
		return nil
	}
	a := &attachment{port: o}
	if n := feed.Get[network.Network](c, "network", o.NetworkID); n != nil {
		a.mtu = int32(n.MTU)
	}
	ids := map[string]struct{}{}
	has := map[bool]bool{}
	for _, f := range o.FixedIPs {
		n := feed.Get[subnet.Subnet](c, "subnet", f.SubnetID)
		if n == nil || n.Pending() {
			continue
		}
		prefix := netip.PrefixFrom(f.IPAddress, n.CIDR.Bits())
		a.addresses = append(a.addresses, prefix.String())
		a.prefixes = append(a.prefixes, n.CIDR)
		ids[n.ID] = struct{}{}
		if n.GatewayIP.IsValid() && !has[n.GatewayIP.Is4()] {
			has[n.GatewayIP.Is4()] = true
			a.gateways = append(a.gateways, n.GatewayIP.String())
		}
	}
	a.subnets = feed.SubnetMessages(c, ids)
	return a
}

func (p *projection) message(c *feed.Copy, r *Router) *message.Router {
	m := &message.Router{Id: r.ID, ProjectId: r.ProjectID, Name: r.Name, AdminStateUp: r.AdminStateUp, Revision: r.Generation,
		EnableNdpProxy:         string(r.Slots["enable_ndp_proxy"]) == "true",
		EnableDefaultRouteEcmp: r.DefaultRouteECMP, EnableDefaultRouteBfd: r.DefaultRouteBFD, Distributed: r.Distributed, Ha: r.HA}
	evpn := l3.AdvertisedSlot.Get(r.Slots)
	m.EvpnVni, m.EvpnHostSubnetIds = int32(evpn.VNI), evpn.HostSubnets
	var prefixes []netip.Prefix
	for _, id := range slices.Sorted(slices.Values(r.PortIDs)) {
		if a := attached(c, r, id); a != nil {
			m.Interfaces = append(m.Interfaces, &message.RouterInterface{
				PortId: id, NetworkId: a.port.NetworkID, MacAddress: a.port.MACAddress, Addresses: a.addresses, Mtu: a.mtu, Subnets: a.subnets,
				Delegations: p.delegations(c, a.port),
			})
			prefixes = append(prefixes, a.prefixes...)
		}
	}
	for _, id := range r.GatewayPortIDs {
		a := attached(c, r, id)
		if a == nil {
			continue
		}
		g := &message.RouterGateway{
			PortId: a.port.ID, NetworkId: a.port.NetworkID, MacAddress: a.port.MACAddress, Addresses: a.addresses, Mtu: a.mtu,
			EnableSnat: r.EnableSNAT, GatewayIps: a.gateways, Subnets: a.subnets,
		}
		if m.Gateway == nil {
			m.Gateway = g
		} else {
			m.FurtherGateways = append(m.FurtherGateways, g)
		}
		prefixes = append(prefixes, a.prefixes...)
	}
	for _, route := range r.Routes {
		// The gateway with the next hop may have gone since the route was set.
		hop, err := netip.ParseAddr(route.NextHop)
		if err == nil && slices.ContainsFunc(prefixes, func(n netip.Prefix) bool { return n.Contains(hop) }) {
			m.Routes = append(m.Routes, &message.HostRoute{Destination: route.Destination, Nexthop: route.NextHop})
		}
	}
	for id := range p.floating[r.ID] {
		if f := feed.Get[FloatingIP](c, "floatingip", id); f != nil {
			n := &message.FloatingIP{Id: f.ID, FloatingIpAddress: f.FloatingIPAddress.String(), Revision: f.RouterGeneration}
			if f.PortID != nil { // none: it has port forwardings
				n.FixedIpAddress, n.PortId = f.FixedIPAddress.String(), *f.PortID
			}
			m.FloatingIps = append(m.FloatingIps, n)
		}
	}
	sort.Slice(m.FloatingIps, func(i, j int) bool { return m.FloatingIps[i].Id < m.FloatingIps[j].Id })
	return m
}

// report notes what a host did with a router: the floating IPs of that
// generation work, or do not. A report of another host, about an older
// generation than one reported already, or about a deleted router is ignored.
func (s *service) report(ctx context.Context, tx *store.Tx, host string, a *message.Applied) error {
	r, err := s.routers.Table.Get(tx, a.Id)
	if errors.Is(err, store.ErrNoRow) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.HostID != host || a.Revision > r.Generation || a.Revision < r.Reported {
		return nil
	}
	if err := s.delegated(ctx, tx, r, a); err != nil {
		return err
	}
	status := ""
	switch a.State {
	case message.State_STATE_ACTIVE:
		status = statusActive
		if !r.AdminStateUp {
			status = statusDown
		}
	case message.State_STATE_DOWN:
		status = statusDown
	case message.State_STATE_ERROR:
		status = statusError
	default:
		return nil
	}
	if a.Revision > r.Reported {
		// No change of intent: no revision and no event.
		if err := tx.Put("UPDATE router SET reported_generation = ? WHERE id = ?", a.Revision, r.ID); err != nil {
			return err
		}
	}
	list, err := s.floating.Table.Select(tx, "WHERE t.router_id = ? AND t.router_generation <= ? AND t.status <> ? ORDER BY t.id", r.ID, a.Revision, status)
	if err != nil {
		return err
	}
	for _, f := range list {
		f.Status = status
		if err := s.floating.Save(ctx, tx, f); err != nil {
			return err
		}
	}
	return nil
}
