// Package cloudtest is a cloud of one service for tests: a Keystone that gives
// tokens, the service, which records requests and answers what the test says,
// and a server core whose changes a consumer follows.
//
// It must not know any consumer.
package cloudtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/internal/ext/exttest"
	"isospin/internal/lease"
	"isospin/internal/notify"
	"isospin/internal/store"
)

// Request that the service got.
type Request struct {
	Method, Path, Body string
	Header             http.Header
}

// Cloud is a Keystone and one service.
type Cloud struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	logins  int
	revoked int
	answer  func(r Request) (status int, body string)
	got     []Request
	arrived chan struct{}
}

// New starts a cloud whose catalog has the service at /service. Its end is the test's.
func New(t testing.TB, serviceType string, answer func(r Request) (int, string)) *Cloud {
	c := &Cloud{t: t, answer: answer, arrived: make(chan struct{}, 1)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("request: %v", err)
		}
		if r.URL.Path == "/identity/v3/auth/tokens" {
			c.mu.Lock()
			c.logins++
			token := fmt.Sprintf("token-%d", c.logins)
			c.mu.Unlock()
			if !strings.Contains(string(raw), `"password":"secret"`) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("X-Subject-Token", token)
			w.WriteHeader(http.StatusCreated)
			endpoint := func(interfaceName, region, url string) map[string]string {
				return map[string]string{"interface": interfaceName, "region": region, "url": url}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"token": map[string]any{"expires_at": time.Now().Add(time.Hour).UTC(), "catalog": []any{
				map[string]any{"type": serviceType, "endpoints": []any{
					endpoint("internal", "one", c.URL+"/wrong"), endpoint("public", "two", c.URL+"/wrong"), endpoint("public", "one", c.URL+"/service/"),
				}},
			}}})
			return
		}
		path, ours := strings.CutPrefix(r.URL.RequestURI(), "/service")
		if !ours {
			t.Errorf("request for %s", r.URL)
		}
		c.mu.Lock()
		valid := r.Header.Get("X-Auth-Token") == fmt.Sprintf("token-%d", c.logins) && c.revoked < c.logins
		q := Request{r.Method, path, string(raw), r.Header.Clone()}
		status, body := http.StatusUnauthorized, ""
		if valid {
			status, body = c.answer(q)
			c.got = append(c.got, q)
		}
		c.mu.Unlock()
		select {
		case c.arrived <- struct{}{}:
		default:
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(c.Close)
	return c
}

// Config is the section that reaches the service.
func (c *Cloud) Config(section string) string {
	return fmt.Sprintf("[%s]\nauth_url = %s/identity\nusername = neutron\npassword = secret\nproject_name = service\nregion_name = one\n", section, c.URL)
}

// Revoke makes the present token worthless.
func (c *Cloud) Revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked = c.logins
}

// Answer replaces how the service answers.
func (c *Cloud) Answer(answer func(r Request) (int, string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// Requests that the service got so far.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Request(nil), c.got...)
}

// Wait waits until enough of the requests satisfies.
func (c *Cloud) Wait(enough func([]Request) bool) []Request {
	c.t.Helper()
	deadline := time.NewTimer(exttest.Deadline)
	defer deadline.Stop()
	for {
		if got := c.Requests(); enough(got) {
			return got
		}
		select {
		case <-c.arrived:
		case <-deadline.C:
			c.t.Fatalf("what was waited for did not come; the service got %v", c.Requests())
		}
	}
}

// World is a core whose changes are followed.
type World struct {
	*exttest.Core
	t testing.TB
}

// NewWorld makes a core.
func NewWorld(t testing.TB, config string) *World {
	w := &World{exttest.New(t, exttest.Options{Config: config}), t}
	if err := w.Store.Upgrade(context.Background(), lease.Schema, notify.Schema); err != nil {
		t.Fatal(err)
	}
	return w
}

// Options of runners that wait for nothing longer than a test may.
func (w *World) Options(holder string) notify.Options {
	return notify.Options{
		Store: w.Store, Registry: w.Registry, Logger: w.Logger, Holder: holder,
		Lease: 3 * time.Second, Pause: 5 * time.Millisecond, MaxPause: 20 * time.Millisecond,
	}
}

// Run serves a consumer, from now on, until the test or the returned function ends it.
func Run[M any](w *World, o notify.Options, c notify.Consumer[M]) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		notify.New(o, c).Run(ctx)
	}()
	end = func() { cancel(); <-ended }
	w.t.Cleanup(end)
	w.Reached(c.Name(), 0)
	return end
}

// Reached waits until a consumer's cursor is at a sequence number.
func (w *World) Reached(consumer string, sequence int64) {
	w.t.Helper()
	deadline := time.Now().Add(exttest.Deadline)
	for {
		cursor := int64(-1)
		err := w.Store.View(context.Background(), func(tx *store.Tx) error {
			err := tx.Row("SELECT last_sequence FROM notification_cursor WHERE consumer = ?", []any{consumer}, &cursor)
			if err == store.ErrNoRow {
				err = nil
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if cursor >= sequence {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the cursor of %s is at %d, not %d", consumer, cursor, sequence)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Seize gives a consumer's lease to another holder, as if time had passed.
func (w *World) Seize(consumer, holder string) {
	w.t.Helper()
	err := w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE lease SET holder = ?, beat = beat + 1 WHERE name = ?", holder, "notify/"+consumer)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
