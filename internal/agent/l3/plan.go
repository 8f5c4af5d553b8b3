package l3

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/l3/radv"
	"isospin/internal/agent/plug"
	"isospin/internal/kernel/nft"
	"isospin/internal/kernel/route"
	"isospin/internal/kernel/rule"
	"isospin/internal/kernel/sysctl"
)

// NamespacePrefix is followed by the router's id.
const NamespacePrefix = "qrouter-"

// wanted is what one router is to look like on this host.
type wanted struct {
	ID        string
	Namespace string
	Settings  []sysctl.Setting
	Rules     nft.Helped
	NAT       translation
	Devices   []plug.Device // the gateways last
	Routes    []route.Route
	// Policy and Tables are of routers with several gateways.
	Policy         []rule.Rule
	Tables         map[int][]route.Route
	Balance        []sysctl.Setting
	Advertisements map[string]radv.Advertisement // by device
	// Watched are the neighbors that default routes go to, if they are to be asked whether they are there.
	Watched []neighbor
	Proxies neighbourProxies
	// Overlay is the router's part in an EVPN; nil: it has none.
	Overlay *overlay
	// Delegation is what the router has delegated; nil: nothing.
	Delegation *delegation
}

// translation is what the rules translate, for telling which tracked flows
// still have a reason.
type translation struct {
	Gateway  netip.Addr   // IPv4 address of the gateway; invalid: none
	Further  []netip.Addr // those of further gateways
	SNAT     bool
	ToFixed  map[netip.Addr]netip.Addr // floating to fixed
	ToPublic map[netip.Addr]netip.Addr // fixed to floating
	Forwards []forwarding              // of ports, sorted
}

// port is a router port as the feed has it, with its values parsed.
type port struct {
	device    plug.Device
	addresses []netip.Prefix
	subnets   []*feed.Subnet
	mac       net.HardwareAddr
}

// holds tells whether an address is on the link of the port.
func (p *port) holds(a netip.Addr) bool {
	return slices.ContainsFunc(p.addresses, func(n netip.Prefix) bool { return n.Contains(a) })
}

// planRouter says what a router is to look like. portUp is asked whether a
// port is administratively up, reachable whether a neighbor answers to BFD; nil: none does. What cannot be rendered is left out and in the
// error; the rest of the plan is good.
func planRouter(r *feed.Router, portUp func(id string) bool, reachable func(neighbor) bool) (*wanted, error) {
	if !validID(r.Id) {
		return nil, fmt.Errorf("router id %q is not valid", r.Id)
	}
	w := &wanted{ID: r.Id, Namespace: NamespacePrefix + r.Id, Advertisements: map[string]radv.Advertisement{}}
	var failed []error
	fail := func(noun string, err error) { failed = append(failed, fmt.Errorf("%s: %w", noun, err)) }

	var ports []*port
	seen := map[string]bool{}
	add := func(prefix, id, mac string, mtu int32, addresses []string, subnets []*feed.Subnet) *port {
		p, err := planPort(w.Namespace, prefix, id, mac, mtu, addresses, subnets)
		if err == nil && seen[p.device.Name] {
			err = errors.New("is there twice")
		}
		if err != nil {
			fail("port "+id, err)
			return nil
		}
		seen[p.device.Name] = true
		p.device.AdminDown = !r.AdminStateUp || !portUp(id)
		ports = append(ports, p)
		return p
	}
	for _, i := range r.Interfaces {
		add("qr-", i.PortId, i.MacAddress, i.Mtu, i.Addresses, i.Subnets)
	}
	slices.SortFunc(ports, func(a, b *port) int { return strings.Compare(a.device.Name, b.device.Name) })

	var gateways []*outside
	w.NAT = translation{ToFixed: map[netip.Addr]netip.Addr{}, ToPublic: map[netip.Addr]netip.Addr{}}
	var outward []*feed.RouterGateway
	if r.Gateway != nil {
		outward = append([]*feed.RouterGateway{r.Gateway}, r.FurtherGateways...)
	}
	if len(outward) > maxGateways {
		fail("gateways", fmt.Errorf("%d are more than %d", len(outward), maxGateways))
		outward = outward[:maxGateways]
	}
	for _, g := range outward {
		p := add("qg-", g.PortId, g.MacAddress, g.Mtu, g.Addresses, g.Subnets)
		if p == nil {
			continue
		}
		o, err := newOutside(p, g)
		if err != nil {
			fail("gateway port "+g.PortId, err)
		}
		if gateways = append(gateways, o); o.Address.IsValid() {
			w.NAT.SNAT = g.EnableSnat
			if !w.NAT.Gateway.IsValid() {
				w.NAT.Gateway = o.Address
			} else {
				w.NAT.Further = append(w.NAT.Further, o.Address)
			}
		}
	}
	if r.EnableDefaultRouteBfd {
		planWatch(w, gateways)
	}
	planDefaults(w, gateways, r.EnableDefaultRouteEcmp, reachable)
	if err := planFloatingIPs(w, gateways, r.FloatingIps); err != nil {
		failed = append(failed, err)
	}
	if err := planForwardings(w, gateways, r.PortForwardings); err != nil {
		failed = append(failed, err)
	}
	planGateways(w, gateways)
	if err := planRoutes(w, ports, r.Routes); err != nil {
		failed = append(failed, err)
	}
	planBalance(w)

	planDelegation(w, r, gateways)
	v6 := w.Delegation != nil
	for _, p := range ports {
		// A nil list would leave the device's addresses alone.
		p.device.Addresses = append([]netip.Prefix{}, p.addresses...)
		v6 = v6 || slices.ContainsFunc(p.addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
		w.Devices = append(w.Devices, p.device)
		if !p.device.AdminDown && !slices.ContainsFunc(gateways, func(o *outside) bool { return o.port == p }) {
			if a, ok := planAdvertisement(p); ok {
				w.Advertisements[p.device.Name] = a
			}
		}
	}
	w.Settings = planSettings(v6)
	w.Rules.Objects = slices.Concat(rules(gateways, w.NAT), forwardRules(w.NAT.Forwards))
	if err := planProxies(w, gateways, ports, r); err != nil {
		failed = append(failed, err)
	}
	return w, errors.Join(failed...)
}

// validID keeps what is no plain identifier out of names and rules.
func validID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_')
	})
}

