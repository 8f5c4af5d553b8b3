package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"

	"isospin/internal/kernel/netns"
)

// Node is a place in the lab from which packets are sent: a host, an instance,
// the outside network, the underlay.
type Node struct {
	Name string
	// Namespace is the node's network namespace, as `ip netns` knows it.
	Namespace string
}

// Do runs fn with its thread in the node's network namespace: sockets that fn
// itself opens are the node's.
func (n *Node) Do(fn func() error) error { return netns.Do(n.Namespace, fn) }

// Run runs a program in the node's network namespace and returns its output.
func (n *Node) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The thread that forks lives as long as the child only if it waits.
	var out []byte
	err := n.Do(func() (err error) {
		out, err = runOn(cmd, func(start func() error) error { return start() })
		return err
	})
	return out, err
}

// runOn starts a program by start and waits for its end.
func runOn(cmd *exec.Cmd, start func(func() error) error) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := start(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// Dial connects from the node. The address must be literal.
func (n *Node) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Echo serves TCP and UDP on a port of the node until the returned function is
// called: a TCP client is told the address by which the node sees it, in one
// line; a UDP datagram is sent back.
func (n *Node) Echo(port int) (stop func(), err error) {
	ctx := context.Background()
	address := fmt.Sprintf("0.0.0.0:%d", port)
	tcp, err := netns.Listen(ctx, n.Namespace, nil, "tcp4", address)
	if err != nil {
		return nil, err
	}
	udp, err := netns.ListenPacket(ctx, n.Namespace, nil, "udp4", address)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			conn, err := tcp.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			// One short line always fits the socket's buffer.
			fmt.Fprintln(conn, conn.RemoteAddr())
			conn.Close()
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		buf := make([]byte, 2048)
		for {
			size, from, err := udp.ReadFrom(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			_, _ = udp.WriteTo(buf[:size], from)
		}
	}()
	return func() {
		tcp.Close()
		udp.Close()
		<-ended
		<-ended
	}, nil
}
