package trunk_test

import (
	"fmt"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const unknown = "00000000-0000-4000-8000-000000000000"

// world is a core with the networks "n" (MTU 1450), "small" and "large".
type world struct {
	*exttest.Core
	t        *testing.T
	c        *exttest.Client
	networks map[string]string
}

func newWorld(t *testing.T) *world {
	w := &world{Core: exttest.New(t, exttest.Options{}), t: t, networks: map[string]string{}}
	w.c = w.As("project1")
	for name, mtu := range map[string]int{"n": 1450, "small": 1280, "large": 1500} {
		w.networks[name] = w.c.Create("network", `{"name": %q}`, name).ID()
		if mtu != 1450 {
			w.networks[name] = w.Admin().Create("network", `{"name": %q, "mtu": %d, "tenant_id": "project1", "provider:network_type": "vlan", "provider:physical_network": "physnet1"}`, name, mtu).ID()
		}
	}
	return w
}

func (w *world) port(network string) string {
	return w.c.Create("port", `{"network_id": %q}`, w.networks[network]).ID()
}

func vlan(port string, id int) string {
	return fmt.Sprintf(`{"port_id": %q, "segmentation_type": "vlan", "segmentation_id": %d}`, port, id)
}

func (w *world) equal(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// A trunk is shown with its subports, in its parent port, too, and in rows.
func TestTrunk(t *testing.T) {
	w := newWorld(t)
	parent, a, b := w.port("n"), w.port("n"), w.port("small")
	before := w.LastSequence()
	o := w.c.Create("trunk", `{"name": "t", "port_id": %q, "sub_ports": [%s, {"port_id": %q, "segmentation_type": "vlan", "segmentation_id": "4"}]}`, parent, vlan(a, 2), b)
	names := map[string]string{o.ID(): "t", parent: "parent", a: "a", b: "b"}
	w.equal("events", strings.Join(w.Events(before, names), "; "), "create trunk t; update port parent")
	subports := fmt.Sprintf(`[{"port_id":%q,"segmentation_id":2,"segmentation_type":"vlan"},{"port_id":%q,"segmentation_id":4,"segmentation_type":"vlan"}]`, a, b)
	w.equal("subports", o.JSON("sub_ports"), subports)
	w.equal("subports shown", w.c.Get("trunk", o.ID()).JSON("sub_ports"), subports)
	w.equal("get_subports", w.c.Act("trunk", o.ID(), "get_subports", `{}`).JSON("sub_ports"), subports)
	w.equal("status", o.Text("status")+o.JSON("admin_state_up")+o.Text("project_id"), "DOWNtrueproject1")
	mac := func(id string) string { return w.c.Get("port", id).Text("mac_address") }
	detail := func(id string, tag int) string {
		return fmt.Sprintf(`{"mac_address":%q,"port_id":%q,"segmentation_id":%d,"segmentation_type":"vlan"}`, mac(id), id, tag)
	}
	w.equal("details", w.c.Get("port", parent).JSON("trunk_details"), fmt.Sprintf(`{"sub_ports":[%s,%s],"trunk_id":%q}`, detail(a, 2), detail(b, 4), o.ID()))
	if _, shown := w.c.Get("port", a)["trunk_details"]; shown {
		t.Error("a subport shows details of a trunk")
	}
	w.Admin().Update("port", a, `{"mac_address": "fa:16:3e:99:99:99"}`)
	if got := w.c.Get("port", parent).JSON("trunk_details"); !strings.Contains(got, "fa:16:3e:99:99:99") {
		t.Errorf("details do not follow a subport's MAC: %s", got)
	}

	revision := w.c.Get("trunk", o.ID()).JSON("revision_number")
	c := w.port("n")
	o = w.c.Act("trunk", o.ID(), "add_subports", `{"sub_ports": [%s]}`, vlan(c, 3))
	if o.JSON("revision_number") <= revision || strings.Count(o.JSON("sub_ports"), "port_id") != 3 || strings.Count(w.c.Get("port", parent).JSON("trunk_details"), "port_id") != 3 {
		t.Errorf("after a subport was added: %v", o)
	}
	o = w.c.Act("trunk", o.ID(), "remove_subports", `{"sub_ports": [{"port_id": %q}, {"port_id": %q}]}`, a, b)
	w.equal("subports left", o.JSON("sub_ports"), fmt.Sprintf(`[{"port_id":%q,"segmentation_id":3,"segmentation_type":"vlan"}]`, c))
	w.equal("rows", fmt.Sprint(w.Rows(3, "SELECT port_id, segmentation_type, segmentation_id FROM trunk_port ORDER BY segmentation_id")),
		fmt.Sprintf("[[%s  0] [%s vlan 3]]", parent, c))
	if list := w.c.List("trunk", "port_id", parent); len(list) != 1 || list[0].ID() != o.ID() {
		t.Errorf("listed: %v", list)
	}
	w.c.Delete("trunk", o.ID())
	if rows := w.Rows(1, "SELECT port_id FROM trunk_port"); len(rows) != 0 {
		t.Errorf("ports of a deleted trunk: %v", rows)
	}
	if _, shown := w.c.Get("port", parent)["trunk_details"]; shown {
		t.Error("the parent of a deleted trunk shows it")
	}
	for _, id := range []string{parent, a, b, c} {
		w.c.Delete("port", id)
	}
}

// The type and tag that are inherited are those of the subport's network.
func TestInherit(t *testing.T) {
	w := newWorld(t)
	parent, a := w.port("n"), w.port("small")
	tag := w.Admin().Get("network", w.networks["small"]).JSON("provider:segmentation_id")
	o := w.c.Create("trunk", `{"port_id": %q, "sub_ports": [{"port_id": %q, "segmentation_type": "inherit"}]}`, parent, a)
	w.equal("subports", o.JSON("sub_ports"), fmt.Sprintf(`[{"port_id":%q,"segmentation_id":%s,"segmentation_type":"vlan"}]`, a, tag))
	_, err := w.c.TryAct("trunk", o.ID(), "add_subports", `{"sub_ports": [{"port_id": %q, "segmentation_type": "inherit"}]}`, w.port("n"))
	w.Refused(err, fault.Invalid, "InvalidInput", "Invalid input for operation: Unknown segmentation_type 'vxlan'.")
}

func TestErrors(t *testing.T) {
	w := newWorld(t)
	parent, a, b := w.port("n"), w.port("n"), w.port("n")
	o := w.c.Create("trunk", `{"port_id": %q, "sub_ports": [%s]}`, parent, vlan(a, 2))
	create := func(parent string, subports ...string) error {
		_, err := w.c.TryCreate("trunk", `{"port_id": %q, "sub_ports": [%s]}`, parent, strings.Join(subports, ","))
		return err
	}
	add := func(subports ...string) error {
		_, err := w.c.TryAct("trunk", o.ID(), "add_subports", `{"sub_ports": [%s]}`, strings.Join(subports, ","))
		return err
	}
	parentInUse := func(id string) string {
		return "Port " + id + " is currently in use and is not eligible for use as a parent port."
	}
	w.Refused(create(unknown), fault.NotFound, "PortNotFound", "Port "+unknown+" could not be found.")
	w.Refused(create(parent), fault.Conflict, "ParentPortInUse", parentInUse(parent))
	w.Refused(create(a), fault.Conflict, "TrunkPortInUse", "Port "+a+" is in use by another trunk.")
	w.Refused(create(b, vlan(b, 3)), fault.Conflict, "ParentPortInUse", parentInUse(b))
	w.Refused(add(vlan(parent, 3)), fault.Conflict, "ParentPortInUse", parentInUse(parent))
	w.Refused(add(vlan(a, 3)), fault.Conflict, "TrunkPortInUse", "")
	w.Refused(add(vlan(b, 2)), fault.Conflict, "DuplicateSubPort", "segmentation_type vlan and segmentation_id 2 already in use on trunk "+o.ID()+".")
	w.Refused(add(vlan(unknown, 3)), fault.NotFound, "PortNotFound", "")
	w.Refused(add(vlan(b, 4095)), fault.Invalid, "InvalidInput", "Invalid input for operation: Segmentation ID '4095' is not in range.")
	w.Refused(add(fmt.Sprintf(`{"port_id": %q, "segmentation_type": "vlan", "segmentation_id": "x"}`, b)), fault.Invalid, "InvalidInput", "Invalid input for operation: Invalid subport details: segmentation_id 'x' is not an integer.")
	w.Refused(add(fmt.Sprintf(`{"port_id": %q, "segmentation_type": "vxlan", "segmentation_id": 1}`, b)), fault.Invalid, "InvalidInput", "Invalid input for operation: Unknown segmentation_type 'vxlan'.")
	missing := "Must specify both segmentation_id and segmentation_type."
	for _, s := range []string{`{"port_id": %q}`, `{"port_id": %q, "segmentation_id": 3}`} {
		err := add(fmt.Sprintf(s, b))
		w.Refused(err, fault.Invalid, "InvalidInput", "")
		if !strings.HasSuffix(err.Error(), missing) {
			t.Errorf("%v", err)
		}
	}
	for _, s := range []string{`{"sub_ports": {"port_id": %q}}`, `{"port_id": %q}`} {
		_, err := w.c.TryAct("trunk", o.ID(), "add_subports", s, b)
		w.Refused(err, fault.Invalid, "InvalidInput", "")
	}
	large := w.port("large")
	w.Refused(add(vlan(large, 3)), fault.Conflict, "SubPortMtuGreaterThanTrunkPortMtu", "MTU 1500 of subport "+large+" cannot be greater than MTU 1450 of trunk "+parent+".")
	used := w.Admin().Create("port", `{"network_id": %q, "tenant_id": "project1", "device_id": "vm"}`, w.networks["n"]).ID()
	w.Refused(add(vlan(used, 3)), fault.Conflict, "PortInUse", "Unable to complete operation on port "+used+" for network "+w.networks["n"]+". Port already has an attached device vm.")
	_, err := w.c.TryAct("trunk", o.ID(), "remove_subports", `{"sub_ports": [{"port_id": %q}]}`, b)
	w.Refused(err, fault.NotFound, "SubPortNotFound", "SubPort "+b+" on trunk "+o.ID()+" could not be found.")
	w.Refused(w.c.TryDelete("port", parent), fault.Conflict, "PortInUseAsTrunkParent", "Port "+parent+" is currently a parent port for trunk "+o.ID()+".")
	w.Refused(w.c.TryDelete("port", a), fault.Conflict, "PortInUseAsSubPort", "Port "+a+" is currently a subport for trunk "+o.ID()+".")
	_, err = w.As("project2").TryGet("trunk", o.ID())
	w.Refused(err, fault.NotFound, "TrunkNotFound", "Trunk "+o.ID()+" could not be found.")
	_, err = w.As("project2").TryAct("trunk", o.ID(), "add_subports", `{"sub_ports": [%s]}`, vlan(b, 3))
	w.Refused(err, fault.NotFound, "TrunkNotFound", "")
	_, err = w.As("project2").TryCreate("trunk", `{"port_id": %q}`, b)
	w.Refused(err, fault.NotFound, "PortNotFound", "")

	w.c.Update("trunk", o.ID(), `{"admin_state_up": false, "name": "off"}`)
	disabled := "Trunk " + o.ID() + " is currently disabled."
	w.Refused(add(vlan(b, 3)), fault.Conflict, "TrunkDisabled", disabled)
	_, err = w.c.TryAct("trunk", o.ID(), "remove_subports", `{"sub_ports": [{"port_id": %q}]}`, a)
	w.Refused(err, fault.Conflict, "TrunkDisabled", disabled)
	w.Refused(w.c.TryDelete("trunk", o.ID()), fault.Conflict, "TrunkDisabled", disabled)
	w.c.Call("PUT", "/quotas/{project_id}", []string{"project1"}, `{"quota": {"trunk": 1}}`)
}

func (w *world) show(trunk string, ports ...string) string {
	text := w.c.Get("trunk", trunk).Text("status")
	for _, id := range ports {
		p := w.Admin().Get("port", id)
		text += fmt.Sprintf(" %s/%s/%s/%s", p.Text("binding:host_id"), p.Text("binding:vif_type"), p.Text("device_owner"), p.Text("status"))
	}
	return text
}

// What a host is told, and how status and subports follow it.
func TestHosts(t *testing.T) {
	w := newWorld(t)
	w.Host("h1", exttest.HostOptions{})
	w.Host("h2", exttest.HostOptions{Physical: []string{"physnet1"}})
	streams := []*exttest.Stream{w.Attach("h1"), w.Attach("h2")}
	agree := func() {
		t.Helper()
		for _, s := range streams {
			s.Agrees()
		}
		restarted := w.Restarted()
		for _, host := range []string{"h1", "h2"} {
			if got, want := restarted.Snapshot(host), w.Hub.Snapshot(host); len(got) != len(want) {
				t.Errorf("%s: a server that starts now tells of %d objects, not %d", host, len(got), len(want))
			}
		}
	}
	parent, a, b := w.port("n"), w.port("n"), w.port("small")
	o := w.c.Create("trunk", `{"port_id": %q, "sub_ports": [%s]}`, parent, vlan(a, 2))
	id := o.ID()
	agree()
	w.equal("unbound", w.show(id, a), "DOWN /unbound//DOWN")

	bind := func(host string) {
		t.Helper()
		w.Admin().Update("port", parent, `{"binding:host_id": %q, "device_id": "vm", "device_owner": "compute:nova"}`, host)
		agree()
	}
	generation := func(host string) int64 {
		t.Helper()
		v := w.View(host, message.Kind_KIND_TRUNK)[id]
		if v == nil {
			t.Fatalf("%s is not told of the trunk", host)
		}
		return v.GetTrunk().Revision
	}
	report := func(host string, revision int64, state message.State) {
		t.Helper()
		w.Report(host, &message.Applied{Kind: message.Kind_KIND_TRUNK, Id: id, Revision: revision, State: state})
	}
	bind("h1")
	w.equal("bound", w.show(id, a), "BUILD h1/ovs/trunk:subport/DOWN")
	if got := w.Admin().Get("port", parent).JSON("binding:vif_details"); !strings.Contains(got, `"bridge_name":"tbr-`+id[:11]+`"`) {
		t.Errorf("details of the parent's VIF: %s", got)
	}
	if got := w.Admin().Get("port", a).JSON("binding:vif_details"); !strings.Contains(got, `"bridge_name":"br-int"`) {
		t.Errorf("details of a subport's VIF: %s", got)
	}
	m := w.View("h1", message.Kind_KIND_TRUNK)[id].GetTrunk()
	w.equal("trunk", fmt.Sprint(m.PortId == parent, m.AdminStateUp, len(m.SubPorts), m.SubPorts[0].PortId == a, m.SubPorts[0].SegmentationId), "true true 1 true 2")
	if ports := w.View("h1", message.Kind_KIND_PORT); len(ports) != 2 || len(w.View("h2", message.Kind_KIND_PORT)) != 0 {
		t.Errorf("ports of h1: %v", ports)
	}
	now := generation("h1")
	report("h1", now, message.State_STATE_DOWN)
	w.equal("not plugged yet", w.show(id), "BUILD")
	report("h2", now, message.State_STATE_ACTIVE)
	report("h1", now-1, message.State_STATE_ACTIVE)
	report("h1", now+1, message.State_STATE_ACTIVE)
	w.equal("words of others", w.show(id), "BUILD")
	report("h1", now, message.State_STATE_ACTIVE)
	w.equal("wired", w.show(id), "ACTIVE")
	if generation("h1") != now {
		t.Error("a status is a new generation")
	}
	w.Refused(w.c.TryDelete("trunk", id), fault.Conflict, "TrunkInUse", "Trunk "+id+" is currently in use.")
	bound := w.Admin().Create("port", `{"network_id": %q, "tenant_id": "project1", "binding:host_id": "h1"}`, w.networks["n"]).ID()
	_, err := w.c.TryCreate("trunk", `{"port_id": %q}`, bound)
	w.Refused(err, fault.Conflict, "ParentPortInUse", "")

	// The host does not reach the network of b.
	w.c.Act("trunk", id, "add_subports", `{"sub_ports": [%s]}`, vlan(b, 3))
	w.equal("with another", w.show(id, a, b), "DOWN h1/ovs/trunk:subport/DOWN h1/binding_failed/trunk:subport/DOWN")
	agree()
	report("h1", now, message.State_STATE_ACTIVE)
	w.equal("late report", w.show(id), "DOWN")
	report("h1", generation("h1"), message.State_STATE_ACTIVE)
	w.equal("without one", w.show(id), "DEGRADED")

	bind("h2")
	w.equal("moved", w.show(id, a, b), "BUILD h2/ovs/trunk:subport/DOWN h2/ovs/trunk:subport/DOWN")
	if len(w.View("h1", message.Kind_KIND_TRUNK)) != 0 {
		t.Error("h1 is still told of the trunk")
	}
	report("h2", generation("h2"), message.State_STATE_ERROR)
	w.equal("failed", w.show(id), "DEGRADED")
	w.c.Act("trunk", id, "remove_subports", `{"sub_ports": [{"port_id": %q}, {"port_id": %q}]}`, a, b)
	w.equal("without any", w.show(id, a, b), "DOWN /unbound//DOWN /unbound//DOWN")
	agree()
	report("h2", generation("h2"), message.State_STATE_ERROR)
	w.equal("failed wholly", w.show(id), "ERROR")
	_, err = w.c.TryAct("trunk", id, "add_subports", `{"sub_ports": [%s]}`, vlan(a, 2))
	w.Refused(err, fault.Conflict, "TrunkInErrorState", "Trunk "+id+" is in error state. Attempt to resolve the error condition before proceeding.")
	bind("")
	w.equal("unbound again", w.show(id), "DOWN")
	w.c.Delete("trunk", id)
	agree()
	w.c.Delete("port", parent)
}
