package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/identity"
	"isospin/internal/store"
)

// hello is what a host says of its functions. fresh is its Hello, nil when
// only their configuration has changed since. attachment is the number that a
// fresh one gets, or over which the other came.
type hello struct {
	host       string
	functions  []*feed.Function
	fresh      *feed.Hello
	attachment int64
}

// weight is how much a hello costs: there is more to do for functions that are not known.
func (h *hello) weight() int {
	if len(h.functions) > 0 {
		return 8
	}
	return 1
}

// Hosts that are registered in one transaction, times the weight.
const hellosAtOnce = 200

// registered tells whether the agents of a host are known, with what it says of
// them and of its start: then it is enough to note that they live.
func (h *Hub) registered(m *feed.Hello) bool {
	if m.Started == 0 {
		return false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.agents == nil {
		return false
	}
	have := h.agents(h.copy, m.Host)
	for _, f := range m.Functions {
		said := agentOf(m.Host, f)
		if !slices.ContainsFunc(have, func(a *agent.Agent) bool {
			return a.AgentType == said.AgentType && a.Binary == said.Binary && a.Topic == said.Topic && a.StartedAt == startedAt(m) &&
				(said.AvailabilityZone == nil || a.AvailabilityZone != nil && *a.AvailabilityZone == *said.AvailabilityZone) && equalJSON(a.Configurations, said.Configurations)
		}) {
			return false
		}
	}
	return true
}

func equalJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// startedAt is when the host's agent says that it was started, as agents show
// it; empty: it does not say.
func startedAt(m *feed.Hello) string {
	if m == nil || m.Started <= 0 {
		return ""
	}
	return time.Unix(m.Started, 0).UTC().Format(agent.TimeFormat)
}

func agentOf(host string, f *feed.Function) *agent.Agent {
	configurations := json.RawMessage(f.Configurations)
	if !json.Valid(configurations) {
		configurations = json.RawMessage("{}")
	}
	a := &agent.Agent{Host: host, AgentType: f.AgentType, Binary: f.Binary, Topic: f.Topic, Configurations: configurations}
	if f.AvailabilityZone != "" {
		a.AvailabilityZone = &f.AvailabilityZone
	}
	return a
}

// attach stores that a host has attached, with what it says of its functions
// unless that is known, and returns the number of the attachment.
func (s *Server) attach(ctx context.Context, m *feed.Hello) (int64, error) {
	h := &hello{host: m.Host, functions: m.Functions, fresh: m}
	if s.hub.registered(m) {
		h.functions = nil
	}
	err := s.hellos.ask(ctx, h)
	return h.attachment, err
}

// reconfigure stores what a host says of its functions later; agent.ErrDetached.
func (s *Server) reconfigure(ctx context.Context, from attached, functions []*feed.Function) error {
	return s.hellos.ask(ctx, &hello{host: from.host, functions: functions, attachment: from.attachment})
}

func (s *Server) registerAll(ctx context.Context, list []*hello) []error {
	return alone(list, func(list []*hello) error {
		return s.store.Tx(ctx, func(tx *store.Tx) error {
			var fresh, others []string
			for _, h := range list {
				switch {
				case h.fresh == nil:
					others = append(others, h.host)
				case !slices.Contains(fresh, h.host):
					fresh = append(fresh, h.host)
				}
			}
			// First: whoever attaches in this moment has no say any more over what it was before.
			given, err := s.agents.Attach(tx, fresh...)
			if err != nil {
				return err
			}
			present, err := s.agents.Attachments(tx, others...)
			if err != nil {
				return err
			}
			for _, h := range list {
				if h.fresh != nil {
					h.attachment = given[h.host]
				} else if present[h.host] != h.attachment {
					return agent.ErrDetached
				}
				for _, f := range h.functions {
					a := agentOf(h.host, f)
					a.StartedAt = startedAt(h.fresh)
					if _, err := s.agents.Report(ctx, tx, a, h.fresh != nil); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// beats are hosts that were heard of and whose heartbeats are not yet stored.
type beats struct {
	mu    sync.Mutex
	hosts map[string]int64 // with the number of the attachment
	some  chan struct{}    // cap 1
}

func newBeats() *beats { return &beats{hosts: map[string]int64{}, some: make(chan struct{}, 1)} }

func (b *beats) add(hosts map[string]int64) {
	b.mu.Lock()
	for host, attachment := range hosts {
		b.hosts[host] = max(b.hosts[host], attachment)
	}
	b.mu.Unlock()
	select {
	case b.some <- struct{}{}:
	default:
	}
}

// take returns up to n hosts, and whether there are more.
func (b *beats) take(n int) (hosts map[string]int64, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hosts = map[string]int64{}
	for host, attachment := range b.hosts {
		if len(hosts) == n {
			more = true
			break
		}
		hosts[host] = attachment
		delete(b.hosts, host)
	}
	return hosts, more
}

// Heartbeats are stored together, a moment after the first of them: an agent is
// alive for agent_down_time after its last, so a second more or less is nothing.
const (
	beatDelay   = time.Second
	beatsAtOnce = 250
)

// keepBeats stores heartbeats until ctx ends.
func (s *Server) keepBeats(ctx context.Context) {
	ctx = identity.System(ctx)
	for {
		select {
		case <-s.beats.some:
		case <-ctx.Done():
			return
		}
		// The first after a silence is stored at once: at the start of a server, say.
		for more := true; more && ctx.Err() == nil; {
			var hosts map[string]int64
			hosts, more = s.beats.take(beatsAtOnce)
			err := s.storeBeats(ctx, hosts)
			if err != nil && ctx.Err() == nil {
				s.log.Error("heartbeats cannot be stored", "hosts", len(hosts), "error", err)
				s.beats.add(hosts)
				more = false
			}
		}
		select {
		case <-time.After(beatDelay):
		case <-ctx.Done():
			return
		}
	}
}

// storeBeats stores heartbeats, but for those of hosts that have attached anew since.
func (s *Server) storeBeats(ctx context.Context, hosts map[string]int64) error {
	names := slices.Sorted(maps.Keys(hosts))
	return s.store.Tx(ctx, func(tx *store.Tx) error {
		present, err := s.agents.Attachments(tx, names...)
		if err != nil {
			return err
		}
		return s.agents.Beat(ctx, tx, slices.DeleteFunc(slices.Clone(names), func(host string) bool { return present[host] != hosts[host] })...)
	})
}
