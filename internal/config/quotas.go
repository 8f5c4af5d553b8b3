package config

// Default quotas; -1 is no limit. A project's own quotas win.
var (
	QuotaDefault           = quota("default_quota", -1, "resources that have no option of their own")
	QuotaNetwork           = quota("quota_network", 100, "networks")
	QuotaSubnet            = quota("quota_subnet", 100, "subnets")
	QuotaPort              = quota("quota_port", 500, "ports")
	QuotaSubnetPool        = quota("quota_subnetpool", -1, "subnet pools")
	QuotaRouter            = quota("quota_router", 10, "routers")
	QuotaRouterRoute       = quota("quota_router_route", 30, "extra routes of a router")
	QuotaFloatingIP        = quota("quota_floatingip", 50, "floating IPs")
	QuotaSecurityGroup     = quota("quota_security_group", 10, "security groups")
	QuotaSecurityGroupRule = quota("quota_security_group_rule", 100, "security group rules")
	QuotaRBACPolicy        = quota("quota_rbac_policy", 10, "RBAC policies", Deprecated("QUOTAS", "quota_rbac_entry"))
	QuotaTrunk             = quota("quota_trunk", -1, "trunks")
)

func quota(name string, def int, what string, settings ...Setting) *Option[int] {
	return Int("QUOTAS", name, def, "Quota of a project for "+what+"; -1 is no limit.", append(settings, Min(-1), Max(1<<31-1))...)
}
