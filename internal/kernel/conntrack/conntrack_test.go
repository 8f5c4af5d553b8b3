package conntrack_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"isospin/internal/kernel/conntrack"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestDelete(t *testing.T) {
	netnstest.New(t, "c")
	if _, err := exec.LookPath("conntrack"); err != nil {
		t.Skip(err)
	}
	insert := "conntrack -I -p udp -t 100 --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000 "
	netnstest.Run(t, "c", insert+"-s 10.0.0.5 -d 192.0.2.1 -r 192.0.2.1 -q 203.0.113.7")
	netnstest.Run(t, "c", insert+"-s 10.0.0.6 -d 192.0.2.1 -r 192.0.2.1 -q 10.0.0.6")
	var seen []conntrack.Flow
	err := netns.Do("c", func() error {
		n, err := conntrack.Delete4(func(f conntrack.Flow) bool {
			seen = append(seen, f)
			return f.SourceTranslated() && f.ReplyTo == netip.MustParseAddr("203.0.113.7")
		})
		if n != 1 {
			t.Errorf("deleted %d", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 {
		t.Errorf("seen: %v", seen)
	}
	for _, f := range seen {
		if f.DestinationTranslated() || f.Protocol != 17 || f.DestinationPort != 53 || f.ReplySourcePort != 53 {
			t.Errorf("flow: %+v", f)
		}
	}
	if out := netnstest.Run(t, "c", "conntrack -L"); strings.Contains(out, "10.0.0.5") || !strings.Contains(out, "10.0.0.6") {
		t.Errorf("left: %s", out)
	}
}
