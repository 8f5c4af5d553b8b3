package feed

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"isospin/api/feed"
	"isospin/api/feed/feedconnect"
	"isospin/internal/core/agent"
	"isospin/internal/identity"
	"isospin/internal/store"
)

// Server speaks the agents' side of the feed (api/feed).
type Server struct {
	hub    *Hub
	store  *store.Store
	agents *agent.Service
	log    *slog.Logger
	hellos *turns[*hello]
	beats  *beats
	// patience is how long sending one message may take.
	patience time.Duration
}

// ServerOptions of NewServer.
type ServerOptions struct {
	Hub    *Hub           // required
	Store  *store.Store   // required
	Agents *agent.Service // required
	Logger *slog.Logger   // required
	// Patience is how long a host may take to take a message; then its stream is
	// cut, and it comes back for what it lacks. // optional, 1 min
	Patience time.Duration
}

// NewServer returns the service of the agents' streams. What it has to do beside
// them runs as long as the hub's Run.
func NewServer(o ServerOptions) *Server {
	s := &Server{hub: o.Hub, store: o.Store, agents: o.Agents, log: o.Logger, beats: newBeats(), patience: cmp.Or(o.Patience, time.Minute)}
	s.hellos = &turns[*hello]{most: hellosAtOnce, size: (*hello).weight, do: s.registerAll}
	o.Hub.beside = append(o.Hub.beside, s.keepBeats)
	o.Hub.attachments = o.Agents.Attachments
	return s
}

// Handler returns the path and handler of the service.
func (s *Server) Handler() (string, http.Handler) {
	path, handler := feedconnect.NewFeedHandler(s, connect.WithCodec(codec{}))
	return path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controllerKey{}, http.NewResponseController(w))))
	})
}

type controllerKey struct{}

type peerKey struct{}

// WithPeer notes the host name of the client's certificate: the stream may speak for that host only.
func WithPeer(ctx context.Context, host string) context.Context {
	return context.WithValue(ctx, peerKey{}, host)
}

// Attach implements feedconnect.FeedHandler: one stream of one host.
func (s *Server) Attach(ctx context.Context, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil || hello.Host == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must be a hello that names the host"))
	}
	if peer, ok := ctx.Value(peerKey{}).(string); ok && peer != hello.Host {
		return connect.NewError(connect.CodePermissionDenied, errors.New("the certificate is of another host"))
	}
	ctx = identity.System(ctx)
	from := attached{host: hello.Host}
	if from.attachment, err = s.attach(ctx, hello); err != nil {
		s.log.Error("agents cannot be registered", "host", hello.Host, "error", err)
		return connect.NewError(connect.CodeUnavailable, errors.New("the agents cannot be registered now"))
	}
	s.beats.add(from.beat())
	if err := s.hub.Current(ctx); err != nil {
		return connect.NewError(connect.CodeUnavailable, errors.New("the database cannot be read now"))
	}
	view := s.hub.open(hello.Host, hello.Have)
	defer view.Close()
	defer s.log.Info("host detached", "host", hello.Host)

	ctx, cancel := context.WithCancelCause(ctx)
	said := &reported{some: make(chan struct{}, 1)}
	var storing sync.WaitGroup
	storing.Go(func() {
		if err := s.storeReported(ctx, from, said); err != nil {
			cancel(err)
		}
	})
	go func() { cancel(s.receive(ctx, from, stream, said)) }()
	err = s.send(ctx, view, stream, len(hello.Have))
	cancel(err)
	storing.Wait()
	// The receiver ends with the stream, which ends when this function returns:
	// waiting for it here would be waiting for ever.
	return err
}

func (s *Server) send(ctx context.Context, view *Stream, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage], held int) error {
	taken := s.watch(ctx, view.view.host)
	defer taken.end()
	stop := view.endsWith(ctx)
	defer stop()
	conn := stream.Conn()
	upserts, deletes := 0, 0
	for {
		m, err := view.next(ctx)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, context.Canceled):
			return nil
		case errors.Is(err, ErrSuperseded):
			return connect.NewError(connect.CodeAborted, err)
		case err != nil:
			return err
		}
		taken.begin()
		if err := conn.Send(m); err != nil {
			return err
		}
		taken.done()
		upserts, deletes = upserts+len(m.Upserts), deletes+len(m.Deletes)
		if m.Synced {
			s.log.Info("host attached", "host", view.view.host, "held", held, "sent", upserts, "deleted", deletes, "sequence", m.Sequence)
		}
	}
}

