package agent_test

import (
	"encoding/json"
	"testing"
	"time"

	"isospin/internal/core/agent"
	"isospin/internal/store"
)

// TestSilence: while nobody could store heartbeats agents are not at fault;
// afterwards they have a moment to report, and then count as ever.
func TestSilence(t *testing.T) {
	ctx, db := opened(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	newService := func() *agent.Service {
		return agent.New(agent.Options{Store: db, DownTime: 75 * time.Second, Now: func() time.Time { return now }})
	}
	s := newService()
	report := func(host string) {
		t.Helper()
		if err := db.Tx(ctx, func(tx *store.Tx) error {
			_, err := s.Report(ctx, tx, &agent.Agent{Host: host, AgentType: agent.L3, Binary: "b", Topic: "t", Configurations: json.RawMessage("{}")}, true)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	alive := func(what string, want ...string) {
		t.Helper()
		var hosts []string
		if err := db.View(ctx, func(tx *store.Tx) error {
			hosts = nil
			list, err := s.OfType(tx, agent.L3)
			for _, a := range list {
				hosts = append(hosts, a.Host)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if len(hosts) != len(want) || len(want) > 0 && hosts[0] != want[0] || len(want) > 1 && hosts[1] != want[1] {
			t.Errorf("%s: alive are %q, not %q", what, hosts, want)
		}
	}
	// run lets seconds pass in which the database answers.
	run := func(seconds int) {
		for range seconds {
			now = now.Add(time.Second)
			s.Reachable()
		}
	}
	if err := s.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	report("a")
	run(60)
	report("b")
	alive("both report", "a", "b")
	run(20)
	alive("one is not heard of", "b")

	now = now.Add(10 * time.Minute)
	alive("the database is away", "b")
	s.Reachable()
	alive("it is back", "b")
	run(10)
	alive("a moment later", "b")
	run(11)
	alive("it did not come back")

	report("a")
	report("b")
	now = now.Add(time.Hour)
	s = newService()
	if err := s.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	alive("all servers were away", "a", "b")
	run(5)
	report("b")
	run(16)
	alive("one came back", "b")
}
