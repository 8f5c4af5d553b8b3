package qos

import (
	"context"

	message "isospin/api/feed"
	"isospin/internal/core"
	"isospin/internal/core/l3"
	"isospin/internal/core/network"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// extendL3 adds policies of floating IPs and of router gateways.
func (s *service) extendL3(c *core.Core) {
	c.Registry.AddExtension(
		resource.Extension{Alias: "qos-fip", Name: "Floating IP QoS", Description: "The floating IP Quality of Service extension", Updated: "2017-07-20T00:00:00-00:00", Requires: []string{"router", "qos"}},
		resource.Extension{Alias: "qos-fip-network-policy", Name: "QoS floating IP network policy ID", Description: "Expose the QoS policy of the external network of a floating IP", Updated: "2021-11-15T10:00:00-00:00", Requires: []string{"router", "qos", "qos-fip"}},
		resource.Extension{Alias: "qos-gateway-ip", Name: "Router gateway IP QoS", Description: "The router gateway IP Quality of Service extension", Updated: "2018-02-24T00:00:00-00:00", Requires: []string{"router", "qos", "ext-gw-mode"}},
	)
	c.L3.FloatingIPResource().Add(
		resource.Attribute{Name: attribute, Flags: post | put | visible | resource.EnforcePolicy, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: networkAttribute, Flags: visible, Default: nil, Type: "string|null"},
	)
	c.L3.OnFloatingIPWrite = append(c.L3.OnFloatingIPWrite, s.onFloatingIPWrite)
	c.L3.PresentFloatingIPs = append(c.L3.PresentFloatingIPs, s.presentFloatingIPs)
	c.L3.OnRouterWrite = append(c.L3.OnRouterWrite, s.onRouterWrite)
	c.L3.FillRouters = append(c.L3.FillRouters, fillRouters)
}

// onFloatingIPWrite keeps the policy of a floating IP.
func (s *service) onFloatingIPWrite(ctx context.Context, tx *store.Tx, _, now *l3.FloatingIP, _ *resource.Body) error {
	have, err := stored(tx, "SELECT qos_policy_id FROM qos_floatingip_policy WHERE floatingip_id = ?", now.ID)
	if err != nil {
		return err
	}
	want := own(*now.Slots)
	if want == have {
		return nil
	}
	if _, err := s.change(ctx, tx, have, want); err != nil {
		return err
	}
	return bind(tx, "floatingip", now.ID, want)
}

// onRouterWrite keeps the policy of a router's gateway. One that is not named
// stays, also while there is no gateway.
func (s *service) onRouterWrite(ctx context.Context, tx *store.Tx, _, now *l3.Router, body *resource.Body) error {
	members, _ := body.Values["external_gateway_info"].(map[string]any)
	given, named := members[attribute]
	if !named {
		return nil
	}
	want, _ := given.(string)
	have, err := stored(tx, "SELECT qos_policy_id FROM qos_router_policy WHERE router_id = ?", now.ID)
	if err != nil || want == have {
		return err
	}
	if _, err := s.change(ctx, tx, have, want); err != nil {
		return err
	}
	return bind(tx, "router", now.ID, want)
}

// fillRouters shows the policies of gateways.
func fillRouters(tx *store.Tx, rows []*l3.Router) error {
	by, ids := map[string]*l3.Router{}, make([]string, len(rows))
	for i, r := range rows {
		ids[i], by[r.ID], r.GatewayQoSPolicyID = r.ID, r, nil
	}
	return store.Child(tx, "SELECT router_id, qos_policy_id FROM qos_router_policy WHERE %s", "router_id", ids, func(scan func(...any) error) error {
		var id, policy string
		err := scan(&id, &policy)
		by[id].GatewayQoSPolicyID = &policy
		return err
	})
}

// presentFloatingIPs shows the policies of floating IPs' networks.
func (s *service) presentFloatingIPs(ctx context.Context, rows []*l3.FloatingIP) {
	by := map[string]*string{}
	var ids []string
	for _, f := range rows {
		if _, ok := by[f.NetworkID]; !ok {
			by[f.NetworkID] = nil
			ids = append(ids, f.NetworkID)
		}
	}
	if err := s.networkPolicies(ctx, ids, by); err != nil {
		s.core.Logger.ErrorContext(ctx, "policies of networks are not shown with floating IPs", "error", err)
		return
	}
	for _, f := range rows {
		if err := ofNetwork.Set(f.Slots, by[f.NetworkID]); err != nil {
			s.core.Logger.ErrorContext(ctx, "the policy of a network is not shown with a floating IP", "floating IP", f.ID, "error", err)
		}
	}
}

// limitedRouter and limitedFloatingIP are what the projection remembers.
type limitedRouter struct{ host, policy string }

type limitedFloatingIP struct{ router, network, policy string }

// applyL3 notes the policies that routers and floating IPs bring to hosts. The
// routers' projection tells the hosts of the routers.
func (p *projection) applyL3(ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "router":
		var now limitedRouter
		if r, ok := ch.New.(l3.LimitedRouter); ok {
			now.host, now.policy = r.GatewayLimit()
		}
		before := p.routers[ch.ID]
		if before == now {
			return
		}
		p.count(before.host, before.policy, -1, mark)
		for id := range p.floatingOf[ch.ID] {
			p.count(before.host, p.floating[id].policy, -1, mark)
			p.count(now.host, p.floating[id].policy, 1, mark)
		}
		p.count(now.host, now.policy, 1, mark)
		p.routers[ch.ID] = now
		if ch.New == nil {
			delete(p.routers, ch.ID)
		}
	case "floatingip":
		var now limitedFloatingIP
		if f, ok := ch.New.(l3.LimitedFloatingIP); ok {
			now.router, now.network, now.policy = f.Limit()
		}
		before := p.floating[ch.ID]
		if before.router != "" {
			p.count(p.routers[before.router].host, before.policy, -1, mark)
			delete(p.floatingOf[before.router], ch.ID)
			if len(p.floatingOf[before.router]) == 0 {
				delete(p.floatingOf, before.router)
			}
		}
		delete(p.floating, ch.ID)
		if ch.New == nil {
			return
		}
		p.floating[ch.ID] = now
		if now.router != "" {
			if p.floatingOf[now.router] == nil {
				p.floatingOf[now.router] = map[string]struct{}{}
			}
			p.floatingOf[now.router][ch.ID] = struct{}{}
			p.count(p.routers[now.router].host, now.policy, 1, mark)
		}
	}
}

