package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"isospin/internal/agent/runtime"
	"isospin/internal/lab/simulate"
	"isospin/internal/store"
)

// Options of Run.
type Options struct {
	Database         string        // required: postgresql or mariadb
	Seed             uint64        // required
	Load, Settle     time.Duration // required
	Replicas, Hosts  int           // required
	Clients          int           // required
	Only, Executable string        // optional
	// From is the binary that servers are upgraded from, "self" for this
	// program: instead of faults there is a rolling upgrade. // optional
	From string
	// Keep is where logs of a run with findings go. // optional
	Keep string
	Out  io.Writer // required
}

// Result of a run.
type Result struct {
	Database                           string
	Seed                               uint64
	Faults                             int
	Acknowledged, Unknown, Unavailable int
	Changes, Notifications, Repeated   int
	// Moved is the longest time from a holder's fault to another holder.
	Moved, Settled time.Duration
	Findings       []string
}

const hostPrefix = "host-"

// limits of the servers in a run.
const (
	agentDown   = 50 * time.Second
	reports     = 5 * time.Second
	leaseMove   = 20 * time.Second
	liveness    = "agents that are alive are shown as down"
	maxFindings = 50
)

// world is a run.
type world struct {
	o        Options
	dir      string
	begin    time.Time
	database *database
	store    *store.Store // past all proxies
	replicas []*replica
	nova     *recorder
	networks []string

	mu       sync.Mutex
	findings []string
	states   map[string]*runtime.State
	moved    time.Duration
	faults   []string
}

