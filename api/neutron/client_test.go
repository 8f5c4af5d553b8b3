package neutron

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serve answers each request with the next of answers and records what came.
func serve(t *testing.T, answers ...func(http.ResponseWriter)) (*Client, *[]string) {
	t.Helper()
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		if len(answers) == 0 {
			t.Errorf("unexpected %s %s", r.Method, r.URL)
			return
		}
		answers[0](w)
		answers = answers[1:]
	}))
	t.Cleanup(srv.Close)
	return &Client{Endpoint: srv.URL, HTTP: srv.Client()}, &got
}

func answer(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestRequests(t *testing.T) {
	c, got := serve(t,
		answer(201, `{"port":{"id":"p1","status":"DOWN","binding:host_id":"h1","resource_request":null}}`),
		answer(200, `{"port":{"id":"p1","security_groups":[]}}`),
		answer(200, `{"security_group_rule":{"id":"r1","protocol":null}}`),
		answer(200, `{"subnet_id":"s1","port_id":"p2"}`),
		answer(204, ``),
		answer(201, `{"networks":[{"id":"a"},{"id":"b"}]}`),
	)
	ctx := context.Background()
	port, err := Create(ctx, c, Port{NetworkID: "n1", HostID: Ptr("h1"), AdminStateUp: Ptr(false)})
	if err != nil || port.ID != "p1" || Value(port.HostID) != "h1" || port.Status != StatusDown {
		t.Errorf("create: %+v, %v", port, err)
	}
	if _, err = Update[Port](ctx, c, "p1", Port{SecurityGroups: &[]string{}}); err != nil {
		t.Error(err)
	}
	rule, err := Get[SecurityGroupRule](ctx, c, "a/b")
	if err != nil || rule.Protocol != nil {
		t.Errorf("get: %+v, %v", rule, err)
	}
	if _, err := c.AddRouterInterface(ctx, "r1", RouterInterface{SubnetID: "s1"}); err != nil {
		t.Error(err)
	}
	if err := Delete[FloatingIP](ctx, c, "f1"); err != nil {
		t.Error(err)
	}
	nets, err := CreateBulk(ctx, c, []Network{{Object: Object{Name: "x"}}, {Object: Object{Name: "y"}}})
	if err != nil || len(nets) != 2 || nets[1].ID != "b" {
		t.Errorf("bulk: %+v, %v", nets, err)
	}
	want := []string{
		`POST /v2.0/ports {"port":{"network_id":"n1","admin_state_up":false,"binding:host_id":"h1"}}`,
		`PUT /v2.0/ports/p1 {"port":{"security_groups":[]}}`,
		`GET /v2.0/security-group-rules/a%2Fb `,
		`PUT /v2.0/routers/r1/add_router_interface {"subnet_id":"s1"}`,
		`DELETE /v2.0/floatingips/f1 `,
		`POST /v2.0/networks {"networks":[{"name":"x"},{"name":"y"}]}`,
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestListFollowsPages(t *testing.T) {
	c, got := serve(t,
		answer(200, `{"security_groups":[{"id":"a"}],"security_groups_links":[{"rel":"next","href":"http://elsewhere/v2.0/security-groups?limit=1&marker=a"}]}`),
		answer(200, `{"security_groups":[{"id":"b"}],"security_groups_links":[{"rel":"previous","href":"http://elsewhere/"}]}`),
	)
	groups, err := List[SecurityGroup](context.Background(), c, url.Values{"limit": {"1"}})
	if err != nil || len(groups) != 2 || groups[1].ID != "b" {
		t.Fatalf("list: %+v, %v", groups, err)
	}
	want := []string{"GET /v2.0/security-groups?limit=1 ", "GET /v2.0/security-groups?limit=1&marker=a "}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	c, _ := serve(t,
		answer(404, `{"NeutronError":{"type":"PortNotFound","message":"Port p1 could not be found.","detail":""}}`),
		answer(401, `{"error":{"code":401,"title":"Unauthorized"}}`),
		answer(409, `{"NeutronError":"plain text"}`),
		answer(503, ``),
		answer(200, `not json`),
		answer(200, `{"ports":{}}`),
	)
	for _, want := range []string{
		"GET /v2.0/ports/p1: 404 PortNotFound: Port p1 could not be found.",
		`GET /v2.0/ports/p1: 401 {"error":{"code":401,"title":"Unauthorized"}}`,
		"GET /v2.0/ports/p1: 409 plain text",
		"GET /v2.0/ports/p1: 503 Service Unavailable",
		"decode answer of GET ports/p1: invalid character 'o' in literal null (expecting 'u')",
		`GET ports/p1: answer has no "port"`,
	} {
		_, err := Get[Port](context.Background(), c, "p1")
		if err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	err := errors.Join(errors.New("other"), &Error{Status: 404})
	if !IsNotFound(err) || IsConflict(err) || IsNotFound(nil) {
		t.Error("kinds of error are mixed up")
	}
}

// TestAnswerOfNulls: attributes that a server answers with null must decode.
func TestAnswerOfNulls(t *testing.T) {
	const text = `{"id":"x","name":"","description":null,"external_gateway_info":null,"routes":null,"created_at":null,"flavor_id":null,"revision_number":null,"tags":null}`
	var r Router
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.ExternalGatewayInfo != nil {
		t.Errorf("%+v, %v", r, err)
	}
}
