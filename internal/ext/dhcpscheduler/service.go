package dhcpscheduler

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"slices"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct{ core *core.Core }

// Conditions on a network n and its ports p.
const (
	served = "EXISTS (SELECT 1 FROM subnet s WHERE s.network_id = n.id AND s.enable_dhcp)"
	bound  = "p.host_id <> '' AND p.vif_type NOT IN ('" + port.VIFUnbound + "', '" + port.VIFBindingFailed + "')"
	// idle: DHCP is wanted, but no host is known by ports or by choice.
	idle = served + " AND NOT EXISTS (SELECT 1 FROM port p WHERE p.network_id = n.id AND " + bound + ") AND NOT EXISTS (SELECT 1 FROM dhcp_choice c WHERE c.network_id = n.id AND c.wanted)"
)

// texts reads the one column of a query.
func texts(tx *store.Tx, query string, args ...any) ([]string, error) {
	var list []string
	err := tx.Query(func(scan func(...any) error) error {
		var text string
		err := scan(&text)
		list = append(list, text)
		return err
	}, query, args...)
	return list, err
}

// withPorts are the hosts whose DHCP agents answer ports of the network.
func withPorts(tx *store.Tx, networkID string) ([]string, error) {
	return texts(tx, "SELECT DISTINCT p.host_id FROM port p JOIN network n ON n.id = p.network_id WHERE n.id = ? AND "+bound+" AND "+served, networkID)
}

// hosts that serve a network, or would be the first to.
func (s *service) hosts(tx *store.Tx, n *network.Network) ([]string, error) {
	hosts, err := withPorts(tx, n.ID)
	if err != nil {
		return nil, err
	}
	chosen, err := texts(tx, "SELECT host FROM dhcp_choice WHERE network_id = ? AND wanted", n.ID)
	if err != nil {
		return nil, err
	}
	if hosts = append(hosts, chosen...); len(hosts) > 0 {
		slices.Sort(hosts)
		return slices.Compact(hosts), nil
	}
	isIdle, err := texts(tx, "SELECT n.id FROM network n WHERE n.id = ? AND "+idle, n.ID)
	if err != nil || len(isIdle) == 0 {
		return nil, err
	}
	agents, err := s.core.Agents.OfType(tx, agent.DHCP)
	if err != nil {
		return nil, err
	}
	refused, err := texts(tx, "SELECT host FROM dhcp_choice WHERE network_id = ? AND NOT wanted", n.ID)
	if err != nil {
		return nil, err
	}
	if first := s.first(n, agents, refused); first != "" {
		hosts = []string{first}
	}
	return hosts, nil
}

// first is the host of the agent that an idle network is shown with: one of its
// zones, the same whenever it is asked for, networks being spread over all; "": none.
func (s *service) first(n *network.Network, agents []*agent.Agent, refused []string) string {
	zones := n.AvailabilityZoneHints
	if len(zones) == 0 {
		zones = config.DefaultAvailabilityZones.Of(s.core.Config)
	}
	var best string
	var least uint64
	for _, a := range agents {
		if slices.Contains(refused, a.Host) || len(zones) > 0 && (a.AvailabilityZone == nil || !slices.Contains(zones, *a.AvailabilityZone)) {
			continue
		}
		h := fnv.New64a()
		h.Write([]byte(n.ID + a.Host))
		if rank := h.Sum64(); best == "" || rank < least {
			best, least = a.Host, rank
		}
	}
	return best
}