// find notes something that must not be.
func (w *world) find(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.findings) < maxFindings {
		w.findings = append(w.findings, fmt.Sprintf("%6.1fs ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.o.Out, "%6.1fs "+format+"\n", append([]any{time.Since(w.begin).Seconds()}, args...)...)
}

// Run makes a world, breaks it, mends it, and compares.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Paths of sockets are short.
	dir, err := os.MkdirTemp("", "isospin-chaos")
	if err != nil {
		return nil, err
	}
	w := &world{o: o, dir: dir, begin: time.Now(), states: map[string]*runtime.State{}, nova: newRecorder()}
	if err := os.Chmod(dir, 0o711); err != nil { // the database's user is another
		return nil, err
	}
	defer func() {
		w.end()
		if o.Keep != "" && (err != nil || len(result.Findings) > 0) {
			kept := filepath.Join(o.Keep, fmt.Sprintf("%s-%d", o.Database, o.Seed))
			os.RemoveAll(kept)
			for _, r := range append(w.replicas, &replica{name: "database", dir: filepath.Join(dir, "db")}) {
				_ = os.MkdirAll(kept, 0o700)
				if text, err := os.ReadFile(filepath.Join(r.dir, "log")); err == nil {
					_ = os.WriteFile(filepath.Join(kept, r.name+".log"), text, 0o600)
				}
			}
		}
		os.RemoveAll(dir)
	}()
	if err := w.setUp(ctx); err != nil {
		return nil, err
	}
	schedule := draw(o.Seed, o.Load, o.Replicas, o.Only)
	if o.From != "" {
		schedule = nil
	}
	w.say("%s, seed %d: %d faults in %v, %d servers, %d hosts, %d clients", o.Database, o.Seed, len(schedule), o.Load, o.Replicas, o.Hosts, o.Clients)

	hosts, endHosts := context.WithCancel(ctx)
	defer endHosts()
	var hostsRunning sync.WaitGroup
	hostsRunning.Go(func() { w.runHosts(hosts) })
	defer hostsRunning.Wait()
	defer endHosts()
	if err := w.eventually(ctx, time.Minute, func() error { return w.hostsAlive(ctx) }); err != nil {
		return nil, fmt.Errorf("the hosts do not attach: %w", err)
	}
	since, err := w.last(ctx)
	if err != nil {
		return nil, err
	}
	watching, endWatching := context.WithCancel(ctx)
	defer endWatching()
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer endWatching()
	followers := make([]*follower, len(w.replicas))
	for i, r := range w.replicas {
		followers[i] = &follower{w: w, replica: r, since: since}
		watchers.Go(func() { followers[i].run(watching) })
	}
	watchers.Go(func() { w.watchLiveness(watching) })

	w.mu.Lock()
	w.begin = time.Now()
	w.mu.Unlock()
	load, endLoad := context.WithTimeout(ctx, o.Load)
	defer endLoad()
	var writing sync.WaitGroup
	clients := make([]*client, o.Clients)
	for i := range clients {
		clients[i] = newClient(w, i)
		writing.Go(func() { clients[i].run(load) })
	}
	if o.From != "" {
		if err := w.upgrade(ctx); err != nil {
			w.find("%v", err)
		}
	}
	w.breakThings(ctx, schedule)
	writing.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	mended := time.Now()
	w.say("load and faults are over")
	if err := w.settle(ctx, followers); err != nil {
		w.find("%v", err)
	}
	settled := time.Since(mended)
	last, err := w.check(ctx, clients, followers, since)
	if err != nil {
		return nil, err
	}
	endWatching()
	watchers.Wait()
	endHosts()
	hostsRunning.Wait()
	for _, r := range w.replicas {
		if err := r.stop(40 * time.Second); err != nil {
			w.find("%v", err)
		}
	}
	if o.From != "" {
		w.refusesNewer(ctx)
	}
	result = &Result{Database: o.Database, Seed: o.Seed, Faults: len(w.faults), Changes: last, Notifications: len(w.nova.all()), Moved: w.moved, Settled: settled, Findings: w.findings}
	for _, c := range clients {
		result.Acknowledged += c.counts.acknowledged
		result.Unknown += c.counts.unknown
		result.Unavailable += c.counts.unavailable
	}
	result.Repeated = w.nova.repeated
	for _, f := range w.findings {
		fmt.Fprintln(o.Out, "FINDING", f)
	}
	fmt.Fprintf(o.Out, "%s, seed %d: %d writes acknowledged, %d of unknown fate, %d findings\n", o.Database, o.Seed, result.Acknowledged, result.Unknown, len(w.findings))
	return result, nil
}

func (w *world) setUp(ctx context.Context) error {
	dir := filepath.Join(w.dir, "db")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var err error
	if w.database, err = newDatabase(ctx, w.o.Database, dir); err != nil {
		return err
	}
	if err := w.database.start(ctx); err != nil {
		return err
	}
	executable := w.o.Executable
	if executable == "" {
		if executable, err = os.Executable(); err != nil {
			return err
		}
	}
	for i := range w.o.Replicas {
		r := &replica{name: fmt.Sprintf("server-%d", i+1), dir: filepath.Join(w.dir, fmt.Sprint(i)), find: w.find}
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			return err
		}
		api, feed, err := freePorts()
		if err != nil {
			return err
		}
		if r.api, err = newProxy("tcp", fmt.Sprintf("127.0.0.1:%d", api)); err != nil {
			return err
		}
		if r.feed, err = newProxy("tcp", fmt.Sprintf("127.0.0.1:%d", feed)); err != nil {
			return err
		}
		if r.database, err = newProxy("unix", w.database.socket); err != nil {
			return err
		}
		file := filepath.Join(r.dir, "server.conf")
		text := fmt.Sprintf(`[DEFAULT]
auth_strategy = noauth
bind_port = %d
state_path = %s
agent_down_time = %d
send_events_interval = 1
[database]
connection = %s
retry_interval = 1
max_retries = -1
[isospin]
feed_listen = http://127.0.0.1:%d
[nova]
auth_type = none
endpoint_override = %s
[quotas]
quota_port = -1
quota_network = -1
quota_subnet = -1
quota_router = -1
quota_security_group = -1
quota_security_group_rule = -1
[ml2]
tenant_network_types = vxlan
[ml2_type_vxlan]
vni_ranges = 1:100000
`, api, r.dir, int(agentDown.Seconds()), w.database.through(r.database.address()), feed, w.nova.URL)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		r.file = file
		if w.o.From != "" && w.o.From != "self" {
			r.runs(w.o.From, true)
		} else {
			r.runs(executable, w.o.Executable != "")
		}
		w.replicas = append(w.replicas, r)
		if err := r.start(); err != nil {
			return err
		}
	}
	for _, r := range w.replicas {
		if err := w.eventually(ctx, 3*time.Minute, func() error { return w.answers(ctx, r) }); err != nil {
			text, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			return fmt.Errorf("%s does not start: %w\n%s", r.name, err, tail(text))
		}
	}
	if w.store, err = store.Open(ctx, store.Options{Connection: w.database.direct(), Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	for i := range 4 {
		var got struct{ Network struct{ ID string } }
		if err := w.ask(ctx, w.replicas[0], http.MethodPost, "/networks", map[string]any{"network": map[string]any{"name": fmt.Sprintf("shared-%d", i)}}, &got); err != nil {
			return err
		}
		if err := w.ask(ctx, w.replicas[0], http.MethodPost, "/subnets", map[string]any{"subnet": map[string]any{"network_id": got.Network.ID, "ip_version": 4, "cidr": fmt.Sprintf("10.%d.0.0/18", 200+i)}}, nil); err != nil {
			return err
		}
		w.networks = append(w.networks, got.Network.ID)
	}
	return nil
}

// Servers come back to their ports, so these are none that the kernel gives to
// connections (net.ipv4.ip_local_port_range begins at 32768).
const firstPort, lastPort = 20000, 32767

// freePorts are two that nobody listens on.
func freePorts() (a, b int, err error) {
	var ports []int
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if ports = append(ports, port); len(ports) == 2 {
			return ports[0], ports[1], nil
		}
	}
	return 0, 0, errors.New("no port is free")
}

// end ends everything that runs.
func (w *world) end() {
	if w.store != nil {
		w.store.Close()
	}
	for _, r := range w.replicas {
		if r.process != nil {
			r.process.kill()
		}
		for _, p := range []*proxy{r.api, r.feed, r.database} {
			if p != nil {
				p.close()
			}
		}
	}
	if w.database != nil && w.database.process != nil {
		w.database.process.kill()
	}
	w.nova.Close()
}

func (w *world) eventually(ctx context.Context, limit time.Duration, ok func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

var quick = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask asks a server and wants it to succeed.
func (w *world) ask(ctx context.Context, r *replica, method, path string, body, into any) error {
	status, _, answer, err := request(ctx, quick, method, "http://"+r.api.address()+"/v2.0"+path, body)
	if err != nil {
		return err
	}
	if status > 299 {
		return fmt.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (w *world) answers(ctx context.Context, r *replica) error {
	return w.ask(ctx, r, http.MethodGet, "/networks?fields=id&limit=1", nil, nil)
}

func (w *world) last(ctx context.Context) (n int64, err error) {
	err = w.store.View(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.LastSequence()
		return err
	})
	return n, err
}

// runHosts runs the simulated hosts until ctx ends.
func (w *world) runHosts(ctx context.Context) {
	var servers []string
	for _, r := range w.replicas {
		servers = append(servers, "http://"+r.feed.address())
	}
	dir := filepath.Join(w.dir, "hosts")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = simulate.Run(ctx, simulate.Options{
			Hosts: w.o.Hosts, NamePrefix: hostPrefix, Servers: servers, Directory: dir, ReportInterval: reports, Logger: slog.New(slog.DiscardHandler),
			Told: func(host string, state *runtime.State) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.states[host] = state
			},
		})
	}
	if err != nil && ctx.Err() == nil {
		w.find("the hosts ended: %v", err)
	}
}

type agents struct {
	Agents []struct {
		Host  string
		Type  string `json:"agent_type"`
		Alive bool
	}
}

// hostsAlive asks each server.
func (w *world) hostsAlive(ctx context.Context) error {
	for _, r := range w.replicas {
		var got agents
		if err := w.ask(ctx, r, http.MethodGet, "/agents?fields=host&fields=alive", nil, &got); err != nil {
			return err
		}
		alive := 0
		for _, a := range got.Agents {
			if a.Alive {
				alive++
			}
		}
		if alive != 4*w.o.Hosts {
			return fmt.Errorf("%s shows %d agents, %d alive, not %d", r.name, len(got.Agents), alive, 4*w.o.Hosts)
		}
	}
	return nil
}

// watchLiveness: every host reports all the time, whatever happens to servers: none of them may be shown as down.
func (w *world) watchLiveness(ctx context.Context) {
	for ctx.Err() == nil {
		for _, r := range w.replicas {
			var got agents
			if err := w.ask(ctx, r, http.MethodGet, "/agents?alive=false&fields=host&fields=agent_type", nil, &got); err == nil && len(got.Agents) > 0 {
				w.find("%s: %s shows %d, %s of %s among them", liveness, r.name, len(got.Agents), got.Agents[0].Type, got.Agents[0].Host)
				return
			}
			pause(ctx, 500*time.Millisecond)
		}
	}
}

// breakThings carries the schedule out and returns when all is mended.
func (w *world) breakThings(ctx context.Context, schedule []fault) {
	var all sync.WaitGroup
	defer all.Wait()
	databases := make(chan struct{}, 1) // one fault of it at a time
	busy := make([]sync.Mutex, len(w.replicas))
	for _, f := range schedule {
		pause(ctx, time.Until(w.begin.Add(f.At)))
		if ctx.Err() != nil {
			return
		}
		all.Go(func() {
			kind, lease, _ := strings.Cut(f.What, " ")
			switch {
			case lease == "database":
				databases <- struct{}{}
				w.breakDatabase(ctx, f, kind)
				<-databases
			case lease == "holder":
				w.breakHolder(ctx, f, kind, busy)
			default:
				if !busy[f.Replica].TryLock() {
					w.say("left out, the server is broken already:%s", f.String()[7:])
					return
				}
				defer busy[f.Replica].Unlock()
				w.breakReplica(ctx, f, w.replicas[f.Replica])
			}
		})
	}
}

func (w *world) note(f fault, about string) {
	w.mu.Lock()
	w.faults = append(w.faults, f.String())
	w.mu.Unlock()
	w.say("FAULT %s%s", f.String()[8:], about)
}

func (w *world) breakDatabase(ctx context.Context, f fault, kind string) {
	w.note(f, "")
	switch kind {
	case "kill":
		w.database.process.kill()
	case "restart":
		w.database.stop()
	case "pause":
		w.database.process.group(syscall.SIGSTOP)
		pause(ctx, f.For)
		w.database.process.group(syscall.SIGCONT)
		return
	case "hang": // what answers on connections is stopped as well: with PostgreSQL those are processes of their own
		for _, pid := range w.database.process.tree(syscall.SIGSTOP) {
			defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // it may have been ended
		}
		pause(ctx, f.For)
		return
	}
	pause(ctx, f.For)
	if err := w.database.start(ctx); err != nil && ctx.Err() == nil {
		w.find("the database does not start again: %v", err)
	}
}

func (w *world) breakReplica(ctx context.Context, f fault, r *replica) {
	w.note(f, "")
	switch f.What {
	case "kill":
		r.process.kill()
	case "terminate":
		if err := r.stop(40 * time.Second); err != nil {
			w.find("%v", err)
		}
	case "pause":
		r.process.group(syscall.SIGSTOP)
		pause(ctx, f.For)
		r.process.group(syscall.SIGCONT)
		return
	case "cut database connections":
		r.database.cut()
		return
	case "cut clients":
		r.api.cut()
		return
	case "cut hosts":
		r.feed.cut()
		return
	case "stall database connections":
		r.database.stall()
		pause(ctx, f.For)
		r.database.flow()
		return
	case "stall hosts":
		r.feed.stall()
		pause(ctx, f.For)
		r.feed.flow()
		return
	}
	pause(ctx, f.For)
	if err := r.start(); err != nil {
		w.find("%s does not start again: %v", r.name, err)
	}
}

// breakHolder kills or pauses the server that holds the lease of what runs once, and measures until another has it.
func (w *world) breakHolder(ctx context.Context, f fault, kind string, busy []sync.Mutex) {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	all, err := holders(limited, w.store)
	if err != nil {
		return // the database is away
	}
	holder := all["background"]
	i := slices.IndexFunc(w.replicas, func(r *replica) bool {
		return r.process != nil && strings.Contains(holder, fmt.Sprintf(":%d:", r.process.cmd.Process.Pid))
	})
	if i < 0 || !busy[i].TryLock() {
		return
	}
	defer busy[i].Unlock()
	r := w.replicas[i]
	w.note(f, " ("+r.name+")")
	begin := time.Now()
	mend := func() { r.process.group(syscall.SIGCONT) }
	if kind == "kill" {
		r.process.kill()
		mend = func() {
			if err := r.start(); err != nil {
				w.find("%s does not start again: %v", r.name, err)
			}
		}
	} else {
		r.process.group(syscall.SIGSTOP)
	}
	mended := time.AfterFunc(f.For, mend)
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		now, err := holders(limited, w.store)
		cancel()
		took := time.Since(begin)
		if err == nil && now["background"] != holder {
			w.mu.Lock()
			w.moved = max(w.moved, took)
			w.mu.Unlock()
			break
		}
		// A server that was paused for less than the lease's time keeps it.
		if kind == "pause" && took > f.For {
			break
		}
		if took > leaseMove+f.For {
			w.find("the lease is still %s's, %v after that was killed", r.name, took)
			break
		}
		pause(ctx, 50*time.Millisecond)
	}
	pause(ctx, time.Until(begin.Add(f.For+50*time.Millisecond)))
	if mended.Stop() {
		mend()
	}
}

