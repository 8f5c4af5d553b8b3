package store_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// relay passes connections on to a Unix socket while it is open.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	open     []net.Conn
}

func newRelay(t *testing.T, address, socket string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", socket)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, in, out)
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					_, _ = io.Copy(pair[0], pair[1]) // its end is what counts
					pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		r.close()
		all.Wait()
	})
	return r
}

func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		c.Close()
	}
}

// TestAway: while the database is away, transactions say so at once; when it is back, they go on.
func TestAway(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			u, err := url.Parse(storetest.NewOf(t, kind))
			if err != nil {
				t.Fatal(err)
			}
			socket, scheme := u.Query().Get("unix_socket"), "mysql://root@"
			if kind == storetest.PostgreSQL {
				socket, scheme = u.Query().Get("host")+"/.s.PGSQL.5432", "postgresql://isospin@"
			}
			r := newRelay(t, "127.0.0.1:0", socket)
			address := r.listener.Addr().String()
			s, err := store.Open(t.Context(), store.Options{Connection: scheme + address + "/" + strings.TrimPrefix(u.Path, "/"), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			if err := s.Upgrade(t.Context(), things); err != nil {
				t.Fatal(err)
			}
			if err := s.Tx(t.Context(), add("before")); err != nil {
				t.Fatal(err)
			}
			r.close()
			begin := time.Now()
			if err := s.Tx(t.Context(), add("without")); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("a write: %v", err)
			}
			if err := s.View(t.Context(), func(tx *store.Tx) error { _, err := tx.LastSequence(); return err }); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("a read: %v", err)
			}
			if d := time.Since(begin); d > 3*time.Second {
				t.Errorf("it took %v to say so", d)
			}
			newRelay(t, address, socket)
			if err := s.Tx(t.Context(), add("after")); err != nil {
				t.Fatal(err)
			}
			if ids, _ := stored(t, s); strings.Join(ids, " ") != "after before" {
				t.Errorf("stored are %v", ids)
			}
		})
	}
}

// TestSilent: a server that takes connections and says nothing, as one that hangs
// does, is away once the time to connect has passed.
func TestSilent(t *testing.T) {
	for _, scheme := range []string{"postgresql", "mysql"} {
		t.Run(scheme, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: the kernel does
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			begin := time.Now()
			s, err := store.Open(t.Context(), store.Options{
				Connection: scheme + "://u:p@" + l.Addr().String() + "/n?connect_timeout=1", Pool: store.Pool{Retries: store.NoRetries}, Logger: slog.New(slog.DiscardHandler),
			})
			if err == nil {
				s.Close()
			}
			if d := time.Since(begin); !errors.Is(err, store.ErrUnavailable) || d > 20*time.Second {
				t.Errorf("after %v: %v", d, err)
			}
		})
	}
}

// TestConnections: what a connection text says that is not understood is named; passwords are not.
func TestConnections(t *testing.T) {
	for connection, want := range map[string]string{
		"oracle://x": "not a database", "postgresql:x": "no URL", "postgresql://h": "name of the database", "mysql+pymysql://u:secret@h/n?charset=latin1": "charset is utf8mb4",
		"mysql://u:secret@h/n?colour=red": `no parameter "colour"`, "postgresql://u:secret@h/n?colour=red": `no parameter "colour"`, "mysql://u:secret@h/n?ssl_ca=/nowhere": "ssl_ca",
		"postgresql://u:secret@h/n?sslmode=perhaps": "sslmode", "mysql://u:sec%ret@h/n": "%XX", "mysql://u:secret@h/n?read_timeout=soon": "read_timeout is a number of seconds",
	} {
		_, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "[database] connection") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", connection, err)
		}
	}
}
