package dhcp

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// message6 is a DHCPv6 client message as far as a server looks at it. Options
// that it has no use for are not decoded: what they hold is the client's affair.
type message6 struct {
	kind         dhcpv6.MessageType
	transaction  dhcpv6.TransactionID
	client       []byte // DUID
	server       []byte // DUID
	wanted       []byte // option request: 16 bit codes
	rapid        bool
	ipxe         bool
	associations []association
}

type association struct {
	code      dhcpv6.OptionCode // IA_NA, IA_TA or IA_PD
	id        [4]byte
	addresses []netip.Addr
}

const maxAssociations = 16 // of one message; a client has one per interface

// parse6 reads a message of a client; ok is false if it is none (RFC 8415
// section 8, and 21 for the options).
func parse6(b []byte) (m message6, ok bool) {
	if len(b) < 4 {
		return m, false
	}
	m.kind = dhcpv6.MessageType(b[0])
	m.transaction = dhcpv6.TransactionID(b[1:4])
	ok = walk6(b[4:], func(code dhcpv6.OptionCode, data []byte) bool {
		switch code {
		case dhcpv6.OptionClientID:
			if len(data) < 3 || len(data) > 130 || m.client != nil {
				return false
			}
			m.client = data
		case dhcpv6.OptionServerID:
			m.server = data
		case dhcpv6.OptionORO:
			m.wanted = data
		case dhcpv6.OptionRapidCommit:
			m.rapid = true
		case dhcpv6.OptionUserClass:
			m.ipxe = bytes.Contains(data, []byte("iPXE"))
		case dhcpv6.OptionIANA, dhcpv6.OptionIATA, dhcpv6.OptionIAPD:
			if len(m.associations) == maxAssociations {
				return false
			}
			a, ok := parseAssociation(code, data)
			if !ok {
				return false
			}
			m.associations = append(m.associations, a)
		}
		return true
	})
	return m, ok
}

// walk6 calls fn with each option, and tells whether the bytes were options and
// fn took all of them.
func walk6(b []byte, fn func(code dhcpv6.OptionCode, data []byte) bool) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size > len(b)-4 || !fn(dhcpv6.OptionCode(binary.BigEndian.Uint16(b)), b[4:4+size]) {
			return false
		}
		b = b[4+size:]
	}
	return true
}

func parseAssociation(code dhcpv6.OptionCode, data []byte) (a association, ok bool) {
	fixed := 12 // id, T1, T2
	if code == dhcpv6.OptionIATA {
		fixed = 4
	}
	if len(data) < fixed {
		return a, false
	}
	a.code, a.id = code, [4]byte(data[:4])
	ok = walk6(data[fixed:], func(code dhcpv6.OptionCode, data []byte) bool {
		if code == dhcpv6.OptionIAAddr {
			if len(data) < 24 {
				return false
			}
			a.addresses = append(a.addresses, netip.AddrFrom16([16]byte(data[:16])))
		}
		return true
	})
	return a, ok
}

// client6 finds the port of a client: by the MAC address of its frame, else by
// the one in its DUID or in its link-local address (a guest's own bridge).
func (t *table) client6(frame macAddress, d datagram, m message6) *host {
	if h := t.hosts[frame]; h != nil {
		return h
	}
	if len(m.client) >= 2 {
		hw := []byte(nil)
		switch kind := dhcpv6.DUIDType(binary.BigEndian.Uint16(m.client)); {
		case kind == dhcpv6.DUID_LLT && len(m.client) == 14:
			hw = m.client[8:]
		case kind == dhcpv6.DUID_LL && len(m.client) == 10:
			hw = m.client[4:]
		}
		if hw != nil {
			if h := t.hosts[macAddress(hw)]; h != nil {
				return h
			}
		}
	}
	if a := d.source.Addr().As16(); d.source.Addr().IsLinkLocalUnicast() && a[11] == 0xff && a[12] == 0xfe {
		return t.hosts[macAddress{a[8] ^ 2, a[9], a[10], a[13], a[14], a[15]}]
	}
	return nil
}

