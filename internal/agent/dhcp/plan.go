package dhcp

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/miekg/dns"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
)

// NamespacePrefix is followed by the id of the network.
const NamespacePrefix = "qdhcp-"

const infinite = math.MaxUint32 // lifetime in seconds

// The metadata service's addresses are on every DHCP port, with a route to it
// in every lease: the service is there on each host, whether or not the network
// has a router.
var (
	metadata4 = netip.MustParsePrefix("169.254.169.254/32")
	metadata6 = netip.MustParsePrefix("fe80::a9fe:a9fe/64")
)

// Settings are what an operator decides about leases.
type Settings struct {
	// LeaseDuration in seconds; -1 is for ever. // optional; 86400
	LeaseDuration int
	// RenewalTime (T1) and RebindingTime (T2) in seconds. // optional; 1/2 and 7/8 of the lease
	RenewalTime, RebindingTime int
	// DNSDomain is that of networks that have none. // optional; none
	DNSDomain string
	// BroadcastReply broadcasts every DHCPv4 answer to a client that has no
	// address yet. // optional; only when the client asks for it
	BroadcastReply bool
}

func (s Settings) lease() uint32 {
	switch {
	case s.LeaseDuration < 0 || int64(s.LeaseDuration) >= infinite:
		return infinite
	case s.LeaseDuration == 0:
		return 86400
	}
	return uint32(s.LeaseDuration)
}

// timers returns T1 and T2, 0 if the lease is for ever and none is set.
func (s Settings) timers() (t1, t2 uint32) {
	if l := s.lease(); l != infinite {
		t1, t2 = l/2, uint32(uint64(l)*7/8)
	}
	if s.RenewalTime > 0 {
		t1 = uint32(min(s.RenewalTime, infinite))
	}
	if s.RebindingTime > 0 {
		t2 = uint32(min(s.RebindingTime, infinite))
	}
	return t1, t2
}

// table is what the servers of one network answer with. It is immutable.
type table struct {
	broadcastReply bool
	mtu            int
	mac            net.HardwareAddr // of the DHCP port
	linkLocal      netip.Addr       // of the DHCP port
	duid           []byte           // of the DHCPv6 server
	leaseTime      time.Duration
	t1, t2         time.Duration
	hosts          map[macAddress]*host
	names          *names
}

type macAddress [6]byte

func parseMAC(s string) (macAddress, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return macAddress{}, fmt.Errorf("MAC address %q is not one of Ethernet", s)
	}
	return macAddress(hw), nil
}

// host is one port as a DHCP client. Either family may be nil or empty.
type host struct {
	portID string
	leases []*lease4 // the first is offered
	six    *lease6
}

// lease4 is what DHCPv4 answers for one address.
type lease4 struct {
	address, server netip.Addr
	options         dhcpv4.Options // without those that depend on the request
	extras          []extraOption  // that depend on the client, after options
	nextServer      netip.Addr     // zero: none
}

// lease6 is what DHCPv6 answers for one port.
type lease6 struct {
	addresses []netip.Addr // stateful ones
	options   []extraOption
}

// plan is what one network wants on this host.
type plan struct {
	namespace string
	device    plug.Device
	six       bool // DHCPv6 is served
	table     *table
	// ports are those to report on: an error text, or "" for a port that is served.
	ports map[string]string
	// waiting are ports that the DHCP port has no address for yet.
	waiting map[string]struct{}
}

// served tells whether the network wants servers on this host now.
func served(n *feed.Network) bool {
	return n != nil && n.AdminStateUp && n.DhcpPort != nil && hasDHCP(n)
}

func hasDHCP(n *feed.Network) bool {
	return slices.ContainsFunc(n.Subnets, func(s *feed.Subnet) bool { return s.EnableDhcp })
}

func dhcpv6Mode(s *feed.Subnet) bool {
	return s.Ipv6AddressMode == "dhcpv6-stateful" || s.Ipv6AddressMode == "dhcpv6-stateless"
}

// subnet is a feed.Subnet as far as it makes sense.
type subnet struct {
	*feed.Subnet
	prefix  netip.Prefix
	server  netip.Addr // the DHCP port's address; zero: none
	gateway netip.Addr // zero: none
	routes  []route4   // IPv4, apart from the default route
	dns     []netip.Addr
	noDNS   bool
}