// settle waits until everything is well.
func (w *world) settle(ctx context.Context, followers []*follower) error {
	deadline := time.Now().Add(w.o.Settle)
	for {
		err := func() error {
			for _, r := range w.replicas {
				if err := w.answers(ctx, r); err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
			}
			if err := w.hostsAlive(ctx); err != nil {
				return err
			}
			if err := w.portsActive(ctx); err != nil {
				return err
			}
			last, err := w.last(ctx)
			if err != nil {
				return err
			}
			for _, f := range followers {
				if at := f.at(); at < last {
					return fmt.Errorf("a watch of %s is at %d, not at %d", f.replica.name, at, last)
				}
			}
			return w.notified(ctx, last)
		}()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
		pause(ctx, 300*time.Millisecond)
	}
}

// notified tells whether all changes of ports are behind the cursor of what tells Nova.
func (w *world) notified(ctx context.Context, last int64) error {
	return w.store.View(ctx, func(tx *store.Tx) error {
		var cursor, wanted int64
		if err := tx.Row("SELECT last_sequence FROM notification_cursor WHERE consumer = 'nova'", nil, &cursor); err != nil {
			return err
		}
		if err := tx.Row("SELECT COALESCE(MAX(seq), 0) FROM event WHERE kind = 'port'", nil, &wanted); err != nil {
			return err
		}
		if cursor < wanted {
			return fmt.Errorf("notifications are at %d, not at %d", cursor, min(wanted, last))
		}
		return nil
	})
}

