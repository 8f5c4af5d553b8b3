package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// openTime is how long a neighbor may take to open a session.
	openTime = 30 * time.Second
	// lastWords is how long a notification may take.
	lastWords = time.Second
	// maxIncoming bounds the connections that a neighbor has opened at a time.
	maxIncoming = 2
)

// peer is a neighbor with its sessions: at most one is established.
type peer struct {
	speaker *Speaker
	Neighbor
	logger *slog.Logger
	// ended is told that a session is over.
	ended chan struct{}

	mu          sync.Mutex
	incoming    int
	confirming  *session // has had an OPEN
	established *session
	failed      error
	malformed   bool          // it was told that the established session has such routes
	rib         map[key]*path // of the established session; nil paths are of no use here
}

// session is one connection with a neighbor.
type session struct {
	peer     *peer
	conn     net.Conn
	incoming bool
	changed  chan struct{} // what is to be announced
	again    chan struct{} // all of it is asked for
	theirs   open
	hold     time.Duration

	writing sync.Mutex
	ends    atomic.Int64 // no message is written after it, in Unix nanoseconds; 0: the session goes on
	sent    map[key]Announcement
}

// enter counts a connection from the neighbor; false: it has enough of them.
func (p *peer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.incoming >= maxIncoming {
		return false
	}
	p.incoming++
	return true
}

func (p *peer) leave() {
	p.mu.Lock()
	p.incoming--
	p.mu.Unlock()
	select {
	case p.ended <- struct{}{}:
	default:
	}
}

// kick has the established session announce what changed.
func (p *peer) kick() {
	p.mu.Lock()
	s := p.established
	p.mu.Unlock()
	if s != nil {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// run calls the neighbor whenever there is no session.
func (p *peer) run(ctx context.Context) {
	if p.Passive {
		return
	}
	pause := p.speaker.options.Retry
	for ctx.Err() == nil {
		p.mu.Lock()
		busy := p.established != nil || p.confirming != nil
		p.mu.Unlock()
		if busy { // the neighbor has called
			select {
			case <-ctx.Done():
			case <-p.ended:
			}
			continue
		}
		began := time.Now()
		conn, err := p.dial(ctx)
		if err != nil {
			p.fail(ctx, err)
		} else if p.serve(ctx, conn, false) && time.Since(began) > longestRetry { // else the next one may end as soon
			pause = p.speaker.options.Retry
		}
		// Not in step with others that lost the same neighbor.
		wait := time.NewTimer(pause*3/4 + rand.N(pause/4+1))
		select {
		case <-ctx.Done():
		case <-wait.C:
			pause = min(2*pause, longestRetry)
		}
		wait.Stop()
	}
}

func (p *peer) dial(ctx context.Context) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: openTime, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = sign(int(fd), p.Neighbor) })
		return errors.Join(err, failed)
	}}
	if own := p.speaker.options.Endpoint; own.Is4() == p.Address.Is4() {
		d.LocalAddr = &net.TCPAddr{IP: own.AsSlice()}
	}
	err = p.speaker.options.Inside(func() error {
		conn, err = d.DialContext(ctx, network(p.Address), net.JoinHostPort(p.Address.String(), strconv.Itoa(int(p.Port))))
		return err
	})
	return conn, err
}

// fail notes why there is no session, and says so when it is news.
func (p *peer) fail(ctx context.Context, err error) {
	p.mu.Lock()
	news := p.failed == nil || p.failed.Error() != err.Error()
	p.failed = err
	p.mu.Unlock()
	if news && ctx.Err() == nil {
		p.logger.Warn("no BGP session", "error", err)
	}
}

// serve has a session over a connection until it ends; established: it came to be.
func (p *peer) serve(ctx context.Context, conn net.Conn, incoming bool) (established bool) {
	s := &session{peer: p, conn: conn, incoming: incoming, changed: make(chan struct{}, 1), again: make(chan struct{}, 1), sent: map[key]Announcement{}}
	defer conn.Close()
	release := context.AfterFunc(ctx, func() { s.abort(&notification{code: errCease, subcode: 2}) }) // administrative shutdown
	defer release()
	err := s.open()
	if err == nil {
		established = true
		err = s.exchange()
	}
	var reason *notification
	var timeout net.Error
	switch {
	case errors.As(err, &reason) && !reason.received:
		s.notify(reason)
	case errors.As(err, &timeout) && timeout.Timeout():
		reason = &notification{code: errHold}
		s.notify(reason)
		err = reason
	}
	p.end(ctx, s, err)
	return established
}

// end forgets a session, and the routes that it brought.
func (p *peer) end(ctx context.Context, s *session, err error) {
	p.mu.Lock()
	if p.confirming == s {
		p.confirming = nil
	}
	was := p.established == s
	var lost map[key]*path
	changed := map[uint32]bool{}
	if was {
		p.established, lost, p.rib, p.malformed = nil, p.rib, map[key]*path{}, false
		// Before there can be another session, whose routes have the same keys.
		p.speaker.mu.Lock()
		for k, old := range lost {
			p.speaker.set(p.Address, k, old, nil, changed)
		}
		p.speaker.mu.Unlock()
	}
	other := p.established != nil
	p.mu.Unlock()
	p.tell(changed)
	if !other { // one that lost against another is no failure
		p.fail(ctx, err)
	}
	select {
	case p.ended <- struct{}{}:
	default:
	}
}

