package l3

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/kernel/netns"
)

// meteringTable is the nftables table of counters in a router's namespace. It
// is not that of the rules: it changes less often, and counters must go on.
const meteringTable = "isospin-metering"

const (
	// meteringReport is how often what was counted is logged, as Neutron's
	// metering agent reports it by default.
	meteringReport = 5 * time.Minute
	// meteringRead bounds how long all counters may take to be read.
	meteringRead = 5 * time.Second
)

// metered is a label of a router with what its counter says.
type metered struct {
	Router, Label, Project string
	Packets, Bytes         uint64
}

// metering keeps the counters of labels in the namespaces of routers.
type metering struct {
	mu sync.Mutex
	// labels by router, of those whose table has been compared by this process.
	labels map[string]map[string]string // router → label → project
	last   map[[2]string]metered        // by router and label: what was logged

	packets, bytes *prometheus.Desc
	failed         func(router string, err error)
}

func newMetering(failed func(router string, err error)) *metering {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("isospin_agent_metering_"+name, help, []string{"project", "label", "router"}, nil)
	}
	return &metering{
		labels: map[string]map[string]string{}, last: map[[2]string]metered{}, failed: failed,
		packets: desc("packets_total", "Packets of a router's external traffic that a metering label counts."),
		bytes:   desc("bytes_total", "Bytes of the IP packets of a router's external traffic that a metering label counts."),
	}
}

// rulesOfLabel are the nftables matches of a label's rules in one direction,
// those that exclude first.
func rulesOfLabel(l *feed.MeteringLabel, direction string) ([]string, error) {
	var exclude, count []string
	var failed []error
	for _, r := range l.Rules {
		if r.Direction != direction {
			continue
		}
		source, destination := r.SourceIpPrefix, r.DestinationIpPrefix
		if r.RemoteIpPrefix != "" {
			if direction == "ingress" {
				source = r.RemoteIpPrefix
			} else {
				destination = r.RemoteIpPrefix
			}
		}
		match, err := meteringMatch(source, destination)
		if err != nil {
			failed = append(failed, fmt.Errorf("metering rule %s: %w", r.Id, err))
			continue
		}
		if r.Excluded {
			exclude = append(exclude, match+" return")
		} else {
			count = append(count, fmt.Sprintf("%s counter name \"l-%s\" return", match, l.Id))
		}
	}
	if len(count) == 0 {
		exclude = nil
	}
	slices.Sort(exclude)
	slices.Sort(count)
	return append(exclude, count...), errors.Join(failed...)
}

