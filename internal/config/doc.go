// Package config reads the operator's configuration: INI files as oslo.config
// has them, with Neutron's sections and names where the meaning is the same, so
// that an existing neutron.conf and ml2_conf.ini work.
//
// An option is declared once, as a package variable of the package that uses
// it; options of several packages are declared here, by area. Declaring is
// registering: the registry is complete before main starts and never changes
// after. Values live in a Config, which is immutable, is made by Load and is
// handed to whoever needs it.
//
//	var bindPort = config.Int("DEFAULT", "bind_port", 9696, "Port of the API.", config.Min(1), config.Max(65535))
//	...
//	port := bindPort.Of(cfg)
//
// It must not know what any option means beyond the form of its value.
package config
