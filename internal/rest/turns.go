package rest

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/fault"
)

// Limits bound how much work requests may be at a time, so that one project's
// flood keeps no other project's requests waiting. Beyond them requests wait,
// and the projects take turns; beyond the queue they are refused with 503.
type Limits struct {
	// Requests are carried out at a time, in all and of one project. 0: no limit.
	Requests, ProjectRequests int // optional
	// Lists without a limit, or with one beyond a thousand, are carried out at a
	// time, in all and of one project. They do not count as Requests. 0: no limit.
	Lists, ProjectLists int // optional
	// Queue is how many may wait, for requests and for such lists, in all and of one project.
	Queue, ProjectQueue int // required, unless there is no limit
}

// longPage is the greatest page of a list that is a request as any other.
const longPage = 1000

func errBusy() error {
	return fault.New(fault.Unavailable, "ServiceUnavailable", "The server has more requests waiting than it accepts; try again later.")
}

// turns lets a bounded number of requests through at a time. Those that wait
// go in order within their project, and the projects go round.
type turns struct {
	total, each         int // at a time, in all and of one project
	queue, projectQueue int // that may wait
	mu                  sync.Mutex
	running, waiting    int
	refused             int64
	projects            map[string]*project
	round               []*project // those with waiting requests; the first is next
	sweepAt             int
}

// project is what turns knows of one project.
type project struct {
	running int
	waiting []*waiter
}

type waiter struct {
	ready chan struct{}
	// refused is set before ready is closed: others needed the place.
	refused bool
}

// newTurns returns nil when there is no limit.
func newTurns(total, each int, l Limits) *turns {
	if total <= 0 {
		return nil
	}
	if each <= 0 || each > total {
		each = total
	}
	return &turns{total: total, each: each, queue: l.Queue, projectQueue: l.ProjectQueue, projects: map[string]*project{}, sweepAt: 1024}
}

// enter waits for the project's turn. Who gets nil must leave with the same p.
func (t *turns) enter(ctx context.Context, name string) (p *project, err error) {
	t.mu.Lock()
	p = t.projects[name]
	if p == nil {
		t.sweep()
		p = &project{}
		t.projects[name] = p
	}
	// With a free place, who waits is of a project that has all it may have.
	if t.running < t.total && p.running < t.each && len(p.waiting) == 0 {
		t.running++
		p.running++
		t.mu.Unlock()
		return p, nil
	}
	if len(p.waiting) >= t.projectQueue || t.waiting >= t.queue && !t.makeRoom(p) {
		t.refused++
		t.mu.Unlock()
		return nil, errBusy()
	}
	w := &waiter{ready: make(chan struct{})}
	if len(p.waiting) == 0 {
		t.round = append(t.round, p)
	}
	p.waiting = append(p.waiting, w)
	t.waiting++
	t.mu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
		t.mu.Lock()
		if i := slices.Index(p.waiting, w); i >= 0 {
			t.drop(p, i)
			t.mu.Unlock()
			return nil, ctx.Err()
		}
		t.mu.Unlock()
		if !w.refused { // its turn came at the same time
			t.leave(p)
		}
		return nil, ctx.Err()
	}
	if w.refused {
		return nil, errBusy()
	}
	return p, nil
}

// makeRoom refuses the latest request of the project with the most waiting, if
// it has more than p; else there is no room.
func (t *turns) makeRoom(p *project) bool {
	var longest *project
	for _, other := range t.round {
		if len(other.waiting) > len(p.waiting)+1 && (longest == nil || len(other.waiting) > len(longest.waiting)) {
			longest = other
		}
	}
	if longest == nil {
		return false
	}
	last := len(longest.waiting) - 1
	w := longest.waiting[last]
	t.drop(longest, last)
	t.refused++
	w.refused = true
	close(w.ready)
	return true
}

// drop takes one from those that wait.
func (t *turns) drop(p *project, i int) {
	p.waiting = slices.Delete(p.waiting, i, i+1)
	t.waiting--
	if len(p.waiting) == 0 {
		i := slices.Index(t.round, p)
		t.round = slices.Delete(t.round, i, i+1)
	}
}

// leave gives the place to whose turn it is.
func (t *turns) leave(p *project) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	p.running--
	for i := 0; i < len(t.round) && t.running < t.total; {
		next := t.round[i]
		if next.running >= t.each {
			i++ // it keeps its place in the round
			continue
		}
		w := next.waiting[0]
		next.waiting = slices.Delete(next.waiting, 0, 1)
		t.waiting--
		t.round = slices.Delete(t.round, i, i+1)
		if len(next.waiting) > 0 {
			t.round = append(t.round, next)
		}
		t.running++
		next.running++
		close(w.ready)
	}
}

// sweep forgets projects that have nothing to do, once they are many.
func (t *turns) sweep() {
	if len(t.projects) < t.sweepAt {
		return
	}
	for name, p := range t.projects {
		if p.running == 0 && len(p.waiting) == 0 {
			delete(t.projects, name)
		}
	}
	t.sweepAt = max(1024, 2*len(t.projects))
}

// state returns how many requests are carried out, wait, and have been refused.
func (t *turns) state() (running, waiting int, refused int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running, t.waiting, t.refused
}

// measure shows the state.
func (t *turns) measure(r prometheus.Registerer, of string) {
	if t == nil {
		return
	}
	labels := prometheus.Labels{"of": of}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isospin_api_running", Help: "Requests of the API that are carried out now.", ConstLabels: labels},
			func() float64 { n, _, _ := t.state(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isospin_api_waiting", Help: "Requests of the API that wait for their project's turn.", ConstLabels: labels},
			func() float64 { _, n, _ := t.state(); return float64(n) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "isospin_api_refused_total", Help: "Requests of the API that were refused since too many waited.", ConstLabels: labels},
			func() float64 { _, _, n := t.state(); return float64(n) }),
	)
}

// place is a request's place among those that are carried out.
type place struct {
	turns   *turns
	project *project
}

// enter waits until the request may go on. The answer gives the place back.
func (c *call) enter(t *turns) error {
	if t == nil {
		return nil
	}
	name := c.who.ProjectID
	if name == "" {
		name = "user:" + c.who.UserID
	}
	p, err := t.enter(c.r.Context(), name)
	if err == nil {
		c.place = place{t, p}
	}
	return err
}

// leave gives the place back, if the request has one: from here on it costs no
// more than its connection.
func (c *call) leave() {
	if c.place.turns != nil {
		c.place.turns.leave(c.place.project)
		c.place = place{}
	}
}
