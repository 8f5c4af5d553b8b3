package ndpproxy

import (
	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// project adds NDP proxies to routers.
func (s *service) project(h *feed.Hub) {
	proxies := feed.KeepParts(h, "ndp_proxy", func(tx *store.Tx) ([]*Proxy, error) { return s.Table.Select(tx, "") },
		func(o *Proxy) string { return o.ID }, func(o *Proxy) string { return o.RouterID })
	h.Complete(message.Kind_KIND_ROUTER, func(c *feed.Copy, _ string, o *message.Object) {
		r := o.GetRouter()
		for _, p := range proxies.Of(c, r.GetId()) {
			r.NdpProxies = append(r.NdpProxies, &message.NDPProxy{Id: p.ID, IpAddress: p.IPAddress.String()})
		}
	})
}
