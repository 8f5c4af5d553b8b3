package metering

import (
	"sort"
	"strings"

	message "isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// place is a router on a host, as one of its interfaces says.
type place struct{ router, host string }

// projection adds labels to routers: those of a router's project, and shared ones.
type projection struct {
	// labels: project → label → present. Shared ones are under "".
	labels map[string]map[string]struct{}
	// places: project → interface of a router → where it is.
	places map[string]map[string]place
}

func (s *service) project(h *feed.Hub) {
	p := &projection{labels: map[string]map[string]struct{}{}, places: map[string]map[string]place{}}
	feed.Keep(h, "metering_label", func(tx *store.Tx) ([]*Label, error) { return s.labels.Table.Select(tx, "") }, func(l *Label) string { return l.ID })
	h.Project(p)
	h.Complete(message.Kind_KIND_ROUTER, p.complete)
}

func under(l *Label) string {
	if l.Shared {
		return ""
	}
	return l.ProjectID
}

func (p *projection) Apply(_ *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "metering_label":
		if old, _ := ch.Old.(*Label); old != nil {
			delete(p.labels[under(old)], old.ID)
			if len(p.labels[under(old)]) == 0 {
				delete(p.labels, under(old))
			}
			p.mark(old, mark)
		}
		if now, _ := ch.New.(*Label); now != nil {
			if p.labels[under(now)] == nil {
				p.labels[under(now)] = map[string]struct{}{}
			}
			p.labels[under(now)][now.ID] = struct{}{}
			p.mark(now, mark)
		}
	case "port":
		if old, _ := ch.Old.(*port.Port); old != nil {
			delete(p.places[old.ProjectID], old.ID)
			if len(p.places[old.ProjectID]) == 0 {
				delete(p.places, old.ProjectID)
			}
		}
		if now, _ := ch.New.(*port.Port); now != nil && ofRouter(now) {
			if p.places[now.ProjectID] == nil {
				p.places[now.ProjectID] = map[string]place{}
			}
			p.places[now.ProjectID][now.ID] = place{now.DeviceID, now.HostID}
		}
	}
}

// ofRouter tells whether a port is a router's interface; those belong to the
// router's project, and are where it is. A router without any carries nothing.
func ofRouter(o *port.Port) bool {
	return o.HostID != "" && (strings.HasPrefix(o.DeviceOwner, port.OwnerRouterInterface) || o.DeviceOwner == "network:ha_router_replicated_interface")
}

func (p *projection) mark(l *Label, mark feed.Marker) {
	one := func(places map[string]place) {
		for _, at := range places {
			mark.Object(at.host, feed.Key{Kind: message.Kind_KIND_ROUTER, ID: at.router})
		}
	}
	if !l.Shared {
		one(p.places[l.ProjectID])
		return
	}
	for _, places := range p.places {
		one(places)
	}
}

// complete adds the labels of a router.
func (p *projection) complete(c *feed.Copy, _ string, o *message.Object) {
	r := o.GetRouter()
	if len(r.GetInterfaces()) == 0 {
		return
	}
	for _, of := range []string{r.ProjectId, ""} {
		for id := range p.labels[of] {
			l := feed.Get[Label](c, "metering_label", id)
			if l == nil || len(l.Rules) == 0 {
				continue
			}
			m := &message.MeteringLabel{Id: l.ID, ProjectId: l.ProjectID, Shared: l.Shared}
			for _, rule := range l.Rules {
				m.Rules = append(m.Rules, &message.MeteringRule{
					Id: rule.ID, Direction: rule.Direction, Excluded: rule.Excluded, RemoteIpPrefix: text(rule.RemotePrefix),
					SourceIpPrefix: text(rule.SourcePrefix), DestinationIpPrefix: text(rule.DestinationPrefix),
				})
			}
			r.MeteringLabels = append(r.MeteringLabels, m)
		}
		if r.ProjectId == "" {
			break
		}
	}
	sort.Slice(r.MeteringLabels, func(i, j int) bool { return r.MeteringLabels[i].Id < r.MeteringLabels[j].Id })
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Keys implements feed.Projection; there are no objects of its own.
func (*projection) Keys(*feed.Copy, string, func(feed.Key)) {}

// Render implements feed.Projection.
func (*projection) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }

// Delta implements feed.Projection.
func (*projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
