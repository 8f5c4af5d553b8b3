package portforwarding

import (
	"sort"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection adds forwardings to the routers of their floating IPs. Whatever
// changes a forwarding makes a new generation of the router, so that it marks nothing.
type projection struct {
	// byFloating: floating IP → forwarding → present.
	byFloating map[string]map[string]struct{}
}

func (s *service) project(h *feed.Hub) {
	p := &projection{byFloating: map[string]map[string]struct{}{}}
	feed.Keep(h, "port_forwarding", func(tx *store.Tx) ([]*Forwarding, error) { return s.Table.Select(tx, "") }, func(f *Forwarding) string { return f.ID })
	h.Project(p)
	h.Complete(message.Kind_KIND_ROUTER, p.complete)
}

func (p *projection) Apply(_ *feed.Copy, ch feed.Change, _ feed.Marker) {
	if ch.Kind != "port_forwarding" {
		return
	}
	if old, _ := ch.Old.(*Forwarding); old != nil {
		delete(p.byFloating[old.FloatingIPID], old.ID)
		if len(p.byFloating[old.FloatingIPID]) == 0 {
			delete(p.byFloating, old.FloatingIPID)
		}
	}
	if now, _ := ch.New.(*Forwarding); now != nil {
		if p.byFloating[now.FloatingIPID] == nil {
			p.byFloating[now.FloatingIPID] = map[string]struct{}{}
		}
		p.byFloating[now.FloatingIPID][now.ID] = struct{}{}
	}
}

func (p *projection) complete(c *feed.Copy, _ string, o *message.Object) {
	r := o.GetRouter()
	for _, of := range r.GetFloatingIps() {
		for id := range p.byFloating[of.Id] {
			f := feed.Get[Forwarding](c, "port_forwarding", id)
			if f == nil {
				continue
			}
			external, internal := spanOf(f.ExternalPortRange), spanOf(f.InternalPortRange)
			r.PortForwardings = append(r.PortForwardings, &message.PortForwarding{
				Id: f.ID, FloatingIpId: f.FloatingIPID, FloatingIpAddress: of.FloatingIpAddress, Protocol: f.Protocol,
				ExternalPortMin: int32(external.first), ExternalPortMax: int32(external.last),
				InternalIpAddress: f.InternalIPAddress.String(), InternalPortMin: int32(internal.first), InternalPortMax: int32(internal.last),
			})
		}
	}
	sort.Slice(r.PortForwardings, func(i, j int) bool { return r.PortForwardings[i].Id < r.PortForwardings[j].Id })
}

// Keys implements feed.Projection; there are no objects of its own.
func (*projection) Keys(*feed.Copy, string, func(feed.Key)) {}

// Render implements feed.Projection.
func (*projection) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }

// Delta implements feed.Projection.
func (*projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
