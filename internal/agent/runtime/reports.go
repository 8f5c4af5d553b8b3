package runtime

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
)

// reports remembers what was last told of each object by each agent type, so
// that only news travels, and all of it on a new stream.
type reports struct {
	mu       sync.Mutex
	last     map[objectKey]map[string]*feed.Applied // by agent type
	attached bool
	queue    []*feed.Applied
	wake     chan struct{} // cap 1
}

func newReports() *reports {
	return &reports{last: map[objectKey]map[string]*feed.Applied{}, wake: make(chan struct{}, 1)}
}

// record takes the results of an Apply.
func (r *reports) record(applied []*feed.Applied) {
	if len(applied) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range applied {
		key := objectKey{a.Kind, a.Id}
		if proto.Equal(r.last[key][a.AgentType], a) {
			continue
		}
		if r.last[key] == nil {
			r.last[key] = map[string]*feed.Applied{}
		}
		r.last[key][a.AgentType] = a
		if r.attached {
			r.queue = append(r.queue, a)
		}
	}
	if len(r.queue) > 0 {
		signal(r.wake)
	}
}

// forget makes the next result of each changed object be sent in any case: the
// server asked something of it.
func (r *reports) forget(changes *Changes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes.each(func(key objectKey) { delete(r.last, key) })
}

// attach returns all that is known; later results queue for take.
func (r *reports) attach() []*feed.Applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached, r.queue = true, nil
	var all []*feed.Applied
	for _, byType := range r.last {
		for _, a := range byType {
			all = append(all, a)
		}
	}
	return all
}

// detach is called when a stream has ended.
func (r *reports) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached, r.queue = false, nil
}

// take returns what is to be sent.
func (r *reports) take() []*feed.Applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.queue
	r.queue = nil
	return queue
}

// prune forgets results of objects that are neither in the State nor named by
// an object in it: what a feature told of an object just after it went.
func (r *reports) prune(state *State) {
	if state == nil {
		return
	}
	dhcpPorts := map[string]struct{}{}
	for _, network := range state.Networks {
		if port := network.GetDhcpPort(); port != nil {
			dhcpPorts[port.Id] = struct{}{}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.last {
		if _, ok := dhcpPorts[key.id]; !ok && !state.has(key) {
			delete(r.last, key)
		}
	}
}

// has tells whether the object is in the State.
func (s *State) has(key objectKey) bool {
	var ok bool
	switch key.kind {
	case feed.Kind_KIND_PORT:
		_, ok = s.Ports[key.id]
	case feed.Kind_KIND_NETWORK:
		_, ok = s.Networks[key.id]
	case feed.Kind_KIND_SECURITY_GROUP:
		_, ok = s.SecurityGroups[key.id]
	case feed.Kind_KIND_ROUTER:
		_, ok = s.Routers[key.id]
	case feed.Kind_KIND_QOS_POLICY:
		_, ok = s.QoSPolicies[key.id]
	case feed.Kind_KIND_TRUNK:
		_, ok = s.Trunks[key.id]
	case feed.Kind_KIND_LOG:
		_, ok = s.Logs[key.id]
	case feed.Kind_KIND_FORWARDING:
		_, ok = s.Forwarding[key.id]
	case feed.Kind_KIND_ADDRESS_SET:
		_, ok = s.AddressSets[key.id]
	}
	return ok
}
