package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// Types of messages (RFC 4271, 4.1; RFC 2918).
const (
	typeOpen         = 1
	typeUpdate       = 2
	typeNotification = 3
	typeKeepalive    = 4
	typeRefresh      = 5

	headerSize = 19
	maxMessage = 4096
)

// Address family and subsequent address family of EVPN.
const (
	afiL2VPN = 25
	safiEVPN = 70
)

const (
	transitionAS = 23456 // AS_TRANS, RFC 6793
	version      = 4
)

// notification is what ends a session: code, subcode and data of RFC 4271, 4.5.
type notification struct {
	code, subcode byte
	data          []byte
	received      bool
}

// Codes of notifications.
const (
	errHeader = 1
	errOpen   = 2
	errUpdate = 3
	errHold   = 4
	errFSM    = 5
	errCease  = 6
)

var notificationNames = map[byte]string{
	errHeader: "message header error", errOpen: "OPEN message error", errUpdate: "UPDATE message error",
	errHold: "hold timer expired", errFSM: "finite state machine error", errCease: "cease",
}

func (n *notification) Error() string {
	who := "sent"
	if n.received {
		who = "received"
	}
	name := notificationNames[n.code]
	if name == "" {
		name = "code " + fmt.Sprint(n.code)
	}
	return fmt.Sprintf("notification %s: %s, subcode %d", who, name, n.subcode)
}

func message(kind byte, body []byte) []byte {
	m := make([]byte, headerSize, headerSize+len(body))
	for i := range 16 {
		m[i] = 0xff
	}
	binary.BigEndian.PutUint16(m[16:], uint16(headerSize+len(body)))
	m[18] = kind
	return append(m, body...)
}

// readMessage reads one message; a *notification says what is wrong with it.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	for _, b := range h[:16] {
		if b != 0xff {
			return 0, nil, &notification{code: errHeader, subcode: 1}
		}
	}
	length, kind := int(binary.BigEndian.Uint16(h[16:])), h[18]
	least := map[byte]int{typeOpen: 29, typeUpdate: 23, typeNotification: 21, typeKeepalive: headerSize, typeRefresh: 23}[kind]
	if least == 0 {
		return 0, nil, &notification{code: errHeader, subcode: 3, data: []byte{kind}}
	}
	if length < least || length > maxMessage || kind == typeKeepalive && length != least {
		return 0, nil, &notification{code: errHeader, subcode: 2, data: slices.Clone(h[16:18])}
	}
	body = make([]byte, length-headerSize)
	_, err = io.ReadFull(r, body)
	return kind, body, err
}

// open is an OPEN message.
type open struct {
	as   uint32
	hold time.Duration
	id   netip.Addr
	// evpn and fourOctets are capabilities.
	evpn, fourOctets bool
}

func (o open) encode() []byte {
	as := uint16(transitionAS)
	if o.as <= 0xffff {
		as = uint16(o.as)
	}
	b := []byte{version}
	b = binary.BigEndian.AppendUint16(b, as)
	b = binary.BigEndian.AppendUint16(b, uint16(o.hold/time.Second))
	id := o.id.As4()
	b = append(b, id[:]...)
	// Multiprotocol, route refresh, four-octet AS numbers.
	capabilities := []byte{1, 4, 0, afiL2VPN, 0, safiEVPN, 2, 0, 65, 4}
	capabilities = binary.BigEndian.AppendUint32(capabilities, o.as)
	b = append(b, byte(len(capabilities)+2), 2, byte(len(capabilities)))
	return message(typeOpen, append(b, capabilities...))
}

