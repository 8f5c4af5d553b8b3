package ovstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// In calls f on a thread that is in a network namespace: sockets that f opens
// belong to it and may be used anywhere afterwards.
func In(netns string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			there, err := os.Open("/run/netns/" + netns)
			if err != nil {
				return err
			}
			defer there.Close()
			if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			err = f()
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread() // else the thread ends with the goroutine: nothing may run in this namespace unawares
			}
			return err
		}()
	}()
	return <-result
}

// Guest is an instance: a network namespace with a device, eth0, whose other
// end is on a bridge of a host.
type Guest struct {
	lab   *Lab
	Netns string
	MAC   string
	Port  string // name of the other end, on the bridge
	raw   *Raw
}

// Guest makes an instance and plugs it into a bridge, as a compute service
// does: the interface bears the port's id.
func (l *Lab) Guest(s *Switch, bridge, name, portID, mac string, addresses ...string) *Guest {
	l.t.Helper()
	g := &Guest{lab: l, Netns: l.Namespace(name), MAC: mac, Port: "tap-" + name}
	l.Veth(s.Netns, g.Port, g.Netns, "eth0")
	// Down and up, for the link-local address of this MAC.
	l.Run("ip", "-n", g.Netns, "link", "set", "eth0", "down", "address", mac, "mtu", "1450")
	l.Run("ip", "-n", g.Netns, "link", "set", "eth0", "up")
	for _, a := range addresses {
		l.Run("ip", "-n", g.Netns, "addr", "add", a, "dev", "eth0", "nodad")
	}
	g.Plug(s, bridge, portID)
	return g
}

// Plug puts the guest's device on a bridge.
func (g *Guest) Plug(s *Switch, bridge, portID string) {
	g.lab.t.Helper()
	ctx, cancel := g.lab.context()
	defer cancel()
	if _, err := s.VSCtl(ctx, "--may-exist", "add-port", bridge, g.Port, "--", "set", "interface", g.Port,
		"external_ids:iface-id="+portID, "external_ids:iface-status=active", "external_ids:attached-mac="+g.MAC); err != nil {
		g.lab.t.Fatal(err)
	}
}

// Unplug takes it away.
func (g *Guest) Unplug(s *Switch, bridge string) {
	g.lab.t.Helper()
	ctx, cancel := g.lab.context()
	defer cancel()
	if _, err := s.VSCtl(ctx, "del-port", bridge, g.Port); err != nil {
		g.lab.t.Fatal(err)
	}
}

// Ping sends one echo request and tells what happened.
func (g *Guest) Ping(address string) error {
	_, err := g.lab.Try(g.Netns, "ping", "-c1", "-W1", "-n", address)
	return err
}

// Listen accepts TCP connections on a port and sends back what they send,
// until the test ends.
func (g *Guest) Listen(t testing.TB, address string) {
	t.Helper()
	var listener net.Listener
	err := In(g.Netns, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 2048)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// Dial opens a TCP connection.
func (g *Guest) Dial(address string, within time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := In(g.Netns, func() (err error) {
		conn, err = net.DialTimeout("tcp", address, within)
		return err
	})
	return conn, err
}

// Echo sends a word on a connection to Listen's end and reads it back.
func Echo(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("word")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 64))
	return err
}

// Raw sends and receives whole frames on eth0.
type Raw struct {
	fd int
}

// Raw opens the guest's device for whole frames, once.
func (g *Guest) Raw() *Raw {
	g.lab.t.Helper()
	if g.raw != nil {
		return g.raw
	}
	r, err := OpenRaw(g.Netns, "eth0")
	if err != nil {
		g.lab.t.Fatal(err)
	}
	g.lab.t.Cleanup(func() { _ = unix.Close(r.fd) })
	g.raw = r
	return r
}

// OpenRaw opens a device for whole frames.
func OpenRaw(netns, device string) (*Raw, error) {
	r := &Raw{}
	err := In(netns, func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		// The kernel takes the VLAN tag out of what it hands over.
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("device %s of %s: %w", device, netns, err)
	}
	return r, nil
}

// Send sends a frame.
func (r *Raw) Send(frame []byte) error {
	_, err := unix.Write(r.fd, frame)
	return err
}

// ErrQuiet is returned when no wanted frame came in time.
var ErrQuiet = errors.New("no such frame")

// Await returns the first frame that came from outside and is wanted.
func (r *Raw) Await(within time.Duration, wanted func(frame []byte) bool) ([]byte, error) {
	buffer := make([]byte, 65536)
	deadline := time.Now().Add(within)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, ErrQuiet
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if n <= 0 {
			continue
		}
		control := make([]byte, 128)
		size, controlSize, _, from, err := unix.Recvmsg(r.fd, buffer, control, 0)
		if err != nil {
			return nil, err
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if frame := tagged(buffer[:size], control[:controlSize]); wanted(frame) {
			return append([]byte(nil), frame...), nil
		}
	}
}

// tagged puts the VLAN tag back that the kernel took out of a frame.
func tagged(frame, control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return frame
	}
	for _, m := range messages {
		// struct tpacket_auxdata: three words, two halves, and the tag with its ethertype.
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 || len(frame) < 14 {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		out := append([]byte(nil), frame[:12]...)
		out = binary.BigEndian.AppendUint16(out, binary.NativeEndian.Uint16(m.Data[18:]))
		out = binary.BigEndian.AppendUint16(out, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(out, frame[12:]...)
	}
	return frame
}
