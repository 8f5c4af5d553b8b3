package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/api/neutron"
	"isospin/internal/server"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// follower watches networks as clients do: when a watch ends it goes on from
// the last line that it took, unless it is told to list anew.
type follower struct {
	client *neutron.Client

	mu      sync.Mutex
	since   int64
	told    []string // ids
	numbers []int64
	ends    []error
	again   context.CancelFunc
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		one, again := context.WithCancel(ctx)
		f.mu.Lock()
		since := f.since
		f.again = again
		f.mu.Unlock()
		err := f.client.Watch(one, neutron.WatchOptions{Since: &since, Kinds: []string{"network"}}, func(c *neutron.Change) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.since = c.Sequence
			if c.Kind != "" {
				f.told, f.numbers = append(f.told, c.ID), append(f.numbers, c.Sequence)
			}
			return nil
		})
		again()
		f.mu.Lock()
		f.ends = append(f.ends, err)
		f.mu.Unlock()
		var fault *neutron.Error
		if errors.As(err, &fault) && fault.Status == http.StatusGone {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// reconnect ends the watch that there is; the next goes on from its last line.
func (f *follower) reconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.again != nil {
		f.again()
	}
}

// TestWatchWhileDatabaseAway: the database goes away from the server that is
// watched while others change things at another; a watch tells of each change
// once and in order, and one that ends says so and can be gone on with.
func TestWatchWhileDatabaseAway(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			direct := storetest.NewOf(t, kind)
			r, through := inFront(t, kind, direct)
			start := func(connection string) string {
				s, err := server.New(t.Context(), server.Options{Config: configuration(t, connection), Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				run(t, s)
				api, _ := s.Addresses()
				return "http://" + api.String()
			}
			watched, written := start(through), start(direct)
			answer, err := http.Get(watched + "/v2.0/networks")
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			steady, restless := &follower{client: &neutron.Client{Endpoint: watched}}, &follower{client: &neutron.Client{Endpoint: watched}}
			ctx, cancel := context.WithCancel(t.Context())
			var following sync.WaitGroup
			defer following.Wait()
			defer cancel()
			for _, f := range []*follower{steady, restless} {
				if _, err := fmt.Sscan(answer.Header.Get("X-Isospin-Sequence"), &f.since); err != nil {
					t.Fatal(err)
				}
				following.Go(func() { f.run(ctx) })
			}
			var made []string
			write := func(n int) {
				t.Helper()
				for range n {
					a, err := http.Post(written+"/v2.0/networks", "application/json", strings.NewReader(`{"network": {}}`))
					if err != nil {
						t.Fatal(err)
					}
					var doc struct{ Network struct{ ID string } }
					err = json.NewDecoder(a.Body).Decode(&doc)
					a.Body.Close()
					if err != nil || a.StatusCode != 201 {
						t.Fatal(a.Status, err)
					}
					made = append(made, doc.Network.ID)
				}
			}
			write(10)
			for range 3 {
				// Connections are cut, and can be made again.
				r.cut(false)
				write(3)
				restless.reconnect()
				write(3)
			}
			r.cut(true)
			write(10)
			restless.reconnect()
			write(10)
			r.cut(false)
			write(10)
			for name, f := range map[string]*follower{"the steady": steady, "the restless": restless} {
				deadline := time.Now().Add(60 * time.Second)
				for {
					f.mu.Lock()
					told, numbers, ends := slices.Clone(f.told), slices.Clone(f.numbers), slices.Clone(f.ends)
					f.mu.Unlock()
					if len(told) < len(made) && time.Now().Before(deadline) {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					if !slices.Equal(told, made) {
						t.Errorf("%s follower was told of %d changes, there were %d; its watches ended: %v\ntold %v\nmade %v", name, len(told), len(made), ends, told, made)
					}
					if !slices.IsSorted(numbers) || len(slices.Compact(slices.Clone(numbers))) != len(numbers) {
						t.Errorf("%s follower's numbers are %v", name, numbers)
					}
					for _, err := range ends {
						var fault *neutron.Error
						if err != nil && !errors.Is(err, context.Canceled) && (!errors.As(err, &fault) || fault.Type != "ServiceUnavailable" && fault.Type != "WatchTooSlow") {
							t.Errorf("%s follower's watch ended with %v", name, err)
						}
					}
					break
				}
			}
		})
	}
}

// TestLostCommits: a database that has lost its latest commits, as when a standby
// takes over or a copy is restored, is noticed by a server that runs, and by one
// that starts: watches at numbers that it does not have are refused, and hosts
// are told what there is.
func TestLostCommits(t *testing.T) {
	for _, kind := range storetest.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Setenv(storetest.Variable, kind)
			dir := t.TempDir()
			s := servertest.StartIn(t, dir, servertest.Networks)
			h := s.Host("h1", servertest.OpenVSwitch("192.0.2.1"))
			h.Attach(t)
			network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
			port := func() string {
				return s.Must(t, 201, "POST", "/ports", `{"port": {"network_id": "`+network+`", "binding:host_id": "h1", "device_owner": "compute:nova"}}`)["id"].(string)
			}
			kept := port()
			s.Settle(t)
			before := s.LastSequence(t)
			lost := port()
			s.Settle(t)
			after := s.LastSequence(t)
			servertest.Eventually(t, "the host has both ports", func() bool { return h.Port(kept) != nil && h.Port(lost) != nil })
			f := &follower{client: &neutron.Client{Endpoint: s.URL}, since: after}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); f.run(ctx) }()
			defer func() { cancel(); <-ended }()
			servertest.Eventually(t, "a watch is open", func() bool { return s.Watches() == 1 })

			if err := s.Store.Tx(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.Exec("DELETE FROM port WHERE id = ?", lost); err != nil {
					return err
				}
				_, err := tx.Exec("DELETE FROM event WHERE seq > ?", before)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("a watch goes on at a number that the database does not have")
			}
			f.mu.Lock()
			last := f.ends[len(f.ends)-1]
			f.mu.Unlock()
			var fault *neutron.Error
			if !errors.As(last, &fault) || fault.Type != "WatchSequenceGone" || fault.Status != http.StatusGone {
				t.Errorf("a watch ended with %v", last)
			}
			servertest.Eventually(t, "the host has what there is", func() bool { return h.Port(lost) == nil && h.Port(kept) != nil && h.Differs() == "" })
			if now := s.LastSequence(t); now >= after {
				t.Errorf("the test shows nothing: the last number is %d, and was %d", now, after)
			}
			h.Detach()
			s.Stop()

			s = servertest.StartIn(t, dir, servertest.Networks)
			if a, err := s.Do("GET", fmt.Sprintf("/watch?since=%d", after), ""); err != nil || a.Status != http.StatusGone {
				t.Errorf("a watch at a server that has started: %v %v", a, err)
			}
			h.Move(s)
			h.Attach(t)
			another := port()
			servertest.Eventually(t, "the host follows what happens", func() bool { return h.Port(another) != nil && h.Differs() == "" })
		})
	}
}
