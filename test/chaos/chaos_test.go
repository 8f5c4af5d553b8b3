package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestChaos: nothing acknowledged is lost and everything is well again after a
// few faults. `make chaos` does it longer.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	for i, kind := range []string{"postgresql", "mariadb"} {
		t.Run(kind, func(t *testing.T) {
			var out strings.Builder
			r, err := Run(t.Context(), Options{
				Database: kind, Seed: uint64(1 + i), Load: 6 * time.Second, Settle: 90 * time.Second, Replicas: 3, Hosts: 10, Clients: 4, Out: &out,
			})
			if errors.Is(err, ErrMissing) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if len(r.Findings) > 0 {
				t.Errorf("go run ./test/chaos -database %s -seed %d -load 6s -hosts 10 -clients 4\n%s", kind, r.Seed, out.String())
			}
			if r.Acknowledged == 0 || r.Faults == 0 {
				t.Errorf("%d writes, %d faults: that shows nothing\n%s", r.Acknowledged, r.Faults, out.String())
			}
		})
	}
}

// TestUpgrade: servers are replaced one after the other under load while the
// schema grows; servers of an older release go on, and do not start on tables
// that a newer one has changed. The older release is this program's own code
// unless ISOSPIN_UPGRADE_FROM names a binary (test/upgrade/run.sh makes one).
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	from := os.Getenv("ISOSPIN_UPGRADE_FROM")
	if from == "" {
		from = "self"
	}
	kind := []string{"postgresql", "mariadb"}[time.Now().Unix()%2]
	if chosen := os.Getenv("ISOSPIN_TEST_DATABASE"); chosen == "postgresql" || chosen == "mariadb" {
		kind = chosen
	}
	var out strings.Builder
	r, err := Run(t.Context(), Options{
		Database: kind, Seed: 1, Load: 8 * time.Second, Settle: 90 * time.Second, Replicas: 2, Hosts: 5, Clients: 4, From: from, Out: &out,
	})
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil || len(r.Findings) > 0 || r.Acknowledged == 0 {
		t.Fatalf("%s: %v\n%s", kind, err, out.String())
	}
}

// TestDraw: a seed is a schedule.
func TestDraw(t *testing.T) {
	a, b, c := draw(1, time.Minute, 3, ""), draw(1, time.Minute, 3, ""), draw(2, time.Minute, 3, "")
	text := func(list []fault) string {
		var s strings.Builder
		for _, f := range list {
			s.WriteString(f.String() + "\n")
		}
		return s.String()
	}
	if text(a) != text(b) || text(a) == text(c) || len(a) < 10 {
		t.Errorf("schedules:\n%s\n%s\n%s", text(a), text(b), text(c))
	}
	for _, f := range draw(1, time.Minute, 3, "kill database") {
		if f.What != "kill database" {
			t.Errorf("%v was not asked for", f)
		}
	}
}
