package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// silence is how long an answer may take before the server is asked whether it is still there.
	silence = 2 * time.Second
	// glance is how often answers that are overdue are looked for.
	glance = silence / 4
	// probeLimit is how long a server may take to answer a probe when [database] connection has no limit for connecting.
	probeLimit = 5 * time.Second
)

// errAway answers those for whom there is no connection while the server does not answer.
var errAway = fmt.Errorf("%w: it does not answer", ErrUnavailable)

// line is a connection to an address, and what is heard of the other end. A
// server that hangs, or whose machine has no power, keeps its connections and
// says nothing: only another question tells that from a statement that takes its time.
type line struct {
	remote // nil: it waits to be told something, and nobody waits for it
	wire   net.Conn
	// asked is when the round trip under way began, heard when the last one was answered: in nanoseconds since the pool's epoch, 0 is not at all.
	asked, heard atomic.Int64
	epoch        time.Time
}

func (p *pool) newLine(r remote, wire net.Conn) *line {
	if t, ok := wire.(*tls.Conn); ok {
		wire = t.NetConn() // whose end does not wait for what is still to be said
	}
	l := &line{remote: r, wire: wire, epoch: p.epoch}
	l.heard.Store(l.now())
	return l
}

func (l *line) now() int64 { return int64(time.Since(l.epoch)) }

// trip is a round trip, if do makes one.
func (l *line) trip(do func() error) error {
	_, before := l.cost()
	l.asked.Store(l.now())
	err := do()
	l.asked.Store(0)
	if _, after := l.cost(); after > before && !errors.Is(l.fate(), errLost) {
		l.heard.Store(l.now())
	}
	return err
}

func (l *line) send(writes []write, questions []reading, end bool) error {
	return l.trip(func() error { return l.remote.send(writes, questions, end) })
}

func (l *line) exec(writes []write, query string, args []any) (n int64, err error) {
	err = l.trip(func() error {
		n, err = l.remote.exec(writes, query, args)
		return err
	})
	return n, err
}

func (l *line) rollback() error { return l.trip(l.remote.rollback) }

// attach makes a connection that is not one of acquire's end with the others.
func (p *pool) attach(l *line) (detach func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[l] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.used, l)
	}
}

// answered: whatever it said, it was the server who did.
func answered(err error) bool {
	var postgres *pgconn.PgError
	var mariadb *mysql.MySQLError
	return err == nil || !errors.Is(err, ErrUnavailable) || errors.As(err, &postgres) || errors.As(err, &mariadb)
}

// listenFor looks for round trips without an answer, and then asks the server
// on a connection of its own. One that does not answer that either is away:
// what waits for it is lost, and nobody waits for it any more until it answers.
func (p *pool) listenFor(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	// settled is when an address answered a probe, doubted since when it does not.
	settled, doubted := map[string]time.Time{}, map[string]time.Time{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		silent := p.silent()
		for address := range doubted {
			if silent[address] == nil {
				delete(doubted, address)
			}
		}
		for address, wire := range silent {
			if time.Since(settled[address]) < 2*silence {
				continue
			}
			begin := time.Now()
			err := p.ask(ctx, wire)
			switch took := time.Since(begin); {
			case ctx.Err() != nil:
				return
			case answered(err) || p.heardSince(address, begin):
				settled[address] = time.Now()
				delete(doubted, address)
			case took > p.patience+time.Second: // this program was not there itself
			default:
				if doubted[address].IsZero() {
					doubted[address] = begin
				}
				// One that is refused at once is asked again: others may still be answered.
				if time.Since(doubted[address]) >= p.patience {
					p.cut(address, err)
				}
			}
		}
		if p.gone() != nil && answered(p.ask(ctx, nil)) && ctx.Err() == nil {
			p.mu.Lock()
			p.away = nil
			p.near, p.vanish = context.WithCancel(context.Background())
			p.mu.Unlock()
			p.log.Info("the database answers again")
		}
	}
}

// ask asks the server at the other end of a connection for an answer, or, if that is nil, any.
func (p *pool) ask(ctx context.Context, wire net.Conn) error {
	if wire != nil {
		limited, cancel := context.WithTimeout(ctx, p.patience)
		defer cancel()
		ctx = limited
	}
	return p.probe(ctx, wire)
}

// silent are addresses that owe an answer for long and have given none meanwhile, each with a connection there.
func (p *pool) silent() map[string]net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := int64(time.Since(p.epoch))
	var all map[string]net.Conn
	for l := range p.used {
		if asked := l.asked.Load(); asked > 0 && now-asked > int64(silence) {
			if all == nil {
				all = map[string]net.Conn{}
			}
			all[l.wire.RemoteAddr().String()] = l.wire
		}
	}
	if all == nil {
		return nil
	}
	for l := range p.lines {
		if now-l.heard.Load() < int64(silence) {
			delete(all, l.wire.RemoteAddr().String())
		}
	}
	return all
}

func (p *pool) lines(yield func(*line) bool) {
	for l := range p.used {
		if !yield(l) {
			return
		}
	}
	for _, c := range p.idle {
		if !yield(c.line) {
			return
		}
	}
}

func (p *pool) heardSince(address string, begin time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		if l.heard.Load() > int64(begin.Sub(p.epoch)) && l.wire.RemoteAddr().String() == address {
			return true
		}
	}
	return false
}

// gone is why no connection is to be had; nil if one may be.
func (p *pool) gone() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away
}

// leave notes, holding mu, that the server is away.
func (p *pool) leave(cause error) {
	if p.away == nil && p.listening {
		p.away = errAway
		p.vanish() // nor for a connection to it
		p.log.Warn("the database does not answer: nobody waits for it until it does", "error", cause)
	}
}

// cut ends all connections to an address; those who wait for an answer know then.
func (p *pool) cut(address string, cause error) {
	p.mu.Lock()
	p.leave(cause)
	var unused []kept
	p.idle = slices.DeleteFunc(p.idle, func(c kept) bool {
		if c.wire.RemoteAddr().String() != address {
			return false
		}
		unused = append(unused, c)
		return true
	})
	for l := range p.used {
		if l.wire.RemoteAddr().String() == address {
			l.wire.Close()
		}
	}
	p.mu.Unlock()
	for _, c := range unused {
		c.wire.Close()
		c.close()
	}
}

// missed notes that a connection could not be made: without any other, nobody is to find that out again.
func (p *pool) missed(begin time.Time, err error) {
	if answered(err) || time.Since(begin) < silence {
		return // who is told at once need not be kept from asking
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		if l.remote != nil {
			return
		}
	}
	p.leave(err)
}
