// Package networkcascade is the network-cascade-delete extension: a network is
// deleted together with its ports, when the client asks for it:
//
//	DELETE /v2.0/networks/{id}?cascade=true
//
// Ports that may not be deleted by themselves, such as those of routers and
// trunks, keep the network and all that is on it.
//
// It must not know whose such ports are.
package networkcascade

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/network"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() { ext.Register(ext.Module{Name: "networkcascade", Install: install}) }

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(resource.Extension{
		Alias: "network-cascade-delete", Name: "Network Cascade Deletion Extension",
		Description: "Allows for cascade deletion of networks and all associated ports.",
	})
	c.Networks.Resource.Cascade = func(ctx context.Context, id string, match resource.Match) error {
		return c.Networks.DeleteAfter(ctx, id, match, func(ctx context.Context, tx *store.Tx, n *network.Network) error {
			return c.Ports.DeleteOf(ctx, tx, n.ID)
		})
	}
	return nil
}
