// Package server puts the API server together: configuration, store, core,
// extensions, feed and HTTP edge, and runs it until it is told to end.
//
// It must not know how any of them works.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/driver/mech"
	_ "isospin/internal/driver/mech/all"
	"isospin/internal/driver/segment"
	_ "isospin/internal/driver/segment/all"
	"isospin/internal/ext"
	_ "isospin/internal/ext/all"
	"isospin/internal/feed"
	"isospin/internal/lease"
	"isospin/internal/rest"
	"isospin/internal/store"
	"isospin/internal/watch"
)

// Options of New.
type Options struct {
	Config  *config.Config        // required
	Logger  *slog.Logger          // required
	Metrics prometheus.Registerer // optional
}

// Server is an API server that is ready to run.
type Server struct {
	config *config.Config
	log    *slog.Logger
	Store  *store.Store
	Core   *core.Core
	Hub    *feed.Hub
	feed   *feed.Server
	watch  *watch.Service
	edge   *rest.Server

	api, agents net.Listener
	// lock is held for as long as the server uses an embedded database.
	lock *os.File
	// notifiers tell other services of changes until their context ends.
	notifiers []func(context.Context)
	// metrics may be nil.
	metrics prometheus.Registerer
	// holder names this server among all on the database, leaseTime is how long a silent one keeps its work.
	holder    string
	leaseTime time.Duration
}

var eventRetention = config.Int("isospin", "event_retention", 7*24*3600,
	"Seconds for which the history of changes is kept; what a slow consumer misses beyond it, it reads anew.", config.Min(60))

// New opens the database, brings its schema up to date, reads what the feed
// keeps and listens. Close or Run ends what it has opened. A database that goes
// away meanwhile is waited for, as one that is not there yet.
func New(ctx context.Context, o Options) (*Server, error) {
	retries := config.DatabaseRetries.Of(o.Config)
	for try := 0; ; try++ {
		attempt := o
		made := &undoable{Registerer: o.Metrics}
		if o.Metrics != nil {
			attempt.Metrics = made
		}
		s, opened, err := start(ctx, attempt)
		if err == nil {
			return s, nil
		}
		made.undo()
		if !opened || !errors.Is(err, store.ErrUnavailable) || retries >= 0 && try >= retries {
			return nil, err
		}
		pause := time.Duration(config.DatabaseRetryInterval.Of(o.Config)) * time.Second
		o.Logger.Warn("the database went away during the start; trying again", "error", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// undoable registers metrics so that they can be taken back.
type undoable struct {
	prometheus.Registerer
	made []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (u *undoable) Register(c prometheus.Collector) error {
	err := u.Registerer.Register(c)
	if err == nil {
		u.made = append(u.made, c)
	}
	return err
}

// MustRegister implements prometheus.Registerer.
func (u *undoable) MustRegister(list ...prometheus.Collector) {
	u.Registerer.MustRegister(list...)
	u.made = append(u.made, list...)
}

func (u *undoable) undo() {
	for _, c := range u.made {
		u.Unregister(c)
	}
}

// start is one attempt; opened tells whether the database was there at first.
func start(ctx context.Context, o Options) (_ *Server, opened bool, _ error) {
	s := &Server{config: o.Config, log: o.Logger, metrics: o.Metrics, holder: holderName()}
	if !strings.HasPrefix(config.DatabaseConnection.Of(o.Config), "sqlite") {
		s.leaseTime = lease.DefaultTime
	} else {
		// There is no other server: few writes matter more than a fast change.
		s.leaseTime = 15 * time.Second
	}
	ok := false
	defer func() {
		if !ok {
			s.close()
		}
	}()
	access, err := newAccess(o.Config, o.Logger)
	if err != nil {
		return nil, s.Store != nil, err
	}
	segments, err := segment.Load(o.Config)
	if err != nil {
		return nil, s.Store != nil, err
	}
	mechanisms, err := mech.Load(o.Config)
	if err != nil {
		return nil, s.Store != nil, err
	}
	limit, err := paginationLimit(o.Config)
	if err != nil {
		return nil, s.Store != nil, err
	}
	if s.Store, err = openStore(ctx, o.Config, o.Logger, o.Metrics); err != nil {
		return nil, s.Store != nil, err
	}
	if s.lock, err = lockEmbedded(ctx, config.DatabaseConnection.Of(o.Config)); err != nil {
		return nil, true, err
	}
	modules, err := ext.Modules()
	if err != nil {
		return nil, s.Store != nil, err
	}
	schemas, err := Schemas()
	if err != nil {
		return nil, s.Store != nil, err
	}
	if err := s.Store.Upgrade(ctx, schemas...); err != nil {
		return nil, true, fmt.Errorf("database: %w", err)
	}
	s.Core = core.New(core.Options{Config: o.Config, Store: s.Store, Logger: o.Logger, Segments: segments, Mechanisms: mechanisms})
	s.Hub = feed.New(feed.Options{Store: s.Store, Logger: o.Logger})
	s.Hub.ProjectCore(feed.Services{Networks: s.Core.Networks, Subnets: s.Core.Subnets, Ports: s.Core.Ports, Agents: s.Core.Agents})
	s.feed = feed.NewServer(feed.ServerOptions{Hub: s.Hub, Store: s.Store, Agents: s.Core.Agents, Logger: o.Logger})
	for _, m := range modules {
		if err := m.Install(s.Core, s.Hub); err != nil {
			return nil, true, fmt.Errorf("extension family %s: %w", m.Name, err)
		}
	}
	s.Core.Registry.AddExtension(watch.Extensions()...)
	if err := s.Core.Seal(); err != nil {
		return nil, s.Store != nil, err
	}
	if err := s.Hub.Start(ctx); err != nil {
		return nil, s.Store != nil, err
	}
	if err := s.Core.Agents.Resume(ctx); err != nil {
		return nil, true, err
	}
	if err := s.newNotifiers(); err != nil {
		return nil, s.Store != nil, err
	}
	if err := access.complete(o.Config, o.Logger, s.Core.Registry); err != nil {
		return nil, s.Store != nil, err
	}
	s.newWatch(access.enforcer)
	s.edge = rest.NewServer(withPage(rest.New(rest.Options{
		Registry: s.Core.Registry, Logger: o.Logger, Metrics: o.Metrics,
		Authenticator: access.authenticator, Enforcer: access.enforcer, AuthenticateURI: access.uri, Watch: s.watch,
		PaginationMaxLimit: limit, Limits: limits(o.Config), MaxBody: int64(maxRequestBody.Of(o.Config)), LinkPrefix: config.NetworkLinkPrefix.Of(o.Config), Away: []error{store.ErrClosed, store.ErrUnavailable},
		Healthy: func(ctx context.Context) error {
			return s.Store.View(ctx, func(tx *store.Tx) error {
				var one int
				return tx.Row("SELECT 1", nil, &one)
			})
		},
	})), o.Logger)
	if err := s.listen(); err != nil {
		return nil, s.Store != nil, err
	}
	if err := s.measure(); err != nil {
		return nil, s.Store != nil, err
	}
	ok = true
	return s, true, nil
}

func paginationLimit(c *config.Config) (int, error) {
	text := config.PaginationMaxLimit.Of(c)
	if text == "infinite" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("[DEFAULT] pagination_max_limit: %q is neither a number nor \"infinite\"", text)
	}
	return max(n, 0), nil
}

// listen opens the API's and the agents' sockets.
func (s *Server) listen() error {
	address := net.JoinHostPort(config.BindHost.Of(s.config), strconv.Itoa(config.BindPort.Of(s.config)))
	var err error
	if s.api, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("[DEFAULT] bind_host, bind_port: %w", err)
	}
	if config.UseSSL.Of(s.config) {
		t, err := s.apiTLS()
		if err != nil {
			return err
		}
		s.api = tls.NewListener(s.api, t)
	}
	if config.AuthStrategy.Of(s.config) == noauth && !loopback(s.api.Addr()) {
		s.log.Warn("the API is reachable from other machines, and auth_strategy = noauth makes every caller an administrator", "address", address)
	}
	s.agents, err = s.listenFeed(config.FeedListen.Of(s.config))
	return err
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// listenUnix replaces the socket of a server that is gone, never one that answers.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("[isospin] feed_listen: another server answers on %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("[isospin] feed_listen: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("[isospin] feed_listen: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("[isospin] feed_listen: %w", err)
	}
	// Whoever may write to the socket may speak for any host.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("[isospin] feed_listen: %w", err), l.Close())
	}
	return l, nil
}

