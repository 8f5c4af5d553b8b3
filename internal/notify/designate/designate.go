// Package designate publishes names of ports and floating IPs in the DNS
// service: recordsets of the DNS API, with PTR records.
//
// Names are published as what belongs to their project (X-Auth-Sudo-Project-ID),
// so that nobody gets a name into another's zone; PTR records belong to the
// server's own user. What the DNS service refuses is logged: the call that
// gave the name was answered before.
//
// It must not know how notifications are kept or repeated.
package designate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/notify/cloud"
	"isospin/internal/resource"
	"isospin/internal/store"
)

const group = "designate"

var (
	section       = cloud.Declare(group, "dns", "url")
	reverseLookup = config.Bool(group, "allow_reverse_dns_lookup", true,
		"Publish PTR records too.")
	prefix4 = config.Int(group, "ipv4_ptr_zone_prefix_size", 24,
		"Bits of an IPv4 address that make the name of its PTR zone: a multiple of 8.", config.Min(8), config.Max(24))
	prefix6 = config.Int(group, "ipv6_ptr_zone_prefix_size", 120,
		"Bits of an IPv6 address that make the name of its PTR zone: a multiple of 4.", config.Min(4), config.Max(124))
	zoneEmail = config.String(group, "ptr_zone_email", "",
		"Address of who is responsible for PTR zones that the server makes. Empty is admin@ and the domain of the name.")
)

// Configured tells whether names are to be published.
func Configured(c *config.Config) bool { return config.ExternalDNSDriver.Of(c) == "designate" }