func planPort(namespace, prefix, id, mac string, mtu int32, addresses []string, subnets []*feed.Subnet) (*port, error) {
	if !validID(id) {
		return nil, errors.New("id is not valid")
	}
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return nil, fmt.Errorf("MAC address %q is not valid", mac)
	}
	p := &port{subnets: subnets, mac: hw, device: plug.Device{
		PortID: id, MAC: hw.String(), Namespace: namespace, Name: plug.DeviceName(prefix, id), MTU: int(mtu),
	}}
	for _, s := range addresses {
		a, err := netip.ParsePrefix(s)
		if err != nil || a.Addr().Zone() != "" || a.Addr().Is4In6() {
			return nil, fmt.Errorf("address %q is not valid", s)
		}
		if !slices.Contains(p.addresses, a) {
			p.addresses = append(p.addresses, a)
		}
	}
	return p, nil
}

func planSettings(v6 bool) []sysctl.Setting {
	s := []sysctl.Setting{
		// Loose: a source must be routable, but answers may take another way, as
		// they do with routes that a tenant adds.
		{Key: "net/ipv4/conf/all/rp_filter", Value: "2"},
		// An address belongs to its device alone: no answers for floating IPs on
		// internal networks.
		{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"},
		{Key: "net/ipv4/conf/all/arp_announce", Value: "2"},
		{Key: "net/ipv4/conf/all/promote_secondaries", Value: "1"},
		{Key: "net/ipv4/ip_forward", Value: "1"},
	}
	if v6 {
		s = append(s, sysctl.Setting{Key: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	return s
}

func planFloatingIPs(w *wanted, gateways []*outside, list []*feed.FloatingIP) error {
	var failed []error
	// Sorted, so that of two for one fixed address always the same is its source.
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *feed.FloatingIP) int { return strings.Compare(a.Id, b.Id) })
	for _, f := range list {
		if f.FixedIpAddress == "" {
			continue
		}
		public, err := netip.ParseAddr(f.FloatingIpAddress)
		fixed, err2 := netip.ParseAddr(f.FixedIpAddress)
		switch {
		case err != nil || err2 != nil || !public.Is4() || !fixed.Is4():
			err = fmt.Errorf("%q to %q is not valid", f.FloatingIpAddress, f.FixedIpAddress)
		case len(gateways) == 0:
			err = errors.New("the router has no gateway")
		case w.NAT.ToFixed[public].IsValid():
			err = fmt.Errorf("%s is there twice", public)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("floating IP %s: %w", f.Id, err))
			continue
		}
		w.NAT.ToFixed[public] = fixed
		on := gateways[0]
		if i := slices.IndexFunc(gateways, func(o *outside) bool { return o.serves(public) }); i > 0 {
			on = gateways[i]
		}
		if _, taken := w.NAT.ToPublic[fixed]; !taken {
			w.NAT.ToPublic[fixed] = public
			on.Fixed = append(on.Fixed, fixed)
		}
		if own := netip.PrefixFrom(public, 32); !slices.ContainsFunc(on.port.addresses, func(a netip.Prefix) bool { return a.Addr() == public }) {
			on.port.addresses = append(on.port.addresses, own)
		}
	}
	return errors.Join(failed...)
}

// planRoutes adds the routes that a tenant wants. Equal destinations share the
// traffic; a default route takes the place of the gateway's.
func planRoutes(w *wanted, ports []*port, list []*feed.HostRoute) error {
	var failed []error
	byDestination := map[netip.Prefix][]route.NextHop{}
	for _, r := range list {
		destination, err := netip.ParsePrefix(r.Destination)
		hop, err2 := netip.ParseAddr(r.Nexthop)
		if err != nil || err2 != nil || hop.Zone() != "" || destination.Addr().Is4() != hop.Is4() {
			failed = append(failed, fmt.Errorf("route %q via %q is not valid", r.Destination, r.Nexthop))
			continue
		}
		i := slices.IndexFunc(ports, func(p *port) bool { return p.holds(hop) })
		if i < 0 {
			failed = append(failed, fmt.Errorf("route %s via %s: the next hop is on no network of the router", destination, hop))
			continue
		}
		if ports[i].device.AdminDown {
			continue
		}
		destination = destination.Masked()
		n := route.NextHop{Gateway: hop, Device: ports[i].device.Name}
		if !slices.Contains(byDestination[destination], n) {
			byDestination[destination] = append(byDestination[destination], n)
		}
	}
	w.Routes = slices.DeleteFunc(w.Routes, func(r route.Route) bool { return byDestination[r.Destination] != nil })
	for destination, hops := range byDestination {
		slices.SortFunc(hops, func(a, b route.NextHop) int { return a.Gateway.Compare(b.Gateway) })
		w.Routes = append(w.Routes, route.Route{Destination: destination, NextHops: hops})
	}
	slices.SortFunc(w.Routes, func(a, b route.Route) int {
		if c := a.Destination.Addr().Compare(b.Destination.Addr()); c != 0 {
			return c
		}
		return a.Destination.Bits() - b.Destination.Bits()
	})
	return errors.Join(failed...)
}

// planAdvertisement says what the port advertises to IPv6 hosts: something if
// one of its subnets asks for it.
func planAdvertisement(p *port) (radv.Advertisement, bool) {
	const valid, preferred = 24 * time.Hour, 4 * time.Hour
	a := radv.Advertisement{HopLimit: 64, MAC: p.mac, MTU: uint32(max(p.device.MTU, 0)), DNSFor: radv.Lifetime}
	for _, s := range p.subnets {
		prefix, err := netip.ParsePrefix(s.Cidr)
		if s.IpVersion != 6 || s.Ipv6RaMode == "" || err != nil || !prefix.Addr().Is6() {
			continue
		}
		auto := true
		switch s.Ipv6RaMode {
		case "dhcpv6-stateful":
			a.Managed, auto = true, false
		case "dhcpv6-stateless":
			a.Other = true
		case "slaac":
			for _, d := range s.DnsNameservers {
				if d, err := netip.ParseAddr(d); err == nil && d.Is6() && !slices.Contains(a.DNS, d) {
					a.DNS = append(a.DNS, d.WithZone(""))
				}
			}
		default:
			continue
		}
		a.Prefixes = append(a.Prefixes, radv.Prefix{Prefix: prefix.Masked(), OnLink: true, Autonomous: auto, Valid: valid, Preferred: preferred})
		// A default router only where the subnet names this one.
		if g, err := netip.ParseAddr(s.GatewayIp); err == nil &&
			(g == radv.LinkLocal(p.mac) || slices.ContainsFunc(p.addresses, func(o netip.Prefix) bool { return o.Addr() == g })) {
			a.Lifetime = radv.Lifetime
		}
	}
	return a, len(a.Prefixes) > 0
}
