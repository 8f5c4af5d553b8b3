package dhcp

import (
	"testing"

	"github.com/miekg/dns"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// Ports are found under the names of their dns_assignment, here and elsewhere,
// in the domain of the cloud and in others.
func TestNamesInDomains(t *testing.T) {
	port := func(name, ip string) *feed.Port {
		return &feed.Port{DnsName: name, FixedIps: []*feed.FixedIP{{IpAddress: ip}}}
	}
	n := newNames("cloud.example", port("", "10.0.0.2"), []*feed.Port{port("here", "10.0.0.3"), port("web.example.org.", "10.0.0.4")},
		&runtime.ForwardingTable{Entries: map[string]*feed.ForwardingEntry{"p": {DnsName: "there", IpAddresses: []string{"10.0.0.5"}}}})
	for name, want := range map[string]string{
		"here.cloud.example.": "10.0.0.3", "here.": "10.0.0.3", "host-10-0-0-3.cloud.example.": "10.0.0.3",
		"web.example.org.": "10.0.0.4", "web.": "10.0.0.4", "web.example.org.cloud.example.": "",
		"there.cloud.example.": "10.0.0.5", "host-10-0-0-2.cloud.example.": "10.0.0.2",
	} {
		records, known := n.answer(dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET})
		have := ""
		if len(records) > 0 {
			have = records[0].(*dns.A).A.String()
		}
		if have != want || known != (want != "") {
			t.Errorf("%s is %q (known: %v), want %q", name, have, known, want)
		}
	}
	for name, want := range map[string]string{"3.0.0.10.in-addr.arpa.": "here.cloud.example.", "4.0.0.10.in-addr.arpa.": "web.example.org.", "5.0.0.10.in-addr.arpa.": "there.cloud.example."} {
		records, _ := n.answer(dns.Question{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
		if len(records) != 1 || records[0].(*dns.PTR).Ptr != want {
			t.Errorf("%s is %v, want %s", name, records, want)
		}
	}
}