// Addresses of the API and of the agents' feed.
func (s *Server) Addresses() (api, agents net.Addr) { return s.api.Addr(), s.agents.Addr() }

// Run serves until ctx ends, then lets requests under way finish. It closes everything.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() { s.Hub.Run(ctx) })
	running.Go(func() {
		<-ctx.Done()
		s.watch.End()
	})
	for _, run := range s.notifiers {
		running.Go(func() { run(ctx) })
	}
	running.Go(func() { s.background(ctx) })
	running.Go(func() { s.heed(ctx) })
	running.Go(func() {
		if err := s.serveFeed(ctx); err != nil {
			cancel(err)
		}
	})
	err := s.edge.Serve(ctx, s.api)
	cancel(err)
	running.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// background does what one of the servers on the database does at a time.
func (s *Server) background(ctx context.Context) {
	l := lease.New(lease.Options{Store: s.Store, Logger: s.log, Name: "background", Holder: s.holder, Time: s.leaseTime, Metrics: s.metrics})
	l.Run(ctx, func(ctx context.Context, reachable time.Time) {
		var running sync.WaitGroup
		running.Go(func() { s.trim(ctx) })
		for _, work := range s.Core.Background {
			running.Go(func() { work(ctx, reachable) })
		}
		running.Wait()
	})
}

// heed notes whether the database answers, for the liveness of agents.
func (s *Server) heed(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if s.Hub.Current(ctx) == nil {
			s.Core.Agents.Reachable()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// holderName names this process, unlike any other.
func holderName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%.64s:%d:%s", host, os.Getpid(), uuid.NewString())
}

// trimBatch bounds how many events one transaction drops, so that no writer waits for long.
const trimBatch = 2000

// trim drops events that are older than they are kept for.
func (s *Server) trim(ctx context.Context) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		before := time.Now().Add(-time.Duration(eventRetention.Of(s.config)) * time.Second).UnixMilli()
		var err error
		for more := true; more && err == nil; {
			err = s.Store.Tx(ctx, func(tx *store.Tx) (err error) {
				more, err = tx.TrimEvents(before, trimBatch, s.watch.Shared()...)
				return err
			})
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("old events cannot be dropped", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) close() {
	for _, l := range []net.Listener{s.api, s.agents} {
		if l != nil {
			l.Close()
		}
	}
	if s.Store != nil {
		if err := s.Store.Close(); err != nil {
			s.log.Error("the database did not close well", "error", err)
		}
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// isUnix splits "unix:/path" and "unix:///path".
func isUnix(address string) (string, bool) {
	path, ok := strings.CutPrefix(address, "unix:")
	return strings.Replace(path, "//", "", 1), ok
}
