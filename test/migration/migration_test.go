package migration

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/internal/server"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

var (
	ports      = flag.Int("ports", 2000, "in the database")
	executable = flag.String("executable", "", "isospin binary whose db check is asked; default: not asked")
)

// beside begins the names of what clients make while tables are brought up to date.
const beside = "beside-"

// TestMigration goes through all for each kind of database, or the one that the environment chooses.
func TestMigration(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills databases")
	}
	for _, kind := range storetest.Kinds {
		if chosen := os.Getenv(storetest.Variable); chosen == "" || chosen == kind {
			t.Run(kind, func(t *testing.T) { migrate(t, kind) })
		}
	}
}

func migrate(t *testing.T, kind string) {
	older := os.Getenv(fromVariable)
	database := databases(t, kind)
	connection := database()
	begin := time.Now()
	p := startServer(t, connection, older)
	c := client{t, p.url}
	network := fill(c, min(made, *ports))
	multiply(t, connection, *ports)
	t.Logf("%d ports are made in %v", *ports, time.Since(begin).Round(time.Second))
	objects := listed(c)
	if len(objects["ports"]) < *ports {
		t.Fatalf("there are %d ports: %s", len(objects["ports"]), p.said())
	}
	p.stop(t)
	if older == "" {
		first := database()
		prefix(t, first)
		copyRows(t, connection, first)
		connection = first
	}
	check(t, connection, older == "", "to be upgraded")
	rows := storetest.Rows(t, connection)

	// Nobody beside.
	alone, _ := startUpgrade(t, connection, 1).wait(t)
	t.Logf("upgrade with nobody beside: %v", round(alone))
	after := storetest.Rows(t, connection)
	kept(t, "nobody beside", rows, after)
	check(t, connection, false, "fits this program")
	p = startServer(t, connection, "")
	same(t, "nobody beside", objects, listed(client{t, p.url}))
	if older != "" {
		p.stop(t)
		// Whether the older program starts on these tables depends on what has been added to them.
		if p = startServer(t, connection, older); ended(p) {
			t.Logf("%s does not start on upgraded tables: %s", older, p.said())
			p = startServer(t, connection, "")
		}
	}

	// Clients beside.
	load := startLoad(t, p.url, network)
	load.until(20)
	under, _ := startUpgrade(t, connection, 2).wait(t)
	load.until(20)
	load.stop()
	t.Logf("with clients: %v, longest write %v, longest read %v", round(under), round(load.longestWrite), round(load.longestRead))
	kept(t, "clients beside", stable(after), storetest.Rows(t, connection))
	same(t, "clients beside", objects, listed(client{t, p.url}))
	p.stop(t)

	// Killed in the middle: which moment that is differs from try to try.
	after = storetest.Rows(t, connection)
	killed, unfinished := 0, time.Duration(0)
	for steps := 3; killed < 3 && steps < 12; {
		u := startUpgrade(t, connection, steps)
		timer := time.AfterFunc(min(alone, under)*time.Duration(steps%3+1)/5, func() { _ = u.cmd.Process.Kill() }) // it may have ended
		_, ok := u.wait(t)
		timer.Stop()
		if ok || reached(t, connection, steps) {
			steps++
			continue
		}
		killed++
		kept(t, "killed", after, storetest.Rows(t, connection))
		unfinished, _ = startUpgrade(t, connection, steps).wait(t)
		steps++
	}
	if killed == 0 {
		t.Error("no upgrade was killed before its end: that shows nothing")
	}
	kept(t, "killed and begun again", after, storetest.Rows(t, connection))
	extra(t, connection)
	check(t, connection, false, "fits this program")
	p = startServer(t, connection, "")
	same(t, "killed and begun again", objects, listed(client{t, p.url}))
	p.stop(t)

	newer(t, connection)
	t.Logf("%s, %d ports: upgrade with nobody beside %v, with clients %v (longest write %v, longest read %v, %d requests, %d answered 503), begun again after kill -9 (%d times) %v",
		kind, *ports, round(alone), round(under), round(load.longestWrite), round(load.longestRead), load.done, load.unavailable, killed, round(unfinished))
}

