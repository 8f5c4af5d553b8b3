package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isospin/internal/agent/admission"
	"isospin/internal/kernel/dump"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/linklocal"
	"isospin/internal/kernel/netns"
	"isospin/internal/reconcile"
)

// checkInterval is how often open sockets are compared with the namespaces that
// others may have made anew.
const checkInterval = 5 * time.Second

// place is one listening socket that is wanted.
type place struct {
	namespace string
	port      int
	six       bool // the link-local address; else 169.254.169.254, or any for a router
}

// identity of what a socket is bound to. It changes when the namespace or the
// device is made anew.
type identity struct {
	namespace uint64
	device    int
}

type opened struct {
	id       identity
	listener net.Listener
	ended    chan struct{}
}

// keeper opens the listeners that are wanted as soon as their namespaces are
// there, and closes the others. Its goroutine is run; want may be called from
// any other.
type keeper struct {
	server *http.Server
	logger *slog.Logger

	kick chan struct{} // cap 1
	mu   sync.Mutex
	next map[place]*scope

	// Of run alone.
	wanted  map[place]*scope
	open    map[place]*opened
	told    map[place]string // the last error that was logged
	backoff reconcile.Backoff[place]
}

func newKeeper(handler http.Handler, logger *slog.Logger) *keeper {
	return &keeper{
		logger: logger, kick: make(chan struct{}, 1), open: map[place]*opened{}, told: map[place]string{},
		backoff: reconcile.Backoff[place]{First: 50 * time.Millisecond, Longest: 10 * time.Second},
		server: &http.Server{
			Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
			WriteTimeout: 90 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
			BaseContext: func(l net.Listener) context.Context {
				if s, ok := l.(scopedListener); ok {
					return context.WithValue(context.Background(), scopeKey{}, s.scope)
				}
				return context.Background()
			},
		},
	}
}

type scopedListener struct {
	net.Listener
	scope *scope
}

// want replaces what is to be listened on. The map is the keeper's afterwards.
func (k *keeper) want(places map[place]*scope) {
	k.mu.Lock()
	k.next = places
	k.mu.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// run keeps the listeners until ctx ends, and returns when none is left.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() {
		for p := range k.open {
			k.close(p)
		}
		k.server.Close()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
			k.mu.Lock()
			k.wanted = k.next
			k.mu.Unlock()
			// What could not be opened may have been made just now.
			k.backoff = reconcile.Backoff[place]{First: k.backoff.First, Longest: k.backoff.Longest}
		case <-timer.C:
		}
		timer.Reset(k.step(ctx, time.Now()))
	}
}

// step compares what is open with what is wanted, and returns when to do so
// again.
func (k *keeper) step(ctx context.Context, now time.Time) time.Duration {
	is := map[string]identity{} // by namespace, both families having the same
	for p, o := range k.open {
		s := k.wanted[p]
		if s != nil && !o.hasEnded() {
			id, ok := is[s.namespace]
			if !ok {
				id, _ = identify(s) // zero if it is not there
				is[s.namespace] = id
			}
			if id == o.id {
				continue
			}
		}
		k.close(p)
	}
	for p, s := range k.wanted {
		if k.open[p] != nil || !k.backoff.Ready(p, now) {
			continue
		}
		o, err := k.listen(ctx, p, s)
		if err != nil {
			k.backoff.Failed(p, now)
			absent := errors.Is(err, netns.ErrNotExist) || errors.Is(err, link.ErrNotExist)
			if text := err.Error(); !absent && k.told[p] != text {
				k.told[p] = text
				k.logger.Warn("metadata is not served yet", "namespace", p.namespace, "error", err)
			}
			continue
		}
		k.backoff.Forget(p)
		delete(k.told, p)
		k.open[p] = o
	}
	wait := checkInterval
	if next, ok := k.backoff.Next(); ok {
		wait = min(wait, max(next.Sub(now), 10*time.Millisecond))
	}
	return wait
}

func (o *opened) hasEnded() bool {
	select {
	case <-o.ended:
		return true
	default:
		return false
	}
}

func (k *keeper) close(p place) {
	o := k.open[p]
	o.listener.Close()
	<-o.ended
	delete(k.open, p)
}

func (k *keeper) listen(ctx context.Context, p place, s *scope) (*opened, error) {
	o := &opened{ended: make(chan struct{})}
	var err error
	if o.id, err = identify(s); err != nil {
		return nil, err
	}
	network, address := "tcp4", net.JoinHostPort(address4.String(), fmt.Sprint(p.port))
	switch {
	case s.router != "":
		network, address = "tcp", fmt.Sprintf(":%d", p.port)
	case p.six:
		// By number: package net remembers names of devices, and those of
		// another namespace may be the same.
		network, address = "tcp6", net.JoinHostPort(fmt.Sprintf("%s%%%d", address6, o.id.device), fmt.Sprint(p.port))
	}
	config := net.ListenConfig{Control: beforeAddress(p.six)}
	l, err := netns.Listen(ctx, p.namespace, &config, network, address)
	if err != nil {
		return nil, err
	}
	connections, err := linklocal.NewListener(l)
	if err != nil {
		l.Close()
		return nil, err
	}
	o.listener = scopedListener{admission.New(connections, admission.Options{PerSource: 16, Total: 1024}), s}
	go func() {
		defer close(o.ended)
		if err := k.server.Serve(o.listener); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			k.logger.Warn("metadata listener ended", "namespace", p.namespace, "error", err)
		}
	}()
	return o, nil
}

// beforeAddress lets a socket be bound to an address that the device gets later.
func beforeAddress(six bool) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			if six {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			}
		}); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("bind before the address is there: %w", err)
		}
		return nil
	}
}

// identify says what a scope's sockets are bound to now.
func identify(s *scope) (id identity, err error) {
	f, err := netns.Open(s.namespace)
	if err != nil {
		return id, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return id, fmt.Errorf("network namespace %s: %w", s.namespace, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.namespace = st.Ino
	}
	if s.device == "" {
		return id, nil
	}
	err = netns.Do(s.namespace, func() (err error) {
		id.device, err = link.Index(s.device)
		return err
	})
	return id, err
}

// neighbour returns a function that finds the MAC address behind an IPv6
// address on the device.
func neighbour(namespace, device string) func(netip.Addr) (macAddress, bool) {
	return func(ip netip.Addr) (mac macAddress, ok bool) {
		err := netns.Do(namespace, func() error {
			index, err := link.Index(device)
			if err != nil {
				return err
			}
			list, err := dump.Read(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, unix.AF_INET6) })
			if err != nil {
				return err
			}
			for _, n := range list {
				if a, valid := netip.AddrFromSlice(n.IP); valid && a == ip && len(n.HardwareAddr) == 6 {
					mac, ok = macAddress(n.HardwareAddr), true
				}
			}
			return nil
		})
		return mac, ok && err == nil
	}
}
