package store

import (
	"errors"
	"fmt"
)

// remote is one connection to a database server.
type remote interface {
	// begin makes the next statement the first of a transaction. The
	// transaction ends by the end of send or by rollback.
	begin(writable bool)
	// send carries out, in one round trip if there is nothing that forbids it,
	// the beginning of the transaction if it has not begun, writes, questions,
	// and the commit if it is the end. A write that is not carried out as
	// expected is a refusal; the transaction is then only good for rollback.
	send(writes []write, questions []reading, end bool) error
	// exec carries out writes and then a statement. When a constraint refuses that, the transaction goes on.
	exec(writes []write, query string, args []any) (int64, error)
	// turn is the number of the writing transaction; 0: it has not begun.
	turn() int64
	rollback() error
	// fate tells what became of the transaction: nil, errAgain or errLost, whatever the closure made of it.
	fate() error
	// dead is why the transaction cannot go on; nil if it can.
	dead() error
	// cost are statements and round trips since begin.
	cost() (statements, trips int)
	close()
}

// write is a statement whose result is expected.
type write struct {
	query string
	args  []any
	// some: it is expected to find a row.
	some bool
	job  *job
	// each is the statement for one row, if this one inserts several of them.
	each string
}

// reading is a question with what takes its rows: whole ones, or their Scan.
type reading struct {
	*question
	keep func(values []any)
}

// refusal: a write was not carried out as expected.
type refusal struct {
	// place among the writes; -1: it is not known; their number: the commit.
	place int
	error
	// job is whose it was, if that is known.
	job *job
}

func (r *refusal) Unwrap() error { return r.error }

var errNothing = errors.New("no row was there to be changed")

// conversation is a transaction with a database server. Writes wait until
// something is asked that is not remembered, or until the commit, and are then
// sent along with it. It belongs to whoever runs the transaction.
type conversation struct {
	remote
	// memory is of writing transactions whose writes may wait; nil: ask.
	memory *memory
	// careful: each write is sent at once and tells its result.
	careful bool
	queue   []write
	// sent counts writes that were sent.
	sent int
	// served: something was answered by memory before it was known whether it holds.
	served, known bool
	// ahead are answers to what is about to be asked.
	ahead map[string]answer
	// place is that of the next event.
	place int
	// job is who writes now.
	job *job
	// refused is why the transaction can only be undone.
	refused *refusal
	// lot is errAgain when memory did not hold.
	lot error
	// once: the first question ends the transaction, which is only read; ended: it
	// has been answered; more: another one was asked.
	once, ended, more bool
}

// maxQueue bounds what waits.
const maxQueue = 200

func (c *conversation) fate() error {
	if c.lot != nil {
		return c.lot
	}
	return c.remote.fate()
}

// started is called when something has been sent: now it is known whether anybody else has written.
func (c *conversation) started() error {
	if c.known || c.memory == nil || c.turn() == 0 {
		return c.lot
	}
	c.known = true
	if !c.memory.fresh(c.turn()) && c.served {
		c.lot = fmt.Errorf("%w: what was remembered has changed", errAgain)
	}
	return c.lot
}

// settle makes sure that what was answered by memory holds.
func (c *conversation) settle() error {
	if c.known || c.memory == nil {
		return c.lot
	}
	if err := c.remote.send(nil, nil, false); err != nil {
		return err
	}
	return c.started()
}

// flush sends what waits, and questions.
func (c *conversation) flush(questions []reading, end bool) error {
	if c.lot != nil {
		return c.lot
	}
	if c.refused != nil {
		return c.refused
	}
	if c.ended {
		c.more = true
		return errMore
	}
	if end && c.served && !c.known { // nothing is committed before it is known that what was remembered holds
		if err := c.flush(nil, false); err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			return err
		}
	}
	c.sent += len(c.queue)
	writes := merge(c.queue)
	c.queue = nil
	err := c.remote.send(writes, questions, end || c.once)
	c.ended = c.once && err == nil
	if lot := c.started(); lot != nil {
		return lot
	}
	return c.doubt(err, writes)
}

// doubt notes a refusal.
func (c *conversation) doubt(err error, writes []write) error {
	var r *refusal
	if errors.As(err, &r) {
		if c.refused = r; r.place >= 0 && r.place < len(writes) {
			r.job = writes[r.place].job
		}
	}
	return err
}

// later makes a statement wait.
func (c *conversation) later(w write) error {
	c.queue = append(c.queue, w)
	if len(c.queue) < maxQueue {
		return nil
	}
	return c.flush(nil, false)
}

func (c *conversation) change(query string) {
	c.ahead = nil
	if c.memory != nil {
		c.memory.forget(query)
	}
}

func (c *conversation) exec(query string, args []any) (int64, error) {
	if c.lot != nil {
		return 0, c.lot
	}
	if c.refused != nil {
		return 0, c.refused
	}
	c.change(query)
	c.sent += len(c.queue) + 1
	writes := merge(c.queue)
	c.queue = nil
	n, err := c.remote.exec(writes, query, args)
	if lot := c.started(); lot != nil {
		return 0, lot
	}
	return n, c.doubt(err, writes)
}

