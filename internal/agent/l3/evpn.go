package l3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/bgp"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/neighbour"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/route"
)

// EVPN is how routers with a VNI reach the networks of others: a BGP speaker
// announces their networks and says where those of others are, and each such
// router has a VXLAN device whose packets come and go in the host's namespace.
type EVPN struct {
	BGP       bgp.Options // required; Changed, Inside and Logger are filled in
	UDPPort   int         // required; of VXLAN
	Namespace string      // optional; where the tunnel endpoint is. Default: that of the process
}

const (
	// overlayPrefix is followed by the VNI.
	overlayPrefix = "evpn-"
	// overhead of VXLAN on IPv4: inner Ethernet, VXLAN, UDP, IP.
	overhead = 50
)

// overlay is a router's part in an EVPN.
type overlay struct {
	VNI     uint32
	Device  string
	MAC     net.HardwareAddr
	Routers []neighbour.Tunnel
}

// evpn is the host's part. A nil one takes part in nothing.
type evpn struct {
	EVPN
	speaker *bgp.Speaker

	mu sync.Mutex
	// routers by VNI, and those whose device is there.
	routers map[uint32]string
	ready   map[string]bool
}

func startEVPN(ctx context.Context, o EVPN, f *Feature) (*evpn, error) {
	e := &evpn{EVPN: o, routers: map[uint32]string{}, ready: map[string]bool{}}
	e.BGP.Logger = f.logger
	e.BGP.Inside = func(do func() error) error { return netns.Do(o.Namespace, do) }
	e.BGP.Changed = func(vnis []uint32) {
		for _, vni := range vnis {
			e.mu.Lock()
			id := e.routers[vni]
			e.mu.Unlock()
			if id != "" {
				f.reroute(id)
			}
		}
	}
	var err error
	if e.speaker, err = bgp.New(e.BGP); err != nil {
		return nil, err
	}
	e.speaker.Start(ctx)
	return e, nil
}

// stop tells the neighbors. Routers go on forwarding.
func (e *evpn) stop() {
	if e != nil {
		e.speaker.Stop()
	}
}

// states are the neighbors, for the agents API.
func (e *evpn) states() map[string]string {
	if e == nil {
		return nil
	}
	texts := map[string]string{}
	for a, s := range e.speaker.States() {
		switch {
		case s.Established:
			texts[a.String()] = "established"
		case s.Error != nil:
			texts[a.String()] = s.Error.Error()
		default:
			texts[a.String()] = "connecting"
		}
	}
	return texts
}

// plan adds to a router what the neighbors say of its VNI; false: this host
// takes part in no EVPN.
func (e *evpn) plan(w *wanted, r *feed.Router) bool {
	if e == nil {
		return r.EvpnVni == 0
	}
	vni := uint32(max(r.EvpnVni, 0))
	e.mu.Lock()
	for v, id := range e.routers {
		if id == r.Id && v != vni {
			delete(e.routers, v)
		}
	}
	if vni > 0 {
		e.routers[vni] = r.Id // before its routes are read: later changes are told
	}
	e.mu.Unlock()
	if vni > 0 && r.AdminStateUp {
		planOverlay(w, e.BGP.Endpoint, vni, e.speaker.Routes(vni))
	}
	return true
}

// planOverlay has the router's device and the routes over it. Those that the
// router has by itself, connected ones and a tenant's, go before.
func planOverlay(w *wanted, endpoint netip.Addr, vni uint32, routes []bgp.Route) {
	mac := routerMAC(endpoint)
	o := &overlay{VNI: vni, Device: fmt.Sprint(overlayPrefix, vni), MAC: mac[:]}
	w.Overlay = o
	taken := map[netip.Prefix]bool{}
	for _, r := range w.Routes {
		taken[r.Destination] = true
	}
	for _, d := range w.Devices {
		for _, a := range d.Addresses {
			taken[a.Masked()], taken[netip.PrefixFrom(a.Addr(), a.Addr().BitLen())] = true, true
		}
	}
	byEndpoint := map[netip.Addr]*neighbour.Tunnel{}
	for _, r := range routes {
		if taken[r.Prefix] || !routable(r.Prefix) {
			continue
		}
		out := route.Route{Destination: r.Prefix}
		for _, h := range r.NextHops {
			t := byEndpoint[h.Address]
			if t == nil {
				t = &neighbour.Tunnel{MAC: h.RouterMAC, Endpoint: h.Address}
				byEndpoint[h.Address] = t
			}
			if t.MAC != h.RouterMAC { // an endpoint has one router of a VNI
				continue
			}
			hop := route.NextHop{Gateway: h.Address, Device: o.Device, OnLink: true}
			if r.Prefix.Addr().Is6() {
				hop = route.NextHop{Gateway: linkLocal(h.Address), Device: o.Device}
			}
			if !slices.Contains(t.Addresses, hop.Gateway) {
				t.Addresses = append(t.Addresses, hop.Gateway)
			}
			out.NextHops = append(out.NextHops, hop)
		}
		if len(out.NextHops) > 0 {
			w.Routes = append(w.Routes, out)
		}
	}
	for _, t := range byEndpoint {
		o.Routers = append(o.Routers, *t)
	}
	slices.SortFunc(o.Routers, func(a, b neighbour.Tunnel) int { return a.Endpoint.Compare(b.Endpoint) })
	w.Balance = nil
	planBalance(w)
}

