package config

// Every agent.
var (
	AgentFeatures = Strings("isospin", "agent_features", []string{"l2ovs", "dhcp", "metadata", "l3"},
		"What the agent of this host does.")
	AgentReportInterval = Float("agent", "report_interval", 30,
		"Seconds between heartbeats; at most half of agent_down_time.", Min(0))
	AgentAvailabilityZone = String("agent", "availability_zone", "nova",
		"Availability zone of this host's DHCP and L3 agents.")
	AgentExtensions = Strings("agent", "extensions", nil,
		"Extensions of the agent.", Unset("all that are built in"))
	AgentPollingInterval = Int("agent", "polling_interval", 2,
		"Seconds between two comparisons with the host where it gives no events.", Min(1))
)

// Open vSwitch on a host.
var (
	OVSDBConnection = String("ovs", "ovsdb_connection", "unix:/var/run/openvswitch/db.sock",
		"Where ovsdb-server of this host listens: unix:path, tcp:address:port or ssl:address:port. Neutron's default is tcp:127.0.0.1:6640, which needs ovs-vsctl set-manager.")
	OVSDBTimeout = Int("ovs", "ovsdb_timeout", 10,
		"Seconds until an OVSDB transaction has failed.", Min(1))
	OVSSSLKeyFile = String("ovs", "ssl_key_file", "",
		"PEM file of the key for ssl: connections.")
	OVSSSLCertFile = String("ovs", "ssl_cert_file", "",
		"PEM file of the certificate for ssl: connections.")
	OVSSSLCACertFile = String("ovs", "ssl_ca_cert_file", "",
		"PEM file of the authorities for ssl: connections.")
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
	OVSBridgeMACTableSize = Int("ovs", "bridge_mac_table_size", 50000,
		"MAC addresses that a bridge learns.", Min(0))
	OVSIGMPSnooping = Bool("ovs", "igmp_snooping_enable", false,
		"Forward multicast only to ports that joined the group.")
	OVSIGMPFlood = Bool("ovs", "igmp_flood", false,
		"With IGMP snooping, flood multicast to the ports of physical networks and tunnels.")
	OVSIGMPFloodReports = Bool("ovs", "igmp_flood_reports", true,
		"With IGMP snooping, flood reports to these ports.")
	OVSIGMPFloodUnregistered = Bool("ovs", "igmp_flood_unregistered", false,
		"With IGMP snooping, flood packets of groups that nobody joined.")
	OVSTrunkEnabled = Bool("ovs", "trunk_enabled", true,
		"Wire trunk ports.")
	OVSQoSMeterBandwidth = Bool("ovs", "qos_meter_bandwidth", false,
		"Limit ingress bandwidth by OpenFlow meters.")
	OVSResourceProviderBandwidths = Strings("ovs", "resource_provider_bandwidths", nil,
		"Bandwidth of bridges for Placement, bridge:egress:ingress in kilobit per second.")
	OVSResourceProviderHypervisors = Map("ovs", "resource_provider_hypervisors", nil,
		"Hypervisor of each bridge, where it is not the host.")
	OVSResourceProviderInventoryDefaults = Map("ovs", "resource_provider_inventory_defaults",
		map[string]string{"allocation_ratio": "1.0", "min_unit": "1", "step_size": "1", "reserved": "0"},
		"Defaults of bandwidth inventories in Placement.")

	AgentTunnelTypes = Strings("agent", "tunnel_types", nil,
		"Types of the tunnels of this host.", Choices("gre", "vxlan", "geneve"))
	AgentVXLANUDPPort = Int("agent", "vxlan_udp_port", 4789,
		"UDP port of VXLAN.", Min(1), Max(65535))
	AgentL2Population = Bool("agent", "l2_population", false,
		"Kept for Neutron's files: the feed always tells hosts where addresses are.")
	AgentARPResponder = Bool("agent", "arp_responder", false,
		"Kept for Neutron's files: ARP and neighbour requests for known addresses are always answered on the host.")
	AgentDontFragment = Bool("agent", "dont_fragment", true,
		"Set don't fragment on the outer packets of tunnels.")
	AgentTunnelCsum = Bool("agent", "tunnel_csum", false,
		"Checksum the outer packets of tunnels.")
	AgentDSCP = Int("agent", "dscp", 0,
		"DSCP of the outer packets of tunnels.", Min(0), Max(63), Unset("the kernel's choice"))
	AgentDSCPInherit = Bool("agent", "dscp_inherit", false,
		"Copy the DSCP of inner packets to outer packets.")
	AgentExplicitlyEgressDirect = Bool("agent", "explicitly_egress_direct", false,
		"Kept for Neutron's files: accepted traffic always goes to its port directly where that is known.")
)

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
	EnableIsolatedMetadata = Bool("DEFAULT", "enable_isolated_metadata", false,
		"Give clients of networks without a router a route to the metadata address, and answer there.")
	ForceMetadata = Bool("DEFAULT", "force_metadata", false,
		"As enable_isolated_metadata, for every network.")
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
	AgentMode = String("DEFAULT", "agent_mode", "legacy",
		"What the L3 agent does for distributed routers.", Choices("dvr", "dvr_snat", "legacy", "dvr_no_external"))
	MetadataPort = Int("DEFAULT", "metadata_port", 9697,
		"Port in a router's namespace to which metadata requests are redirected.", Min(1), Max(65535))
	EnableMetadataProxy = Bool("DEFAULT", "enable_metadata_proxy", true,
		"Answer metadata requests in routers.")
	HandleInternalOnlyRouters = Bool("DEFAULT", "handle_internal_only_routers", true,
		"Serve routers without an external gateway.")
	IPv6Gateway = String("DEFAULT", "ipv6_gateway", "",
		"Link-local address of the upstream IPv6 router; empty is to learn it from router advertisements.", Formed(Address))
	MinRtrAdvInterval = Int("DEFAULT", "min_rtr_adv_interval", 30,
		"Least seconds between unsolicited router advertisements.", Min(3))
	MaxRtrAdvInterval = Int("DEFAULT", "max_rtr_adv_interval", 100,
		"Most seconds between unsolicited router advertisements.", Min(4))
	HAVRRPAuthType = String("DEFAULT", "ha_vrrp_auth_type", "PASS",
		"VRRP authentication of highly available routers.", Choices("AH", "PASS"))
	HAVRRPAuthPassword = String("DEFAULT", "ha_vrrp_auth_password", "",
		"Password of VRRP authentication; empty is no authentication.", Secret())
	HAVRRPAdvertInt = Int("DEFAULT", "ha_vrrp_advert_int", 2,
		"Seconds between VRRP advertisements.", Min(1))
	HAVRRPHealthCheckInterval = Int("DEFAULT", "ha_vrrp_health_check_interval", 0,
		"Seconds between checks of the gateway by the active router; 0 is none.", Min(0))
	HAConfsPath = String("DEFAULT", "ha_confs_path", "$state_path/ha_confs",
		"Directory of the configuration of keepalived.")
	ExternalIngressMark = String("DEFAULT", "external_ingress_mark", "0x2",
		"Mark of packets that came in by the external gateway.")
	MetadataAccessMark = String("DEFAULT", "metadata_access_mark", "0x1",
		"Mark of packets that are metadata requests.")
)
