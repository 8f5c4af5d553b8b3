package rest_test

import (
	"bufio"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/rest"
	"isospin/internal/store"
	"isospin/internal/watch"
)

// tokens lets a caller in as long as its token is good.
type tokens struct{ refused atomic.Pointer[error] }

func (a *tokens) Authenticate(*http.Request) (*identity.Context, error) {
	if err := a.refused.Load(); err != nil {
		return nil, *err
	}
	return &identity.Context{ProjectID: "demo", Roles: []string{"member"}}, nil
}

// A watch says where it is from time to time, outlives a Keystone that is away
// for a while, and ends with its token. None of it is a slow request.
func TestWatchLivesAsLongAsItsToken(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{Connection: "sqlite:///" + filepath.Join(t.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	metrics, auth := prometheus.NewRegistry(), &tokens{}
	w := newWorld(func(o *rest.Options) {
		o.Authenticator, o.Metrics = auth, metrics
		o.Watch = watch.New(watch.Options{Store: s, Registry: o.Registry, Policy: rest.AllowAll{}, Logger: o.Logger})
		o.Pace = rest.Pace{Heartbeat: 5 * time.Millisecond, Revalidation: 20 * time.Millisecond}
	})
	server := httptest.NewServer(w.handler)
	defer server.Close()
	answer, err := http.Get(server.URL + "/v2.0/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "application/x-ndjson" || answer.Header.Get("X-Isospin-Sequence") != "0" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	lines := bufio.NewScanner(answer.Body)
	marks := func(n int) {
		t.Helper()
		for range n {
			if !lines.Scan() || lines.Text() != `{"sequence":0}` {
				t.Fatalf("line %s: %v", lines.Text(), lines.Err())
			}
		}
	}
	refuse := func(kind fault.Kind) {
		err := error(fault.New(kind, "", "no"))
		auth.refused.Store(&err)
	}
	marks(10)
	refuse(fault.Unavailable)
	marks(5)
	auth.refused.Store(nil)
	marks(10)
	refuse(fault.Unauthenticated)
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.HasPrefix(last, `{"error":{"type":"Unauthorized"`) {
		t.Errorf("the last line is %s (%v)", last, lines.Err())
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch f.GetName() {
		case "isospin_watches_ended_total":
			if m := f.GetMetric()[0]; m.GetLabel()[0].GetValue() != "Unauthorized" || m.GetCounter().GetValue() != 1 {
				t.Errorf("ended: %v", f)
			}
		case "isospin_api_request_duration_seconds":
			t.Errorf("a watch counts as a request: %v", f)
		}
	}
}
