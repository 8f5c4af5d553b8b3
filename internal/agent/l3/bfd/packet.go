package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// State is that of a session, RFC 5880 section 4.1.
type State uint8

// The states in the order of their numbers.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// Diagnostics of RFC 5880 section 4.1 that this package gives.
const (
	diagnosticExpired  = 1
	diagnosticNeighbor = 3
	diagnosticAdmin    = 7
)

// packet is a control packet without authentication, RFC 5880 section 4.1.
type packet struct {
	diagnostic    uint8
	state         State
	poll, final   bool
	multiplier    uint8
	mine, yours   uint32 // discriminators
	desiredMinTx  time.Duration
	requiredMinRx time.Duration
}

const (
	packetSize = 24
	version    = 1

	flagPoll           = 0x20
	flagFinal          = 0x10
	flagAuthentication = 0x04
	flagMultipoint     = 0x01
)

// parse reads a packet and refuses what section 6.8.6 has discarded.
func parse(b []byte) (packet, error) {
	if len(b) < packetSize || int(b[3]) < packetSize || int(b[3]) > len(b) {
		return packet{}, fmt.Errorf("control packet: %d octets", len(b))
	}
	micro := func(i int) time.Duration { return time.Duration(binary.BigEndian.Uint32(b[i:])) * time.Microsecond }
	p := packet{
		diagnostic: b[0] & 0x1f, state: State(b[1] >> 6), poll: b[1]&flagPoll != 0, final: b[1]&flagFinal != 0,
		multiplier: b[2], mine: binary.BigEndian.Uint32(b[4:]), yours: binary.BigEndian.Uint32(b[8:]),
		desiredMinTx: micro(12), requiredMinRx: micro(16),
	}
	switch {
	case b[0]>>5 != version:
		return packet{}, fmt.Errorf("control packet: version %d", b[0]>>5)
	case b[1]&(flagAuthentication|flagMultipoint) != 0:
		return packet{}, errors.New("control packet: with authentication, or to many")
	case p.multiplier == 0 || p.mine == 0 || p.yours == 0 && p.state > Down || p.poll && p.final:
		return packet{}, errors.New("control packet: a member contradicts the state")
	}
	return p, nil
}

func (p packet) marshal() []byte {
	b := make([]byte, packetSize)
	b[0] = version<<5 | p.diagnostic
	b[1] = byte(p.state) << 6
	if p.poll {
		b[1] |= flagPoll
	}
	if p.final {
		b[1] |= flagFinal
	}
	b[2], b[3] = p.multiplier, packetSize
	binary.BigEndian.PutUint32(b[4:], p.mine)
	binary.BigEndian.PutUint32(b[8:], p.yours)
	binary.BigEndian.PutUint32(b[12:], uint32(p.desiredMinTx/time.Microsecond))
	binary.BigEndian.PutUint32(b[16:], uint32(p.requiredMinRx/time.Microsecond))
	return b
}
