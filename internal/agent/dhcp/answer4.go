package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// reply is what goes back to one client.
type reply struct {
	to macAddress
	datagram
}

var (
	broadcastMAC = macAddress{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcast4   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// answer4 is the reply to one DHCPv4 message, nil if it gets none: because it
// is no request, is relayed, is meant for another server, or is of a client
// that is no port of this host.
func (t *table) answer4(d datagram) *reply {
	request, err := dhcpv4.FromBytes(d.payload)
	if err != nil || request.OpCode != dhcpv4.OpcodeBootRequest || len(request.ClientHWAddr) != 6 {
		return nil
	}
	if relay := request.GatewayIPAddr; !relay.IsUnspecified() {
		return nil
	}
	client := macAddress(request.ClientHWAddr)
	host := t.hosts[client]
	if host == nil || len(host.leases) == 0 {
		return nil
	}
	if server := request.ServerIdentifier(); server != nil && !host.knowsServer(toAddr(server)) {
		return nil
	}
	ciaddr := toAddr(request.ClientIPAddr)
	wanted := toAddr(request.RequestedIPAddress())
	if !wanted.IsValid() || wanted.IsUnspecified() {
		wanted = ciaddr
	}
	lease := host.lease(wanted)

	var kind dhcpv4.MessageType
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
		if lease == nil {
			lease = host.leases[0]
		}
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
		if !wanted.IsValid() || wanted.IsUnspecified() {
			return nil
		}
		if lease == nil {
			return t.refuse(request, host.leases[0])
		}
	case dhcpv4.MessageTypeInform:
		kind = dhcpv4.MessageTypeAck
		if !ciaddr.IsValid() || ciaddr.IsUnspecified() {
			return nil
		}
		if lease == nil {
			lease = host.leases[0]
		}
	default: // RELEASE, DECLINE: addresses belong to ports, there is nothing to free
		return nil
	}

	answer := blank(request, kind)
	answer.ServerIPAddr = lease.server.AsSlice()
	options := lease.options
	next := lease.nextServer
	if len(lease.extras) > 0 {
		own := *lease
		options = cloneOptions(options)
		for _, e := range lease.extras {
			if e.when.holds(isIPXE4(request)) {
				own.set(options, e)
			}
		}
		next = own.nextServer
	}
	if next.IsValid() {
		answer.ServerIPAddr = next.AsSlice()
	}
	if kind != dhcpv4.MessageTypeAck || request.MessageType() != dhcpv4.MessageTypeInform {
		answer.YourIPAddr = lease.address.AsSlice()
	} else {
		options = cloneOptions(options)
		for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
			delete(options, code.Code())
		}
	}
	// For boot loaders that read no options.
	answer.BootFileName = headerString(options[optionBootFile], 127)
	answer.ServerHostName = headerString(options[optionTFTPName], 63)
	t.fill(answer, request, options)

	out := &reply{to: client, datagram: datagram{
		source:  netip.AddrPortFrom(lease.server, serverPort4),
		payload: answer.ToBytes(),
	}}
	to := lease.address
	switch { // RFC 2131 section 4.1
	case ciaddr.IsValid() && !ciaddr.IsUnspecified():
		to = ciaddr
	case request.IsBroadcast() || t.broadcastReply:
		to, out.to = broadcast4, broadcastMAC
	}
	out.destination = netip.AddrPortFrom(to, clientPort4)
	return out
}

func (h *host) knowsServer(a netip.Addr) bool {
	return slices.ContainsFunc(h.leases, func(l *lease4) bool { return l.server == a })
}

func (h *host) lease(a netip.Addr) *lease4 {
	if i := slices.IndexFunc(h.leases, func(l *lease4) bool { return l.address == a }); i >= 0 {
		return h.leases[i]
	}
	return nil
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func cloneOptions(o dhcpv4.Options) dhcpv4.Options {
	c := make(dhcpv4.Options, len(o))
	for k, v := range o {
		c[k] = v
	}
	return c
}

// isIPXE4: iPXE sends its own encapsulated options (175) and names itself as the
// user class.
func isIPXE4(request *dhcpv4.DHCPv4) bool {
	return request.Options.Has(dhcpv4.GenericOptionCode(175)) ||
		bytes.Contains(request.Options.Get(dhcpv4.OptionUserClassInformation), []byte("iPXE"))
}

func headerString(value []byte, limit int) string {
	if len(value) > limit || bytes.IndexByte(value, 0) >= 0 {
		return ""
	}
	return string(value)
}

func blank(request *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	return &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: request.HWType, TransactionID: request.TransactionID,
		Flags: request.Flags, ClientHWAddr: request.ClientHWAddr, ClientIPAddr: request.ClientIPAddr,
		YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{dhcpv4.OptionDHCPMessageType.Code(): []byte{byte(kind)}},
	}
}

// refuse is a DHCPNAK: the client wants an address that is not its own.
func (t *table) refuse(request *dhcpv4.DHCPv4, l *lease4) *reply {
	answer := blank(request, dhcpv4.MessageTypeNak)
	answer.ClientIPAddr = net.IPv4zero
	answer.Options[dhcpv4.OptionServerIdentifier.Code()] = l.server.AsSlice()
	answer.Options[dhcpv4.OptionMessage.Code()] = []byte("wrong address")
	if id := request.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		answer.Options[dhcpv4.OptionClientIdentifier.Code()] = id
	}
	return &reply{to: broadcastMAC, datagram: datagram{
		source:      netip.AddrPortFrom(l.server, serverPort4),
		destination: netip.AddrPortFrom(broadcast4, clientPort4),
		payload:     answer.ToBytes(),
	}}
}

// Options that go into every answer, asked for or not, and those that go in
// first when there is not room for all that was asked for.
var (
	unasked4 = []uint8{54, 51, 1, 58, 59, 28}
	first4   = []uint8{optionRoutes, optionRouter, 6, 15, 26, optionHostName, optionBootFile, optionTFTPName, 150, optionRoutesOld}
)

// fill copies options into the answer: those the client asked for (all, if it
// did not say), as far as the client takes them.
func (t *table) fill(answer, request *dhcpv4.DHCPv4, options dhcpv4.Options) {
	limit := 576 // RFC 2131: what every client takes
	if v := request.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(v) == 2 {
		limit = max(limit, int(binary.BigEndian.Uint16(v)))
	}
	if t.mtu > 0 {
		limit = min(limit, t.mtu)
	} else {
		limit = min(limit, 1500)
	}
	room := limit - header4 - headerUDP - 240 - 1 - 3 // fixed fields with cookie, end, message type
	put := func(code uint8, value []byte) {
		size := len(value) + 2*max(1, (len(value)+254)/255)
		if _, there := answer.Options[code]; !there && size <= room {
			answer.Options[code] = value
			room -= size
		}
	}
	// RFC 6842: the client's identifier comes back.
	if id := request.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		put(dhcpv4.OptionClientIdentifier.Code(), id)
	}
	for _, code := range unasked4 {
		if v, ok := options[code]; ok {
			put(code, v)
		}
	}
	asked := request.Options.Get(dhcpv4.OptionParameterRequestList)
	wanted := func(code uint8) bool {
		if asked == nil {
			return code != optionRoutesOld // the same as 121
		}
		return bytes.IndexByte(asked, code) >= 0
	}
	rest := make([]uint8, 0, len(options))
	for code := range options {
		rest = append(rest, code)
	}
	slices.Sort(rest)
	for _, code := range append(slices.Clone(first4), rest...) {
		if v, ok := options[code]; ok && wanted(code) {
			put(code, v)
		}
	}
}
