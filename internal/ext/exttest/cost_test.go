package exttest_test

import (
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestCostOfAPort prints what creating a port asks of a database server, and bounds it.
func TestCostOfAPort(t *testing.T) {
	const most = 20
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv(storetest.Variable, kind)
			var mu sync.Mutex
			var costs []store.Cost
			k := exttest.New(t, exttest.Options{Trace: func(c store.Cost) {
				mu.Lock()
				defer mu.Unlock()
				if c.Writable {
					costs = append(costs, c)
				}
			}})
			project := k.As("project1")
			n := project.Create("network", `{"name": "net"}`)
			project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, n.ID())
			project.Create("port", `{"network_id": %q}`, n.ID())
			mu.Lock()
			costs = nil
			mu.Unlock()
			created := project.Create("port", `{"network_id": %q}`, n.ID())
			mu.Lock()
			defer mu.Unlock()
			if len(costs) != 1 {
				t.Fatalf("writing transactions: %+v", costs)
			}
			t.Logf("%d statements, %d round trips", costs[0].Statements, costs[0].RoundTrips)
			if costs[0].Statements > most {
				t.Errorf("%d statements are more than %d", costs[0].Statements, most)
			}
			costs = nil
			mu.Unlock()
			project.Delete("port", created.ID())
			mu.Lock()
			if len(costs) != 1 || costs[0].RoundTrips > 6 {
				t.Fatalf("writing transactions of the deletion: %+v", costs)
			}
			t.Logf("deletion: %d statements, %d round trips", costs[0].Statements, costs[0].RoundTrips)
		})
	}
}
