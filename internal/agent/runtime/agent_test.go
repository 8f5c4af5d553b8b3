package runtime

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"isospin/api/feed"
	"isospin/api/feed/feedconnect"
)

const deadline = 10 * time.Second

// server is the other end of agents' streams. A test talks through it by hand.
type server struct {
	t       testing.TB
	socket  string
	http    *http.Server
	streams chan *conversation
}

// conversation is one stream as the server sees it.
type conversation struct {
	t     testing.TB
	hello *feed.Hello
	from  chan *feed.AgentMessage
	to    chan *feed.ServerMessage // closing it ends the stream
}

func newServer(t testing.TB, socket string) *server {
	t.Helper()
	s := &server{t: t, socket: socket, streams: make(chan *conversation, 10)}
	s.listen()
	t.Cleanup(s.stop)
	return s
}

func (s *server) listen() {
	s.t.Helper()
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(feedconnect.NewFeedHandler(s))
	s.http = &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	s.http.Protocols.SetUnencryptedHTTP2(true)
	go s.http.Serve(listener)
}

func (s *server) stop() { s.http.Close() }

// Attach implements the feed service.
func (s *server) Attach(ctx context.Context, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage]) error {
	msg, err := stream.Receive()
	if err != nil {
		return err
	}
	c := &conversation{t: s.t, hello: msg.GetHello(), from: make(chan *feed.AgentMessage, 1000), to: make(chan *feed.ServerMessage)}
	s.streams <- c
	go func() {
		defer close(c.from)
		for {
			msg, err := stream.Receive()
			if err != nil {
				return
			}
			c.from <- msg
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg, ok := <-c.to:
			if !ok {
				return nil
			}
			if err := stream.Send(msg); err != nil {
				return err
			}
		}
	}
}

func (s *server) accept() *conversation { return expect(s.t, s.streams, "an agent's stream") }

func (c *conversation) send(msg *feed.ServerMessage) {
	c.t.Helper()
	select {
	case c.to <- msg:
	case <-time.After(deadline):
		c.t.Fatal("the agent does not take messages")
	}
}

// report is the next one, heartbeats are skipped.
func (c *conversation) report() []*feed.Applied {
	c.t.Helper()
	for {
		if r := expect(c.t, c.from, "a report").GetReport(); r != nil {
			return r.Applied
		}
	}
}

func expect[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatalf("%s: the stream has ended", what)
		}
		return v
	case <-time.After(deadline):
		t.Fatalf("%s did not come", what)
	}
	panic("unreachable")
}

// host is a running agent with one fake feature that wires every port.
type host struct {
	*Agent
	feature *fake
	log     *log
	stop    func()
}

func newHost(t testing.TB, dir, socket string, change func(*Options)) *host {
	t.Helper()
	h := &host{feature: newFake(), log: new(log)}
	h.feature.apply = func(_ int, want *State, changes Changes) (results []*feed.Applied, err error) {
		for id, p := range want.Ports {
			if _, named := changes.Ports[id]; named || changes.All {
				results = append(results, applied(id, p.Revision, feed.State_STATE_ACTIVE))
			}
		}
		return results, nil
	}
	options := Options{
		Environment: Environment{Host: "host-1", StateDir: dir, Logger: slog.New(slog.NewTextHandler(h.log, nil))},
		Servers:     []string{"unix://" + socket}, BinaryVersion: "test",
		ReconnectMin: 10 * time.Millisecond, ReconnectMax: 20 * time.Millisecond,
	}
	if change != nil {
		change(&options)
	}
	var err error
	if h.Agent, err = New(options); err != nil {
		t.Fatal(err)
	}
	h.addRunner("fake", h.feature, options.Logger)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			if err := expect(t, done, "end of the agent"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(h.stop)
	return h
}

// log keeps what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (h *host) nextApply(t *testing.T) call {
	t.Helper()
	expect(t, h.feature.called, "a call of Apply")
	calls := h.feature.seen()
	return calls[len(calls)-1]
}

