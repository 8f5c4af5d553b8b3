package feed

import (
	"context"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/store"
)

// Key names one object of a host's view.
type Key struct {
	Kind feed.Kind
	ID   string
}

// Projection turns committed objects into objects of hosts' views. The hub
// calls it under its lock: no method may block.
type Projection interface {
	// Apply takes one change, after the copy has it, and marks what hosts must be told.
	Apply(c *Copy, ch Change, mark Marker)
	// Keys names every object that a host needs of this projection.
	Keys(c *Copy, host string, each func(Key))
	// Render returns one object for a host; nil: it does not need it (any
	// more), or the key is not of this projection. Version is set for sets only.
	Render(c *Copy, host string, key Key) *feed.Object
	// Delta adds the present state of some elements of a set to a message, and
	// returns the version of the whole set. Only for kinds that are marked by element.
	Delta(c *Copy, host string, key Key, elements map[string]struct{}, m *feed.ServerMessage) uint64
}

// Versioned is a Projection with sets, whose versions it knows without
// rendering them: comparing a large set with what a host has costs nothing.
type Versioned interface {
	// Version of a host's set; 0: it is no set, not of this projection, or not needed there.
	Version(c *Copy, host string, key Key) uint64
}

// Uniform is a Projection with sets that are the same on all hosts that hold
// them: what changes in one is worked out and encoded once for all hosts.
type Uniform interface {
	// Uniform tells whether the sets of a kind are: then Delta says for every
	// host that holds the set the same.
	Uniform(kind feed.Kind) bool
}

// Marker notes what hosts must be told; marking twice is once.
type Marker interface {
	// Object: the host's object of that key may have changed, come or gone.
	Object(host string, key Key)
	// Element: one element of the host's set may have changed, come or gone.
	Element(host string, key Key, element string)
	// Administration: the administrative state of the host's functions may have changed.
	Administration(host string)
}

// Options of New.
type Options struct {
	Store  *store.Store // required
	Logger *slog.Logger // required
}

// Hub follows the store and feeds the hosts that are attached.
type Hub struct {
	store *store.Store
	log   *slog.Logger

	mu          sync.RWMutex
	copy        *Copy
	projections []Projection
	sequence    int64
	last        position
	rounds      *rounds
	hosts       map[string]*view
	touched     []*view // since the lock was taken
	shared      shared
	uniform     map[feed.Kind]Projection // those with Uniform sets of a kind
	admin       func(c *Copy, host string) map[string]bool
	// agents are those of a host.
	agents func(c *Copy, host string) []*agent.Agent
	// reached wakes those who wait for a sequence number.
	reached chan struct{}
	applied map[feed.Kind]AppliedFunc
	// observers are told of all events after they are applied.
	observers []func([]store.Event)
	skippers  []func(sequence int64)
	// complete by kind, after Render.
	complete map[feed.Kind][]Completion
	// beside run as long as Run does.
	beside []func(ctx context.Context)
	// together takes the reports on a kind of which there are many.
	together map[feed.Kind]portReports
	reports  *turns[hostReport]
	// attachments are the numbers of hosts' present attachments.
	attachments func(tx *store.Tx, hosts ...string) (map[string]int64, error)
}

// Completion adds what one family knows to an object that another renders.
// Like a Projection's methods it must not block.
type Completion func(c *Copy, host string, o *feed.Object)

// New returns a hub that keeps nothing yet.
func New(o Options) *Hub {
	h := &Hub{
		store: o.Store, log: o.Logger, copy: &Copy{kinds: map[string]*kind{}, texts: texts{}}, hosts: map[string]*view{}, reached: make(chan struct{}), rounds: newRounds(),
		applied: map[feed.Kind]AppliedFunc{}, together: map[feed.Kind]portReports{}, complete: map[feed.Kind][]Completion{}, uniform: map[feed.Kind]Projection{},
	}
	h.reports = &turns[hostReport]{most: comparedAtOnce, size: func(r hostReport) int { return len(r.applied) }, do: h.storeReports}
	return h
}

