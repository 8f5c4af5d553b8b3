package pd

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// Times and counts of RFC 8415 section 7.6.
const (
	solicitDelay   = time.Second
	solicitTime    = time.Second
	solicitMost    = time.Hour
	requestTime    = time.Second
	requestMost    = 30 * time.Second
	requestCount   = 10
	renewTime      = 10 * time.Second
	renewMost      = 10 * time.Minute
	releaseTime    = time.Second
	releaseCount   = 4
	leastSolicit   = time.Minute // of the option SOL_MAX_RT, section 21.24
	longestSolicit = 24 * time.Hour
	// refusedPause is how long a server that has taken an offer back is let alone.
	refusedPause = 10 * time.Second
	infinite     = math.MaxUint32 * time.Second
	// leastRenew is how long a lease is let alone whatever the server says, section 14.2.
	leastRenew = time.Second
	// leastValid is how long a prefix must be valid for to be of any use.
	leastValid = 3 * time.Second
)

// phase is where an association is in its exchanges, RFC 8415 section 18.2.
type phase int

const (
	soliciting phase = iota
	requesting
	bound
	renewing
	rebinding
	releasing
)

// Lease is a prefix that is delegated.
type Lease struct {
	Prefix netip.Prefix `json:"prefix"`
	// Identity and IAID are those that asked for it, Server is who delegated it: DUIDs, RFC 8415 section 11.
	Identity []byte `json:"identity"`
	IAID     uint32 `json:"iaid"`
	Server   []byte `json:"server"`
	// Renew and Rebind are T1 and T2, Expires is the end of the valid lifetime; zero: never.
	Renew   time.Time `json:"renew"`
	Rebind  time.Time `json:"rebind"`
	Expires time.Time `json:"expires"`
}

// valid tells whether the lease has not run out.
func (l *Lease) valid(now time.Time) bool { return l.Expires.IsZero() || now.Before(l.Expires) }

// association is one IA_PD of RFC 8415 section 21.21, without clock and network.
type association struct {
	subnet   string
	identity dhcpv6.DUID
	iaid     uint32
	hint     netip.Prefix
	// random is a number from -0.1 to 0.1.
	random func() float64

	phase phase
	lease *Lease
	// lost: there was a lease, and there is none now.
	lost bool

	id    dhcpv6.TransactionID
	began time.Time
	sent  int
	pause time.Duration // RT
	next  time.Time
	// offer is the best Advertise so far; server is whom requests go to.
	offer       *dhcpv6.Message
	server      dhcpv6.DUID
	asked       netip.Prefix
	mostSolicit time.Duration
}

// start begins with the lease that is there, if any.
func (a *association) start(lease *Lease, now time.Time) {
	a.mostSolicit = solicitMost
	if lease != nil && bytes.Equal(lease.Identity, a.identity.ToBytes()) && lease.IAID == a.iaid {
		server, err := dhcpv6.DUIDFromBytes(lease.Server)
		if err == nil && lease.valid(now) {
			a.lease, a.server = lease, server
			a.rest()
			return
		}
		a.lost, a.hint = true, lease.Prefix
	}
	a.begin(soliciting, now.Add(time.Duration((a.random()+0.1)*5*float64(solicitDelay))))
}

// begin begins an exchange.
func (a *association) begin(p phase, at time.Time) {
	a.phase, a.next, a.sent, a.pause = p, at, 0, 0
	if p == soliciting {
		a.offer = nil
	}
	id, err := dhcpv6.GenerateTransactionID()
	if err == nil { // else the former one, of an exchange that is over
		a.id = id
	}
}

// rest waits for the time to renew the lease.
func (a *association) rest() {
	a.phase, a.next = bound, a.lease.Renew
	if a.next.IsZero() {
		a.next = a.lease.Expires
	}
}

// lose ends the lease and begins anew.
func (a *association) lose(now time.Time) {
	a.hint, a.lease, a.lost = a.lease.Prefix, nil, true
	a.begin(soliciting, now)
}

// due does what is to be done at that time: m is to be sent, nil: nothing.
// changed: the lease is another one. over: a release has ended.
func (a *association) due(now time.Time) (m *dhcpv6.Message, changed, over bool) {
	if a.next.IsZero() || now.Before(a.next) {
		return nil, false, false
	}
	if a.lease != nil && !a.lease.valid(now) && a.phase != releasing {
		a.lose(now)
		changed = true
	}
	switch {
	case a.phase == soliciting && a.offer != nil:
		a.request(a.offer, now)
	case a.phase == requesting && a.sent >= requestCount:
		a.begin(soliciting, now)
	case a.phase == bound:
		a.begin(renewing, now)
	case a.phase == releasing && a.sent >= releaseCount:
		return nil, changed, true
	}
	if a.phase == renewing && !a.lease.Rebind.IsZero() && !now.Before(a.lease.Rebind) {
		a.begin(rebinding, now)
	}
	m = a.message(now)
	a.schedule(now)
	return m, changed, false
}

