package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
	"isospin/internal/watch"
)

const (
	watchLabel = "watch"
	// sequenceHeader is where to watch from in order to miss nothing of what follows an answer.
	sequenceHeader = "X-Isospin-Sequence"
	typeLines      = "application/x-ndjson"
	// heartbeat is how often a watch says where it is when there is nothing else to say.
	heartbeat = 15 * time.Second
	// revalidation is how often the token of a watch is looked at again.
	revalidation = time.Minute
	// patience is how long a client may take no byte of what it is sent.
	patience = 30 * time.Second
	// maxDoubts is how often in a row a token may not be decided about.
	maxDoubts = 5
)

// Pace of watches. Fields that are 0 have the default.
type Pace struct {
	Heartbeat, Revalidation, Patience time.Duration
}

func (p Pace) withDefaults() Pace {
	set := func(have *time.Duration, def time.Duration) {
		if *have <= 0 {
			*have = def
		}
	}
	set(&p.Heartbeat, heartbeat)
	set(&p.Revalidation, revalidation)
	set(&p.Patience, patience)
	return p
}

func (e *edge) addStreams() {
	if e.Watch == nil {
		return
	}
	e.Pace = e.Pace.withDefaults()
	e.root.add(http.MethodGet, "/watch", watchLabel, (*call).watch).ownTurn = true // it has limits of its own
}

// position notes in the answer where to watch from; called before what is answered is read.
func (c *call) position() {
	if c.edge.Watch != nil {
		c.w.Header().Set(sequenceHeader, strconv.FormatInt(c.edge.Watch.Sequence(), 10))
	}
}

// line is one change. The object is shown as GET shows it to the caller.
type line struct {
	Sequence  int64           `json:"sequence"`
	Kind      string          `json:"kind"`
	Op        store.Op        `json:"op"`
	ID        string          `json:"id"`
	Revision  int64           `json:"revision"`
	ProjectID string          `json:"project_id"`
	ParentID  string          `json:"parent_id,omitempty"` // of objects below others
	RequestID string          `json:"request_id"`
	At        string          `json:"at"`
	Object    json.RawMessage `json:"object"`
}

// instant is a time in Unix milliseconds as streams show it.
func instant(milliseconds int64) string {
	return time.UnixMilli(milliseconds).UTC().Format("2006-01-02T15:04:05.000Z")
}

// wholeNumber reads a parameter of the query; absent is false.
func (q query) wholeNumber(name string) (int64, bool, error) {
	text := q.last(name)
	if text == "" {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, false, fault.BadRequest("%s must be a whole number, 0 or greater, and not '%s'", name, text)
	}
	return n, true, nil
}

// only refuses other parameters than these.
func (q query) only(names ...string) error {
	var unknown []any
	for _, p := range q {
		if !slices.Contains(names, p.name) {
			unknown = append(unknown, p.name)
		}
	}
	if len(unknown) > 0 {
		return fault.BadRequest("%s is invalid; there are: %s", value.Repr(unknown), strings.Join(names, ", "))
	}
	return nil
}