func TestAttachDeltaReconnectResume(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, nil)

	c := s.accept()
	if c.hello.Host != "host-1" || c.hello.BinaryVersion != "test" || len(c.hello.Have) != 0 {
		t.Fatalf("hello %v", c.hello)
	}
	if len(c.hello.Functions) != 1 || c.hello.Functions[0].AgentType != "Fake agent" {
		t.Fatalf("hello's functions %v", c.hello.Functions)
	}
	c.send(&feed.ServerMessage{Sequence: 1, Upserts: []*feed.Object{port("p1", 1)}})
	c.send(&feed.ServerMessage{Sequence: 2, Upserts: []*feed.Object{port("p2", 4)}, Synced: true, AdminStateUp: map[string]bool{"Fake agent": false}})
	if got := c.report(); len(got) != 2 {
		t.Fatalf("reported %v, want both ports", got)
	}
	if first := h.feature.seen()[0]; !first.changes.All || len(first.want.Ports) != 2 || first.want.AdminStateUp["Fake agent"] {
		t.Fatalf("first call %+v", first)
	}
	c.send(&feed.ServerMessage{Sequence: 3, Upserts: []*feed.Object{port("p1", 2)}})
	if got := c.report(); len(got) != 1 || got[0].Id != "p1" || got[0].Revision != 2 {
		t.Fatalf("reported %v, want p1 in revision 2", got)
	}

	// The stream breaks; the next one begins with what is held and what was done.
	close(c.to)
	c = s.accept()
	have := map[string]uint64{}
	for _, held := range c.hello.Have {
		have[held.Id] = held.Version
	}
	if len(have) != 2 || have["p1"] != 2 || have["p2"] != 4 {
		t.Fatalf("held %v", have)
	}
	if got := c.report(); len(got) != 2 {
		t.Fatalf("reported on the new stream: %v", got)
	}
	for len(h.feature.called) > 0 {
		<-h.feature.called
	}
	c.send(&feed.ServerMessage{Sequence: 9, Deletes: []*feed.ObjectKey{{Kind: feed.Kind_KIND_PORT, Id: "p2"}}})
	c.send(&feed.ServerMessage{Sequence: 9, Upserts: []*feed.Object{port("p3", 1)}, Synced: true})
	last := h.nextApply(t)
	if last.changes.All || len(last.changes.Ports) != 2 || len(last.want.Ports) != 2 || last.want.Ports["p2"] != nil {
		t.Fatalf("after the resume: %+v, want exactly changes of p2 and p3", last)
	}
	h.stop()
	if !h.feature.stopped {
		t.Error("feature was not stopped")
	}
}

func TestServerThatIsAwayChangesNothing(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, nil)
	c := s.accept()
	c.send(&feed.ServerMessage{Upserts: []*feed.Object{port("p1", 1)}, Synced: true})
	c.report()
	<-h.feature.called
	s.stop()
	expectLog(t, h, "the host stays as it is")
	h.feature.wake()
	if got := h.nextApply(t); len(got.want.Ports) != 1 || !got.changes.Empty() {
		t.Fatalf("without a server: %+v", got)
	}
	os.Remove(socket)
	s.listen()
	c = s.accept()
	if len(c.hello.Have) != 1 {
		t.Fatalf("held %v", c.hello.Have)
	}
}

