// Package linklocal has sockets whose peers may have link-local IPv6 addresses,
// in network namespaces other than the process's own.
//
// Package net names the zone of such an address by the device: whenever it
// knows no device of that number, it lists all devices of the calling thread's
// namespace, under one lock of the process. A device in another namespace is
// never found there, so that each packet and each connection of a guest would
// cost a list of all of the host's devices. Here a zone is a number, and nobody
// is asked for its name.
//
// It must not know what is spoken on the sockets.
package linklocal

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive is the time between probes of a silent connection, as package net has it.
const keepAlive = 15 // s

// Receive reads one packet from a socket like recvmsg(2): oobn bytes of oob are
// its control messages. It waits like the socket's own Read, and is ended by
// Close and by deadlines as that is. from has its zone, if any, as a number;
// the port is 0 of sockets that have none. b must not be empty.
func Receive(s syscall.Conn, b, oob []byte) (n, oobn int, from netip.AddrPort, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, 0, from, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var sender unix.Sockaddr
		failed = again(func() (err error) {
			n, oobn, _, sender, err = unix.Recvmsg(int(fd), b, oob, 0)
			return err
		})
		from = addrPort(sender)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil && failed != nil {
		err = &net.OpError{Op: "read", Net: "ip", Err: os.NewSyscallError("recvmsg", failed)}
	}
	return max(n, 0), max(oobn, 0), from, err
}

// again does it again as long as a signal interrupts it.
func again(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(a.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// PacketConn is a UDP socket over IPv6, or over both families, that answers
// from the address that it was asked at. Make it with NewPacketConn.
type PacketConn struct {
	*net.UDPConn
	raw syscall.RawConn
}

// Addr is a peer of a PacketConn and the way back to it. WriteTo takes no other.
type Addr struct {
	peer    netip.AddrPort
	control []byte // of what came from the peer: where it was sent to
}

// Network implements net.Addr.
func (*Addr) Network() string { return "udp" }

// String implements net.Addr: address and port.
func (a *Addr) String() string {
	return netip.AddrPortFrom(a.peer.Addr().Unmap(), a.peer.Port()).String()
}

// NewPacketConn takes a UDP socket of family AF_INET6, which is the caller's
// still if there is an error.
func NewPacketConn(c net.PacketConn) (*PacketConn, error) {
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("socket of type %T is none of UDP", c)
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("ask for the destination of packets: %w", failed)
	}
	return &PacketConn{udp, raw}, nil
}

// ReadFrom implements net.PacketConn. The address is an *Addr.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	n, oobn, from, err := Receive(c.UDPConn, b, control)
	if err != nil {
		return 0, nil, err
	}
	return n, &Addr{from, control[:oobn]}, nil
}

// WriteTo implements net.PacketConn.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*Addr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: errors.New("an address that nothing came from")}
	}
	peer := &unix.SockaddrInet6{Port: int(a.peer.Port()), Addr: a.peer.Addr().As16()}
	if zone, err := strconv.ParseUint(a.peer.Addr().Zone(), 10, 32); err == nil {
		peer.ZoneId = uint32(zone)
	}
	var n int
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = again(func() (err error) {
			n, err = unix.SendmsgN(int(fd), b, a.control, peer, 0)
			return err
		})
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil && failed != nil {
		err = &net.OpError{Op: "write", Net: "udp", Addr: to, Err: os.NewSyscallError("sendmsg", failed)}
	}
	return max(n, 0), err
}

// Listener accepts TCP connections. Make it with NewListener.
type Listener struct {
	file   *os.File
	raw    syscall.RawConn
	local  net.Addr
	closed atomic.Bool
}

// NewListener takes the place of a listening TCP socket, which is the caller's
// still if there is an error.
func NewListener(l net.Listener) (*Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("socket of type %T is none that listens for TCP", l)
	}
	file, err := tcp.File() // of which, unlike of tcp, a connection can be waited for
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	out := &Listener{file: file, raw: raw, local: tcp.Addr()}
	tcp.Close()
	return out, nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.local }

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return failure("close", l.local, nil, l.file.Close())
}

// SetDeadline ends Accept at that time; the zero time: not.
func (l *Listener) SetDeadline(t time.Time) error {
	return failure("set", l.local, nil, l.file.SetDeadline(t))
}

// Accept implements net.Listener. The local address of connections is that of
// the listener.
func (l *Listener) Accept() (net.Conn, error) {
	fd := -1
	var peer unix.Sockaddr
	var failed error
	err := l.raw.Read(func(s uintptr) bool {
		for {
			failed = again(func() (err error) {
				fd, peer, err = unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				return err
			})
			if !errors.Is(failed, unix.ECONNABORTED) { // the peer has gone already
				return !errors.Is(failed, unix.EAGAIN)
			}
		}
	})
	if err == nil && failed != nil {
		err = os.NewSyscallError("accept4", failed)
	}
	if err != nil && l.closed.Load() { // which a file says in its own way
		err = net.ErrClosed
	}
	if err != nil {
		return nil, failure("accept", l.local, nil, err)
	}
	// What package net sets; a socket that does not take it has ended.
	for _, o := range [][3]int{
		{unix.SOL_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_TCP, unix.TCP_KEEPIDLE, keepAlive}, {unix.SOL_TCP, unix.TCP_KEEPINTVL, keepAlive},
	} {
		_ = unix.SetsockoptInt(fd, o[0], o[1], o[2])
	}
	from := addrPort(peer)
	return &conn{
		file: os.NewFile(uintptr(fd), "tcp"), local: l.local,
		peer: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())),
	}, nil
}

// conn is a connection. A file is what waits for a descriptor that package net
// has not made.
type conn struct {
	file        *os.File
	local, peer net.Addr
}

// failure is an error of a file as one of package net.
func failure(operation string, local, peer net.Addr, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if e, ok := errors.AsType[*os.PathError](err); ok {
		err = e.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: operation, Net: "tcp", Source: local, Addr: peer, Err: err}
}

func (c *conn) failure(operation string, err error) error {
	return failure(operation, c.local, c.peer, err)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.failure("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.failure("write", err)
}

func (c *conn) Close() error                      { return c.failure("close", c.file.Close()) }
func (c *conn) LocalAddr() net.Addr               { return c.local }
func (c *conn) RemoteAddr() net.Addr              { return c.peer }
func (c *conn) SetDeadline(t time.Time) error     { return c.failure("set", c.file.SetDeadline(t)) }
func (c *conn) SetReadDeadline(t time.Time) error { return c.failure("set", c.file.SetReadDeadline(t)) }
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.failure("set", c.file.SetWriteDeadline(t))
}