// watch serves GET /watch: a line of JSON for each change, until the client,
// the token or the server ends it.
func (c *call) watch() error {
	q, err := parseQuery(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	if err := q.only("since", "kind", "fields"); err != nil {
		return err
	}
	var request watch.Request
	if since, ok, err := q.wholeNumber("since"); err != nil {
		return err
	} else if ok {
		request.Since = &since
	}
	for _, text := range q.filled("kind") {
		request.Kinds = append(request.Kinds, strings.Split(text, ",")...)
	}
	w, err := c.edge.Watch.Open(c.ctx, request)
	if err != nil {
		return err
	}
	defer w.Close()

	s := &stream{call: c, control: http.NewResponseController(c.w), fields: q.fields()}
	// The server's bounds on a request's time are not for this one. A server
	// that cannot change them has none.
	_ = s.control.SetReadDeadline(time.Time{})
	h := c.w.Header()
	h.Set("Content-Type", typeLines)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set(sequenceHeader, strconv.FormatInt(w.Sequence(), 10))
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	s.end(s.run(w))
	return nil
}

// stream is a watch on its way to the client.
type stream struct {
	*call
	control *http.ResponseController
	fields  map[string]bool
	out     bytes.Buffer
}

// errGone: nobody reads any more.
var errGone = errors.New("the client is gone")

func (s *stream) run(w *watch.Watch) error {
	pace := s.edge.Pace
	if err := s.mark(w.Sequence()); err != nil {
		return err
	}
	valid, said, doubts := time.Now(), time.Now(), 0
	for {
		wait := min(time.Until(said.Add(pace.Heartbeat)), time.Until(valid.Add(pace.Revalidation)))
		changes, err := w.Next(s.ctx, max(wait, 0))
		if err != nil {
			return err
		}
		if time.Since(valid) >= pace.Revalidation {
			switch err := s.revalidate(); {
			case err == nil:
				doubts = 0
			case !fault.IsKind(err, fault.Unavailable) || doubts+1 >= maxDoubts:
				return err
			default:
				doubts++
			}
			valid = time.Now()
		}
		for i := range changes {
			if err := s.change(&changes[i]); err != nil {
				return err
			}
		}
		switch {
		case len(changes) > 0:
			if err := s.flush(); err != nil {
				return err
			}
			said = time.Now()
			if m := s.edge.streams; m != nil {
				m.changes.Add(float64(len(changes)))
				if w.Live() {
					m.delay.Observe(max(said.Sub(time.UnixMilli(changes[0].At)).Seconds(), 0))
				}
			}
		case time.Since(said) >= pace.Heartbeat:
			if err := s.mark(w.Sequence()); err != nil {
				return err
			}
			said = time.Now()
		}
	}
}

// revalidate fails when the request would not be let in now as it was then.
func (s *stream) revalidate() error {
	who, err := s.edge.Authenticator.Authenticate(s.r)
	if err != nil {
		return err
	}
	now := *who
	now.RequestID = s.who.RequestID
	if !reflect.DeepEqual(&now, s.who) {
		return fault.New(fault.Unauthenticated, "Unauthorized", "What the token permits has changed: list anew.")
	}
	return nil
}

// put adds a line.
func (s *stream) put(v any) error {
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	s.out.Write(raw)
	s.out.WriteByte('\n')
	return nil
}

// flush sends the lines.
func (s *stream) flush() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.edge.Pace.Patience))
	_, err := s.w.Write(s.out.Bytes())
	s.out.Reset()
	if s.out.Cap() > maxKept {
		s.out = bytes.Buffer{}
	}
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// mark says where the watch is.
func (s *stream) mark(sequence int64) error {
	if err := s.put(map[string]int64{"sequence": sequence}); err != nil {
		return err
	}
	return s.flush()
}

func (s *stream) change(c *watch.Change) error {
	l := line{Sequence: c.Sequence, Kind: c.Resource.Name, Op: c.Op, ID: c.ID, Revision: c.Revision, ProjectID: c.ProjectID, ParentID: c.ParentID, RequestID: c.RequestID, At: instant(c.At)}
	if c.Object != nil {
		ctx := identity.With(s.ctx, s.who) // what is remembered of parents must not grow old
		fields, err := s.edge.Watch.Fields(ctx, c.Resource, c.Object, s.fields)
		if err != nil {
			return err
		}
		l.Object = c.Resource.Service.Encode(nil, c.Object, fields)
	}
	return s.put(l)
}

// end sends the last line, which says why there are no more, if anybody reads it.
func (s *stream) end(err error) {
	if errors.Is(err, errGone) || s.r.Context().Err() != nil {
		s.ended("client")
		return
	}
	last := neutronError{Type: "HTTPInternalServerError", Message: textInternal}
	switch f := fault.As(err); {
	case f == nil && (s.edge.away(err) || errors.Is(err, context.DeadlineExceeded)):
		last = neutronError{Type: "ServiceUnavailable", Message: "The service is unavailable."}
	case f == nil || f.Kind == fault.Internal:
		s.logCause(err)
	case f.Kind == fault.Unauthenticated && f.Message == "":
		last = neutronError{Type: "Unauthorized", Message: "The request you have made requires authentication."}
	default:
		last = neutronError{Type: f.Type, Message: cut(f.Message), Detail: f.Detail}
		if f.Type == "" {
			last.Type = "Unauthorized"
		}
	}
	s.ended(last.Type)
	if s.put(map[string]neutronError{"error": last}) == nil {
		// If it cannot be sent, the client is gone.
		_ = s.flush()
	}
}

// ended counts why watches end.
func (s *stream) ended(reason string) {
	if m := s.edge.streams; m != nil {
		m.ended.WithLabelValues(reason).Inc()
	}
}

