package config

// Names of ports in DNS.
var ExternalDNSDriver = String("DEFAULT", "external_dns_driver", "",
	"DNS service that names of ports and floating IPs are published in; empty is none.", Choices("", "designate"))