func decodeOpen(b []byte) (open, error) {
	malformed := &notification{code: errOpen}
	if len(b) < 10 {
		return open{}, malformed
	}
	if b[0] != version {
		return open{}, &notification{code: errOpen, subcode: 1, data: []byte{0, version}}
	}
	o := open{as: uint32(binary.BigEndian.Uint16(b[1:])), hold: time.Duration(binary.BigEndian.Uint16(b[3:])) * time.Second, id: netip.AddrFrom4([4]byte(b[5:9]))}
	if o.hold == time.Second || o.hold == 2*time.Second {
		return open{}, &notification{code: errOpen, subcode: 6}
	}
	if o.id.IsUnspecified() {
		return open{}, &notification{code: errOpen, subcode: 3}
	}
	parameters := b[10:]
	extended := b[9] == 255 && len(parameters) >= 3 && parameters[0] == 255 // RFC 9072
	if extended {
		if int(binary.BigEndian.Uint16(parameters[1:])) != len(parameters)-3 {
			return open{}, malformed
		}
		parameters = parameters[3:]
	} else if int(b[9]) != len(parameters) {
		return open{}, malformed
	}
	for len(parameters) > 0 {
		head := 2
		if extended {
			head = 3
		}
		if len(parameters) < head {
			return open{}, malformed
		}
		length := int(parameters[1])
		if extended {
			length = int(binary.BigEndian.Uint16(parameters[1:]))
		}
		if len(parameters) < head+length {
			return open{}, malformed
		}
		kind, value := parameters[0], parameters[head:head+length]
		parameters = parameters[head+length:]
		if kind != 2 {
			return open{}, &notification{code: errOpen, subcode: 4}
		}
		for len(value) > 0 {
			if len(value) < 2 || len(value) < 2+int(value[1]) {
				return open{}, malformed
			}
			o.capability(value[0], value[2:2+int(value[1])])
			value = value[2+int(value[1]):]
		}
	}
	return o, nil
}

func (o *open) capability(code byte, v []byte) {
	switch {
	case code == 1 && len(v) == 4:
		o.evpn = o.evpn || binary.BigEndian.Uint16(v) == afiL2VPN && v[3] == safiEVPN
	case code == 65 && len(v) == 4:
		o.fourOctets, o.as = true, binary.BigEndian.Uint32(v)
	}
}

// Path attributes.
const (
	attributeOrigin      = 1
	attributePath        = 2
	attributeNextHop     = 3
	attributeMED         = 4
	attributePreference  = 5
	attributeOriginator  = 9
	attributeClusters    = 10
	attributeReach       = 14
	attributeUnreach     = 15
	attributeCommunities = 16
	attributePath4       = 17

	flagOptional   = 0x80
	flagTransitive = 0x40
	flagExtended   = 0x10
)

// prefixRoute is what a route of type 5 says in itself.
type prefixRoute struct {
	key
	gateway netip.Addr
	segment bool // its Ethernet segment is not zero
	label   uint32
}

// key tells routes apart.
type key struct {
	distinguisher uint64
	tag           uint32
	prefix        netip.Prefix
}

// update is an UPDATE message.
type update struct {
	origin       byte
	path         []uint32 // all AS numbers in it
	length       int      // of the path, as it counts
	med          uint32
	preference   uint32
	originator   netip.Addr
	communities  []uint64
	nextHop      netip.Addr
	reach, gone  []prefixRoute
	unacceptable error // routes are withdrawn because of it (RFC 7606)
}

