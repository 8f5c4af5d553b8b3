// Package admission limits how many connections a listener has open, in all
// and from one source, so that a guest which opens many keeps no other guest
// from being served. What is above the limit is closed at once.
//
// It must not know what is spoken on the connections.
package admission

import (
	"net"
	"net/netip"
	"sync"
)

// Options of a Listener.
type Options struct {
	PerSource int // required; open connections of one address
	Total     int // required; open connections of the listener
}

// Listener wraps another one. Closing it also closes the connections that it
// accepted: who is no longer listened to is no longer served.
type Listener struct {
	net.Listener
	options Options

	mu     sync.Mutex
	closed bool
	open   map[*conn]struct{}
	source map[netip.Addr]int
}

// New wraps a TCP listener.
func New(l net.Listener, o Options) *Listener {
	return &Listener{Listener: l, options: o, open: map[*conn]struct{}{}, source: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted := &conn{Conn: c, listener: l, source: Source(c.RemoteAddr())}
		if l.admit(admitted) {
			return admitted, nil
		}
		c.Close()
	}
}

func (l *Listener) admit(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.open) >= l.options.Total || l.source[c.source] >= l.options.PerSource {
		return false
	}
	l.open[c] = struct{}{}
	l.source[c.source]++
	return true
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	open := make([]*conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	return err
}

type conn struct {
	net.Conn
	listener *Listener
	source   netip.Addr
	once     sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() {
		l := c.listener
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
		if l.source[c.source]--; l.source[c.source] <= 0 {
			delete(l.source, c.source)
		}
	})
	return c.Conn.Close()
}

// Source is the address of a peer, with the zone of a link-local one and never
// in IPv4-mapped form; the zero Addr if it has none.
func Source(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}