// request asks the server of an offer for what it offered.
func (a *association) request(offer *dhcpv6.Message, now time.Time) {
	a.server, a.asked = offer.Options.ServerID(), netip.Prefix{}
	if p := a.usable(a.mine(offer)); p != nil {
		a.asked = prefixOf(p)
	}
	a.offer = nil
	a.begin(requesting, now)
}

// schedule says when the message is sent again, RFC 8415 section 15.
func (a *association) schedule(now time.Time) {
	first, most := map[phase]time.Duration{soliciting: solicitTime, requesting: requestTime, renewing: renewTime, rebinding: renewTime, releasing: releaseTime}[a.phase], time.Duration(0)
	switch a.phase {
	case soliciting:
		most = a.mostSolicit
	case requesting:
		most = requestMost
	case renewing, rebinding:
		most = renewMost
	}
	spread := func(d time.Duration) time.Duration { return time.Duration(a.random() * float64(d)) }
	switch {
	case a.pause == 0:
		by := spread(first)
		if a.phase == soliciting {
			by = max(by, -by) // offers are waited for at least so long
		}
		a.pause = first + by
	default:
		a.pause = 2*a.pause + spread(a.pause)
	}
	if most > 0 && a.pause > most {
		a.pause = most + spread(most)
	}
	a.sent++
	a.next = now.Add(a.pause)
	if a.lease == nil || a.phase == releasing {
		return
	}
	for _, end := range []struct {
		in phase
		at time.Time
	}{{renewing, a.lease.Rebind}, {a.phase, a.lease.Expires}} {
		if a.phase == end.in && !end.at.IsZero() && end.at.Before(a.next) {
			a.next = end.at
		}
	}
}

// message is what the phase sends.
func (a *association) message(now time.Time) *dhcpv6.Message {
	if a.sent == 0 {
		a.began = now
	}
	m := &dhcpv6.Message{TransactionID: a.id, MessageType: map[phase]dhcpv6.MessageType{
		soliciting: dhcpv6.MessageTypeSolicit, requesting: dhcpv6.MessageTypeRequest, renewing: dhcpv6.MessageTypeRenew,
		rebinding: dhcpv6.MessageTypeRebind, releasing: dhcpv6.MessageTypeRelease,
	}[a.phase]}
	m.AddOption(dhcpv6.OptClientID(a.identity))
	if a.phase != soliciting && a.phase != rebinding {
		m.AddOption(dhcpv6.OptServerID(a.server))
	}
	m.AddOption(dhcpv6.OptElapsedTime(min(now.Sub(a.began), math.MaxUint16*10*time.Millisecond)))
	wanted := a.asked
	switch {
	case a.lease != nil:
		wanted = a.lease.Prefix
	case a.phase == soliciting && a.hint.IsValid():
		wanted = a.hint
	case a.phase == soliciting:
		wanted = netip.PrefixFrom(netip.IPv6Unspecified(), 64) // a length is wished for, no prefix
	}
	ia := &dhcpv6.OptIAPD{}
	binary.BigEndian.PutUint32(ia.IaId[:], a.iaid)
	if wanted.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAPrefix{Prefix: &net.IPNet{IP: wanted.Addr().AsSlice(), Mask: net.CIDRMask(wanted.Bits(), 128)}})
	}
	m.AddOption(ia)
	if a.phase == soliciting {
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	if a.phase != releasing {
		m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionSolMaxRT))
	}
	return m
}

// mine is the IA_PD of a message that is about the association.
func (a *association) mine(m *dhcpv6.Message) *dhcpv6.OptIAPD {
	for _, ia := range m.Options.IAPD() {
		if binary.BigEndian.Uint32(ia.IaId[:]) == a.iaid && !(ia.T1 > 0 && ia.T2 > 0 && ia.T1 > ia.T2) {
			return ia
		}
	}
	return nil
}

func prefixOf(p *dhcpv6.OptIAPrefix) netip.Prefix {
	if p.Prefix == nil {
		return netip.Prefix{}
	}
	ones, bits := p.Prefix.Mask.Size()
	address, ok := netip.AddrFromSlice(p.Prefix.IP)
	if !ok || bits != 128 || !address.Is6() || address.Is4In6() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(address, ones).Masked()
}

