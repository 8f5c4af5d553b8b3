// Package lease elects one of the servers on a database for work that only one
// of them may do at a time.
//
// A holder changes its row every third of the lease's time. Whoever has seen
// the row unchanged for the whole time takes it, by a statement that demands
// that it still is. The holder, for its part, stops when it could not change
// the row for a little less than that time. All times are distances on the
// clock of the program that measures them: servers' clocks may differ by any
// amount. A program that was paused goes on for a moment with what it was
// about; work for which that matters asks Held in its transactions.
//
// The package must not know what work is done.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/store"
)

// Schema of the package's table.
var Schema = store.Schema{Module: "lease", Steps: [][]string{{
	`CREATE TABLE lease (name VARCHAR(128) PRIMARY KEY, holder VARCHAR(255) NOT NULL, beat BIGINT NOT NULL)`,
}}}

// ErrLost: the lease is another's.
var ErrLost = errors.New("the lease is another server's")

// DefaultTime of a lease.
const DefaultTime = 6 * time.Second

// Options of New.
type Options struct {
	Store  *store.Store // required
	Logger *slog.Logger // required
	// Name of the work, at most 128 characters.
	Name string // required
	// Holder names this program, unlike any other; at most 255 characters.
	Holder string // required
	// Time after which a holder that is silent has lost the lease. Default: DefaultTime.
	Time time.Duration // optional
	// Metrics gets whether the lease is held.
	Metrics prometheus.Registerer // optional
}

// Lease is one program's part in the election.
type Lease struct {
	o   Options
	log *slog.Logger
	// held is 1 while the work is this program's.
	held prometheus.Gauge

	// row is how it was seen last, and since when.
	row   row
	since time.Time
	// heard is when the database answered last, reachable since when it has done so without a break.
	heard, reachable time.Time
}

type row struct {
	holder string
	beat   int64
}

// New returns a lease that is not held. It panics when the metric of a lease of
// that name is registered already, which is a mistake in the program.
func New(o Options) *Lease {
	if o.Time == 0 {
		o.Time = DefaultTime
	}
	l := &Lease{o: o, log: o.Logger.With("lease", o.Name), held: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "isospin_lease_held", Help: "1 while this server does the work that one of them does at a time.",
		ConstLabels: prometheus.Labels{"lease": o.Name},
	})}
	if o.Metrics != nil {
		o.Metrics.MustRegister(l.held)
	}
	return l
}

// Work is what the holder does until ctx ends. The database has answered this
// program since reachable, without a break as long as the lease's time.
type Work func(ctx context.Context, reachable time.Time)

// Run does the work whenever and for as long as the lease is held, until ctx
// ends. It is called once.
func (l *Lease) Run(ctx context.Context, work Work) {
	failing := false
	for ctx.Err() == nil {
		begun := time.Now()
		held, err := l.take(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			failing = true
			l.log.Warn("the lease cannot be read or taken", "error", err)
		case err == nil:
			failing = false
		}
		if held {
			l.hold(ctx, begun, work)
			continue
		}
		pause(ctx, l.interval())
	}
}

// interval is about a third of the time; servers that start together ask apart.
func (l *Lease) interval() time.Duration {
	third := l.o.Time / 3
	return third - rand.N(third/5+1)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// answered notes that the database did.
func (l *Lease) answered() {
	now := time.Now()
	if l.heard.IsZero() || now.Sub(l.heard) > l.o.Time {
		l.reachable = now
	}
	l.heard = now
}

// take takes the lease if it is free, or was silent for its whole time.
func (l *Lease) take(ctx context.Context) (held bool, err error) {
	var now row
	there := false
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		there = true
		err := tx.Row("SELECT holder, beat FROM lease WHERE name = ?", []any{l.o.Name}, &now.holder, &now.beat)
		if errors.Is(err, store.ErrNoRow) {
			there, err = false, nil
		}
		return err
	})
	if err != nil {
		return false, err
	}
	l.answered()
	if there && now.holder != "" && now.holder != l.o.Holder {
		if now != l.row || l.since.IsZero() {
			// After the answer: the holder's last word was before it.
			l.row, l.since = now, time.Now()
		}
		if time.Since(l.since) < l.o.Time {
			return false, nil
		}
	}
	err = l.o.Store.Tx(ctx, func(tx *store.Tx) error {
		var n int64
		var err error
		if there {
			n, err = tx.Exec("UPDATE lease SET holder = ?, beat = beat + 1 WHERE name = ? AND holder = ? AND beat = ?", l.o.Holder, l.o.Name, now.holder, now.beat)
		} else {
			n, err = tx.Exec("INSERT INTO lease (name, holder, beat) VALUES (?, ?, 1)", l.o.Name, l.o.Holder)
			if errors.Is(err, store.ErrDuplicate) {
				n, err = 0, nil
			}
		}
		held = n > 0
		return err
	})
	if err != nil {
		return false, err
	}
	if held && there && now.holder != "" && now.holder != l.o.Holder {
		l.log.Info("taken over from a server that is silent", "from", now.holder)
	}
	return held, nil
}

// hold does the work for as long as the lease is held; begun is when it was asked for.
func (l *Lease) hold(ctx context.Context, begun time.Time, work Work) {
	l.row, l.since = row{}, time.Time{}
	l.held.Set(1)
	defer l.held.Set(0)
	// A sixth is for what measures, and for what ends slowly.
	valid := l.o.Time - l.o.Time/6
	holding, end := context.WithCancel(ctx)
	defer end()
	expiry := time.AfterFunc(valid-time.Since(begun), end)
	defer expiry.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(holding, l.reachable)
	}()
	for {
		pause(holding, l.interval())
		if holding.Err() != nil {
			break
		}
		begun = time.Now()
		err := l.beat(holding)
		switch {
		case err == nil:
			l.answered()
			expiry.Reset(valid - time.Since(begun))
			continue
		case errors.Is(err, ErrLost):
			l.log.Warn("another server has taken over")
			end()
		case holding.Err() == nil:
			l.log.Warn("the lease cannot be renewed", "error", err)
		}
	}
	lost := ctx.Err() == nil
	<-done
	if !lost {
		l.release(context.WithoutCancel(ctx))
	}
}

func (l *Lease) beat(ctx context.Context) error {
	return l.o.Store.Tx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec("UPDATE lease SET beat = beat + 1 WHERE name = ? AND holder = ?", l.o.Name, l.o.Holder)
		if err == nil && n == 0 {
			return ErrLost
		}
		return err
	})
}

// release gives the lease to whoever wants it.
func (l *Lease) release(ctx context.Context) {
	err := l.o.Store.Tx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE lease SET holder = '', beat = beat + 1 WHERE name = ? AND holder = ?", l.o.Name, l.o.Holder)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrClosed) {
		l.log.Warn("the lease is not given back", "error", err)
	}
}

// Held returns ErrLost unless the lease is this program's in the transaction.
func (l *Lease) Held(tx *store.Tx) error {
	var holder string
	err := tx.Row("SELECT holder FROM lease WHERE name = ?", []any{l.o.Name}, &holder)
	switch {
	case errors.Is(err, store.ErrNoRow) || err == nil && holder != l.o.Holder:
		return ErrLost
	case err != nil:
		return fmt.Errorf("lease %s: %w", l.o.Name, err)
	}
	return nil
}
