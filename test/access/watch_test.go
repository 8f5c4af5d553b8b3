package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isospin/api/neutron"
	"isospin/internal/resource"
	"isospin/internal/watch"
)

// TestWatch: what a caller has read from the watch since the beginning is what
// it may list now, of every resource, as GET shows it; and the history of an
// object is for whom GET shows it. Every caller with a token may watch.
func TestWatch(t *testing.T) {
	c := newCloud(t)
	c.make("p1", "external")
	// These are older than the history: they come with the database.
	var seeded map[string][]struct{ ID string }
	if err := c.must("admin", "GET", "/default-security-group-rules", "").Decode(&seeded); err != nil {
		t.Fatal(err)
	}
	older := map[string]bool{}
	for _, r := range seeded["default_security_group_rules"] {
		older[r.ID] = true
	}
	for _, r := range c.Core.Registry.Resources() {
		f := fixtures()[r.URL()]
		if f.create == nil || !watch.Watchable(r) {
			continue
		}
		one := r.Name == "security_groups_default_statefulness" // of a project
		for _, project := range []string{"p1", "p2"} {
			if !one {
				c.object(project, r.URL())
			}
			collection, id := c.object(project, r.URL())
			if f.change != "" && f.answers == nil && f.missing == nil {
				c.must(map[bool]string{true: "service", false: "admin"}[f.by == "service"], "PUT", collection+"/"+id, fmt.Sprintf(`{%q: %s}`, r.Name, f.change))
			}
		}
		// What is gone is not there for anybody.
		project := map[bool]string{true: "admin", false: "p1"}[one]
		collection, id := c.object(project, r.URL())
		c.must(map[bool]string{true: "service", false: "admin"}[f.by == "service"], "DELETE", collection+"/"+id, "")
	}
	// Opened to all; and opened, and closed again.
	for _, url := range []string{"/networks", "/qos/policies", "/security-groups", "/subnetpools", "/address-scopes", "/address-groups"} {
		kind := c.Core.Registry.Lookup(url).Name
		for _, closed := range []bool{false, true} {
			_, id := c.object("p1", url)
			objectType := kind
			switch kind {
			case "network":
				c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "project_id": "p1"}}`, id)
				c.post("/ports", `{"port": {"network_id": %q, "project_id": "p2"}}`, id)
			case "policy":
				objectType = "qos_policy"
				c.post("/qos/policies/"+id+"/dscp_marking_rules", `{"dscp_marking_rule": {"dscp_mark": 8}}`)
			}
			c.must("admin", "PUT", "/networks/"+c.make("p1", "network"), `{"network": {"shared": true}}`)
			entry := c.post("/rbac-policies", `{"rbac_policy": {"object_type": %q, "object_id": %q, "action": "access_as_shared", "target_tenant": "*"}}`, objectType, id)
			if kind == "network" && closed {
				var ports struct{ Ports []struct{ ID string } }
				if err := c.must("admin", "GET", "/ports?network_id="+id, "").Decode(&ports); err != nil {
					t.Fatal(err)
				}
				for _, p := range ports.Ports {
					c.must("admin", "DELETE", "/ports/"+p.ID, "")
				}
			}
			if kind == "security_group" {
				c.post("/security-group-rules", `{"security_group_rule": {"security_group_id": %q, "direction": "ingress"}}`, id)
			}
			if closed {
				c.must("admin", "DELETE", "/rbac-policies/"+entry, "")
			}
		}
	}
	for _, caller := range callers {
		c.must("admin", "GET", "/security-groups", "") // makes default groups
		if caller.ProjectID != "" {
			c.must(caller.name, "GET", "/security-groups", "")
		}
	}
	// Everybody sees this one, and it is the last.
	end := c.post("/networks", `{"network": {"name": "end", "shared": true}}`)

	for _, caller := range callers {
		if caller.name == "nobody" {
			for _, path := range []string{"/watch", "/networks/" + end + "/history"} {
				if a := c.call("nobody", "GET", path, ""); a.Status != http.StatusUnauthorized {
					t.Errorf("GET %s by nobody: %s", path, a)
				}
			}
			continue
		}
		t.Run(caller.name, func(t *testing.T) {
			own := &followed{cloud: &cloud{Server: c.Server, t: t, shared: c.shared}, older: older}
			own.compare(caller.name, own.replay(caller.name, end))
		})
	}
}

// followed is a cloud whose changes are followed.
type followed struct {
	*cloud
	older map[string]bool
}

// told is what a watch says of an object.
type told struct {
	parent string
	object string
}

// replay reads a caller's watch from the beginning up to an object.
func (c *followed) replay(caller, end string) map[string]map[string]told {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	done, since := errors.New("done"), int64(0)
	have := map[string]map[string]told{}
	client := neutron.Client{Endpoint: c.URL, Token: caller}
	err := client.Watch(ctx, neutron.WatchOptions{Since: &since}, func(l *neutron.Change) error {
		if l.Kind == "" {
			return nil
		}
		if have[l.Kind] == nil {
			have[l.Kind] = map[string]told{}
		}
		_, was := have[l.Kind][l.ID]
		r := c.Core.Registry.Named(l.Kind)
		// With what is opened and closed comes and goes what is there now, not what was there then.
		if was == (l.Op == "create") && r.Through == nil {
			c.t.Errorf("%d: %s of %s %s, which is known: %v", l.Sequence, l.Op, l.Kind, l.ID, was)
		}
		if l.Op == "delete" {
			delete(have[l.Kind], l.ID)
		} else {
			have[l.Kind][l.ID] = told{l.ParentID, string(l.Object)}
		}
		if l.ID == end {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		c.t.Fatalf("the watch of %s ends with %v", caller, err)
	}
	return have
}

// compare compares what a watch told with lists.
func (c *followed) compare(caller string, have map[string]map[string]told) {
	c.t.Helper()
	compared := 0
	for _, r := range c.Core.Registry.Resources() {
		if !watch.Watchable(r) {
			continue
		}
		want := map[string]told{}
		list := func(url, parent string) {
			var doc map[string]json.RawMessage
			a := c.call(caller, "GET", url, "")
			if a.Status == http.StatusNotFound && parent != "" || a.Status == http.StatusForbidden {
				return
			}
			if err := a.Decode(&doc); err != nil || a.Status != http.StatusOK {
				c.t.Fatalf("GET %s by %s: %s %v", url, caller, a, err)
			}
			var objects []map[string]json.RawMessage
			if err := json.Unmarshal(doc[r.Collection], &objects); err != nil {
				c.t.Fatal(err)
			}
			for _, o := range objects {
				var id string
				key := "id"
				if f := fixtures()[r.URL()]; f.key != "" && o["id"] == nil {
					key = f.key
				}
				if err := json.Unmarshal(o[key], &id); err != nil {
					c.t.Fatalf("%s: %s", url, doc[r.Collection])
				}
				var one map[string]json.RawMessage
				if err := c.must(caller, "GET", url+"/"+id, "").Decode(&one); err != nil {
					c.t.Fatal(err)
				}
				want[id] = told{parent, string(one[r.Name])}
				if a := c.call(caller, "GET", url+"/"+id+"/history", ""); a.Status != http.StatusOK || strings.Contains(string(a.Body), `"sequence"`) == c.older[id] {
					c.t.Errorf("GET %s/%s/history by %s: %s", url, id, caller, a)
				}
				compared++
			}
		}
		if r.Parent == nil {
			list(r.URL(), "")
		} else {
			for parent := range have[r.Parent.Name] {
				list(path(r.URL(), parent), parent)
			}
		}
		got := have[r.Name]
		if got == nil {
			got = map[string]told{}
		}
		for id, w := range want {
			g, ok := got[id]
			if !ok && r.Name == "default_security_group_rule" && c.older[id] {
				continue
			}
			if !ok {
				c.t.Errorf("%s %s is listed, and the watch does not tell of it", r.Name, id)
			} else if diff := differences(r, w, g); diff != "" {
				c.t.Errorf("%s %s (list, watch): %s", r.Name, id, diff)
			}
		}
		for id := range got {
			if _, ok := want[id]; !ok {
				c.t.Errorf("%s %s is not listed, but told by the watch", r.Name, id)
			}
		}
	}
	c.t.Logf("%s: %d objects", caller, compared)
}

// differences names what of an object is told otherwise.
func differences(r *resource.Resource, list, watch told) string {
	if list == watch {
		return ""
	}
	var a, b map[string]any
	if json.Unmarshal([]byte(list.object), &a) != nil || json.Unmarshal([]byte(watch.object), &b) != nil || list.parent != watch.parent {
		return fmt.Sprint(list, watch)
	}
	text := ""
	for _, name := range r.Aside {
		delete(a, name)
	}
	for name := range maps.Keys(a) {
		if diff := cmp.Diff(a[name], b[name]); diff != "" {
			text += fmt.Sprintf("%s: %v, %v; ", name, a[name], b[name])
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			text += name + " is told only; "
		}
	}
	return text
}
