package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errAgain: the transaction lost against another; it is to be run again.
	errAgain = errors.New("another transaction was first")
	// errLost: the connection is gone. Unless it was at the commit, nothing has happened.
	errLost = errors.New("the connection to the database is lost")
	// errMore: something was asked after the only question that was to be asked.
	errMore = errors.New("the transaction has ended with its first question")
)

// fateError is an error of the driver with what it means for the transaction.
type fateError struct{ fate, cause error }

func (e *fateError) Error() string   { return e.fate.Error() + ": " + e.cause.Error() }
func (e *fateError) Unwrap() []error { return []error{e.fate, e.cause} }

// pool is a database server: transactions run on connections that are made when
// they are needed; which goes first is the dialect's.
type pool struct {
	log     *slog.Logger
	dialect dialect
	limits  Pool
	trace   func(Cost)
	connect func(ctx context.Context) (remote, net.Conn, error)
	// probe asks the server at the other end of wire for an answer, on a connection of its own; nil is any that connect finds.
	probe func(ctx context.Context, wire net.Conn) error
	// patience is how long that may take.
	patience time.Duration
	epoch    time.Time
	// wrote is called after commits that wrote events.
	wrote func()
	// repeat is called before a transaction is run again.
	repeat func()
	// waiting is how many transactions wait for a connection.
	waiting atomic.Int64

	// slots has one element for each connection that is in use.
	slots chan struct{}
	mu    sync.Mutex
	idle  []kept
	used  map[*line]struct{}
	// away is why no connection is to be had, while the server does not answer; near ends then; listening: that is looked after.
	away      error
	near      context.Context
	vanish    context.CancelFunc
	listening bool
	quiet     context.CancelFunc
	listener  sync.WaitGroup
	// jobs are writing transactions that wait for their turn.
	jobs   chan *job
	memory *memory
	// ended is closed by close, unneeded when nobody waits for the one who writes any more; users counts transactions and what runs beside them.
	ended, unneeded chan struct{}
	writer          sync.WaitGroup
	closing         sync.Once
	users           sync.WaitGroup
}

type kept struct {
	*line
	made, released time.Time
}

// server is what a pool needs of a kind of server.
type server interface {
	dialect
	connect(ctx context.Context) (remote, net.Conn, error)
	probe(ctx context.Context, wire net.Conn) error
}

// newPool's patience is how long the server may take to take a connection; 0 is no limit.
func newPool(o Options, s server, patience time.Duration, wrote, repeat func()) *pool {
	if patience <= 0 {
		patience = probeLimit
	}
	p := &pool{log: o.Logger, dialect: s, limits: o.Pool.withDefaults(), trace: o.Trace, connect: s.connect, probe: s.probe, patience: patience, wrote: wrote, repeat: repeat,
		epoch: time.Now(), used: map[*line]struct{}{}, ended: make(chan struct{}),
		jobs: make(chan *job, 4*maxBatch), memory: &memory{}, unneeded: make(chan struct{})}
	p.slots = make(chan struct{}, p.limits.Size+p.limits.Overflow)
	p.near, p.vanish = context.WithCancel(context.Background())
	p.memory.forgetAll()
	p.writer.Go(p.write)
	return p
}

func (p Pool) withDefaults() Pool {
	set := func(have *int, def int) {
		if *have == 0 {
			*have = def
		}
	}
	set(&p.Size, 5)
	set(&p.Overflow, 50)
	set(&p.Retries, 10)
	set(&p.Repeats, 20)
	p.Overflow = max(p.Overflow, 0)
	if p.Wait == 0 {
		p.Wait = 30 * time.Second
	}
	if p.Recycle == 0 {
		p.Recycle = time.Hour
	}
	if p.RetryInterval == 0 {
		p.RetryInterval = 10 * time.Second
	}
	return p
}

