package metering_test

import (
	"strings"
	"sync"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// labels are those of the router as its host is told, by name, with their rules.
func labels(k *exttest.Core, host, router string, names map[string]string) string {
	var list []string
	for _, l := range k.View(host, message.Kind_KIND_ROUTER)[router].GetRouter().GetMeteringLabels() {
		text := names[l.Id]
		for _, r := range l.Rules {
			text += " " + r.Direction + ":" + r.RemoteIpPrefix + r.SourceIpPrefix + ">" + r.DestinationIpPrefix
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// TestHosts: the host of a router is told the labels of the router's project,
// and shared ones, when they change.
func TestHosts(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("h1", exttest.HostOptions{})
	p, admin := k.As("p"), k.Admin()
	network := p.Create("network", `{"name": "n"}`).ID()
	subnet := p.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, network).ID()
	router := p.Create("router", `{"name": "r"}`).ID()
	p.Act("router", router, "add_router_interface", `{"subnet_id": %q}`, subnet)
	k.Settled()
	stream := k.Attach("h1")

	mine := p.Create("metering_label", `{"name": "mine"}`).ID()
	names := map[string]string{mine: "mine"}
	expect := func(want string) {
		t.Helper()
		stream.Agrees()
		if have := labels(k, "h1", router, names); have != want {
			t.Errorf("the router has labels %q, want %q", have, want)
		}
	}
	expect("") // nothing is selected
	rule := p.Create("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "192.0.2.0/24"}`, mine).ID()
	expect("mine egress:192.0.2.0/24>")
	other := k.As("q").Create("metering_label", `{"name": "other"}`).ID()
	k.As("q").Create("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "192.0.2.0/24"}`, other)
	expect("mine egress:192.0.2.0/24>")
	p.Delete("metering_label_rule", rule)
	expect("")
	shared := admin.Create("metering_label", `{"name": "all", "shared": true}`).ID()
	names[shared] = "all"
	admin.Create("metering_label_rule", `{"metering_label_id": %q, "direction": "ingress", "destination_ip_prefix": "10.0.0.0/8"}`, shared)
	expect("all ingress:>10.0.0.0/8")
	if n := len(p.List("metering_label")); n != 2 {
		t.Errorf("the project sees %d labels, want its own and the shared one", n)
	}
	_, err := p.TryCreate("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "192.0.2.0/24"}`, shared)
	k.Refused(err, fault.NotFound, "MeteringLabelNotFound", "")
	_, err = p.TryCreate("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "192.0.2.0/24"}`, other)
	k.Refused(err, fault.NotFound, "MeteringLabelNotFound", "")
	admin.Delete("metering_label", shared)
	expect("")
}

// TestOverlapsAtOnce: of rules that overlap, one is made, also at once.
func TestOverlapsAtOnce(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	p := k.As("p")
	label := p.Create("metering_label", `{"name": "l"}`).ID()
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = k.As("p").TryCreate("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "10.0.0.0/%d"}`, label, 8+i)
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !fault.Is(err, "MeteringLabelRuleOverlaps") {
			t.Error(err)
		}
	}
	if made != 1 || len(p.List("metering_label_rule")) != 1 {
		t.Errorf("%d rules were made of those that overlap, want 1", made)
	}
}
