package rest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"isospin/internal/fault"
)

// crowd are requests at one turns, in a bubble where Wait tells that all that
// can go on has done so.
type crowd struct {
	t     *testing.T
	turns *turns
	ctx   context.Context
	// running are the places of those that were let through, by name.
	running map[string]*project
	log     []string
}

func newCrowd(t *testing.T, total, each int, l Limits) *crowd {
	return &crowd{t: t, turns: newTurns(total, each, l), ctx: t.Context(), running: map[string]*project{}}
}

// come lets requests of a project enter, one after the other: "a1" is the first of project a.
func (c *crowd) come(ctx context.Context, names ...string) {
	for _, name := range names {
		go func() {
			p, err := c.turns.enter(ctx, name[:1])
			switch {
			case fault.IsKind(err, fault.Unavailable):
				c.log = append(c.log, name+" refused")
			case err != nil:
				c.log = append(c.log, name+" gone")
			default:
				c.running[name] = p
				c.log = append(c.log, name)
			}
		}()
		synctest.Wait()
	}
}

func (c *crowd) leave(name string) {
	c.turns.leave(c.running[name])
	delete(c.running, name)
	synctest.Wait()
}

// want checks what has happened since the last want, in order.
func (c *crowd) want(events ...string) {
	c.t.Helper()
	if !slices.Equal(c.log, events) {
		c.t.Errorf("happened: %q, wanted: %q", c.log, events)
	}
	c.log = nil
}

func (c *crowd) state(running, waiting int) {
	c.t.Helper()
	if r, w, _ := c.turns.state(); r != running || w != waiting {
		c.t.Errorf("%d run and %d wait, wanted %d and %d", r, w, running, waiting)
	}
}

func TestProjectsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1, 0, Limits{Queue: 100, ProjectQueue: 100})
		c.come(c.ctx, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
		c.want("a1")
		for _, step := range [][2]string{{"a1", "a2"}, {"a2", "b1"}, {"b1", "c1"}, {"c1", "a3"}, {"a3", "b2"}, {"b2", "a4"}} {
			c.leave(step[0])
			c.want(step[1])
		}
		c.leave("a4")
		c.state(0, 0)
	})
}

func TestPlacesAreKeptForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 3, 2, Limits{Queue: 100, ProjectQueue: 100})
		c.come(c.ctx, "a1", "a2", "a3", "a4")
		c.want("a1", "a2")
		c.come(c.ctx, "b1", "b2")
		c.want("b1")
		c.state(3, 3)
		c.leave("b1") // a has two already
		c.want("b2")
		c.leave("a1")
		c.want("a3")
		c.leave("b2")
		c.want()
		c.leave("a2")
		c.want("a4")
		c.state(2, 0)
		c.leave("a3")
		c.leave("a4")
		c.state(0, 0)
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1, 0, Limits{Queue: 4, ProjectQueue: 3})
		c.come(c.ctx, "a1", "a2", "a3", "a4", "a5")
		c.want("a1", "a5 refused") // the project's queue is full
		c.come(c.ctx, "b1")
		c.want()
		c.come(c.ctx, "c1") // the queue is full: the longest gives way
		c.want("a4 refused")
		c.state(1, 4)
		c.come(c.ctx, "b2") // a and b would have as many
		c.want("b2 refused")
		c.leave("a1")
		c.leave("a2")
		c.leave("b1")
		c.leave("c1")
		c.want("a2", "b1", "c1", "a3")
		c.leave("a3")
		c.state(0, 0)
		if _, _, refused := c.turns.state(); refused != 3 {
			t.Errorf("%d were refused, wanted 3", refused)
		}
	})
}

func TestWhoLeavesTheQueueLosesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1, 0, Limits{Queue: 4, ProjectQueue: 4})
		ctx, cancel := context.WithCancel(c.ctx)
		c.come(c.ctx, "a1")
		c.come(ctx, "b1")
		c.come(c.ctx, "b2")
		cancel()
		synctest.Wait()
		c.want("a1", "b1 gone")
		c.state(1, 1)
		c.leave("a1")
		c.want("b2")
		// The turn comes at the moment at which the client leaves.
		ctx, cancel = context.WithCancel(c.ctx)
		c.come(ctx, "c1")
		cancel()
		c.leave("b2")
		c.log = nil
		if p := c.running["c1"]; p != nil {
			c.leave("c1")
		}
		c.state(0, 0)
	})
}

func TestManyProjectsAreForgotten(t *testing.T) {
	u := newTurns(2, 0, Limits{})
	kept, err := u.enter(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100000 {
		p, err := u.enter(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		u.leave(p)
	}
	if len(u.projects) > 2048 {
		t.Errorf("%d projects are remembered", len(u.projects))
	}
	if u.projects["kept"] != kept {
		t.Error("a project with a request has been forgotten")
	}
}

func BenchmarkTurn(b *testing.B) {
	u := newTurns(64, 32, Limits{Queue: 1024, ProjectQueue: 256})
	b.ReportAllocs()
	for b.Loop() {
		p, err := u.enter(b.Context(), "7d3f1d6d0f1c4d0c9e2b8a7c6d5e4f30")
		if err != nil {
			b.Fatal(err)
		}
		u.leave(p)
	}
}