// reach connects for the first time, and tries again as often as configured.
func (p *pool) reach(ctx context.Context) error {
	for try := 0; ; try++ {
		c, err := p.acquire(ctx)
		if err == nil {
			p.release(c, false)
			p.listen()
			return nil
		}
		if !errors.Is(err, ErrUnavailable) || p.limits.Retries == NoRetries || p.limits.Retries >= 0 && try >= p.limits.Retries {
			return err
		}
		p.log.Warn("the database cannot be reached; trying again", "error", err, "in", p.limits.RetryInterval)
		select {
		case <-time.After(p.limits.RetryInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listen begins to look after a server that is away without a word.
func (p *pool) listen() {
	ctx, quiet := context.WithCancel(context.Background())
	p.mu.Lock()
	p.listening, p.quiet = true, quiet
	p.mu.Unlock()
	p.listener.Go(func() { p.listenFor(ctx) })
}

// acquire takes a connection, a new one if none is idle.
func (p *pool) acquire(ctx context.Context) (kept, error) {
	select {
	case <-p.ended:
		return kept{}, ErrClosed
	case <-ctx.Done(): // nobody waits for the answer
		return kept{}, ctx.Err()
	default:
	}
	select {
	case p.slots <- struct{}{}:
	default:
		wait := time.NewTimer(p.limits.Wait)
		defer wait.Stop()
		p.waiting.Add(1)
		defer p.waiting.Add(-1)
		select {
		case p.slots <- struct{}{}:
		case <-wait.C:
			return kept{}, fmt.Errorf("%w: all %d connections are in use ([database] max_pool_size, max_overflow, pool_timeout)", ErrUnavailable, cap(p.slots))
		case <-ctx.Done():
			return kept{}, ctx.Err()
		}
	}
	var near context.Context
	for {
		p.mu.Lock()
		near = p.near
		if err := p.away; err != nil {
			p.mu.Unlock()
			<-p.slots
			return kept{}, err
		}
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			break
		}
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		old := p.limits.Recycle >= 0 && time.Since(c.made) >= p.limits.Recycle
		if !old {
			p.used[c.line] = struct{}{}
		}
		p.mu.Unlock()
		if !old {
			return c, nil
		}
		c.close()
	}
	begin := time.Now()
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(near, cancel)()
	r, wire, err := p.connect(limited)
	if err != nil {
		<-p.slots
		if ctx.Err() != nil {
			return kept{}, ctx.Err()
		}
		if near.Err() != nil {
			return kept{}, errAway
		}
		p.missed(begin, err)
		return kept{}, err
	}
	c := kept{line: p.newLine(r, wire), made: time.Now()}
	p.attach(c.line)
	return c, nil
}

// spare is how long a connection that is more than are to be kept stays for
// the next one who needs it: making one costs more than many a transaction.
const spare = 30 * time.Second

// release gives a connection back; those that are broken, or more than are to be kept and not needed for long, end.
func (p *pool) release(c kept, broken bool) {
	c.released = time.Now()
	p.mu.Lock()
	delete(p.used, c.line)
	var rest []kept
	if broken { // the others most likely are so, too
		rest, p.idle = append(p.idle, c), nil
	} else {
		p.idle = append(p.idle, c)
	}
	for len(p.idle) > p.limits.Size && c.released.Sub(p.idle[0].released) > spare { // the last one is taken first
		rest, p.idle = append(rest, p.idle[0]), p.idle[1:]
	}
	p.mu.Unlock()
	for _, r := range rest {
		r.close()
	}
	<-p.slots
}

func (p *pool) usage() usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return usage{used: len(p.slots), idle: len(p.idle), limit: cap(p.slots), waiting: int(p.waiting.Load())}
}

// enter counts a user, unless the store is closed.
func (p *pool) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		return ErrClosed
	default:
	}
	p.users.Add(1)
	return nil
}

func (p *pool) close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		close(p.ended)
		p.mu.Unlock()
		p.users.Wait()
		close(p.unneeded)
		p.writer.Wait()
		if p.quiet != nil {
			p.quiet()
		}
		p.listener.Wait()
		p.vanish()
		for _, c := range p.idle {
			c.close()
		}
		p.idle = nil
	})
	return nil
}

func (p *pool) view(ctx context.Context, do func(*Tx) error) error {
	return p.read(ctx, do, false)
}

func (p *pool) viewAtOnce(ctx context.Context, do func(*Tx) error) error {
	return p.read(ctx, do, true)
}

func (p *pool) read(ctx context.Context, do func(*Tx) error, once bool) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.users.Done()
	for attempt := 1; ; attempt++ {
		if attempt > 1 {
			p.repeat()
		}
		err := p.attempt(ctx, do, attempt, once, false)
		if once && errors.Is(err, errMore) { // most likely since what was in memory is old
			err = p.attempt(ctx, do, attempt, once, true)
		}
		if once && errors.Is(err, errMore) {
			once = false
			err = p.attempt(ctx, do, attempt, once, true)
		}
		if err == nil || attempt > 2 || !errors.Is(err, errLost) && !errors.Is(err, errAgain) {
			if errors.Is(err, errLost) || errors.Is(err, errAgain) {
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			return err
		}
	}
}

// attempt runs a reading transaction once. errLost and errAgain say that it can be run again.
func (p *pool) attempt(ctx context.Context, do func(*Tx) error, attempt int, once, anew bool) error {
	k, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	c := &conversation{remote: k.line, once: once}
	c.begin(false)
	err = run(do, &Tx{c: c, dialect: p.dialect, anew: anew})
	if fate := c.fate(); fate != nil {
		// Whatever the closure made of it: it was not the closure's.
		err = fate
	}
	if c.more {
		err = errMore
	}
	if err == nil && p.trace != nil {
		statements, trips := c.cost()
		p.trace(Cost{Statements: statements, RoundTrips: trips, Attempts: attempt, Transactions: 1})
	}
	if c.ended {
		p.release(k, false)
		return err
	}
	// Nobody waits for the end of what is only read.
	p.users.Add(1)
	go func() {
		defer p.users.Done()
		p.release(k, c.rollback() != nil)
	}()
	return err
}