// Project adds a projection. All of them are added before Start.
func (h *Hub) Project(p Projection) {
	h.projections = append(h.projections, p)
	u, ok := p.(Uniform)
	for kind := range feed.Kind_name {
		if kind := feed.Kind(kind); ok && u.Uniform(kind) {
			h.uniform[kind] = p
		}
	}
}

// Complete adds a completion of a kind of object. All of them are added before Start.
func (h *Hub) Complete(kind feed.Kind, f Completion) {
	h.complete[kind] = append(h.complete[kind], f)
}

// Observe calls f with all events from Start on, in commit order, after they
// were applied. f must not block nor change what it gets. All observers are added before Run.
func (h *Hub) Observe(f func(events []store.Event)) { h.observers = append(h.observers, f) }

// OnSkip calls f when changes were missed that cannot be known any more: the
// next that observers get follow that sequence number. f must not block. Set before Run.
func (h *Hub) OnSkip(f func(sequence int64)) { h.skippers = append(h.skippers, f) }

// view is what the hub knows of one attached host. Changes are marked in it
// under the hub's lock; what is due is taken by the stream's goroutine alone,
// under the lock for reading: no host waits for another, and one that reads
// slowly finds all that it has missed in one message.
type view struct {
	host  string
	sent  map[Key]uint64
	dirty map[Key]dirt
	admin bool
	// syncing until the host has been told all that it lacked when it came.
	syncing bool
	touched bool // it is among the hub's
	wake    chan struct{}
}

// dirt is what has changed of an object: all of it, or elements of a set. Of
// few elements there is a list in the order of the marks, which is the same in
// all views that were told of the same changes, and often the same memory.
type dirt struct {
	whole bool
	few   []string
	many  map[string]struct{}
}

// Elements of a set that are noted one by one for a host that does not take
// them: in a list, and in a map; beyond, it gets the whole set.
const (
	fewElements = 8
	maxElements = 4096
)

// marker implements Marker for the hosts that are attached; others get
// everything when they come.
type marker struct {
	h *Hub
	// last is a list of the element that was marked last: it is marked for many hosts.
	last []string
}

func (m *marker) Object(host string, key Key) {
	if v := m.h.hosts[host]; v != nil {
		m.touch(v)
		v.dirty[key] = dirt{whole: true}
	}
}

func (m *marker) Element(host string, key Key, element string) {
	v := m.h.hosts[host]
	if v == nil {
		return
	}
	m.touch(v)
	d := v.dirty[key]
	switch {
	case d.whole:
		return
	case d.few == nil && d.many == nil:
		if m.last == nil || m.last[0] != element {
			m.last = []string{element}
		}
		d.few = m.last
	default:
		d.element(element)
	}
	v.dirty[key] = d
}

// element adds one to others.
func (d *dirt) element(element string) {
	switch {
	case slices.Contains(d.few, element):
	case len(d.many) == maxElements:
		*d = dirt{whole: true}
	case d.many != nil:
		d.many[element] = struct{}{}
	case len(d.few) == fewElements:
		d.many = d.elements()
		d.few, d.many[element] = nil, struct{}{}
	default: // never in place: the list may be others' too
		d.few = append(d.few[:len(d.few):len(d.few)], element)
	}
}

func (d *dirt) elements() map[string]struct{} {
	if d.many != nil {
		return d.many
	}
	all := make(map[string]struct{}, len(d.few)+1)
	for _, element := range d.few {
		all[element] = struct{}{}
	}
	return all
}

func (m *marker) Administration(host string) {
	if v := m.h.hosts[host]; v != nil {
		m.touch(v)
		v.admin = true
	}
}

func (m *marker) touch(v *view) {
	if !v.touched {
		v.touched = true
		m.h.touched = append(m.h.touched, v)
	}
}