func meteringMatch(source, destination string) (string, error) {
	var parts []string
	family := ""
	for _, side := range [][2]string{{"saddr", source}, {"daddr", destination}} {
		if side[1] == "" {
			continue
		}
		p, err := netip.ParsePrefix(side[1])
		if err != nil {
			a, err := netip.ParseAddr(side[1])
			if err != nil || a.Zone() != "" {
				return "", fmt.Errorf("prefix %q is not valid", side[1])
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		of := "ip"
		if p.Addr().Is6() {
			of = "ip6"
		}
		if family != "" && of != family {
			return "", fmt.Errorf("%s and %s are not of one family", source, destination)
		}
		family = of
		if p.Bits() == 0 {
			parts = append(parts, "meta nfproto "+map[string]string{"ip": "ipv4", "ip6": "ipv6"}[of])
		} else {
			parts = append(parts, of+" "+side[0]+" "+p.Masked().String())
		}
	}
	if len(parts) == 0 {
		return "", errors.New("it matches nothing")
	}
	return strings.Join(slices.Compact(parts), " "), nil
}

// meteringScript is the body of the table that counts for a router; empty: none
// is needed. Counters begin with what have says. What cannot be rendered is
// left out and in the error.
func meteringScript(r *feed.Router, have map[string]metered) (string, error) {
	var devices []string
	for _, g := range append([]*feed.RouterGateway{r.Gateway}, r.FurtherGateways...) {
		if g != nil && validID(g.PortId) {
			devices = append(devices, `"`+plug.DeviceName("qg-", g.PortId)+`"`)
		}
	}
	if len(devices) == 0 {
		return "", nil
	}
	slices.Sort(devices)
	outside := "{ " + strings.Join(devices, ", ") + " }"
	var counters, chains, jumps strings.Builder
	var failed []error
	for _, l := range slices.SortedFunc(slices.Values(r.MeteringLabels), func(a, b *feed.MeteringLabel) int { return cmp.Compare(a.Id, b.Id) }) {
		if !validID(l.Id) {
			failed = append(failed, fmt.Errorf("metering label id %q is not valid", l.Id))
			continue
		}
		fmt.Fprintf(&counters, "\tcounter l-%s { packets %d bytes %d }\n", l.Id, have[l.Id].Packets, have[l.Id].Bytes)
		for _, direction := range []string{"ingress", "egress"} {
			rules, err := rulesOfLabel(l, direction)
			if err != nil {
				failed = append(failed, err)
			}
			if len(rules) == 0 {
				continue
			}
			name := map[string]string{"ingress": "in-", "egress": "out-"}[direction] + l.Id
			fmt.Fprintf(&chains, "\tchain %s {\n\t\t%s\n\t}\n", name, strings.Join(rules, "\n\t\t"))
			fmt.Fprintf(&jumps, "\t\t%s %s jump %s\n", map[string]string{"ingress": "iifname", "egress": "oifname"}[direction], outside, name)
		}
	}
	if counters.Len() == 0 {
		return "", errors.Join(failed...)
	}
	// After the filter: what it drops is not counted. Addresses of guests are as
	// guests have them here.
	return counters.String() + chains.String() +
		"\tchain forward {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n" + jumps.String() + "\t}\n", errors.Join(failed...)
}

// apply makes the table of the router's namespace be what its labels say.
func (m *metering) apply(ctx context.Context, r *feed.Router) error {
	m.mu.Lock()
	_, known := m.labels[r.Id]
	m.mu.Unlock()
	wanted, planned := meteringScript(r, nil)
	if wanted == "" && known && len(m.of(r.Id)) == 0 {
		return planned
	}
	err := netns.Do(NamespacePrefix+r.Id, func() error {
		have, mark, err := readMetering(ctx)
		if err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(wanted))
		name := "state-" + hex.EncodeToString(sum[:10])
		switch {
		case wanted == "" && mark == "":
			return nil
		case wanted == "":
			return nftRun(ctx, "delete table inet "+meteringTable+"\n")
		case mark == name:
			return nil
		}
		body, _ := meteringScript(r, have) // its error is in planned
		return nftRun(ctx, fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n%[2]s\tchain %[3]s {\n\t}\n}\n", meteringTable, body, name))
	})
	if err != nil {
		return errors.Join(planned, fmt.Errorf("metering: %w", err))
	}
	labels := map[string]string{}
	if wanted != "" {
		for _, l := range r.MeteringLabels {
			labels[l.Id] = l.ProjectId
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.labels[r.Id] = labels
	return planned
}

func (m *metering) of(router string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.labels[router]
}

// forget drops a router that is gone; its counters went with the namespace.
func (m *metering) forget(router string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.labels, router)
	maps.DeleteFunc(m.last, func(k [2]string, _ metered) bool { return k[0] == router })
}

// read reads all counters, in the order of routers and labels.
func (m *metering) read(ctx context.Context) []metered {
	m.mu.Lock()
	labels := maps.Clone(m.labels)
	m.mu.Unlock()
	var list []metered
	for _, router := range slices.Sorted(maps.Keys(labels)) {
		if len(labels[router]) == 0 {
			continue
		}
		var have map[string]metered
		err := netns.Do(NamespacePrefix+router, func() (err error) {
			have, _, err = readMetering(ctx)
			return err
		})
		if err != nil {
			m.failed(router, err)
			continue
		}
		for _, label := range slices.Sorted(maps.Keys(labels[router])) {
			if c, ok := have[label]; ok {
				c.Router, c.Label, c.Project = router, label, labels[router][label]
				list = append(list, c)
			}
		}
	}
	return list
}

// Describe implements prometheus.Collector.
func (m *metering) Describe(out chan<- *prometheus.Desc) {
	out <- m.packets
	out <- m.bytes
}

// Collect implements prometheus.Collector: counters are read when they are asked for.
func (m *metering) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), meteringRead)
	defer cancel()
	for _, c := range m.read(ctx) {
		out <- prometheus.MustNewConstMetric(m.packets, prometheus.CounterValue, float64(c.Packets), c.Project, c.Label, c.Router)
		out <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(c.Bytes), c.Project, c.Label, c.Router)
	}
}

// grown is what was counted since the last call, by router and label.
func (m *metering) grown(ctx context.Context) []metered {
	list := m.read(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range list {
		key := [2]string{c.Router, c.Label}
		if before := m.last[key]; before.Packets <= c.Packets && before.Bytes <= c.Bytes {
			list[i].Packets -= before.Packets
			list[i].Bytes -= before.Bytes
		}
		m.last[key] = c
	}
	return list
}

// reportMetering logs what was counted until the feature stops.
func (f *Feature) reportMetering(ctx context.Context) {
	tick := time.NewTicker(meteringReport)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range f.metering.grown(ctx) {
			f.logger.Info("l3.meter", "label_id", c.Label, "tenant_id", c.Project, "router_id", c.Router,
				"pkts", c.Packets, "bytes", c.Bytes, "time", int(meteringReport/time.Second))
		}
	}
}

// readMetering reads the counters of the calling thread's namespace by label,
// and the mark of the table's content; empty: there is no table.
func readMetering(ctx context.Context) (map[string]metered, string, error) {
	cmd := exec.CommandContext(ctx, "nft", "-j", "list", "table", "inet", meteringTable)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "No such file or directory") {
			return nil, "", nil
		}
		return nil, "", fmt.Errorf("list nftables table %s: %w: %s", meteringTable, err, strings.TrimSpace(stderr.String()))
	}
	var doc struct {
		Nftables []struct {
			Counter *struct {
				Name           string
				Packets, Bytes uint64
			}
			Chain *struct{ Name string }
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, "", fmt.Errorf("nftables table %s: %w", meteringTable, err)
	}
	have, mark := map[string]metered{}, "unmarked"
	for _, o := range doc.Nftables {
		if o.Counter != nil {
			have[strings.TrimPrefix(o.Counter.Name, "l-")] = metered{Packets: o.Counter.Packets, Bytes: o.Counter.Bytes}
		}
		if o.Chain != nil && strings.HasPrefix(o.Chain.Name, "state-") {
			mark = o.Chain.Name
		}
	}
	return have, mark, nil
}

func nftRun(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
