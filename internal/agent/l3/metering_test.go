package l3

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"isospin/api/feed"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMeteringScript(t *testing.T) {
	r := &feed.Router{Id: "r", Gateway: &feed.RouterGateway{PortId: "9aaaaaaa-1111"}, MeteringLabels: []*feed.MeteringLabel{
		{Id: "b", Rules: []*feed.MeteringRule{
			{Id: "1", Direction: "egress", RemoteIpPrefix: "192.0.2.7/24"},
			{Id: "2", Direction: "egress", RemoteIpPrefix: "192.0.2.9/32", Excluded: true},
			{Id: "3", Direction: "ingress", SourceIpPrefix: "0.0.0.0/0", DestinationIpPrefix: "10.0.1.0/24"},
			{Id: "4", Direction: "ingress", RemoteIpPrefix: "2001:db8::/32"},
			{Id: "5", Direction: "ingress", Excluded: true, SourceIpPrefix: "10.0.0.1", DestinationIpPrefix: "fd00::/8"},
		}},
		{Id: "a", Rules: []*feed.MeteringRule{{Id: "6", Direction: "ingress", Excluded: true, RemoteIpPrefix: "10.0.0.0/8"}}},
	}}
	have, err := meteringScript(r, map[string]metered{"b": {Packets: 3, Bytes: 300}})
	want := `	counter l-a { packets 0 bytes 0 }
	counter l-b { packets 3 bytes 300 }
	chain in-b {
		ip6 saddr 2001:db8::/32 counter name "l-b" return
		meta nfproto ipv4 ip daddr 10.0.1.0/24 counter name "l-b" return
	}
	chain out-b {
		ip daddr 192.0.2.9/32 return
		ip daddr 192.0.2.0/24 counter name "l-b" return
	}
	chain forward {
		type filter hook forward priority filter + 10; policy accept;
		iifname { "qg-9aaaaaaa-11" } jump in-b
		oifname { "qg-9aaaaaaa-11" } jump out-b
	}
`
	if have != want {
		t.Errorf("have\n%swant\n%s", have, want)
	}
	if err == nil || !strings.Contains(err.Error(), "metering rule 5: 10.0.0.1 and fd00::/8 are not of one family") {
		t.Errorf("error is %v", err)
	}
	r.Gateway = nil
	if have, err := meteringScript(r, nil); have != "" || err != nil {
		t.Errorf("without a gateway: %q, %v", have, err)
	}
}

// pings sends n packets of 84 bytes, and wants as many answers.
func pings(t *testing.T, from, to string, n int) {
	t.Helper()
	out := netnstest.Run(t, from, fmt.Sprintf("ping -n -q -i 0.02 -w 5 -c %d %s", n, to))
	if !strings.Contains(out, fmt.Sprintf("%d received", n)) {
		t.Fatalf("ping: %s", out)
	}
}

// TestMetering counts real packets: those of rules, in both directions, not
// those that are excluded; and goes on counting when rules and agents change.
func TestMetering(t *testing.T) {
	w := newWorld(t)
	r := small()
	rule := func(id, direction, remote string, excluded bool) *feed.MeteringRule {
		return &feed.MeteringRule{Id: id, Direction: direction, RemoteIpPrefix: remote, Excluded: excluded}
	}
	r.MeteringLabels = []*feed.MeteringLabel{
		{Id: "aaaaaaaa-0000-4000-8000-000000000001", ProjectId: "p", Rules: []*feed.MeteringRule{
			rule("1", "egress", "0.0.0.0/0", false), rule("2", "egress", "192.0.2.1/32", true),
		}},
		{Id: "bbbbbbbb-0000-4000-8000-000000000002", ProjectId: "p", Rules: []*feed.MeteringRule{rule("3", "ingress", "192.0.2.0/24", false)}},
	}
	first, second := r.MeteringLabels[0].Id, r.MeteringLabels[1].Id
	w.all(r)
	counts := func(label string, packets int) {
		t.Helper()
		for _, c := range w.feature.metering.read(context.Background()) {
			if c.Label == label {
				if c.Packets != uint64(packets) || c.Bytes != uint64(packets*84) || c.Project != "p" || c.Router != r.Id {
					t.Errorf("counted %+v, want %d packets", c, packets)
				}
				return
			}
		}
		t.Errorf("nothing counts label %s", label)
	}
	pings(t, "a1", "203.0.113.1", 5)
	counts(first, 5)
	counts(second, 0)
	pings(t, "a1", "192.0.2.1", 3) // excluded on the way out
	counts(first, 5)
	counts(second, 3)
	pings(t, "a1", "10.0.2.5", 2) // stays inside
	counts(first, 5)

	// Another rule: counters go on from where they were.
	r.MeteringLabels[0].Rules = r.MeteringLabels[0].Rules[:1]
	w.all(r)
	counts(first, 5)
	pings(t, "a1", "192.0.2.1", 4)
	counts(first, 9)
	counts(second, 7)

	// So do they with another agent.
	w.feature.Stop()
	w.start()
	w.all(r)
	counts(first, 9)

	registry := prometheus.NewRegistry()
	registry.MustRegister(w.feature.metering)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			shown[name] = m.Counter.GetValue()
		}
	}
	labels := fmt.Sprintf(" label=%s project=p router=%s", first, r.Id)
	if shown["isospin_agent_metering_packets_total"+labels] != 9 || shown["isospin_agent_metering_bytes_total"+labels] != 756 || len(shown) != 4 {
		t.Errorf("metrics are %v", shown)
	}
	if g := w.feature.metering.grown(context.Background()); len(g) != 2 || g[0].Packets != 9 {
		t.Errorf("first report: %+v", g)
	}
	pings(t, "a1", "203.0.113.1", 1)
	if g := w.feature.metering.grown(context.Background()); len(g) != 2 || g[0].Packets != 1 || g[0].Bytes != 84 {
		t.Errorf("second report: %+v", g)
	}

	r.MeteringLabels = nil
	w.all(r)
	if out := netnstest.Run(t, routerSpace(r), "nft list tables"); strings.Contains(out, meteringTable) {
		t.Errorf("the table stays: %s", out)
	}
}