// usable is the prefix of an IA_PD that can be a subnet's: the one that is had or asked for before others.
func (a *association) usable(ia *dhcpv6.OptIAPD) *dhcpv6.OptIAPrefix {
	if ia == nil || ia.Options.Status() != nil && ia.Options.Status().StatusCode != iana.StatusSuccess {
		return nil
	}
	list := slices.DeleteFunc(ia.Options.Prefixes(), func(p *dhcpv6.OptIAPrefix) bool {
		n := prefixOf(p)
		return p.ValidLifetime < leastValid || p.PreferredLifetime > p.ValidLifetime || p.Options.Status() != nil && p.Options.Status().StatusCode != iana.StatusSuccess ||
			!n.IsValid() || n.Bits() == 0 || n.Bits() > 64 || n.Addr().IsUnspecified() || n.Addr().IsMulticast() || n.Addr().IsLinkLocalUnicast()
	})
	if len(list) == 0 {
		return nil
	}
	had := a.hint
	if a.lease != nil {
		had = a.lease.Prefix
	}
	if i := slices.IndexFunc(list, func(p *dhcpv6.OptIAPrefix) bool { return prefixOf(p) == had }); i >= 0 {
		return list[i]
	}
	return list[0]
}

// withdrawn tells whether an IA_PD says that the lease's prefix is valid no longer.
func (a *association) withdrawn(ia *dhcpv6.OptIAPD) bool {
	return a.lease != nil && slices.ContainsFunc(ia.Options.Prefixes(), func(p *dhcpv6.OptIAPrefix) bool {
		return prefixOf(p) == a.lease.Prefix && p.ValidLifetime == 0
	})
}

// receive takes a message of a server. Results are as those of due.
func (a *association) receive(m *dhcpv6.Message, now time.Time) (changed, over bool) {
	client, server := m.Options.ClientID(), m.Options.ServerID()
	if m.TransactionID != a.id || client == nil || server == nil || !bytes.Equal(client.ToBytes(), a.identity.ToBytes()) {
		return false, false
	}
	if o, ok := m.GetOneOption(dhcpv6.OptionSolMaxRT).(*dhcpv6.OptionGeneric); ok && len(o.OptionData) == 4 {
		if most := time.Duration(binary.BigEndian.Uint32(o.OptionData)) * time.Second; most >= leastSolicit && most <= longestSolicit {
			a.mostSolicit = most
		}
	}
	ia := a.mine(m)
	switch {
	case m.MessageType == dhcpv6.MessageTypeAdvertise && a.phase == soliciting && a.sent > 0:
		if a.usable(ia) == nil {
			return false, false
		}
		preference := m.Options.Preference()
		if a.offer == nil || preference > a.offer.Options.Preference() {
			a.offer = m
		}
		if preference == math.MaxUint8 || a.sent > 1 {
			a.next = now
		}
		return false, false
	case m.MessageType != dhcpv6.MessageTypeReply || a.sent == 0 || a.phase == bound:
		return false, false
	case a.phase == releasing:
		return false, true
	case a.phase == soliciting && m.GetOneOption(dhcpv6.OptionRapidCommit) == nil:
		return false, false
	}
	if s := m.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess || ia == nil {
		return false, false // it is sent again
	}
	if p := a.usable(ia); p != nil {
		before := a.lease
		a.lease, a.server, a.offer, a.lost = newLease(a, ia, p, server, now), server, nil, false
		a.rest()
		return before == nil || before.Prefix != a.lease.Prefix, false
	}
	if a.withdrawn(ia) {
		a.lose(now)
		return true, false
	}
	status := iana.StatusSuccess
	if s := ia.Options.Status(); s != nil {
		status = s.StatusCode
	}
	switch {
	case status == iana.StatusNoBinding && (a.phase == renewing || a.phase == rebinding):
		a.server = server // it knows nothing of the lease, and may be asked for it
		a.begin(requesting, now)
	case a.phase == requesting && a.lease != nil:
		a.lose(now.Add(refusedPause))
		return true, false
	case a.phase == requesting:
		a.begin(soliciting, now.Add(refusedPause))
	}
	return false, false
}

func newLease(a *association, ia *dhcpv6.OptIAPD, p *dhcpv6.OptIAPrefix, server dhcpv6.DUID, now time.Time) *Lease {
	now = now.Round(0) // the wall clock's: it goes to the disk
	at := func(d time.Duration) time.Time {
		if d >= infinite {
			return time.Time{}
		}
		return now.Add(d)
	}
	t1, t2, lifetime := ia.T1, ia.T2, p.PreferredLifetime
	if lifetime == 0 { // deprecated
		lifetime = p.ValidLifetime
	}
	if t1 == 0 {
		t1 = infinite
		if lifetime < infinite {
			t1 = lifetime / 2
		}
	}
	if t2 == 0 {
		t2 = infinite
		if lifetime < infinite {
			t2 = lifetime / 5 * 4
		}
	}
	t2 = min(max(t2, leastRenew), p.ValidLifetime)
	t1 = min(max(t1, leastRenew), t2)
	return &Lease{
		Prefix: prefixOf(p), Identity: a.identity.ToBytes(), IAID: a.iaid, Server: server.ToBytes(),
		Renew: at(t1), Rebind: at(t2), Expires: at(p.ValidLifetime),
	}
}