func (p *peer) tell(changed map[uint32]bool) {
	if len(changed) > 0 {
		p.speaker.options.Changed(slices.Sorted(maps.Keys(changed)))
	}
}

// internal tells whether the neighbor is of the same autonomous system.
func (p *peer) internal() bool { return p.AS == p.speaker.options.AS }

func (s *session) write(m []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(max(s.hold, openTime))); err != nil {
		return err
	}
	if ends := s.ends.Load(); ends != 0 {
		if err := s.conn.SetWriteDeadline(time.Unix(0, ends)); err != nil {
			return err
		}
	}
	_, err := s.conn.Write(m)
	return err
}

// hurry has a writer that waits for the neighbor end soon.
func (s *session) hurry() {
	ends := time.Now().Add(lastWords)
	s.ends.CompareAndSwap(0, ends.UnixNano()) // for writes to come
	_ = s.conn.SetWriteDeadline(ends)         // for one under way
}

// notify says why the session ends, if that can be said at once.
func (s *session) notify(n *notification) {
	s.hurry()
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(lastWords))
	_, _ = s.conn.Write(message(typeNotification, append([]byte{n.code, n.subcode}, n.data...))) // it ends anyway
}

// abort ends the session from outside of it.
func (s *session) abort(n *notification) {
	s.notify(n)
	s.conn.Close()
}

// read is the next message; a notification is an error.
func (s *session) read() (byte, []byte, error) {
	kind, body, err := readMessage(s.conn)
	if err == nil && kind == typeNotification {
		return 0, nil, &notification{code: body[0], subcode: body[1], data: body[2:], received: true}
	}
	return kind, body, err
}

