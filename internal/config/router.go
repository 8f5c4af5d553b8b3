package config

// Routers.
var (
	EnableDVR = Bool("DEFAULT", "enable_dvr", true,
		"Routers have the attribute distributed. What it means for their data path is in docs/operate/routers.md.")
	RouterDistributed = Bool("DEFAULT", "router_distributed", false,
		"What distributed of a router is when the request does not say.")
	L3HA = Bool("DEFAULT", "l3_ha", false,
		"What ha of a router is when the request does not say. A router with ha is moved to another host when the agents of its host are not heard of for agent_down_time.")
	AllowAutomaticL3AgentFailover = Bool("DEFAULT", "allow_automatic_l3agent_failover", false,
		"Routers without ha are moved away from hosts that are not heard of, too.")
	L3HANetCIDR = String("DEFAULT", "l3_ha_net_cidr", "169.254.192.0/18",
		"Subnet of a project's HA network.", Formed(Prefix))
	L3HANetworkType = String("DEFAULT", "l3_ha_network_type", "",
		"Network type of HA networks. Default: as that of any project network.")
	L3HANetworkPhysicalName = String("DEFAULT", "l3_ha_network_physical_name", "",
		"Physical network of HA networks.")
	EnableDefaultRouteECMP = Bool("DEFAULT", "enable_default_route_ecmp", false,
		"What enable_default_route_ecmp of a router is when the request does not say: the default routes of its gateways share the traffic.")
	EnableDefaultRouteBFD = Bool("DEFAULT", "enable_default_route_bfd", false,
		"What enable_default_route_bfd of a router is when the request does not say: the next hops of its default routes are asked by BFD whether they are there.")
	IPv6PDEnabled = Bool("DEFAULT", "ipv6_pd_enabled", false,
		"The default subnet pool of IPv6 is prefix_delegation: routers are delegated the prefixes from outside.")
	VendorPEN = Int("DEFAULT", "vendor_pen", 0,
		"Private enterprise number of the DHCP identifiers (DUID-EN) that routers ask for delegated prefixes with, one of each subnet, as Neutron's do with 8888. 0: the identifier is the router's (DUID-LL), made of the MAC address of its gateway.", Min(0), Max(4294967295))
)
