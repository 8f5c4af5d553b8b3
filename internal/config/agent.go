package config

// Every agent.
var (
	AgentFeatures = Strings("isospin", "agent_features", []string{"l2ovs", "dhcp", "metadata", "l3"},
		"What the agent of this host does.")
	AgentReportInterval = Float("agent", "report_interval", 30,
		"Seconds between heartbeats; at most half of agent_down_time.", Min(0))
	AgentAvailabilityZone = String("agent", "availability_zone", "nova",
		"Availability zone of this host's DHCP and L3 agents.")
)

// Open vSwitch on a host.
var (
	OVSDBConnection = String("ovs", "ovsdb_connection", "unix:/var/run/openvswitch/db.sock",
		"Where ovsdb-server of this host listens: unix:path, tcp:address:port or ssl:address:port. Neutron's default is tcp:127.0.0.1:6640, which needs ovs-vsctl set-manager.")
	IntegrationBridge = String("ovs", "integration_bridge", "br-int",
		"Bridge that all virtual interfaces are plugged into.")
	TunnelBridge = String("ovs", "tunnel_bridge", "br-tun",
		"Bridge of tunnels.")
	OVSIntPeerPatchPort = String("ovs", "int_peer_patch_port", "patch-tun",
		"Patch port of the integration bridge towards the tunnel bridge.")
	OVSTunPeerPatchPort = String("ovs", "tun_peer_patch_port", "patch-int",
		"Patch port of the tunnel bridge towards the integration bridge.")
	OVSLocalIP = String("ovs", "local_ip", "",
		"Address of this host's tunnel endpoint; empty is no tunnels.", Formed(Address))
	OVSBridgeMappings = Strings("ovs", "bridge_mappings", nil,
		"Bridge of each physical network of this host, physical_network:bridge. The bridges must exist.",
		Formed(&Form{"physical_network:bridge", Mapping.Check}))
	OVSDatapathType = String("ovs", "datapath_type", "system",
		"Data path of the bridges: system is the kernel's, netdev is Open vSwitch's own.", Choices("system", "netdev"))
	OVSVhostuserSocketDir = String("ovs", "vhostuser_socket_dir", "/var/run/openvswitch",
		"Directory of the vhost-user sockets of instances.")
	OVSResourceProviderBandwidths = Strings("ovs", "resource_provider_bandwidths", nil,
		"Bandwidth that bridges of bridge_mappings, and the tunnels (tunnelled_network_rp_name), have for guarantees: bridge:egress:ingress in kilobit per second; none of a direction is no guarantee.",
		Formed(&Form{"bridge:egress:ingress", rates(2)}))
	OVSResourceProviderPacketRates = Strings("ovs", "resource_provider_packet_processing_without_direction", nil,
		"Packets that hypervisors have for guarantees, hypervisor:rate in thousands per second, both directions together; none is this host.",
		Formed(&Form{"hypervisor:rate", rates(1)}))
	OVSResourceProviderDirectedPacketRates = Strings("ovs", "resource_provider_packet_processing_with_direction", nil,
		"As resource_provider_packet_processing_without_direction, in place of it, hypervisor:egress:ingress.",
		Formed(&Form{"hypervisor:egress:ingress", rates(2)}))
	OVSResourceProviderHypervisors = Map("ovs", "resource_provider_hypervisors", nil,
		"Hypervisor of each bridge, where it is not the default.")
	OVSResourceProviderDefaultHypervisor = String("ovs", "resource_provider_default_hypervisor", "",
		"Name of this host's hypervisor in Placement, where Nova puts it. Empty: the host, by its canonical name if it is the machine's.")
	OVSResourceProviderInventoryDefaults = Map("ovs", "resource_provider_inventory_defaults", inventoryDefaults,
		"Defaults of bandwidth inventories in Placement.")
	OVSResourceProviderPacketInventoryDefaults = Map("ovs", "resource_provider_packet_processing_inventory_defaults", inventoryDefaults,
		"Defaults of packet rate inventories in Placement.")

	AgentTunnelTypes = Strings("agent", "tunnel_types", nil,
		"Types of the tunnels of this host.", Choices("gre", "vxlan", "geneve"))
	AgentVXLANUDPPort = Int("agent", "vxlan_udp_port", 4789,
		"UDP port of VXLAN.", Min(1), Max(65535))
	AgentDontFragment = Bool("agent", "dont_fragment", true,
		"Set don't fragment on the outer packets of tunnels.")
	AgentTunnelCsum = Bool("agent", "tunnel_csum", false,
		"Checksum the outer packets of tunnels.")
	AgentDSCP = Int("agent", "dscp", 0,
		"DSCP of the outer packets of tunnels.", Min(0), Max(63), Unset("the kernel's choice"))
	AgentDSCPInherit = Bool("agent", "dscp_inherit", false,
		"Copy the DSCP of inner packets to outer packets.")
)

