package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/api/feed"
)

// Options of an Agent.
type Options struct {
	// Environment that the features get; Host, StateDir and Logger are also the agent's. // required
	Environment
	// Features by name, each once. // required
	Features []string
	// Factories of features that are not registered, by name. // optional
	Factories map[string]Factory
	// Servers to attach to, tried in turn in an order of the agent's own: "unix:///run/isospin/feed.sock",
	// "http://127.0.0.1:9697" (loopback only), "https://network.example.org:9697". // required
	Servers []string
	// TLS is needed for https. // optional
	TLS *TLS
	// BinaryVersion is told to the server. // optional
	BinaryVersion string
	// ReportInterval is the time between heartbeats. // optional, 30 s
	ReportInterval time.Duration
	// ResyncInterval is the time between full comparisons with the host, give or take a tenth. // optional, 300 s
	ResyncInterval time.Duration
	// Reconnect waits. // optional, 0.1 and 10 s
	ReconnectMin, ReconnectMax time.Duration
	// Metrics are registered here. // optional
	Metrics prometheus.Registerer
	// Started is called once, when each feature has tried to start, or long enough. // optional
	Started func()
}

// Agent is one host's agent.
type Agent struct {
	options   Options
	logger    *slog.Logger
	started   time.Time
	desired   *desired
	reports   *reports
	journal   *journal
	metrics   *metrics
	runners   []*runner
	described chan struct{} // cap 1; a feature described itself anew
	shared    *sharedValues
}

// Bounds of what a start and a stop wait for.
const (
	startGrace = 5 * time.Second
	stopGrace  = 5 * time.Second
)

// New makes the agent and its features, and opens nothing.
func New(options Options) (*Agent, error) {
	if options.Host == "" {
		return nil, errors.New("agent: no host name")
	}
	if !filepath.IsAbs(options.StateDir) {
		return nil, fmt.Errorf("agent: state directory %q is not an absolute path", options.StateDir)
	}
	if len(options.Servers) == 0 {
		return nil, errors.New("agent: no server to attach to")
	}
	for _, server := range options.Servers {
		if err := checkServer(server, options.TLS); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	setDefault(&options.ReportInterval, 30*time.Second)
	setDefault(&options.ResyncInterval, 300*time.Second)
	setDefault(&options.ReconnectMin, 100*time.Millisecond)
	setDefault(&options.ReconnectMax, 10*time.Second)

	a := &Agent{
		options: options, logger: options.Logger, started: time.Now(), reports: newReports(),
		described: make(chan struct{}, 1), shared: newSharedValues(),
	}
	a.desired = newDesired(a.reports.forget)
	var err error
	if a.metrics, err = newMetrics(options.Metrics, a.desired); err != nil {
		return nil, fmt.Errorf("agent: metrics: %w", err)
	}
	for i, name := range options.Features {
		factory := options.Factories[name]
		if factory == nil {
			factory = factories[name]
		}
		if factory == nil {
			return nil, fmt.Errorf("agent: no feature %q, there are: %s", name, strings.Join(Registered(), ", "))
		}
		if slices.Contains(options.Features[:i], name) {
			return nil, fmt.Errorf("agent: feature %q is listed twice", name)
		}
		env := options.Environment
		env.Logger = options.Logger.With("feature", name)
		env.Metrics = options.Metrics
		env.shared = a.shared
		feature, err := factory(env)
		if err != nil {
			return nil, fmt.Errorf("agent: feature %s: %w", name, err)
		}
		a.addRunner(name, feature, env.Logger)
	}
	return a, nil
}

func (a *Agent) addRunner(name string, feature Feature, logger *slog.Logger) {
	a.runners = append(a.runners, &runner{
		name: name, feature: feature, logger: logger,
		desired: a.desired, changed: a.desired.subscribe(), reports: a.reports,
		metrics: a.metrics.feature(name), resync: a.options.ResyncInterval,
		local: make(chan struct{}, 1), describe: make(chan struct{}, 1),
		described: func() { signal(a.described) }, attempted: make(chan struct{}),
	})
}

// Run serves the host until ctx ends: it applies the state from disk at once,
// attaches to a server as soon as there is one, and leaves the data path as it
// is when it stops. It is called once.
func (a *Agent) Run(ctx context.Context) error {
	lock, err := a.openState()
	if err != nil {
		return err
	}
	defer lock.Close()
	var features, background sync.WaitGroup
	for _, r := range a.runners {
		features.Go(func() { r.run(ctx) })
	}
	background.Go(func() {
		if !a.waitForStarts(ctx) {
			return
		}
		if a.options.Started != nil {
			a.options.Started()
		}
		a.follow(ctx)
	})
	background.Go(func() { a.keepSaving(ctx) })
	<-ctx.Done()

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		features.Wait()
		background.Wait()
		a.shared.close(a.logger)
	}()
	select {
	case <-stopped:
		return nil
	case <-time.After(stopGrace):
		return fmt.Errorf("agent: not all of it stopped within %v", stopGrace)
	}
}

