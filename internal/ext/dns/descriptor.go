// Package dns is the extension family of names in DNS: dns_name and dns_domain
// of ports, networks and floating IPs, the dns_assignment of ports, and which
// of them are to be in an external DNS service.
//
// Neutron loads one of four drivers by [ml2] extension_drivers (dns,
// dns_domain_ports, subnet_dns_publish_fixed_ip, dns_domain_keywords), each
// with what the one before has. Here it is always the last of them: without
// dns_domain and external_dns_driver all four behave as if there were none.
//
// It must not know DNS servers: what is to be published is a member of a
// port's events, and package notify acts on it.
package dns

import (
	"context"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/port"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
)

func init() {
	ext.Register(ext.Module{Name: "dns", After: []string{"router"}, Install: install})
}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
)

func install(c *core.Core, _ *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "dns-integration", Name: "DNS Integration", Description: "Provides integration with DNS.", Updated: "2015-08-15T18:00:00-00:00", Requires: []string{"router"}},
		resource.Extension{Alias: "dns-domain-ports", Name: "dns_domain for ports", Description: "Allows the DNS domain to be specified for a network port.", Updated: "2017-04-24T10:00:00-00:00", Requires: []string{"dns-integration"}},
		resource.Extension{Alias: "subnet-dns-publish-fixed-ip", Name: "Subnet DNS publish fixed IP", Description: "Allows the publishing of fixed IPs of a subnet to an external DNS service without a floating IP.", Updated: "2019-05-24T10:00:00-00:00", Requires: []string{"dns-domain-ports"}},
		resource.Extension{Alias: "dns-integration-domain-keywords", Name: "DNS domain names with keywords allowed", Description: "Allows to use keywords like <project_id>, <project_name>, <user_id> and <user_name> as DNS domain name", Updated: "2020-06-15T18:00:00-00:00", Requires: []string{"dns-integration"}},
	)
	name := func(flags resource.Flags, rule string) resource.Attribute {
		return resource.Attribute{Name: "dns_name", Flags: flags, Default: "", Convert: "convert_string_to_case_insensitive", Validate: resource.Rules{rule: int64(255)}, Type: "string"}
	}
	domain := func(flags resource.Flags) resource.Attribute {
		return resource.Attribute{Name: "dns_domain", Flags: flags, Default: "", Convert: "convert_string_to_case_insensitive", Validate: resource.Rules{"type:dns_domain_name": int64(255)}, Type: "string"}
	}
	c.Ports.Resource.Add(
		name(post|put|visible, "type:dns_host_name"),
		resource.Attribute{Name: "dns_assignment", Flags: visible, Type: "list<object>"},
		domain(post|put|visible),
	)
	c.Networks.Resource.Add(domain(post | put | visible))
	c.Subnets.Resource.Add(resource.Attribute{Name: "dns_publish_fixed_ip", Flags: post | put | visible, Default: false, Convert: "convert_to_boolean", Type: "bool"})
	floating := c.Registry.Named("floatingip")
	floating.Add(name(post|visible, "type:fip_dns_host_name"), domain(post|visible))

	c.Ports.Resource.Checker = &value.Checker{DNSDomain: config.DNSDomain.Of(c.Config)}

	s := &service{core: c, external: config.ExternalDNSDriver.Of(c.Config) != ""}
	if d := config.DNSDomain.Of(c.Config); d != "" {
		s.domain = absolute(d)
	}
	s.own = s.domain != "" && s.domain != defaultDomain
	var err error
	if s.ranges, err = projectRanges(c.Config); err != nil {
		return err
	}
	c.Ports.BeforeCreate = append(c.Ports.BeforeCreate, s.beforeCreate)
	c.Ports.BeforeUpdate = append(c.Ports.BeforeUpdate, s.beforeUpdate)
	before := c.Ports.Present
	c.Ports.Present = func(ctx context.Context, rows []*port.Port) {
		if before != nil {
			before(ctx, rows)
		}
		for _, p := range rows {
			s.presentPort(p)
		}
	}
	return s.wrapFloating(floating)
}
