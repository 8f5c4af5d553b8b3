// Package bfd tells whether a neighbour on a link forwards: sessions of
// Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode over one
// hop (RFC 5881), without authentication and echo, from a network namespace.
//
// It must not know what depends on the neighbour.
package bfd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/linklocal"
	"isospin/internal/kernel/netns"
)

const (
	// Port is where control packets are received, RFC 5881 section 4.
	Port = 3784
	// Packets come from one of these ports, a hop that is none has this limit (sections 4 and 5).
	firstSource, lastSource = 49152, 65535
	hopLimit                = 255

	defaultInterval   = 300 * time.Millisecond
	defaultMultiplier = 3
)

// Options are what Start needs.
type Options struct {
	Namespace string     // required
	Device    string     // required
	Peer      netip.Addr // required; on the link of the device
	// Interval is the time between packets once the neighbour answers; after
	// Multiplier of it without one it is taken for lost. // optional, 300 ms and 3
	Interval   time.Duration
	Multiplier uint8
	// Changed is called after each change of Up, from the session's goroutine. // required
	Changed func()
	Logger  *slog.Logger // optional
}

// Session asks one neighbour until it is stopped. Its methods are safe for concurrent use.
type Session struct {
	options Options
	log     *slog.Logger
	index   int
	in, out net.PacketConn
	to      *net.UDPAddr
	// read gives a packet, the hop limit that it has left, and where it is from.
	read func([]byte) (n, limit int, from netip.Addr, err error)

	cancel context.CancelFunc
	done   sync.WaitGroup
	heard  chan struct{}

	mu      sync.Mutex
	machine *machine
}

// Start opens the sockets and begins to ask.
func Start(ctx context.Context, o Options) (*Session, error) {
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("BFD session with %s on %s: %w", o.Peer, o.Device, err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Session, error) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Multiplier == 0 {
		o.Multiplier = defaultMultiplier
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !o.Peer.IsValid() || o.Changed == nil {
		return nil, errors.New("no neighbour, or nobody who wants to know")
	}
	s := &Session{
		options: o, log: o.Logger.With("namespace", o.Namespace, "device", o.Device, "neighbor", o.Peer),
		heard: make(chan struct{}, 1), machine: newMachine(o.Interval, o.Multiplier, rand.Uint32N(1<<32-1)+1),
		to: &net.UDPAddr{IP: o.Peer.AsSlice(), Port: Port},
	}
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, err
	}
	ctx, s.cancel = context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { s.in.SetReadDeadline(time.Unix(1, 0)) })
	s.done.Go(func() { s.receive(ctx) })
	s.done.Go(func() { s.run(ctx) })
	return s, nil
}

// open makes a socket for each direction: one port can not be both.
func (s *Session) open(ctx context.Context) (err error) {
	o := s.options
	if err := netns.Do(o.Namespace, func() error {
		device, err := net.InterfaceByName(o.Device)
		if err == nil {
			s.index = device.Index
		}
		return err
	}); err != nil {
		return err
	}
	network, any := "udp4", "0.0.0.0"
	if o.Peer.Is6() {
		network, any = "udp6", "::"
	}
	config := &net.ListenConfig{Control: netns.BindToDevice(o.Device)}
	if s.in, err = netns.ListenPacket(ctx, o.Namespace, config, network, net.JoinHostPort(any, fmt.Sprint(Port))); err != nil {
		return err
	}
	for range 16 { // a port may be another's
		port := firstSource + rand.IntN(lastSource-firstSource+1)
		if s.out, err = netns.ListenPacket(ctx, o.Namespace, config, network, net.JoinHostPort(any, fmt.Sprint(port))); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return err
	}
	if o.Peer.Is6() {
		in, ok := s.in.(syscall.Conn)
		if !ok {
			return fmt.Errorf("socket of type %T has no descriptor", s.in)
		}
		control := make([]byte, 64)
		s.read = func(b []byte) (n, limit int, from netip.Addr, err error) {
			n, size, sender, err := linklocal.Receive(in, b, control)
			var m ipv6.ControlMessage
			if err == nil {
				err = m.Parse(control[:size])
			}
			return n, m.HopLimit, sender.Addr(), err
		}
		return errors.Join(ipv6.NewPacketConn(s.out).SetHopLimit(hopLimit), ipv6.NewPacketConn(s.in).SetControlMessage(ipv6.FlagHopLimit, true))
	}
	in := ipv4.NewPacketConn(s.in)
	s.read = func(b []byte) (n, limit int, from netip.Addr, err error) {
		n, m, sender, err := in.ReadFrom(b)
		if m != nil {
			limit = m.TTL
		}
		if udp, ok := sender.(*net.UDPAddr); ok {
			from = udp.AddrPort().Addr()
		}
		return n, limit, from, err
	}
	return errors.Join(ipv4.NewPacketConn(s.out).SetTTL(hopLimit), in.SetControlMessage(ipv4.FlagTTL, true))
}