// streamMetrics are those of watches.
type streamMetrics struct {
	changes prometheus.Counter
	delay   prometheus.Histogram
	ended   *prometheus.CounterVec
}

func newStreamMetrics(r prometheus.Registerer) *streamMetrics {
	m := &streamMetrics{
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "isospin_watch_changes_total", Help: "Changes that were sent to watches."}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "isospin_watch_delay_seconds",
			Help:    "Time from a change to its being sent, of watches that are not catching up.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isospin_watches_ended_total",
			Help: "Watches that ended, by the type of the error that the last line had; client: the client went away, or took nothing for too long."}, []string{"reason"}),
	}
	r.MustRegister(m.changes, m.delay, m.ended)
	return m
}

// addHistory serves the history of the resource's objects.
func (s *collection) addHistory(path string) {
	if s.edge.Watch != nil && watch.Watchable(s.Resource) {
		s.edge.root.add(http.MethodGet, path+"/{id}/history", s.Name, s.history)
	}
}

// changed is one attribute before and after.
type changed struct {
	Old json.RawMessage `json:"old"`
	New json.RawMessage `json:"new"`
}

// past is one change of an object.
type past struct {
	Sequence  int64    `json:"sequence"`
	Op        store.Op `json:"op"`
	At        string   `json:"at"`
	Revision  int64    `json:"revision"`
	RequestID string   `json:"request_id"`
	// UserID and ProjectID are null when nobody asked for it, when it is not known, and when they are no concern of the caller.
	UserID    *string `json:"user_id"`
	ProjectID *string `json:"project_id"`
	// Changes are null when the state before is not known.
	Changes map[string]changed `json:"changes"`
}

const maxHistory = 1000

// history serves GET /<collection>/{id}/history.
func (s *collection) history(c *call) error {
	q, err := parseQuery(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	if err := q.only("since", "limit"); err != nil {
		return err
	}
	request := watch.HistoryRequest{Resource: s.Resource, ID: s.named(c), Limit: maxHistory}
	if s.Parent != nil {
		request.Parent = c.params[0]
	}
	if request.Since, _, err = q.wholeNumber("since"); err != nil {
		return err
	}
	if limit, ok, err := q.wholeNumber("limit"); err != nil {
		return err
	} else if ok && limit > 0 {
		request.Limit = int(min(limit, maxHistory))
	}
	events, next, err := c.edge.Watch.History(c.ctx, request)
	if err != nil {
		return err
	}
	list := []past{}
	for i := range events {
		p, err := s.past(c, &events[i])
		if err != nil {
			return err
		}
		if p.Op == store.Updated && p.Changes != nil && len(p.Changes) == 0 {
			continue // nothing that the caller may see
		}
		list = append(list, p)
	}
	answer := map[string]any{"history": list}
	if next != 0 {
		answer["next"] = next
	}
	c.show(http.StatusOK, answer)
	return nil
}

func (s *collection) past(c *call, e *watch.Past) (past, error) {
	p := past{Sequence: e.Sequence, Op: e.Op, At: instant(e.At), Revision: e.Revision, RequestID: e.RequestID}
	if e.UserProject != "" && (c.who.Admin || e.UserProject == c.who.ProjectID) {
		p.ProjectID = &e.UserProject
		if e.UserID != "" {
			p.UserID = &e.UserID
		}
	}
	if e.Op == store.Deleted || e.Op == store.Updated && e.Before == nil {
		return p, nil
	}
	before, err := s.members(c, e.Before)
	if err != nil {
		return p, err
	}
	after, err := s.members(c, e.Object)
	if err != nil {
		return p, err
	}
	p.Changes = map[string]changed{}
	null := json.RawMessage("null")
	for name, v := range after {
		old, was := before[name]
		if !was {
			old = null
		}
		if !was || !bytes.Equal(old, v) {
			p.Changes[name] = changed{old, v}
		}
	}
	for name, v := range before {
		if _, is := after[name]; !is {
			p.Changes[name] = changed{v, null}
		}
	}
	return p, nil
}

// members are the attributes of an object that the caller may see.
func (s *collection) members(c *call, o resource.Object) (map[string]json.RawMessage, error) {
	if o == nil {
		return nil, nil
	}
	fields, err := s.edge.Watch.Fields(c.ctx, s.Resource, o, nil)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	err = json.Unmarshal(s.Service.Encode(nil, o, fields), &members)
	return members, err
}