func (c *conversation) put(query string, args []any, some bool) (int64, error) {
	if c.careful {
		return c.exec(query, args)
	}
	c.change(query)
	return 1, c.later(write{query: query, args: args, some: some, job: c.job})
}

func (c *conversation) ask(list []question) error {
	if c.memory == nil && c.ahead == nil {
		readings := make([]reading, len(list))
		for i := range list {
			readings[i].question = &list[i]
		}
		return c.flush(readings, false)
	}
	answers := make([]answer, len(list))
	var missing []reading
	var at []int
	for i := range list {
		q := &list[i]
		if a, ok := c.recall(q); ok {
			answers[i] = a
			continue
		}
		at = append(at, i)
		missing = append(missing, reading{q, keep(&answers[i])})
	}
	if len(missing) > 0 {
		if err := c.flush(missing, false); err != nil {
			return err
		}
		for k, i := range at {
			c.learned(missing[k].question, answers[i])
		}
	}
	for i := range list {
		if err := answers[i].each(list[i].row); err != nil {
			return err
		}
	}
	return nil
}

func keep(a *answer) func(values []any) {
	return func(values []any) {
		row := make([]any, len(values))
		for i, v := range values {
			row[i] = plain(v)
		}
		*a = append(*a, row)
	}
}

// recall answers a question without the database.
func (c *conversation) recall(q *question) (answer, bool) {
	if c.ahead != nil {
		if a, ok := c.ahead[q.key()]; ok {
			return a, true
		}
	}
	if c.memory == nil {
		return nil, false
	}
	a, ok := c.memory.answers[q.key()]
	if ok && !c.known {
		c.served = true
	}
	return a, ok
}

func (c *conversation) learned(q *question, a answer) {
	if c.memory != nil {
		c.memory.remember(q, a)
	}
}

// askAhead asks a question along with others that will most likely be asked next.
func (c *conversation) askAhead(q question, ahead func() []question) error {
	if a, ok := c.recall(&q); ok {
		return a.each(q.row)
	}
	next := ahead()
	var have answer
	readings := []reading{{&q, keep(&have)}}
	answers := make([]answer, len(next))
	for i := range next {
		if _, ok := c.recall(&next[i]); !ok {
			readings = append(readings, reading{&next[i], keep(&answers[i])})
		}
	}
	if err := c.flush(readings, false); err != nil {
		return err
	}
	c.learned(&q, have)
	c.ahead = map[string]answer{}
	for i := range next {
		if key := next[i].key(); key != "" {
			if _, ok := c.recall(&next[i]); !ok {
				c.ahead[key] = answers[i]
				c.learned(&next[i], answers[i])
			}
		}
	}
	return have.each(q.row)
}

// tally is Tx.Tally.
func (c *conversation) tally(kind, table, limits string, n int, ask func() (used, limit int, err error)) (used, limit int, err error) {
	if c.memory == nil {
		return ask()
	}
	if t, ok := c.memory.tallies[limits][kind]; ok {
		if used = t.used + c.memory.inserted[table] - t.inserted; used <= t.limit-n {
			c.served = c.served || !c.known
			return used, t.limit, nil
		}
	}
	if used, limit, err = ask(); err != nil {
		return 0, 0, err
	}
	c.memory.note()
	if c.memory.tallies == nil {
		c.memory.tallies = map[string]map[string]tally{}
	}
	if of := c.memory.tallies[limits]; of == nil || len(of) >= maxAnswers {
		c.memory.tallies[limits] = map[string]tally{}
	}
	c.memory.tallies[limits][kind] = tally{used, limit, c.memory.inserted[table]}
	return used, limit, nil
}

// spare hands out a value of those that find has found; what is not needed now is remembered.
func (c *conversation) spare(kind string, find func(n int) ([]string, error)) ([]string, error) {
	if c.memory == nil {
		return find(fewSpares)
	}
	if list := c.memory.spares[kind]; len(list) > 0 {
		c.served = c.served || !c.known
		c.memory.spares[kind] = list[1:]
		return list[:1], nil
	}
	list, err := find(manySpares)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if c.memory.spares == nil {
		c.memory.spares = map[string][]string{}
	}
	c.memory.note()
	c.memory.spares[kind] = list[1:]
	return list[:1], nil
}

// passed: what askAhead has asked for has been used.
func (c *conversation) passed() { c.ahead = nil }

func (c *conversation) first(query string, args []any, dest []any) error {
	return first(c, query, args, dest)
}

// first is a session's, by its ask.
func first(c session, query string, args []any, dest []any) error {
	found := false
	if err := c.ask([]question{{query: query, args: args, row: func(scan func(...any) error) error {
		if found {
			return nil
		}
		found = true
		return scan(dest...)
	}}}); err != nil {
		return err
	}
	if !found {
		return ErrNoRow
	}
	return nil
}

// commit sends what waits and ends the transaction.
func (c *conversation) commit() error { return c.flush(nil, true) }

// mute is a session that answers nothing.
type mute struct{}

var errMute = errors.New("nothing can be asked now")

func (mute) exec(string, []any) (int64, error)      { return 0, errMute }
func (mute) put(string, []any, bool) (int64, error) { return 0, errMute }
func (mute) ask([]question) error                   { return errMute }
func (mute) first(string, []any, []any) error       { return errMute }
