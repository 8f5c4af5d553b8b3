package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/internal/config"
	"isospin/internal/server"
	"isospin/internal/store/storetest"
)

// relay passes connections on to a database's socket, and can refuse to.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	away     bool
	left     int // connections until it is away; negative: no bound
	open     map[net.Conn]struct{}
}

func newRelay(t *testing.T, socket string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, left: -1, open: map[net.Conn]struct{}{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			away := r.away
			if r.left > 0 {
				r.left--
			}
			late := r.left == 0
			r.mu.Unlock()
			out, err := net.Dial("unix", socket)
			if away || err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.open[in], r.open[out] = struct{}{}, struct{}{}
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					_, _ = io.Copy(pair[0], pair[1]) // its end is what counts
					pair[0].Close()
				})
			}
			if late {
				r.cut(true)
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut(true)
		all.Wait()
	})
	return r
}

// cut ends all connections; away: there are no others until it is called again.
func (r *relay) cut(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.left = away, -1
	for c := range r.open {
		c.Close()
		delete(r.open, c)
	}
}

// behind makes a database of the kind and a relay in front of it.
func behind(t *testing.T, kind string) (*relay, string) {
	t.Helper()
	return inFront(t, kind, storetest.NewOf(t, kind))
}

// inFront makes a relay in front of a database, and returns the connection through it.
func inFront(t *testing.T, kind, connection string) (*relay, string) {
	t.Helper()
	u, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	socket, scheme := u.Query().Get("unix_socket"), "mysql+pymysql://root@"
	if kind == storetest.PostgreSQL {
		socket, scheme = u.Query().Get("host")+"/.s.PGSQL.5432", "postgresql://isospin@"
	}
	r := newRelay(t, socket)
	return r, scheme + r.listener.Addr().String() + "/" + strings.TrimPrefix(u.Path, "/")
}

func configuration(t *testing.T, connection string) *config.Config {
	t.Helper()
	c, err := config.FromText(fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_port = 0\n[database]\nconnection = %s\nretry_interval = 1\n[isospin]\nfeed_listen = http://127.0.0.1:0\n", connection))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDatabaseAway: while the database is away requests are answered 503 at
// once, and when it is back the next is served, without a restart.
func TestDatabaseAway(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			r, connection := behind(t, kind)
			s, err := server.New(t.Context(), server.Options{Config: configuration(t, connection), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			run(t, s)
			api, _ := s.Addresses()
			ask := func(method, body string) *http.Response {
				t.Helper()
				q, err := http.NewRequest(method, "http://"+api.String()+"/v2.0/networks", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				a, err := http.DefaultClient.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				a.Body.Close()
				return a
			}
			if a := ask("POST", `{"network": {"name": "before"}}`); a.StatusCode != 201 {
				t.Fatalf("before: %s", a.Status)
			}
			r.cut(true)
			for _, method := range []string{"POST", "GET"} {
				begin := time.Now()
				a := ask(method, `{"network": {}}`)
				if took := time.Since(begin); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || took > 5*time.Second {
					t.Errorf("%s without a database: %s, Retry-After %q, after %v", method, a.Status, a.Header.Get("Retry-After"), took)
				}
			}
			r.cut(false)
			for _, method := range []string{"POST", "GET"} {
				if a := ask(method, `{"network": {}}`); a.StatusCode > 201 {
					t.Errorf("%s with the database again: %s", method, a.Status)
				}
			}
		})
	}
}

// TestStartWhileAway: a server starts although the database goes away at any point of the start.
func TestStartWhileAway(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			r, connection := behind(t, kind)
			for i := range 2 {
				r.cut(false)
				r.mu.Lock()
				r.left = 1 + i
				r.mu.Unlock()
				back := time.AfterFunc(300*time.Millisecond, func() { r.cut(false) })
				s, err := server.New(t.Context(), server.Options{Config: configuration(t, connection), Logger: slog.New(slog.DiscardHandler)})
				back.Stop()
				if err != nil {
					t.Fatalf("away after %d connections: %v", 1+i, err)
				}
				run(t, s)()
			}
		})
	}
}

// TestOneServerOnSQLite: a second server on the file of an embedded database is refused with words.
func TestOneServerOnSQLite(t *testing.T) {
	c := configuration(t, "sqlite:///"+filepath.Join(t.TempDir(), "db.sqlite"))
	s, err := server.New(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	end := run(t, s)
	if _, err := server.New(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "SQLite is for one server") {
		t.Errorf("a second server: %v", err)
	}
	end()
	if s, err = server.New(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	run(t, s)
}

// TestSlowClients: clients that say or take next to nothing hold no connection for long.
func TestSlowClients(t *testing.T) {
	c := configuration(t, "sqlite:///"+filepath.Join(t.TempDir(), "db.sqlite"))
	s, err := server.New(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	limits := s.Limits()
	if limits.ReadHeader <= 0 || limits.ReadHeader > time.Minute || limits.Read <= 0 || limits.Read > 5*time.Minute || limits.Write <= 0 || limits.Idle <= 0 {
		t.Errorf("the limits of clients are %+v", limits)
	}
	s.SetLimits(server.Limits{ReadHeader: 300 * time.Millisecond, Read: 600 * time.Millisecond, Write: 900 * time.Millisecond, Idle: 300 * time.Millisecond})
	run(t, s)
	api, _ := s.Addresses()
	for what, text := range map[string]string{
		"no word":          "",
		"half a header":    "GET /v2.0/networks HTTP/1.1\r\nHost: x\r\n",
		"half a body":      "POST /v2.0/networks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		"no other request": "GET /v2.0/networks HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			conn, err := net.Dial("tcp", api.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays: %v", err)
			}
		})
	}
}

// run serves until the test, or the returned function, ends it.
func run(t *testing.T, s *server.Server) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("the server ended badly: %v", err)
				}
			case <-time.After(60 * time.Second):
				t.Error("the server does not end")
			}
		})
	}
	t.Cleanup(end)
	return end
}
