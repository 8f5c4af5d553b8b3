package store

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s, err := Open(t.Context(), Options{Connection: "sqlite:///" + filepath.Join(t.TempDir(), "m.sqlite"), Logger: slog.New(slog.DiscardHandler), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := s.Tx(t.Context(), func(*Tx) error { return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return s.Tx(t.Context(), func(*Tx) error { return nil }) },
		func() error { return s.View(t.Context(), func(*Tx) error { return nil }) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	sum := func(name string, labels ...string) (sum float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				var have []string
				for _, l := range m.Label {
					have = append(have, l.GetValue())
				}
				if f.GetName() == name && slices.Equal(have, labels) {
					sum += m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		return sum
	}
	if idle, used := sum("isospin_database_connections", "idle"), sum("isospin_database_connections", "used"); idle != 4 || used != 0 {
		t.Errorf("%v idle connections, %v used", idle, used)
	}
	err = s.View(t.Context(), func(*Tx) error {
		if used := sum("isospin_database_connections", "used"); used != 1 {
			t.Errorf("%v used connections in a transaction", used)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Tx(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	for _, want := range []struct {
		mode, result string
		count        float64
	}{{"write", "done", 1}, {"write", "undone", 1}, {"read", "done", 2}, {"write", "unavailable", 1}} {
		if have := sum("isospin_database_transaction_seconds", want.mode, want.result); have != want.count {
			t.Errorf("%s, %s: %v transactions, want %v", want.mode, want.result, have, want.count)
		}
	}
}