// Start reads everything that is kept, in one snapshot.
func (h *Hub) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if h.sequence, h.last, err = newest(tx); err != nil {
			return err
		}
		m := &marker{h: h}
		for _, name := range h.copy.order {
			k := h.copy.kinds[name]
			err := k.load(tx, func(id string, o any) {
				h.copy.share(o)
				k.objects[id] = o
				for _, p := range h.projections {
					p.Apply(h.copy, Change{Kind: name, ID: id, New: o}, m)
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Run follows the store until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	var beside sync.WaitGroup
	defer beside.Wait()
	for _, run := range h.beside {
		beside.Go(func() { run(ctx) })
	}
	signal, end := h.store.Follow()
	defer end()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		round := h.rounds.begin()
		err := h.catchUp(ctx)
		h.rounds.end(round, err)
		if err != nil && ctx.Err() == nil {
			h.log.Error("feed: cannot read events", "error", err)
			pause.Reset(time.Second)
			select {
			case <-pause.C:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-signal:
		case <-h.rounds.wanted:
		case <-ctx.Done():
			return
		}
	}
}

// batch bounds how many events are applied under one lock.
const batch = 512

func (h *Hub) apply(events []store.Event) {
	objects := make([]any, len(events))
	for i, e := range events {
		var err error
		if objects[i], err = h.copy.decode(e); err != nil {
			// One object that cannot be read keeps no other from its hosts.
			h.log.Error("feed: event is skipped", "error", err)
		}
	}
	h.change(func(m Marker) {
		for i, e := range events {
			if ch, ok := h.copy.apply(e, objects[i]); ok {
				for _, p := range h.projections {
					p.Apply(h.copy, ch, m)
				}
			}
			h.sequence, h.last = e.Sequence, positionOf(e)
		}
	})
}

// change does something to the copy under the lock, and tells those who wait
// for changes: streams after it, so that they do not wake to wait for the lock.
func (h *Hub) change(do func(m Marker)) {
	h.mu.Lock()
	do(&marker{h: h})
	h.shared.forget()
	touched := h.touched
	h.touched = nil
	for _, v := range touched {
		v.touched = false
	}
	close(h.reached)
	h.reached = make(chan struct{})
	h.mu.Unlock()
	for _, v := range touched {
		v.rouse()
	}
}

// rouse makes the view's stream look for what is due.
func (v *view) rouse() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// Sequence is the sequence number of the last event that the hub has applied.
func (h *Hub) Sequence() int64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.sequence
}

// Reached waits until the hub has applied the event of that sequence number.
func (h *Hub) Reached(ctx context.Context, sequence int64) error {
	for {
		h.mu.RLock()
		done, more := h.sequence >= sequence, h.reached
		h.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Attached returns the hosts that have a stream now.
func (h *Hub) Attached() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var hosts []string
	for name := range h.hosts {
		hosts = append(hosts, name)
	}
	return hosts
}

// attach begins a host's view: what it has is compared with what it needs, and
// what differs is due. A former stream of the same host is superseded.
func (h *Hub) attach(host string, have []*feed.Held) *view {
	v := &view{
		host: host, sent: make(map[Key]uint64, len(have)), dirty: map[Key]dirt{}, wake: make(chan struct{}, 1),
		admin: true, syncing: true,
	}
	for _, o := range have {
		v.sent[Key{o.Kind, o.Id}] = o.Version
	}
	h.mu.Lock()
	if former := h.hosts[host]; former != nil {
		former.rouse() // to see that it is superseded
	}
	h.hosts[host] = v
	h.mu.Unlock()
	// From here on changes are marked: comparing does not keep other hosts waiting.
	h.mu.RLock()
	defer h.mu.RUnlock()
	same := make(map[Key]struct{}, len(have))
	for _, p := range h.projections {
		p.Keys(h.copy, host, func(key Key) {
			if _, done := same[key]; done {
				return
			}
			if version, held := v.sent[key]; held && h.version(p, host, key) == version {
				same[key] = struct{}{}
				return
			}
			v.dirty[key] = dirt{whole: true}
		})
	}
	for key := range v.sent {
		if _, ok := same[key]; !ok {
			v.dirty[key] = dirt{whole: true} // another version, or not needed any more
		}
	}
	return v
}

// version of a host's object; 0: it does not need it.
func (h *Hub) version(p Projection, host string, key Key) uint64 {
	if sets, ok := p.(Versioned); ok {
		if version := sets.Version(h.copy, host, key); version != 0 {
			return version
		}
	}
	if o := h.render(host, key); o != nil {
		return o.Version
	}
	return 0
}

func (h *Hub) detach(v *view) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hosts[v.host] == v {
		delete(h.hosts, v.host)
	}
}

func (h *Hub) adminOf(host string) map[string]bool {
	if h.admin == nil {
		return nil
	}
	return h.admin(h.copy, host)
}

// render returns a host's object with its version, nil when it needs none.
func (h *Hub) render(host string, key Key) *feed.Object {
	for _, p := range h.projections {
		if o := p.Render(h.copy, host, key); o != nil {
			for _, complete := range h.complete[key.Kind] {
				complete(h.copy, host, o)
			}
			if o.Version == 0 {
				o.Version = Hash(o)
			}
			return o
		}
	}
	return nil
}

// next takes what a view's host must be told now; nil: nothing. Until the host
// is synced it gets messages of about limit bytes, 0 for one message, and then
// each time all that is due: what belongs together comes together.
func (h *Hub) next(v *view, limit int) (*told, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.hosts[v.host] != v {
		return nil, ErrSuperseded
	}
	if t := h.sharedDelta(v); t != nil {
		return t, nil
	}
	m := &feed.ServerMessage{Sequence: h.sequence}
	size := 0
	for key, d := range v.dirty {
		if v.syncing && limit > 0 && size >= limit {
			break
		}
		delete(v.dirty, key)
		version, sent := v.sent[key]
		if d.whole || !sent {
			o := h.render(v.host, key)
			switch {
			case o == nil && sent:
				delete(v.sent, key)
				m.Deletes = append(m.Deletes, &feed.ObjectKey{Kind: key.Kind, Id: key.ID})
			case o != nil && (!sent || o.Version != version):
				v.sent[key] = o.Version
				m.Upserts = append(m.Upserts, o)
				if v.syncing {
					size += proto.Size(o)
				}
			}
			continue
		}
		for _, p := range h.projections {
			if version := p.Delta(h.copy, v.host, key, d.elements(), m); version != 0 {
				v.sent[key] = version
				break
			}
		}
	}
	if v.admin {
		v.admin = false
		m.AdminStateUp = h.adminOf(v.host)
	}
	if v.syncing && len(v.dirty) == 0 {
		v.syncing, m.Synced = false, true
	}
	if !m.Synced && len(m.Upserts)+len(m.Deletes)+len(m.ForwardingDeltas)+len(m.AddressSetDeltas)+len(m.AdminStateUp) == 0 {
		return nil, nil
	}
	return &told{ServerMessage: m}, nil
}

// Hash is a version: equal content has an equal one, on every server and after every restart. Never 0.
func Hash(m proto.Message) uint64 {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // only messages with required fields or invalid UTF-8 fail
		return 1
	}
	return HashBytes(b)
}

// HashBytes is FNV-1a, never 0.
func HashBytes(b []byte) uint64 {
	f := fnv.New64a()
	f.Write(b)
	if v := f.Sum64(); v != 0 {
		return v
	}
	return 1
}

// Snapshot computes a host's whole view from the copy, by key: what an
// attached host must have come to hold. For tests and comparison.
func (h *Hub) Snapshot(host string) map[Key]*feed.Object {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := map[Key]*feed.Object{}
	for _, p := range h.projections {
		p.Keys(h.copy, host, func(key Key) {
			if o := h.render(host, key); o != nil {
				all[key] = o
			}
		})
	}
	return maps.Clone(all)
}
