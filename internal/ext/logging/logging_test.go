package logging_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const unknown = "00000000-0000-4000-8000-000000000000"

// A log is stored, shown, changed, and goes with what it is about.
func TestLog(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	c := k.As("project1")
	network := c.Create("network", `{"name": "n"}`).ID()
	group := c.Create("security_group", `{"name": "g"}`).ID()
	p := c.Create("port", `{"network_id": %q, "security_groups": [%q]}`, network, group).ID()
	before := k.LastSequence()
	l := c.Create("log", `{"name": "l", "resource_type": "security_group", "resource_id": %q, "target_id": %q, "description": "d"}`, group, p)
	if events := k.Events(before, map[string]string{l.ID(): "l"}); strings.Join(events, "; ") != "create log l" {
		t.Errorf("events: %v", events)
	}
	if got := l.Text("event") + l.JSON("enabled") + l.Text("project_id") + l.Text("description"); got != "ALLtrueproject1d" {
		t.Errorf("created: %s", got)
	}
	c.Update("log", l.ID(), `{"name": "m", "enabled": false}`)
	if o := c.Get("log", l.ID()); o.Text("name") != "m" || o.JSON("enabled") != "false" || o.JSON("revision_number") != "1" {
		t.Errorf("updated: %v", o)
	}
	if list := c.List("log", "resource_id", group, "event", "ALL"); len(list) != 1 {
		t.Errorf("listed: %v", list)
	}
	if rows := k.Rows(4, "SELECT resource_type, resource_id, target_id, event FROM packet_log"); fmt.Sprint(rows) != fmt.Sprintf("[[security_group %s %s ALL]]", group, p) {
		t.Errorf("rows: %v", rows)
	}
	ofGroup := c.Create("log", `{"resource_type": "security_group", "resource_id": %q, "event": "DROP"}`, group)
	ofAll := c.Create("log", `{"resource_type": "security_group", "event": "ACCEPT"}`)
	c.Delete("port", p)
	if _, err := c.TryGet("log", l.ID()); err == nil {
		t.Error("the log of a deleted port is still there")
	}
	c.Delete("security_group", group)
	_, err := c.TryGet("log", ofGroup.ID())
	k.Refused(err, fault.NotFound, "LogResourceNotFound", "Log resource "+ofGroup.ID()+" could not be found.")
	c.Delete("log", ofAll.ID())
	if list := k.Admin().List("loggable_resource"); len(list) != 1 || fmt.Sprint(list[0]) != "map[type:security_group]" {
		t.Errorf("loggable: %v", list)
	}
}

func TestErrors(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	c, other := k.As("project1"), k.As("project2")
	network := c.Create("network", `{"name": "n"}`).ID()
	group := c.Create("security_group", `{"name": "g"}`).ID()
	bare := c.Create("port", `{"network_id": %q, "security_groups": []}`, network).ID()
	direct := k.Admin().Create("port", `{"network_id": %q, "tenant_id": "project1", "binding:vnic_type": "direct"}`, network).ID()
	create := func(c *exttest.Client, body string, args ...any) error {
		_, err := c.TryCreate("log", body, args...)
		return err
	}
	const start = `{"resource_type": "security_group", `
	k.Refused(create(c, `{"resource_type": "firewall_group"}`), fault.Invalid, "InvalidLogResourceType", "Invalid log resource_type: firewall_group.")
	k.Refused(create(c, start+`"resource_id": %q}`, unknown), fault.NotFound, "ResourceNotFound", "Resource "+unknown+" could not be found.")
	k.Refused(create(other, start+`"resource_id": %q}`, group), fault.NotFound, "ResourceNotFound", "Resource "+group+" could not be found.")
	k.Refused(create(c, start+`"target_id": %q}`, unknown), fault.NotFound, "TargetResourceNotFound", "Target resource "+unknown+" could not be found.")
	k.Refused(create(other, start+`"target_id": %q}`, bare), fault.NotFound, "TargetResourceNotFound", "")
	k.Refused(create(c, start+`"target_id": %q}`, direct), fault.Conflict, "LoggingTypeNotSupported", "Logging type security_group is not supported on port "+direct+".")
	k.Refused(create(c, start+`"resource_id": %q, "target_id": %q}`, group, bare), fault.Invalid, "InvalidResourceConstraint",
		"Invalid resource constraint between resource (security_group "+group+") and target resource (port "+bare+").")
	l := c.Create("log", start+`"resource_id": %q}`, group).ID()
	_, err := other.TryGet("log", l)
	k.Refused(err, fault.NotFound, "LogResourceNotFound", "Log resource "+l+" could not be found.")
}

