package conntrackhelper

import (
	"sort"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection adds helpers to routers. Whatever changes a helper makes a new
// generation of its router, so that it marks nothing.
type projection struct {
	// byRouter: router → helper → present.
	byRouter map[string]map[string]struct{}
}

func (s *service) project(h *feed.Hub) {
	p := &projection{byRouter: map[string]map[string]struct{}{}}
	feed.Keep(h, "conntrack_helper", func(tx *store.Tx) ([]*Helper, error) { return s.Table.Select(tx, "") }, func(o *Helper) string { return o.ID })
	h.Project(p)
	h.Complete(message.Kind_KIND_ROUTER, p.complete)
}

func (p *projection) Apply(_ *feed.Copy, ch feed.Change, _ feed.Marker) {
	if ch.Kind != "conntrack_helper" {
		return
	}
	if old, _ := ch.Old.(*Helper); old != nil {
		delete(p.byRouter[old.RouterID], old.ID)
		if len(p.byRouter[old.RouterID]) == 0 {
			delete(p.byRouter, old.RouterID)
		}
	}
	if now, _ := ch.New.(*Helper); now != nil {
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
		if h := feed.Get[Helper](c, "conntrack_helper", id); h != nil {
			r.ConntrackHelpers = append(r.ConntrackHelpers, &message.ConntrackHelper{Id: h.ID, Protocol: h.Protocol, Port: int32(h.Port), Helper: h.Helper})
		}
	}
	sort.Slice(r.ConntrackHelpers, func(i, j int) bool { return r.ConntrackHelpers[i].Id < r.ConntrackHelpers[j].Id })
}

// Keys implements feed.Projection; there are no objects of its own.
func (*projection) Keys(*feed.Copy, string, func(feed.Key)) {}

// Render implements feed.Projection.
func (*projection) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }

// Delta implements feed.Projection.
func (*projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