// databases makes empty ones; many ports are in those of a server whose commits are durable.
func databases(t *testing.T, kind string) func() string {
	t.Helper()
	if *ports < 10000 || kind == storetest.SQLite {
		return func() string { return storetest.NewOf(t, kind) }
	}
	s, err := storetest.Serve(kind, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() string {
		connection, _, _, err := s.New()
		if err != nil {
			t.Fatal(err)
		}
		return connection
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func ended(p *process) bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// opened is a store of the test itself.
func opened(t *testing.T, connection string, do func(s *store.Store, schemas []store.Schema)) {
	t.Helper()
	schemas, err := server.Schemas()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	do(s, schemas)
}

// prefix makes the tables as each module's first step has them.
func prefix(t *testing.T, connection string) {
	t.Helper()
	opened(t, connection, func(s *store.Store, schemas []store.Schema) {
		for i := range schemas {
			schemas[i].Steps = schemas[i].Steps[:1]
		}
		if err := s.Upgrade(t.Context(), schemas...); err != nil {
			t.Fatal(err)
		}
	})
}

// check compares versions, and asks the program if there is one.
func check(t *testing.T, connection string, behind bool, words string) {
	t.Helper()
	opened(t, connection, func(s *store.Store, schemas []store.Schema) {
		versions, err := s.Versions(t.Context(), schemas...)
		if err != nil {
			t.Fatal(err)
		}
		older := slices.ContainsFunc(versions, func(v store.Version) bool { return v.Have < v.Want })
		if older && words == "fits this program" || !older && behind {
			t.Errorf("versions: %v", versions)
		}
		if words == "to be upgraded" && !older { // two releases whose tables are the same
			words = "fits this program"
		}
	})
	if *executable == "" {
		return
	}
	file := filepath.Join(t.TempDir(), "neutron.conf")
	if err := os.WriteFile(file, []byte("[database]\nconnection = "+connection+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(*executable, "db", "check", "--config-file", file).CombinedOutput()
	if (err == nil) != (words == "fits this program") || !strings.Contains(string(out), words) {
		t.Errorf("isospin db check: %v, not %q\n%s", err, words, out)
	}
}

// reached tells whether all steps of next have been carried out.
func reached(t *testing.T, connection string, steps int) (all bool) {
	t.Helper()
	opened(t, connection, func(s *store.Store, schemas []store.Schema) {
		versions, err := s.Versions(t.Context(), append(schemas, next(steps))...)
		if err != nil {
			t.Fatal(err)
		}
		all = versions[len(versions)-1].Have == steps
	})
	return all
}

// extra looks at what the steps of next have filled.
func extra(t *testing.T, connection string) {
	t.Helper()
	opened(t, connection, func(s *store.Store, _ []store.Schema) {
		if err := s.View(t.Context(), func(tx *store.Tx) error {
			var have, want, unset int
			if err := tx.Row("SELECT COUNT(*) FROM extra_2", nil, &have); err != nil {
				return err
			}
			if err := tx.Row("SELECT COUNT(*) FROM port", nil, &want); err != nil {
				return err
			}
			if err := tx.Row("SELECT COUNT(*) FROM port WHERE extra_2 = ''", nil, &unset); err != nil {
				return err
			}
			if have != want || unset != 0 {
				t.Errorf("of %d ports, an upgrade that was killed and begun again has copied %d, and left out %d", want, have, unset)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// newer shows that a program refuses tables of a release after it, in words, and changes nothing.
func newer(t *testing.T, connection string) {
	t.Helper()
	driver, source := storetest.Source(t, connection)
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE schema_version SET version = version + 1 WHERE module = 'core/port'"); err != nil {
		t.Fatal(err)
	}
	p := startServer(t, connection, "")
	if !ended(p) || !strings.Contains(p.said(), "core/port") || !strings.Contains(p.said(), "run the newer release") {
		t.Errorf("a server on tables of a newer release (ended: %t) says:\n%s", ended(p), p.said())
	}
	opened(t, connection, func(s *store.Store, schemas []store.Schema) {
		if err := s.Upgrade(t.Context(), schemas...); err == nil || !strings.Contains(err.Error(), "newer than this program knows") {
			t.Errorf("an upgrade of tables of a newer release: %v", err)
		}
	})
	check(t, connection, false, "newer than this program")
}

// stable are the rows that clients beside do not touch.
func stable(rows map[string]map[string]string) map[string]map[string]string {
	kept := map[string]map[string]string{}
	for table, all := range rows {
		switch table {
		// Numbers that count what clients do, and who takes care of what.
		case "quota_usage", "notification_cursor", "agent":
			continue
		}
		kept[table] = all
	}
	return kept
}

// load are clients that write and read until they are stopped.
type load struct {
	t    *testing.T
	end  context.CancelFunc
	all  sync.WaitGroup
	mu   sync.Mutex
	turn chan struct{}

	done, unavailable         int
	longestWrite, longestRead time.Duration
}

func startLoad(t *testing.T, url, network string) *load {
	ctx, end := context.WithCancel(t.Context())
	l := &load{t: t, end: end, turn: make(chan struct{}, 1)}
	t.Cleanup(l.stop)
	for i := range 3 {
		l.all.Go(func() {
			c := client{t, url}
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("%s%d-%d", beside, i, n)
				status, body, _ := l.call(c, &l.longestWrite, "POST", "ports", fmt.Sprintf(`{"port":{"network_id":%q,"name":%q}}`, network, name))
				if status != 201 {
					continue
				}
				_, rest, _ := strings.Cut(string(body), `"id":"`)
				id, _, _ := strings.Cut(rest, `"`)
				l.call(c, &l.longestRead, "GET", "ports/"+id, "")
				l.call(c, &l.longestWrite, "PUT", "ports/"+id, fmt.Sprintf(`{"port":{"description":"changed","name":%q}}`, name))
				if n%2 == 0 {
					l.call(c, &l.longestWrite, "DELETE", "ports/"+id, "")
				}
				l.call(c, &l.longestRead, "GET", "ports?limit=100&device_owner=compute:nova", "")
			}
		})
	}
	l.all.Go(func() { // one that does not wait for writes
		c := client{t, url}
		for ctx.Err() == nil {
			l.call(c, &l.longestRead, "GET", "ports?limit=10&device_owner=compute:nova", "")
		}
	})
	return l
}

// call counts a request; what is neither done nor told to come later is an error.
func (l *load) call(c client, longest *time.Duration, method, path, body string) (int, []byte, error) {
	begin := time.Now()
	status, text, err := c.do(method, path, body)
	l.mu.Lock()
	defer l.mu.Unlock()
	*longest = max(*longest, time.Since(begin))
	switch {
	case err != nil || status/100 != 2 && status != 503:
		l.t.Errorf("beside: %s %s: %d %s %v", method, path, status, text, err)
	case status == 503:
		l.unavailable++
	default:
		l.done++
		select {
		case l.turn <- struct{}{}:
		default:
		}
	}
	return status, text, err
}

// until waits for so many more requests that succeed.
func (l *load) until(n int) {
	l.t.Helper()
	deadline := time.After(2 * time.Minute)
	for range n {
		select {
		case <-l.turn:
		case <-deadline:
			l.t.Fatal(errors.New("clients do not go on"))
		}
	}
}

func (l *load) stop() {
	l.end()
	l.all.Wait()
}
