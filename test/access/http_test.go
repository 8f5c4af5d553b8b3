package access

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"isospin/internal/resource"
	"isospin/test/servertest"
)

// judge compares answers with the matrix.
type judge struct {
	*cloud
	decided decisions
	checked int
	right   int
	// denied and granted count the kinds of calls.
	denied, granted int
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	c := newCloud(t)
	return &judge{cloud: c, decided: decide(t, c.Core.Registry, targets(t, c.Core.Registry))}
}

// may tells whether the matrix lets a caller, in a situation; what has no rule
// is the default rule's.
func (j *judge) may(name, situation, caller string) bool {
	if d, ok := j.decided[name]; ok {
		return d[situation][caller]
	}
	return j.decided["default"][situation][caller]
}

// mayWrite is may for an action with a body: the action's own rule and those
// of what the body says.
func (j *judge) mayWrite(r *resource.Resource, verb, situation, caller, body string) bool {
	action := r.PolicyAction(verb)
	if !j.may(action, situation, caller) {
		return false
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		j.t.Fatalf("%s: %v", body, err)
	}
	for name, v := range members {
		a := r.Attribute(name)
		if a == nil || !a.Flags.Has(resource.EnforcePolicy) {
			continue
		}
		if name == "target_tenant" && v != "*" || name == "device_owner" && !strings.HasPrefix(fmt.Sprint(v), "network:") {
			continue // their rules look at the value
		}
		if !j.may(action+":"+name, situation, caller) {
			return false
		}
		list, isList := v.([]any)
		if !isList {
			list = []any{v}
		}
		for _, item := range list {
			if inner, ok := item.(map[string]any); ok && (isList || strings.HasSuffix(name, "gateway_info")) {
				for key := range inner {
					if !j.may(action+":"+name+":"+key, situation, caller) {
						return false
					}
				}
			}
		}
	}
	return true
}

// expect judges one answer: want is a status, or 2 for success of any kind.
func (j *judge) expect(what, caller string, a *servertest.Answer, want int) {
	j.t.Helper()
	j.checked++
	if want < 400 {
		j.granted++
	} else {
		j.denied++
	}
	if a.Status == want || want == 2 && a.Status/100 == 2 {
		j.right++
		return
	}
	j.t.Errorf("%s by %s: %s; the matrix says %d", what, caller, a, want)
}

// status is what is answered about an object of p1 that is there.
func (j *judge) status(r *resource.Resource, allowed bool, caller string, granted int) int {
	switch {
	case caller == "nobody":
		return http.StatusUnauthorized
	case allowed:
		return granted
	case j.may(r.PolicyAction("get"), situationOf(r), caller):
		return http.StatusForbidden
	}
	return http.StatusNotFound
}

// situationOf is that of objects that are p1's; or nobody's, as when they are another's.
func situationOf(r *resource.Resource) string {
	if r.Attribute("tenant_id") != nil || strings.HasPrefix(r.Name, "alias_") || r.Parent != nil && r.Parent.Attribute("tenant_id") != nil {
		return "own"
	}
	return "shared"
}

// TestCalls makes every call of every resource as every caller, on objects of
// the project p1, and compares the answers with the matrix: 2xx for who may,
// 403 for who may only look, 404 for who may not even that, 401 without a token.
func TestCalls(t *testing.T) {
	j := newJudge(t)
	for _, r := range j.Core.Registry.Resources() {
		if _, ok := fixtures()[r.URL()]; !ok {
			t.Errorf("%s: fixtures lacks a line", r.URL())
			continue
		}
		t.Run(strings.ReplaceAll(strings.Trim(r.URL(), "/"), "/", " "), func(t *testing.T) {
			own := *j
			own.cloud = &cloud{Server: j.Server, t: t, count: j.count, shared: j.shared}
			own.resource(r)
			j.count, j.checked, j.right, j.denied, j.granted = own.count, own.checked, own.right, own.denied, own.granted
		})
	}
	t.Logf("%d of %d calls are answered as the matrix says (%d granted, %d refused)", j.right, j.checked, j.granted, j.denied)
}

