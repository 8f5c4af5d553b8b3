package openflow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// PacketIn is a packet that a flow of the bridge has sent to us.
type PacketIn struct {
	Cookie uint64 // of the flow
	Packet []byte // whole, from its Ethernet header
}

// PacketIns calls take with each packet that a flow sends to the controller of
// this number, which is the id of its action: controller(id=<number>). The
// switch drops what comes faster than take returns. When the connection ends it
// is made anew; PacketIns returns when ctx ends.
func (b *Bridge) PacketIns(ctx context.Context, controller uint16, take func(PacketIn)) {
	// A connection to the management socket gets no packets until it has asked for them by a miss_send_len, and those for
	// another controller never (nicira-ext.h of Open vSwitch:
	// NXT_SET_CONTROLLER_ID).
	greeting := []byte{ofVersion, ofExperimenter, 0, 24, 0, 0, 0, 2, 0, 0, 0x23, 0x20, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0}
	greeting = binary.BigEndian.AppendUint16(greeting, controller)
	greeting = append(greeting, ofVersion, ofSetConfig, 0, 12, 0, 0, 0, 3, 0, 0, 0xff, 0xe5)
	b.keep(ctx, greeting, func() {}, func() {}, func(message []byte) error {
		switch message[1] {
		case ofPacketIn:
			p, err := parsePacketIn(message)
			if err != nil {
				return err
			}
			take(p)
		case ofError:
			return fmt.Errorf("the switch refuses to send packets: % x", message[ofHeader:min(len(message), 64)])
		}
		return nil
	})
}

// parsePacketIn reads OFPT_PACKET_IN (OpenFlow 1.4.0, section 7.4.1).
func parsePacketIn(message []byte) (PacketIn, error) {
	const fixed, match = 24, 4
	short := errors.New("packet-in: message is too short")
	if len(message) < fixed+match {
		return PacketIn{}, short
	}
	p := PacketIn{Cookie: binary.BigEndian.Uint64(message[16:])}
	// The match is padded to 8 bytes, and 2 more align what follows the Ethernet header.
	size := int(binary.BigEndian.Uint16(message[fixed+2:]))
	data := fixed + (size+7)/8*8 + 2
	if size < match || len(message) < data {
		return PacketIn{}, short
	}
	p.Packet = message[data:]
	return p, nil
}