func parseSubnet(s *feed.Subnet) (*subnet, error) {
	out := &subnet{Subnet: s}
	var err error
	if out.prefix, err = netip.ParsePrefix(s.Cidr); err != nil || out.prefix.Addr().Is6() != (s.IpVersion == 6) {
		return nil, fmt.Errorf("subnet %s: %q is not an IPv%d network", s.Id, s.Cidr, s.IpVersion)
	}
	if s.GatewayIp != "" {
		if out.gateway, err = netip.ParseAddr(s.GatewayIp); err != nil || out.gateway.Is6() != out.prefix.Addr().Is6() {
			return nil, fmt.Errorf("subnet %s: gateway %q is not an IPv%d address", s.Id, s.GatewayIp, s.IpVersion)
		}
	}
	for _, name := range s.DnsNameservers {
		a, err := netip.ParseAddr(name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("subnet %s: name server %q is not an address", s.Id, name)
		case a.IsUnspecified(): // Neutron's way to say: none
			out.noDNS = true
		case a.Is6() == out.prefix.Addr().Is6():
			out.dns = append(out.dns, a)
		}
	}
	if len(s.DnsNameservers) > 0 && len(out.dns) == 0 {
		out.noDNS = true
	}
	if s.IpVersion == 6 {
		return out, nil // DHCPv6 has no routes
	}
	for _, r := range s.HostRoutes {
		route, err := parseRoute(r.Destination, r.Nexthop)
		if err != nil {
			return nil, fmt.Errorf("subnet %s: host route: %w", s.Id, err)
		}
		if route.destination.Bits() > 0 {
			out.routes = append(out.routes, route)
		} else if !out.gateway.IsValid() {
			out.gateway = route.nextHop
		}
	}
	return out, nil
}

// nameServers are those of a lease: the subnet's, else ours.
func (s *subnet) nameServers() []netip.Addr {
	switch {
	case len(s.dns) > 0:
		return s.dns
	case s.noDNS || !s.server.IsValid():
		return nil
	}
	return []netip.Addr{s.server}
}

// makePlan says what the network wants. ports are those of this host and of the
// network. An error is one of the DHCP port: nothing can be served.
func makePlan(n *feed.Network, ports []*feed.Port, elsewhere *runtime.ForwardingTable, settings Settings, ipv6 bool) (*plan, error) {
	mac, err := parseMAC(n.DhcpPort.MacAddress)
	if err != nil {
		return nil, fmt.Errorf("DHCP port %s: %w", n.DhcpPort.Id, err)
	}
	subnets := map[string]*subnet{}
	broken := map[string]error{}
	for _, s := range n.Subnets {
		if parsed, err := parseSubnet(s); err != nil {
			broken[s.Id] = err
		} else {
			subnets[s.Id] = parsed
		}
	}

	p := &plan{
		namespace: NamespacePrefix + n.Id,
		device: plug.Device{
			PortID: n.DhcpPort.Id, MAC: n.DhcpPort.MacAddress, Namespace: NamespacePrefix + n.Id,
			Name: plug.DeviceName("tap", n.DhcpPort.Id), MTU: int(n.Mtu), Addresses: []netip.Prefix{},
		},
		ports: map[string]string{}, waiting: map[string]struct{}{},
	}
	for _, f := range n.DhcpPort.FixedIps {
		a, err := netip.ParseAddr(f.IpAddress)
		s := subnets[f.SubnetId]
		if err != nil || s == nil || !s.prefix.Contains(a) {
			continue // the address's subnet comes or goes in a change of its own
		}
		if !s.server.IsValid() {
			s.server = a
		}
		if a.Is4() || ipv6 {
			p.device.Addresses = append(p.device.Addresses, netip.PrefixFrom(a, s.prefix.Bits()))
		}
	}
	p.device.Addresses = append(p.device.Addresses, metadata4)
	if ipv6 {
		p.device.Addresses = append(p.device.Addresses, metadata6)
	}

	domain := strings.Trim(n.DnsDomain, ".")
	if domain == "" {
		domain = strings.Trim(settings.DNSDomain, ".")
	}
	duid := dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac[:]}
	t1, t2 := settings.timers()
	p.table = &table{
		broadcastReply: settings.BroadcastReply, mtu: int(n.Mtu), mac: mac[:], linkLocal: linkLocal(mac), duid: duid.ToBytes(),
		leaseTime: time.Duration(settings.lease()) * time.Second,
		t1:        time.Duration(t1) * time.Second, t2: time.Duration(t2) * time.Second,
		hosts: make(map[macAddress]*host, len(ports)),
		names: newNames(domain, n.DhcpPort, ports, elsewhere),
	}
	b := &builder{network: n, settings: settings, domain: domain, subnets: subnets, broken: broken, base: map[string]dhcpv4.Options{}}
	for _, s := range subnets {
		p.six = p.six || ipv6 && s.EnableDhcp && dhcpv6Mode(s.Subnet)
	}
	for _, port := range ports {
		mac, err := parseMAC(port.MacAddress)
		if err != nil {
			p.ports[port.Id] = err.Error()
			continue
		}
		h, waits, problems := b.host(port)
		if waits {
			p.waiting[port.Id] = struct{}{}
		} else {
			p.ports[port.Id] = strings.Join(problems, "; ")
		}
		p.table.hosts[mac] = h
	}
	return p, nil
}

