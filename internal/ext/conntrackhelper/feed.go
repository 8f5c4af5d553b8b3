package conntrackhelper

import (
	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// project adds helpers to routers.
func (s *service) project(h *feed.Hub) {
	helpers := feed.KeepParts(h, "conntrack_helper", func(tx *store.Tx) ([]*Helper, error) { return s.Table.Select(tx, "") },
		func(o *Helper) string { return o.ID }, func(o *Helper) string { return o.RouterID })
	h.Complete(message.Kind_KIND_ROUTER, func(c *feed.Copy, _ string, o *message.Object) {
		r := o.GetRouter()
		for _, h := range helpers.Of(c, r.GetId()) {
			r.ConntrackHelpers = append(r.ConntrackHelpers, &message.ConntrackHelper{Id: h.ID, Protocol: h.Protocol, Port: int32(h.Port), Helper: h.Helper})
		}
	})
}
