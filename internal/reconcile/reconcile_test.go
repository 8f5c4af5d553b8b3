package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/internal/reconcile"
)

func TestPhases(t *testing.T) {
	var ran []string
	phase := func(name string, required bool, err error) reconcile.Phase {
		return reconcile.Phase{Name: name, Required: required, Run: func(context.Context) error {
			ran = append(ran, name)
			return err
		}}
	}
	broken := errors.New("broken")
	err := reconcile.RunPhases(context.Background(),
		phase("a", true, nil), phase("b", false, broken), phase("c", true, broken), phase("d", false, nil))
	if got := strings.Join(ran, " "); got != "a b c" {
		t.Errorf("ran %s", got)
	}
	if !errors.Is(err, broken) || fmt.Sprint(err) != "b: broken\nc: broken" {
		t.Errorf("error %q", err)
	}
}

func TestBackoff(t *testing.T) {
	b := reconcile.Backoff[string]{First: time.Second, Longest: 5 * time.Second}
	now := time.Unix(0, 0)
	if _, ok := b.Next(); ok || !b.Ready("a", now) {
		t.Error("a key that never failed is not ready")
	}
	for _, want := range []time.Duration{1, 2, 4, 5, 5} {
		due := b.Failed("a", now)
		if due.Sub(now) != want*time.Second {
			t.Errorf("waits %v, want %ds", due.Sub(now), want)
		}
		if b.Ready("a", due.Add(-1)) || !b.Ready("a", due) || !b.Ready("b", now) {
			t.Error("ready at the wrong time")
		}
		now = due
	}
	b.Failed("b", now)
	if next, ok := b.Next(); !ok || next != now { // of a
		t.Errorf("next %v", next)
	}
	b.Forget("a")
	b.Forget("b")
	if _, ok := b.Next(); ok || !b.Ready("a", now) {
		t.Error("forgotten keys are not ready")
	}
}
