package packetlog

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Numbers of protocols (IANA).
const (
	etherIPv4   = 0x0800
	etherARP    = 0x0806
	etherVLAN   = 0x8100
	etherQinQ   = 0x88a8
	etherIPv6   = 0x86dd
	protoHop    = 0
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoRoute  = 43
	protoFrag   = 44
	protoICMPv6 = 58
	protoDest   = 60
	protoSCTP   = 132
)

// Describe tells the headers of an Ethernet frame as Neutron's agents do:
// "ethernet(dst='…',ethertype=2048,src='…'), ipv4(…), tcp(…)". What the frame
// carries is not told, and a header that is cut short ends the description.
// The result is printable ASCII whatever the frame holds.
func Describe(frame []byte) string {
	var d description
	d.ethernet(frame)
	return strings.Join(d.headers, ", ")
}

type description struct{ headers []string }

func (d *description) add(format string, args ...any) {
	d.headers = append(d.headers, fmt.Sprintf(format, args...))
}

var u16, u32 = binary.BigEndian.Uint16, binary.BigEndian.Uint32

func (d *description) ethernet(b []byte) {
	if len(b) < 14 {
		return
	}
	kind := u16(b[12:])
	d.add("ethernet(dst='%s',ethertype=%d,src='%s')", net.HardwareAddr(b[:6]), kind, net.HardwareAddr(b[6:12]))
	b = b[14:]
	for (kind == etherVLAN || kind == etherQinQ) && len(b) >= 4 {
		tag := u16(b)
		kind = u16(b[2:])
		d.add("vlan(cfi=%d,ethertype=%d,pcp=%d,vid=%d)", tag>>12&1, kind, tag>>13, tag&0xfff)
		b = b[4:]
	}
	switch kind {
	case etherARP:
		d.arp(b)
	case etherIPv4:
		d.ipv4(b)
	case etherIPv6:
		d.ipv6(b)
	}
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// arp: RFC 826, of IPv4 on Ethernet.
func (d *description) arp(b []byte) {
	if len(b) < 28 || b[4] != 6 || b[5] != 4 {
		return
	}
	d.add("arp(dst_ip='%s',dst_mac='%s',hlen=6,hwtype=%d,opcode=%d,plen=4,proto=%d,src_ip='%s',src_mac='%s')",
		address(b[24:28]), net.HardwareAddr(b[18:24]), u16(b), u16(b[6:]), u16(b[2:]), address(b[14:18]), net.HardwareAddr(b[8:14]))
}

// ipv4: RFC 791.
func (d *description) ipv4(b []byte) {
	if len(b) < 20 {
		return
	}
	words := int(b[0] & 0xf)
	fragment := u16(b[6:])
	option := "None"
	if size := 4 * words; size > 20 && len(b) >= size {
		option = quote(b[20:size])
	}
	d.add("ipv4(csum=%d,dst='%s',flags=%d,header_length=%d,identification=%d,offset=%d,option=%s,proto=%d,src='%s',tos=%d,total_length=%d,ttl=%d,version=%d)",
		u16(b[10:]), address(b[16:20]), fragment>>13, words, u16(b[4:]), fragment&0x1fff, option, b[9], address(b[12:16]), b[1], u16(b[2:]), b[8], b[0]>>4)
	if fragment&0x1fff == 0 && words >= 5 && len(b) >= 4*words {
		d.transport(b[9], b[4*words:])
	}
}

// ipv6: RFC 8200.
func (d *description) ipv6(b []byte) {
	if len(b) < 40 {
		return
	}
	first := u32(b)
	next, rest, whole := b[6], b[40:], true
	var extensions []string
	for more := true; more && whole && len(rest) >= 8; {
		size := 8 * (int(rest[1]) + 1)
		switch next {
		case protoHop:
			extensions = append(extensions, fmt.Sprintf("hop_opts(nxt=%d,size=%d)", rest[0], rest[1]))
		case protoDest:
			extensions = append(extensions, fmt.Sprintf("dst_opts(nxt=%d,size=%d)", rest[0], rest[1]))
		case protoRoute:
			extensions = append(extensions, fmt.Sprintf("routing(nxt=%d,size=%d,type_=%d)", rest[0], rest[1], rest[2]))
		case protoFrag:
			size = 8
			offset := u16(rest[2:])
			extensions = append(extensions, fmt.Sprintf("fragment(id_=%d,more=%d,nxt=%d,offset=%d)", u32(rest[4:]), offset&1, rest[0], offset>>3))
			whole = offset>>3 == 0
		default:
			more = false
			continue
		}
		next = rest[0]
		rest = rest[min(size, len(rest)):]
	}
	d.add("ipv6(dst='%s',ext_hdrs=[%s],flow_label=%d,hop_limit=%d,nxt=%d,payload_length=%d,src='%s',traffic_class=%d,version=%d)",
		address(b[24:40]), strings.Join(extensions, ", "), first&0xfffff, b[7], b[6], u16(b[4:]), address(b[8:24]), first>>20&0xff, first>>28)
	if whole {
		d.transport(next, rest)
	}
}

func (d *description) transport(protocol byte, b []byte) {
	switch {
	case protocol == protoTCP && len(b) >= 20: // RFC 9293
		words := int(b[12] >> 4)
		d.add("tcp(ack=%d,bits=%d,csum=%d,dst_port=%d,offset=%d,option=%s,seq=%d,src_port=%d,urgent=%d,window_size=%d)",
			u32(b[8:]), b[13], u16(b[16:]), u16(b[2:]), words, tcpOptions(b[20:min(max(20, 4*words), len(b))]), u32(b[4:]), u16(b), u16(b[18:]), u16(b[14:]))
	case protocol == protoUDP && len(b) >= 8: // RFC 768
		d.add("udp(csum=%d,dst_port=%d,src_port=%d,total_length=%d)", u16(b[6:]), u16(b[2:]), u16(b), u16(b[4:]))
	case protocol == protoSCTP && len(b) >= 12: // RFC 9260
		d.add("sctp(csum=%d,dst_port=%d,src_port=%d,vtag=%d)", u32(b[8:]), u16(b[2:]), u16(b), u32(b[4:]))
	case protocol == protoICMP && len(b) >= 4: // RFC 792
		data := "None"
		if (b[0] == 0 || b[0] == 8) && len(b) >= 8 {
			data = echo(b)
		}
		d.add("icmp(code=%d,csum=%d,data=%s,type=%d)", b[1], u16(b[2:]), data, b[0])
	case protocol == protoICMPv6 && len(b) >= 4: // RFC 4443, RFC 4861
		data := "None"
		switch {
		case (b[0] == 128 || b[0] == 129) && len(b) >= 8:
			data = echo(b)
		case (b[0] == 135 || b[0] == 136) && len(b) >= 24:
			data = fmt.Sprintf("nd_neighbor(dst='%s',option=None,res=%d)", address(b[8:24]), b[4]>>5)
		}
		d.add("icmpv6(code=%d,csum=%d,data=%s,type_=%d)", b[1], u16(b[2:]), data, b[0])
	}
}

func echo(b []byte) string {
	return fmt.Sprintf("echo(data=None,id=%d,seq=%d)", u16(b[4:]), u16(b[6:]))
}

// tcpOptions: RFC 9293 section 3.2, RFC 7323, RFC 2018.
func tcpOptions(b []byte) string {
	if len(b) == 0 {
		return "None"
	}
	var options []string
	for len(b) > 0 {
		kind := b[0]
		if kind < 2 {
			options = append(options, fmt.Sprintf("TCPOption%s(kind=%d,length=1)", [...]string{"EndOfOptionList", "NoOperation"}[kind], kind))
			if b = b[1:]; kind == 0 {
				break
			}
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			break
		}
		size := b[1]
		switch {
		case kind == 2 && size == 4:
			options = append(options, fmt.Sprintf("TCPOptionMaximumSegmentSize(kind=2,length=4,max_seg_size=%d)", u16(b[2:])))
		case kind == 3 && size == 3:
			options = append(options, fmt.Sprintf("TCPOptionWindowScale(kind=3,length=3,shift_cnt=%d)", b[2]))
		case kind == 4 && size == 2:
			options = append(options, "TCPOptionSACKPermitted(kind=4,length=2)")
		case kind == 8 && size == 10:
			options = append(options, fmt.Sprintf("TCPOptionTimestamps(kind=8,length=10,ts_ecr=%d,ts_val=%d)", u32(b[6:]), u32(b[2:])))
		default:
			options = append(options, fmt.Sprintf("TCPOptionUnknown(kind=%d,length=%d,value=%s)", kind, size, quote(b[2:size])))
		}
		b = b[size:]
	}
	return "[" + strings.Join(options, ", ") + "]"
}

// quote writes bytes as Python does, all of them escaped.
func quote(b []byte) string {
	var s strings.Builder
	s.WriteString("b'")
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	s.WriteByte('\'')
	return s.String()
}
