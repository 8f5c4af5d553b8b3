package gophercloud

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"

	sdk "github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/common/extensions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/apiversions"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/dns"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/extradhcpopts"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/addressscopes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/extraroutes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/portforwarding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/mtu"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/networkipavailabilities"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsbinding"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsecurity"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/policies"
	qosrules "github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/qos/ruletypes"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/rbacpolicies"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/addressgroups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/segments"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/subnetpools"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/vlantransparent"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"isospin/test/servertest"
)

func client(s *servertest.Server) *sdk.ServiceClient {
	return &sdk.ServiceClient{ProviderClient: &sdk.ProviderClient{TokenID: "none"}, Endpoint: s.URL + "/", ResourceBase: s.URL + "/v2.0/", Type: "network"}
}

// must returns v unless there was an error.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func good(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// filters lists by each option that O has.
func filters[O any](t *testing.T, list func(O) pagination.Pager) {
	t.Helper()
	var o O
	typ := reflect.TypeOf(o)
	for i := range typ.NumField() {
		tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("q"), ",")
		if tag == "" {
			continue
		}
		v := reflect.New(typ).Elem()
		if !set(v.Field(i), tag) {
			t.Errorf("%v.%s: no value of type %v", typ, typ.Field(i).Name, typ.Field(i).Type)
			continue
		}
		switch tag {
		case "sort_dir":
			v.FieldByName("SortKey").SetString("id")
		case "sort_key":
			v.FieldByName("SortDir").SetString("desc")
		}
		_, err := list(v.Interface().(O)).AllPages(context.Background())
		if foreign[typ.String()+" "+tag] {
			if !sdk.ResponseCodeIs(err, http.StatusBadRequest) {
				t.Errorf("%v by %s, which is no filter of Neutron: %v, want 400", typ, tag, err)
			}
		} else if err != nil {
			t.Errorf("%v by %s: %v", typ, tag, err)
		}
	}
}

// foreign are options which Neutron refuses while filters are validated: the
// attributes are declared with is_filter = False, or not at all.
var foreign = map[string]bool{}

func init() {
	for options, tags := range map[string]string{
		"subnets.ListOpts":                    "dns_publish_fixed_ip",
		"addressgroups.ListOpts":              "addresses",
		"routers.ListOpts":                    "distributed status",
		"portforwarding.ListOpts":             "internal_ip_address internal_port",
		"addressscopes.ListOpts":              "description",
		"segments.ListOpts":                   "segmentation_id",
		"rbacpolicies.ListOpts":               "sort_key sort_dir tags tags-any not-tags not-tags-any",
		"rules.BandwidthLimitRulesListOpts":   "tenant_id tags tags-any not-tags not-tags-any",
		"rules.DSCPMarkingRulesListOpts":      "tenant_id tags tags-any not-tags not-tags-any",
		"rules.MinimumBandwidthRulesListOpts": "tenant_id tags tags-any not-tags not-tags-any",
	} {
		for tag := range strings.FieldsSeq(tags) {
			foreign[options+" "+tag] = true
		}
	}
}

func set(f reflect.Value, tag string) bool {
	switch f.Kind() {
	case reflect.Pointer:
		f.Set(reflect.New(f.Type().Elem()))
		return set(f.Elem(), tag)
	case reflect.String:
		f.SetString(map[string]string{"sort_key": "id", "sort_dir": "asc", "cidr": "10.0.0.0/24", "object_type": "network", "ethertype": "IPv4", "protocol": "tcp", "remote_ip_prefix": "10.0.0.0/8"}[tag])
		if f.String() == "" {
			f.SetString("x")
		}
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Int, reflect.Int64:
		f.SetInt(4)
	case reflect.Slice:
		one := reflect.New(f.Type().Elem()).Elem()
		if !set(one, tag) {
			return false
		}
		f.Set(reflect.Append(f, one))
	case reflect.Struct: // fixed IPs
		if a := f.FieldByName("IPAddress"); a.IsValid() {
			a.SetString("10.0.0.5")
			return true
		}
		return false
	default:
		return false
	}
	return true
}

// stale expects that a revision of the past is refused.
func stale(t *testing.T, err error) {
	t.Helper()
	if !sdk.ResponseCodeIs(err, http.StatusPreconditionFailed) {
		t.Errorf("an old revision: %v, want 412", err)
	}
}

