package up

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/lab"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// screen is what a user would see; seen is closed when text has appeared.
type screen struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := strings.Contains(s.buf.String(), s.text)
	s.buf.Write(p)
	if !before && strings.Contains(s.buf.String(), s.text) {
		close(s.seen)
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestUp is `isospin up` from start to Ctrl-C, with the real server and agents.
func TestUp(t *testing.T) {
	netnstest.Require(t)
	if err := lab.Check(); err != nil {
		t.Skip(err)
	}
	executable := filepath.Join(t.TempDir(), "isospin")
	if out, err := exec.Command("go", "build", "-o", executable, "isospin/cmd/isospin").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	runDir := t.TempDir()
	out := &screen{text: "Ctrl-C", seen: make(chan struct{})}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Out: out, Logger: logger,
			Lab: lab.Options{Logger: logger, Executable: executable, Listen: "127.0.0.1:0", RunDir: runDir},
		})
	}()
	select {
	case <-out.seen:
	case err := <-ended:
		t.Fatalf("%v\n%s", err, out)
	}
	running, err := lab.Running(runDir)
	if err != nil || len(running) != 1 || running[0].Endpoint == "" {
		t.Errorf("labs that run: %v, %v", running, err)
	}
	var processes []int
	for _, r := range running {
		for _, p := range r.Processes {
			processes = append(processes, p.PID)
		}
	}
	if len(processes) != 3 {
		t.Errorf("server and agents: %v", processes)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", out)
	if strings.Contains(out.String(), "FAIL") {
		t.Error("a check failed")
	}
	if names, err := netns.List(); err != nil || len(names) > 0 {
		t.Errorf("namespaces are left: %v, %v", names, err)
	}
	if left, err := os.ReadDir(runDir); err != nil || len(left) > 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
	for _, pid := range processes {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is left", pid)
		}
	}
}

func TestErrors(t *testing.T) {
	netnstest.Require(t)
	if err := lab.Check(); err != nil {
		t.Skip(err)
	}
	o := Options{
		Out: &bytes.Buffer{}, Logger: slog.New(slog.DiscardHandler), Once: true,
		Lab: lab.Options{Logger: slog.New(slog.DiscardHandler), Executable: "/bin/false", Listen: "127.0.0.1:0", RunDir: t.TempDir()},
	}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "server ended (exit status 1)") {
		t.Errorf("a server that ends: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, o); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
	if names, err := netns.List(); err != nil || len(names) > 0 {
		t.Errorf("namespaces are left: %v, %v", names, err)
	}
}

func TestReport(t *testing.T) {
	out := &bytes.Buffer{}
	r := &run{out: out}
	ctx := t.Context()
	_ = r.step(ctx, "one", time.Second, func(context.Context) (string, error) { return "", nil })
	err := r.step(ctx, "two", time.Millisecond, func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "ignored", errors.Join(errors.New("a"), errors.New("b"))
	})
	if err == nil || r.passed != 1 || r.failed != 1 {
		t.Errorf("passed %d, failed %d, %v", r.passed, r.failed, err)
	}
	r.report("three", "detail", 1500*time.Millisecond, nil)
	lines := strings.Split(out.String(), "\n")
	if !strings.HasSuffix(lines[0], "  one") || !strings.HasPrefix(lines[1], "  FAIL") || !strings.HasSuffix(lines[1], "  two (a; b)") ||
		lines[2] != "  ok     1.50 s  three (detail)" {
		t.Errorf("%q", lines)
	}
	interrupted, cancel := context.WithCancel(ctx)
	_ = r.step(interrupted, "four", time.Second, func(context.Context) (string, error) { cancel(); return "", errors.New("no") })
	if strings.Contains(out.String(), "four") {
		t.Error("what was interrupted is reported as failed")
	}
}

func TestComplaints(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	text := "time=1 level=INFO msg=a\ntime=2 level=WARN msg=b\n{\"level\":\"ERROR\"}\npanic: c\ntime=3 level=DEBUG msg=d\n"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := complaints(log, 2), []string{`{"level":"ERROR"}`, "panic: c"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := complaints(log+"x", 2); len(got) != 1 || !strings.Contains(got[0], "no such file") {
		t.Errorf("%q", got)
	}
}