func appendAttribute(b []byte, flags, kind byte, value []byte) []byte {
	if len(value) > 255 {
		b = append(b, flags|flagExtended, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	} else {
		b = append(b, flags, kind, byte(len(value)))
	}
	return append(b, value...)
}

func appendRoute(b []byte, r prefixRoute) []byte {
	size := byte(34)
	if r.prefix.Addr().Is6() {
		size = 58
	}
	b = append(b, 5, size)
	b = binary.BigEndian.AppendUint64(b, r.distinguisher)
	b = append(b, make([]byte, 10)...)
	b = binary.BigEndian.AppendUint32(b, r.tag)
	b = append(b, byte(r.prefix.Bits()))
	b = append(b, r.prefix.Addr().AsSlice()...)
	gateway := r.gateway
	if !gateway.IsValid() {
		gateway = netip.IPv4Unspecified()
		if r.prefix.Addr().Is6() {
			gateway = netip.IPv6Unspecified()
		}
	}
	b = append(b, gateway.AsSlice()...)
	return append(b, byte(r.label>>16), byte(r.label>>8), byte(r.label))
}

// encode is the message for a neighbor that has four-octet AS numbers or not.
func (u *update) encode(fourOctets, internal bool) []byte {
	var a []byte
	if len(u.gone) > 0 || len(u.reach) == 0 { // without routes it is End-of-RIB (RFC 4724, 2)
		v := []byte{0, afiL2VPN, safiEVPN}
		for _, r := range u.gone {
			v = appendRoute(v, r)
		}
		a = appendAttribute(a, flagOptional, attributeUnreach, v)
	}
	if len(u.reach) > 0 {
		a = appendAttribute(a, flagTransitive, attributeOrigin, []byte{u.origin})
		var path, path4 []byte
		if len(u.path) > 0 {
			path, path4 = []byte{2, byte(len(u.path))}, []byte{2, byte(len(u.path))}
			for _, as := range u.path {
				path4 = binary.BigEndian.AppendUint32(path4, as)
				if as > 0xffff {
					as = transitionAS
				}
				path = binary.BigEndian.AppendUint16(path, uint16(as))
			}
		}
		if fourOctets {
			a = appendAttribute(a, flagTransitive, attributePath, path4)
		} else {
			a = appendAttribute(a, flagTransitive, attributePath, path)
			if slices.Max(append(u.path, 0)) > 0xffff {
				a = appendAttribute(a, flagOptional|flagTransitive, attributePath4, path4)
			}
		}
		if internal {
			a = appendAttribute(a, flagTransitive, attributePreference, binary.BigEndian.AppendUint32(nil, u.preference))
		}
		var list []byte
		for _, c := range u.communities {
			list = binary.BigEndian.AppendUint64(list, c)
		}
		a = appendAttribute(a, flagOptional|flagTransitive, attributeCommunities, list)
		hop := u.nextHop.AsSlice()
		v := append([]byte{0, afiL2VPN, safiEVPN, byte(len(hop))}, hop...)
		v = append(v, 0)
		for _, r := range u.reach {
			v = appendRoute(v, r)
		}
		a = appendAttribute(a, flagOptional, attributeReach, v)
	}
	b := []byte{0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(a)))
	return message(typeUpdate, append(b, a...))
}

// decodeUpdate reads an UPDATE. A *notification: the session must end.
func decodeUpdate(b []byte, fourOctets, internal bool) (*update, error) {
	malformed := &notification{code: errUpdate, subcode: 1}
	if len(b) < 4 {
		return nil, malformed
	}
	withdrawn := int(binary.BigEndian.Uint16(b))
	if len(b) < 4+withdrawn {
		return nil, malformed
	}
	b = b[2+withdrawn:] // IPv4 routes are not asked for
	size := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+size {
		return nil, malformed
	}
	attributes := b[2 : 2+size]
	u := &update{preference: 100}
	seen := map[byte]bool{}
	for len(attributes) > 0 {
		if len(attributes) < 3 {
			return nil, malformed
		}
		flags, kind, head, length := attributes[0], attributes[1], 3, int(attributes[2])
		if flags&flagExtended != 0 {
			if len(attributes) < 4 {
				return nil, malformed
			}
			head, length = 4, int(binary.BigEndian.Uint16(attributes[2:]))
		}
		if len(attributes) < head+length {
			return nil, malformed
		}
		value := attributes[head : head+length]
		attributes = attributes[head+length:]
		if seen[kind] {
			if kind == attributeReach || kind == attributeUnreach {
				return nil, malformed
			}
			continue // RFC 7606, 3(g)
		}
		seen[kind] = true
		if err := u.attribute(kind, value, fourOctets, internal); err != nil {
			var fatal *notification
			if errors.As(err, &fatal) {
				return nil, fatal
			}
			u.unacceptable = errors.Join(u.unacceptable, err)
		}
	}
	if len(u.reach) > 0 {
		for _, k := range []byte{attributeOrigin, attributePath} {
			if !seen[k] {
				u.unacceptable = errors.Join(u.unacceptable, fmt.Errorf("attribute %d is missing", k))
			}
		}
	}
	return u, nil
}