// Hosts hear of enabled logs, with those of their ports that are concerned.
func TestFeed(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("h1", exttest.HostOptions{})
	k.Host("h2", exttest.HostOptions{})
	streams := []*exttest.Stream{k.Attach("h1"), k.Attach("h2")}
	c, admin := k.As("project1"), k.Admin()
	network := c.Create("network", `{"name": "n"}`).ID()
	group, another := c.Create("security_group", `{"name": "g"}`).ID(), c.Create("security_group", `{"name": "a"}`).ID()
	names := map[string]string{}
	port := func(name, host string, more string) string {
		id := admin.Create("port", `{"network_id": %q, "tenant_id": "project1", "binding:host_id": %q%s}`, network, host, more).ID()
		names[id] = name
		return id
	}
	has := func(ids ...string) string {
		return fmt.Sprintf(`, "security_groups": ["%s"]`, strings.Join(ids, `", "`))
	}
	a := port("a", "h1", has(group))
	b := port("b", "h1", has(another))
	port("c", "h2", has(group, another))
	port("open", "h1", `, "security_groups": [], "port_security_enabled": false`)
	port("service", "h1", `, "device_owner": "network:router_interface"`)
	port("direct", "h1", has(group)+`, "binding:vnic_type": "direct"`)
	unbound := port("unbound", "", has(group))
	told := func(what, want string) {
		t.Helper()
		k.Settled()
		var hosts []string
		for i, host := range []string{"h1", "h2"} {
			streams[i].Agrees()
			var logs []string
			for id, o := range k.View(host, message.Kind_KIND_LOG) {
				l := o.GetLog()
				if !l.Enabled || l.ProjectId != "project1" || l.ResourceType != "security_group" || l.Id != id {
					t.Errorf("%s: %v", what, l)
				}
				var ports []string
				for _, id := range l.PortIds {
					ports = append(ports, names[id])
				}
				slices.Sort(ports)
				logs = append(logs, names[id]+":"+l.Event+":"+strings.Join(ports, ","))
			}
			slices.Sort(logs)
			hosts = append(hosts, strings.Join(logs, " "))
		}
		if got := strings.Join(hosts, " | "); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	log := func(name, members string) string {
		id := c.Create("log", `{"resource_type": "security_group"%s}`, members).ID()
		names[id] = name
		return id
	}
	told("none", " | ")
	g := log("G", fmt.Sprintf(`, "resource_id": %q, "event": "DROP"`, group))
	told("of a group", "G:DROP:a | G:DROP:c")
	p := log("P", fmt.Sprintf(`, "target_id": %q, "event": "ACCEPT"`, b))
	told("of a port", "G:DROP:a P:ACCEPT:b | G:DROP:c")
	both := log("B", fmt.Sprintf(`, "target_id": %q, "resource_id": %q`, b, another))
	all := log("A", ``)
	told("of both, of all", "A:ALL:a,b B:ALL:b G:DROP:a P:ACCEPT:b | A:ALL:c G:DROP:c")
	c.Delete("log", all)
	c.Update("port", b, `{"security_groups": [%q]}`, group)
	told("another group", "G:DROP:a,b P:ACCEPT:b | G:DROP:c")
	admin.Update("port", unbound, `{"binding:host_id": "h2"}`)
	admin.Update("port", a, `{"binding:host_id": "h2"}`)
	told("moved", "G:DROP:b P:ACCEPT:b | G:DROP:a,c,unbound")
	c.Update("log", g, `{"enabled": false}`)
	told("disabled", "P:ACCEPT:b | ")
	c.Update("log", g, `{"enabled": true}`)
	c.Update("port", b, `{"security_groups": [], "port_security_enabled": false}`)
	told("not filtered any more", " | G:DROP:a,c,unbound")
	c.Update("port", b, `{"security_groups": [%q], "port_security_enabled": true}`, another)
	told("filtered again", "B:ALL:b P:ACCEPT:b | G:DROP:a,c,unbound")
	c.Delete("port", a)
	told("deleted", "B:ALL:b P:ACCEPT:b | G:DROP:c,unbound")
	c.Delete("log", p)
	c.Delete("log", both)
	told("without logs", " | G:DROP:c,unbound")
}
