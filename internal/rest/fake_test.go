package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// port is an object with all kinds of attributes.
type port struct {
	resource.Standard
	Name     string              `json:"name"`
	Up       bool                `json:"admin_state_up"`
	Host     string              `json:"binding:host_id"`
	FixedIPs []map[string]string `json:"fixed_ips"`
	Network  string              `json:"network_id"`
	Security resource.Slots
}

// service is a resource.Service and resource.Tagger in memory. It answers
// lists with the first Limit objects and remembers what was asked.
type service struct {
	resource *resource.Resource
	model    *resource.Model
	encoder  *resource.Encoder
	objects  []*port
	asked    *resource.Query
	match    resource.Match
	err      error // of the next call
	panics   bool
}

func (s *service) next() error {
	err := s.err
	s.err = nil
	if s.panics {
		s.panics = false
		panic("the bottom fell out")
	}
	return err
}

func (s *service) Create(_ context.Context, items []*resource.Body) ([]resource.Object, error) {
	if err := s.next(); err != nil {
		return nil, err
	}
	var objects []resource.Object
	for _, body := range items {
		o := &port{}
		o.ID = fmt.Sprintf("new-%d", len(s.objects)+1)
		if err := s.model.Apply(s.resource, o, body); err != nil {
			return nil, fault.InvalidInput("%v", err)
		}
		s.objects = append(s.objects, o)
		objects = append(objects, o)
	}
	return objects, nil
}

func (s *service) find(id string) (*port, error) {
	if err := s.next(); err != nil {
		return nil, err
	}
	for _, o := range s.objects {
		if o.ID == id {
			return o, nil
		}
	}
	return nil, fault.New(fault.NotFound, "PortNotFound", "Port %s could not be found.", id)
}

