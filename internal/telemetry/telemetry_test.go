package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	var text, structured bytes.Buffer
	l := NewLogger(LogOptions{Output: &text})
	l.Debug("not shown")
	l.Info("port wired", "port", "p1")
	if got := text.String(); !regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO msg="port wired" port=p1\n$`).MatchString(got) {
		t.Errorf("text: %q", got)
	}
	NewLogger(LogOptions{Output: &structured, JSON: true, Debug: true}).Debug("shown", "n", 1)
	var record map[string]any
	if err := json.Unmarshal(structured.Bytes(), &record); err != nil || record["level"] != "DEBUG" || record["n"] != 1.0 {
		t.Errorf("JSON: %v %v", record, err)
	}
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestHandler(t *testing.T) {
	var reason error
	h := NewHandler(Options{Registry: NewRegistry(), Ready: func() error { return reason }})
	if code, body := get(t, h, "/metrics"); code != 200 || !strings.Contains(body, "isospin_build_info{") || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d %s", code, body)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, h, path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	reason = errors.New("the store is away")
	if code, body := get(t, h, "/readyz"); code != 503 || body != "the store is away\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	if code, _ := get(t, h, "/healthz"); code != 200 {
		t.Errorf("healthz while not ready: %d", code)
	}
}

func TestServe(t *testing.T) {
	addresses := make(chan string, 1)
	logger := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		if m := regexp.MustCompile(`address=(\S+)`).FindSubmatch(p); m != nil {
			addresses <- string(m[1])
		}
	}), nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	o := Options{Registry: NewRegistry(), Address: "127.0.0.1:0", Logger: logger}
	go func() { done <- Serve(ctx, o) }()
	address := <-addresses
	response, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("%q", body)
	}
	o.Address = address
	if err := Serve(ctx, o); err == nil {
		t.Error("no error for an address in use")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	o.Address = ""
	if err := Serve(ctx, o); err != nil {
		t.Error(err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }
