// Package pvlan is the pvlan extension: networks whose ports are kept apart.
// Isolated ports reach promiscuous ones alone, those of a community also each
// other, and promiscuous ports reach all. It is there when every mechanism
// driver keeps ports apart.
//
// It must not know how hosts keep them apart.
package pvlan

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/ext"
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "pvlan", Schemas: []store.Schema{schema}, Install: install})
}

// The slots of ports say the same; here it is found by value.
var schema = store.Schema{Module: "ext/pvlan", Steps: [][]string{{
	`CREATE TABLE port_pvlan (port_id VARCHAR(36) PRIMARY KEY, pvlan_type VARCHAR(16) NOT NULL)`,
}}}

// Types of ports.
const (
	isolated    = "isolated"
	promiscuous = "promiscuous"
	community   = "community"
)

var (
	flagSlot      = resource.NewSlot[bool]("pvlan")
	typeSlot      = resource.NewSlot[*string]("pvlan_type")
	communitySlot = resource.NewSlot[*string]("pvlan_community")
)

type service struct{ core *core.Core }

func install(c *core.Core, _ *feed.Hub) error {
	for _, m := range c.Ports.Mechanisms() {
		if isolator, ok := m.(port.Isolator); !ok || !isolator.PrivateVLANs() {
			return nil
		}
	}
	c.Registry.AddExtension(resource.Extension{Alias: "pvlan", Name: "Private VLAN", Description: "Private VLANs: ports of a network that are kept apart", Updated: "2026-02-03T10:00:00-00:00"})
	const (
		post    = resource.Post
		put     = resource.Put
		visible = resource.Visible
	)
	c.Networks.Resource.Add(resource.Attribute{Name: "pvlan", Flags: post | put | visible, Default: false, Convert: "convert_to_boolean", Validate: resource.Rules{"type:boolean": nil}, Type: "bool"})
	c.Ports.Resource.Add(
		resource.Attribute{Name: "pvlan_type", Flags: post | put | visible | resource.Filter, Default: nil, Validate: resource.Rules{"type:values": []any{isolated, promiscuous, community, nil}}, Type: "string|null"},
		resource.Attribute{Name: "pvlan_community", Flags: post | put | visible, Default: nil, Validate: resource.Rules{"type:regex_or_none": "[a-zA-Z_.][a-zA-Z_.0-9]{0,231}$"}, Type: "string|null"},
	)
	c.Ports.Table.Condition("pvlan_type", func(values []any) (string, []any) {
		in, args := store.In("x.pvlan_type", values)
		return "EXISTS (SELECT 1 FROM port_pvlan x WHERE x.port_id = t.id AND " + in + ")", args
	})
	s := service{c}
	c.Networks.OnWrite = append(c.Networks.OnWrite, checkNetwork)
	c.Networks.BeforeUpdate = append(c.Networks.BeforeUpdate, s.followNetwork)
	c.Ports.BeforeCreate = append(c.Ports.BeforeCreate, func(_ context.Context, tx *store.Tx, p *port.Port, body *resource.Body) error {
		return s.settle(tx, nil, p, body)
	})
	c.Ports.BeforeUpdate = append(c.Ports.BeforeUpdate, func(_ context.Context, tx *store.Tx, old, want *port.Port, body *resource.Body) error {
		return s.settle(tx, old, want, body)
	})
	c.Ports.BeforeDelete = append(c.Ports.BeforeDelete, func(_ context.Context, tx *store.Tx, p *port.Port) error {
		err := tx.Put("DELETE FROM port_pvlan WHERE port_id = ?", p.ID)
		return err
	})
	return nil
}

// checkNetwork: what keeps ports apart is what filters them.
func checkNetwork(_ context.Context, _ *store.Tx, n *network.Network) error {
	if flagSlot.Get(n.Slots) && !n.PortSecurityEnabled {
		return fault.New(fault.Invalid, "PVLANNetworkPortSecurityDisabled", "Port security is disabled on network %s, cannot enable PVLAN.", n.ID)
	}
	return nil
}

// followNetwork gives the network's ports a type, or takes it from them.
func (s service) followNetwork(ctx context.Context, tx *store.Tx, old, want *network.Network) error {
	if flagSlot.Get(old.Slots) == flagSlot.Get(want.Slots) {
		return nil
	}
	ports, err := s.core.Ports.Table.Select(tx, "WHERE t.network_id = ? ORDER BY t.id", want.ID)
	if err != nil {
		return err
	}
	for _, p := range ports {
		had := typeSlot.Get(p.Slots)
		if err := s.decide(tx, want, p, had, communitySlot.Get(p.Slots), had, nil); err != nil {
			return err
		}
		if err := s.core.Ports.Store(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// settle decides the type of a port by the body of a create (old is nil) or update.
func (s service) settle(tx *store.Tx, old, want *port.Port, body *resource.Body) error {
	n, err := s.core.Ports.Network(tx, want)
	if err != nil {
		return err
	}
	var had, in *string
	if old != nil {
		had, in = typeSlot.Get(old.Slots), communitySlot.Get(old.Slots)
	}
	kind, name := had, (*string)(nil)
	if body.Has("pvlan_type") {
		kind = text(body.Values["pvlan_type"])
	}
	if body.Has("pvlan_community") {
		name = text(body.Values["pvlan_community"])
	}
	return s.decide(tx, n, want, had, in, kind, name)
}

func text(v any) *string {
	if t, ok := v.(string); ok && t != "" {
		return &t
	}
	return nil
}

// decide sets the type and community of a port that had some and is asked to have others.
func (s service) decide(tx *store.Tx, n *network.Network, p *port.Port, had, in, kind, name *string) error {
	on := flagSlot.Get(n.Slots)
	refuse := func(class, format string, args ...any) error {
		return fault.New(fault.Invalid, class, format, args...)
	}
	if on && !p.Service() && !(n.PortSecurityEnabled && p.PortSecurityEnabled) {
		return refuse("PVLANPortSecurityDisabled", "Port security is disabled for port %s, cannot set PVLAN.", p.ID)
	}
	switch {
	case !on && had == nil && (kind != nil || name != nil):
		return refuse("PVLANNotEnabledOnNetwork", "PVLAN is not enabled on network %s.", n.ID)
	case !on:
		kind, name = nil, nil
	case kind == nil:
		first := promiscuous
		kind = &first
	}
	if kind != nil {
		switch {
		case *kind != community && name != nil:
			return refuse("PVLANCannotSetCommunityName", `PVLAN community name cannot be set if port type is not "community" for this port: %s.`, p.ID)
		case *kind == community && name == nil:
			name = in
		}
		if *kind == community && name == nil {
			return refuse("PVLANCommunityNameRequired", `Community name is required for ports with PVLAN type "community": %s.`, p.ID)
		}
	}
	for slot, value := range map[resource.Slot[*string]]*string{typeSlot: kind, communitySlot: name} {
		if value == nil { // most ports have none: no map for them
			slot.Clear(p.Slots)
		} else if err := slot.Set(&p.Slots, value); err != nil {
			return err
		}
	}
	if had != nil && kind != nil && *had == *kind {
		return nil
	}
	if had != nil {
		if err := tx.Put("DELETE FROM port_pvlan WHERE port_id = ?", p.ID); err != nil {
			return err
		}
	}
	if kind == nil {
		return nil
	}
	err := tx.Put("INSERT INTO port_pvlan (port_id, pvlan_type) VALUES (?, ?)", p.ID, *kind)
	return err
}
