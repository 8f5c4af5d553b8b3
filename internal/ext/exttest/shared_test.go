package exttest_test

import (
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestSharedCost prints what ports that eight clients create at the same time
// ask of a database server, and bounds it: they share turns and commits.
func TestSharedCost(t *testing.T) {
	const clients, each, most = 8, 25, 9
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv(storetest.Variable, kind)
			t.Setenv("ISOSPIN_TEST_REHEARSE", "")
			var mu sync.Mutex
			var sum store.Cost
			turns := 0
			k := exttest.New(t, exttest.Options{Trace: func(c store.Cost) {
				mu.Lock()
				defer mu.Unlock()
				if c.Writable {
					turns++
					sum.Statements += c.Statements
					sum.RoundTrips += c.RoundTrips
					sum.Transactions += c.Transactions
					sum.Attempts = max(sum.Attempts, c.Attempts)
				}
			}})
			project := k.As("project1")
			n := project.Create("network", `{"name": "net"}`)
			project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/16"}`, n.ID())
			project.Create("port", `{"network_id": %q}`, n.ID())
			mu.Lock()
			sum, turns = store.Cost{}, 0
			mu.Unlock()
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range each {
						project.Create("port", `{"network_id": %q}`, n.ID())
					}
				})
			}
			all.Wait()
			mu.Lock()
			defer mu.Unlock()
			t.Logf("%d ports in %d turns, at most %d attempts; each %.1f statements, %.1f round trips", sum.Transactions, turns, sum.Attempts,
				float64(sum.Statements)/float64(sum.Transactions), float64(sum.RoundTrips)/float64(sum.Transactions))
			if sum.Transactions < clients*each || sum.Statements > most*sum.Transactions {
				t.Errorf("%+v", sum)
			}
		})
	}
}