// linkLocal is the address that the kernel gives to a device with that MAC.
func linkLocal(m macAddress) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

type builder struct {
	network  *feed.Network
	settings Settings
	domain   string
	subnets  map[string]*subnet
	broken   map[string]error
	base     map[string]dhcpv4.Options // by subnet id
}

// host makes a port's entry. waits: it has an address of a subnet that the DHCP
// port has none of yet. problems are texts about what could not be had.
func (b *builder) host(port *feed.Port) (h *host, waits bool, problems []string) {
	h = &host{portID: port.Id}
	var extras4, extras6 []extraOption
	for _, e := range port.ExtraDhcpOpts {
		version := 4
		if e.IpVersion == 6 {
			version = 6
		}
		o, err := parseExtraOption(e.Name, e.Value, version)
		switch {
		case err != nil:
			problems = append(problems, fmt.Sprintf("extra DHCP option %q: %v", e.Name, err))
		case version == 6:
			extras6 = append(extras6, o)
		default:
			extras4 = append(extras4, o)
		}
	}
	for _, f := range port.FixedIps {
		if err := b.broken[f.SubnetId]; err != nil {
			problems = append(problems, err.Error())
			continue
		}
		s := b.subnets[f.SubnetId]
		if s == nil || !s.EnableDhcp {
			continue
		}
		a, err := netip.ParseAddr(f.IpAddress)
		if err != nil || !s.prefix.Contains(a) {
			problems = append(problems, fmt.Sprintf("address %q is not in subnet %s", f.IpAddress, s.Id))
			continue
		}
		switch {
		case a.Is4() && !s.server.IsValid():
			waits = true
		case a.Is4():
			h.leases = append(h.leases, b.lease4(s, a, port, extras4))
		case dhcpv6Mode(s.Subnet):
			if h.six == nil {
				h.six = &lease6{options: b.options6(s, extras6)}
			}
			if s.Ipv6AddressMode == "dhcpv6-stateful" {
				h.six.addresses = append(h.six.addresses, a)
			}
		}
	}
	return h, waits, problems
}

func join4(list []netip.Addr) []byte {
	var out []byte
	for _, a := range list {
		out = append(out, a.AsSlice()...)
	}
	return out
}

