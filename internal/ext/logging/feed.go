package logging

import (
	"maps"
	"slices"

	message "isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection tells hosts the enabled logs that concern ports of theirs. What a
// change of a port costs follows the logs that name it, its groups or its
// project; what a change of a log costs follows the ports that it concerns.
type projection struct {
	// logs: enabled ones by what they name.
	logs map[scope]map[string]*Log
	// ports: filtered ones that are bound, by what logs can name.
	ports map[scope]map[string]*port.Port
	// at: log → host → concerned ports of the host.
	at map[string]map[string]map[string]struct{}
	// byHost: host → logs that concern it.
	byHost map[string]map[string]struct{}
}

// scope is what a log names: a port, else a group, else a project.
type scope struct{ kind, id string }

func (s *service) project(h *feed.Hub) {
	feed.Keep(h, "log", func(tx *store.Tx) ([]*Log, error) { return s.logs.Table.Select(tx, "") }, func(l *Log) string { return l.ID })
	h.Project(&projection{
		logs: map[scope]map[string]*Log{}, ports: map[scope]map[string]*port.Port{},
		at: map[string]map[string]map[string]struct{}{}, byHost: map[string]map[string]struct{}{},
	})
}

func key(id string) feed.Key { return feed.Key{Kind: message.Kind_KIND_LOG, ID: id} }

// scopeOf is where the ports of a log are found.
func scopeOf(l *Log) scope {
	switch {
	case l.TargetID != nil:
		return scope{"port", *l.TargetID}
	case l.ResourceID != nil:
		return scope{"group", *l.ResourceID}
	}
	return scope{"project", l.ProjectID}
}

// scopesOf are the scopes that a port is in; none unless its packets go through
// security groups on some host.
func scopesOf(p *port.Port) []scope {
	if p == nil || !p.Bound() || !p.PortSecurityEnabled || p.Service() {
		return nil
	}
	list := []scope{{"port", p.ID}, {"project", p.ProjectID}}
	for _, g := range p.SecurityGroups {
		list = append(list, scope{"group", g})
	}
	return list
}

// concerns tells whether a log of one of the port's scopes is about it.
func concerns(l *Log, p *port.Port) bool {
	return loggable(p) && (l.ResourceID == nil || slices.Contains(p.SecurityGroups, *l.ResourceID))
}

func put2[A, B comparable, V any](m map[A]map[B]V, a A, b B, v V) {
	if m[a] == nil {
		m[a] = map[B]V{}
	}
	m[a][b] = v
}

func delete2[A, B comparable, V any](m map[A]map[B]V, a A, b B) {
	if delete(m[a], b); len(m[a]) == 0 {
		delete(m, a)
	}
}

// Apply implements feed.Projection.
func (p *projection) Apply(_ *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "log":
		if old, _ := ch.Old.(*Log); old != nil {
			delete2(p.logs, scopeOf(old), old.ID)
		}
		hosts := map[string]map[string]struct{}{}
		if now, _ := ch.New.(*Log); now != nil && now.Enabled {
			put2(p.logs, scopeOf(now), now.ID, now)
			for id, o := range p.ports[scopeOf(now)] {
				if concerns(now, o) {
					put2(hosts, o.HostID, id, struct{}{})
				}
			}
		}
		before := p.at[ch.ID]
		for host := range before {
			mark.Object(host, key(ch.ID))
			delete2(p.byHost, host, ch.ID)
		}
		delete(p.at, ch.ID)
		for host := range hosts {
			mark.Object(host, key(ch.ID))
			put2(p.byHost, host, ch.ID, struct{}{})
		}
		if len(hosts) > 0 {
			p.at[ch.ID] = hosts
		}
	case "port":
		old, _ := ch.Old.(*port.Port)
		now, _ := ch.New.(*port.Port)
		before, after := p.place(old, -1), p.place(now, 1)
		for id, host := range before {
			if after[id] != host {
				p.leave(id, host, ch.ID)
				mark.Object(host, key(id))
			}
		}
		for id, host := range after {
			if before[id] != host {
				put2(p.byHost, host, id, struct{}{})
				if p.at[id] == nil {
					p.at[id] = map[string]map[string]struct{}{}
				}
				put2(p.at[id], host, ch.ID, struct{}{})
				mark.Object(host, key(id))
			}
		}
	}
}

// place takes a port out of its scopes (-1) or puts it in (1), and returns the
// logs that concern it there, each with the port's host.
func (p *projection) place(o *port.Port, n int) map[string]string {
	var found map[string]string
	for _, s := range scopesOf(o) {
		if n < 0 {
			delete2(p.ports, s, o.ID)
		} else {
			put2(p.ports, s, o.ID, o)
		}
		for id, l := range p.logs[s] {
			if concerns(l, o) {
				if found == nil {
					found = map[string]string{}
				}
				found[id] = o.HostID
			}
		}
	}
	return found
}

// leave notes that a log does not concern a port of a host any more.
func (p *projection) leave(id, host, portID string) {
	delete2(p.at[id], host, portID)
	if len(p.at[id][host]) == 0 {
		delete2(p.byHost, host, id)
	}
	if len(p.at[id]) == 0 {
		delete(p.at, id)
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
	if k.Kind != message.Kind_KIND_LOG {
		return nil
	}
	l, ports := feed.Get[Log](c, "log", k.ID), p.at[k.ID][host]
	if l == nil || len(ports) == 0 {
		return nil
	}
	m := &message.Log{Id: l.ID, ProjectId: l.ProjectID, ResourceType: l.ResourceType, Event: l.Event, Enabled: true, PortIds: slices.Sorted(maps.Keys(ports))}
	if l.ResourceID != nil {
		m.ResourceId = *l.ResourceID
	}
	if l.TargetID != nil {
		m.TargetId = *l.TargetID
	}
	return &message.Object{Body: &message.Object_Log{Log: m}}
}

// Delta implements feed.Projection; logs are no sets.
func (p *projection) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}
