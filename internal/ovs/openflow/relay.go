package openflow

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// Bundle messages (OpenFlow Switch Specification 1.4.0, section 7.3.9).
const (
	ofBarrierRequest = 20
	ofBarrierReply   = 21
	ofBundleControl  = 33
	ofBundleFailed   = 17 // type of an error
	ofBundleMessage  = 16 // its code: the bundle holds a message that is not taken

	bundleOpen    = 0
	bundleClose   = 2
	bundleCommit  = 4
	bundleDiscard = 6 // each request's reply is the next number
	ofControlSize = 16
)

// A switch with many ports looks at all of them whenever its database or a
// network device changes, and answers controllers only in between. ovs-ofctl
// asks it four times for one bundle and waits for each answer. So it talks to a
// relay here, which answers at once until the bundle is to be committed, and
// asks the switch twice: for all that the bundle holds, and for the commit, so
// that a bundle with a message that is not taken changes nothing.

// channel is a connection of OpenFlow to the switch.
type channel struct {
	net.Conn
	in *bufio.Reader
}

// channel returns one that is kept from an earlier bundle, or else makes it.
func (b *Bridge) channel(ctx context.Context) (c *channel, kept bool, err error) {
	b.mu.Lock()
	c, b.idle = b.idle, nil
	b.mu.Unlock()
	if c != nil {
		return c, true, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.Socket())
	if err != nil {
		return nil, false, err
	}
	if _, err := conn.Write([]byte{ofVersion, ofHello, 0, ofHeader, 0, 0, 0, 1}); err != nil {
		return nil, false, errors.Join(err, conn.Close())
	}
	return &channel{conn, bufio.NewReader(conn)}, false, nil
}

// keepIdle keeps a channel on which nothing is under way for the next bundle, as
// long as the bridge is followed.
func (b *Bridge) keepIdle(c *channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.followed && b.idle == nil {
		b.idle = c
		return
	}
	_ = c.Close()
}

// setFollowed tells whether idle channels are kept.
func (b *Bridge) setFollowed(followed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.followed = followed; !followed && b.idle != nil {
		_ = b.idle.Close()
		b.idle = nil
	}
}

// exchange sends messages and returns the errors among what is answered, up to
// the answer to the last of them.
func (c *channel) exchange(messages []byte, last uint32) (refused [][]byte, err error) {
	// The switch stops to read while its answers are not taken.
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(messages)
		written <- err
	}()
	defer func() {
		if err != nil {
			_ = c.Close()
		}
		err = errors.Join(err, <-written)
	}()
	for {
		m, err := readMessage(c.in)
		if err != nil {
			return refused, err
		}
		switch m[1] {
		case ofEchoRequest:
			m[1] = ofEchoReply
			if _, err := c.Write(m); err != nil {
				return refused, err
			}
			continue
		case ofError:
			refused = append(refused, m)
		case ofBundleControl:
		default:
			continue
		}
		if xid(m) == last {
			return refused, nil
		}
	}
}

func xid(message []byte) uint32 { return binary.BigEndian.Uint32(message[4:]) }

// readMessage reads one OpenFlow message.
func readMessage(in io.Reader) ([]byte, error) {
	header := make([]byte, ofHeader)
	if _, err := io.ReadFull(in, header); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(header[2:]))
	if size < ofHeader {
		return nil, fmt.Errorf("message of %d bytes", size)
	}
	message := make([]byte, size)
	copy(message, header)
	_, err := io.ReadFull(in, message[ofHeader:])
	return message, err
}

// relay is what one run of ovs-ofctl talks to.
type relay struct {
	bridge   *Bridge
	folder   string
	listener net.Listener
	ended    chan error
}

// newRelay listens on a socket that nobody else can reach. Close it.
func (b *Bridge) newRelay(ctx context.Context) (*relay, error) {
	folder, err := os.MkdirTemp("", "isospin-openflow")
	if err != nil {
		return nil, err
	}
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "unix", filepath.Join(folder, "switch"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	r := &relay{bridge: b, folder: folder, listener: listener, ended: make(chan error, 1)}
	go func() { r.ended <- r.accept(ctx) }()
	return r, nil
}

func (r *relay) target() string { return "unix:" + r.listener.Addr().String() }

// close ends the relay, and returns what has gone wrong in it.
func (r *relay) close() error {
	_ = r.listener.Close()
	return errors.Join(<-r.ended, os.RemoveAll(r.folder))
}

// accept serves the program's connection, of which there is one, and returns
// what went wrong in it.
func (r *relay) accept(ctx context.Context) error {
	conn, err := r.listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil // the program has ended
	}
	// From here on nothing is left behind by a process that is killed.
	_ = r.listener.Close()
	if gone := os.RemoveAll(r.folder); err == nil {
		err = gone
	}
	if conn != nil {
		defer conn.Close()
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return r.serve(ctx, conn)
}

// serve is the switch to the program until that closes the connection.
func (r *relay) serve(ctx context.Context, program net.Conn) error {
	var staged []byte
	var last uint32 // transaction of the staged message that is answered
	in := bufio.NewReader(program)
	for {
		m, err := readMessage(in)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answers := [][]byte{m}
		switch {
		case m[1] == ofHello:
			answers = [][]byte{{ofVersion, ofHello, 0, ofHeader, m[4], m[5], m[6], m[7]}}
		case m[1] == ofEchoRequest:
			m[1] = ofEchoReply
		case m[1] == ofBarrierRequest: // nothing was carried out yet
			m[1] = ofBarrierReply
		case m[1] == ofBundleControl && len(m) >= ofControlSize:
			switch kind := binary.BigEndian.Uint16(m[12:]); kind {
			case bundleOpen, bundleClose:
				staged, last = append(staged, m...), xid(m)
				binary.BigEndian.PutUint16(m[12:], kind+1)
			case bundleCommit:
				if answers, err = r.bridge.commitBundle(ctx, staged, last, m); err != nil {
					return err
				}
			default:
				binary.BigEndian.PutUint16(m[12:], kind+1)
			}
		default:
			staged, answers = append(staged, m...), nil
		}
		for _, a := range answers {
			if _, err := program.Write(a); err != nil {
				return err
			}
		}
	}
}

// commitBundle gives the switch a bundle, and commits it if all of it is taken.
// It returns what the commit is answered with.
func (b *Bridge) commitBundle(ctx context.Context, staged []byte, last uint32, commit []byte) ([][]byte, error) {
	var c *channel
	var refused [][]byte
	for {
		var kept bool
		var err error
		if c, kept, err = b.channel(ctx); err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		refused, err = c.exchange(staged, last)
		if err == nil && len(refused) == 0 {
			refused, err = c.exchange(commit, xid(commit))
			if err != nil {
				stop()
				return nil, err // nobody knows whether it was
			}
			if stop() && len(refused) == 0 {
				b.keepIdle(c)
			} else {
				_ = c.Close()
			}
			break
		}
		stop()
		_ = c.Close() // which discards the bundle
		if err == nil {
			// The commit is answered as if the switch had been asked.
			failed := append([]byte{ofVersion, ofError, 0, ofHeader + 4 + ofControlSize}, commit[4:8]...)
			failed = append(failed, 0, ofBundleFailed, 0, ofBundleMessage)
			return append(refused, append(failed, commit[:ofControlSize]...)), nil
		}
		if !kept || ctx.Err() != nil { // a switch that was started again has closed what was kept
			return nil, err
		}
	}
	if len(refused) > 0 {
		return refused, nil
	}
	binary.BigEndian.PutUint16(commit[12:], bundleCommit+1)
	return [][]byte{commit}, nil
}
