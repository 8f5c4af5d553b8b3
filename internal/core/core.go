// Package core puts the resources together that are always present: networks,
// subnets, ports, agents, quotas. Extensions are given a Core to build upon.
//
// It must not know HTTP, the feed, or any extension.
package core

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"isospin/internal/config"
	"isospin/internal/core/agent"
	"isospin/internal/core/collection"
	"isospin/internal/core/l3"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/quota"
	"isospin/internal/core/rbac"
	"isospin/internal/core/subnet"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Options of New.
type Options struct {
	Config     *config.Config                   // required
	Store      *store.Store                     // required
	Logger     *slog.Logger                     // required
	Segments   map[string]network.SegmentDriver // required: segment type drivers by type
	Mechanisms []port.Mechanism                 // required: in the order of [ml2] mechanism_drivers
}

// Core is what is always present.
type Core struct {
	Config   *config.Config
	Store    *store.Store
	Logger   *slog.Logger
	Registry *resource.Registry
	Quotas   *quota.Service
	RBAC     *rbac.Types
	Networks *network.Service
	Subnets  *subnet.Service
	Ports    *port.Service
	Agents   *agent.Service
	// L3 is where families around routers meet.
	L3 *l3.Service
	// SecurityGroups is where families meet that concern security groups.
	SecurityGroups *SecurityGroups
	// Providers are filled while extensions are installed.
	Providers *ServiceProviders
	// Flavors is set by the extension that has them.
	Flavors Flavors
	// Background is what one of the servers on the database does at a time,
	// until ctx ends; it may begin again later. The database has answered that
	// server since reachable without a break. One that was paused may still do
	// for a moment what another does already: what is done must stay right then.
	Background []func(ctx context.Context, reachable time.Time)

	sealers []func()
}

// Schemas of the core's tables, in the order of their references.
func Schemas() []store.Schema {
	return []store.Schema{collection.TagSchema, rbac.Schema, quota.Schema, agent.Schema, network.Schema, subnet.Schema, port.Schema}
}

// New wires the core's resources and registers them.
func New(o Options) *Core {
	disabled := config.DisabledExtensions.Of(o.Config)
	c := &Core{Config: o.Config, Store: o.Store, Logger: o.Logger, Registry: resource.NewRegistry(), Quotas: quota.New(o.Store, !slices.Contains(disabled, "quota-check-limit-default")), RBAC: rbac.NewTypes(), L3: l3.New(), SecurityGroups: &SecurityGroups{}, Providers: &ServiceProviders{}}
	c.Agents = agent.New(agent.Options{Store: o.Store, DownTime: time.Duration(config.AgentDownTime.Of(o.Config)) * time.Second})
	c.Networks = network.New(network.Options{
		Store: o.Store, Drivers: o.Segments, Quota: c.Quotas,
		TenantTypes: config.ML2TenantNetworkTypes.Of(o.Config), ExternalType: config.ML2ExternalNetworkType.Of(o.Config),
	})
	c.Subnets = subnet.New(subnet.Options{
		Store: o.Store, Networks: c.Networks, Quota: c.Quotas, ShowExternal: !slices.Contains(disabled, "subnet-external-network"),
		MaxNameservers: config.MaxDNSNameservers.Of(o.Config), MaxHostRoutes: config.MaxSubnetHostRoutes.Of(o.Config),
		DelegateByDefault: config.IPv6PDEnabled.Of(o.Config),
	})
	c.Ports = port.New(port.Options{
		Store: o.Store, Networks: c.Networks, Subnets: c.Subnets, Agents: c.Agents, Quota: c.Quotas, Mechanisms: o.Mechanisms,
		BaseMAC: config.BaseMAC.Of(o.Config), MaxAddressPairs: config.MaxAllowedAddressPair.Of(o.Config),
	})
	c.RBAC.Register(c.Networks.Shareable())
	c.RBAC.Use("network", c.Ports.NetworkUse())
	c.Quotas.Register(quota.Limited{Resource: "network", Table: "network", Default: config.QuotaNetwork.Of(o.Config)})
	c.Quotas.Register(quota.Limited{Resource: "subnet", Table: "subnet", Default: config.QuotaSubnet.Of(o.Config)})
	c.Quotas.Register(quota.Limited{Resource: "port", Table: "port", Default: config.QuotaPort.Of(o.Config)})
	c.Quotas.Install(c.Registry)
	c.Registry.AddExtension(extensions()...)
	if config.FilterValidation.Of(o.Config) {
		c.Registry.AddExtension(e("filter-validation", "Filter parameters validation", "Provides validation on filter parameters.", "2018-07-04T10:00:00-00:00"))
	}
	for _, x := range recent() {
		if !slices.Contains(disabled, x.Alias) {
			c.Registry.AddExtension(x)
		}
	}
	Add(c, c.Networks.Collection)
	Add(c, c.Subnets.Collection)
	Add(c, c.Ports.Collection)
	Add(c, c.Agents.Collection)
	return c
}

// Add registers a collection's resource; Seal prepares it when all extensions have been installed.
func Add[T any, P collection.Object[T]](c *Core, l *collection.Collection[T, P]) {
	c.Registry.Add(l.Resource)
	c.sealers = append(c.sealers, l.Seal)
}

// Seal ends the building: all attributes are declared.
func (c *Core) Seal() error {
	for _, seal := range c.sealers {
		seal()
	}
	return c.Registry.Check()
}