// open comes to an established session.
func (s *session) open() error {
	p, o := s.peer, s.peer.speaker.options
	if err := s.conn.SetReadDeadline(time.Now().Add(openTime)); err != nil {
		return err
	}
	if err := s.write(open{as: o.AS, hold: o.Hold, id: o.ID}.encode()); err != nil {
		return err
	}
	kind, body, err := s.read()
	if err != nil {
		return err
	}
	if kind != typeOpen {
		return &notification{code: errFSM, subcode: 1}
	}
	if s.theirs, err = decodeOpen(body); err != nil {
		return err
	}
	switch {
	case s.theirs.as != p.AS:
		return fmt.Errorf("its AS is %d, not %d: %w", s.theirs.as, p.AS, &notification{code: errOpen, subcode: 2})
	case s.theirs.id == o.ID && p.internal():
		return fmt.Errorf("it has our identifier: %w", &notification{code: errOpen, subcode: 3})
	case !s.theirs.evpn:
		return fmt.Errorf("it does not speak EVPN: %w", &notification{code: errOpen, subcode: 7, data: []byte{1, 4, 0, afiL2VPN, 0, safiEVPN}})
	}
	s.hold = min(o.Hold, s.theirs.hold) // 0: neither side keeps the session alive
	if err := p.collide(s); err != nil {
		return err
	}
	if err := s.write(message(typeKeepalive, nil)); err != nil {
		return err
	}
	if kind, _, err = s.read(); err != nil {
		return err
	}
	if kind != typeKeepalive {
		return &notification{code: errFSM, subcode: 2}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.confirming != s {
		return &notification{code: errCease, subcode: 7}
	}
	p.confirming, p.established, p.failed = nil, s, nil
	return nil
}

// collide decides between two connections with the neighbor (RFC 4271, 6.8):
// the one stays that the side with the higher identifier has opened.
func (p *peer) collide(s *session) error {
	lost := &notification{code: errCease, subcode: 7}
	p.mu.Lock()
	other := p.confirming
	own := p.speaker.options
	// Of equal identifiers the AS decides (RFC 6286, 2.3).
	ours := cmp.Or(own.ID.Compare(s.theirs.id), cmp.Compare(own.AS, s.theirs.as)) > 0
	if p.established != nil || other != nil && s.incoming == ours {
		p.mu.Unlock()
		return lost
	}
	p.confirming = s
	p.mu.Unlock()
	if other != nil {
		other.abort(lost)
	}
	return nil
}

// exchange has the established session until it ends.
func (s *session) exchange() error {
	s.peer.logger.Info("BGP session established", "hold", s.hold)
	done := make(chan struct{})
	var writer sync.WaitGroup
	var written error
	writer.Go(func() {
		if written = s.announce(done); written != nil {
			s.conn.Close()
		}
	})
	err := s.receive()
	close(done)
	s.hurry()
	writer.Wait()
	if written != nil && errors.Is(err, net.ErrClosed) {
		err = written
	}
	return err
}

// announce sends what is to be announced, and keeps the session alive.
func (s *session) announce(done <-chan struct{}) error {
	var tick <-chan time.Time
	if s.hold > 0 {
		t := time.NewTicker(s.hold / 3)
		defer t.Stop()
		tick = t.C
	}
	if err := s.advertise(); err != nil {
		return err
	}
	if err := s.write((&update{}).encode(true, true)); err != nil { // End-of-RIB
		return err
	}
	for {
		var err error
		select {
		case <-done:
			return nil
		case <-s.changed:
			err = s.advertise()
		case <-s.again:
			if err = s.advertise(); err == nil { // what is gone is withdrawn before it is forgotten
				clear(s.sent)
				err = s.advertise()
			}
		case <-tick:
			err = s.write(message(typeKeepalive, nil))
		}
		if err != nil {
			return err
		}
	}
}

// batch is how many routes fit into a message, whatever they are.
const batch = 50

// advertise sends what differs between what the neighbor was told and what is announced.
func (s *session) advertise() error {
	speaker := s.peer.speaker
	speaker.mu.Lock()
	want := speaker.announced // replaced, never changed
	speaker.mu.Unlock()
	var gone []prefixRoute
	for k := range s.sent {
		if _, stays := want[k]; !stays {
			gone = append(gone, prefixRoute{key: k})
			delete(s.sent, k)
		}
	}
	internal := s.peer.internal()
	for part := range slices.Chunk(gone, batch) {
		if err := s.write((&update{gone: part}).encode(s.theirs.fourOctets, internal)); err != nil {
			return err
		}
	}
	// Those of one router share their attributes.
	alike := map[string][]prefixRoute{}
	sample := map[string]Announcement{}
	for k, a := range want {
		if old, told := s.sent[k]; told && old.VNI == a.VNI && slices.Equal(old.RouterMAC, a.RouterMAC) {
			continue
		}
		s.sent[k] = a
		id := fmt.Sprint(a.VNI, a.RouterMAC)
		alike[id], sample[id] = append(alike[id], prefixRoute{key: k, label: a.VNI}), a
	}
	for id, routes := range alike {
		u := update{preference: 100, nextHop: speaker.options.Endpoint, communities: communitiesOf(speaker.options.AS, sample[id])}
		if !internal {
			u.path = []uint32{speaker.options.AS}
		}
		for part := range slices.Chunk(routes, batch) {
			u.reach = part
			if err := s.write(u.encode(s.theirs.fourOctets, internal)); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive follows what the neighbor announces until it ends.
func (s *session) receive() error {
	for {
		deadline := time.Time{}
		if s.hold > 0 {
			deadline = time.Now().Add(s.hold)
		}
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		kind, body, err := s.read()
		if err != nil {
			return err
		}
		switch kind {
		case typeUpdate:
			u, err := decodeUpdate(body, s.theirs.fourOctets, s.peer.internal())
			if err != nil {
				return err
			}
			if err := s.peer.learn(u); err != nil {
				return err
			}
		case typeOpen:
			return &notification{code: errFSM, subcode: 3}
		case typeRefresh: // RFC 2918; of the one family that there is
			select {
			case s.again <- struct{}{}:
			default:
			}
		}
	}
}

// learn takes an UPDATE of the established session.
func (p *peer) learn(u *update) error {
	if u.unacceptable != nil {
		p.mu.Lock()
		level := slog.LevelWarn
		if p.malformed {
			level = slog.LevelDebug
		}
		p.malformed = true
		p.mu.Unlock()
		p.logger.Log(context.Background(), level, "routes are taken for withdrawn", "routes", len(u.reach), "error", u.unacceptable)
		u.gone, u.reach = append(u.gone, u.reach...), nil
	}
	o := p.speaker.options
	// What comes back to us is none of the neighbor's.
	loop := slices.Contains(u.path, o.AS) || u.originator == o.ID || u.nextHop == o.Endpoint
	changed := map[uint32]bool{}
	p.mu.Lock()
	p.speaker.mu.Lock()
	for _, r := range u.gone {
		if old, there := p.rib[r.key]; there {
			delete(p.rib, r.key)
			p.speaker.set(p.Address, r.key, old, nil, changed)
		}
	}
	for _, r := range u.reach {
		old, there := p.rib[r.key]
		now, ok := u.usable(r)
		if !ok || loop {
			now = nil
		}
		if !there && len(p.rib) >= maxPaths {
			p.speaker.mu.Unlock()
			p.mu.Unlock()
			return fmt.Errorf("more than %d routes: %w", maxPaths, &notification{code: errCease, subcode: 1})
		}
		p.rib[r.key] = now
		if old != nil && now != nil && *old == *now {
			p.rib[r.key] = old
			continue
		}
		p.speaker.set(p.Address, r.key, old, now, changed)
	}
	p.speaker.mu.Unlock()
	p.mu.Unlock()
	p.tell(changed)
	return nil
}