func TestStartsFromDiskWithoutServer(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, nil)
	c := s.accept()
	c.send(&feed.ServerMessage{Synced: true, AdminStateUp: map[string]bool{"L3 agent": false}, Upserts: []*feed.Object{port("p1", 7),
		{Version: 3, Body: &feed.Object_AddressSet{AddressSet: &feed.AddressSet{Id: "s", Addresses: []string{"10.0.0.1", "10.0.0.2"}}}},
		{Version: 4, Body: &feed.Object_Forwarding{Forwarding: &feed.Forwarding{NetworkId: "n", Entries: []*feed.ForwardingEntry{{PortId: "x", TunnelIp: "192.0.2.1"}}}}}}})
	c.report()
	c.send(&feed.ServerMessage{AddressSetDeltas: []*feed.AddressSetDelta{{Id: "s", Version: 5, Adds: []string{"10.0.0.3"}, Deletes: []string{"10.0.0.1"}}}})
	for h.nextApply(t).changes.All {
	}
	before := h.desired.state()
	h.stop() // saves at once
	s.stop()

	info, err := os.Stat(filepath.Join(dir, stateFileName))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("state file: %v, %v", info, err)
	}
	again := newHost(t, dir, socket, nil)
	got := again.nextApply(t)
	if !got.changes.All {
		t.Errorf("changes %+v, want All", got.changes)
	}
	if diff := diffStates(before, got.want); diff != "" {
		t.Fatalf("state from disk (-before +after):\n%s", diff)
	}
	if err := again.Ready(); err != nil {
		t.Errorf("not ready without a server: %v", err)
	}
	os.Remove(socket)
	s.listen()
	c = s.accept()
	have := map[objectKey]uint64{}
	for _, held := range c.hello.Have {
		have[objectKey{held.Kind, held.Id}] = held.Version
	}
	if len(have) != 3 || have[objectKey{feed.Kind_KIND_ADDRESS_SET, "s"}] != 5 || have[objectKey{feed.Kind_KIND_PORT, "p1"}] != 7 {
		t.Fatalf("held %v", have)
	}
	if got := c.report(); len(got) != 1 || got[0].Revision != 7 {
		t.Fatalf("reported %v", got)
	}
}

func TestStateFileThatCannotBeUsedIsReportedAndIgnored(t *testing.T) {
	good, err := encodeState(&feed.Hello{Host: "host-1"}, messages(&State{Ports: map[string]*feed.Port{"p": {Id: "p", Name: "front"}}}, nil, 10))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := decodeState(good, "host-1"); err != nil || len(list) != 2 {
		t.Fatalf("the file is good: %v, %v", list, err)
	}
	flipped := bytes.Clone(good)
	flipped[bytes.Index(good, []byte("front"))] ^= 1 // still a message, of a port that nobody made
	other, _ := encodeState(&feed.Hello{Host: "host-2"}, messages(&State{}, nil, 10))
	unfinished, _ := encodeState(&feed.Hello{Host: "host-1"}, nil)
	for name, data := range map[string][]byte{
		"empty": {}, "other file": []byte("[DEFAULT]\nhost = x\n"), "short": good[:len(good)-1], "header only": good[:len(stateFileFormat)],
		"flipped bit": flipped, "of another host": other, "without end": unfinished,
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, stateFileName), data, 0o600); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(dir, "feed.sock")
			s := newServer(t, socket)
			h := newHost(t, dir, socket, nil)
			c := s.accept()
			if len(c.hello.Have) != 0 {
				t.Fatalf("held %v", c.hello.Have)
			}
			if n := len(h.feature.seen()); n != 0 {
				t.Fatalf("%d calls of Apply without a state", n)
			}
			h.stop()
			if !strings.Contains(h.log.String(), "saved state cannot be used") {
				t.Errorf("not reported:\n%s", h.log)
			}
		})
	}
}

func FuzzDecodeState(f *testing.F) {
	good, _ := encodeState(&feed.Hello{Host: "h"}, messages(&State{Ports: map[string]*feed.Port{"p": {Id: "p"}}}, nil, 10))
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := decodeState(data, "h"); err == nil && len(list) == 0 {
			t.Error("neither messages nor an error")
		}
	})
}

func TestHeartbeatCarriesWhatChanged(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, func(o *Options) { o.ReportInterval = 20 * time.Millisecond })
	c := s.accept()
	c.send(&feed.ServerMessage{Synced: true})
	if beat := expect(t, c.from, "a heartbeat").GetHeartbeat(); beat == nil || len(beat.Functions) != 0 {
		t.Fatalf("heartbeat %v, want an empty one", beat)
	}
	h.feature.describe(&feed.Function{AgentType: "Fake agent", Configurations: `{"bridge_mappings":{"physnet1":"br-ex"}}`})
	for {
		beat := expect(t, c.from, "a heartbeat").GetHeartbeat()
		if len(beat.GetFunctions()) > 0 {
			if !strings.Contains(beat.Functions[0].Configurations, "physnet1") {
				t.Fatalf("heartbeat %v", beat)
			}
			break
		}
	}
	if beat := expect(t, c.from, "a heartbeat").GetHeartbeat(); len(beat.GetFunctions()) != 0 {
		t.Fatalf("heartbeat %v repeats a function", beat)
	}
}

