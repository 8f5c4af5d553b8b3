package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// byHeader takes callers by their word.
type byHeader struct{}

func (byHeader) Authenticate(r *http.Request) (*identity.Context, error) {
	return &identity.Context{ProjectID: r.Header.Get("X-Project"), UserID: "user"}, nil
}

// held is an Enforcer with whom lists stop until there is something in the channel.
type held struct {
	rest.AllowAll
	on chan struct{}
}

func (h held) Visible(_ context.Context, _ *resource.Resource, objects []resource.Object) []resource.Object {
	<-h.on
	return objects
}

// slowReader is a client that takes no answer until it is closed.
type slowReader struct {
	*httptest.ResponseRecorder
	until chan struct{}
}

func (s slowReader) Write(b []byte) (int, error) {
	<-s.until
	return s.ResponseRecorder.Write(b)
}

func TestWholeListsAndRequestsHavePlacesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := make(chan struct{})
		w := newWorld(func(o *rest.Options) {
			o.Authenticator, o.Enforcer = byHeader{}, held{on: on}
			o.Limits = rest.Limits{Requests: 2, ProjectRequests: 1, Lists: 2, ProjectLists: 1, Queue: 4, ProjectQueue: 1}
		})
		answers := make(chan string, 10)
		ask := func(request string) {
			go func() { answers <- request[:12] + " " + text(w.do(request))[:3] }()
			synctest.Wait()
		}
		next := func(want string) {
			t.Helper()
			synctest.Wait()
			select {
			case got := <-answers:
				if got != want {
					t.Errorf("answered %q, wanted %q", got, want)
				}
			default:
				t.Errorf("nothing is answered, wanted %q", want)
			}
		}
		ask("GET /v2.0/ports\nX-Project: a\n\n")
		ask("GET /v2.0/ports?limit=2000\nX-Project: a\n\n")
		// The queue of a's lists is full, and only that.
		check(t, w, "GET /v2.0/ports\nX-Project: a\n\n", "503 Retry-After: 1 ServiceUnavailable: The server has more requests waiting than it accepts; try again later.")
		ask("GET /v2.0/ports/p1\nX-Project: a\n\n")
		next("GET /v2.0/po 200")
		ask("PUT /v2.0/ports/p1\nX-Project: a\n\n{\"port\": {\"name\": \"x\"}}")
		next("PUT /v2.0/po 200")
		ask("GET /v2.0/security-groups\nX-Project: b\n\n")
		// a and b are each at one; the other of a waits for its own.
		on <- struct{}{}
		next("GET /v2.0/po 200")
		on <- struct{}{}
		next("GET /v2.0/se 200")
		on <- struct{}{}
		next("GET /v2.0/po 200")

		// A short list is a request as others, and holds a's only place.
		ask("GET /v2.0/ports?limit=1\nX-Project: a\n\n")
		ask("GET /v2.0/security-groups/g1\nX-Project: a\n\n")
		ask("DELETE /v2.0/ports/p9\nX-Project: b\n\n")
		next("DELETE /v2.0 404")
		on <- struct{}{}
		synctest.Wait()
		if len(answers) != 2 {
			t.Errorf("%d are answered, wanted 2", len(answers))
		}
	})
}

func TestSlowClientHoldsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(o *rest.Options) {
			o.Limits = rest.Limits{Requests: 1, Lists: 1, Queue: 1, ProjectQueue: 1}
		})
		until := make(chan struct{})
		go w.handler.ServeHTTP(slowReader{httptest.NewRecorder(), until}, httptest.NewRequest(http.MethodGet, "/v2.0/ports", nil))
		synctest.Wait()
		// One that does not send its body.
		body, end := blockedBody(t)
		go w.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/v2.0/ports", body))
		synctest.Wait()
		if got := text(w.do("GET /v2.0/ports\n\n"))[:3]; got != "200" {
			t.Errorf("a list while another is being read: %s", got)
		}
		if got := text(w.do("DELETE /v2.0/ports/none\n\n"))[:3]; got != "404" {
			t.Errorf("a request while another is being sent: %s", got)
		}
		close(until)
		end()
	})
}

func TestPlacesAreGivenBack(t *testing.T) {
	w := newWorld(func(o *rest.Options) {
		o.Limits = rest.Limits{Requests: 1, Lists: 1}
	})
	for range 3 {
		w.ports.panics = true
		if got := text(w.do("GET /v2.0/ports\n\n"))[:3]; got != "500" {
			t.Errorf("a broken list: %s", got)
		}
		w.ports.panics = true
		if got := text(w.do("GET /v2.0/ports/p1\n\n"))[:3]; got != "500" {
			t.Errorf("a broken request: %s", got)
		}
		w.ports.err = errAway
		if got := text(w.do("GET /v2.0/ports\n\n"))[:3]; got != "503" {
			t.Errorf("a list without a database: %s", got)
		}
		if got := text(w.do("GET /v2.0/nothing\n\n"))[:3]; got != "404" {
			t.Errorf("nothing: %s", got)
		}
	}
}

// blockedBody is a body of which nothing comes until end.
func blockedBody(t *testing.T) (body *pipe, end func()) {
	t.Helper()
	p := &pipe{end: make(chan struct{})}
	return p, func() { close(p.end) }
}

type pipe struct{ end chan struct{} }

func (p *pipe) Read([]byte) (int, error) {
	<-p.end
	return 0, http.ErrBodyReadAfterClose
}
