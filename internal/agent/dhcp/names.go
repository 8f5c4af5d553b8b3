package dhcp

import (
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// names are the host names of one network, those of ports elsewhere included.
// The index over them is made by the first query: a network of many ports that
// nobody asks about costs nothing per change.
type names struct {
	index func() *nameIndex
}

type nameIndex struct {
	forward map[string][]netip.Addr // by lower case name with the final dot
	reverse map[string]string       // by name below in-addr.arpa. or ip6.arpa.
}

func newNames(domain string, dhcpPort *feed.Port, local []*feed.Port, elsewhere *runtime.ForwardingTable) *names {
	return &names{index: sync.OnceValue(func() *nameIndex {
		x := &nameIndex{forward: map[string][]netip.Addr{}, reverse: map[string]string{}}
		if elsewhere != nil {
			for _, e := range elsewhere.Entries {
				for _, ip := range e.IpAddresses {
					x.add(domain, e.DnsName, ip)
				}
			}
		}
		for _, f := range dhcpPort.FixedIps {
			x.add(domain, dhcpPort.DnsName, f.IpAddress)
		}
		for _, p := range local {
			for _, f := range p.FixedIps {
				x.add(domain, p.DnsName, f.IpAddress)
			}
		}
		return x
	})}
}

func (x *nameIndex) add(domain, dnsName, ip string) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return
	}
	main := ""
	for _, name := range []string{dnsName, addressLabel(a)} {
		name, whole := strings.CutSuffix(name, ".")
		if name == "" || !validName(name) {
			continue
		}
		full := name
		switch {
		case whole: // in whatever domain
			name, _, _ = strings.Cut(name, ".")
		case domain != "" && name != domain && !strings.HasSuffix(name, "."+domain):
			full = name + "." + domain
		}
		if main == "" {
			main = dns.Fqdn(full)
		}
		x.point(full, a)
		if full != name {
			x.point(name, a) // unqualified, for clients without a search list
		}
	}
	if arpa, err := dns.ReverseAddr(a.String()); err == nil {
		x.reverse[arpa] = main
	}
}

func (x *nameIndex) point(name string, a netip.Addr) {
	key := strings.ToLower(dns.Fqdn(name))
	x.forward[key] = append(x.forward[key], a)
}

// answer returns the records for a question; known is false for a name that
// is none of ours.
func (n *names) answer(q dns.Question) (records []dns.RR, known bool) {
	const timeToLive = 0 // a port may change at any time
	x := n.index()
	key := strings.ToLower(q.Name)
	if target, ok := x.reverse[key]; ok {
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			records = append(records, &dns.PTR{Hdr: header(q.Name, dns.TypePTR, timeToLive), Ptr: target})
		}
		return records, true
	}
	list, ok := x.forward[key]
	for _, a := range list {
		switch {
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			records = append(records, &dns.A{Hdr: header(q.Name, dns.TypeA, timeToLive), A: a.AsSlice()})
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			records = append(records, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA, timeToLive), AAAA: a.AsSlice()})
		}
	}
	return records, ok
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
