package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// managerSocket is where a service manager would listen.
func managerSocket(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return path, func() string {
		t.Helper()
		buf := make([]byte, 200)
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("nothing was told: %v", err)
		}
		return string(buf[:n])
	}
}

// TestServiceProcess runs this program as the units do, and listens in the place of systemd.
func TestServiceProcess(t *testing.T) {
	if os.Getenv("ISOSPIN_TEST_RUN") != "" {
		os.Args = append([]string{"isospin"}, strings.Split(os.Getenv("ISOSPIN_TEST_RUN"), "\n")...)
		main()
		os.Exit(0)
	}
	for _, role := range []string{"server", "agent"} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "neutron.conf")
			write := func(text string) {
				if err := os.WriteFile(file, []byte("[DEFAULT]\nauth_strategy = noauth\nbind_port = 0\nhost = h\nstate_path = "+dir+
					"\n[isospin]\nfeed_listen = http://127.0.0.1:0\nfeed_server = http://127.0.0.1:9\nagent_features = l2ovs\n[ovs]\novsdb_connection = unix:"+dir+"/none\n"+text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("")
			socket, next := managerSocket(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestServiceProcess$")
			cmd.Env = append(os.Environ(), "ISOSPIN_TEST_RUN="+role+"\n--config-file\n"+file, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=400000")
			log, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			text := func() string {
				text, _ := os.ReadFile(log.Name())
				return string(text)
			}
			expect := func(want string) {
				t.Helper()
				for {
					got := next()
					if got == want {
						return
					}
					if got != "WATCHDOG=1" {
						t.Fatalf("told %q, want %q; the log:\n%s", got, want, text())
					}
				}
			}
			signal := func(s syscall.Signal) {
				t.Helper()
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			expect("READY=1")
			expect("WATCHDOG=1")
			write("[DEFAULT]\ndebug = true\n")
			signal(syscall.SIGHUP)
			expect("RELOADING=1")
			expect("READY=1")
			write("[DEFAULT]\ndebug = perhaps\n") // a mistake ends nothing
			signal(syscall.SIGHUP)
			expect("RELOADING=1")
			expect("READY=1")
			expect("WATCHDOG=1")
			signal(syscall.SIGTERM)
			expect("STOPPING=1")
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("the end: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it does not end")
			}
			for _, want := range []string{"configuration was read anew", "nothing is taken from the changed configuration"} {
				if !strings.Contains(text(), want) {
					t.Errorf("the log has no %q:\n%s", want, text())
				}
			}
		})
	}
}

func TestReloadChangesTheLevel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	flags := &configFlags{files: []string{file}}
	_, logger, err := flags.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, debug := range []bool{true, false} {
		write("[DEFAULT]\ndebug = " + map[bool]string{true: "true", false: "false"}[debug])
		if err := flags.reload(); err != nil {
			t.Fatal(err)
		}
		if got := logger.Enabled(t.Context(), slog.LevelDebug); got != debug {
			t.Errorf("debug = %v: enabled %v", debug, got)
		}
	}
}

func TestWatchdogIsNotFedWhenNothingWorks(t *testing.T) {
	socket, next := managerSocket(t)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", "1")
	if watchdogInterval() != 0 {
		t.Error("the watchdog of another process")
	}
	t.Setenv("WATCHDOG_PID", "")
	m := newServiceManager(slog.New(slog.DiscardHandler), func() error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.run(ctx, func(context.Context) error {
			if asked++; asked <= 3 {
				return errors.New("stuck")
			}
			return nil
		})
	}()
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("told %q", got)
	}
	cancel()
	<-ended
	if asked < 4 {
		t.Errorf("fed after %d questions, although the first three had bad answers", asked)
	}
}

func TestAnswers(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	mutual := httptest.NewUnstartedServer(http.NotFoundHandler())
	mutual.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	mutual.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	mutual.StartTLS()
	defer mutual.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ask := func(address net.Addr, overTLS bool) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return answers(ctx, address, overTLS)
	}
	if err := ask(plain.Listener.Addr(), false); err != nil {
		t.Error(err)
	}
	if err := ask(mutual.Listener.Addr(), true); err != nil {
		t.Errorf("a certificate is wanted: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := answers(ctx, silent.Addr(), false); err == nil {
		t.Error("nothing answers, but it is fine")
	}
}
