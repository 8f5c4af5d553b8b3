package radv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
	"isospin/internal/kernel/linklocal"
	"isospin/internal/kernel/netns"
)

// Times of RFC 4861 section 10 and, for the intervals, those that Neutron's
// routers are known for.
const (
	minInterval     = 30 * time.Second
	maxInterval     = 100 * time.Second
	initialInterval = 16 * time.Second
	initialCount    = 3
	minBetween      = 3 * time.Second        // multicast ones
	maxDelay        = 500 * time.Millisecond // of an answer by multicast
	unicastsASecond = 100                    // answers beyond are not sent: a host may not keep the router busy
)

// Lifetime is how long hosts keep a router that falls silent.
const Lifetime = 3 * maxInterval

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// Options are what Start needs.
type Options struct {
	Namespace     string        // required
	Device        string        // required; has a link-local address made from its MAC address
	Advertisement Advertisement // required, with MAC
	Logger        *slog.Logger  // optional
}

// Sender advertises on one device until it is stopped. Its methods are safe for
// concurrent use.
type Sender struct {
	options Options
	index   int
	conn    *ipv6.PacketConn
	raw     *net.IPConn
	source  net.IP

	cancel    context.CancelFunc
	done      sync.WaitGroup
	solicited chan netip.Addr
	changed   chan struct{}

	mu      sync.Mutex
	message []byte
	last    Advertisement
}

// Start opens the socket and begins to advertise.
func Start(ctx context.Context, o Options) (*Sender, error) {
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("router advertisements on %s: %w", o.Device, err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Sender, error) {
	if len(o.Advertisement.MAC) != 6 {
		return nil, errors.New("no MAC address")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	var ifi *net.Interface
	if err := netns.Do(o.Namespace, func() (err error) {
		ifi, err = net.InterfaceByName(o.Device)
		return err
	}); err != nil {
		return nil, err
	}
	listened, err := netns.ListenPacket(ctx, o.Namespace, &net.ListenConfig{Control: netns.BindToDevice(o.Device)}, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, err
	}
	raw, ok := listened.(*net.IPConn)
	if !ok {
		listened.Close()
		return nil, fmt.Errorf("socket of type %T is none of ICMPv6", listened)
	}
	conn := ipv6.NewPacketConn(raw)
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	for _, step := range []func() error{
		func() error { return conn.SetICMPFilter(&filter) },
		func() error { return conn.JoinGroup(ifi, &net.IPAddr{IP: allRouters.AsSlice()}) },
		func() error { return conn.SetMulticastInterface(ifi) },
		func() error { return conn.SetMulticastHopLimit(255) },
		func() error { return conn.SetMulticastLoopback(false) },
		func() error { return conn.SetHopLimit(255) },
		func() error { return conn.SetControlMessage(ipv6.FlagHopLimit, true) },
	} {
		if err := step(); err != nil {
			raw.Close()
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Sender{
		options: o, index: ifi.Index, conn: conn, raw: raw,
		source: LinkLocal(o.Advertisement.MAC).AsSlice(),
		cancel: cancel, solicited: make(chan netip.Addr, 16), changed: make(chan struct{}, 1),
		message: o.Advertisement.Marshal(), last: o.Advertisement,
	}
	context.AfterFunc(ctx, func() { raw.SetReadDeadline(time.Unix(1, 0)) })
	s.done.Go(func() { s.receive(ctx) })
	s.done.Go(func() { s.send(ctx) })
	return s, nil
}

// Index is the interface index of the device that the Sender is on: a device
// that was made anew under the same name has another one.
func (s *Sender) Index() int { return s.index }

// Update changes what is advertised. If it differs from before, hosts are told
// soon.
func (s *Sender) Update(a Advertisement) {
	message := a.Marshal()
	s.mu.Lock()
	same := bytes.Equal(message, s.message)
	s.message, s.last = message, a
	s.mu.Unlock()
	if !same {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// Stop ends the sender. retire tells the hosts that this is no default router
// any more; without it they keep it for the rest of its lifetime, as they
// should when only the program restarts.
func (s *Sender) Stop(retire bool) {
	s.cancel()
	s.done.Wait()
	if retire {
		s.mu.Lock()
		a := s.last
		s.mu.Unlock()
		a.Lifetime = 0
		s.write(a.Marshal(), allNodes)
	}
	s.raw.Close()
}

// receive hands over who solicits, the zero Addr for hosts without an address.
func (s *Sender) receive(ctx context.Context) {
	b, control := make([]byte, 1500), make([]byte, 64)
	for {
		var cm ipv6.ControlMessage
		n, size, from, err := linklocal.Receive(s.raw, b, control)
		if err == nil {
			err = cm.Parse(control[:size])
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.options.Logger.Warn("receive router solicitation", "device", s.options.Device, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		address := from.Addr().WithZone("")
		if err := checkSolicitation(b[:n], cm.HopLimit, address); err != nil {
			s.options.Logger.Debug("router solicitation is not valid", "device", s.options.Device, "from", address, "error", err)
			continue
		}
		select {
		case s.solicited <- address:
		default: // more of them than can be answered
		}
	}
}

func (s *Sender) send(ctx context.Context) {
	initial := initialCount
	var last time.Time // of the last one by multicast
	var second time.Time
	unicasts := 0
	timer := time.NewTimer(0)
	next := time.Now()
	defer timer.Stop()
	schedule := func(at time.Time) {
		if at = later(at, last.Add(minBetween)); at.Before(next) {
			next = at
			timer.Reset(time.Until(next))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
			initial = initialCount
			schedule(time.Now())
		case from := <-s.solicited:
			now := time.Now()
			if from.IsUnspecified() {
				schedule(now.Add(rand.N(maxDelay)))
				continue
			}
			if now.Sub(second) >= time.Second {
				second, unicasts = now, 0
			}
			if unicasts++; unicasts <= unicastsASecond {
				s.write(s.current(), from)
			}
		case <-timer.C:
			s.write(s.current(), allNodes)
			last = time.Now()
			wait := minInterval + rand.N(maxInterval-minInterval)
			if initial--; initial > 0 {
				wait = min(wait, initialInterval)
			}
			next = last.Add(wait)
			timer.Reset(wait)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *Sender) current() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.message
}

func (s *Sender) write(message []byte, to netip.Addr) {
	// The source must be the link-local address, also towards a global one.
	cm := &ipv6.ControlMessage{HopLimit: 255, Src: s.source, IfIndex: s.index}
	dst := &net.IPAddr{IP: to.AsSlice()}
	if _, err := s.conn.WriteTo(message, cm, dst); err != nil {
		// A device that is down; the next one is due soon enough.
		s.options.Logger.Debug("send router advertisement", "device", s.options.Device, "to", to, "error", err)
	}
}

// LinkLocal is the link-local address that belongs to a MAC address (RFC 4291
// appendix A); the zero Addr if it has not six bytes.
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	if len(mac) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}
