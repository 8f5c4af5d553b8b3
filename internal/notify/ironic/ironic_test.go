package ironic_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/ext/exttest"
	"isospin/internal/notify"
	"isospin/internal/notify/cloud/cloudtest"
	"isospin/internal/notify/ironic"
)

var _ notify.Consumer[ironic.Event] = (*ironic.Consumer)(nil)

// A bare metal port is bound, unbound and deleted; another is not Ironic's.
func TestPort(t *testing.T) {
	c := cloudtest.New(t, "baremetal", func(cloudtest.Request) (int, string) { return http.StatusNoContent, "" })
	w := cloudtest.NewWorld(t, c.Config("ironic")+"enable_notifications = true\n[ovs_driver]\nvnic_type_prohibit_list =\n")
	consumer, err := ironic.New(w.Config, w.Logger)
	if err != nil {
		t.Fatal(err)
	}
	cloudtest.Run(w, w.Options("one"), consumer)
	w.Host("host1", exttest.HostOptions{Agents: []string{agent.OpenVSwitch}})
	admin := w.Admin()
	network := admin.Create("network", `{}`).ID()
	admin.Delete("port", admin.Create("port", `{"network_id": %q}`, network).ID())
	id := admin.Create("port", `{"network_id": %q, "binding:vnic_type": "baremetal", "device_owner": "baremetal:none", "device_id": "node", "binding:host_id": "host1", "mac_address": "fa:16:3e:00:00:01"}`, network).ID()
	generation := w.Rows(1, "SELECT generation FROM port WHERE id = ?", id)[0][0].(int64)
	for _, state := range []message.State{message.State_STATE_ACTIVE, message.State_STATE_DOWN} {
		w.Report("host1", &message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: generation, State: state, AgentType: agent.OpenVSwitch})
	}
	admin.Delete("port", id)
	w.Reached("ironic", w.LastSequence())
	var have []string
	for _, r := range c.Requests() {
		if r.Method != "POST" || r.Path != "/v1/events" || r.Header.Get("X-OpenStack-Ironic-API-Version") != "1.54" {
			t.Errorf("Ironic got %s %s %v", r.Method, r.Path, r.Header)
		}
		for _, e := range regexp.MustCompile(`\{"event":[^}]*\}`).FindAllString(r.Body, -1) {
			have = append(have, strings.ReplaceAll(e, id, "PORT"))
		}
	}
	event := func(name, status string) string {
		return `{"event":"network.` + name + `","port_id":"PORT","mac_address":"fa:16:3e:00:00:01","status":"` + status + `","device_id":"node","binding:host_id":"host1","binding:vnic_type":"baremetal"}`
	}
	if want := []string{event("bind_port", "ACTIVE"), event("unbind_port", "DOWN"), event("delete_port", "DELETED")}; !slices.Equal(have, want) {
		t.Errorf("Ironic got\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}