func (s *service) Get(_ context.Context, id string) (resource.Object, error) {
	o, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (s *service) List(_ context.Context, q *resource.Query) ([]resource.Object, error) {
	s.asked = q
	if err := s.next(); err != nil {
		return nil, err
	}
	var objects []resource.Object
	for _, o := range s.objects {
		if q.Limit == 0 || len(objects) < q.Limit {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

func (s *service) Update(_ context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	s.match = match
	o, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if match.Revision != nil && *match.Revision != o.Revision {
		return nil, fault.New(fault.PreconditionFailed, "RevisionNumberConstraintFailed",
			"Constrained to %d, but current revision is %d", *match.Revision, o.Revision)
	}
	if err := s.model.Apply(s.resource, o, body); err != nil {
		return nil, fault.InvalidInput("%v", err)
	}
	return o, nil
}

func (s *service) Delete(_ context.Context, id string, match resource.Match) error {
	s.match = match
	o, err := s.find(id)
	if err == nil {
		s.objects = slices.DeleteFunc(s.objects, func(p *port) bool { return p == o })
	}
	return err
}

func (s *service) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}

func (s *service) Tags(_ context.Context, id string) ([]string, error) {
	o, err := s.find(id)
	if err != nil {
		return nil, fault.New(fault.NotFound, "TagResourceNotFound", "Resource ports %s could not be found.", id)
	}
	return o.Tags, nil
}

func (s *service) SetTags(ctx context.Context, id string, change func([]string) ([]string, error)) ([]string, error) {
	have, err := s.Tags(ctx, id)
	if err != nil {
		return nil, err
	}
	want, err := change(slices.Clone(have))
	if err != nil {
		return nil, err
	}
	o, err := s.find(id)
	if err != nil {
		return nil, err
	}
	o.Tags = want
	return want, nil
}

// newResource declares attributes of all kinds.
func newResource(name, collection, path string) (*resource.Resource, *service) {
	r := &resource.Resource{
		Name: name, Collection: collection, Path: path, Standard: true, Taggable: true,
		NotFound: "PortNotFound", NotFoundText: "Port %s could not be found.",
	}
	const shown, all = resource.Visible, resource.Visible | resource.Filter | resource.Sort
	r.Add(
		resource.Attribute{Name: "id", Flags: all | resource.PrimaryKey},
		resource.Attribute{Name: "tenant_id", Flags: all | resource.Post | resource.RequiredByPolicy, Validate: resource.Rules{"type:string": 255}},
		resource.Attribute{Name: "name", Flags: all | resource.Post | resource.Put, Default: "", Validate: resource.Rules{"type:string": 255}},
		resource.Attribute{Name: "admin_state_up", Flags: all | resource.Post | resource.Put, Default: true, Convert: "convert_to_boolean"},
		resource.Attribute{Name: "network_id", Flags: all | resource.Post, Required: true, Validate: resource.Rules{"type:string": 36}},
		resource.Attribute{
			Name: "fixed_ips", Flags: shown | resource.Filter | resource.Post | resource.Put, Default: resource.Unspecified,
			ConvertList: "convert_kvp_list_to_dict",
		},
		resource.Attribute{Name: "binding:host_id", Flags: all | resource.Post | resource.Put | resource.EnforcePolicy, Default: ""},
		resource.Attribute{Name: "port_security_enabled", Flags: shown | resource.Post | resource.Put, Default: true, Convert: "convert_to_boolean"},
		resource.Attribute{Name: "secret", Flags: resource.Post | resource.Put, Default: resource.Unspecified},
		resource.Attribute{Name: "description", Flags: shown | resource.Filter | resource.Post | resource.Put, Default: ""},
		resource.Attribute{Name: "tags", Flags: shown},
		resource.Attribute{Name: "revision_number", Flags: shown | resource.Filter | resource.Sort, Convert: "convert_to_int"},
		resource.Attribute{Name: "created_at", Flags: all},
		resource.Attribute{Name: "updated_at", Flags: all},
	)
	model := resource.NewModel[port]()
	s := &service{resource: r, model: model, encoder: model.NewEncoder(r)}
	r.Service = s
	return r, s
}

type unauthenticated struct{}

func (unauthenticated) Authenticate(*http.Request) (*identity.Context, error) {
	return nil, fault.New(fault.Unauthenticated, "", "no token")
}

var errAway = errors.New("the database is away")

// world is a handler over two collections: ports on the newer request path,
// security groups on the older one, which has no bulk.
type world struct {
	options rest.Options
	ports   *service
	groups  *service
	handler http.Handler
}

func newWorld(change ...func(*rest.Options)) *world {
	w := &world{}
	registry := resource.NewRegistry()
	registry.AddExtension(
		resource.Extension{Alias: "filter-validation", Name: "Filter parameters validation", Updated: "2018-03-21T10:00:00-00:00"},
		resource.Extension{Alias: "empty-string-filtering", Name: "Empty String Filtering Extension", Description: "Allow filtering by attributes with empty string value"},
	)
	var ports, groups *resource.Resource
	ports, w.ports = newResource("port", "ports", "ports")
	groups, w.groups = newResource("security_group", "security_groups", "security-groups")
	groups.Older, groups.NoBulk, groups.Standard, groups.Taggable = true, true, false, false
	groups.Actions = []resource.Action{
		{Method: http.MethodPut, Name: "add_rule", Do: func(_ context.Context, id string, body any) (any, error) {
			return map[string]any{"id": id, "body": body}, nil
		}},
		{Method: http.MethodGet, Name: "get_rules", Do: func(context.Context, string, any) (any, error) {
			return json.RawMessage(`{"rules":["a<b"]}`), nil
		}},
	}
	w.ports.objects = []*port{
		{Standard: resource.Standard{ID: "p1", ProjectID: "demo", Revision: 4, Tags: []string{"blue"}}, Name: "one", Up: true, Network: "n1"},
		{Standard: resource.Standard{ID: "p2", ProjectID: "demo"}, Name: "two", Network: "n1"},
	}
	w.groups.objects = []*port{{Standard: resource.Standard{ID: "g1", ProjectID: "demo"}, Name: "default"}}
	registry.Add(ports)
	registry.Add(groups)
	registry.Handle(
		resource.Route{Method: http.MethodGet, Path: "/quotas/{project_id}/details", Do: func(_ context.Context, c resource.Call) (any, error) {
			return map[string]any{"quota": c.Params["project_id"], "query": c.Query}, nil
		}},
		resource.Route{Method: http.MethodGet, Path: "/quotas/{project_id}", Do: func(_ context.Context, c resource.Call) (any, error) {
			return map[string]any{"quota": c.Params["project_id"]}, nil
		}},
		resource.Route{Method: http.MethodGet, Path: "/quotas/tenant", Do: func(ctx context.Context, _ resource.Call) (any, error) {
			return map[string]any{"tenant": map[string]any{"tenant_id": identity.From(ctx).ProjectID}}, nil
		}},
		resource.Route{Method: http.MethodPut, Path: "/quotas/{project_id}", Do: func(_ context.Context, c resource.Call) (any, error) {
			return c.Body, nil
		}},
		resource.Route{Method: http.MethodDelete, Path: "/quotas/{project_id}", Status: 204, Do: func(context.Context, resource.Call) (any, error) {
			return nil, nil
		}},
		resource.Route{Method: http.MethodPost, Path: "/agents/{agent_id}/dhcp-networks", Status: 201, Action: "create_dhcp-network", Do: func(context.Context, resource.Call) (any, error) {
			return nil, nil
		}},
	)
	w.options = rest.Options{
		Registry: registry, Authenticator: identity.NoAuth{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Away: []error{errAway},
	}
	for _, f := range change {
		f(&w.options)
	}
	w.handler = rest.New(w.options)
	return w
}

// request is "METHOD target", then header lines, an empty line and a body.
func (w *world) do(request string) *httptest.ResponseRecorder {
	head, body, _ := strings.Cut(request, "\n\n")
	lines := strings.Split(head, "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	r := httptest.NewRequest(method, "http://api.example"+target, strings.NewReader(body))
	for _, line := range lines[1:] {
		name, v, _ := strings.Cut(line, ": ")
		r.Header.Add(name, v)
	}
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, r)
	return recorder
}

// text is an answer as tests compare it: the status, some headers, the body.
func text(r *httptest.ResponseRecorder) string {
	s := fmt.Sprint(r.Code)
	for _, name := range []string{"Allow", "Retry-After", "Www-Authenticate"} {
		if v := r.Header().Get(name); v != "" {
			s += " " + name + ": " + v
		}
	}
	if body := r.Body.String(); body != "" {
		s += " " + body
	}
	return s
}

// check compares an answer with the wanted text; NeutronErrors are written "status type: message".
func check(t *testing.T, w *world, request, want string) {
	t.Helper()
	recorder := w.do(request)
	got := text(recorder)
	var envelope struct {
		NeutronError *struct{ Type, Message, Detail string }
	}
	if json.Unmarshal(recorder.Body.Bytes(), &envelope) == nil && envelope.NeutronError != nil {
		before, _, _ := strings.Cut(got, " {")
		got = before + " " + envelope.NeutronError.Type + ": " + envelope.NeutronError.Message
	}
	if got != want {
		t.Errorf("%s\n got %s\nwant %s", request, got, want)
	}
	if !strings.HasPrefix(recorder.Header().Get("X-Openstack-Request-Id"), "req-") {
		t.Errorf("%s: no request id", request)
	}
	if recorder.Code != http.StatusNoContent && recorder.Header().Get("Content-Length") != fmt.Sprint(recorder.Body.Len()) {
		t.Errorf("%s: Content-Length %q, body of %d", request, recorder.Header().Get("Content-Length"), recorder.Body.Len())
	}
}
