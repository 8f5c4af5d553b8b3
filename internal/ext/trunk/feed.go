package trunk

import (
	"context"
	"errors"

	message "isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection tells hosts the trunks whose parents are bound to them.
type projection struct {
	// byParent: port → its trunk.
	byParent map[string]string
	// at: trunk → host. byHost is the other way round.
	at     map[string]string
	byHost map[string]map[string]struct{}
}

func (s *service) project(h *feed.Hub) {
	feed.Keep(h, "trunk", func(tx *store.Tx) ([]*Trunk, error) { return s.trunks.Table.Select(tx, "") }, func(t *Trunk) string { return t.ID })
	h.Project(&projection{byParent: map[string]string{}, at: map[string]string{}, byHost: map[string]map[string]struct{}{}})
	h.OnApplied(message.Kind_KIND_TRUNK, s.report)
}

func key(id string) feed.Key { return feed.Key{Kind: message.Kind_KIND_TRUNK, ID: id} }

func (p *projection) Apply(c *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "trunk":
		if old, _ := ch.Old.(*Trunk); old != nil {
			delete(p.byParent, old.PortID)
		}
		if now, _ := ch.New.(*Trunk); now != nil {
			p.byParent[now.PortID] = now.ID
		}
		p.place(c, ch.ID, mark)
		if host := p.at[ch.ID]; host != "" {
			mark.Object(host, key(ch.ID))
		}
	case "port":
		if id, ok := p.byParent[ch.ID]; ok {
			p.place(c, id, mark)
		}
	}
}

// place notes where a trunk is now.
func (p *projection) place(c *feed.Copy, id string, mark feed.Marker) {
	before, now := p.at[id], ""
	if t := feed.Get[Trunk](c, "trunk", id); t != nil {
		if parent := feed.Get[port.Port](c, "port", t.PortID); parent != nil {
			now = hostOf(parent)
		}
	}
	if before == now {
		return
	}
	if before != "" {
		delete(p.byHost[before], id)
		if len(p.byHost[before]) == 0 {
			delete(p.byHost, before)
		}
		delete(p.at, id)
		mark.Object(before, key(id))
	}
	if now != "" {
		if p.byHost[now] == nil {
			p.byHost[now] = map[string]struct{}{}
		}
		p.byHost[now][id] = struct{}{}
		p.at[id] = now
		mark.Object(now, key(id))
	}
}

// Keys implements feed.Projection.
func (p *projection) Keys(_ *feed.Copy, host string, each func(feed.Key)) {
	for id := range p.byHost[host] {
		each(key(id))
	}
}

// Render implements feed.Projection.
func (p *projection) Render(c *feed.Copy, host string, k feed.Key) *message.Object {
	if k.Kind != message.Kind_KIND_TRUNK || p.at[k.ID] != host {
		return nil
	}
	t := feed.Get[Trunk](c, "trunk", k.ID)
	if t == nil {
		return nil
	}
	m := &message.Trunk{Id: t.ID, PortId: t.PortID, AdminStateUp: t.AdminStateUp, Revision: t.Generation}
	for _, s := range t.SubPorts {
		m.SubPorts = append(m.SubPorts, &message.SubPort{PortId: s.PortID, SegmentationType: s.SegmentationType, SegmentationId: int32(s.SegmentationID)})
	}
	return &message.Object{Body: &message.Object_Trunk{Trunk: m}}
}

// Delta implements feed.Projection; trunks are no sets.
func (p *projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}

// report notes what a host did with a trunk. A report of another host, about
// another generation than the present one, or about a deleted trunk is ignored.
func (s *service) report(ctx context.Context, tx *store.Tx, host string, a *message.Applied) error {
	t, err := s.trunks.Table.Get(tx, a.Id)
	if errors.Is(err, store.ErrNoRow) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := s.core.Ports.Load(tx, t.PortID)
	if err != nil {
		return err
	}
	if hostOf(parent) != host || a.Revision != t.Generation {
		return nil
	}
	status := t.Status
	switch a.State {
	case message.State_STATE_ACTIVE:
		status = statusActive
		var unbound int
		err := tx.Row(`SELECT COUNT(*) FROM trunk_port s JOIN port p ON p.id = s.port_id
			WHERE s.trunk_id = ? AND s.segmentation_type <> '' AND (p.host_id <> ? OR p.vif_type IN (?, ?))`,
			[]any{t.ID, host, port.VIFUnbound, port.VIFBindingFailed}, &unbound)
		if err != nil {
			return err
		}
		if unbound > 0 {
			status = statusDegraded
		}
	case message.State_STATE_DOWN: // its VIF is not plugged, yet or any more
		if status == statusActive {
			status = statusDown
		}
	case message.State_STATE_ERROR:
		status = statusError
		if len(t.SubPorts) > 0 { // something of it works
			status = statusDegraded
		}
	}
	if status == t.Status {
		return nil
	}
	t.Status = status
	return s.trunks.Save(ctx, tx, t)
}
