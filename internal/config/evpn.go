package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ServicePlugins are the optional families of the API.
var ServicePlugins = Strings("DEFAULT", "service_plugins", nil,
	"Service plugins beside those that are always loaded. evpn: routers advertise their networks by EVPN, see docs/operate/evpn.md. Others have no effect.")

// HasServicePlugin tells whether an optional plugin is asked for, by its name or
// as Neutron's class of it.
func HasServicePlugin(c *Config, name string) bool {
	return slices.ContainsFunc(ServicePlugins.Of(c), func(text string) bool {
		return text == name || strings.HasPrefix(text, "neutron.services."+name+".")
	})
}

// Routers in an EVPN: of the server.
var EVPNVNIRange = String("evpn", "vni_range", "10000:16777215",
	"VNIs that routers get when their creation leaves the choice (evpn_vni = 0), low:high. They should be none of [ml2_type_vxlan] vni_ranges.", Formed(vniRange))

// Routers in an EVPN: of hosts.
var (
	EVPNLocalAS = Int("evpn", "local_as", 0,
		"Number of the autonomous system that the host's BGP speaker is in; 0: the host takes part in no EVPN.", Min(0), Max(1<<32-1))
	EVPNNeighbors = Multi("evpn", "neighbor", nil,
		"A BGP neighbor: ADDRESS AS, and optionally port=NUMBER and passive (it is waited for, not called). The key is repeated for each.",
		Formed(&Form{"ADDRESS AS [port=NUMBER] [passive]", func(text string) error { _, err := ParseEVPNNeighbor(text); return err }}))
	EVPNPasswords = Multi("evpn", "neighbor_password", nil,
		"A neighbor's password for TCP MD5 signatures (RFC 2385): ADDRESS PASSWORD. The key is repeated for each.", Secret(),
		Formed(&Form{"ADDRESS PASSWORD", func(text string) error { _, _, err := ParseEVPNPassword(text); return err }}))
	EVPNTunnelAddress = String("evpn", "local_ip", "",
		"IPv4 address of this host's VXLAN tunnel endpoint for routers, which others send to. Default: [ovs] local_ip.", Formed(Address))
	EVPNRouterID = String("evpn", "router_id", "",
		"BGP identifier of this host, written as an IPv4 address. Default: the address of the tunnel endpoint.", Formed(Address))
	EVPNListenAddress = String("evpn", "listen_address", "",
		"Address at which BGP neighbors are awaited; empty: at none, neighbors are only called.", Formed(Address))
	EVPNListenPort = Int("evpn", "listen_port", 179,
		"TCP port of listen_address.", Min(1), Max(65535))
	EVPNHoldTime = Int("evpn", "hold_time", 90,
		"Seconds of silence after which a BGP neighbor is taken for lost; the lower of both sides' holds.", Min(3), Max(65535))
	EVPNUDPPort = Int("evpn", "udp_port", 4789,
		"UDP port of VXLAN between routers. It must be another than [agent] vxlan_udp_port where Open vSwitch has VXLAN tunnels of its own on this host.", Min(1), Max(65535))
)

// EVPNNeighbor is a value of EVPNNeighbors.
type EVPNNeighbor struct {
	Address netip.Addr
	AS      uint32
	Port    uint16 // 179 when the text has none
	Passive bool
}

// ParseEVPNNeighbor reads a value of EVPNNeighbors.
func ParseEVPNNeighbor(text string) (EVPNNeighbor, error) {
	words := strings.Fields(text)
	if len(words) < 2 {
		return EVPNNeighbor{}, errors.New("it needs an address and a number of an autonomous system")
	}
	n := EVPNNeighbor{Port: 179}
	var err error
	if n.Address, err = netip.ParseAddr(words[0]); err != nil || n.Address.Zone() != "" {
		return EVPNNeighbor{}, errors.New("the address is not valid")
	}
	n.Address = n.Address.Unmap()
	as, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil || as == 0 {
		return EVPNNeighbor{}, errors.New("the number of the autonomous system must be from 1 to 4294967295")
	}
	n.AS = uint32(as)
	for _, w := range words[2:] {
		port, isPort := strings.CutPrefix(w, "port=")
		switch {
		case isPort:
			p, err := strconv.ParseUint(port, 10, 16)
			if err != nil || p == 0 {
				return EVPNNeighbor{}, errors.New("the port must be from 1 to 65535")
			}
			n.Port = uint16(p)
		case w == "passive":
			n.Passive = true
		default:
			return EVPNNeighbor{}, fmt.Errorf("%q is neither port=NUMBER nor passive", w)
		}
	}
	return n, nil
}

// ParseEVPNPassword reads a value of EVPNPasswords.
func ParseEVPNPassword(text string) (netip.Addr, string, error) {
	address, password, _ := strings.Cut(strings.TrimSpace(text), " ")
	a, err := netip.ParseAddr(address)
	password = strings.TrimSpace(password)
	switch {
	case err != nil || a.Zone() != "":
		return netip.Addr{}, "", errors.New("the address is not valid")
	case password == "" || len(password) > 80:
		return netip.Addr{}, "", errors.New("the password must be of 1 to 80 characters")
	}
	return a.Unmap(), password, nil
}

// EVPNVNIs reads EVPNVNIRange.
func EVPNVNIs(c *Config) (first, last int) {
	low, high, _ := strings.Cut(EVPNVNIRange.Of(c), ":")
	first, _ = strconv.Atoi(strings.TrimSpace(low)) // the option's form has been checked
	last, _ = strconv.Atoi(strings.TrimSpace(high))
	return first, last
}