// answer6 is the reply to one DHCPv6 message, nil if it gets none (RFC 8415
// sections 16 and 18.3).
func (t *table) answer6(frame macAddress, d datagram) *reply {
	if !d.source.Addr().Is6() || d.source.Addr().IsUnspecified() || d.source.Addr().IsMulticast() {
		return nil
	}
	m, ok := parse6(d.payload)
	if !ok {
		return nil
	}
	ours := bytes.Equal(m.server, t.duid)
	switch m.kind {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if m.client == nil || m.server != nil {
			return nil
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if m.client == nil || !ours {
			return nil
		}
	case dhcpv6.MessageTypeInformationRequest:
		if len(m.associations) > 0 || m.server != nil && !ours {
			return nil
		}
	default:
		return nil
	}
	h := t.client6(frame, d, m)
	if h == nil || h.six == nil {
		return nil
	}

	answer := dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: m.transaction}
	answer.AddOption(generic(dhcpv6.OptionServerID, t.duid))
	if m.client != nil {
		answer.AddOption(generic(dhcpv6.OptionClientID, m.client))
	}
	switch m.kind {
	case dhcpv6.MessageTypeSolicit:
		if m.rapid {
			answer.AddOption(generic(dhcpv6.OptionRapidCommit, nil))
		} else {
			answer.MessageType = dhcpv6.MessageTypeAdvertise
			// No other server will answer this client: it need not wait.
			answer.AddOption(dhcpv6.OptPreference(math.MaxUint8))
		}
		t.assign(&answer, h.six, m)
		t.configure(&answer, h.six, m)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		t.assign(&answer, h.six, m)
		t.configure(&answer, h.six, m)
	case dhcpv6.MessageTypeConfirm:
		asked, right := 0, true
		for _, a := range m.associations {
			for _, ip := range a.addresses {
				asked++
				right = right && slices.Contains(h.six.addresses, ip)
			}
		}
		switch {
		case asked == 0:
			return nil
		case right:
			answer.AddOption(status(iana.StatusSuccess, ""))
		default:
			answer.AddOption(status(iana.StatusNotOnLink, "not an address of this port"))
		}
	case dhcpv6.MessageTypeInformationRequest:
		t.configure(&answer, h.six, m)
	default: // RELEASE, DECLINE: addresses belong to ports, there is nothing to free
		answer.AddOption(status(iana.StatusSuccess, ""))
	}
	return &reply{to: frame, datagram: datagram{
		source:      netip.AddrPortFrom(t.linkLocal, serverPort6),
		destination: netip.AddrPortFrom(d.source.Addr(), clientPort6),
		payload:     answer.ToBytes(),
	}}
}

func generic(code dhcpv6.OptionCode, data []byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}
}

func status(code iana.StatusCode, text string) dhcpv6.Option {
	return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text}
}

// assign answers every identity association: the first IA_NA has the port's
// addresses, the others have none; addresses that the client should not use get
// lifetimes of 0.
func (t *table) assign(answer *dhcpv6.Message, l *lease6, m message6) {
	free := l.addresses
	for _, a := range m.associations {
		var inner dhcpv6.Options
		switch {
		case a.code == dhcpv6.OptionIAPD:
			inner.Add(status(iana.StatusNoPrefixAvail, "no prefixes are delegated here"))
		case a.code == dhcpv6.OptionIANA && len(free) > 0:
			for _, ip := range free {
				inner.Add(&dhcpv6.OptIAAddress{IPv6Addr: ip.AsSlice(), PreferredLifetime: t.leaseTime, ValidLifetime: t.leaseTime})
			}
			if m.kind == dhcpv6.MessageTypeRenew || m.kind == dhcpv6.MessageTypeRebind {
				for _, ip := range a.addresses {
					if !slices.Contains(free, ip) {
						inner.Add(&dhcpv6.OptIAAddress{IPv6Addr: ip.AsSlice()})
					}
				}
			}
			free = nil
		case m.kind == dhcpv6.MessageTypeRebind && len(a.addresses) > 0:
			for _, ip := range a.addresses {
				inner.Add(&dhcpv6.OptIAAddress{IPv6Addr: ip.AsSlice()})
			}
		case m.kind == dhcpv6.MessageTypeRenew:
			inner.Add(status(iana.StatusNoBinding, "no address for this association"))
		default:
			inner.Add(status(iana.StatusNoAddrsAvail, "no address for this association"))
		}
		switch a.code {
		case dhcpv6.OptionIANA:
			answer.AddOption(&dhcpv6.OptIANA{IaId: a.id, T1: t.timer(t.t1), T2: t.timer(t.t2), Options: dhcpv6.IdentityOptions{Options: inner}})
		case dhcpv6.OptionIATA:
			answer.AddOption(&dhcpv6.OptIATA{IaId: a.id, Options: dhcpv6.IdentityOptions{Options: inner}})
		case dhcpv6.OptionIAPD:
			answer.AddOption(&dhcpv6.OptIAPD{IaId: a.id, Options: dhcpv6.PDOptions{Options: inner}})
		}
	}
}

// timer is T1 or T2: 0 would leave them to the client, which does so badly for
// a lease that never ends.
func (t *table) timer(d time.Duration) time.Duration {
	if d == 0 && t.leaseTime == infinite*time.Second {
		return t.leaseTime
	}
	return d
}

// configure adds the options that the client asked for.
func (t *table) configure(answer *dhcpv6.Message, l *lease6, m message6) {
	for _, o := range l.options {
		if m.wants(o.code) && o.when.holds(m.ipxe) {
			if o.when != always {
				answer.Options.Del(dhcpv6.OptionCode(o.code))
			}
			if !o.absent {
				answer.AddOption(generic(dhcpv6.OptionCode(o.code), o.value))
			}
		}
	}
}

// wants tells whether the client asked for the option; one that asks for
// nothing gets all.
func (m message6) wants(code uint16) bool {
	if m.wanted == nil {
		return true
	}
	for i := 0; i+2 <= len(m.wanted); i += 2 {
		if binary.BigEndian.Uint16(m.wanted[i:]) == code {
			return true
		}
	}
	return false
}
