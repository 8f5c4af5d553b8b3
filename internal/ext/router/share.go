package router

import (
	"isospin/internal/core/port"
	"isospin/internal/core/rbac"
	"isospin/internal/store"
)

// gatewayUse is how routers use other projects' external networks.
func gatewayUse() rbac.Use {
	return rbac.Use{
		Action: rbac.AccessAsExternal,
		Projects: func(tx *store.Tx, id string) ([]string, error) {
			return rbac.Projects(tx, "SELECT DISTINCT r.project_id FROM port p JOIN router_gateway_port g ON g.port_id = p.id JOIN router r ON r.id = g.router_id WHERE p.network_id = ? AND p.device_owner = ?", id, port.OwnerRouterGateway)
		},
		Details: func(*rbac.Policy) string {
			return "There are routers attached to this network that depend on this policy for access."
		},
	}
}