func (j *judge) resource(r *resource.Resource) {
	f := fixtures()[r.URL()]
	if f.create != nil {
		j.creations(r, &f)
	}
	if f.create == nil && f.find == nil {
		j.lists(r, r.URL(), "")
		return
	}
	collection, id := j.object("p1", r.URL())
	at := collection + "/" + id
	j.lists(r, collection, id)
	for _, c := range callers {
		if r.Serves(resource.Show) {
			allowed := j.may(r.PolicyAction("get"), situationOf(r), c.name)
			a := j.call(c.name, "GET", at, "")
			want := j.status(r, allowed, c.name, http.StatusOK)
			if only := f.only[resource.Show]; only != "" && want != http.StatusUnauthorized && c.name != only {
				want = http.StatusForbidden
			}
			j.expect("GET "+at, c.name, a, want)
			if a.Status == http.StatusOK {
				j.shown(r, c.name, a)
			}
		}
		if r.Serves(resource.Update) && f.change != "" {
			body := fmt.Sprintf(`{%q: %s}`, r.Name, f.change)
			granted := f.answers[resource.Update]
			if granted == 0 {
				granted = http.StatusOK
			}
			allowed := j.mayWrite(r, "update", situationOf(r), c.name, f.change)
			want := j.status(r, allowed, c.name, granted)
			if want == http.StatusForbidden && r.Older && r.Attribute("tenant_id") == nil && r.Parent == nil {
				want = http.StatusNotFound // Neutron's older path admits what is there to its owner only, and this has none
			}
			j.expect("PUT "+at+" "+body, c.name, j.call(c.name, "PUT", at, body), want)
		}
		if _, ok := r.Service.(resource.Tagger); ok && r.Taggable {
			j.tags(r, at, c.name)
		}
	}
	for _, a := range r.Actions {
		body, ok := calls()[r.Name+"."+a.Name]
		if !ok {
			j.t.Errorf("%s: calls lacks a line for %s", r.URL(), a.Name)
			continue
		}
		for _, c := range callers {
			// One of its own for each: an action may leave it in a state that ends the next.
			collection, id := j.object("p1", r.URL())
			what := collection + "/" + id + "/" + a.Name
			sent := body(j.cloud, "p1", id)
			allowed := j.may(a.Name, situationOf(r), c.name)
			for _, list := range []string{"external_gateways"} {
				if strings.Contains(sent, `"`+list+`"`) {
					allowed = allowed && j.may(a.Name+":"+list, situationOf(r), c.name)
				}
			}
			j.expect(a.Method+" "+what+" "+sent, c.name, j.call(c.name, a.Method, what, sent), j.status(r, allowed, c.name, 2))
		}
	}
	if !r.Serves(resource.Delete) || f.missing[resource.Delete] != "" || f.create == nil && !strings.HasPrefix(r.Name, "alias_") {
		return
	}
	for _, c := range callers {
		allowed := j.may(r.PolicyAction("delete"), situationOf(r), c.name)
		a := j.call(c.name, "DELETE", at, "")
		j.expect("DELETE "+at, c.name, a, j.status(r, allowed, c.name, http.StatusNoContent))
		if a.Status == http.StatusNoContent {
			collection, id = j.object("p1", r.URL())
			at = collection + "/" + id
		}
	}
}