func e(alias, name, description, updated string, requires ...string) resource.Extension {
	return resource.Extension{Alias: alias, Name: name, Description: description, Updated: updated, Requires: requires}
}

// recent are extensions that change what older clients presuppose: [isospin] disabled_extensions leaves them out.
func recent() []resource.Extension {
	return []resource.Extension{
		e("quota-check-limit-default", "Quota engine limit check by default", "By default, the resource usage is checked before a quota limit is applied, unless 'force' is given", "2024-08-21T16:00:00-00:00", "quota-check-limit"),
		e("subnet-external-network", "Subnet belongs to an external network", "Informs if the subnet belongs to an external network", "2024-02-05T18:00:00-00:00", "external-net"),
	}
}

func extensions() []resource.Extension {
	return []resource.Extension{
		e("agent", "agent", "The agent management extension.", "2013-02-03T10:00:00-00:00"),
		e("agent_sort_key", "Agents Sort Key", "Specifies which attributes of agents lists may be sorted by.", "2013-02-03T10:00:00-00:00", "agent"),
		e("provider", "Provider Network", "Expose mapping of virtual networks to physical networks", "2012-09-07T10:00:00-00:00"),
		e("multi-provider", "Multi Provider Network", "Expose mapping of virtual networks to multiple physical networks", "2013-06-27T10:00:00-00:00"),
		e("external-net", "Neutron external network", "Adds external network attribute to network resource.", "2013-01-14T10:00:00-00:00"),
		e("binding", "Port Binding", "Expose port bindings of a virtual port to external application", "2014-02-03T10:00:00-00:00"),
		e("port-security", "Port Security", "Provides port security", "2012-07-23T10:00:00-00:00"),
		e("allowed-address-pairs", "Allowed Address Pairs", "Provides allowed address pairs", "2013-07-23T10:00:00-00:00"),
		e("extra_dhcp_opt", "Neutron Extra DHCP options", "Extra options configuration for DHCP. For example PXE boot options to DHCP clients can be specified (e.g. tftp-server, server-ip-address, bootfile-name)", "2013-03-17T12:00:00-00:00"),
		e("net-mtu", "Network MTU", "Provides MTU attribute for a network resource.", "2015-03-25T10:00:00-00:00"),
		e("net-mtu-writable", "Network MTU (writable)", "Provides a writable MTU attribute for a network resource.", "2017-07-12T00:00:00-00:00", "net-mtu"),
		e("standard-attr-description", "standard-attr-description", "Extension to add descriptions to standard attributes", "2016-02-10T10:00:00-00:00"),
		e("standard-attr-timestamp", "Resource timestamps", "Adds created_at and updated_at fields to all Neutron resources that have Neutron standard attributes.", "2016-09-12T10:00:00-00:00"),
		e("standard-attr-revisions", "Resource revision numbers", "This extension will display the revision number of neutron resources.", "2016-04-11T10:00:00-00:00"),
		e("revision-if-match", "If-Match constraints based on revision_number", "Extension indicating that If-Match based on revision_number is supported.", "2016-12-11T00:00:00-00:00", "standard-attr-revisions"),
		e("standard-attr-tag", "Tag support for resources with standard attribute: port, subnet, network, security_group, router, floatingip", "Enables to set tag on resources with standard attribute.", "2017-01-01T00:00:00-00:00"),
		e("pagination", "Pagination support", "Extension that indicates that pagination is enabled.", "2016-06-12T00:00:00-00:00"),
		e("sorting", "Sorting support", "Extension that indicates that sorting is enabled.", "2016-06-12T00:00:00-00:00"),
		e("project-id", "project_id field enabled", "Extension that indicates that project_id field is enabled.", "2016-09-09T09:09:09-09:09"),
		e("empty-string-filtering", "Empty String Filtering Extension", "Allow filtering by attributes with empty string value", "2018-05-01T10:00:00-00:00"),
		e("ip-substring-filtering", "IP address substring filtering", "Provides IP address substring filtering when listing ports", "2017-11-28T09:00:00-00:00"),
		e("port-mac-address-regenerate", "Neutron Port MAC address regenerate", "Network port MAC address regenerate", "2018-05-03T10:00:00-00:00"),
		e("aap-reject-multicast", "Allowed address pairs reject multicast extension", "Multicast addresses, CIDRs and MAC addresses are refused in allowed address pairs", "2026-04-01T00:00:00-00:00", "allowed-address-pairs"),
		e("agent-resources-synced", "Agent's Resource View Synced to Placement", "Stores success/failure of last sync to Placement", "2018-12-19T00:00:00-00:00", "agent"),
		e("port-security-groups-filtering", "Port filtering on security groups", "Provides security groups filtering when listing ports", "2018-01-09T09:00:00-00:00"),
		e("sort-key-validation", "Sort keys validation", "Sort keys that resources do not declare are refused", "2018-07-04T10:00:00-00:00", "sorting"),
		e("subnet-service-types", "Subnet service types", "Provides ability to set the subnet service_types field", "2016-03-15T18:00:00-00:00"),
		e("tag-creation", "Tag creation extension", "Adds tags to an object beside those that it has", "2024-23-07T10:00:00-00:00"),
		e("tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Allow to tag ports during bulk creation", "2019-12-29T19:00:00-00:00"),
	}
}
