package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// turnLimit bounds how long a turn takes in more transactions: other programs wait for theirs.
const turnLimit = 50 * time.Millisecond

// tx gives the transaction to the one who writes.
func (p *pool) tx(ctx context.Context, do func(*Tx) error) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.users.Done()
	j := &job{do: do, ctx: ctx, done: make(chan struct{})}
	select {
	case p.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Once queued it is carried out, whether or not the caller still waits: the answer must be the truth.
	<-j.done
	return j.err
}

// write is the one of this program who writes. Transactions that wait while
// others are carried out or committed share the next turn and commit.
func (p *pool) write() {
	for {
		select {
		case j := <-p.jobs:
			p.settle([]*job{j})
		case <-p.unneeded:
			return
		}
	}
}

// settle carries out transactions until each has its answer.
func (p *pool) settle(list []*job) {
	for round := 1; len(list) > 0; round++ {
		// Who must be alone is so, after the others.
		var together, alone []*job
		for _, j := range list {
			switch err := j.ctx.Err(); {
			case j.attempts > 0 && err != nil:
				j.answer(err)
			case j.again > p.limits.Repeats:
				j.answer(fmt.Errorf("%w: a transaction failed %d times ([database] db_max_retries): %w", ErrUnavailable, j.again, j.err))
			case j.lost > 1:
				j.answer(fmt.Errorf("%w: %w", ErrUnavailable, j.err))
			case j.careful || round > 4: // too many that are refused: no more of the others are run again and again
				j.careful = true
				alone = append(alone, j)
			default:
				together = append(together, j)
			}
		}
		if list = nil; len(together) > 0 {
			list = p.turn(together)
		}
		for _, j := range alone {
			list = append(list, p.turn([]*job{j})...)
		}
	}
}

func (j *job) answer(err error) {
	j.err = err
	close(j.done)
}

// turn carries out transactions, and those that come meanwhile, in one
// transaction of the database. It returns those that are to be run again.
func (p *pool) turn(list []*job) (again []*job) {
	k, err := p.acquire(context.Background())
	if err != nil {
		p.refuse(list, err)
		return nil
	}
	careful := list[0].careful
	c := &conversation{remote: k.line, careful: careful}
	if careful {
		p.memory.lost()
	} else {
		p.memory.begin()
		c.memory = p.memory
	}
	c.begin(true)
	broken := false
	defer func() { p.release(k, broken) }()
	// undo gives up what was sent; those that were carried out are run again.
	undo := func(wrote bool) {
		if wrote {
			p.memory.lost()
		}
		if broken = c.rollback() != nil; broken || careful {
			p.memory.lost()
		} else if !wrote {
			p.memory.turn = c.turn()
		}
	}
	if c.memory != nil && !p.memory.empty() && !p.memory.quiet {
		if err := c.settle(); err != nil { // others write as well: it is known at once what they have changed
			undo(true)
			return p.lostTo(list, err)
		}
	}
	// good are those to be answered with the commit.
	open := func(good []*job, j *job) []*job { return append(slices.Clone(good), j) }
	var good []*job
	begin, wrote := time.Now(), false
	for i := 0; ; i++ {
		if i == len(list) {
			if careful || i >= maxBatch || c.place > maxEvents/2 || time.Since(begin) > turnLimit {
				break
			}
			select {
			case j := <-p.jobs:
				list = append(list, j)
			default:
			}
			if i == len(list) {
				break
			}
		}
		j := list[i]
		j.attempts++
		if j.attempts > 1 {
			p.repeat()
		}
		mark, sent := len(c.queue), c.sent
		c.job = j
		j.tx = &Tx{c: c, dialect: p.dialect, writable: true}
		err := run(j.do, j.tx)
		if err == nil && c.fate() == nil {
			err = j.tx.finish()
		}
		if err == nil { // whatever the closure made of it: nothing of this turn can be committed
			err = c.dead()
		}
		if err != nil && c.fate() == nil && c.served {
			if settled := c.settle(); settled != nil && c.fate() == nil {
				err = settled
			}
		}
		switch {
		case c.fate() != nil:
			undo(true)
			return append(p.lostTo(open(good, j), c.fate()), append(again, list[i+1:]...)...)
		case c.refused != nil && !careful:
			undo(true)
			return append(p.doubt(open(good, j), c.refused), append(again, list[i+1:]...)...)
		case err == nil:
			j.own = nil
			good = append(good, j)
			wrote = wrote || c.sent > 0 || len(c.queue) > 0
		case careful:
			undo(true)
			j.answer(err)
			return nil
		case c.sent == sent && len(c.queue) == mark && c.dead() == nil:
			if j.own = err; wrote { // of what it has seen, some is not committed yet
				good = append(good, j)
			} else {
				j.answer(err)
			}
		default:
			// It may be so because a write was taken for granted: the answer is that of a careful run.
			j.careful = true
			again = append(again, j)
			if c.sent > sent || len(c.queue) < mark || c.dead() != nil {
				undo(true)
				return append(append(again, good...), list[i+1:]...)
			}
			c.queue = c.queue[:mark]
		}
	}
	if !wrote {
		if err := c.settle(); c.served && err != nil {
			undo(true)
			return append(p.lostTo(good, err), again...)
		}
		undo(false)
		p.finish(c, good)
		return again
	}
	if err := c.commit(); err != nil {
		switch {
		case errors.Is(err, errLost):
			// Nobody knows whether it was kept: it must not be run again.
			broken = true
			p.memory.lost()
			for _, j := range good {
				j.answer(fmt.Errorf("%w: commit: %v", ErrUnavailable, err))
			}
		case c.fate() != nil:
			undo(true)
			again = append(p.lostTo(good, err), again...)
		case c.refused != nil && !careful:
			undo(true)
			again = append(p.doubt(good, c.refused), again...)
		default:
			undo(true)
			for _, j := range good {
				j.answer(err)
			}
		}
		return again
	}
	if p.memory.turn = c.turn(); careful {
		p.memory.lost()
	}
	p.finish(c, good)
	return again
}

// finish answers those that are durable, and those that have seen them and failed.
func (p *pool) finish(c *conversation, good []*job) {
	if len(good) == 0 {
		return
	}
	if p.trace != nil {
		statements, trips := c.cost()
		p.trace(Cost{Statements: statements, RoundTrips: trips, Attempts: good[0].attempts, Transactions: len(good), Writable: true})
	}
	wrote := false
	for _, j := range good {
		wrote = wrote || j.own == nil && len(j.tx.events) > 0
		j.answer(j.own)
	}
	if wrote {
		p.wrote()
	}
}

// lostTo: the transaction is lost, to another one or with its connection.
func (p *pool) lostTo(list []*job, err error) []*job {
	for _, j := range list {
		if j.err = err; errors.Is(err, errLost) {
			j.lost++
		} else {
			j.again++
		}
	}
	if n := list[0].again; n > 1 {
		time.Sleep(time.Duration(rand.Int64N(int64(min(n, 10)) * int64(time.Millisecond))))
	}
	return list
}

// doubt: a write was not carried out as its transaction expected. Whose it was
// is run alone and is told of each write; if that is not known, all are.
func (p *pool) doubt(list []*job, r *refusal) []*job {
	for _, j := range list {
		if len(list) == 1 || r.job == nil || r.job == j {
			j.careful = true
		}
	}
	return list
}

// refuse answers those that wait, too: the database is away for them as well.
func (p *pool) refuse(list []*job, err error) {
	for {
		for _, j := range list {
			j.answer(err)
		}
		select {
		case j := <-p.jobs:
			list = []*job{j}
		default:
			return
		}
	}
}
