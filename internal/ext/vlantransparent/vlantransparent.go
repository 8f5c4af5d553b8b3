// Package vlantransparent is the vlan-transparent and qinq extensions: networks
// that carry the VLAN tags of their guests. Both are there only when they are
// configured ([DEFAULT] vlan_transparent, vlan_qinq), and a network that asks for
// one is refused unless every mechanism driver can do it.
//
// It must not know how tags are carried.
package vlantransparent

import (
	"context"

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
	can func(port.TagCarrier) bool
	// refusal is the fault when one cannot.
	refusal, text string
}

var (
	transparent = tagging{"vlan_transparent", resource.NewSlot[*bool]("vlan_transparent"), port.TagCarrier.VLANTransparent, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency."}
	qinq        = tagging{"qinq", resource.NewSlot[*bool]("qinq"), port.TagCarrier.QinQ, "VlanQinqDriverError", "Backend does not support VLAN QinQ."}
)

func install(c *core.Core, _ *feed.Hub) error {
	var loaded []tagging
	if config.VLANTransparent.Of(c.Config) {
		c.Registry.AddExtension(resource.Extension{Alias: "vlan-transparent", Name: "Vlantransparent", Description: "Provides Vlan Transparent Networks", Updated: "2015-03-23T09:00:00-00:00"})
		c.Networks.Resource.Add(resource.Attribute{
			Name: transparent.attribute, Flags: resource.Post | resource.Visible | resource.Filter, Default: resource.Unspecified,
			Convert: "convert_to_boolean", Type: "bool|null",
		})
		loaded = append(loaded, transparent)
	}
	if config.VLANQinQ.Of(c.Config) {
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
	c.Networks.OnWrite = append(c.Networks.OnWrite, func(_ context.Context, tx *store.Tx, n *network.Network) error {
		if n.CreatedAt != "" { // neither changes
			return nil
		}
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
			for _, m := range mechanisms {
				if carrier, ok := m.(port.TagCarrier); !ok || !t.can(carrier) {
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
