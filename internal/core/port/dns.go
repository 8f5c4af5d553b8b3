package port

import (
	"strings"

	"isospin/internal/resource"
)

// DNSRecord is what an external DNS service is to have of a port's addresses.
type DNSRecord struct {
	// Name is relative to Domain, or ends with a dot.
	Name string `json:"name"`
	// Domain ends with a dot; empty: nothing is published.
	Domain string `json:"domain"`
}

// FQDN is the whole name, with its last dot; empty without a record.
func (r DNSRecord) FQDN() string {
	if r.Domain == "" || strings.HasSuffix(r.Name, ".") {
		return r.Name
	}
	return r.Name + "." + r.Domain
}

// Slots of names: what clients call a port, and what is published of it, which
// is no attribute.
var (
	DNSName      = resource.NewSlot[string]("dns_name")
	DNSPublished = resource.NewSlot[DNSRecord]("dns_published")
)

// UnpublishDNS makes nothing of the port be published.
func (p *Port) UnpublishDNS() { delete(p.Slots, "dns_published") }

// HostName is the name that the port's addresses have on its network: a whole
// one when it ends with a dot, else one in the cloud's domain; empty: none.
func (p *Port) HostName() string {
	if r := DNSPublished.Get(p.Slots); r.Domain != "" {
		return r.FQDN()
	}
	return DNSName.Get(p.Slots)
}
