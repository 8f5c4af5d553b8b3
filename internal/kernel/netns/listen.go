package netns

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens a listening stream socket inside the namespace; it is used from
// anywhere. config may be nil. The address must be literal: names are resolved
// outside of the namespace.
func Listen(ctx context.Context, name string, config *net.ListenConfig, network, address string) (l net.Listener, err error) {
	if config == nil {
		config = &net.ListenConfig{}
	}
	err = Do(name, func() error {
		l, err = config.Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in network namespace %q: %w", address, name, err)
	}
	return l, nil
}

// ListenPacket opens a packet socket inside the namespace, as Listen does.
func ListenPacket(ctx context.Context, name string, config *net.ListenConfig, network, address string) (c net.PacketConn, err error) {
	if config == nil {
		config = &net.ListenConfig{}
	}
	err = Do(name, func() error {
		c, err = config.ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in network namespace %q: %w", address, name, err)
	}
	return c, nil
}

// BindToDevice is a net.ListenConfig.Control that ties the socket to one
// device of its namespace and lets several sockets share the port.
func BindToDevice(device string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
				err = unix.BindToDevice(int(fd), device)
			}
		}); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("bind socket to device %s: %w", device, err)
		}
		return nil
	}
}
