package router

import (
	"context"
	"encoding/json"
	"slices"

	"isospin/internal/config"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// place makes sure that a host serves the router which reaches its networks
// and the one that is being added (nil: none). A router that no host can serve
// stays where it is, or waits for a host. So does one whose host is not heard
// of: it may well be forwarding, and two hosts must not have one address. The
// caller saves the router.
func (s *service) place(ctx context.Context, tx *store.Tx, r *Router, adding *network.Network) error {
	if r.HostID != "" {
		if adding == nil {
			return nil
		}
		if ok, err := s.core.Ports.Reaches(tx, r.HostID, adding); err != nil || ok {
			return err
		}
		if ok, err := s.heardOf(tx, r.HostID); err != nil || !ok {
			return err
		}
	}
	host, err := s.choose(tx, r, adding, "")
	if err != nil {
		return err
	}
	if host != "" {
		return s.bind(ctx, tx, r, host)
	}
	err = tx.Put("INSERT INTO router_binding (router_id, host) VALUES (?, '') ON CONFLICT DO NOTHING", r.ID)
	return err
}

// choose is the host with the fewest routers, of the zones of which the
// router's must be, whose agents reach all networks of the router; empty: there
// is none.
func (s *service) choose(tx *store.Tx, r *Router, adding *network.Network, except string) (string, error) {
	agents, err := s.core.Agents.OfType(tx, agent.L3)
	if err != nil || len(agents) == 0 {
		return "", err
	}
	networks, err := s.networksOf(tx, r)
	if err != nil {
		return "", err
	}
	if adding != nil {
		networks = append(networks, adding)
	}
	load := map[string]int{}
	err = tx.Query(func(scan func(...any) error) error {
		var host string
		var n int
		err := scan(&host, &n)
		load[host] = n
		return err
	}, "SELECT host, COUNT(*) FROM router_binding GROUP BY host")
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(agents, func(a, b *agent.Agent) int { return load[a.Host] - load[b.Host] })
	zones := r.AvailabilityZoneHints
	if len(zones) == 0 {
		zones = config.DefaultAvailabilityZones.Of(s.core.Config)
	}
	for _, a := range agents {
		if a.Host == except || distributing(a) || len(zones) > 0 && (a.AvailabilityZone == nil || !slices.Contains(zones, *a.AvailabilityZone)) {
			continue
		}
		ok, err := s.reachesAll(tx, a.Host, networks)
		if err != nil {
			return "", err
		}
		if ok {
			return a.Host, nil
		}
	}
	return "", nil
}

// heardOf tells whether those functions of a host live that take a router away.
func (s *service) heardOf(tx *store.Tx, host string) (bool, error) {
	agents, err := s.core.Agents.OnHost(tx, host)
	if err != nil {
		return false, err
	}
	alive := 0
	for _, a := range agents {
		if (a.AgentType == agent.L3 || a.AgentType == agent.OpenVSwitch) && s.core.Agents.IsAlive(a) {
			alive++
		}
	}
	return alive == 2, nil
}

func (s *service) reachesAll(tx *store.Tx, host string, networks []*network.Network) (bool, error) {
	for _, n := range networks {
		if ok, err := s.core.Ports.Reaches(tx, host, n); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (s *service) networksOf(tx *store.Tx, r *Router) ([]*network.Network, error) {
	ports, err := s.portsOf(tx, r)
	if err != nil {
		return nil, err
	}
	var networks []*network.Network
	seen := map[string]bool{}
	for _, p := range ports {
		if seen[p.NetworkID] {
			continue
		}
		seen[p.NetworkID] = true
		n, err := s.core.Networks.Load(tx, p.NetworkID)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// bind gives the router with all its ports to a host; empty: it waits for one. Floating
// IPs are DOWN until the host has them. The caller saves the router.
func (s *service) bind(ctx context.Context, tx *store.Tx, r *Router, host string) error {
	if err := tx.Put("INSERT INTO router_binding (router_id, host) VALUES (?, ?) ON CONFLICT (router_id) DO UPDATE SET host = excluded.host", r.ID, host); err != nil {
		return err
	}
	if err := fillHosts(tx, []*Router{r}); err != nil {
		return err
	}
	ports, err := s.portsOf(tx, r)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if err := s.core.Ports.Move(elevated(ctx), tx, p, host); err != nil {
			return err
		}
	}
	list, err := s.floating.Table.Select(tx, "WHERE t.router_id = ? ORDER BY t.id", r.ID)
	if err != nil {
		return err
	}
	for _, f := range list {
		f.Status, f.RouterGeneration = statusDown, r.Generation+1
		if err := s.floating.Save(ctx, tx, f); err != nil {
			return err
		}
	}
	return nil
}

// agentReported gives waiting routers to a host whose agents came up or
// changed, and binds its routers' ports that could not be bound before.
func (s *service) agentReported(ctx context.Context, tx *store.Tx, a *agent.Agent) error {
	if a.AgentType != agent.L3 && a.AgentType != agent.OpenVSwitch {
		return nil
	}
	failed, err := s.core.Ports.Table.Select(tx, `WHERE t.host_id = ? AND t.vif_type = ? AND t.id IN (SELECT rp.port_id FROM router_port rp JOIN router_binding b ON b.router_id = rp.router_id WHERE b.host = ?
		UNION SELECT g.port_id FROM router_gateway_port g JOIN router_binding b ON b.router_id = g.router_id WHERE b.host = ?) ORDER BY t.id`, a.Host, port.VIFBindingFailed, a.Host, a.Host)
	if err != nil {
		return err
	}
	for _, p := range failed {
		parent, err := s.core.Networks.Load(tx, p.NetworkID)
		if err != nil {
			return err
		}
		if ok, err := s.core.Ports.Reaches(tx, a.Host, parent); err != nil {
			return err
		} else if !ok {
			continue
		}
		if err := s.core.Ports.Move(ctx, tx, p, a.Host); err != nil {
			return err
		}
	}
	if !config.RouterAutoSchedule.Of(s.core.Config) {
		return nil
	}
	waiting, err := s.routers.Table.Select(tx, `WHERE t.id IN (SELECT router_id FROM router_binding WHERE host = '')
		AND (t.gateway_port_id IS NOT NULL OR EXISTS (SELECT 1 FROM router_port p WHERE p.router_id = t.id)) ORDER BY t.created_at, t.id`)
	if err != nil {
		return err
	}
	for _, r := range waiting {
		if err := s.place(ctx, tx, r, nil); err != nil {
			return err
		}
		if r.HostID == "" {
			continue
		}
		if err := s.touch(ctx, tx, r); err != nil {
			return err
		}
	}
	return nil
}

// agentGone moves the routers of a host whose L3 agent is deleted.
func (s *service) agentGone(ctx context.Context, tx *store.Tx, a *agent.Agent) error {
	if a.AgentType != agent.L3 {
		return nil
	}
	rows, err := s.routers.Table.Select(tx, "WHERE t.id IN (SELECT router_id FROM router_binding WHERE host = ?) ORDER BY t.created_at, t.id", a.Host)
	if err != nil {
		return err
	}
	for _, r := range rows {
		host, err := s.choose(tx, r, nil, a.Host)
		if err != nil {
			return err
		}
		if err := s.bind(ctx, tx, r, host); err != nil {
			return err
		}
		if err := s.touch(ctx, tx, r); err != nil {
			return err
		}
	}
	return nil
}

// registerScheduling registers the agent scheduler's API and follows agents.
func (s *service) registerScheduling() {
	s.core.Agents.OnReport = append(s.core.Agents.OnReport, s.agentReported)
	s.core.Agents.BeforeDelete = append(s.core.Agents.BeforeDelete, s.agentGone)
	s.core.Registry.Handle(
		resource.Route{Method: "GET", Path: "/agents/{agent_id}/l3-routers", Action: "get_l3-routers", Do: s.routersOfAgent},
		resource.Route{Method: "POST", Path: "/agents/{agent_id}/l3-routers", Action: "create_l3-router", Status: 201, Do: s.addToAgent},
		resource.Route{Method: "DELETE", Path: "/agents/{agent_id}/l3-routers/{router_id}", Action: "delete_l3-router", Status: 204, Do: s.removeFromAgent},
		resource.Route{Method: "GET", Path: "/routers/{router_id}/l3-agents", Action: "get_l3-agents", Do: s.agentsOfRouter},
	)
}

func (s *service) routersOfAgent(ctx context.Context, c resource.Call) (any, error) {
	var rows []*Router
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil || a.AgentType != agent.L3 {
			return err
		}
		rows, err = s.routers.Table.Select(tx, "WHERE t.id IN (SELECT router_id FROM router_binding WHERE host = ?) ORDER BY t.id", a.Host)
		return err
	})
	if err != nil {
		return nil, err
	}
	list := make([]json.RawMessage, len(rows))
	for i, r := range rows {
		list[i] = s.routers.Encode(nil, r, nil)
	}
	return map[string]any{"routers": list}, nil
}

// distributing tells whether an agent says that it carries the part of distributed
// routers that is on every host, and no whole router.
func distributing(a *agent.Agent) bool {
	mode := a.Configuration().AgentMode
	return mode == "dvr" || mode == "dvr_no_external"
}

func (s *service) addToAgent(ctx context.Context, c resource.Call) (any, error) {
	members, _ := c.Body.(map[string]any)
	id, ok := members["router_id"].(string)
	if !ok {
		return nil, fault.BadRequest("Invalid input for router_id. Reason: '%s' is not a valid UUID.", value.Text(members["router_id"]))
	}
	return nil, s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		r, err := s.routers.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil {
			return err
		}
		if a.AgentType == agent.L3 && distributing(a) {
			return fault.New(fault.Conflict, "DVRL3CannotAssignToDvrAgent", "Not allowed to manually assign a router to an agent in 'dvr' mode.")
		}
		if a.AgentType != agent.L3 || !a.AdminStateUp && !config.EnableServicesOnAgentsWithAdminStateDown.Of(s.core.Config) {
			return fault.New(fault.NotFound, "InvalidL3Agent", "Agent %s is not a L3 Agent or has been disabled", a.ID)
		}
		if r.HostID == a.Host {
			return nil
		}
		if r.HostID != "" {
			var holder string
			if err := tx.Row("SELECT id FROM agent WHERE host = ? AND agent_type = ?", []any{r.HostID, agent.L3}, &holder); err != nil {
				return err
			}
			return fault.New(fault.Conflict, "RouterHostedByL3Agent", "The router %s has been already hosted by the L3 Agent %s.", r.ID, holder)
		}
		if err := s.bind(ctx, tx, r, a.Host); err != nil {
			return err
		}
		return s.touch(ctx, tx, r)
	})
}

