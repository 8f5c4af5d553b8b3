package rest_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"isospin/internal/rest"
)

// serve starts a server whose one request under way waits for release, and
// returns when that request has arrived.
func serve(t *testing.T, drain time.Duration) (stop func(), release chan struct{}, answered chan error, ended chan error) {
	t.Helper()
	arrived := make(chan struct{})
	release = make(chan struct{})
	server := rest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	}), slog.New(slog.NewTextHandler(io.Discard, nil)))
	server.Drain = drain
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	ended, answered = make(chan error, 1), make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	go func() {
		answer, err := http.Get("http://" + listener.Addr().String())
		if err == nil {
			err = answer.Body.Close()
		}
		answered <- err
	}()
	<-arrived
	return stop, release, answered, ended
}

func within(t *testing.T, c chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("no end in sight")
		return nil
	}
}

func TestServeDrains(t *testing.T) {
	stop, release, answered, ended := serve(t, time.Minute)
	stop()
	close(release)
	if err := within(t, answered); err != nil {
		t.Errorf("request under way: %v", err)
	}
	if err := within(t, ended); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestServeEndsInBoundedTime(t *testing.T) {
	stop, _, answered, ended := serve(t, time.Millisecond)
	stop()
	if err := within(t, ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("end: %v", err)
	}
	if err := within(t, answered); err == nil {
		t.Error("the request that took too long was answered")
	}
}

// stuck is a log that takes nothing.
type stuck struct{ release chan struct{} }

func (s stuck) Write(line []byte) (int, error) {
	<-s.release
	return len(line), nil
}

func TestAnswersDoNotWaitForTheLog(t *testing.T) {
	log := stuck{make(chan struct{})}
	server := httptest.NewServer(newWorld(func(o *rest.Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) }).handler)
	defer server.Close()
	defer close(log.release)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v2.0/ports/p1", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%d %s %v", answer.StatusCode, body, err)
	}
}
