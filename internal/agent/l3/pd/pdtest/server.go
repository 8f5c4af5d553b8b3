// Package pdtest is a delegating router for tests (RFC 8415).
//
// It must not know who asks it.
package pdtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"isospin/internal/kernel/netns"
)

// Server delegates prefixes of 2001:db8:f000::/36, one to each identity and IAID.
type Server struct {
	// Preferred and Valid are lifetimes, T1 and T2 the times of leases; T1 and T2 may be 0.
	Preferred, Valid, T1, T2 time.Duration
	// Bits is the length of prefixes; 0: 64.
	Bits int
	// Rapid: Solicits with the option Rapid Commit are answered by a Reply.
	Rapid bool
	// Route is called with each prefix that is delegated and the address of who has it, or when it is released with the zero Addr.
	Route func(prefix netip.Prefix, via netip.Addr)

	mu     sync.Mutex
	silent bool
	next   int
	leases map[string]netip.Prefix
	seen   []string
}

// Silence makes the server answer nothing, or again.
func (s *Server) Silence(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// Forget makes the server know nothing of its leases.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = nil
}

// Leases is how many prefixes are delegated.
func (s *Server) Leases() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.leases)
}

// Seen are the types of the messages that came, "SOLICIT" and so on.
func (s *Server) Seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// Identity is the server's DUID.
func (s *Server) Identity() dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
}

// Answer is what the server says to a message that came from an address; nil: nothing.
func (s *Server) Answer(m *dhcpv6.Message, from netip.Addr) *dhcpv6.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, m.MessageType.String())
	if s.silent || m.Options.ClientID() == nil {
		return nil
	}
	if id := m.Options.ServerID(); id != nil && !id.Equal(s.Identity()) {
		return nil
	}
	rapid := s.Rapid && m.GetOneOption(dhcpv6.OptionRapidCommit) != nil
	answer := &dhcpv6.Message{TransactionID: m.TransactionID, MessageType: dhcpv6.MessageTypeReply}
	if m.MessageType == dhcpv6.MessageTypeSolicit && !rapid {
		answer.MessageType = dhcpv6.MessageTypeAdvertise
	}
	answer.AddOption(dhcpv6.OptClientID(m.Options.ClientID()))
	answer.AddOption(dhcpv6.OptServerID(s.Identity()))
	if rapid && m.MessageType == dhcpv6.MessageTypeSolicit {
		answer.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	for _, asked := range m.Options.IAPD() {
		ia := &dhcpv6.OptIAPD{IaId: asked.IaId, T1: s.T1, T2: s.T2}
		key := fmt.Sprintf("%x %x", m.Options.ClientID().ToBytes(), asked.IaId)
		prefix, there := s.leases[key]
		switch m.MessageType {
		case dhcpv6.MessageTypeRelease:
			if there && s.Route != nil {
				s.Route(prefix, netip.Addr{})
			}
			delete(s.leases, key)
			answer.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess})
			continue
		case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
			if !there {
				ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding})
				answer.AddOption(ia)
				continue
			}
		default:
			if !there {
				prefix = s.fresh()
				if s.leases == nil {
					s.leases = map[string]netip.Prefix{}
				}
				s.leases[key] = prefix
			}
		}
		if s.Route != nil && answer.MessageType == dhcpv6.MessageTypeReply {
			s.Route(prefix, from)
		}
		ia.Options.Add(&dhcpv6.OptIAPrefix{PreferredLifetime: s.Preferred, ValidLifetime: s.Valid,
			Prefix: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 128)}})
		answer.AddOption(ia)
	}
	return answer
}

func (s *Server) fresh() netip.Prefix {
	bits := s.Bits
	if bits == 0 {
		bits = 64
	}
	s.next++
	b := netip.MustParseAddr("2001:db8:f000::").As16()
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+uint64(s.next)<<(64-bits))
	return netip.PrefixFrom(netip.AddrFrom16(b), bits)
}

// Serve answers on a device in a network namespace until the test ends.
func (s *Server) Serve(t testing.TB, namespace, device string) {
	t.Helper()
	var ifi *net.Interface
	if err := netns.Do(namespace, func() (err error) { ifi, err = net.InterfaceByName(device); return err }); err != nil {
		t.Fatal(err)
	}
	var conn *net.UDPConn
	if err := netns.Do(namespace, func() (err error) {
		conn, err = net.ListenMulticastUDP("udp6", ifi, &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: dhcpv6.DefaultServerPort})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// Of the address of a group nobody can send.
	out, err := netns.ListenPacket(context.Background(), namespace, &net.ListenConfig{Control: netns.BindToDevice(device)}, "udp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { conn.Close(); done.Wait(); out.Close() })
	done.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			m, err := dhcpv6.MessageFromBytes(b[:n])
			if err != nil {
				t.Errorf("delegating server: %v", err)
				continue
			}
			if answer := s.Answer(m, from.Addr().WithZone("")); answer != nil {
				if _, err := out.WriteTo(answer.ToBytes(), &net.UDPAddr{IP: from.Addr().WithZone("").AsSlice(), Port: int(from.Port())}); err != nil {
					t.Logf("delegating server: %v", err)
				}
			}
		}
	})
}
