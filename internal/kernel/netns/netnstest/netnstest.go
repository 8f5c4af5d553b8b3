// Package netnstest gives a test a world of its own: a network namespace that
// takes the place of the host's, and an empty /run/netns that nobody else sees.
// All of it goes away with the test process, also when it is killed.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"isospin/internal/kernel/netns"
)

const inside = "NETNSTEST_INSIDE"

// Main runs the tests of a package in a child of this process that has its own
// network and mount namespace. Use it as the body of TestMain:
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
//
// Without root the tests run where they are, and those that call Require skip.
func Main(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(inside) != "" {
		if os.Getenv(inside) != "" {
			if err := prepare(); err != nil {
				fmt.Fprintln(os.Stderr, "netnstest:", err)
				os.Exit(2)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags, not Cloneflags: os/exec then also makes / private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "netnstest: network namespaces cannot be made, running without:", err)
		os.Exit(m.Run())
	}
	os.Exit(0)
}

func prepare() error {
	if err := os.MkdirAll(netns.Dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", netns.Dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", netns.Dir, err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return nil
}

// Require skips the test where it cannot have a world of its own.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("needs root and network namespaces of its own (TestMain must call netnstest.Main)")
	}
}

// New makes a namespace that is deleted with the test.
func New(t testing.TB, name string) string {
	t.Helper()
	Require(t)
	if _, err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(name) })
	return name
}

// Run runs a command line, split at spaces, in a namespace ("" is the host's)
// and returns its output; the test fails if the command does.
func Run(t testing.TB, name, line string) string {
	t.Helper()
	out, err := Try(name, line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// Try is Run that returns the error.
func Try(name, line string) (string, error) {
	var out []byte
	err := netns.Do(name, func() (err error) {
		args := strings.Fields(line)
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}