// creations: everybody but administrators and services for themselves. What a
// caller of another project makes is its own, but on what is p1's: that the
// rules allow it is not enough then, since it may not even see that.
func (j *judge) creations(r *resource.Resource, f *fixture) {
	for _, c := range callers {
		parent, members := f.create(j.cloud, "p1")
		collection := path(r.URL(), parent)
		project, situation := "", situationOf(r)
		switch {
		case c.name == "admin", c.name == "service":
			project = "p1"
		case c.ProjectID == "p2":
			situation = "below"
		}
		body := document(r, members, project)
		a := j.call(c.name, "POST", collection, body)
		what := "POST " + collection + " " + body
		want := http.StatusForbidden
		switch {
		case c.name == "nobody":
			want = http.StatusUnauthorized
		case j.mayWrite(r, "create", situation, c.name, members):
			want = http.StatusCreated
			if situation == "below" && j.foreign(members) {
				want = http.StatusNotFound
				if a.Status == http.StatusBadRequest || a.Status == http.StatusConflict {
					want = a.Status // of a value that names nothing they can see
				}
			}
		}
		j.expect(what, c.name, a, want)
		if a.Status == http.StatusCreated {
			j.must(map[bool]string{true: "service", false: "admin"}[f.by == "service"], "DELETE", collection+"/"+j.named(f, members, a), "")
		}
	}
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// foreign tells whether a body names objects that are not for all.
func (c *cloud) foreign(body string) bool {
	return slices.ContainsFunc(uuid.FindAllString(body, -1), func(id string) bool {
		for _, shared := range c.shared {
			if id == shared {
				return false
			}
		}
		return true
	})
}

// lists: an object is in a list if the caller may get it.
func (j *judge) lists(r *resource.Resource, collection, id string) {
	if !r.Serves(resource.List) {
		return
	}
	for _, c := range callers {
		a := j.call(c.name, "GET", collection, "")
		if c.name == "nobody" {
			j.expect("GET "+collection, c.name, a, http.StatusUnauthorized)
			continue
		}
		if r.Parent != nil && !j.may(r.Parent.PolicyAction("get"), situationOf(r.Parent), c.name) && a.Status == http.StatusNotFound {
			j.expect("GET "+collection, c.name, a, http.StatusNotFound) // there is no such parent for them
			continue
		}
		j.expect("GET "+collection, c.name, a, http.StatusOK)
		if id == "" {
			continue
		}
		j.checked++
		if have, want := strings.Contains(string(a.Body), `"`+id+`"`), j.may(r.PolicyAction("get"), situationOf(r), c.name); have != want {
			j.t.Errorf("GET %s by %s: %s is listed: %v; the matrix says %v", collection, c.name, id, have, want)
			continue
		}
		j.right++
	}
}

// shown: every visible attribute is shown to whom its rule lets, if it has one.
func (j *judge) shown(r *resource.Resource, caller string, a *servertest.Answer) {
	var doc map[string]map[string]any
	if err := a.Decode(&doc); err != nil {
		j.t.Errorf("%s: %v", a, err)
		return
	}
	for _, attribute := range r.Attributes() {
		name := r.PolicyAction("get") + ":" + attribute.Name
		if _, ruled := j.decided[name]; !ruled || !attribute.Flags.Has(resource.Visible) {
			continue
		}
		j.checked++
		// segments stand for the three provider attributes and the other way round.
		_, have := doc[r.Name][attribute.Name]
		want := j.may(name, situationOf(r), caller)
		if have != want && (have || attribute.Name != "segments") {
			j.t.Errorf("%s: %s shown to %s: %v; the matrix says %v", r.Name, attribute.Name, caller, have, want)
			continue
		}
		j.right++
	}
}

// tags: all seven calls on an object's tags.
func (j *judge) tags(r *resource.Resource, at, caller string) {
	for _, call := range []struct {
		verb, method, path, body string
	}{
		{"update", "PUT", "/tags", `{"tags": ["a", "b"]}`},
		{"get", "GET", "/tags", ""},
		{"get", "GET", "/tags/a", ""},
		{"create", "POST", "/tags", `{"tags": ["c"]}`},
		{"update", "PUT", "/tags/d", ""},
		{"delete", "DELETE", "/tags/d", ""},
		{"delete", "DELETE", "/tags", ""},
	} {
		j.must("admin", "PUT", at+"/tags", `{"tags": ["a", "b", "d"]}`)
		allowed := j.may(call.verb+"_"+r.Name+":tags", situationOf(r), caller)
		j.expect(call.method+" "+at+call.path, caller, j.call(caller, call.method, at+call.path, call.body), j.status(r, allowed, caller, 2))
	}
}

// routes are the calls of no resource, by method and path: the path and the
// body to send. What they are about is p1's.
func routes() map[string]func(c *cloud) (path, body string) {
	return map[string]func(c *cloud) (path, body string){
		"GET /quotas":                      at("/quotas", ""),
		"POST /quotas":                     at("/quotas", `{}`),
		"GET /quotas/tenant":               at("/quotas/tenant", ""),
		"GET /quotas/project":              at("/quotas/project", ""),
		"GET /quotas/{project_id}":         at("/quotas/p1", ""),
		"GET /quotas/{project_id}/default": at("/quotas/p1/default", ""),
		"GET /quotas/{project_id}/details": at("/quotas/p1/details", ""),
		"PUT /quotas/{project_id}":         at("/quotas/p1", `{"quota": {"network": -1}}`),
		"DELETE /quotas/{project_id}": func(c *cloud) (string, string) {
			c.must("admin", "PUT", "/quotas/p7", `{"quota": {"network": -1}}`)
			return "/quotas/p7", ""
		},
		"GET /agents/{agent_id}/dhcp-networks":                 at("/agents/$agent/dhcp-networks", ""),
		"POST /agents/{agent_id}/dhcp-networks":                at("/agents/$agent/dhcp-networks", `{"network_id": "$addressed"}`),
		"DELETE /agents/{agent_id}/dhcp-networks/{network_id}": at("/agents/$agent/dhcp-networks/$addressed", ""),
		"GET /networks/{network_id}/dhcp-agents":               at("/networks/$network/dhcp-agents", ""),
		"GET /agents/{agent_id}/l3-routers":                    at("/agents/$agent/l3-routers", ""),
		"POST /agents/{agent_id}/l3-routers":                   at("/agents/$agent/l3-routers", `{"router_id": "$router"}`),
		"DELETE /agents/{agent_id}/l3-routers/{router_id}":     at("/agents/$agent/l3-routers/$router", ""),
		"GET /routers/{router_id}/l3-agents":                   at("/routers/$router/l3-agents", ""),
		"GET /flavors/{flavor_id}/next_providers":              at("/flavors/$flavor/next_providers", ""),
		"PUT /ports/{port_id}/bindings/{host}/activate": func(c *cloud) (string, string) {
			port := c.make("p1", "instance_port")
			c.must("service", "POST", "/ports/"+port+"/bindings", `{"binding": {"host": "h2"}}`)
			return "/ports/" + port + "/bindings/h2/activate", ""
		},
		"GET /auto-allocated-topology/{project_id}":    at("/auto-allocated-topology/p1?fields=dry-run", ""),
		"DELETE /auto-allocated-topology/{project_id}": at("/auto-allocated-topology/p1", ""),
	}
}

// after are answers to those who may that are no success: policy was passed, and what is asked for is not there.
var after = map[string][]int{
	"POST /quotas":                                         {http.StatusNotImplemented, http.StatusNotFound, http.StatusBadRequest},
	"POST /agents/{agent_id}/dhcp-networks":                {http.StatusConflict, http.StatusBadRequest, http.StatusNotFound},
	"DELETE /agents/{agent_id}/dhcp-networks/{network_id}": {http.StatusConflict, http.StatusNotFound},
	"POST /agents/{agent_id}/l3-routers":                   {http.StatusConflict, http.StatusBadRequest, http.StatusNotFound},
	"DELETE /agents/{agent_id}/l3-routers/{router_id}":     {http.StatusConflict, http.StatusNotFound},
	"GET /flavors/{flavor_id}/next_providers":              {http.StatusNotFound, http.StatusConflict},
	"GET /auto-allocated-topology/{project_id}":            {http.StatusConflict},
	"DELETE /auto-allocated-topology/{project_id}":         {http.StatusNotFound},
}

func at(path, body string) func(*cloud) (string, string) {
	return func(c *cloud) (string, string) { return c.expand("p1", path), c.expand("p1", body) }
}

// TestRoutes is TestCalls for what is of no resource; there, who may not is told so.
func TestRoutes(t *testing.T) {
	j := newJudge(t)
	for _, r := range j.Core.Registry.Routes() {
		name := r.Method + " " + r.Path
		request, ok := routes()[name]
		if !ok {
			t.Errorf("%s: routes lacks a line", name)
			continue
		}
		situation := "own"
		if r.Path == "/quotas" { // of no one project
			situation = "shared"
		}
		for _, c := range callers {
			path, body := request(j.cloud)
			a := j.call(c.name, r.Method, path, body)
			want := http.StatusForbidden
			switch {
			case c.name == "nobody":
				want = http.StatusUnauthorized
			case name == "GET /quotas/{project_id}/details": // decided by no rule, as in Neutron
				if c.ProjectID == "p1" || slices.Contains(c.Roles, "admin") {
					want = 2
				}
			case r.Open, r.OwnFree && c.ProjectID == "p1", j.may(r.Action, situation, c.name):
				want = 2
				if slices.Contains(after[name], a.Status) {
					want = a.Status
				}
			}
			j.expect(r.Method+" "+path+" "+body, c.name, a, want)
		}
	}
	t.Logf("%d of %d calls are answered as the matrix says (%d granted, %d refused)", j.right, j.checked, j.granted, j.denied)
}
