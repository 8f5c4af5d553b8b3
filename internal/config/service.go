package config

// ServiceProviders are implementations of services beside those that are built in.
var ServiceProviders = Multi("service_providers", "service_provider", nil,
	"A provider of a service: <service type>:<name>:<driver>[:default]. The providers of routers (L3_ROUTER_NAT) are there already.")
