// Package servertest runs a whole API server inside of a test: a database in a
// temporary directory, the API on a free loopback port, the agents' feed on a
// Unix socket; and hosts that attach to it as agents do.
//
// It must not know any resource.
package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isospin/internal/config"
	"isospin/internal/server"
	"isospin/internal/store/storetest"
)

// Networks is a configuration with physical networks and tunnels, for most tests.
const Networks = `
[DEFAULT]
service_plugins = router,evpn
[ml2]
type_drivers = local,flat,vlan,vxlan,gre,geneve
tenant_network_types = vxlan
[ml2_type_flat]
flat_networks = *
[ml2_type_vlan]
network_vlan_ranges = physnet1:100:199,physnet2
[ml2_type_vxlan]
vni_ranges = 1:100000
[ml2_type_gre]
tunnel_id_ranges = 1:1000
[ml2_type_geneve]
vni_ranges = 1:1000
`

// Server is a running server.
type Server struct {
	*server.Server
	// URL of the API, without a slash at the end.
	URL string
	// Database file, if it is SQLite; Connection as [database] connection has it.
	Database, Connection string
	// Feed is the Unix socket of the agents' feed.
	Feed string

	client *http.Client
	stop   func()
}

// Start runs a server until the test ends. text is added to the configuration;
// sections may repeat those of it.
func Start(t testing.TB, text string) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), text)
}

// StartIn is Start in a directory that may hold the database of a former server.
func StartIn(t testing.TB, dir, text string) *Server {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("ISOSPIN_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return StartLogged(t, dir, text, logger)
}

// StartLogged is StartIn for a test of what the server's log says.
func StartLogged(t testing.TB, dir, text string, logger *slog.Logger) *Server {
	t.Helper()
	s := &Server{Database: filepath.Join(dir, "neutron.sqlite"), Connection: storetest.NewIn(t, dir), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	// Paths of sockets are short: a test's own directory may be too deep.
	sockets, err := os.MkdirTemp("", "feed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	s.Feed = filepath.Join(sockets, "s")
	cfg, err := config.FromText(fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_host = 127.0.0.1\nbind_port = 0\nstate_path = %s\n[database]\nconnection = %s\n[isospin]\nfeed_listen = unix:%s\n%s",
		dir, s.Connection, s.Feed, text))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.Server, err = server.New(ctx, server.Options{Config: cfg, Logger: logger})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	api, _ := s.Addresses()
	s.URL = "http://" + api.String()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		s.client.CloseIdleConnections()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server ended badly: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the server does not end")
		}
	}
	t.Cleanup(s.stop)
	return s
}

// Stop ends the server before the test does.
func (s *Server) Stop() { s.stop() }

// Answer is what the API said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Decode reads the JSON body.
func (a *Answer) Decode(into any) error { return json.Unmarshal(a.Body, into) }

// Error returns type and message of an error document; empty when it is none.
func (a *Answer) Error() (typ, message string) {
	var doc map[string]struct{ Type, Message string }
	if json.Unmarshal(a.Body, &doc) != nil {
		return "", ""
	}
	for _, e := range doc {
		return e.Type, e.Message
	}
	return "", ""
}

func (a *Answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Body) }

// Do sends a request whose path is below /v2.0, or begins with "//" for one
// that is not; header are "Name: value".
func (s *Server) Do(method, path, body string, header ...string) (*Answer, error) {
	at := s.URL + "/v2.0" + path
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		at = s.URL + "/" + rest
	}
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, at, reader)
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, v, _ := strings.Cut(h, ":")
		r.Header.Set(name, strings.TrimSpace(v))
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return &Answer{answer.StatusCode, answer.Header, bytes.TrimSpace(raw)}, err
}

// Must is Do for a request that succeeds with that status; it returns the
// decoded object inside of the answer's only member.
func (s *Server) Must(t testing.TB, status int, method, path, body string) map[string]any {
	t.Helper()
	a, err := s.Do(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != status {
		t.Fatalf("%s %s %s: %s", method, path, body, a)
	}
	var doc map[string]any
	if len(a.Body) > 0 {
		if err := a.Decode(&doc); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, a.Body)
		}
	}
	for _, inner := range doc {
		if o, ok := inner.(map[string]any); ok && len(doc) == 1 {
			return o
		}
	}
	return doc
}

// Settle waits until the feed has applied everything that is committed.
func (s *Server) Settle(t testing.TB) {
	t.Helper()
	last := s.LastSequence(t)
	Eventually(t, "the feed has applied all events", func() bool { return s.Hub.Sequence() >= last })
}

// Eventually waits for a condition, with a deadline.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to pass in time: %s", what)
		}
		time.Sleep(pause)
	}
}