func (s *service) removeFromAgent(ctx context.Context, c resource.Call) (any, error) {
	return nil, s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil {
			return err
		}
		if distributing(a) {
			return fault.New(fault.Conflict, "DVRL3CannotRemoveFromDvrAgent", "Not allowed to manually remove a router from an agent in 'dvr' mode.")
		}
		r, err := s.routers.Find(ctx, tx, c.Params["router_id"])
		if err != nil {
			return err
		}
		if a.AgentType != agent.L3 || r.HostID != a.Host {
			return fault.New(fault.Conflict, "RouterNotHostedByL3Agent", "The router %s is not hosted by the L3 Agent %s.", r.ID, a.ID)
		}
		if err := s.bind(ctx, tx, r, ""); err != nil {
			return err
		}
		return s.touch(ctx, tx, r)
	})
}

func (s *service) agentsOfRouter(ctx context.Context, c resource.Call) (any, error) {
	var ids []string
	var r *Router
	err := s.core.Store.View(ctx, func(tx *store.Tx) (err error) {
		r, err = s.routers.Find(ctx, tx, c.Params["router_id"])
		if err != nil || r.HostID == "" {
			return err
		}
		return tx.Query(func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, "SELECT id FROM agent WHERE host = ? AND agent_type = ?", r.HostID, agent.L3)
	})
	if err != nil {
		return nil, err
	}
	list := []json.RawMessage{}
	for _, id := range ids {
		// The caller may see the agent if it may call this at all.
		a, err := s.core.Agents.Get(elevated(ctx), id)
		if fault.IsKind(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		b := s.core.Agents.Encode(nil, a, nil)
		list = append(list, append(b[:len(b)-1], `,"ha_state":`+haState(r, a)+`}`...))
	}
	return map[string]any{"agents": list}, nil
}