func uint32Bytes(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// subnetOptions are the same for all ports of a subnet.
func (b *builder) subnetOptions(s *subnet) dhcpv4.Options {
	if o, ok := b.base[s.Id]; ok {
		return o
	}
	mask := net.CIDRMask(s.prefix.Bits(), 32)
	o := dhcpv4.Options{
		dhcpv4.OptionSubnetMask.Code():         mask,
		dhcpv4.OptionIPAddressLeaseTime.Code(): uint32Bytes(b.settings.lease()),
		dhcpv4.OptionServerIdentifier.Code():   s.server.AsSlice(),
	}
	if t1, t2 := b.settings.timers(); t1 > 0 && t2 > 0 {
		o[dhcpv4.OptionRenewTimeValue.Code()] = uint32Bytes(t1)
		o[dhcpv4.OptionRebindingTimeValue.Code()] = uint32Bytes(t2)
	}
	if s.prefix.Bits() < 31 {
		last := s.prefix.Masked().Addr().As4()
		for i := range last {
			last[i] |= ^mask[i]
		}
		o[dhcpv4.OptionBroadcastAddress.Code()] = last[:]
	}
	if list := s.nameServers(); len(list) > 0 {
		o[dhcpv4.OptionDomainNameServer.Code()] = join4(list)
	}
	if b.domain != "" {
		o[dhcpv4.OptionDomainName.Code()] = []byte(b.domain)
	}
	if mtu := b.network.Mtu; mtu > 0 && mtu <= math.MaxUint16 {
		o[dhcpv4.OptionInterfaceMTU.Code()] = binary.BigEndian.AppendUint16(nil, uint16(mtu))
	}
	b.base[s.Id] = o
	return o
}

const (
	optionRouter    = 3
	optionHostName  = 12
	optionTFTPName  = 66
	optionBootFile  = 67
	optionRoutes    = 121
	optionRoutesOld = 249 // 121 as older Windows asks for it
)

func (b *builder) lease4(s *subnet, a netip.Addr, port *feed.Port, extras []extraOption) *lease4 {
	l := &lease4{address: a, server: s.server, options: maps.Clone(b.subnetOptions(s))}
	l.options[optionHostName] = []byte(hostLabel(port.DnsName, a))

	gateway := s.gateway
	for _, e := range extras {
		if e.code == optionRouter && e.when == always {
			// The default route is also in option 121, which must agree.
			gateway = netip.Addr{}
			if !e.absent {
				gateway = netip.AddrFrom4([4]byte(e.value[:4]))
			}
		}
	}
	if gateway.IsValid() {
		l.options[optionRouter] = gateway.AsSlice()
	}
	if routes := b.routes(s, gateway); len(routes) > 0 {
		l.options[optionRoutes] = encodeRoutes(routes)
	}
	for _, e := range extras {
		if e.when != always {
			l.extras = append(l.extras, e)
			continue
		}
		l.set(l.options, e)
	}
	if overrides(extras, dhcpv4.OptionIPAddressLeaseTime.Code()) && !overrides(extras, dhcpv4.OptionRenewTimeValue.Code()) {
		// Ours are of another lease time; a client then takes RFC 2131's fractions.
		delete(l.options, dhcpv4.OptionRenewTimeValue.Code())
		delete(l.options, dhcpv4.OptionRebindingTimeValue.Code())
	}
	if v, ok := l.options[optionRoutes]; ok && l.options[optionRoutesOld] == nil {
		l.options[optionRoutesOld] = v
	}
	return l
}

func overrides(extras []extraOption, code uint8) bool {
	return slices.ContainsFunc(extras, func(e extraOption) bool { return e.when == always && e.code == uint16(code) })
}

// set applies one extra option to options.
func (l *lease4) set(options dhcpv4.Options, e extraOption) {
	switch {
	case e.code == nextServerCode && e.absent:
		l.nextServer = netip.Addr{}
	case e.code == nextServerCode:
		l.nextServer = netip.AddrFrom4([4]byte(e.value))
	case e.absent:
		delete(options, uint8(e.code))
	default:
		options[uint8(e.code)] = e.value
	}
}

// routes are those of option 121. A client that takes it ignores the router
// option, so the default route is among them (RFC 3442).
func (b *builder) routes(s *subnet, gateway netip.Addr) []route4 {
	var list []route4
	for _, other := range b.network.Subnets { // on the same link
		o := b.subnets[other.Id]
		if o != nil && o != s && o.prefix.Addr().Is4() && o.prefix != s.prefix {
			list = append(list, route4{o.prefix.Masked(), netip.IPv4Unspecified()})
		}
	}
	toMetadata := true
	for _, r := range s.routes {
		toMetadata = toMetadata && r.destination != metadata4
		list = append(list, r)
	}
	if toMetadata {
		list = append(list, route4{metadata4, s.server})
	}
	if gateway.IsValid() {
		list = append(list, route4{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway})
	}
	return list
}

// options6 are what DHCPv6 sends besides addresses.
func (b *builder) options6(s *subnet, extras []extraOption) []extraOption {
	var out []extraOption
	if list := s.nameServers(); len(list) > 0 {
		out = append(out, extraOption{code: uint16(dhcpv6.OptionDNSRecursiveNameServer), value: join4(list)})
	}
	if b.domain != "" {
		if wire, err := encodeDomains([]string{b.domain}); err == nil {
			out = append(out, extraOption{code: uint16(dhcpv6.OptionDomainSearchList), value: wire})
		}
	}
	for _, e := range extras {
		if e.when == always {
			out = slices.DeleteFunc(out, func(o extraOption) bool { return o.code == e.code })
		}
		if e.when != always || !e.absent {
			out = append(out, e)
		}
	}
	return out
}

// hostLabel is the name that a client is told to have: the first label of the
// port's dns_name, else one made of its address.
func hostLabel(dnsName string, a netip.Addr) string {
	if label, _, _ := strings.Cut(dnsName, "."); label != "" && len(label) <= 63 {
		return label
	}
	return addressLabel(a)
}

// addressLabel is "host-10-0-0-5", "host-2001-db8--5".
func addressLabel(a netip.Addr) string {
	return "host-" + strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

// validName tells whether a name can be one of DNS.
func validName(name string) bool {
	_, ok := dns.IsDomainName(name)
	return ok && !strings.ContainsAny(name, "\\ ")
}
