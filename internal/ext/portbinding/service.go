package portbinding

import (
	"context"
	"encoding/json"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// service is the bindings of all ports; a port's are below it.
type service struct {
	collection.ReadOnly
	core     *core.Core
	resource *resource.Resource
	model    *resource.Model
	encoder  *resource.Encoder
}

func newService(c *core.Core) *service {
	r := newResource(c.Ports.Resource)
	s := &service{ReadOnly: collection.ReadOnly{Resource: r}, core: c, resource: r, model: resource.NewModel[port.HostBinding]()}
	s.encoder = s.model.NewEncoder(r)
	r.Service = s
	r.Within = func(portID string) resource.Service { return &within{s, portID} }
	return s
}

// Encode implements resource.Service.
func (s *service) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}

// Value implements resource.Valuer.
func (s *service) Value(o resource.Object, attribute string) (any, bool) {
	return s.model.Value(o, attribute)
}

// Get implements resource.Service: a binding is found below its port alone.
func (s *service) Get(_ context.Context, host string) (resource.Object, error) {
	return nil, fault.New(fault.NotFound, "PortBindingNotFound", "Binding for host %s could not be found.", host)
}

// List implements resource.Service.
func (s *service) List(context.Context, *resource.Query) ([]resource.Object, error) { return nil, nil }

// activate is PUT /ports/{port_id}/bindings/{host}/activate.
func (s *service) activate(ctx context.Context, call resource.Call) (any, error) {
	var b *port.HostBinding
	err := s.core.Store.Tx(ctx, func(tx *store.Tx) (err error) {
		b, err = s.core.Ports.ActivateHostBinding(ctx, tx, call.Params["port_id"], call.Params["host"])
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.RawMessage(s.Encode(nil, b, nil)), nil
}

// within is the bindings of one port.
type within struct {
	*service
	portID string
}

// apply writes a checked body into a binding.
func (w *within) apply(b *port.HostBinding, body *resource.Body) error {
	if host, given := body.Values["host"]; given {
		text, isText := host.(string)
		if !isText || text == "" || len(text) > 255 {
			return fault.BadRequest("Invalid input for host. Reason: '%s' is not the name of a host.", value.Text(host))
		}
		b.Host = text
	}
	if v, ok := body.Values["vnic_type"].(string); ok {
		b.VNICType = v
	}
	if profile, given := body.Values["profile"]; given {
		if profile == nil {
			profile = map[string]any{}
		}
		raw, err := json.Marshal(profile)
		if err != nil {
			return fault.InvalidInput("%v", err)
		}
		b.Profile = raw
	}
	return nil
}

// Create implements resource.Service.
func (w *within) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	made := make([]resource.Object, len(items))
	err := w.core.Store.Tx(ctx, func(tx *store.Tx) error {
		for i, body := range items {
			b := &port.HostBinding{Profile: json.RawMessage("{}")}
			if err := w.apply(b, body); err != nil {
				return err
			}
			if err := w.core.Ports.AddHostBinding(ctx, tx, w.portID, b); err != nil {
				return err
			}
			made[i] = b
		}
		return nil
	})
	return made, err
}

// Get implements resource.Service.
func (w *within) Get(ctx context.Context, host string) (resource.Object, error) {
	var b *port.HostBinding
	err := w.core.Store.View(ctx, func(tx *store.Tx) (err error) {
		_, b, err = w.core.Ports.HostBinding(ctx, tx, w.portID, host)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// List implements resource.Service. A port has few bindings: they are chosen
// from here, in the order of their hosts.
func (w *within) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	var all []*port.HostBinding
	err := w.core.Store.View(ctx, func(tx *store.Tx) (err error) {
		_, all, err = w.core.Ports.HostBindings(ctx, tx, w.portID)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *port.HostBinding) int {
		if a.Host < b.Host {
			return -1
		}
		return 1
	})
	var list []resource.Object
	for _, b := range all {
		fits := true
		for _, f := range q.Filters {
			v, _ := w.Value(b, f.Attribute.Name)
			fits = fits && slices.Contains(f.Values, v)
		}
		if q.Marker != "" && q.Limit > 0 {
			fits = fits && (b.Host > q.Marker) == !q.Reverse && b.Host != q.Marker
		}
		if fits {
			list = append(list, b)
		}
	}
	if q.Limit > 0 && len(list) > q.Limit {
		if q.Reverse {
			return list[len(list)-q.Limit:], nil
		}
		return list[:q.Limit], nil
	}
	return list, nil
}

// Update implements resource.Service.
func (w *within) Update(ctx context.Context, host string, body *resource.Body, _ resource.Match) (resource.Object, error) {
	var b *port.HostBinding
	err := w.core.Store.Tx(ctx, func(tx *store.Tx) error {
		_, old, err := w.core.Ports.HostBinding(ctx, tx, w.portID, host)
		if err != nil {
			return err
		}
		want := *old
		b = &want
		if err := w.apply(b, body); err != nil {
			return err
		}
		return w.core.Ports.ChangeHostBinding(ctx, tx, w.portID, host, b)
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Delete implements resource.Service.
func (w *within) Delete(ctx context.Context, host string, _ resource.Match) error {
	return w.core.Store.Tx(ctx, func(tx *store.Tx) error {
		return w.core.Ports.RemoveHostBinding(ctx, tx, w.portID, host)
	})
}
