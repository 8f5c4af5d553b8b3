package ndpproxy

import (
	"sort"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection adds NDP proxies to routers. Whatever changes a proxy makes a new
// generation of its router, so that it marks nothing.
type projection struct {
	// byRouter: router → proxy → present.
	byRouter map[string]map[string]struct{}
}

func (s *service) project(h *feed.Hub) {
	p := &projection{byRouter: map[string]map[string]struct{}{}}
	feed.Keep(h, "ndp_proxy", func(tx *store.Tx) ([]*Proxy, error) { return s.Table.Select(tx, "") }, func(o *Proxy) string { return o.ID })
	h.Project(p)
	h.Complete(message.Kind_KIND_ROUTER, p.complete)
}

func (p *projection) Apply(_ *feed.Copy, ch feed.Change, _ feed.Marker) {
	if ch.Kind != "ndp_proxy" {
		return
	}
	if old, _ := ch.Old.(*Proxy); old != nil {
		delete(p.byRouter[old.RouterID], old.ID)
		if len(p.byRouter[old.RouterID]) == 0 {
			delete(p.byRouter, old.RouterID)
		}
	}
	if now, _ := ch.New.(*Proxy); now != nil {
		if p.byRouter[now.RouterID] == nil {
			p.byRouter[now.RouterID] = map[string]struct{}{}
		}
		p.byRouter[now.RouterID][now.ID] = struct{}{}
	}
}

func (p *projection) complete(c *feed.Copy, _ string, o *message.Object) {
	r := o.GetRouter()
	if r == nil {
		return
	}
	for id := range p.byRouter[r.Id] {
		if h := feed.Get[Proxy](c, "ndp_proxy", id); h != nil {
			r.NdpProxies = append(r.NdpProxies, &message.NDPProxy{Id: h.ID, IpAddress: h.IPAddress.String()})
		}
	}
	sort.Slice(r.NdpProxies, func(i, j int) bool { return r.NdpProxies[i].Id < r.NdpProxies[j].Id })
}

// Keys implements feed.Projection; there are no objects of its own.
func (*projection) Keys(*feed.Copy, string, func(feed.Key)) {}

// Render implements feed.Projection.
func (*projection) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }

// Delta implements feed.Projection.
func (*projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
