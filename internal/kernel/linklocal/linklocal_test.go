package linklocal_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/linklocal"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	patience = 30 * time.Second
	device   = 90001 // number of the server's device, which the process's own namespace has no device of
)

// link makes a guest "g" and a namespace "s" of a server, on one link.
func link(t *testing.T) {
	netnstest.New(t, "g")
	netnstest.New(t, "s")
	// Devices of the host.
	for i := range 20 {
		netnstest.Run(t, "", fmt.Sprintf("ip link add x%d type veth peer name y%d", i, i))
		t.Cleanup(func() { netnstest.Try("", fmt.Sprintf("ip link del x%d", i)) })
	}
	for _, line := range []string{
		fmt.Sprintf("ip -n s link add d0 index %d type veth peer name e0 netns g", device),
		"ip -n s link set d0 up", "ip -n g link set e0 up",
		"ip -n s addr add fe80::99/64 dev d0 nodad", "ip -n g addr add fe80::1/64 dev e0 nodad",
		"ip -n s addr add 2001:db8::99/64 dev d0 nodad", "ip -n g addr add 2001:db8::1/64 dev e0 nodad",
		"ip -n s addr add 10.0.0.99/24 dev d0", "ip -n g addr add 10.0.0.1/24 dev e0", "ip -n s addr add 10.0.0.98/24 dev d0",
	} {
		netnstest.Run(t, "", line)
	}
}

func dial(t *testing.T, network, to string) net.Conn {
	t.Helper()
	var c net.Conn
	err := netns.Do("g", func() (err error) {
		if strings.HasPrefix(to, "fe80") {
			ifi, err := net.InterfaceByName("e0")
			if err != nil {
				return err
			}
			to = fmt.Sprintf("%s%%%d", to, ifi.Index)
		}
		c, err = net.Dial(network, net.JoinHostPort(to, "5353"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 16)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Fatalf("%s answers %q, %v", c.RemoteAddr(), b[:n], err)
	}
}

var peers = map[string]string{
	"fe80::99": fmt.Sprintf("[fe80::1%%%d]:", device), "2001:db8::99": "[2001:db8::1]:", "10.0.0.99": "10.0.0.1:", "10.0.0.98": "10.0.0.1:",
}

// affordable: what is done for each packet or connection makes no list of
// devices, which is hundreds of allocations. What it does 21 times is prepared.
func affordable(t *testing.T, what string, most float64, do func()) {
	t.Helper()
	if n := testing.AllocsPerRun(repeated-1, do); n > most {
		t.Errorf("%s costs %.0f allocations", what, n)
	}
}

const repeated = 21

// interrupted: what waits is ended by a deadline, and by Close.
func interrupted(t *testing.T, c io.Closer, deadline func(time.Time) error, wait func() error) {
	t.Helper()
	deadline(time.Unix(1, 0))
	var timeout net.Error
	if err := wait(); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	deadline(time.Time{})
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Who asks is answered from where it asked.
func TestDatagrams(t *testing.T) {
	link(t)
	plain, err := netns.ListenPacket(t.Context(), "s", &net.ListenConfig{Control: netns.BindToDevice("d0")}, "udp", ":5353")
	if err != nil {
		t.Fatal(err)
	}
	c, err := linklocal.NewPacketConn(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 100)
	echo := func() net.Addr {
		n, from, err := c.ReadFrom(b)
		if err == nil {
			_, err = c.WriteTo(b[:n], from)
		}
		if err != nil {
			t.Fatal(err)
		}
		return from
	}
	c.SetReadDeadline(time.Now().Add(patience))
	for to, want := range peers {
		guest := dial(t, "udp", to)
		from := make(chan net.Addr, 1)
		go func() { from <- echo() }()
		ask(t, guest)
		if a := <-from; !strings.HasPrefix(a.String(), want) || a.Network() != "udp" {
			t.Errorf("%s was asked by %s", to, a)
		}
		for range repeated {
			if _, err := guest.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		affordable(t, "a packet from "+to, 20, func() { echo() })
	}
	if _, err := c.WriteTo(b, &net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 1}); err == nil {
		t.Error("sent to an address that nothing came from")
	}
	interrupted(t, c, c.SetReadDeadline, func() error {
		_, _, err := c.ReadFrom(make([]byte, 100))
		return err
	})
}

func TestConnections(t *testing.T) {
	link(t)
	plain, err := netns.Listen(t.Context(), "s", &net.ListenConfig{Control: netns.BindToDevice("d0")}, "tcp", ":5353")
	if err != nil {
		t.Fatal(err)
	}
	l, err := linklocal.NewListener(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(patience))
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for to, want := range peers {
		guest := dial(t, "tcp", to)
		c := accept()
		if a, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !strings.HasPrefix(a.String(), want) {
			t.Errorf("%s was called by %s", to, c.RemoteAddr())
		}
		if _, err := netip.ParseAddrPort(c.RemoteAddr().String()); err != nil {
			t.Error(err)
		}
		go io.Copy(c, c)
		ask(t, guest)
		interrupted(t, c, c.SetReadDeadline, func() error {
			_, err := c.Read(make([]byte, 1))
			return err
		})
		if n, err := guest.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the guest reads %d, %v after Close", n, err)
		}
		// One that the guest ends.
		guest = dial(t, "tcp", to)
		c = accept()
		guest.Close()
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the guest's Close: %v", err)
		}
		c.SetWriteDeadline(time.Now().Add(patience))
		for err = nil; err == nil; { // which ends the connection, and not the process
			_, err = c.Write([]byte("hello"))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing to nobody: %v", err)
		}
		c.Close()
		for range repeated {
			dial(t, "tcp", to)
		}
		affordable(t, "a connection to "+to, 30, func() { accept().Close() })
	}
	interrupted(t, l, l.SetDeadline, func() error {
		_, err := l.Accept()
		return err
	})
}
