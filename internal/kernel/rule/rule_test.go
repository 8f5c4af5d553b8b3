package rule_test

import (
	"fmt"
	"strings"
	"testing"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/route"
	"isospin/internal/kernel/rule"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestSet(t *testing.T) {
	netnstest.New(t, "r")
	netnstest.Run(t, "r", "ip rule add priority 500 fwmark 7 lookup 99")
	set := func(rules ...rule.Rule) {
		t.Helper()
		var err error
		netns.Do("r", func() error { err = rule.Set(rules); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	show := func(family string) string {
		var ours []string
		for line := range strings.Lines(netnstest.Run(t, "r", "ip "+family+" rule")) {
			if strings.Contains(line, "proto 73") {
				ours = append(ours, strings.Join(strings.Fields(line), " "))
			}
		}
		return strings.Join(ours, "\n")
	}
	want := []rule.Rule{
		{Priority: 100, Table: route.Main, NoDefault: true},
		{Priority: 101, Mark: 0x1000000, Mask: 0xf000000, Table: 7301},
		{Priority: 102, Mark: 0x2000000, Mask: 0xf000000, Table: 7302},
	}
	set(want...)
	golden := "100: from all lookup main suppress_prefixlength 0 proto 73\n101: from all fwmark 0x1000000/0xf000000 lookup 7301 proto 73\n102: from all fwmark 0x2000000/0xf000000 lookup 7302 proto 73"
	for _, family := range []string{"-4", "-6"} {
		if got := show(family); got != golden {
			t.Errorf("%s:\n%s\nwant\n%s", family, got, golden)
		}
	}
	set(want...)
	set(want[0], want[2])
	if got := show("-4"); strings.Contains(got, "7301") || strings.Count(got, "\n") != 1 {
		t.Errorf("without one: %s", got)
	}
	netns.Do("r", func() error {
		if tables, err := rule.Tables(); err != nil || fmt.Sprint(tables) != fmt.Sprint(map[int]bool{route.Main: true, 7302: true}) {
			t.Errorf("tables %v, %v", tables, err)
		}
		return nil
	})
	set()
	if got := show("-4") + show("-6"); got != "" {
		t.Errorf("none wanted: %s", got)
	}
	if all := netnstest.Run(t, "r", "ip rule"); !strings.Contains(all, "lookup 99") || !strings.Contains(all, "lookup default") {
		t.Errorf("others' rules: %s", all)
	}
	if got, want := want[1].String(), "priority 101 fwmark 0x1000000/0xf000000 lookup 7301"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
