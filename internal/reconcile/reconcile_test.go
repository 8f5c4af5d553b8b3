package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"isospin/internal/reconcile"
	"pgregory.net/rapid"
)

// Whatever was said in whatever order, carrying out the delta makes the actual
// map the desired one, and the delta is never larger than it must be.
func TestDeltaLeadsFromActualToDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := reconcile.NewTracker[int](func(a, b string) bool { return a == b })
		desired, actual := map[int]string{}, map[int]string{}
		key := rapid.IntRange(0, 5)
		value := rapid.StringMatching("[ab]")
		some := rapid.MapOf(key, value)
		t.Repeat(map[string]func(*rapid.T){
			"want": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				tr.Want(k, v)
				desired[k] = v
			},
			"unwant": func(t *rapid.T) {
				k := key.Draw(t, "k")
				tr.Unwant(k)
				delete(desired, k)
			},
			"wantAll": func(t *rapid.T) {
				desired = some.Draw(t, "all")
				tr.WantAll(maps.Clone(desired))
			},
			"is": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				tr.Is(k, v)
				actual[k] = v
			},
			"isGone": func(t *rapid.T) {
				k := key.Draw(t, "k")
				tr.IsGone(k)
				delete(actual, k)
			},
			"resync": func(t *rapid.T) {
				actual = some.Draw(t, "all")
				tr.Resync(maps.Clone(actual))
			},
			"": func(t *rapid.T) {
				d := tr.Delta()
				world := maps.Clone(actual)
				for k, v := range d.Updates {
					if world[k] == v {
						t.Fatalf("needless update of %d", k)
					}
					world[k] = v
				}
				for _, k := range d.Deletes {
					if _, ok := world[k]; !ok {
						t.Fatalf("needless delete of %d", k)
					}
					delete(world, k)
				}
				if !maps.Equal(world, desired) {
					t.Fatalf("got %v, desired %v", world, desired)
				}
				if tr.InSync() != maps.Equal(actual, desired) {
					t.Fatalf("in sync: %v, actual %v, desired %v", tr.InSync(), actual, desired)
				}
			},
		})
	})
}

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