// Record is a name and its addresses.
type Record struct {
	Domain    string   `json:"domain"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	ProjectID string   `json:"project_id"`
}

func (r Record) equal(o Record) bool {
	return r.Domain == o.Domain && r.Name == o.Name && r.ProjectID == o.ProjectID && slices.Equal(r.Addresses, o.Addresses)
}

func (r Record) fqdn() string { return port.DNSRecord{Name: r.Name, Domain: r.Domain}.FQDN() }

// Change is one record that comes or goes.
type Change struct {
	Delete bool
	Record
}

// Options of New.
type Options struct {
	Config   *config.Config   // required
	Networks *network.Service // required
	Subnets  *subnet.Service  // required
	Ports    *port.Service    // required
	Logger   *slog.Logger     // required
}

// Consumer publishes names.
type Consumer struct {
	o                Options
	client           *cloud.Client
	reverse          bool
	prefix4, prefix6 int
	email            string
}

// New returns the consumer. Errors name the option to mend.
func New(o Options) (*Consumer, error) {
	client, err := section.Client(o.Config)
	if err != nil {
		return nil, err
	}
	c := &Consumer{o: o, client: client, reverse: reverseLookup.Of(o.Config), prefix4: prefix4.Of(o.Config), prefix6: prefix6.Of(o.Config), email: zoneEmail.Of(o.Config)}
	if c.prefix4%8 != 0 || c.prefix6%4 != 0 {
		return nil, fmt.Errorf("[%s] ipv4_ptr_zone_prefix_size must be a multiple of 8, and ipv6_ptr_zone_prefix_size one of 4", group)
	}
	return c, nil
}

// Name implements notify.Consumer.
func (*Consumer) Name() string { return "designate" }

// Kinds implements notify.Consumer.
func (*Consumer) Kinds() []string { return []string{"port", "floatingip"} }

// Plan implements notify.Consumer; the published record is what is kept.
func (c *Consumer) Plan(tx *store.Tx, e store.Event, kept []byte) ([]Change, []byte, error) {
	var was, now Record
	if kept != nil {
		if err := json.Unmarshal(kept, &was); err != nil {
			return nil, nil, fmt.Errorf("what is noted: %w", err)
		}
	}
	if e.Op != store.Deleted {
		var err error
		if e.Kind == "port" {
			now, err = c.ofPort(tx, e)
		} else {
			now, err = c.ofFloating(tx, e)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if len(now.Addresses) == 0 {
		now = Record{}
	}
	var changes []Change
	if !was.equal(now) {
		if was.Domain != "" {
			changes = append(changes, Change{true, was})
		}
		if now.Domain != "" {
			changes = append(changes, Change{false, now})
		}
	}
	if now.Domain == "" {
		return changes, nil, nil
	}
	keep, err := json.Marshal(now)
	return changes, keep, err
}

var publish = resource.NewSlot[bool]("dns_publish_fixed_ip")

// ofPort is what is published of a port: its addresses on subnets that say so, else all.
func (c *Consumer) ofPort(tx *store.Tx, e store.Event) (Record, error) {
	p := &port.Port{}
	if err := json.Unmarshal(e.Data, p); err != nil {
		return Record{}, err
	}
	published := port.DNSPublished.Get(p.Slots)
	if published.Domain == "" {
		return Record{}, nil
	}
	r := Record{Domain: published.Domain, Name: published.Name, ProjectID: p.ProjectID}
	var chosen []string
	for _, f := range p.FixedIPs {
		r.Addresses = append(r.Addresses, f.IPAddress.String())
		n, err := c.o.Subnets.Table.Get(tx, f.SubnetID)
		if errors.Is(err, store.ErrNoRow) {
			continue
		}
		if err != nil {
			return Record{}, err
		}
		if publish.Get(n.Slots) {
			chosen = append(chosen, f.IPAddress.String())
		}
	}
	if len(chosen) > 0 {
		r.Addresses = chosen
	}
	return r, nil
}

var dnsDomain = resource.NewSlot[string]("dns_domain")

// ofFloating is what is published of a floating IP: its own name, else that of
// its port in the domain of the port's network.
func (c *Consumer) ofFloating(tx *store.Tx, e store.Event) (Record, error) {
	var f struct {
		resource.Standard
		Address string         `json:"floating_ip_address"`
		PortID  *string        `json:"port_id"`
		Slots   resource.Slots `json:"slots"`
	}
	if err := json.Unmarshal(e.Data, &f); err != nil {
		return Record{}, err
	}
	r := Record{Domain: dnsDomain.Get(f.Slots), Name: port.DNSName.Get(f.Slots), Addresses: []string{f.Address}, ProjectID: f.ProjectID}
	if r.Name != "" && r.Domain != "" {
		return r, nil
	}
	if f.PortID == nil {
		return Record{}, nil
	}
	p, err := c.o.Ports.Table.Get(tx, *f.PortID)
	if errors.Is(err, store.ErrNoRow) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	n, err := c.o.Networks.Table.Get(tx, p.NetworkID)
	if errors.Is(err, store.ErrNoRow) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	r.Name, r.Domain = port.DNSName.Get(p.Slots), dnsDomain.Get(n.Slots)
	if r.Name == "" || r.Domain == "" {
		return Record{}, nil
	}
	return r, nil
}

// Send implements notify.Consumer.
func (c *Consumer) Send(ctx context.Context, changes []Change) error {
	for _, ch := range changes {
		var err error
		if ch.Delete {
			err = c.withdraw(ctx, ch.Record)
		} else {
			err = c.publish(ctx, ch.Record)
		}
		var refused *refusal
		if errors.As(err, &refused) {
			c.o.Logger.Error("designate: a name is not as it should be", "name", ch.fqdn(), "zone", ch.Domain, "addresses", ch.Addresses, "gone", ch.Delete, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refusal is an answer that will be the same when the request is repeated.
type refusal struct {
	what   string
	status int
	text   string
}

func (r *refusal) Error() string {
	if r.status == 0 {
		return r.what
	}
	return fmt.Sprintf("%s was answered %d: %.200s", r.what, r.status, r.text)
}

// scope is as whom a request is made.
type scope http.Header

func sudo(projectID string) scope {
	if projectID == "" {
		return own
	}
	return scope{"X-Auth-Sudo-Project-Id": {projectID}}
}

var (
	own = scope{}
	all = scope{"X-Auth-All-Projects": {"true"}}
)

func (c *Consumer) do(ctx context.Context, as scope, method, path string, body any) (cloud.Answer, error) {
	return c.client.Do(ctx, cloud.Request{Method: method, Path: "/v2" + path, Versioned: "/v2", Header: http.Header(as), Body: body})
}

func (c *Consumer) refused(what string, a cloud.Answer) error {
	return &refusal{what, a.Status, strings.TrimSpace(string(a.Body))}
}

// zone finds a zone by its name; empty: there is none.
func (c *Consumer) zone(ctx context.Context, as scope, name string) (string, error) {
	a, err := c.do(ctx, as, http.MethodGet, "/zones?name="+url.QueryEscape(name), nil)
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusOK {
		return "", c.refused("the search for zone "+name, a)
	}
	var list struct {
		Zones []struct{ ID, Name string }
	}
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return "", &refusal{what: "the answer about zone " + name + ": " + err.Error()}
	}
	for _, z := range list.Zones {
		if z.Name == name {
			return z.ID, nil
		}
	}
	return "", nil
}

type recordset struct {
	ID      string   `json:"id,omitempty"`
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
}

// named are the recordsets of a name in a zone.
func (c *Consumer) named(ctx context.Context, as scope, zoneID, name string) ([]recordset, error) {
	a, err := c.do(ctx, as, http.MethodGet, "/zones/"+url.PathEscape(zoneID)+"/recordsets?name="+url.QueryEscape(name), nil)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, c.refused("the search for "+name, a)
	}
	var list struct {
		Recordsets []recordset `json:"recordsets"`
	}
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return nil, &refusal{what: "the answer about " + name + ": " + err.Error()}
	}
	return slices.DeleteFunc(list.Recordsets, func(s recordset) bool { return s.Name != name }), nil
}

// create makes a recordset; one that is there already with the same records is the same.
func (c *Consumer) create(ctx context.Context, as scope, zoneID string, s recordset) error {
	a, err := c.do(ctx, as, http.MethodPost, "/zones/"+url.PathEscape(zoneID)+"/recordsets", s)
	if err != nil {
		return err
	}
	switch {
	case a.Status/100 == 2:
		return nil
	case a.Status == http.StatusConflict:
		// Perhaps it was made before the server ended without noting it.
		have, err := c.named(ctx, as, zoneID, s.Name)
		if err != nil {
			return err
		}
		for _, h := range have {
			if h.Type == s.Type && slices.Equal(slices.Sorted(slices.Values(h.Records)), slices.Sorted(slices.Values(s.Records))) {
				return nil
			}
		}
		return &refusal{what: "the name is another's already: " + s.Type + " " + s.Name}
	}
	return c.refused(s.Type+" "+s.Name, a)
}

func (c *Consumer) publish(ctx context.Context, r Record) error {
	as := sudo(r.ProjectID)
	zoneID, err := c.zone(ctx, as, r.Domain)
	if err != nil {
		return err
	}
	if zoneID == "" {
		return &refusal{what: "domain " + r.Domain + " is not among the zones of project " + r.ProjectID}
	}
	byType := map[string][]string{}
	for _, text := range r.Addresses {
		kind := "AAAA"
		if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
			kind = "A"
		}
		byType[kind] = append(byType[kind], text)
	}
	for _, kind := range []string{"A", "AAAA"} {
		if len(byType[kind]) == 0 {
			continue
		}
		if err := c.create(ctx, as, zoneID, recordset{Name: r.fqdn(), Type: kind, Records: byType[kind]}); err != nil {
			return err
		}
	}
	if !c.reverse {
		return nil
	}
	for _, text := range r.Addresses {
		if err := c.publishPTR(ctx, r, text); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumer) publishPTR(ctx context.Context, r Record, address string) error {
	name, zone, err := c.pointer(address)
	if err != nil {
		return err
	}
	id, err := c.zone(ctx, own, zone)
	if err != nil {
		return err
	}
	if id == "" {
		email := c.email
		if email == "" {
			email = "admin@" + strings.TrimSuffix(r.Domain, ".")
		}
		a, err := c.do(ctx, own, http.MethodPost, "/zones", map[string]string{
			"name": zone, "email": email, "type": "PRIMARY", "description": "Zone for reverse lookups.",
		})
		if err != nil {
			return err
		}
		if a.Status/100 != 2 && a.Status != http.StatusConflict {
			return c.refused("zone "+zone, a)
		}
		if id, err = c.zone(ctx, own, zone); err != nil {
			return err
		}
		if id == "" {
			return &refusal{what: "zone " + zone + " is another project's"}
		}
	}
	return c.create(ctx, own, id, recordset{Name: name, Type: "PTR", Records: []string{r.fqdn()}})
}

// pointer is the name of an address below in-addr.arpa. or ip6.arpa., and its zone.
func (c *Consumer) pointer(address string) (name, zone string, err error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return "", "", &refusal{what: fmt.Sprintf("%q is no address", address)}
	}
	var labels []string
	if a.Is4() {
		for _, b := range a.AsSlice() {
			labels = append(labels, fmt.Sprint(b))
		}
	} else {
		for _, b := range a.AsSlice() {
			labels = append(labels, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
		}
	}
	slices.Reverse(labels)
	suffix, skip := ".in-addr.arpa.", (32-c.prefix4)/8
	if a.Is6() {
		suffix, skip = ".ip6.arpa.", (128-c.prefix6)/4
	}
	return strings.Join(labels, ".") + suffix, strings.Join(labels[skip:], ".") + suffix, nil
}

// withdraw deletes the recordsets of a name with one of its addresses, and the PTR records.
func (c *Consumer) withdraw(ctx context.Context, r Record) error {
	as := sudo(r.ProjectID)
	id, err := c.zone(ctx, as, r.Domain)
	if err != nil {
		return err
	}
	if id == "" { // the zone may have been given to another project since
		as = all
		if id, err = c.zone(ctx, as, r.Domain); err != nil {
			return err
		}
	}
	if id != "" {
		if err := c.drop(ctx, as, id, r.fqdn(), r.Addresses); err != nil {
			return err
		}
	}
	if !c.reverse {
		return nil
	}
	for _, text := range r.Addresses {
		name, zone, err := c.pointer(text)
		if err != nil {
			return err
		}
		id, err := c.zone(ctx, own, zone)
		if err != nil {
			return err
		}
		if id == "" {
			continue
		}
		if err := c.drop(ctx, own, id, name, []string{r.fqdn()}); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes the recordsets of a name that have one of the records.
func (c *Consumer) drop(ctx context.Context, as scope, zoneID, name string, records []string) error {
	sets, err := c.named(ctx, as, zoneID, name)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if !slices.ContainsFunc(s.Records, func(have string) bool { return slices.Contains(records, have) }) {
			continue
		}
		a, err := c.do(ctx, as, http.MethodDelete, "/zones/"+url.PathEscape(zoneID)+"/recordsets/"+url.PathEscape(s.ID), nil)
		if err != nil {
			return err
		}
		if a.Status/100 != 2 && a.Status != http.StatusNotFound {
			return c.refused("the deletion of "+name, a)
		}
	}
	return nil
}