// recorder is a Nova that notes what it is told.
type recorder struct {
	*httptest.Server
	mu       sync.Mutex
	events   []notice
	requests int
	repeated int
}

type notice struct {
	Name, Tag string
	request   int
}

func newRecorder() *recorder {
	n := &recorder{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var body struct{ Events []notice }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			// The sender has ended meanwhile: nothing was told.
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		n.mu.Lock()
		n.requests++
		for _, e := range body.Events {
			e.request = n.requests
			n.events = append(n.events, e)
		}
		n.mu.Unlock()
		_, _ = io.WriteString(rw, `{"events": []}`)
	}))
	return n
}

func (n *recorder) all() []notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.events)
}

// follower is a client that watches the changes by way of one server, and goes on where it was.
type follower struct {
	w       *world
	replica *replica
	mu      sync.Mutex
	since   int64
	seen    []seen
}

type seen struct {
	sequence int64
	kind, id string
}

func (f *follower) at() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.follow(ctx)
		pause(ctx, 200*time.Millisecond)
	}
}

func (f *follower) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A heartbeat comes every 15 s.
	silence := time.AfterFunc(20*time.Second, cancel)
	defer silence.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/v2.0/watch?since=%d", f.replica.api.address(), f.at()), nil)
	if err != nil {
		f.w.find("%v", err)
		return
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		if answer.StatusCode != http.StatusServiceUnavailable {
			text, _ := io.ReadAll(answer.Body)
			f.w.find("watch since %d on %s: %d %s", f.at(), f.replica.name, answer.StatusCode, text)
			pause(ctx, time.Second)
		}
		return
	}
	lines := bufio.NewReader(answer.Body)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil { // also one that was cut off: it comes again
			return
		}
		silence.Reset(20 * time.Second)
		var line struct {
			Sequence int64
			Kind, ID string
			Error    json.RawMessage
		}
		if err := json.Unmarshal(text, &line); err != nil {
			f.w.find("a watch of %s shows %s", f.replica.name, text)
			return
		}
		if line.Error != nil {
			if !strings.Contains(string(line.Error), "ServiceUnavailable") {
				f.w.find("a watch of %s since %d ends with %s", f.replica.name, f.at(), line.Error)
				pause(ctx, time.Second)
			}
			return
		}
		f.mu.Lock()
		if line.Sequence < f.since || line.Kind != "" && line.Sequence == f.since {
			f.w.find("a watch of %s shows %d after %d", f.replica.name, line.Sequence, f.since)
		}
		f.since = line.Sequence
		if line.Kind != "" {
			f.seen = append(f.seen, seen{line.Sequence, line.Kind, line.ID})
		}
		f.mu.Unlock()
	}
}

func (w *world) stateOf(host string) *runtime.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[host]
}

var errUnsettled = errors.New("not well again in time")
