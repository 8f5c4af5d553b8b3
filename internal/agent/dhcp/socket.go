package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
)

// endpoint is where a DHCP server hears and speaks. Packets are taken and sent
// below IP: a client has no address to be routed to, and its frame is what says
// which port it is. A UDP socket sits on the server's port and hears nothing,
// so that the kernel neither refuses the port nor leaves the multicast group.
type endpoint struct {
	link *packet.Conn
	udp  net.PacketConn
}

// maxMessage is more than fits the largest frame of a guest that is sane; what
// is longer is cut, and then no message.
const maxMessage = 4096

var servers6 = netip.MustParseAddr("ff02::1:2") // all DHCP relay agents and servers

func openEndpoint(ctx context.Context, namespace, device string, version int) (*endpoint, error) {
	e := &endpoint{}
	filter, protocol, address, network := filter4, unix.ETH_P_IP, "0.0.0.0:67", "udp4"
	if version == 6 {
		filter, protocol, address, network = filter6, unix.ETH_P_IPV6, "[::]:547", "udp6"
	}
	program, err := bpf.Assemble(filter)
	if err != nil {
		return nil, fmt.Errorf("socket filter: %w", err)
	}
	err = netns.Do(namespace, func() error {
		index, err := link.Index(device)
		if err != nil {
			return err
		}
		ifi := &net.Interface{Index: index, Name: device}
		if e.link, err = packet.Listen(ifi, packet.Datagram, protocol, &packet.Config{Filter: program}); err != nil {
			return err
		}
		config := net.ListenConfig{Control: hearNothing(device)}
		if e.udp, err = config.ListenPacket(ctx, network, address); err != nil {
			return err
		}
		if version == 6 {
			return ipv6.NewPacketConn(e.udp).JoinGroup(ifi, &net.UDPAddr{IP: servers6.AsSlice()})
		}
		return nil
	})
	if err != nil {
		e.close()
		return nil, fmt.Errorf("DHCPv%d socket on %s in %s: %w", version, device, namespace, err)
	}
	return e, nil
}

func hearNothing(device string) func(network, address string, c syscall.RawConn) error {
	bind := netns.BindToDevice(device)
	return func(network, address string, c syscall.RawConn) error {
		if err := bind(network, address, c); err != nil {
			return err
		}
		var err error
		if e := c.Control(func(fd uintptr) {
			drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
		}); e != nil {
			return e
		}
		return err
	}
}

// The filters pass UDP to the server's port, whole, in frames for this device.
var (
	filter4 = []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 8}, // for others, or sent by us
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort4, SkipTrue: 1},
		bpf.RetConstant{Val: maxMessage},
		bpf.RetConstant{Val: 0},
	}
	filter6 = []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: header6 + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort6, SkipTrue: 1},
		bpf.RetConstant{Val: maxMessage},
		bpf.RetConstant{Val: 0},
	}
)

func (e *endpoint) close() {
	if e.link != nil {
		e.link.Close()
	}
	if e.udp != nil {
		e.udp.Close()
	}
}

// serve answers until the endpoint is closed, and returns nil then. Any other
// end is an error: the device is down or gone, which the socket cannot tell
// apart, and which the next Plug repairs in either case.
func (e *endpoint) serve(answer func(from macAddress, d datagram) *reply, sent func(error)) error {
	buffer := make([]byte, maxMessage)
	for {
		n, address, err := e.link.ReadFrom(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		from, ok := address.(*packet.Addr)
		if !ok || len(from.HardwareAddr) < 6 {
			continue
		}
		d, ok := parseDatagram(buffer[:n])
		if !ok {
			continue
		}
		if r := answer(macAddress(from.HardwareAddr[:6]), d); r != nil {
			_, err := e.link.WriteTo(r.bytes(), &packet.Addr{HardwareAddr: r.to[:]})
			sent(err)
		}
	}
}

// identity is the identity of a device: it changes when the device, or the
// namespace that it is in, is made anew.
type identity struct {
	namespace uint64 // inode
	index     int
}

func identify(namespace, device string) (id identity, err error) {
	f, err := netns.Open(namespace)
	if err != nil {
		return id, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return id, fmt.Errorf("network namespace %s: %w", namespace, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.namespace = st.Ino
	}
	err = netns.Do(namespace, func() (err error) {
		id.index, err = link.Index(device)
		return err
	})
	return id, err
}
