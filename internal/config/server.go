package config

import (
	"errors"
	"net"
	"os"
	"strconv"
)

// The process and its host.
var (
	Debug = Bool("DEFAULT", "debug", false,
		"Log at debug level.")
	UseJSON = Bool("DEFAULT", "use_json", false,
		"Log JSON, one object a line, instead of text.")
	Host = String("DEFAULT", "host", "",
		"Name of this host, as in the agents API and in binding:host_id of ports. It must be the name by which Nova knows the host.",
		Computed("the host name of the machine", hostname), Formed(HostAddress))
	_ = String("DEFAULT", "my_ip", "",
		"IPv4 address of this host, for use as $my_ip in other options.",
		Computed("the source address of the default IPv4 route, or 127.0.0.1", func() string { return sourceAddress("udp4", "192.0.2.1:9", "127.0.0.1") }), Formed(Address))
	_ = String("DEFAULT", "my_ipv6", "",
		"IPv6 address of this host, for use as $my_ipv6 in other options.",
		Computed("the source address of the default IPv6 route, or ::1", func() string { return sourceAddress("udp6", "[2001:db8::1]:9", "::1") }), Formed(Address))
	StatePath = String("DEFAULT", "state_path", "/var/lib/neutron",
		"Directory of what must survive a restart: the embedded database, an agent's last state, the feed's socket.")
	DefaultAvailabilityZones = Strings("DEFAULT", "default_availability_zones", nil,
		"Availability zones of networks and routers that are created without hints.")
)

// The API.
var (
	BindHost = String("DEFAULT", "bind_host", "127.0.0.1",
		"Address on which the API listens. Neutron listens on all addresses by default; isospin listens beyond loopback only when told to, with 0.0.0.0 or ::.",
		Formed(HostAddress))
	BindPort = Int("DEFAULT", "bind_port", 9696,
		"Port on which the API listens.", Min(0), Max(65535))
	UseSSL = Bool("DEFAULT", "use_ssl", false,
		"Serve the API over TLS with [ssl] cert_file and key_file.")
	SSLCertFile = String("ssl", "cert_file", "",
		"PEM file of the API's certificate and its chain.", Deprecated("DEFAULT", "ssl_cert_file"))
	SSLKeyFile = String("ssl", "key_file", "",
		"PEM file of the key of the API's certificate.", Deprecated("DEFAULT", "ssl_key_file"))
	SSLCAFile = String("ssl", "ca_file", "",
		"PEM file of the authorities of client certificates. When set, clients must show one.", Deprecated("DEFAULT", "ssl_ca_file"))
	AuthStrategy = String("DEFAULT", "auth_strategy", "keystone",
		"Who the caller is: keystone validates tokens, noauth makes every caller an administrator and is for tests only.",
		Choices("keystone", "noauth"))
	NetworkLinkPrefix = String("DEFAULT", "network_link_prefix", "",
		"Replaces scheme, host and path prefix of the API in links.")
	PaginationMaxLimit = String("DEFAULT", "pagination_max_limit", "-1",
		"Most objects in one answer to a list request, and their number when the request has no limit; -1 or infinite is no limit.",
		Formed(&Form{"a number, or infinite", func(text string) error {
			if text == "infinite" {
				return nil
			}
			if n, err := strconv.Atoi(text); err != nil || n == 0 || n < -1 {
				return errors.New("the number is 1 or more, or -1")
			}
			return nil
		}}))
	MaxDNSNameservers = Int("DEFAULT", "max_dns_nameservers", 5,
		"Most DNS servers of a subnet.", Min(0))
	MaxSubnetHostRoutes = Int("DEFAULT", "max_subnet_host_routes", 20,
		"Most host routes of a subnet.", Min(0))
	MaxAllowedAddressPair = Int("DEFAULT", "max_allowed_address_pair", 10,
		"Most allowed address pairs of a port.", Min(0))
	FilterValidation = Bool("DEFAULT", "filter_validation", true,
		"Whether lists refuse conditions on what is no attribute, or none to filter by; else such conditions have no effect.")
)

// Values that new resources take.
var (
	BaseMAC = String("DEFAULT", "base_mac", "fa:16:3e:00:00:00",
		"Its first three octets begin every generated MAC address, its first four if the fourth is not 00; the rest is random.",
		Formed(MAC))
	DHCPLeaseDuration = Int("DEFAULT", "dhcp_lease_duration", 86400,
		"DHCP lease time in seconds; -1 is for ever.", Min(-1))
	DNSDomain = String("DEFAULT", "dns_domain", "openstacklocal",
		"Domain of the names of ports. With the default, dns_name of ports does not change their dns_assignment.")
	GlobalPhysnetMTU = Int("DEFAULT", "global_physnet_mtu", 1500,
		"MTU of the physical networks; a network's MTU is this less the overhead of its encapsulation.",
		Min(0), Deprecated("ml2", "segment_mtu"))
	EnableSNATByDefault = Bool("DEFAULT", "enable_snat_by_default", true,
		"Source address translation of a router's gateway when the request does not say.")
)

// Agents as the server sees them.
var (
	AgentDownTime = Int("DEFAULT", "agent_down_time", 75,
		"Seconds without a heartbeat after which an agent counts as not alive; at least twice [agent] report_interval.", Min(1), Max(2147483))
	EnableServicesOnAgentsWithAdminStateDown = Bool("DEFAULT", "enable_services_on_agents_with_admin_state_down", false,
		"Agents with admin_state_up false keep what they serve and may be scheduled to by hand.")
	RouterAutoSchedule = Bool("DEFAULT", "router_auto_schedule", true,
		"Routers without an L3 agent are given to one that comes up.")
)

// DisabledExtensions are those that an operator does without.
var DisabledExtensions = Strings("isospin", "disabled_extensions", nil,
	"Extensions of Neutron's later releases that are left out, with what they change, for clients that presuppose an older release.",
	Choices("quota-check-limit-default", "subnet-external-network", "port-resource-request-groups"))

// The feed between the server and the agents.
var (
	FeedListen = String("isospin", "feed_listen", "unix:$state_path/feed.sock",
		"Where the server listens for agents: unix:/path, http://address:port (loopback only) or https://address:port with feed_cert_file, feed_key_file and feed_ca_file.",
		Formed(Endpoint))
	FeedServer = Strings("isospin", "feed_server", []string{"unix:$state_path/feed.sock"},
		"Where an agent finds the servers: unix:/path, http://127.0.0.1:port or https://host:port. Of several, each agent takes them in an order of its own, and the next when one is lost.",
		Formed(Endpoint))
	FeedCertFile = String("isospin", "feed_cert_file", "",
		"PEM file of the certificate that this server or agent shows on the feed. An agent's certificate names its host.")
	FeedKeyFile = String("isospin", "feed_key_file", "",
		"PEM file of the key of feed_cert_file.")
	FeedCAFile = String("isospin", "feed_ca_file", "",
		"PEM file of the authorities that the other side's certificate must be signed by.")
)

func hostname() string {
	name, err := os.Hostname()
	if err != nil || HostAddress.Check(name) != nil {
		return "localhost"
	}
	return name
}

// sourceAddress asks the kernel from which address it would send to a
// documentation address. Nothing is sent.
func sourceAddress(network, to, otherwise string) string {
	conn, err := net.Dial(network, to)
	if err != nil {
		return otherwise
	}
	defer conn.Close()
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return a.IP.String()
	}
	return otherwise
}