// watched is a stream that is cut when a message is not taken in time. A
// deadline, or a timer, for each message would cost as much as the message: the
// timer looks only now and then whether something is under way for too long.
type watched struct {
	patience time.Duration
	epoch    time.Time
	since    atomic.Int64 // ns after epoch, when the message began that is under way; 0: none is
	armed    atomic.Bool
	timer    *time.Timer
	cut      func()
}

func (s *Server) watch(ctx context.Context, host string) *watched {
	w := &watched{patience: s.patience, epoch: time.Now(), cut: func() {
		s.log.Warn("a host does not take what it is told: its stream is cut", "host", host, "patience", s.patience)
		if c, ok := ctx.Value(controllerKey{}).(*http.ResponseController); ok {
			// An error says that the stream has ended, as it should.
			_ = c.SetWriteDeadline(time.Now())
		}
	}}
	w.armed.Store(true)
	w.timer = time.AfterFunc(w.patience, w.look)
	return w
}

func (w *watched) begin() {
	w.since.Store(max(int64(time.Since(w.epoch)), 1))
	if w.armed.CompareAndSwap(false, true) {
		w.timer.Reset(w.patience)
	}
}

func (w *watched) done() { w.since.Store(0) }

func (w *watched) end() {
	w.done()
	w.timer.Stop()
}

func (w *watched) look() {
	// A message that begins from here on arms the timer itself.
	w.armed.Store(false)
	since := w.since.Load()
	if since == 0 {
		return
	}
	if left := w.patience - (time.Since(w.epoch) - time.Duration(since)); left <= 0 {
		w.cut()
	} else if w.armed.CompareAndSwap(false, true) {
		w.timer.Reset(left)
	}
}

// receive takes what the host says until the stream ends. Heartbeats do not
// wait for reports to be stored: a busy database makes no host look dead.
func (s *Server) receive(ctx context.Context, from attached, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage], said *reported) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		switch body := m.Body.(type) {
		case *feed.AgentMessage_Report:
			said.add(body.Report.Applied)
		case *feed.AgentMessage_Heartbeat:
			s.beats.add(from.beat())
			if len(body.Heartbeat.Functions) > 0 {
				if err := s.reconfigure(ctx, from, body.Heartbeat.Functions); err != nil {
					return s.notStored(from.host, err)
				}
			}
		}
	}
}

// attached is who speaks over a stream.
type attached struct {
	host       string
	attachment int64
}

func (a attached) beat() map[string]int64 { return map[string]int64{a.host: a.attachment} }

// reported is what a host has said of objects and is not yet stored.
type reported struct {
	mu      sync.Mutex
	applied []*feed.Applied
	some    chan struct{} // cap 1
}

func (r *reported) add(applied []*feed.Applied) {
	r.mu.Lock()
	r.applied = append(r.applied, applied...)
	r.mu.Unlock()
	select {
	case r.some <- struct{}{}:
	default:
	}
}

func (r *reported) take() []*feed.Applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.applied
	r.applied = nil
	return list
}

// storeReported stores what a host says of objects, in its order, until ctx ends.
func (s *Server) storeReported(ctx context.Context, from attached, said *reported) error {
	for {
		select {
		case <-said.some:
		case <-ctx.Done():
			return nil
		}
		if err := s.hub.reportOver(ctx, from, said.take()); err != nil {
			return s.notStored(from.host, err)
		}
	}
}

// notStored ends a stream. Reports are repeated by an agent that attaches again:
// that loses none.
func (s *Server) notStored(host string, err error) error {
	if errors.Is(err, agent.ErrDetached) {
		s.log.Info("what a host said here before it attached anew is not stored", "host", host)
		return ErrSuperseded
	}
	s.log.Error("a host's report cannot be stored", "host", host, "error", err)
	return connect.NewError(connect.CodeUnavailable, errors.New("the report cannot be stored now"))
}
