package bfd

import "time"

// machine is one end of a session, RFC 5880 section 6.8, without clock and network.
type machine struct {
	// interval is the least time between packets once the session is up, both ways.
	interval   time.Duration
	multiplier uint8
	local      uint32

	state      State
	diagnostic uint8
	remote     uint32
	// remoteMinRx is the least time between packets that the neighbour asks for; none: it wants no packets.
	remoteMinRx time.Duration
	// poll asks the neighbour to confirm that it knows our times.
	poll bool
	// expires is when the neighbour is taken for lost; zero: it has not been heard of.
	expires time.Time
}

// slow is the least time between packets while a session is not up, section 6.8.3.
const slow = time.Second

func newMachine(interval time.Duration, multiplier uint8, discriminator uint32) *machine {
	return &machine{interval: interval, multiplier: multiplier, local: discriminator, state: Down, remoteMinRx: time.Microsecond}
}

// packet is what is to be sent now; final answers a poll.
func (m *machine) packet(final bool) packet {
	return packet{
		diagnostic: m.diagnostic, state: m.state, poll: m.poll && !final, final: final, multiplier: m.multiplier,
		mine: m.local, yours: m.remote, desiredMinTx: m.desired(), requiredMinRx: m.interval,
	}
}

func (m *machine) desired() time.Duration {
	if m.state == Up {
		return m.interval
	}
	return max(slow, m.interval)
}

// pause is the time between packets, before jitter; zero: none are wanted.
func (m *machine) pause() time.Duration {
	if m.remoteMinRx == 0 {
		return 0
	}
	return max(m.desired(), m.remoteMinRx)
}

// receive takes a packet of the neighbour, and says whether it must be answered at once.
func (m *machine) receive(p packet, now time.Time) (answer bool) {
	if m.state == AdminDown || p.yours != 0 && p.yours != m.local {
		return false
	}
	m.remote, m.remoteMinRx = p.mine, p.requiredMinRx
	m.expires = now.Add(time.Duration(p.multiplier) * max(m.interval, p.desiredMinTx))
	if p.final {
		m.poll = false
	}
	switch {
	case p.state == AdminDown || m.state == Up && p.state == Down:
		if m.state != Down {
			m.enter(Down, diagnosticNeighbor)
		}
	case m.state == Down && p.state == Down:
		m.enter(Init, m.diagnostic)
	case m.state != Up && (p.state == Init || m.state == Init && p.state == Up):
		m.enter(Up, 0)
		m.poll = true
	}
	return p.poll
}

func (m *machine) enter(s State, diagnostic uint8) {
	m.state, m.diagnostic, m.poll = s, diagnostic, false
}

// expire ends the session when the neighbour has been silent for too long.
func (m *machine) expire(now time.Time) {
	if m.expires.IsZero() || now.Before(m.expires) {
		return
	}
	m.expires, m.remote, m.remoteMinRx = time.Time{}, 0, time.Microsecond
	if m.state == Init || m.state == Up {
		m.enter(Down, diagnosticExpired)
	}
}
