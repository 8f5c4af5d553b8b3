package availabilityzone

import (
	"context"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Zone is a part of the cloud as agents name it, for networks or for routers.
type Zone struct {
	Name string `json:"name"`
	// Resource is network or router: that of which the zone has agents.
	Resource string `json:"resource"`
	// State is available when an agent of the zone is administratively up, else unavailable.
	State string `json:"state"`
}

type service struct {
	collection.ReadOnly
	core    *core.Core
	encoder *resource.Encoder
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.Resource = newResource()
	s.Resource.Service = s
	s.encoder = resource.NewModel[Zone]().NewEncoder(s.Resource)
	return s
}

// List implements resource.Service.
func (s *service) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	var zones []*Zone
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		return tx.Query(func(scan func(...any) error) error {
			var name, agentType string
			var up int64
			if err := scan(&name, &agentType, &up); err != nil {
				return err
			}
			z := &Zone{Name: name, Resource: "network", State: "unavailable"}
			if agentType == agent.L3 {
				z.Resource = "router"
			}
			if up > 0 {
				z.State = "available"
			}
			zones = append(zones, z)
			return nil
		}, `SELECT availability_zone, agent_type, SUM(CASE WHEN admin_state_up THEN 1 ELSE 0 END) FROM agent
			WHERE agent_type IN (?, ?) AND availability_zone IS NOT NULL GROUP BY availability_zone, agent_type ORDER BY 1, 2`, agent.DHCP, agent.L3)
	})
	if err != nil {
		return nil, err
	}
	var objects []resource.Object
	for _, z := range zones {
		kept := true
		for _, f := range q.Filters {
			member := map[string]string{"name": z.Name, "resource": z.Resource, "state": z.State}[f.Attribute.Name]
			kept = kept && slices.Contains(f.Values, any(member))
		}
		if kept {
			objects = append(objects, z)
		}
	}
	return objects, nil
}

// Get implements resource.Service: zones have no id.
func (s *service) Get(_ context.Context, id string) (resource.Object, error) {
	return nil, fault.New(fault.NotFound, s.Resource.NotFound, s.Resource.NotFoundText, id)
}

// Encode implements resource.Service.
func (s *service) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}