// Ready says what keeps the agent from being ready, nil if nothing does. It is
// ready once each feature has brought the host up, from disk or from a server.
func (a *Agent) Ready() error {
	for _, r := range a.runners {
		if !r.applied.Load() {
			return fmt.Errorf("feature %s has not yet applied the host's state", r.name)
		}
	}
	return nil
}

// waitForStarts gives the features time to start, so that the server learns
// from the first message what the host can do. One that takes long or fails
// does not keep the host from its server.
func (a *Agent) waitForStarts(ctx context.Context) bool {
	grace := time.NewTimer(startGrace)
	defer grace.Stop()
	for _, r := range a.runners {
		select {
		case <-r.attempted:
		case <-grace.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// functions of the features that have started.
func (a *Agent) functions() []*feed.Function {
	var list []*feed.Function
	for _, r := range a.runners {
		if f := r.function.Load(); f != nil {
			list = append(list, f)
		}
	}
	return list
}

// openState makes the state directory, locks it and loads what is in it. A state
// file that cannot be used is reported and otherwise like none: the server has
// all. Closing what it returns unlocks.
func (a *Agent) openState() (io.Closer, error) {
	if err := os.MkdirAll(a.options.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("agent: state directory: %w", err)
	}
	lock, err := lockDirectory(a.options.StateDir)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	removeLeftovers(a.options.StateDir)
	if a.journal, err = newJournal(a.options.StateDir, &feed.Hello{Host: a.options.Host, BinaryVersion: a.options.BinaryVersion}); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: %w", err), lock.Close())
	}
	a.desired.record = a.put
	list, err := readStateFile(a.options.StateDir, a.options.Host)
	if err != nil {
		a.logger.Error("the saved state cannot be used; the host stays as it is until a server is there", "error", err)
		return lock, nil
	}
	news, err := readJournals(a.options.StateDir, a.options.Host)
	if err != nil {
		a.logger.Error("not all of the journal can be used", "error", err)
	}
	list = append(list, news...)
	if len(list) == 0 {
		return lock, nil
	}
	if err := a.desired.load(list); err != nil {
		a.logger.Warn("left out of the saved state", "error", err)
	}
	state := a.desired.state()
	a.logger.Info("starting from the saved state", "ports", len(state.Ports), "networks", len(state.Networks), "routers", len(state.Routers))
	return lock, nil
}

// Waits between two writes of the state file, and after one that failed.
const (
	saveInterval = time.Second
	saveRetry    = 10 * time.Second
)

// keepSaving writes the state file after changes, at most once a second, and
// at the end.
func (a *Agent) keepSaving(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-a.desired.dirty:
		}
		pause := saveInterval
		if err := a.save(); err != nil {
			a.logger.Error("the state could not be saved", "error", err, "retry_in", saveRetry)
			signal(a.desired.dirty)
			pause = saveRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	select {
	case <-a.desired.dirty:
		if err := a.save(); err != nil {
			a.logger.Error("the state could not be saved", "error", err)
		}
	default:
	}
}

func (a *Agent) save() (err error) {
	defer func() {
		result := "ok"
		if err != nil {
			result = "failed"
		}
		a.metrics.saves.WithLabelValues(result).Inc()
	}()
	upTo := 0
	state, versions := a.desired.snapshot(func() { upTo = a.journal.rotate() })
	if state == nil {
		return nil
	}
	data, err := encodeState(a.journal.hello, messages(state, versions, stateFileChunk))
	if err != nil {
		return err
	}
	if err := writeStateFile(a.options.StateDir, data); err != nil {
		return err
	}
	return dropJournals(a.options.StateDir, upTo)
}

// put journals what the server said. When it cannot, the host is served all
// the same: only a restart within the next second would know less.
func (a *Agent) put(messages ...*feed.ServerMessage) {
	err := a.journal.append(messages...)
	if err != nil && !a.journal.failed {
		a.logger.Error("what the server says cannot be journalled", "error", err)
	}
	a.journal.failed = err != nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}
