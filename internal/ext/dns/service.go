package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// defaultDomain is dns_domain when nobody has chosen one: names that clients
// give to ports mean nothing then.
const defaultDomain = "openstacklocal."

type service struct {
	core *core.Core
	// domain is [DEFAULT] dns_domain with its last dot; empty: none.
	domain string
	// own: the operator has chosen a domain.
	own bool
	// external: there is a DNS service to publish names in.
	external bool
	// ranges of ids that networks of projects get, by type and physical network.
	ranges map[string][]idRange
}

var (
	dnsDomain = resource.NewSlot[string]("dns_domain")
	publish   = resource.NewSlot[bool]("dns_publish_fixed_ip")
)

// Attributes of ports: dns_assignment is a list of objects with ip_address, hostname, fqdn.
const (
	nameAttribute       = "dns_name"
	assignmentAttribute = "dns_assignment"
)

func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func (s *service) beforeCreate(ctx context.Context, tx *store.Tx, p *port.Port, body *resource.Body) error {
	return s.complete(ctx, tx, p)
}

func (s *service) beforeUpdate(ctx context.Context, tx *store.Tx, _, want *port.Port, body *resource.Body) error {
	if !body.Has("dns_name") && !body.Has("dns_domain") && !body.Has("fixed_ips") {
		return nil
	}
	return s.complete(ctx, tx, want)
}

// complete works out what is to be published of a port. Without a domain of
// the operator's, ports have no names of clients.
func (s *service) complete(ctx context.Context, tx *store.Tx, p *port.Port) error {
	if !s.own {
		for _, slot := range []resource.Slot[string]{port.DNSName, dnsDomain} {
			if slot.Get(p.Slots) != "" {
				if err := slot.Set(&p.Slots, ""); err != nil {
					return err
				}
			}
		}
		p.UnpublishDNS()
		return nil
	}
	record, err := s.record(ctx, tx, p)
	if err != nil {
		return err
	}
	if record.Domain == "" {
		p.UnpublishDNS()
		return nil
	}
	return port.DNSPublished.Set(&p.Slots, record)
}

// record is what the external DNS service is to have of a port; the zero value: nothing.
func (s *service) record(ctx context.Context, tx *store.Tx, p *port.Port) (port.DNSRecord, error) {
	name := port.DNSName.Get(p.Slots)
	if !s.external || name == "" {
		return port.DNSRecord{}, nil
	}
	parent, err := s.core.Ports.Network(tx, p)
	if err != nil {
		return port.DNSRecord{}, err
	}
	domain := dnsDomain.Get(p.Slots)
	if domain == "" {
		domain = dnsDomain.Get(parent.Slots)
	}
	if domain == "" {
		return port.DNSRecord{}, nil
	}
	subnets, err := s.core.Subnets.OfNetwork(tx, p.NetworkID)
	if err != nil || !s.reachable(parent, subnets) {
		return port.DNSRecord{}, err
	}
	return port.DNSRecord{Name: name, Domain: substitute(ctx, domain)}, nil
}

// reachable tells whether the addresses of a network mean something outside
// of the cloud: those of networks that projects make do not, but by a floating
// IP, unless a subnet says that they do.
func (s *service) reachable(n *network.Network, subnets []*subnet.Subnet) bool {
	if slices.ContainsFunc(subnets, func(o *subnet.Subnet) bool { return publish.Get(o.Slots) }) {
		return true
	}
	switch {
	case n.External || len(n.Segments) == 0:
		return false
	case len(n.Segments) > 1:
		return true
	}
	g := n.Segments[0]
	switch g.NetworkType {
	case "flat":
		return true
	case "local":
		return false
	}
	return !slices.ContainsFunc(s.ranges[g.NetworkType+" "+g.PhysicalNetwork], func(r idRange) bool {
		return r.first <= g.SegmentationID && g.SegmentationID <= r.last
	})
}

// idRange is an inclusive range of segmentation ids.
type idRange struct{ first, last int }

// parseRange reads "1:1000".
func parseRange(text string) (idRange, error) {
	first, last, _ := strings.Cut(text, ":")
	a, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return idRange{}, fmt.Errorf("range %q: %w", text, err)
	}
	b, err := strconv.Atoi(strings.TrimSpace(last))
	if err != nil {
		return idRange{}, fmt.Errorf("range %q: %w", text, err)
	}
	return idRange{a, b}, nil
}

