package lease_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"isospin/internal/lease"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// processVariable makes the test's program be one of those that are elected: "name connection".
const processVariable = "ISOSPIN_TEST_LEASE"

func TestMain(m *testing.M) {
	if name, connection, ok := strings.Cut(os.Getenv(processVariable), " "); ok {
		if err := elected(name, connection); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// elected says "works" and "stops", and for each line that it reads whether its transactions are let through.
func elected(name, connection string) error {
	s, err := store.Open(context.Background(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	l := lease.New(lease.Options{Store: s, Logger: slog.New(slog.DiscardHandler), Name: "work", Holder: name, Time: processSpan})
	go l.Run(context.Background(), func(ctx context.Context, _ time.Time) {
		fmt.Println("works")
		<-ctx.Done()
		fmt.Println("stops")
	})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch err := s.Tx(context.Background(), l.Held); {
		case err == nil:
			fmt.Println("held")
		case errors.Is(err, lease.ErrLost):
			fmt.Println("lost")
		default:
			fmt.Println("error:", err)
		}
	}
	return nil
}

const processSpan = 2 * time.Second

// program is a process that is elected.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  chan string
}

func start(t *testing.T, name, connection string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(os.Args[0]), said: make(chan string, 100)}
	p.cmd.Env = append(os.Environ(), processVariable+"="+name+" "+connection)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.said <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

// says waits for a word.
func (p *program) says(want string) {
	p.t.Helper()
	select {
	case word := <-p.said:
		if word != want {
			p.t.Fatalf("it says %q, not %q", word, want)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it does not say %q", want)
	}
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Work goes to another process when its holder is killed or paused; one that
// was paused stops when it goes on, and its transactions are refused.
func TestProcesses(t *testing.T) {
	for _, kind := range []string{storetest.PostgreSQL, storetest.MariaDB} {
		t.Run(kind, func(t *testing.T) {
			connection := storetest.NewOf(t, kind)
			s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			if err := s.Upgrade(t.Context(), lease.Schema); err != nil {
				t.Fatal(err)
			}
			first := start(t, "first", connection)
			first.says("works")
			second := start(t, "second", connection)
			first.signal(syscall.SIGKILL)
			begin := time.Now()
			second.says("works")
			t.Logf("killed: another works after %v of a lease of %v", time.Since(begin).Round(time.Millisecond), processSpan)

			third := start(t, "third", connection)
			second.signal(syscall.SIGSTOP)
			begin = time.Now()
			third.says("works")
			t.Logf("paused: another works after %v of a lease of %v", time.Since(begin).Round(time.Millisecond), processSpan)
			second.signal(syscall.SIGCONT)
			second.says("stops")
			if _, err := io.WriteString(second.stdin, "\n"); err != nil {
				t.Fatal(err)
			}
			second.says("lost")
			if _, err := io.WriteString(third.stdin, "\n"); err != nil {
				t.Fatal(err)
			}
			third.says("held")
		})
	}
}
