package router

import (
	"context"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// Owners of interfaces of routers that are distributed, and of those with ha.
const (
	ownerDistributed = "network:router_interface_distributed"
	ownerReplicated  = "network:ha_router_replicated_interface"
)

var interfaceOwners = []string{port.OwnerRouterInterface, ownerDistributed, ownerReplicated}

// interfaceOwner is the device_owner of the router's interfaces.
func (r *Router) interfaceOwner() string {
	switch {
	case r.Distributed:
		return ownerDistributed
	case r.HA:
		return ownerReplicated
	}
	return port.OwnerRouterInterface
}

// extend adds the attributes and actions of the extensions that are about how
// routers are served and how they reach the outside.
func (s *service) extend() {
	c := s.core
	e := func(alias, name, description, updated string, requires ...string) {
		c.Registry.AddExtension(resource.Extension{Alias: alias, Name: name, Description: description, Updated: updated, Requires: requires})
	}
	r := s.routers.Resource
	kind := func(name string) {
		r.Add(resource.Attribute{Name: name, Flags: post | put | visible | enforce, Default: resource.Unspecified, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"})
	}
	if config.EnableDVR.Of(c.Config) {
		e("dvr", "Distributed Virtual Router", "Enables configuration of Distributed Virtual Routers.", "2014-06-1T10:00:00-00:00", "router")
		e("router-admin-state-down-before-update", "Enforce Router's Admin State Down Before Update Extension", "Ensure that the admin state of a router is down (admin_state_up=False) before updating the distributed attribute", "2019-07-02T15:56:00", "dvr")
		kind("distributed")
	}
	e("l3-ha", "HA Router extension", "Adds HA capability to routers.", "2014-04-26T00:00:00-00:00", "router")
	kind("ha")
	e("network_ha", "Network HA creation flag", "Marks the network that routers of its project with high availability use.", "2023-04-27T10:00:00-00:00")
	c.Networks.Resource.Add(resource.Attribute{Name: "ha", Flags: post, Default: false, Convert: "convert_to_boolean", Type: "bool"})

	e("ecmp_routes", "Equal Cost Multipath Routing", "Several routes to one destination share its traffic.", "2020-11-26T18:00:00-00:00")
	e("extraroute-atomic", "Atomically add/remove extra routes", "Edit extra routes of a router on server side by atomically adding/removing extra routes", "2019-07-10T00:00:00+00:00", "router", "extraroute")
	e("external-gateway-multihoming", "Neutron L3 External Gateway Multihoming", "Allow multiple external gateway ports per router.", "2023-01-18T00:00:00-00:00", "router", "ext-gw-mode")
	e("enable-default-route-ecmp", "Enable Default Route ECMP", "Enable configuration of whether the default routes of a router's gateways share the traffic.", "2023-02-27T00:00:00-00:00", "router", "external-gateway-multihoming")
	e("enable-default-route-bfd", "Enable Default Route BFD", "Enables configuration of whether the next hops of a router's default routes are asked by BFD whether they are there.", "2023-02-27T00:00:00-00:00", "router", "external-gateway-multihoming")
	e("router-enable-snat", `Exposes the router "enable_snat" read-only configuration flag`, "Exposes whether the source addresses of a router's external gateway are translated.", "2025-09-18T18:00:00-00:00")
	e("floatingip-pools", "Floating IP Pools Extension", "Provides a floating IP pools API.", "2018-03-21T10:00:00-00:00", "router")
	e("floatingip-autodelete-internal", "Autodelete floating IPs of internal networks", "Floating IPs that stand for nothing are deleted when their network is external no longer.", "2019-01-24T00:00:00-00:00")
	e("l3-flavors", "Router Flavor Extension", "Flavor support for routers.", "2016-05-17T00:00:00-00:00", "flavors", "router")
	r.Add(
		resource.Attribute{Name: "flavor_id", Flags: post | visible | enforce | sortKey, Default: resource.Unspecified, Type: "string|null"},
		resource.Attribute{Name: "external_gateways", Flags: visible | enforce, Default: nil, Validate: resource.Rules{"type:list_of_dict_or_nodata": gatewayKeys()}, Type: "list<object>|null"},
		resource.Attribute{Name: "enable_default_route_ecmp", Flags: post | put | visible | enforce, Default: nil, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"},
		resource.Attribute{Name: "enable_default_route_bfd", Flags: post | put | visible | enforce, Default: nil, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"},
		resource.Attribute{Name: "enable_snat", Flags: visible | policy | filter | sortKey, Default: true, Convert: "convert_to_boolean", Type: "bool"},
	)
	r.Actions = append(r.Actions,
		resource.Action{Method: "PUT", Name: "add_extraroutes", Do: s.routesAction(withRoutes)},
		resource.Action{Method: "PUT", Name: "remove_extraroutes", Do: s.routesAction(withoutRoutes)},
		resource.Action{Method: "PUT", Name: "add_external_gateways", Do: s.gatewayAction(s.addGateways)},
		resource.Action{Method: "PUT", Name: "update_external_gateways", Do: s.gatewayAction(s.updateGateways)},
		resource.Action{Method: "PUT", Name: "remove_external_gateways", Do: s.gatewayAction(s.removeGateways)},
	)
}

// chosenBool is a value of a body that may be left open, as null is.
func chosenBool(body *resource.Body, name string, otherwise bool) bool {
	if v, ok := body.Values[name].(bool); ok {
		return v
	}
	return otherwise
}

// mandates are what Neutron's providers of routers make of them; those that it
// does not know of take what is asked for.
var mandates = map[string]struct{ distributed, ha bool }{
	"single_node": {}, "dvr": {distributed: true}, "ha": {ha: true}, "dvrha": {true, true},
}

// chooseKind fills in what a new router's request leaves open, by its flavor
// when it has one.
func (s *service) chooseKind(ctx context.Context, tx *store.Tx, r *Router, body *resource.Body) error {
	c := s.core.Config
	r.Distributed = chosenBool(body, "distributed", config.EnableDVR.Of(c) && config.RouterDistributed.Of(c))
	r.HA = chosenBool(body, "ha", config.L3HA.Of(c))
	r.DefaultRouteECMP = chosenBool(body, "enable_default_route_ecmp", config.EnableDefaultRouteECMP.Of(c))
	r.DefaultRouteBFD = chosenBool(body, "enable_default_route_bfd", config.EnableDefaultRouteBFD.Of(c))
	if r.FlavorID == nil {
		return nil
	}
	p, err := s.core.Flavors.Provider(ctx, tx, *r.FlavorID)
	if err != nil {
		return err
	}
	must, known := mandates[p.Name]
	if !known || p.ServiceType != core.L3RouterNAT {
		return nil
	}
	for _, k := range []struct {
		name string
		must bool
	}{{"distributed", must.distributed}, {"ha", must.ha}} {
		if asked, ok := body.Values[k.name].(bool); ok && asked != k.must {
			return fault.InvalidInput("Provider %s does not support %s=%s", p.Name, k.name, value.Text(asked))
		}
	}
	r.Distributed, r.HA = must.distributed, must.ha
	return nil
}

// changeKind checks and follows a change of distributed and ha: only of a
// router that is down already.
func (s *service) changeKind(ctx context.Context, tx *store.Tx, old, want *Router, body *resource.Body) error {
	want.Distributed = chosenBool(body, "distributed", old.Distributed)
	want.HA = chosenBool(body, "ha", old.HA)
	want.DefaultRouteECMP = chosenBool(body, "enable_default_route_ecmp", old.DefaultRouteECMP)
	want.DefaultRouteBFD = chosenBool(body, "enable_default_route_bfd", old.DefaultRouteBFD)
	if want.Distributed == old.Distributed && want.HA == old.HA {
		return nil
	}
	if old.FlavorID != nil {
		return fault.InvalidInput("Changing the 'ha' and 'distributed' attributes on a router associated with a flavor is not supported")
	}
	if old.AdminStateUp {
		if want.Distributed != old.Distributed {
			return bad("router", "Cannot change the 'distributed' attribute of active routers. Please set router admin_state_up to False prior to upgrade")
		}
		return bad("router", "Cannot change HA attribute of active routers. Please set router admin_state_up to False prior to upgrade")
	}
	if want.interfaceOwner() != old.interfaceOwner() {
		for _, id := range want.PortIDs {
			p, err := s.core.Ports.Load(tx, id)
			if err != nil {
				return err
			}
			if err := s.core.Ports.SetDevice(elevated(ctx), tx, p, want.ID, want.interfaceOwner()); err != nil {
				return err
			}
		}
	}
	switch {
	case want.HA && !old.HA:
		return s.ensureHANetwork(ctx, tx, want.ProjectID)
	case !want.HA && old.HA:
		if err := tx.Put("UPDATE router SET ha = ? WHERE id = ?", false, want.ID); err != nil {
			return err
		}
		return s.releaseHANetwork(ctx, tx, want.ProjectID)
	}
	return nil
}

// ensureHANetwork makes the project's HA network unless it has one. The key of
// the project decides between requests that race.
func (s *service) ensureHANetwork(ctx context.Context, tx *store.Tx, project string) error {
	n, err := tx.Exec("INSERT INTO ha_network (project_id, network_id, own) VALUES (?, NULL, ?) ON CONFLICT DO NOTHING", project, true)
	if err != nil || n == 0 {
		return err
	}
	c := s.core
	values := map[string]any{}
	if t := config.L3HANetworkType.Of(c.Config); t != "" {
		values["provider:network_type"] = t
	}
	if p := config.L3HANetworkPhysicalName.Of(c.Config); p != "" {
		values["provider:physical_network"] = p
	}
	made := &network.Network{Name: "HA network tenant " + project, AdminStateUp: true, PortSecurityEnabled: true}
	if err := c.Networks.Collection.Options.Create(elevated(ctx), tx, made, &resource.Body{Values: values, Given: map[string]bool{}}); err != nil {
		return err
	}
	if err := tx.Put("UPDATE ha_network SET network_id = ? WHERE project_id = ?", made.ID, project); err != nil {
		return err
	}
	inside, err := c.Subnets.Resource.PrepareCreate(map[string]any{
		"network_id": made.ID, "tenant_id": "", "name": "HA subnet tenant " + project, "ip_version": int64(4),
		"cidr": config.L3HANetCIDR.Of(c.Config), "enable_dhcp": false, "gateway_ip": nil,
	}, resource.Caller{SetProject: true})
	if err != nil {
		return err
	}
	model := resource.NewModel[subnet.Subnet]()
	within := &subnet.Subnet{}
	if err := model.Apply(c.Subnets.Resource, within, inside); err != nil {
		return err
	}
	return c.Subnets.Collection.Options.Create(elevated(ctx), tx, within, inside)
}

// releaseHANetwork deletes the HA network that the server made for a project,
// once no router needs it and nobody has put anything there.
func (s *service) releaseHANetwork(ctx context.Context, tx *store.Tx, project string) error {
	var n int
	var id *string
	var own bool
	if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM router WHERE project_id = ? AND ha LIMIT 1) x", []any{project}, &n); err != nil || n > 0 {
		return err
	}
	rows := 0
	err := tx.Query(func(scan func(...any) error) error {
		rows++
		return scan(&id, &own)
	}, "SELECT network_id, own FROM ha_network WHERE project_id = ?", project)
	if err != nil || rows == 0 || !own || id == nil {
		return err
	}
	if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM port WHERE network_id = ? LIMIT 1) x", []any{*id}, &n); err != nil || n > 0 {
		return err
	}
	made, err := s.core.Networks.Load(tx, *id)
	if err != nil {
		return err
	}
	return s.core.Networks.Collection.Options.Delete(elevated(ctx), tx, made)
}

// noteHANetwork makes a network that was created with ha its project's HA network.
func (s *service) noteHANetwork(_ context.Context, tx *store.Tx, n *network.Network, body *resource.Body) error {
	if !chosenBool(body, "ha", false) {
		return nil
	}
	there, err := tx.Exec("INSERT INTO ha_network (project_id, network_id, own) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", n.ProjectID, n.ID, false)
	if err == nil && there == 0 {
		err = fault.New(fault.Conflict, "DuplicatedHANetwork", "Project %s already has a HA network.", n.ProjectID)
	}
	return err
}

// followNetworks ties HA networks and floating IPs into networks.
func (s *service) followNetworks() {
	n := s.core.Networks
	n.AfterCreate = append(n.AfterCreate, s.noteHANetwork)
	n.BeforeUpdate = append(n.BeforeUpdate, func(ctx context.Context, tx *store.Tx, old, want *network.Network) error {
		if !old.External || want.External {
			return nil
		}
		return s.dropIdleFloating(ctx, tx, old)
	})
}

// haState is the state of a router with ha on its host's agent, as JSON.
func haState(r *Router, o resource.Object) string {
	a, ok := o.(*agent.Agent)
	switch {
	case !r.HA || !ok:
		return "null"
	case a.Alive:
		return `"active"`
	}
	return `"unknown"`
}
