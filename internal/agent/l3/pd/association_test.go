package pd

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"isospin/internal/agent/l3/pd/pdtest"
)

// play lets time pass until an association has had something to do steps times, and tells what it did.
type play struct {
	t      *testing.T
	a      *association
	server *pdtest.Server
	begin  time.Time
	now    time.Time
	answer func(*dhcpv6.Message) *dhcpv6.Message
}

func newPlay(t *testing.T, s *pdtest.Server) *play {
	p := &play{t: t, server: s, begin: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	p.now = p.begin
	p.a = &association{subnet: "s", identity: &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}, iaid: 7, random: func() float64 { return 0 }}
	p.a.start(nil, p.now)
	p.answer = func(m *dhcpv6.Message) *dhcpv6.Message { return s.Answer(m, netip.MustParseAddr("fe80::9")) }
	return p
}

// steps are lines "seconds TYPE prefix", or "seconds - none" when the lease was lost.
func (p *play) steps(n int) string {
	p.t.Helper()
	var lines []string
	for range n {
		if p.a.next.IsZero() {
			lines = append(lines, "never")
			break
		}
		p.now = p.a.next
		m, changed, over := p.a.due(p.now)
		line := fmt.Sprintf("%.0f", p.now.Sub(p.begin).Seconds())
		if changed {
			line += " lost"
		}
		if over {
			lines = append(lines, line+" over")
			break
		}
		if m != nil {
			line += " " + m.MessageType.String()
			again, err := dhcpv6.MessageFromBytes(m.ToBytes())
			if err != nil {
				p.t.Fatal(err)
			}
			if answer := p.answer(again); answer != nil {
				if changed, over := p.a.receive(answer, p.now); changed && p.a.lease != nil {
					line += " " + p.a.lease.Prefix.String()
				} else if changed {
					line += " lost"
				} else if over {
					line += " over"
				}
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

func (p *play) expect(n int, want string) {
	p.t.Helper()
	if have := p.steps(n); have != want {
		p.t.Errorf("did\n  %s\nwant\n  %s", have, want)
	}
}

func leases() *pdtest.Server {
	return &pdtest.Server{Preferred: 1000 * time.Second, Valid: 2000 * time.Second}
}

func TestExchanges(t *testing.T) {
	s := leases()
	p := newPlay(t, s)
	p.begin = p.a.next // a delay by chance
	// Offers are waited for; T1 and T2 are half and four fifths of the preferred lifetime.
	p.expect(2, "0 SOLICIT, 1 REQUEST 2001:db8:f000:1::/64")
	p.expect(2, "501 RENEW, 1001 RENEW")
	s.Silence(true)
	p.expect(7, "1501 RENEW, 1511 RENEW, 1531 RENEW, 1571 RENEW, 1651 RENEW, 1801 REBIND, 1811 REBIND")
	s.Silence(false)
	p.expect(2, "1831 REBIND, 2331 RENEW")
	// A server that forgot gives it anew.
	s.Forget()
	p.expect(3, "2831 RENEW, 2831 REQUEST 2001:db8:f000:2::/64, 3331 RENEW")
	// The lease runs out.
	s.Silence(true)
	p.steps(12)
	p.expect(1, "5331 lost SOLICIT")
	if !p.a.lost || p.a.lease != nil {
		t.Error("the lease is still there")
	}
	s.Silence(false)
	p.expect(2, "5332 SOLICIT, 5332 REQUEST 2001:db8:f000:2::/64")
	p.a.begin(releasing, p.now)
	p.expect(1, "5332 RELEASE over")
	if s.Leases() != 0 {
		t.Error("the server has a lease")
	}
}

func TestBackOff(t *testing.T) {
	s := leases()
	s.Silence(true)
	p := newPlay(t, s)
	p.begin = p.a.next
	p.expect(5, "0 SOLICIT, 1 SOLICIT, 3 SOLICIT, 7 SOLICIT, 15 SOLICIT")
	p.steps(10)
	at := p.now
	p.steps(1)
	if pause := p.now.Sub(at); pause != time.Hour {
		t.Errorf("after long there is a Solicit every %s", pause)
	}
	// An offer after the first pause is taken at once, and a request is repeated ten times.
	s.Silence(false)
	p.begin = p.a.next
	p.answer = func(m *dhcpv6.Message) *dhcpv6.Message {
		if m.MessageType == dhcpv6.MessageTypeRequest {
			return nil
		}
		return s.Answer(m, netip.Addr{})
	}
	p.expect(13, "0 SOLICIT, 0 REQUEST, 1 REQUEST, 3 REQUEST, 7 REQUEST, 15 REQUEST, 31 REQUEST, 61 REQUEST, 91 REQUEST, 121 REQUEST, 151 REQUEST, 181 SOLICIT, 182 REQUEST")

	p = newPlay(t, s)
	p.steps(2)
	s.Silence(true)
	p.a.begin(releasing, p.now)
	p.begin = p.now
	p.expect(9, "0 RELEASE, 1 RELEASE, 3 RELEASE, 7 RELEASE, 15 over")
}

func TestRapidCommit(t *testing.T) {
	s := leases()
	s.Rapid, s.Bits, s.T1, s.T2 = true, 56, 30*time.Second, 60*time.Second
	p := newPlay(t, s)
	p.begin = p.a.next
	p.expect(2, "0 SOLICIT 2001:db8:f000:100::/56, 30 RENEW")
}

// A prefix that is on its way out, or that is to be renewed all the time, makes no storm of packets.
func TestNoStorm(t *testing.T) {
	for name, c := range map[string]struct {
		preferred, valid, t1, t2 time.Duration
		want                     string
	}{
		"deprecated":         {0, 100 * time.Second, 0, 0, "1 REQUEST 2001:db8:1::/64, 51 RENEW, 101 RENEW, 151 RENEW"},
		"deprecated, T1":     {0, 100 * time.Second, 20 * time.Second, 0, "1 REQUEST 2001:db8:1::/64, 21 RENEW, 41 RENEW, 61 RENEW"},
		"always":             {100 * time.Second, 100 * time.Second, time.Second, time.Second, "1 REQUEST 2001:db8:1::/64, 2 REBIND, 3 REBIND, 4 REBIND"},
		"soon deprecated":    {time.Second, 100 * time.Second, 0, 0, "1 REQUEST 2001:db8:1::/64, 2 REBIND, 3 REBIND, 4 REBIND"},
		"valid for a moment": {time.Second, time.Second, 0, 0, "1 REQUEST, 11 SOLICIT, 12 REQUEST, 22 SOLICIT"},
	} {
		s := leases()
		p := newPlay(t, s)
		p.begin = p.a.next
		p.answer = func(m *dhcpv6.Message) *dhcpv6.Message {
			answer := s.Answer(m, netip.Addr{})
			if m.MessageType != dhcpv6.MessageTypeSolicit {
				n := netip.MustParsePrefix("2001:db8:1::/64")
				ia := &dhcpv6.OptIAPD{IaId: [4]byte{0, 0, 0, 7}, T1: c.t1, T2: c.t2}
				ia.Options.Add(&dhcpv6.OptIAPrefix{PreferredLifetime: c.preferred, ValidLifetime: c.valid, Prefix: &net.IPNet{IP: n.Addr().AsSlice(), Mask: net.CIDRMask(64, 128)}})
				answer.UpdateOption(ia)
			}
			return answer
		}
		p.steps(1)
		if have := p.steps(4); have != c.want {
			t.Errorf("%s: did\n  %s\nwant\n  %s", name, have, c.want)
		}
	}
}

func TestAnswersThatDoNotCount(t *testing.T) {
	ia := func(prefix string, preferred, valid time.Duration, status iana.StatusCode) *dhcpv6.OptIAPD {
		o := &dhcpv6.OptIAPD{IaId: [4]byte{0, 0, 0, 7}}
		if prefix != "" {
			n := netip.MustParsePrefix(prefix)
			o.Options.Add(&dhcpv6.OptIAPrefix{PreferredLifetime: preferred, ValidLifetime: valid, Prefix: &net.IPNet{IP: n.Addr().AsSlice(), Mask: net.CIDRMask(n.Bits(), 128)}})
		}
		if status != 0 {
			o.Options.Add(&dhcpv6.OptStatusCode{StatusCode: status})
		}
		return o
	}
	good := ia("2001:db8:1::/64", time.Hour, time.Hour, 0)
	other := ia("2001:db8:1::/64", time.Hour, time.Hour, 0)
	other.IaId[3] = 8
	late := ia("2001:db8:1::/64", time.Hour, time.Hour, 0)
	late.T1, late.T2 = 50*time.Second, 40*time.Second
	for name, c := range map[string]struct {
		ia     *dhcpv6.OptIAPD
		change func(*dhcpv6.Message)
		counts bool
	}{
		"good":                {ia: good, counts: true},
		"another IA":          {ia: other},
		"T1 after T2":         {ia: late},
		"no prefix":           {ia: ia("", 0, 0, iana.StatusNoPrefixAvail)},
		"too long":            {ia: ia("2001:db8:1::/65", time.Hour, time.Hour, 0)},
		"preferred too long":  {ia: ia("2001:db8:1::/64", 2*time.Hour, time.Hour, 0)},
		"no lifetime":         {ia: ia("2001:db8:1::/64", 0, 0, 0)},
		"multicast":           {ia: ia("ff02::/64", time.Hour, time.Hour, 0)},
		"another transaction": {ia: good, change: func(m *dhcpv6.Message) { m.TransactionID[0]++ }},
		"another client": {ia: good, change: func(m *dhcpv6.Message) {
			m.UpdateOption(dhcpv6.OptClientID(&dhcpv6.DUIDEN{EnterpriseNumber: 1}))
		}},
		"no server": {ia: good, change: func(m *dhcpv6.Message) { m.Options.Options.Del(dhcpv6.OptionServerID) }},
		"failure":   {ia: good, change: func(m *dhcpv6.Message) { m.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusUnspecFail}) }},
		"an offer":  {ia: good, change: func(m *dhcpv6.Message) { m.MessageType = dhcpv6.MessageTypeAdvertise }},
	} {
		p := newPlay(t, leases())
		s := leases()
		p.answer = func(m *dhcpv6.Message) *dhcpv6.Message {
			if m.MessageType == dhcpv6.MessageTypeSolicit {
				return s.Answer(m, netip.Addr{})
			}
			answer := s.Answer(m, netip.Addr{})
			answer.UpdateOption(c.ia)
			if c.change != nil {
				c.change(answer)
			}
			return answer
		}
		p.steps(2)
		if counts := p.a.lease != nil; counts != c.counts {
			t.Errorf("%s: lease %v", name, p.a.lease)
		}
	}
}

// Leases of a former process go on, unless they are another identity's or have run out.
func TestLeaseFromDisk(t *testing.T) {
	s := leases()
	p := newPlay(t, s)
	p.steps(2)
	raw, err := json.Marshal(p.a.lease)
	if err != nil {
		t.Fatal(err)
	}
	next := func(after time.Duration, change func(*Lease)) *play {
		q := newPlay(t, s)
		var l Lease
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		change(&l)
		q.a.start(&l, p.now.Add(after))
		q.begin = p.now
		return q
	}
	q := next(10*time.Second, func(*Lease) {})
	q.expect(1, "500 RENEW")
	if q.a.lease.Prefix.String() != "2001:db8:f000:1::/64" {
		t.Errorf("lease %v", q.a.lease)
	}
	if q = next(2001*time.Second, func(*Lease) {}); q.a.lease != nil || !q.a.lost {
		t.Errorf("a lease that has run out: %v", q.a.lease)
	}
	if q = next(0, func(l *Lease) { l.IAID++ }); q.a.lease != nil || q.a.lost {
		t.Errorf("another's lease: %v", q.a.lease)
	}
	// A prefix that the server takes back is gone at once.
	q = next(10*time.Second, func(*Lease) {})
	q.answer = func(m *dhcpv6.Message) *dhcpv6.Message {
		answer := s.Answer(m, netip.Addr{})
		answer.Options.IAPD()[0].Options.Prefixes()[0].ValidLifetime = 0
		answer.Options.IAPD()[0].Options.Prefixes()[0].PreferredLifetime = 0
		return answer
	}
	q.expect(1, "500 RENEW lost")
}

// FuzzReceive: whatever a server answers, in any phase, leaves an association
// that goes on, and not at once again and again.
func FuzzReceive(f *testing.F) {
	s := leases()
	for _, rapid := range []bool{false, true} {
		s.Rapid = rapid
		var t testing.T
		p := newPlay(&t, s)
		p.now = p.a.next
		m, _, _ := p.a.due(p.now)
		answer := p.answer(m)
		f.Add(answer.ToBytes(), uint8(soliciting))
		if !rapid {
			p.a.receive(answer, p.now)
			p.now = p.a.next
			m, _, _ = p.a.due(p.now)
			f.Add(p.answer(m).ToBytes(), uint8(requesting))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, in uint8) {
		answer, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return
		}
		p := newPlay(t, leases())
		for range 40 { // to the phase, or past it
			p.now = p.a.next
			if m, _, over := p.a.due(p.now); over || m == nil {
				return
			} else if p.a.phase != phase(in%6) {
				if again := p.answer(m); again != nil {
					p.a.receive(again, p.now)
				}
				continue
			}
			break
		}
		answer.TransactionID = p.a.id
		answer.UpdateOption(dhcpv6.OptClientID(p.a.identity))
		sent := 0
		for range 20 {
			p.a.receive(answer, p.now)
			if p.a.lease != nil {
				if n := p.a.lease.Prefix; !n.IsValid() || n != n.Masked() || n.Bits() > 64 || !n.Addr().Is6() || p.a.next.IsZero() && !p.a.lease.Expires.IsZero() {
					t.Fatalf("lease %+v", p.a.lease)
				}
			}
			if p.a.next.IsZero() {
				return
			}
			if p.a.next.After(p.now) {
				p.now = p.a.next
			}
			m, _, over := p.a.due(p.now)
			if over {
				return
			}
			if m != nil {
				sent++
				m.ToBytes()
				answer.TransactionID = p.a.id
			}
		}
		if took := p.now.Sub(p.begin); sent > 15 && took < 5*time.Second {
			t.Errorf("%d messages within %s", sent, took)
		}
	})
}
