package router

import (
	"context"
	"errors"

	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Pool is an IPv4 subnet of an external network, of which floating IPs can be.
type Pool struct {
	SubnetID   string `json:"subnet_id" db:"id"`
	SubnetName string `json:"subnet_name" db:"name"`
	NetworkID  string `json:"network_id" db:"network_id"`
	CIDR       string `json:"cidr" db:"cidr"`
	// ProjectID is who asks: for them there is the pool.
	ProjectID string `json:"tenant_id"`
}

// pools serves the pools of floating IPs.
type pools struct {
	collection.ReadOnly
	store   *store.Store
	table   *store.Table[Pool]
	model   *resource.Model
	encoder *resource.Encoder
}

func (s *service) newPools() *pools {
	p := &pools{store: s.core.Store, table: store.NewTable[Pool]("subnet", store.TableOptions[Pool]{Columns: map[string]string{"subnet_id": "id"}})}
	p.Resource = &resource.Resource{
		Name: "floatingip_pool", Collection: "floatingip_pools", Path: "floatingip-pools", Older: true,
		NotFound: "HTTPNotFound", NotFoundText: "The resource could not be found.", Only: []resource.Operation{resource.List},
	}
	p.Resource.Add(
		resource.Attribute{Name: "subnet_id", Flags: visible, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "subnet_name", Flags: visible, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: visible, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "network_id", Flags: visible, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "cidr", Flags: visible, Validate: resource.Rules{"type:subnet_or_none": nil}, Type: "string|null"},
	)
	p.Resource.Service = p
	p.model = resource.NewModel[Pool]()
	p.encoder = p.model.NewEncoder(p.Resource)
	return p
}

// Get implements resource.Service; pools are only listed.
func (p *pools) Get(context.Context, string) (resource.Object, error) {
	return nil, fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
}

// List implements resource.Service.
func (p *pools) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	who := identity.From(ctx)
	scope, args := "", []any(nil)
	if !who.SeesAll() {
		scope, args = ` AND (n.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'network' AND r.object_id = n.id AND r.action = 'access_as_external' AND r.target_project IN ('*', ?)))`,
			[]any{who.ProjectID, who.ProjectID}
	}
	var rows []*Pool
	err := p.store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = p.table.List(tx, q, "t.ip_version = 4 AND EXISTS (SELECT 1 FROM network n WHERE n.id = t.network_id AND n.external"+scope+")", args...)
		return err
	})
	if errors.Is(err, store.ErrNoRow) { // the marker
		return nil, nil
	}
	list := make([]resource.Object, len(rows))
	for i, o := range rows {
		o.ProjectID = who.ProjectID
		list[i] = o
	}
	return list, err
}

// Encode implements resource.Service.
func (p *pools) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return p.encoder.Append(b, o, fields)
}

// Value implements resource.Valuer.
func (p *pools) Value(o resource.Object, attribute string) (any, bool) {
	return p.model.Value(o, attribute)
}
