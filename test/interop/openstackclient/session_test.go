package openstackclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// client returns the path of the command.
func client(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openstack")
	if err != nil {
		t.Skipf("skipped: there is no openstack command (python3-openstackclient): %v", err)
	}
	return path
}

// session is one process of the command that reads commands from its standard
// input: starting Python for each would take a second.
type session struct {
	t      *testing.T
	in     io.WriteCloser
	out    *json.Decoder
	errors *safeBuffer
	last   string
	lines  []string
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// take returns what was written since the last call.
func (s *safeBuffer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.b.String()
	s.b.Reset()
	return text
}

func start(t *testing.T, endpoint string) *session {
	t.Helper()
	return startWith(t, "OS_AUTH_TYPE=none", "OS_ENDPOINT="+endpoint)
}

// startWith is start with variables that say who calls what.
func startWith(t *testing.T, variables ...string) *session {
	t.Helper()
	cmd := exec.Command(client(t))
	cmd.Env = append(append(os.Environ(), variables...), "PYTHONUNBUFFERED=1", "HOME="+t.TempDir())
	s := &session{t: t, errors: &safeBuffer{}}
	cmd.Stderr = s.errors
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.in.Close()
		end := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer end.Stop()
		_, _ = io.Copy(io.Discard, out) // until it has ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("openstack ended badly: %v", err)
		}
		if text := s.errors.take(); strings.TrimSpace(text) != "" {
			t.Errorf("after %q: %s", s.last, text)
		}
	})
	return s
}

// run gives a command that answers nothing.
func (s *session) run(format string, args ...any) {
	s.t.Helper()
	s.last = fmt.Sprintf(format, args...)
	s.lines = append(s.lines, s.last)
	if _, err := io.WriteString(s.in, s.last+"\n"); err != nil {
		s.t.Fatalf("%s: %v: %s", s.last, err, s.errors.take())
	}
}

// ask gives a command with -f json and returns its answer.
func (s *session) ask(format string, args ...any) any {
	s.t.Helper()
	before := s.last
	s.run(format+" -f json", args...)
	var answer any
	read := make(chan error, 1)
	go func() { read <- s.out.Decode(&answer) }()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case err := <-read:
			if text := s.errors.take(); err != nil || strings.TrimSpace(text) != "" {
				s.t.Fatalf("%s (after %s): %v: %s", s.last, before, err, text)
			}
			return answer
		case <-time.After(50 * time.Millisecond):
			if text := s.errors.take(); strings.TrimSpace(text) != "" {
				s.t.Fatalf("%s (after %s): %s", s.last, before, text)
			}
		case <-deadline:
			s.t.Fatalf("%s: no answer", s.last)
		}
	}
}

// fails gives a command that is refused, and checks what it says.
func (s *session) fails(want, format string, args ...any) {
	s.t.Helper()
	s.run(format, args...)
	text := ""
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if text += s.errors.take(); strings.Contains(text, want) && strings.HasSuffix(text, "\n") {
			return
		}
	}
	s.t.Fatalf("%s: %q does not say %q", s.last, text, want)
}

// object is ask for an answer that is one object with at least these members;
// it returns the object.
func (s *session) object(want map[string]any, format string, args ...any) map[string]any {
	s.t.Helper()
	answer, ok := s.ask(format, args...).(map[string]any)
	if !ok {
		s.t.Fatalf("%s: no object", s.last)
	}
	for k, v := range want {
		if fmt.Sprint(answer[k]) != fmt.Sprint(v) {
			s.t.Errorf("%s: %s is %v, want %v", s.last, k, answer[k], v)
		}
	}
	return answer
}

// column is ask for a list; it returns the values of one column.
func (s *session) column(name, format string, args ...any) []string {
	s.t.Helper()
	list, ok := s.ask(format, args...).([]any)
	if !ok {
		s.t.Fatalf("%s: no list", s.last)
	}
	values := []string{}
	for _, row := range list {
		values = append(values, fmt.Sprint(row.(map[string]any)[name]))
	}
	return values
}

// library runs a program with c, a connection of the OpenStack SDK, in the
// interpreter that the command uses, and returns what it prints.
func library(t *testing.T, endpoint, program string) string {
	t.Helper()
	return python(t, client(t), []string{"OS_AUTH_TYPE=none", "OS_ENDPOINT=" + endpoint}, "import openstack\nc = openstack.connect()\n"+program)
}

// python runs a program in the interpreter of a script.
func python(t *testing.T, path string, variables []string, program string) string {
	t.Helper()
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(script), "\n")
	interpreter, ok := strings.CutPrefix(first, "#!")
	if !ok {
		t.Skipf("skipped: openstack is no script but begins with %.20q", first)
	}
	words := strings.Fields(interpreter)
	cmd := exec.Command(words[0], append(words[1:], "-c", program)...)
	cmd.Env = append(append(os.Environ(), variables...), "HOME="+t.TempDir())
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	return string(out)
}