func (u *update) attribute(kind byte, v []byte, fourOctets, internal bool) error {
	bad := fmt.Errorf("attribute %d is malformed", kind)
	size := func(n int) error {
		if len(v) != n {
			return bad
		}
		return nil
	}
	switch kind {
	case attributeOrigin:
		if err := size(1); err != nil || v[0] > 2 {
			return bad
		}
		u.origin = v[0]
	case attributePath:
		path, length, ok := decodePath(v, fourOctets)
		if !ok {
			return bad
		}
		u.path, u.length = append(u.path, path...), length
	case attributePath4:
		if path, _, ok := decodePath(v, true); ok && !fourOctets {
			u.path = append(u.path, path...) // for loops; the length is that of AS_PATH
		}
	case attributeMED:
		if err := size(4); err != nil {
			return err
		}
		u.med = binary.BigEndian.Uint32(v)
	case attributePreference:
		if !internal {
			return nil
		}
		if err := size(4); err != nil {
			return err
		}
		u.preference = binary.BigEndian.Uint32(v)
	case attributeOriginator:
		if !internal {
			return nil
		}
		if err := size(4); err != nil {
			return err
		}
		u.originator = netip.AddrFrom4([4]byte(v))
	case attributeClusters:
		if internal && (len(v) == 0 || len(v)%4 != 0) {
			return bad
		}
	case attributeCommunities:
		if len(v)%8 != 0 {
			return bad
		}
		for ; len(v) > 0; v = v[8:] {
			u.communities = append(u.communities, binary.BigEndian.Uint64(v))
		}
	case attributeReach:
		return u.decodeReach(v)
	case attributeUnreach:
		if len(v) < 3 {
			return &notification{code: errUpdate, subcode: 9}
		}
		if binary.BigEndian.Uint16(v) != afiL2VPN || v[2] != safiEVPN {
			return nil
		}
		var err error
		u.gone, err = decodeRoutes(v[3:])
		return err
	}
	return nil
}

func decodePath(v []byte, fourOctets bool) (path []uint32, length int, ok bool) {
	width := 2
	if fourOctets {
		width = 4
	}
	for len(v) > 0 {
		if len(v) < 2 || v[0] < 1 || v[0] > 4 || v[1] == 0 || len(v) < 2+int(v[1])*width {
			return nil, 0, false
		}
		kind, n := v[0], int(v[1])
		switch kind {
		case 1: // a set counts once
			length++
		case 2:
			length += n
		}
		v = v[2:]
		for range n {
			if fourOctets {
				path = append(path, binary.BigEndian.Uint32(v))
			} else {
				path = append(path, uint32(binary.BigEndian.Uint16(v)))
			}
			v = v[width:]
		}
	}
	return path, length, true
}

func (u *update) decodeReach(v []byte) error {
	fatal := &notification{code: errUpdate, subcode: 9}
	if len(v) < 5 {
		return fatal
	}
	if binary.BigEndian.Uint16(v) != afiL2VPN || v[2] != safiEVPN {
		return nil
	}
	n := int(v[3])
	if len(v) < 5+n {
		return fatal
	}
	hop, ok := netip.AddrFromSlice(v[4 : 4+n])
	if !ok {
		return fatal
	}
	u.nextHop = hop.Unmap()
	var err error
	u.reach, err = decodeRoutes(v[5+n:])
	return err
}

// decodeRoutes reads routes and leaves out those that are of other types.
func decodeRoutes(b []byte) ([]prefixRoute, error) {
	fatal := &notification{code: errUpdate, subcode: 9}
	var routes []prefixRoute
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return nil, fatal
		}
		kind, v := b[0], b[2:2+int(b[1])]
		b = b[2+len(v):]
		if kind != 5 {
			continue
		}
		width := 4
		switch len(v) {
		case 34:
		case 58:
			width = 16
		default:
			return nil, fatal
		}
		r := prefixRoute{key: key{distinguisher: binary.BigEndian.Uint64(v), tag: binary.BigEndian.Uint32(v[18:])}}
		r.segment = slices.ContainsFunc(v[8:18], func(c byte) bool { return c != 0 })
		bits := int(v[22])
		address, _ := netip.AddrFromSlice(v[23 : 23+width])
		gateway, _ := netip.AddrFromSlice(v[23+width : 23+2*width])
		if bits > 8*width {
			return nil, fatal
		}
		r.prefix = netip.PrefixFrom(address, bits).Masked()
		if !gateway.IsUnspecified() {
			r.gateway = gateway
		}
		l := v[23+2*width:]
		r.label = uint32(l[0])<<16 | uint32(l[1])<<8 | uint32(l[2])
		routes = append(routes, r)
	}
	return routes, nil
}
