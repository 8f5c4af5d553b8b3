// Package dhcpscheduler is the dhcp_agent_scheduler extension: which DHCP
// agents serve which networks.
//
// Nothing is scheduled: the agent of every host that has ports of a network
// answers them. Clients expect of Neutron that a network also has an agent
// before its first port has a host, and that administrators may choose it; such
// a choice is kept and shown, and there is nothing to do for it. What is said of
// an agent is true all the same: a port on its host would be answered.
//
// It must not know how DHCP is served.
package dhcpscheduler

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "dhcpscheduler", Schemas: []store.Schema{schema}, Install: install})
}

var schema = store.Schema{Module: "ext/dhcpscheduler", Steps: [][]string{{
	// What administrators said: the network is on that host (wanted), or is not.
	`CREATE TABLE dhcp_choice (
		network_id VARCHAR(36) NOT NULL REFERENCES network (id) ON DELETE CASCADE, host VARCHAR(255) NOT NULL, wanted BOOLEAN NOT NULL,
		PRIMARY KEY (network_id, host))`,
	`CREATE INDEX dhcp_choice_host ON dhcp_choice (host)`,
}}}

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "dhcp_agent_scheduler", Name: "DHCP Agent Scheduler", Description: "Schedule networks among dhcp agents",
		Updated: "2013-02-07T10:00:00-00:00", Requires: []string{"agent"},
	})
	s := &service{core: c}
	c.Registry.Handle(
		resource.Route{Method: "GET", Path: "/agents/{agent_id}/dhcp-networks", Action: "get_dhcp-networks", Do: s.networksOfAgent},
		resource.Route{Method: "POST", Path: "/agents/{agent_id}/dhcp-networks", Action: "create_dhcp-network", Status: 201, Do: s.add},
		resource.Route{Method: "DELETE", Path: "/agents/{agent_id}/dhcp-networks/{network_id}", Action: "delete_dhcp-network", Status: 204, Do: s.remove},
		resource.Route{Method: "GET", Path: "/networks/{network_id}/dhcp-agents", Action: "get_dhcp-agents", Do: s.agentsOfNetwork},
	)
	c.Agents.BeforeDelete = append(c.Agents.BeforeDelete, func(_ context.Context, tx *store.Tx, a *agent.Agent) error {
		if a.AgentType != agent.DHCP {
			return nil
		}
		err := tx.Put("DELETE FROM dhcp_choice WHERE host = ?", a.Host)
		return err
	})
	return nil
}
