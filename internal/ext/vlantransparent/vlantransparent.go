// Package vlantransparent is the vlan-transparent and qinq extensions: networks
// that carry the VLAN tags of their guests. Each is there when every mechanism
// driver can do it on some type of network, unless the configuration says
// otherwise ([DEFAULT] vlan_transparent, vlan_qinq). A network that asks for it
// is refused unless all drivers can do it on each of its segments.
//
// It must not know how tags are carried.
package vlantransparent

import (
	"context"
	"slices"

	"isospin/internal/config"
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
	ext.Register(ext.Module{Name: "vlantransparent", Schemas: []store.Schema{schema}, Install: install})
}

// The slots of networks say the same; here it is found by value.
var schema = store.Schema{Module: "ext/vlantransparent", Steps: [][]string{{
	`CREATE TABLE network_tagging (
		network_id VARCHAR(36) NOT NULL, attribute VARCHAR(32) NOT NULL, enabled BOOLEAN NOT NULL, PRIMARY KEY (network_id, attribute))`,
}}}

// tagging is one of the two attributes.
type tagging struct {
	attribute string
	slot      resource.Slot[*bool]
	// can tells what a mechanism driver is able to do.
	can func(carrier port.TagCarrier, networkType string) bool
	// option forces the extension to be there, or not to be.
	option *config.Option[bool]
	// refusal is the fault when one cannot.
	refusal, text string
}

var (
	transparent = tagging{"vlan_transparent", resource.NewSlot[*bool]("vlan_transparent"), port.TagCarrier.VLANTransparent, config.VLANTransparent, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency."}
	qinq        = tagging{"qinq", resource.NewSlot[*bool]("qinq"), port.TagCarrier.QinQ, config.VLANQinQ, "VlanQinqDriverError", "Backend does not support VLAN QinQ."}
)

// served tells whether the extension is there.
func (t tagging) served(c *core.Core) bool {
	if t.option.IsSet(c.Config) {
		return t.option.Of(c.Config)
	}
	return slices.ContainsFunc([]string{"local", "vlan", "vxlan"}, func(networkType string) bool { return t.everyoneCan(c.Ports.Mechanisms(), networkType) })
}

// everyoneCan tells whether all drivers do it on a type of network.
func (t tagging) everyoneCan(mechanisms []port.Mechanism, networkType string) bool {
	for _, m := range mechanisms {
		if carrier, ok := m.(port.TagCarrier); !ok || !t.can(carrier, networkType) {
			return false
		}
	}
	return true
}

func install(c *core.Core, _ *feed.Hub) error {
	var loaded []tagging
	if transparent.served(c) {
		c.Registry.AddExtension(resource.Extension{Alias: "vlan-transparent", Name: "Vlantransparent", Description: "Provides Vlan Transparent Networks", Updated: "2015-03-23T09:00:00-00:00"})
		c.Networks.Resource.Add(resource.Attribute{
			Name: transparent.attribute, Flags: resource.Post | resource.Visible | resource.Filter, Default: resource.Unspecified,
			Convert: "convert_to_boolean", Type: "bool|null",
		})
		loaded = append(loaded, transparent)
	}
	if qinq.served(c) {
		c.Registry.AddExtension(resource.Extension{Alias: "qinq", Name: "QinQ networks", Description: "Provides QinQ Networks", Updated: "2024-12-02T10:00:00-00:00"})
		c.Networks.Resource.Add(resource.Attribute{
			Name: qinq.attribute, Flags: resource.Post | resource.Visible | resource.Filter, Default: resource.Unspecified,
			Convert: "convert_to_boolean", Validate: resource.Rules{"type:boolean": nil}, Type: "bool|null",
		})
		loaded = append(loaded, qinq)
	}
	if len(loaded) == 0 {
		return nil
	}
	for _, t := range loaded {
		c.Networks.Table.Condition(t.attribute, func(values []any) (string, []any) {
			in, args := store.In("x.enabled", values)
			return "EXISTS (SELECT 1 FROM network_tagging x WHERE x.network_id = t.id AND x.attribute = ? AND " + in + ")", append([]any{t.attribute}, args...)
		})
	}
	c.Networks.AfterCreate = append(c.Networks.AfterCreate, func(_ context.Context, tx *store.Tx, n *network.Network, _ *resource.Body) error {
		return begin(tx, n, loaded, c.Ports.Mechanisms())
	})
	c.Networks.BeforeDelete = append(c.Networks.BeforeDelete, func(_ context.Context, tx *store.Tx, n *network.Network) error {
		err := tx.Put("DELETE FROM network_tagging WHERE network_id = ?", n.ID)
		return err
	})
	return nil
}

// begin checks a new network and notes what it asks for.
func begin(tx *store.Tx, n *network.Network, loaded []tagging, mechanisms []port.Mechanism) error {
	if is(n, transparent) && is(n, qinq) {
		return fault.New(fault.Invalid, "BadRequest", "Bad network request: Attributes 'vlan_transparent' and 'qinq' can not be set to True for the same network..")
	}
	for _, t := range loaded {
		wants := t.slot.Get(n.Slots)
		if wants == nil {
			continue
		}
		if *wants {
			for _, s := range n.Segments {
				if !t.everyoneCan(mechanisms, s.NetworkType) {
					return fault.New(fault.Invalid, t.refusal, "%s", t.text)
				}
			}
		}
		if err := tx.Put("INSERT INTO network_tagging (network_id, attribute, enabled) VALUES (?, ?, ?)", n.ID, t.attribute, *wants); err != nil {
			return err
		}
	}
	return nil
}

func is(n *network.Network, t tagging) bool {
	v := t.slot.Get(n.Slots)
	return v != nil && *v
}
