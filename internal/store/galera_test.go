package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestGalera: two programs write through two nodes of a cluster at the same
// time. What loses at its commit is run again inside of the call, each change
// has one event, all numbers are different, and both nodes have the same order.
func TestGalera(t *testing.T) {
	var stores []*store.Store
	var attempts atomic.Int64
	for _, connection := range storetest.NewGalera(t) {
		s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000},
			Trace: func(c store.Cost) { attempts.Add(int64(c.Attempts - 1)) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if err := s.Upgrade(t.Context(), things, counters); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	const clients, times = 3, 15
	var all sync.WaitGroup
	for node, s := range stores {
		for client := range clients {
			all.Go(func() {
				for n := range times {
					id := fmt.Sprintf("%d-%d-%02d", node, client, n)
					if err := s.Tx(context.Background(), func(tx *store.Tx) error {
						var value int64
						if err := tx.Row("SELECT value FROM counter WHERE id = ?", []any{"one"}, &value); err != nil {
							return err
						}
						if err := tx.Put("UPDATE counter SET value = ? WHERE id = ?", value+1, "one"); err != nil {
							return err
						}
						return add(id)(tx)
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	const total = 2 * clients * times
	var orders [2][]string
	deadline := time.Now().Add(30 * time.Second)
	for i, s := range stores {
		for { // a node applies what the other has committed a little later
			var value int64
			if err := s.View(t.Context(), func(tx *store.Tx) error {
				return tx.Row("SELECT value FROM counter WHERE id = 'one'", nil, &value)
			}); err != nil {
				t.Fatal(err)
			}
			ids, events := stored(t, s)
			if value == total && len(ids) == total {
				orders[i] = events
				break
			}
			if value > total || time.Now().After(deadline) {
				t.Fatalf("node %d counts %d of %d, and has %d rows", i+1, value, total, len(ids))
			}
		}
	}
	if len(orders[0]) != total || !slices.Equal(orders[0], orders[1]) {
		t.Errorf("%d changes; the nodes have events in these orders:\n%v\n%v", total, orders[0], orders[1])
	}
	t.Logf("%d transactions were run again", attempts.Load())
}
