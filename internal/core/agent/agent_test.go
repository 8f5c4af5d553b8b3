package agent_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"testing"
	"time"

	"isospin/internal/core/agent"
	"isospin/internal/core/collection"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// opened is a database with the tables of agents.
func opened(t *testing.T) (context.Context, *store.Store) {
	t.Helper()
	ctx := identity.System(context.Background())
	db, err := store.Open(ctx, store.Options{Connection: storetest.New(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Upgrade(ctx, collection.TagSchema, agent.Schema); err != nil {
		t.Fatal(err)
	}
	return ctx, db
}

// TestLife: an agent lives while it is heard of; only news of it are events.
func TestLife(t *testing.T) {
	ctx, db := opened(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := agent.New(agent.Options{Store: db, DownTime: 75 * time.Second, Now: func() time.Time { return now }})
	var heard []string
	s.OnReport = append(s.OnReport, func(_ context.Context, _ *store.Tx, a *agent.Agent) error {
		heard = append(heard, a.Host)
		return nil
	})
	tx := func(do func(tx *store.Tx) error) {
		t.Helper()
		if err := db.Tx(ctx, do); err != nil {
			t.Fatal(err)
		}
	}
	var id string
	report := func(configurations string, fresh bool) {
		t.Helper()
		tx(func(tx *store.Tx) error {
			a, err := s.Report(ctx, tx, &agent.Agent{Host: "h", AgentType: agent.OpenVSwitch, Binary: "b", Topic: "t", Configurations: json.RawMessage(configurations)}, fresh)
			if err == nil {
				id = a.ID
			}
			return err
		})
	}
	check := func(what string, alive bool, started string, events, hooks int) {
		t.Helper()
		o, err := s.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		a := o.(*agent.Agent)
		if a.Alive != alive || a.StartedAt != started || a.CreatedAt != "2026-01-02 03:04:05" || len(heard) != hooks {
			t.Errorf("%s: alive %v, started %s, created %s, %d times heard", what, a.Alive, a.StartedAt, a.CreatedAt, len(heard))
		}
		tx(func(tx *store.Tx) error {
			list, err := tx.Events(0, 100)
			if len(list) != events {
				t.Errorf("%s: %d events, want %d", what, len(list), events)
			}
			of, err2 := s.OfType(tx, agent.OpenVSwitch)
			if err2 != nil || (len(of) == 1) != (alive && a.AdminStateUp) {
				t.Errorf("%s: may be scheduled to: %v, %v", what, of, err2)
			}
			return err
		})
	}

	report(`{"a": 1}`, true)
	check("registered", true, "2026-01-02 03:04:05", 1, 1)
	now = now.Add(70 * time.Second)
	report(`{"a": 1}`, false)
	check("beats", true, "2026-01-02 03:04:05", 1, 1)
	now = now.Add(70 * time.Second)
	check("was heard of lately", true, "2026-01-02 03:04:05", 1, 1)
	now = now.Add(6 * time.Second)
	check("is silent", false, "2026-01-02 03:04:05", 1, 1)
	for alive, want := range map[bool]int{true: 0, false: 1} {
		rows, err := s.List(ctx, &resource.Query{Filters: []resource.FilterBy{{Attribute: s.Resource.Attribute("alive"), Values: []any{alive}}}})
		if err != nil || len(rows) != want {
			t.Errorf("with alive=%v: %d, %v", alive, len(rows), err)
		}
	}
	report(`{"a": 1}`, false)
	check("is back", true, "2026-01-02 03:04:05", 1, 2)
	report(`{"a": 2}`, false)
	check("has another configuration", true, "2026-01-02 03:04:05", 2, 3)
	now = now.Add(time.Second)
	report(`{"a": 2}`, true)
	check("has started anew", true, "2026-01-02 03:06:32", 2, 4)
	if _, err := s.Update(ctx, id, &resource.Body{Values: map[string]any{"admin_state_up": false}, Given: map[string]bool{"admin_state_up": true}}, resource.Match{}); err != nil {
		t.Fatal(err)
	}
	check("is switched off", true, "2026-01-02 03:06:32", 3, 4)
	report(`{"a": 2}`, true)
	check("stays off", true, "2026-01-02 03:06:32", 3, 5)
}

// Attachments of a host are numbered one after the other, those of others by themselves.
func TestAttachments(t *testing.T) {
	ctx, db := opened(t)
	s := agent.New(agent.Options{Store: db, DownTime: time.Minute})
	for _, step := range []struct {
		hosts   []string
		numbers map[string]int64
	}{
		{nil, map[string]int64{}},
		{[]string{"a"}, map[string]int64{"a": 1}},
		{[]string{"a", "b"}, map[string]int64{"a": 2, "b": 1}},
		{[]string{"c", "b"}, map[string]int64{"b": 2, "c": 1}},
	} {
		var given, present map[string]int64
		if err := db.Tx(ctx, func(tx *store.Tx) (err error) {
			given, err = s.Attach(tx, step.hosts...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.View(ctx, func(tx *store.Tx) (err error) {
			present, err = s.Attachments(tx, step.hosts...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(given, step.numbers) || !maps.Equal(present, step.numbers) {
			t.Errorf("%v attach: given %v, present %v, want %v", step.hosts, given, present, step.numbers)
		}
	}
}