// projectRanges reads from where networks of projects get their ids.
func projectRanges(c *config.Config) (map[string][]idRange, error) {
	ranges := map[string][]idRange{}
	add := func(of, text string, option *config.Option[[]string]) error {
		r, err := parseRange(text)
		if err != nil {
			return fmt.Errorf("%s: %w", option, err)
		}
		ranges[of] = append(ranges[of], r)
		return nil
	}
	for kind, option := range map[string]*config.Option[[]string]{"vxlan": config.ML2VXLANVNIRanges, "geneve": config.ML2GeneveVNIRanges, "gre": config.ML2GRETunnelIDRanges} {
		for _, text := range option.Of(c) {
			if err := add(kind+" ", text, option); err != nil {
				return nil, err
			}
		}
	}
	for _, text := range config.ML2VLANRanges.Of(c) {
		if physical, ids, ok := strings.Cut(text, ":"); ok {
			if err := add("vlan "+physical, ids, config.ML2VLANRanges); err != nil {
				return nil, err
			}
		}
	}
	return ranges, nil
}

// substitute puts the caller's values in the place of a domain's keywords;
// those without a value stay.
func substitute(ctx context.Context, domain string) string {
	who := identity.From(ctx)
	for keyword, value := range map[string]string{
		"<project_id>": who.ProjectID, "<project_name>": who.ProjectName, "<user_id>": who.UserID, "<user_name>": who.UserName,
	} {
		if value != "" {
			domain = strings.ReplaceAll(domain, keyword, strings.ToLower(value))
		}
	}
	return domain
}

// presentPort shows the names of a port's addresses.
func (s *service) presentPort(p *port.Port) {
	name, domain := port.DNSName.Get(p.Slots), s.domain
	if record := port.DNSPublished.Get(p.Slots); record.Domain != "" {
		domain = record.Domain
	}
	if !s.own && name != "" {
		name = ""
		delete(p.Slots, nameAttribute)
	}
	b := make([]byte, 0, 2+128*len(p.FixedIPs))
	b = append(b, '[')
	for i, f := range p.FixedIPs {
		hostname := name
		if name == "" {
			hostname = nameless(f.IPAddress)
		}
		full := hostname
		if domain != "" && !strings.HasSuffix(full, ".") {
			full += "." + domain
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = resource.AppendString(append(b, `{"ip_address":`...), f.IPAddress.String())
		b = resource.AppendString(append(b, `,"hostname":`...), hostname)
		b = append(resource.AppendString(append(b, `,"fqdn":`...), full), '}')
	}
	if p.Slots == nil {
		p.Slots = resource.Slots{}
	}
	p.Slots[assignmentAttribute] = append(b, ']')
}

// nameless is the name of an address whose port has none.
func nameless(a netip.Addr) string {
	b := a.AppendTo([]byte("host-"))
	for i, c := range b {
		if c == '.' || c == ':' {
			b[i] = '-'
		}
	}
	return string(b)
}

// parts of a collection that the HTTP edge uses.
type collection interface {
	resource.Service
	resource.Valuer
	resource.Tagger
	Decode(ctx context.Context, data []byte) (resource.Object, error)
}

// floating is the collection of floating IPs with the rules of their names.
type floating struct {
	collection
	external bool
}

func (s *service) wrapFloating(r *resource.Resource) error {
	inner, ok := r.Service.(collection)
	if !ok {
		return fmt.Errorf("floating IPs are served by a %T", r.Service)
	}
	r.Service = &floating{inner, s.external}
	return nil
}

// Create implements resource.Service. A name is given at creation and never
// changed; without a DNS service it means nothing.
func (f *floating) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	for _, body := range items {
		name, _ := body.Values["dns_name"].(string)
		domain, _ := body.Values["dns_domain"].(string)
		switch {
		case !f.external:
			body.Values["dns_name"], body.Values["dns_domain"] = "", ""
		case domain != "" && name == "":
			return nil, bad("dns_domain cannot be specified without a dns_name")
		case name != "" && domain == "":
			return nil, bad("dns_name cannot be specified without a dns_domain")
		}
	}
	return f.collection.Create(ctx, items)
}

func bad(text string) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad floatingip request: %s.", text)
}
