package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/store/storetest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestQuick measures everything in small numbers: each promised figure is
// there, and nothing is said of how fast this machine is.
func TestQuick(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	file := filepath.Join(dir, "figures.json")
	var out strings.Builder
	if err := run(ctx, options{dir: dir, json: file, quick: true, database: storetest.SQLite, out: &out, progress: t.Output()}); err != nil {
		t.Fatal(err)
	}
	var doc struct{ Figures []figure }
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]figure{}
	for _, f := range doc.Figures {
		have[f.Name] = f
	}
	for _, s := range specs {
		f, ok := have[s.name]
		switch {
		case !ok:
			t.Errorf("%s: no figure", s.name)
		case f.Missing != "":
			t.Logf("%s: %s", s.name, f.Missing)
		case s.by != byValue && (f.N == 0 || f.P50 <= 0 || f.P99 < f.P50):
			t.Errorf("%s: %+v", s.name, f)
		}
		if !strings.Contains(out.String(), "| "+s.name) {
			t.Errorf("%s is not in the table", s.name)
		}
	}
}

// TestPeer: each figure of the peer belongs to one of ours.
func TestPeer(t *testing.T) {
	p, err := readPeer()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if f := p.Figures[s.name]; f != nil {
			if f.Source == "" {
				t.Errorf("%s has no source", s.name)
			}
			delete(p.Figures, s.name)
		}
	}
	for name := range p.Figures {
		t.Errorf("%s is no figure of ours", name)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		f      figure
		met    bool
		better float64
	}{
		{figure{P50: 2, spec: spec{target: 3}, Peer: &peerFacts{P50: 20}}, true, 10},
		{figure{P50: 4, spec: spec{target: 3}}, false, 0},
		{figure{PerSecond: 500, spec: spec{by: byRate, target: 1000}, Peer: &peerFacts{PerSecond: 5}}, false, 100},
		{figure{P50: 2, spec: spec{target: 3, over: 11}, Peer: &peerFacts{P50: 20}}, true, 10},
		{figure{P50: 2, spec: spec{target: 3, over: 11}, Peer: &peerFacts{P50: 20}, server: true}, false, 10},
		{figure{P50: 2, spec: spec{target: 3, over: 10}, Peer: &peerFacts{P50: 20}, server: true}, true, 10},
		{figure{P50: 4, spec: spec{target: 3, over: 5}, Peer: &peerFacts{P50: 20}, server: true}, false, 5},
		{figure{PerSecond: 500, spec: spec{by: byRate, over: 100}, Peer: &peerFacts{PerSecond: 5}, server: true}, true, 100},
		{figure{Value: 70, spec: spec{by: byValue, target: 80, unit: "MiB"}, Peer: &peerFacts{Value: 700}}, true, 10},
	} {
		c.f.judge()
		if c.f.Met == nil || *c.f.Met != c.met || c.f.Better != c.better {
			t.Errorf("%+v: met %v, better %v", c.f, c.f.Met, c.f.Better)
		}
	}
	for v, want := range map[float64]string{0.123: "0.12", 2: "2", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("%v prints as %s, not %s", v, got, want)
		}
	}
	s := samples{durations: []time.Duration{4e6, 1e6, 3e6, 2e6}}
	if s.percentile(50) != 2 || s.percentile(99) != 4 {
		t.Errorf("percentiles are %v and %v", s.percentile(50), s.percentile(99))
	}
}

// TestWithoutRoot: what cannot be measured is said.
func TestMissing(t *testing.T) {
	r := &results{peer: &peer{}, figures: map[string]*figure{}, progress: func(*figure) {}}
	r.missing("plug ", "a reason")
	var out strings.Builder
	if err := r.table(&out); err != nil || strings.Count(out.String(), "a reason") != 4 {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
