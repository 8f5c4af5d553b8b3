package config

import (
	"errors"
	"strings"
)

// Routers.
var (
	AllowedConntrackHelpers = Strings("DEFAULT", "allowed_conntrack_helpers", []string{
		"amanda:tcp", "ftp:tcp", "h323:udp", "h323:tcp", "irc:tcp", "netbios-ns:udp", "pptp:tcp", "sane:tcp", "sip:udp", "sip:tcp", "snmp:udp", "tftp:udp",
	},
		"Connection tracking helpers that routers may have, as helper:protocol. Braces and quotes, as Neutron's own sample has them, are let pass.",
		Formed(&Form{"helper:protocol", func(text string) error {
			if name, protocol := ConntrackHelper(text); name == "" || protocol == "" {
				return errors.New("a helper is written helper:protocol")
			}
			return nil
		}}))
	EnableNDPProxyByDefault = Bool("DEFAULT", "enable_ndp_proxy_by_default", false,
		"NDP proxies on routers whose creation does not say, when their external network is fit for them.")
)

// ConntrackHelper reads an element of AllowedConntrackHelpers; empty when it is none.
func ConntrackHelper(text string) (name, protocol string) {
	const around = "[]{}'\" "
	name, protocol, _ = strings.Cut(text, ":")
	return strings.Trim(name, around), strings.Trim(protocol, around)
}
