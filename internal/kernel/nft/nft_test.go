package nft_test

import (
	"context"
	"strings"
	"testing"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/nft"
	"sigs.k8s.io/knftables"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func table(addresses ...string) nft.Objects {
	o := nft.Objects{
		&knftables.Map{Name: "to", Type: "ipv4_addr : ipv4_addr"},
		&knftables.Chain{Name: "prerouting", Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: knftables.PtrTo(knftables.DNATPriority)},
		&knftables.Rule{Chain: "prerouting", Rule: "dnat ip to ip daddr map @to"},
	}
	for _, a := range addresses {
		o = append(o, &knftables.Element{Map: "to", Key: []string{a}, Value: []string{"10.0.0.9"}})
	}
	return o
}

func TestReplaceOnlyWhatDiffers(t *testing.T) {
	netnstest.New(t, "a")
	ctx := context.Background()
	open, err := nft.Open()
	if err != nil {
		t.Skip(err)
	}
	netnstest.Run(t, "a", "nft add table inet foreign")
	replace := func(o nft.Objects, known nft.Fingerprint, want bool) (f nft.Fingerprint) {
		t.Helper()
		if err := netns.Do("a", func() error {
			now, changed, err := open.Replace(ctx, o, known)
			if changed != want {
				t.Errorf("changed: %v, want %v", changed, want)
			}
			f = now
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	one := table("192.0.2.1", "192.0.2.2", "192.0.2.3")
	f := replace(one, "", true)
	replace(one, f, false)
	replace(one, "", false) // as after a restart
	netnstest.Run(t, "a", "nft delete element inet isospin to {192.0.2.2}")
	replace(one, f, true) // somebody else changed it
	f = replace(table("192.0.2.7"), f, true)
	if out := netnstest.Run(t, "a", "nft list ruleset"); !strings.Contains(out, "192.0.2.7") || strings.Contains(out, "192.0.2.1") || !strings.Contains(out, "table inet foreign") {
		t.Error(out)
	}
	// A table that the kernel refuses leaves the old one in place.
	if err := netns.Do("a", func() error {
		_, _, err := open.Replace(ctx, append(table(), &knftables.Rule{Chain: "prerouting", Rule: "no such rule"}), f)
		return err
	}); err == nil {
		t.Error("nonsense was accepted")
	}
	replace(table("192.0.2.7"), f, false)
}
