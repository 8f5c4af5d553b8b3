package store_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"slices"
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
	// speaks is closed while bytes pass.
	speaks chan struct{}
}

// silence keeps all bytes until speak; connections stay, and new ones are taken.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.speaks = make(chan struct{})
}

func (r *relay) speak() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.speaks:
	default:
		close(r.speaks)
	}
}

func (r *relay) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		speaks := r.speaks
		r.mu.Unlock()
		if <-speaks; err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func newRelay(t *testing.T, address, socket string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, speaks: make(chan struct{})}
	r.speak()
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
					r.pass(pair[0], pair[1])
					pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		r.close()
		r.speak()
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

// relayed is a store with the schema of things whose database is reached by way of a relay to a socket.
func relayed(t *testing.T, connection string, o store.Options) (*store.Store, *relay, string) {
	t.Helper()
	u, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	socket, scheme := u.Query().Get("unix_socket"), "mysql://root@"
	if strings.HasPrefix(u.Scheme, "postgres") {
		socket, scheme = u.Query().Get("host")+"/.s.PGSQL.5432", "postgresql://isospin@"
	}
	r := newRelay(t, "127.0.0.1:0", socket)
	o.Connection = scheme + r.listener.Addr().String() + "/" + strings.TrimPrefix(u.Path, "/") + "?connect_timeout=1"
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context(), things); err != nil {
		t.Fatal(err)
	}
	return s, r, socket
}

func last(tx *store.Tx) error { _, err := tx.LastSequence(); return err }

// records counts what is logged at levels from Info on.
type records struct {
	slog.Handler
	mu   sync.Mutex
	seen []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	if record.Level >= slog.LevelInfo {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, record.Level.String()+" "+record.Message)
	}
	return nil
}

// TestHangs: when the database falls silent and keeps its connections, what
// waits for it is told so within seconds, whatever comes then at once, and when
// it speaks again transactions go on. What was acknowledged is there, and a
// commit whose outcome nobody knows is not repeated.
func TestHangs(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			log := &records{}
			s, r, _ := relayed(t, storetest.NewOf(t, kind), store.Options{Logger: slog.New(log), Pool: store.Pool{Size: 3, Overflow: 2}})
			// hang lets the database fall silent under transactions, whose errors come by their names.
			hang := func(under map[string]func(silence func()) error) {
				t.Helper()
				var ready, all sync.WaitGroup
				ready.Add(len(under))
				silent := make(chan struct{})
				begin := time.Now()
				for name, do := range under {
					all.Go(func() {
						var once sync.Once
						err := do(func() {
							once.Do(ready.Done)
							<-silent
						})
						if !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("%s under way: %v", name, err)
						}
					})
				}
				ready.Wait()
				r.silence()
				close(silent)
				for range 20 { // more than there may be connections
					all.Go(func() {
						if err := s.View(t.Context(), last); !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("a read: %v", err)
						}
					})
				}
				if all.Wait(); time.Since(begin) > 20*time.Second {
					t.Errorf("those under way were told after %v", time.Since(begin))
				}
				begin = time.Now()
				for range 10 {
					if err := s.Tx(t.Context(), add("without")); !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("a write: %v", err)
					}
					if err := s.View(t.Context(), last); !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("a read: %v", err)
					}
				}
				if d := time.Since(begin); d > 5*time.Second { // each would wait a second for a connection
					t.Errorf("20 transactions were told after %v", d)
				}
				r.speak()
				begin = time.Now()
				for err := error(store.ErrUnavailable); err != nil; {
					if err = s.View(t.Context(), last); err != nil && time.Since(begin) > 20*time.Second {
						t.Fatalf("it speaks again: %v", err)
					}
				}
			}
			for range 2 { // also again
				if err := s.Tx(t.Context(), add("before")); err != nil && !errors.Is(err, store.ErrDuplicate) {
					t.Fatal(err)
				}
				hang(map[string]func(silence func()) error{
					"a read": func(silence func()) error {
						return s.View(t.Context(), func(tx *store.Tx) error {
							if err := last(tx); err != nil {
								return err
							}
							silence()
							return last(tx)
						})
					},
					"a write": func(silence func()) error {
						return s.Tx(t.Context(), func(tx *store.Tx) error {
							if err := add("lost")(tx); err != nil {
								return err
							}
							if err := last(tx); err != nil {
								return err
							}
							silence()
							return last(tx)
						})
					},
				})
			}
			runs := 0
			hang(map[string]func(silence func()) error{"a commit": func(silence func()) error {
				return s.Tx(t.Context(), func(tx *store.Tx) error {
					runs++
					if _, err := tx.Exec("INSERT INTO thing (id, name) VALUES (?, ?)", "unknown", "unknown"); err != nil {
						return err
					}
					if err := last(tx); err != nil {
						return err
					}
					silence()
					return nil
				})
			}})
			if runs != 1 {
				t.Errorf("a transaction whose commit was under way ran %d times", runs)
			}
			if err := s.Tx(t.Context(), add("after")); err != nil {
				t.Fatal(err)
			}
			ids, _ := stored(t, s)
			ids = slices.DeleteFunc(ids, func(id string) bool { return id == "unknown" })
			if strings.Join(ids, " ") != "after before" {
				t.Errorf("stored are %v", ids)
			}
			want := slices.Repeat([]string{"WARN the database does not answer: nobody waits for it until it does", "INFO the database answers again"}, 3)
			if log.mu.Lock(); !slices.Equal(log.seen, want) {
				t.Errorf("logged is %q", log.seen)
			}
			log.mu.Unlock()
		})
	}
}

// TestTakesItsTime: neither a statement that takes longer than silence may last, nor one that waits for a lock, is cut while the server answers others.
func TestTakesItsTime(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			connection := storetest.NewOf(t, kind)
			s, _, _ := relayed(t, connection, store.Options{Logger: slog.New(slog.DiscardHandler)})
			lock, sleep := "UPDATE commit_order SET number = number + 1", "SELECT SLEEP(7)"
			if kind == storetest.PostgreSQL {
				lock, sleep = "SELECT pg_advisory_xact_lock(7303015)", "SELECT pg_sleep(7)::text"
			}
			db, err := sql.Open(storetest.Source(t, connection))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			other, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Exec(lock); err != nil {
				t.Fatal(err)
			}
			var waiting sync.WaitGroup
			waiting.Go(func() {
				if err := s.Tx(t.Context(), add("patient")); err != nil {
					t.Errorf("waiting for a lock: %v", err)
				}
			})
			runs := 0
			if err := s.View(t.Context(), func(tx *store.Tx) error {
				runs++
				var answer string
				return tx.Row(sleep, nil, &answer)
			}); err != nil || runs != 1 {
				t.Errorf("a long statement: %v, carried out %d times", err, runs)
			}
			if err := other.Rollback(); err != nil {
				t.Error(err)
			}
			waiting.Wait()
			if ids, _ := stored(t, s); strings.Join(ids, " ") != "patient" {
				t.Errorf("stored are %v", ids)
			}
		})
	}
}

// TestAway: while the database is away, transactions say so at once; when it is back, they go on.
func TestAway(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			s, r, socket := relayed(t, storetest.NewOf(t, kind), store.Options{Logger: slog.New(slog.DiscardHandler)})
			address := r.listener.Addr().String()
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