// count notes one use more or less of a policy by routers of a host.
func (p *projection) count(host, policy string, n int, mark feed.Marker) {
	if host == "" || policy == "" {
		return
	}
	count(p.ports, policy, host, n)
	p.refer(host, policy, n, mark)
}

// complete tells a router's host the policies: without one of their own,
// floating IPs and gateways have that of their network.
func (p *projection) complete(c *feed.Copy, _ string, o *message.Object) {
	r := o.GetRouter()
	if r == nil {
		return
	}
	ofNetwork := func(id string) string {
		if n := feed.Get[network.Network](c, "network", id); n != nil {
			return own(n.Slots)
		}
		return ""
	}
	if r.Gateway != nil { // a router's policy is that of its first gateway
		r.Gateway.QosPolicyId = p.routers[r.Id].policy
	}
	for _, g := range append([]*message.RouterGateway{r.Gateway}, r.FurtherGateways...) {
		if g != nil && g.QosPolicyId == "" {
			g.QosPolicyId = ofNetwork(g.NetworkId)
		}
	}
	for _, f := range r.FloatingIps {
		known := p.floating[f.Id]
		if f.QosPolicyId = known.policy; f.QosPolicyId == "" {
			f.QosPolicyId = ofNetwork(known.network)
		}
	}
}