// Index is the interface index of the device that the session is on.
func (s *Session) Index() int { return s.index }

// Up tells whether the neighbour answers and hears the answers.
func (s *Session) Up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.state == Up
}

// Stop ends the session. The neighbour is told that this is no failure: it may
// go on to use the link.
func (s *Session) Stop() {
	s.cancel()
	s.done.Wait()
	s.mu.Lock()
	s.machine.enter(AdminDown, diagnosticAdmin)
	p := s.machine.packet(false)
	s.mu.Unlock()
	s.send(p)
	s.close()
}

func (s *Session) close() {
	for _, c := range []net.PacketConn{s.in, s.out} {
		if c != nil {
			c.Close()
		}
	}
}

// send gives up on errors: a neighbour that is told nothing notices.
func (s *Session) send(p packet) {
	if _, err := s.out.WriteTo(p.marshal(), s.to); err != nil {
		s.log.Debug("BFD control packet is not sent", "error", err)
	}
}

// run sends packets, and notices when none come.
func (s *Session) run(ctx context.Context) {
	var next time.Time
	var sent packet
	up := false
	for {
		now := time.Now()
		s.mu.Lock()
		s.machine.expire(now)
		p, pause, expires := s.machine.packet(false), s.machine.pause(), s.machine.expires
		s.mu.Unlock()
		if is := p.state == Up; is != up {
			up = is
			s.log.Info("neighbor by BFD", "up", up, "diagnostic", p.diagnostic)
			s.options.Changed()
		}
		news := p
		news.poll = sent.poll
		switch {
		case pause == 0:
			next = now.Add(slow)
		case !next.After(now) || news != sent: // of a change it should know soon
			s.send(p)
			sent = p
			next = now.Add(pause*3/4 + rand.N(pause/4)) // section 6.8.7; at 3/4 and more
		default:
			next = minTime(next, now.Add(pause))
		}
		wake := next
		if !expires.IsZero() {
			wake = minTime(wake, expires)
		}
		timer := time.NewTimer(max(0, time.Until(wake)))
		select {
		case <-timer.C:
		case <-s.heard:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// receive takes the packets of the neighbour.
func (s *Session) receive(ctx context.Context) {
	b := make([]byte, 256)
	for ctx.Err() == nil {
		n, limit, from, err := s.read(b)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				s.log.Debug("BFD control packet is not received", "error", err)
				select { // the device may be away for a moment
				case <-time.After(slow):
				case <-ctx.Done():
				}
			}
			continue
		}
		if limit != hopLimit || from.Unmap().WithZone("") != s.options.Peer.WithZone("") {
			continue // from beyond the link, or from somebody else
		}
		p, err := parse(b[:n])
		if err != nil {
			s.log.Debug("BFD control packet is not valid", "error", err)
			continue
		}
		s.mu.Lock()
		answer := s.machine.receive(p, time.Now())
		final := s.machine.packet(true)
		s.mu.Unlock()
		if answer {
			s.send(final)
		}
		select {
		case s.heard <- struct{}{}:
		default:
		}
	}
}
