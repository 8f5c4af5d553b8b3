package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func self(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return s
}

func TestCreateListDelete(t *testing.T) {
	netnstest.Require(t)
	if err := netns.Delete("absent"); err != nil {
		t.Errorf("delete of an absent namespace: %v", err)
	}
	for i, want := range []bool{true, false} {
		if created, err := netns.Create("one"); err != nil || created != want {
			t.Fatalf("create %d: %v, %v", i, created, err)
		}
	}
	// iproute2 sees ours, and we see iproute2's.
	netnstest.Run(t, "", "ip netns add two")
	if out := netnstest.Run(t, "", "ip netns list"); !strings.Contains(out, "one") {
		t.Errorf("ip netns list: %s", out)
	}
	// A file without a mount is no namespace.
	if err := os.WriteFile(netns.Dir+"/stale", nil, 0o444); err != nil {
		t.Fatal(err)
	}
	names, err := netns.List()
	if err != nil || strings.Join(names, " ") != "one two" {
		t.Errorf("list: %v, %v", names, err)
	}
	if created, err := netns.Create("stale"); err != nil || !created {
		t.Errorf("create over a stale file: %v, %v", created, err)
	}
	for _, n := range []string{"one", "two", "stale", "stale"} {
		if err := netns.Delete(n); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if names, _ := netns.List(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00b"} {
		if _, err := netns.Create(bad); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
	}
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	netnstest.New(t, "in")
	home := self(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := netns.Do("in", func() error {
				if self(t) == home {
					t.Error("not inside")
				}
				// Children are inside too.
				out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
				if strings.TrimSpace(string(out)) == home {
					t.Error("child is not inside")
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if self(t) != home {
				t.Error("did not come back")
			}
		})
	}
	wg.Wait()
	// Also the thread that /proc shows for the process.
	for i := range 50 {
		name := fmt.Sprintf("n%d", i)
		if _, err := netns.Create(name); err != nil {
			t.Fatal(err)
		}
		netns.Delete(name)
		if p, _ := os.Readlink("/proc/self/ns/net"); p != home {
			t.Fatal("the process is elsewhere")
		}
	}
	want := errors.New("mine")
	if err := netns.Do("in", func() error { return want }); err != want {
		t.Errorf("error was changed: %v", err)
	}
	if err := netns.Do("absent", func() error { return nil }); !errors.Is(err, netns.ErrNotExist) {
		t.Errorf("absent namespace: %v", err)
	}
}

func TestSocketsOutliveTheVisit(t *testing.T) {
	netnstest.New(t, "serve")
	ctx := context.Background()
	l, err := netns.Listen(ctx, "serve", nil, "tcp", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "hello")
		c.Close()
	}()
	if c, err := net.Dial("tcp", "127.0.0.1:7777"); err == nil {
		c.Close()
		t.Error("reached from outside")
	}
	var got []byte
	if err := netns.Do("serve", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:7777")
		if err != nil {
			return err
		}
		got, err = io.ReadAll(c)
		return err
	}); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	lc := &net.ListenConfig{Control: netns.BindToDevice("lo")}
	p, err := netns.ListenPacket(ctx, "serve", lc, "udp4", "0.0.0.0:67")
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}
