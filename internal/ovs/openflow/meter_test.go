package openflow_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"isospin/internal/ovs/openflow"
)

// Meters of ours become what is wanted by single changes, are right after a
// restart, and those of others stay.
func TestMeters(t *testing.T) {
	s, _, _ := bridge(t)
	ctx := t.Context()
	open := func() *openflow.Bridge {
		return openflow.NewBridge(openflow.Options{Name: "br0", RunDir: s.Dir, Mark: mark, Meters: openflow.MeterRange{First: 100, Last: 199}})
	}
	ofctl := func(args ...string) string {
		t.Helper()
		out, err := s.OFCtl(ctx, append([]string{"-O", "OpenFlow14"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	dump := func() string {
		found := regexp.MustCompile(`(?s)meter=\d+ [^m]*`).FindAllString(ofctl("dump-meters", "br0"), -1)
		for i, f := range found {
			found[i] = strings.Join(strings.Fields(f), " ")
		}
		slices.Sort(found)
		return strings.Join(found, "\n")
	}
	ensure := func(b *openflow.Bridge, want map[uint32]openflow.Meter, refused int) {
		t.Helper()
		got, err := b.EnsureMeters(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != refused {
			t.Fatalf("refused: %v", got)
		}
	}
	ofctl("add-meter", "br0", "meter=7,pktps,band=type=drop,rate=5")
	ofctl("add-meter", "br0", "meter=150,pktps,band=type=drop,rate=5") // an older form of ours
	want := map[uint32]openflow.Meter{100: {Rate: 20000, Burst: 16000}, 101: {Packets: true, Rate: 1000, Burst: 800}, 150: {Rate: 3, Burst: 4}}
	b := open()
	ensure(b, want, 0)
	const all = "meter=100 kbps burst bands= type=drop rate=20000 burst_size=16000\nmeter=101 pktps burst bands= type=drop rate=1000 burst_size=800\n" +
		"meter=150 kbps burst bands= type=drop rate=3 burst_size=4\nmeter=7 pktps bands= type=drop rate=5"
	if got := dump(); got != all {
		t.Fatalf("meters:\n%s", got)
	}
	// A flow stays when its meter changes, and goes when its meter does.
	set := openflow.NewSet()
	set.Put("x", []openflow.Flow{{Match: "ip", Actions: "meter:100,output:1"}})
	check(t, "flow", apply(t, b, set), 1, 0, 0)
	want[100] = openflow.Meter{Rate: 10, Burst: 800}
	ensure(b, want, 0)
	if flows := ofctl("dump-flows", "br0"); !strings.Contains(flows, "meter:100") {
		t.Fatalf("flows: %s", flows)
	}
	// After a restart nothing is left to do: a meter that is there cannot be added.
	b = open()
	ensure(b, want, 0)
	check(t, "restart", apply(t, b, set), 0, 0, 0)
	// What the switch does not take is told, once and again, and keeps no other from being there.
	delete(want, 101)
	want[102], want[0] = openflow.Meter{Rate: 1, Burst: 1}, openflow.Meter{Rate: 1, Burst: 1}
	ensure(b, want, 1)
	ensure(b, want, 1)
	delete(want, 0)
	ensure(b, want, 0)
	if err := b.PruneMeters(ctx, want); err != nil {
		t.Fatal(err)
	}
	const left = "meter=100 kbps burst bands= type=drop rate=10 burst_size=800\nmeter=102 kbps burst bands= type=drop rate=1 burst_size=1\n" +
		"meter=150 kbps burst bands= type=drop rate=3 burst_size=4\nmeter=7 pktps bands= type=drop rate=5"
	if got := dump(); got != left {
		t.Fatalf("meters:\n%s", got)
	}
	if err := open().PruneMeters(ctx, nil); err != nil || dump() != left {
		t.Fatalf("meters that are not known of are removed: %v", err)
	}
	b = open()
	ensure(b, nil, 0)
	if err := b.PruneMeters(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := dump(); got != "meter=7 pktps bands= type=drop rate=5" {
		t.Fatalf("meters:\n%s", got)
	}
	s.KillVSwitchd()
	b.Forget()
	if _, err := b.EnsureMeters(ctx, want); err == nil {
		t.Error("EnsureMeters works without a switch")
	}
}
