package openflow

import (
	"context"
	"net"
	"time"
)

// OpenFlow 1.4 messages that Follow and PacketIns speak (OpenFlow Switch
// Specification 1.4.0, section 7.1).
const (
	ofVersion      = 5
	ofHello        = 0
	ofError        = 1
	ofEchoRequest  = 2
	ofEchoReply    = 3
	ofExperimenter = 4
	ofSetConfig    = 9
	ofPacketIn     = 10
	ofHeader       = 8
)

// Follow calls attached each time that a connection to the bridge's management
// socket has been made anew: after ovs-vswitchd was started again, which drops
// all flows, or the bridge was made again. The first connection is not told.
// It returns when ctx ends.
func (b *Bridge) Follow(ctx context.Context, attached func()) {
	b.setFollowed(true)
	defer b.setFollowed(false)
	first := true
	b.keep(ctx, nil, func() {
		if !first {
			attached()
		}
	}, func() { first = false }, nil) // whoever answers after the first attempt may have started since
}

// keep keeps a connection to the management socket until ctx ends, and makes
// it anew when it ends: greeting is sent first, connected is called when the
// switch has answered, ended after each attempt, and take with each message.
func (b *Bridge) keep(ctx context.Context, greeting []byte, connected, ended func(), take func(message []byte) error) {
	const shortest, longest = 50 * time.Millisecond, time.Second
	pause := shortest
	for ctx.Err() == nil {
		began := time.Now()
		err := b.attend(ctx, greeting, connected, take)
		ended()
		if time.Since(began) > longest { // else it may be a switch that greets and hangs up
			pause = shortest
		}
		b.options.Logger.Debug("OpenFlow connection ended", "bridge", b.options.Name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// attend makes one connection and keeps it until it ends.
func (b *Bridge) attend(ctx context.Context, greeting []byte, connected func(), take func(message []byte) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.Socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(append([]byte{ofVersion, ofHello, 0, ofHeader, 0, 0, 0, 1}, greeting...)); err != nil {
		return err
	}
	told := false
	for {
		message, err := readMessage(conn)
		if err != nil {
			return err
		}
		if !told { // its HELLO
			told = true
			connected()
		}
		if message[1] == ofEchoRequest {
			message[1] = ofEchoReply
			if _, err := conn.Write(message); err != nil {
				return err
			}
		} else if take != nil {
			if err := take(message); err != nil {
				return err
			}
		}
	}
}