func (s *service) agentsOfNetwork(ctx context.Context, c resource.Call) (any, error) {
	var rows []*agent.Agent
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		n, err := s.core.Networks.Find(ctx, tx, c.Params["network_id"])
		if err != nil {
			return err
		}
		hosts, err := s.hosts(tx, n)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(hosts, 512) {
			in, args := store.In("t.host", anys(chunk))
			more, err := s.core.Agents.Table.Select(tx, "WHERE t.agent_type = ? AND "+in+" ORDER BY t.host", append([]any{agent.DHCP}, args...)...)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.core.Agents.Present(ctx, rows)
	list := make([]json.RawMessage, len(rows))
	for i, a := range rows {
		list[i] = s.core.Agents.Encode(nil, a, nil)
	}
	return map[string]any{"agents": list}, nil
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	return list
}

func (s *service) networksOfAgent(ctx context.Context, c resource.Call) (any, error) {
	var rows []*network.Network
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil || a.AgentType != agent.DHCP {
			return err
		}
		ids, err := texts(tx, "SELECT DISTINCT p.network_id FROM port p JOIN network n ON n.id = p.network_id WHERE p.host_id = ? AND "+bound+" AND "+served+
			" UNION SELECT network_id FROM dhcp_choice WHERE host = ? AND wanted", a.Host, a.Host)
		if err != nil {
			return err
		}
		more, err := s.idleOf(tx, a.Host)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(append(ids, more...), 512) {
			in, args := store.In("t.id", anys(chunk))
			part, err := s.core.Networks.Table.Select(tx, "WHERE "+in+" ORDER BY t.id", args...)
			if err != nil {
				return err
			}
			rows = append(rows, part...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.core.Networks.Present(ctx, rows)
	list := make([]json.RawMessage, len(rows))
	for i, n := range rows {
		list[i] = s.core.Networks.Encode(nil, n, nil)
	}
	return map[string]any{"networks": list}, nil
}

// idleOf are the idle networks that are shown with a host's agent.
func (s *service) idleOf(tx *store.Tx, host string) ([]string, error) {
	agents, err := s.core.Agents.OfType(tx, agent.DHCP)
	if err != nil || !slices.ContainsFunc(agents, func(a *agent.Agent) bool { return a.Host == host }) {
		return nil, err
	}
	rows, err := s.core.Networks.Table.SelectBare(tx, "WHERE t.id IN (SELECT n.id FROM network n WHERE "+idle+") ORDER BY t.id")
	if err != nil {
		return nil, err
	}
	refused := map[string][]string{}
	err = tx.Query(func(scan func(...any) error) error {
		var id, other string
		err := scan(&id, &other)
		refused[id] = append(refused[id], other)
		return err
	}, "SELECT network_id, host FROM dhcp_choice WHERE NOT wanted")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range rows {
		if s.first(n, agents, refused[n.ID]) == host {
			ids = append(ids, n.ID)
		}
	}
	return ids, nil
}

func (s *service) add(ctx context.Context, c resource.Call) (any, error) {
	members, _ := c.Body.(map[string]any)
	id, ok := members["network_id"].(string)
	if !ok {
		return nil, fault.BadRequest("Invalid input for network_id. Reason: '%s' is not a valid UUID.", value.Text(members["network_id"]))
	}
	return nil, s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		n, err := s.core.Networks.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil {
			return err
		}
		if a.AgentType != agent.DHCP || !a.AdminStateUp && !config.EnableServicesOnAgentsWithAdminStateDown.Of(s.core.Config) {
			return fault.New(fault.NotFound, "InvalidDHCPAgent", "Agent %s is not a valid DHCP Agent or has been disabled.", a.ID)
		}
		hosts, err := s.hosts(tx, n)
		if err != nil {
			return err
		}
		if slices.Contains(hosts, a.Host) {
			return fault.New(fault.Conflict, "NetworkHostedByDHCPAgent", "The network %s has been already hosted by the DHCP Agent %s.", n.ID, a.ID)
		}
		return choose(tx, n.ID, a.Host, true)
	})
}

func choose(tx *store.Tx, networkID, host string, wanted bool) error {
	err := tx.Put("INSERT INTO dhcp_choice (network_id, host, wanted) VALUES (?, ?, ?) ON CONFLICT (network_id, host) DO UPDATE SET wanted = excluded.wanted", networkID, host, wanted)
	return err
}

func (s *service) remove(ctx context.Context, c resource.Call) (any, error) {
	return nil, s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		a, err := s.core.Agents.Load(tx, c.Params["agent_id"])
		if err != nil {
			return err
		}
		n, err := s.core.Networks.Find(ctx, tx, c.Params["network_id"])
		if err != nil {
			return err
		}
		hosts, err := s.hosts(tx, n)
		if err != nil {
			return err
		}
		if a.AgentType != agent.DHCP || !slices.Contains(hosts, a.Host) {
			return fault.New(fault.Conflict, "NetworkNotHostedByDhcpAgent", "The network %s is not hosted by the DHCP Agent %s.", n.ID, a.ID)
		}
		needed, err := withPorts(tx, n.ID)
		if err != nil {
			return err
		}
		if slices.Contains(needed, a.Host) {
			return network.InUse(n.ID, "Its ports on host "+a.Host+" are served by the DHCP agent there")
		}
		return choose(tx, n.ID, a.Host, false)
	})
}