// Packet logs of a host.
var (
	NetworkLogRate = Int("network_log", "rate_limit", 100,
		"Packets in a second that all packet logs of a host may record.", Min(100))
	NetworkLogBurst = Int("network_log", "burst_limit", 25,
		"Packets that they may record at once.", Min(25))
	NetworkLogFile = String("network_log", "local_output_log_base", "",
		"File that gets the records of packet logs.", Unset("the agent's log"))
)

var inventoryDefaults = map[string]string{"allocation_ratio": "1.0", "min_unit": "1", "step_size": "1", "reserved": "0"}

// DHCP on a host.
var (
	DHCPEnableIPv6 = Bool("dhcp", "enable_ipv6", true,
		"Answer DHCPv6.")
	DHCPRenewalTime = Int("dhcp", "dhcp_renewal_time", 0,
		"Seconds until clients renew (T1); 0 is half of the lease.", Min(0))
	DHCPRebindingTime = Int("dhcp", "dhcp_rebinding_time", 0,
		"Seconds until clients rebind (T2); 0 is seven eighths of the lease.", Min(0))
	DHCPDNSServers = Strings("DEFAULT", "dnsmasq_dns_servers", nil,
		"Resolvers that names which are not of the cloud are asked of, and that subnets without DNS servers get.",
		Formed(Address))
	DHCPLocalResolv = Bool("DEFAULT", "dnsmasq_local_resolv", false,
		"Ask the resolvers of the host for names which are not of the cloud.")
	DHCPBroadcastReply = Bool("DEFAULT", "dhcp_broadcast_reply", false,
		"Answer DHCPv4 by broadcast whatever the client asks for.")
)

// Metadata on a host.
var (
	NovaMetadataHost = String("DEFAULT", "nova_metadata_host", "127.0.0.1",
		"Host of Nova's metadata API.", Formed(HostAddress),
		Deprecated("DEFAULT", "nova_metadata_ip"), Deprecated("metadata", "nova_metadata_host"))
	NovaMetadataPort = Int("DEFAULT", "nova_metadata_port", 8775,
		"Port of Nova's metadata API.", Min(1), Max(65535), Deprecated("metadata", "nova_metadata_port"))
	NovaMetadataProtocol = String("DEFAULT", "nova_metadata_protocol", "http",
		"Protocol of Nova's metadata API.", Choices("http", "https"), Deprecated("metadata", "nova_metadata_protocol"))
	NovaMetadataInsecure = Bool("DEFAULT", "nova_metadata_insecure", false,
		"Do not verify the certificate of Nova's metadata API.", Deprecated("metadata", "nova_metadata_insecure"))
	NovaClientCert = String("DEFAULT", "nova_client_cert", "",
		"PEM file of the certificate shown to Nova's metadata API.", Deprecated("metadata", "nova_client_cert"))
	NovaClientPrivKey = String("DEFAULT", "nova_client_priv_key", "",
		"PEM file of its key.", Deprecated("metadata", "nova_client_priv_key"))
	MetadataAuthCACert = String("DEFAULT", "auth_ca_cert", "",
		"PEM file of the authorities of Nova's metadata API.", Deprecated("metadata", "auth_ca_cert"))
	MetadataProxySharedSecret = String("DEFAULT", "metadata_proxy_shared_secret", "",
		"Secret shared with Nova, which proves that a metadata request comes from here.", Secret(),
		Deprecated("metadata", "metadata_proxy_shared_secret"))

	MetadataRateLimitEnabled = Bool("metadata_rate_limiting", "rate_limit_enabled", false,
		"Limit the metadata requests of each instance.")
	MetadataRateLimitIPVersions = Strings("metadata_rate_limiting", "ip_versions", []string{"4"},
		"IP versions to which the limit applies.", Choices("4", "6"))
	MetadataRateLimitBaseWindow = Int("metadata_rate_limiting", "base_window_duration", 10,
		"Seconds of the base window.", Min(1))
	MetadataRateLimitBaseQueries = Int("metadata_rate_limiting", "base_query_rate_limit", 10,
		"Requests in a base window.", Min(1))
	MetadataRateLimitBurstWindow = Int("metadata_rate_limiting", "burst_window_duration", 10,
		"Seconds of the burst window.", Min(1))
	MetadataRateLimitBurstQueries = Int("metadata_rate_limiting", "burst_query_rate_limit", 10,
		"Requests in a burst window.", Min(1))
)

// Routers on a host.
var (
	MetadataPort = Int("DEFAULT", "metadata_port", 9697,
		"Port in a router's namespace to which metadata requests are redirected.", Min(1), Max(65535))
	EnableMetadataProxy = Bool("DEFAULT", "enable_metadata_proxy", true,
		"Answer metadata requests in routers.")
)