func tags(t *testing.T, c *sdk.ServiceClient, kind, id string) {
	t.Helper()
	ctx := context.Background()
	good(t, attributestags.Add(ctx, c, kind, id, "one").ExtractErr())
	_, err := attributestags.ReplaceAll(ctx, c, kind, id, attributestags.ReplaceAllOpts{Tags: []string{"a", "b"}}).Extract()
	good(t, err)
	there, err := attributestags.Confirm(ctx, c, kind, id, "a").Extract()
	if err != nil || !there {
		t.Errorf("%s %s has no tag a: %v", kind, id, err)
	}
	have, err := attributestags.List(ctx, c, kind, id).Extract()
	if err != nil || len(have) != 2 {
		t.Errorf("%s %s: tags %v, %v", kind, id, have, err)
	}
	good(t, attributestags.Delete(ctx, c, kind, id, "a").ExtractErr())
	good(t, attributestags.DeleteAll(ctx, c, kind, id).ExtractErr())
}

func TestGophercloud(t *testing.T) {
	s := servertest.Start(t, "[DEFAULT]\ndns_domain = cloud.example.\n"+servertest.Networks)
	s.Host("host1", servertest.OpenVSwitch("10.9.0.1")).Attach(t)
	c, ctx := client(s), context.Background()
	old, name, on := new(int), "renamed", true

	must[pagination.Page](t)(apiversions.ListVersions(c).AllPages(ctx))
	aliases := map[string]bool{}
	page := must[pagination.Page](t)(extensions.List(c).AllPages(ctx))
	for _, x := range must[[]extensions.Extension](t)(extensions.ExtractExtensions(page)) {
		aliases[x.Alias] = true
	}

	// Networks, with the attributes of extensions.
	type network struct {
		networks.Network
		external.NetworkExternalExt
		provider.NetworkProviderExt
		mtu.NetworkMTUExt
		portsecurity.PortSecurityExt
		dns.NetworkDNSExt
	}
	var outside, inside network
	good(t, networks.Create(ctx, c, external.CreateOptsExt{External: &on, CreateOptsBuilder: provider.CreateOptsExt{
		CreateOptsBuilder: networks.CreateOpts{Name: "outside", AdminStateUp: &on}, Segments: []provider.Segment{{NetworkType: "flat", PhysicalNetwork: "public"}}}}).ExtractInto(&outside))
	good(t, networks.Create(ctx, c, dns.NetworkCreateOptsExt{DNSDomain: "example.org.", CreateOptsBuilder: portsecurity.NetworkCreateOptsExt{PortSecurityEnabled: &on,
		CreateOptsBuilder: mtu.CreateOptsExt{MTU: 1400, CreateOptsBuilder: networks.CreateOpts{Name: "inside"}}}}).ExtractInto(&inside))
	if !outside.External || outside.NetworkType != "flat" || inside.MTU != 1400 || !inside.PortSecurityEnabled || inside.DNSDomain != "example.org." {
		t.Errorf("networks: %+v, %+v", outside, inside)
	}
	filters(t, func(o networks.ListOpts) pagination.Pager { return networks.List(c, o) })
	_, err := networks.Update(ctx, c, inside.ID, networks.UpdateOpts{Name: &name, RevisionNumber: &inside.RevisionNumber}).Extract()
	good(t, err)
	*old = inside.RevisionNumber
	_, err = networks.Update(ctx, c, inside.ID, networks.UpdateOpts{Name: &name, RevisionNumber: old}).Extract()
	stale(t, err)
	tags(t, c, "networks", inside.ID)
	var trunked struct {
		networks.Network
		vlantransparent.TransparentExt
	}
	good(t, networks.Create(ctx, c, vlantransparent.CreateOptsExt{VLANTransparent: &on, CreateOptsBuilder: networks.CreateOpts{Name: "trunked"}}).ExtractInto(&trunked))
	page = must[pagination.Page](t)(networks.List(c, vlantransparent.ListOptsExt{VLANTransparent: &on, ListOptsBuilder: networks.ListOpts{}}).AllPages(ctx))
	if list := must[[]networks.Network](t)(networks.ExtractNetworks(page)); !trunked.VLANTransparent || len(list) != 1 || list[0].ID != trunked.ID {
		t.Errorf("networks with VLANs of guests: %+v, %v", trunked, list)
	}
	good(t, networks.Delete(ctx, c, trunked.ID).ExtractErr())

	// Subnets and pools.
	gateway := "203.0.113.1"
	_, err = subnets.Create(ctx, c, subnets.CreateOpts{NetworkID: outside.ID, CIDR: "203.0.113.0/24", IPVersion: 4, GatewayIP: &gateway, EnableDHCP: new(bool)}).Extract()
	good(t, err)
	pool := must[*subnetpools.SubnetPool](t)(subnetpools.Create(ctx, c, subnetpools.CreateOpts{Name: "p", Prefixes: []string{"10.0.0.0/16"}, DefaultPrefixLen: 24}).Extract())
	filters(t, func(o subnetpools.ListOpts) pagination.Pager { return subnetpools.List(c, o) })
	_, err = subnetpools.AddPrefixes(ctx, c, pool.ID, subnetpools.PrefixesOpsOpts{Prefixes: []string{"10.1.0.0/16"}}).Extract()
	good(t, err)
	_, err = subnetpools.RemovePrefixes(ctx, c, pool.ID, subnetpools.PrefixesOpsOpts{Prefixes: []string{"10.1.0.0/16"}}).Extract()
	good(t, err)
	_, err = subnetpools.Update(ctx, c, pool.ID, subnetpools.UpdateOpts{Name: name}).Extract()
	good(t, err)
	tags(t, c, "subnetpools", pool.ID)
	subnet := must[*subnets.Subnet](t)(subnets.Create(ctx, c, subnets.CreateOpts{NetworkID: inside.ID, SubnetPoolID: pool.ID, IPVersion: 4,
		HostRoutes: []subnets.HostRoute{{DestinationCIDR: "192.168.0.0/16", NextHop: "10.0.0.9"}}}).Extract())
	filters(t, func(o subnets.ListOpts) pagination.Pager { return subnets.List(c, o) })
	_, err = subnets.Update(ctx, c, subnet.ID, subnets.UpdateOpts{Name: &name, RevisionNumber: &subnet.RevisionNumber}).Extract()
	good(t, err)
	*old = subnet.RevisionNumber
	_, err = subnets.Update(ctx, c, subnet.ID, subnets.UpdateOpts{Name: &name, RevisionNumber: old}).Extract()
	stale(t, err)
	tags(t, c, "subnets", subnet.ID)

	// Ports, with the attributes of extensions.
	type port struct {
		ports.Port
		portsbinding.PortsBindingExt
		portsecurity.PortSecurityExt
		extradhcpopts.ExtraDHCPOptsExt
		dns.PortDNSExt
	}
	var made port
	good(t, ports.Create(ctx, c, dns.PortCreateOptsExt{DNSName: "web", CreateOptsBuilder: extradhcpopts.CreateOptsExt{ExtraDHCPOpts: []extradhcpopts.CreateExtraDHCPOpt{{OptName: "mtu", OptValue: "1400"}},
		CreateOptsBuilder: portsbinding.CreateOptsExt{HostID: "host1", CreateOptsBuilder: ports.CreateOpts{NetworkID: inside.ID, Name: "p", AllowedAddressPairs: []ports.AddressPair{{IPAddress: "10.0.0.77"}}}}}}).ExtractInto(&made))
	if made.HostID != "host1" || made.VIFType != "ovs" || len(made.ExtraDHCPOpts) != 1 || made.DNSName != "web" {
		t.Errorf("port: %+v", made)
	}
	filters(t, func(o ports.ListOpts) pagination.Pager { return ports.List(c, o) })
	// Hosts change ports, too.
	now := must[*ports.Port](t)(ports.Get(ctx, c, made.ID).Extract())
	*old = -1
	_, err = ports.Update(ctx, c, made.ID, ports.UpdateOpts{Name: &name, RevisionNumber: old}).Extract()
	stale(t, err)
	_, err = ports.Update(ctx, c, made.ID, ports.UpdateOpts{Name: &name, FixedIPs: []ports.IP{{SubnetID: subnet.ID, IPAddress: "10.0.0.50"}}}).Extract()
	good(t, err)
	tags(t, c, "ports", now.ID)

	// Security.
	group := must[*groups.SecGroup](t)(groups.Create(ctx, c, groups.CreateOpts{Name: "g"}).Extract())
	filters(t, func(o groups.ListOpts) pagination.Pager { return groups.List(c, o) })
	_, err = groups.Update(ctx, c, group.ID, groups.UpdateOpts{Name: name, RevisionNumber: old}).Extract()
	stale(t, err)
	_, err = groups.Update(ctx, c, group.ID, groups.UpdateOpts{Name: name}).Extract()
	good(t, err)
	tags(t, c, "security-groups", group.ID)
	addresses := must[*addressgroups.AddressGroup](t)(addressgroups.Create(ctx, c, addressgroups.CreateOpts{Name: "a", Addresses: []string{"10.0.0.0/8"}}).Extract())
	filters(t, func(o addressgroups.ListOpts) pagination.Pager { return addressgroups.List(c, o) })
	_, err = addressgroups.AddAddresses(ctx, c, addresses.ID, addressgroups.UpdateAddressesOpts{Addresses: []string{"192.168.0.0/16"}}).Extract()
	good(t, err)
	_, err = addressgroups.RemoveAddresses(ctx, c, addresses.ID, addressgroups.UpdateAddressesOpts{Addresses: []string{"192.168.0.0/16"}}).Extract()
	good(t, err)
	rule := must[*rules.SecGroupRule](t)(rules.Create(ctx, c, rules.CreateOpts{SecGroupID: group.ID, Direction: rules.DirIngress, EtherType: rules.EtherType4,
		Protocol: rules.ProtocolTCP, PortRangeMin: 80, PortRangeMax: 80, RemoteAddressGroupID: addresses.ID}).Extract())
	filters(t, func(o rules.ListOpts) pagination.Pager { return rules.List(c, o) })
	_, err = rules.CreateBulk(ctx, c, []rules.CreateOpts{{SecGroupID: group.ID, Direction: rules.DirIngress, EtherType: rules.EtherType6}}).Extract()
	good(t, err)
	good(t, rules.Delete(ctx, c, rule.ID).ExtractErr())
	good(t, addressgroups.Delete(ctx, c, addresses.ID).ExtractErr())

	// Routers, floating IPs and what belongs to them.
	router := must[*routers.Router](t)(routers.Create(ctx, c, routers.CreateOpts{Name: "r", GatewayInfo: &routers.GatewayInfo{NetworkID: outside.ID}}).Extract())
	filters(t, func(o routers.ListOpts) pagination.Pager { return routers.List(c, o) })
	_, err = routers.AddInterface(ctx, c, router.ID, routers.AddInterfaceOpts{SubnetID: subnet.ID}).Extract()
	good(t, err)
	_, err = routers.Update(ctx, c, router.ID, routers.UpdateOpts{Name: name, RevisionNumber: old}).Extract()
	stale(t, err)
	routes := []routers.Route{{DestinationCIDR: "172.16.0.0/16", NextHop: "10.0.0.50"}}
	_, err = routers.Update(ctx, c, router.ID, routers.UpdateOpts{Name: name, Routes: &routes}).Extract()
	good(t, err)
	_, err = routers.ListL3Agents(c, router.ID).AllPages(ctx)
	good(t, err)
	more := []routers.Route{{DestinationCIDR: "172.17.0.0/16", NextHop: "10.0.0.50"}}
	_, err = extraroutes.Add(ctx, c, router.ID, extraroutes.Opts{Routes: &more}).Extract()
	good(t, err)
	_, err = extraroutes.Remove(ctx, c, router.ID, extraroutes.Opts{Routes: &more}).Extract()
	good(t, err)
	tags(t, c, "routers", router.ID)
	floating := must[*floatingips.FloatingIP](t)(floatingips.Create(ctx, c, floatingips.CreateOpts{FloatingNetworkID: outside.ID, PortID: made.ID}).Extract())
	filters(t, func(o floatingips.ListOpts) pagination.Pager { return floatingips.List(c, o) })
	_, err = floatingips.Update(ctx, c, floating.ID, floatingips.UpdateOpts{Description: &name, RevisionNumber: old}).Extract()
	stale(t, err)
	nothing := ""
	_, err = floatingips.Update(ctx, c, floating.ID, floatingips.UpdateOpts{PortID: &nothing}).Extract()
	good(t, err)
	tags(t, c, "floatingips", floating.ID)
	forwarding := must[*portforwarding.PortForwarding](t)(portforwarding.Create(ctx, c, floating.ID, portforwarding.CreateOpts{
		InternalPortID: made.ID, InternalIPAddress: "10.0.0.50", InternalPort: 22, ExternalPort: 2222, Protocol: "tcp"}).Extract())
	filters(t, func(o portforwarding.ListOpts) pagination.Pager { return portforwarding.List(c, o, floating.ID) })
	_, err = portforwarding.Update(ctx, c, floating.ID, forwarding.ID, portforwarding.UpdateOpts{ExternalPort: 2223}).Extract()
	good(t, err)
	good(t, portforwarding.Delete(ctx, c, floating.ID, forwarding.ID).ExtractErr())

	// Address scopes, RBAC, quotas, availability, agents, segments.
	scope := must[*addressscopes.AddressScope](t)(addressscopes.Create(ctx, c, addressscopes.CreateOpts{Name: "s", IPVersion: 4}).Extract())
	filters(t, func(o addressscopes.ListOpts) pagination.Pager { return addressscopes.List(c, o) })
	_, err = addressscopes.Update(ctx, c, scope.ID, addressscopes.UpdateOpts{Name: &name}).Extract()
	good(t, err)
	good(t, addressscopes.Delete(ctx, c, scope.ID).ExtractErr())
	share := must[*rbacpolicies.RBACPolicy](t)(rbacpolicies.Create(ctx, c, rbacpolicies.CreateOpts{Action: rbacpolicies.ActionAccessShared, ObjectType: "network", ObjectID: inside.ID, TargetTenant: "5bd4f1a5-0f1c-4cdb-8c1d-6e3c6a4bb58e"}).Extract())
	filters(t, func(o rbacpolicies.ListOpts) pagination.Pager { return rbacpolicies.List(c, o) })
	_, err = rbacpolicies.Update(ctx, c, share.ID, rbacpolicies.UpdateOpts{TargetTenant: "2c3d9f22-8a39-4c37-b0d1-3cf1f0a6fc11"}).Extract()
	good(t, err)
	good(t, rbacpolicies.Delete(ctx, c, share.ID).ExtractErr())
	limit := 77
	if q := must[*quotas.Quota](t)(quotas.Update(ctx, c, "other", quotas.UpdateOpts{Network: &limit}).Extract()); q.Network != limit {
		t.Errorf("quota: %+v", q)
	}
	must[*quotas.QuotaDetailSet](t)(quotas.GetDetail(ctx, c, "other").Extract())
	good(t, quotas.Delete(ctx, c, "other").ExtractErr())
	filters(t, func(o networkipavailabilities.ListOpts) pagination.Pager { return networkipavailabilities.List(c, o) })
	_, err = networkipavailabilities.Get(ctx, c, inside.ID).Extract()
	good(t, err)
	filters(t, func(o agents.ListOpts) pagination.Pager { return agents.List(c, o) })
	page = must[pagination.Page](t)(agents.List(c, agents.ListOpts{Host: "host1"}).AllPages(ctx))
	for _, a := range must[[]agents.Agent](t)(agents.ExtractAgents(page)) {
		_, err = agents.Update(ctx, c, a.ID, agents.UpdateOpts{Description: &name}).Extract()
		good(t, err)
		_, err = agents.ListL3Routers(ctx, c, a.ID).Extract()
		good(t, err)
		_, err = agents.ListDHCPNetworks(ctx, c, a.ID).Extract()
		good(t, err)
	}
	segment := must[*segments.Segment](t)(segments.Create(ctx, c, segments.CreateOpts{NetworkID: inside.ID, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 150}).Extract())
	filters(t, func(o segments.ListOpts) pagination.Pager { return segments.List(c, o) })
	_, err = segments.Update(ctx, c, segment.ID, segments.UpdateOpts{Name: &name}).Extract()
	good(t, err)
	good(t, segments.Delete(ctx, c, segment.ID).ExtractErr())

	// QoS.
	policy := must[*policies.Policy](t)(policies.Create(ctx, c, policies.CreateOpts{Name: "q"}).Extract())
	filters(t, func(o policies.ListOpts) pagination.Pager { return policies.List(c, o) })
	_, err = policies.Update(ctx, c, policy.ID, policies.UpdateOpts{Name: name, RevisionNumber: old}).Extract()
	stale(t, err)
	tags(t, c, "policies", policy.ID)
	bandwidth := must[*qosrules.BandwidthLimitRule](t)(qosrules.CreateBandwidthLimitRule(ctx, c, policy.ID, qosrules.CreateBandwidthLimitRuleOpts{MaxKBps: 1000}).ExtractBandwidthLimitRule())
	filters(t, func(o qosrules.BandwidthLimitRulesListOpts) pagination.Pager {
		return qosrules.ListBandwidthLimitRules(c, policy.ID, o)
	})
	good(t, qosrules.DeleteBandwidthLimitRule(ctx, c, policy.ID, bandwidth.ID).ExtractErr())
	_, err = qosrules.CreateDSCPMarkingRule(ctx, c, policy.ID, qosrules.CreateDSCPMarkingRuleOpts{DSCPMark: 26}).ExtractDSCPMarkingRule()
	good(t, err)
	filters(t, func(o qosrules.DSCPMarkingRulesListOpts) pagination.Pager {
		return qosrules.ListDSCPMarkingRules(c, policy.ID, o)
	})
	if aliases["qos-bw-minimum-ingress"] {
		_, err = qosrules.CreateMinimumBandwidthRule(ctx, c, policy.ID, qosrules.CreateMinimumBandwidthRuleOpts{MinKBps: 1000}).ExtractMinimumBandwidthRule()
		good(t, err)
		filters(t, func(o qosrules.MinimumBandwidthRulesListOpts) pagination.Pager {
			return qosrules.ListMinimumBandwidthRules(c, policy.ID, o)
		})
	}
	must[pagination.Page](t)(ruletypes.ListRuleTypes(c).AllPages(ctx))
	good(t, policies.Delete(ctx, c, policy.ID).ExtractErr())

	// Trunks.
	parent := must[*ports.Port](t)(ports.Create(ctx, c, ports.CreateOpts{NetworkID: inside.ID}).Extract())
	child := must[*ports.Port](t)(ports.Create(ctx, c, ports.CreateOpts{NetworkID: inside.ID}).Extract())
	trunk := must[*trunks.Trunk](t)(trunks.Create(ctx, c, trunks.CreateOpts{PortID: parent.ID, Name: "t"}).Extract())
	filters(t, func(o trunks.ListOpts) pagination.Pager { return trunks.List(c, o) })
	_, err = trunks.AddSubports(ctx, c, trunk.ID, trunks.AddSubportsOpts{Subports: []trunks.Subport{{PortID: child.ID, SegmentationType: "vlan", SegmentationID: 100}}}).Extract()
	good(t, err)
	subports, err := trunks.GetSubports(ctx, c, trunk.ID).Extract()
	if err != nil || len(subports) != 1 {
		t.Errorf("subports %v, %v", subports, err)
	}
	_, err = trunks.Update(ctx, c, trunk.ID, trunks.UpdateOpts{Name: &name, RevisionNumber: old}).Extract()
	stale(t, err)
	_, err = trunks.RemoveSubports(ctx, c, trunk.ID, trunks.RemoveSubportsOpts{Subports: []trunks.RemoveSubport{{PortID: child.ID}}}).Extract()
	good(t, err)
	good(t, trunks.Delete(ctx, c, trunk.ID).ExtractErr())

	// And everything goes.
	good(t, floatingips.Delete(ctx, c, floating.ID).ExtractErr())
	_, err = routers.Update(ctx, c, router.ID, routers.UpdateOpts{Routes: &[]routers.Route{}}).Extract()
	good(t, err)
	_, err = routers.RemoveInterface(ctx, c, router.ID, routers.RemoveInterfaceOpts{SubnetID: subnet.ID}).Extract()
	good(t, err)
	good(t, routers.Delete(ctx, c, router.ID).ExtractErr())
	for _, id := range []string{made.ID, parent.ID, child.ID} {
		good(t, ports.Delete(ctx, c, id).ExtractErr())
	}
	good(t, groups.Delete(ctx, c, group.ID).ExtractErr())
	good(t, subnets.Delete(ctx, c, subnet.ID).ExtractErr())
	good(t, subnetpools.Delete(ctx, c, pool.ID).ExtractErr())
	good(t, networks.Delete(ctx, c, inside.ID).ExtractErr())
}
