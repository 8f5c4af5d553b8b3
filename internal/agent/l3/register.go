package l3

import (
	"fmt"
	"net/netip"
	"time"

	"isospin/internal/agent/hostswitch"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/bgp"
	"isospin/internal/config"
)

func init() {
	runtime.Register("l3", func(env runtime.Environment) (runtime.Feature, error) {
		overlays, err := evpnOptions(env.Config)
		if err != nil {
			return nil, err
		}
		return New(Options{
			EVPN: overlays,
			Connect: func() (Plugger, error) {
				client, err := hostswitch.Client(env)
				if err != nil {
					return nil, err
				}
				return plug.New(plug.Options{
					Switch: client, Bridge: config.IntegrationBridge.Of(env.Config), Owner: Owner, Logger: env.Logger,
				}), nil
			},
			StateDir:         env.StateDir,
			Logger:           env.Logger,
			Metrics:          env.Metrics,
			AvailabilityZone: config.AgentAvailabilityZone.Of(env.Config),
			Enterprise:       uint32(config.VendorPEN.Of(env.Config)),
		}), nil
	})
}

// evpnOptions reads what [evpn] says of a host; nil: it takes part in none.
func evpnOptions(c *config.Config) (*EVPN, error) {
	as := config.EVPNLocalAS.Of(c)
	if as == 0 {
		return nil, nil
	}
	first := func(what string, texts ...string) (netip.Addr, error) {
		for _, t := range texts {
			if t == "" {
				continue
			}
			a, err := netip.ParseAddr(t)
			if a = a.Unmap(); err != nil || !a.Is4() {
				return netip.Addr{}, fmt.Errorf("[evpn] %s: %q is not an IPv4 address", what, t)
			}
			return a, nil
		}
		return netip.Addr{}, fmt.Errorf("[evpn] %s is not set, nor is [ovs] local_ip", what)
	}
	endpoint, err := first("local_ip", config.EVPNTunnelAddress.Of(c), config.OVSLocalIP.Of(c))
	if err != nil {
		return nil, err
	}
	id, err := first("router_id", config.EVPNRouterID.Of(c), endpoint.String())
	if err != nil {
		return nil, err
	}
	passwords := map[netip.Addr]string{}
	for _, text := range config.EVPNPasswords.Of(c) {
		a, password, err := config.ParseEVPNPassword(text)
		if err != nil {
			return nil, fmt.Errorf("[evpn] neighbor_password: %w", err)
		}
		passwords[a] = password
	}
	o := &EVPN{UDPPort: config.EVPNUDPPort.Of(c), BGP: bgp.Options{
		AS: uint32(as), ID: id, Endpoint: endpoint, Hold: time.Duration(config.EVPNHoldTime.Of(c)) * time.Second,
	}}
	for _, text := range config.EVPNNeighbors.Of(c) {
		n, err := config.ParseEVPNNeighbor(text)
		if err != nil {
			return nil, fmt.Errorf("[evpn] neighbor: %w", err)
		}
		o.BGP.Neighbors = append(o.BGP.Neighbors, bgp.Neighbor{Address: n.Address, AS: n.AS, Port: n.Port, Passive: n.Passive, Password: passwords[n.Address]})
		delete(passwords, n.Address)
	}
	for a := range passwords {
		return nil, fmt.Errorf("[evpn] neighbor_password: %s is no neighbor", a)
	}
	if text := config.EVPNListenAddress.Of(c); text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("[evpn] listen_address: %w", err)
		}
		o.BGP.Listen = netip.AddrPortFrom(a.Unmap(), uint16(config.EVPNListenPort.Of(c)))
	}
	return o, nil
}