func TestDeltaWithoutItsObjectOpensANewStream(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, nil)
	c := s.accept()
	c.send(&feed.ServerMessage{Synced: true, Upserts: []*feed.Object{port("p1", 1)}})
	c.report()
	c.send(&feed.ServerMessage{ForwardingDeltas: []*feed.ForwardingDelta{{NetworkId: "n", Version: 2, DeletePortIds: []string{"x"}}}})
	c = s.accept()
	if len(c.hello.Have) != 1 || c.hello.Have[0].Id != "p1" {
		t.Fatalf("held %v, want only p1", c.hello.Have)
	}
	expectLog(t, h, "delta for an object that is not held")
}

func TestSecondAgentOfAHostIsRefused(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(t, socket)
	h := newHost(t, dir, socket, nil)
	s.accept()
	second, err := New(h.options)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("error %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Environment: Environment{Host: "h", StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)},
		Servers: []string{"http://127.0.0.1:9697", "http://localhost:1", "http://[::1]:1", "unix:///run/x.sock"}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"no host":          func(o *Options) { o.Host = "" },
		"absolute":         func(o *Options) { o.StateDir = "state" },
		"no server":        func(o *Options) { o.Servers = nil },
		"loopback":         func(o *Options) { o.Servers = []string{"http://192.0.2.1:9697"} },
		"certificate":      func(o *Options) { o.Servers = []string{"https://net.example.org"} },
		"unix, http":       func(o *Options) { o.Servers = []string{"tcp://x"} },
		`no feature "no"`:  func(o *Options) { o.Features = []string{"no"} },
		"path/to/socket":   func(o *Options) { o.Servers = []string{"unix:relative"} },
		"server address: ": func(o *Options) { o.Servers = []string{"http://a b"} },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestSharedIsBuiltOnce(t *testing.T) {
	env := Environment{shared: newSharedValues()}
	builds := 0
	closed := &closer{}
	build := func(ctx context.Context) (*closer, error) {
		if builds++; builds == 1 {
			return nil, errors.New("not yet")
		}
		return closed, nil
	}
	if _, err := Shared(env, build); err == nil {
		t.Fatal("no error")
	}
	for range 2 {
		if c, err := Shared(env, build); err != nil || c != closed {
			t.Fatal(c, err)
		}
	}
	env.shared.close(slog.New(slog.DiscardHandler))
	if builds != 2 || closed.times != 1 {
		t.Fatalf("%d builds, closed %d times", builds, closed.times)
	}
}

type closer struct{ times int }

func (c *closer) Close() error { c.times++; return nil }

func TestRegisterTwicePanics(t *testing.T) {
	defer delete(factories, "test")
	Register("test", nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Register("test", nil)
}

func expectLog(t *testing.T, h *host, text string) {
	t.Helper()
	for end := time.Now().Add(deadline); ; goruntime.Gosched() {
		if strings.Contains(h.log.String(), text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("log has no %q:\n%s", text, h.log.String())
		}
	}
}

// noLeaks fails the test if goroutines of this package outlive it.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var stacks string
		for end := time.Now().Add(deadline); time.Now().Before(end); goruntime.Gosched() {
			buf := make([]byte, 1<<20)
			stacks = string(buf[:goruntime.Stack(buf, true)])
			leaked := false
			for _, one := range strings.Split(stacks, "\n\n")[1:] {
				if strings.Contains(one, "internal/agent/runtime.(*Agent)") || strings.Contains(one, "internal/agent/runtime.(*runner)") {
					leaked = true
				}
			}
			if !leaked {
				return
			}
		}
		t.Errorf("goroutines are left:\n%s", stacks)
	})
}
