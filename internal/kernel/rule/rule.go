// Package rule makes the routing policy rules of the network namespace of the
// calling thread be what is wanted; call it inside netns.Do for another one.
// Ours carry the protocol number of our routes: those of the kernel, of other
// programs and of operators are left alone.
//
// It must not know what the rules are for.
package rule

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/dump"
	"isospin/internal/kernel/route"
)

// Rule sends what has a mark to a routing table, for both families.
type Rule struct {
	// Priority: lower ones are asked first.
	Priority int
	// Mark and Mask of packets; a zero mask is all packets.
	Mark, Mask uint32
	Table      int
	// NoDefault: default routes of the table do not count.
	NoDefault bool
}

// String is the rule in ip-rule(8)'s words.
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "priority %d", r.Priority)
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.Table == route.Main {
		b.WriteString(" lookup main")
	} else {
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	if r.NoDefault {
		b.WriteString(" suppress_prefixlength 0")
	}
	return b.String()
}

type familyRule struct {
	Rule
	family int
}

func list() (map[familyRule]netlink.Rule, error) {
	there := map[familyRule]netlink.Rule{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := dump.Read(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			return nil, fmt.Errorf("list routing rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol != route.Protocol {
				continue
			}
			own := familyRule{Rule{Priority: r.Priority, Mark: r.Mark, Table: r.Table, NoDefault: r.SuppressPrefixlen == 0}, family}
			if r.Mask != nil {
				own.Mask = *r.Mask
			}
			r.Family = family
			there[own] = r
		}
	}
	return there, nil
}

// Tables are the tables that our rules lead to.
func Tables() (map[int]bool, error) {
	there, err := list()
	if err != nil {
		return nil, err
	}
	tables := map[int]bool{}
	for r := range there {
		tables[r.Table] = true
	}
	return tables, nil
}

// Set makes our rules exactly those wanted, of both families. Each is tried;
// what the kernel refuses is in the error.
func Set(want []Rule) error {
	there, err := list()
	if err != nil {
		return err
	}
	var failed []error
	for _, w := range want {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			own := familyRule{w, family}
			if _, ok := there[own]; ok {
				delete(there, own)
				continue
			}
			r := netlink.NewRule()
			r.Family, r.Priority, r.Table, r.Protocol = family, w.Priority, w.Table, route.Protocol
			if w.Mask != 0 {
				r.Mark, r.Mask = w.Mark, &w.Mask
			}
			if w.NoDefault {
				r.SuppressPrefixlen = 0
			}
			if err := netlink.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
				failed = append(failed, fmt.Errorf("routing rule %s: %w", w, err))
			}
		}
	}
	for own, r := range there {
		if err := netlink.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, fmt.Errorf("delete routing rule %s: %w", own.Rule, err))
		}
	}
	return errors.Join(failed...)
}
