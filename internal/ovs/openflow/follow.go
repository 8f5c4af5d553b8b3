package openflow

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// OpenFlow 1.4 messages that Follow speaks (OpenFlow Switch Specification
// 1.4.0, section 7.1).
const (
	ofVersion     = 5
	ofHello       = 0
	ofEchoRequest = 2
	ofEchoReply   = 3
	ofHeader      = 8
)

// Follow calls attached each time that a connection to the bridge's management
// socket has been made anew: after ovs-vswitchd was started again, which drops
// all flows, or the bridge was made again. The first connection is not told.
// It returns when ctx ends.
func (b *Bridge) Follow(ctx context.Context, attached func()) {
	pause := 50 * time.Millisecond
	for first := true; ctx.Err() == nil; {
		err := b.attend(ctx, func() {
			if !first {
				attached()
			}
			pause = 50 * time.Millisecond
		})
		first = false // whoever answers from now on may have started since
		b.options.Logger.Debug("OpenFlow connection ended", "bridge", b.options.Name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// attend makes one connection and keeps it until it ends.
func (b *Bridge) attend(ctx context.Context, connected func()) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.Socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{ofVersion, ofHello, 0, ofHeader, 0, 0, 0, 1}); err != nil {
		return err
	}
	told := false
	header := make([]byte, ofHeader)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint16(header[2:]))
		if size < ofHeader {
			return fmt.Errorf("message of %d bytes", size)
		}
		message := make([]byte, size)
		copy(message, header)
		if _, err := io.ReadFull(conn, message[ofHeader:]); err != nil {
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
		}
	}
}