// routable keeps routes out that no neighbor can mean.
func routable(p netip.Prefix) bool {
	a := p.Addr()
	return p.IsValid() && !a.Is4In6() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && (!a.IsUnspecified() || p.Bits() == 0)
}

// routerMAC is the MAC address of all routers of an endpoint, each in its VNI:
// locally administered, and no other endpoint's.
func routerMAC(endpoint netip.Addr) [6]byte {
	a := endpoint.As4()
	return [6]byte{2, 0, a[0], a[1], a[2], a[3]}
}

// linkLocal names an endpoint for IPv6 routes (the form is that of RFC 5214, 6.1).
func linkLocal(endpoint netip.Addr) netip.Addr {
	a := endpoint.As4()
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 10: 0x5e, 11: 0xfe, 12: a[0], 13: a[1], 14: a[2], 15: a[3]})
}

// applyOverlay makes the device be as planned, or go.
func (r *router) applyOverlay(w *wanted) error {
	keep := ""
	if w.Overlay != nil {
		keep = w.Overlay.Device
	}
	if err := removeOverlays(w.Namespace, keep); err != nil || w.Overlay == nil {
		r.feature.evpn.set(w.ID, false)
		return err
	}
	e, o := r.feature.evpn, w.Overlay
	err := netns.Do(e.Namespace, func() error {
		mtu, err := link.MTUOf(e.BGP.Endpoint)
		if err != nil {
			return fmt.Errorf("tunnel endpoint: %w", err)
		}
		return link.EnsureVXLAN(link.VXLAN{
			Name: o.Device, Namespace: w.Namespace, VNI: o.VNI, Local: e.BGP.Endpoint, Port: e.UDPPort, MAC: o.MAC, MTU: mtu - overhead,
		})
	})
	e.set(w.ID, err == nil)
	if err != nil {
		return err
	}
	return netns.Do(w.Namespace, func() error { return neighbour.SetTunnels(o.Device, o.Routers) })
}

// removeOverlays deletes the devices of a router but one.
func removeOverlays(namespace, keep string) error {
	err := netns.Do(namespace, func() error {
		names, err := link.Names()
		if err != nil {
			return err
		}
		var failed []error
		for _, n := range names {
			if strings.HasPrefix(n, overlayPrefix) && n != keep {
				failed = append(failed, link.Delete(n))
			}
		}
		return errors.Join(failed...)
	})
	if errors.Is(err, netns.ErrNotExist) {
		return nil
	}
	return err
}

func (e *evpn) set(id string, ready bool) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ready {
		e.ready[id] = true
	} else {
		delete(e.ready, id)
	}
}

// forget is for a router that goes.
func (e *evpn) forget(id string) {
	if e == nil {
		return
	}
	e.set(id, false)
	e.mu.Lock()
	defer e.mu.Unlock()
	for v, have := range e.routers {
		if have == id {
			delete(e.routers, v)
		}
	}
}

// announce tells the neighbors what is behind those routers of the host that work.
func (e *evpn) announce(routers map[string]*feed.Router, state *runtime.State) {
	if e == nil {
		return
	}
	var list []bgp.Announcement
	mac := routerMAC(e.BGP.Endpoint)
	for id, r := range routers {
		e.mu.Lock()
		ready := e.ready[id]
		e.mu.Unlock()
		if !ready || r.EvpnVni <= 0 || !r.AdminStateUp {
			continue
		}
		for _, p := range announced(r, state) {
			list = append(list, bgp.Announcement{Prefix: p, VNI: uint32(r.EvpnVni), RouterMAC: mac[:]})
		}
	}
	e.speaker.Announce(list)
}

// announced are the prefixes behind a router: those of its interfaces, and
// addresses of ports on subnets that are told one by one. Ports of services
// ("network:...") are the same on every host.
func announced(r *feed.Router, state *runtime.State) []netip.Prefix {
	var list []netip.Prefix
	for _, i := range r.Interfaces {
		if p := state.Ports[i.PortId]; p != nil && !p.AdminStateUp {
			continue
		}
		for _, text := range i.Addresses {
			if a, err := netip.ParsePrefix(text); err == nil && routable(a.Masked()) {
				list = append(list, a.Masked())
			}
		}
		var alone []netip.Prefix
		for _, s := range i.Subnets {
			if p, err := netip.ParsePrefix(s.Cidr); err == nil && slices.Contains(r.EvpnHostSubnetIds, s.Id) {
				alone = append(alone, p)
			}
		}
		if len(alone) == 0 {
			continue
		}
		add := func(owner, text string) {
			a, err := netip.ParseAddr(text)
			if err == nil && a.Zone() == "" && !strings.HasPrefix(owner, "network:") && slices.ContainsFunc(alone, func(p netip.Prefix) bool { return p.Contains(a) }) {
				list = append(list, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		for _, p := range state.Ports {
			if p.NetworkId == i.NetworkId {
				for _, f := range p.FixedIps {
					add(p.DeviceOwner, f.IpAddress)
				}
			}
		}
		if t := state.Forwarding[i.NetworkId]; t != nil {
			for _, p := range t.Entries {
				for _, a := range p.IpAddresses {
					add(p.DeviceOwner, a)
				}
			}
		}
	}
	return list
}
