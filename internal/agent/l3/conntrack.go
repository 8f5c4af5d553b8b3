package l3

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"isospin/api/feed"
	"isospin/internal/kernel/nft"
	"sigs.k8s.io/knftables"
)

// kernelHelpers are the kernel's names of Neutron's helpers, by helper and protocol.
var kernelHelpers = map[string]string{
	"amanda/tcp": "amanda", "amanda/udp": "amanda", "ftp/tcp": "ftp", "h323/udp": "RAS", "h323/tcp": "Q.931", "irc/tcp": "irc",
	"netbios-ns/udp": "netbios-ns", "pptp/tcp": "pptp", "sane/tcp": "sane", "sip/tcp": "sip", "sip/udp": "sip", "snmp/udp": "snmp", "tftp/udp": "tftp",
}

// helperSupport remembers which helpers the kernel has. Safe for concurrent use.
type helperSupport struct {
	mu    sync.Mutex
	known map[nft.Helper]bool
}

// has asks the kernel once. A module that is loaded later is found after a restart.
func (s *helperSupport) has(ctx context.Context, h nft.Helper) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok, asked := s.known[h]; asked {
		return ok
	}
	if s.known == nil {
		s.known = map[nft.Helper]bool{}
	}
	ok := h.Supported(ctx)
	if ctx.Err() == nil {
		s.known[h] = ok
	}
	return ok
}

// planHelpers adds the helpers of a router and returns those that the kernel does not have.
func (f *Feature) planHelpers(ctx context.Context, w *wanted, list []*feed.ConntrackHelper) (without []string) {
	return planHelpers(w, list, func(h nft.Helper) bool { return f.helpers.has(ctx, h) })
}

// planHelpers: the first packet of a flow sets the helper, before its
// destination is translated.
func planHelpers(w *wanted, list []*feed.ConntrackHelper, supported func(nft.Helper) bool) (without []string) {
	const chain = "helpers"
	var rules nft.Objects
	for _, h := range list {
		kernel := kernelHelpers[h.Helper+"/"+h.Protocol]
		n := nft.Helper{Name: strings.ReplaceAll(h.Helper, "-", "_") + "_" + h.Protocol, Kernel: kernel, Protocol: h.Protocol}
		if kernel == "" || h.Port < 1 || h.Port > 65535 || !supported(n) {
			without = append(without, fmt.Sprintf("%s/%s", h.Helper, h.Protocol))
			continue
		}
		if !slices.Contains(w.Rules.Helpers, n) {
			w.Rules.Helpers = append(w.Rules.Helpers, n)
		}
		rules = append(rules, &knftables.Rule{Chain: chain, Rule: fmt.Sprintf("ct state new meta l4proto %s th dport %d ct helper set %q", h.Protocol, h.Port, n.Name)})
	}
	if len(rules) == 0 {
		return without
	}
	w.Rules.Objects = append(append(w.Rules.Objects, &knftables.Chain{
		Name: chain, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: knftables.PtrTo(knftables.ManglePriority),
	}), rules...)
	return without
}
