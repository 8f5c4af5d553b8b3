// Package netns makes, lists, deletes and enters named network namespaces, in
// the way of ip-netns(8): a name is a file below Dir onto which the namespace
// is bind-mounted, so `ip netns` shows ours and we see those of others.
//
// The process itself may live in any network and mount namespace: nothing here
// takes the initial one for granted, and the empty name always means the one
// the process runs in.
//
// It must not know what a namespace is for, nor what is inside.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where the names of namespaces are, as in iproute2.
const Dir = "/run/netns"

// ErrNotExist is in the chain of errors about a name that no namespace has.
var ErrNotExist = fs.ErrNotExist

func path(name string) (string, error) {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("network namespace name %q is not valid", name)
	}
	return filepath.Join(Dir, name), nil
}

// Create makes a namespace with its loopback device up. One that exists is
// success: created is false then. Safe for concurrent use.
func Create(name string) (created bool, err error) {
	file, err := path(name)
	if err != nil {
		return false, err
	}
	if ok, err := Exists(name); err != nil || ok {
		return false, err
	}
	if err := shareDir(); err != nil {
		return false, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return false, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	f.Close()

	err = visit(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("loopback up: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", file, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return nil
	})
	if err != nil {
		os.Remove(file)
		return false, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return true, nil
}

// shareDir makes Dir a shared mount, as iproute2 does: a namespace that is
// deleted here is then deleted in the mount namespaces made from ours too, and
// does not live on in them unseen.
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", Dir, err)
	}
	err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("share mount %s: %w", Dir, err)
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// Delete removes a namespace's name; the namespace ends when its last process
// and socket do. A name that is absent is success.
func Delete(name string) error {
	file, err := path(name)
	if err != nil {
		return err
	}
	// A name may be mounted upon more than once.
	for {
		err := unix.Unmount(file, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount network namespace %s: %w", name, err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// Exists tells whether the name is that of a live namespace. A file that was
// left behind without its mount (the machine restarted on a persistent /run)
// is none.
func Exists(name string) (bool, error) {
	file, err := path(name)
	if err != nil {
		return false, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(file, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, fmt.Errorf("network namespace %s: %w", name, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// List returns the names of the live namespaces, sorted.
func List() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if ok, err := Exists(e.Name()); err == nil && ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Open returns a handle of the namespace, for SetNsFd of a link. The empty
// name is the namespace of the process.
func Open(name string) (*os.File, error) {
	// Not /proc/self: that is the first thread's, and this one's namespace is
	// the process's whenever it runs Go code outside of Do.
	file := "/proc/thread-self/ns/net"
	if name != "" {
		var err error
		if file, err = path(name); err != nil {
			return nil, err
		}
		if ok, err := Exists(name); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("network namespace %s: %w", name, ErrNotExist)
		}
	} else {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return f, nil
}

// Do runs fn with its thread in the namespace and returns what fn returns.
// Sockets and child processes that fn itself makes belong to the namespace for
// their life; goroutines that fn starts do not run in it. The empty name runs
// fn in the namespace of the process.
//
// The thread is given back only when its namespace could be restored; else it
// ends with the goroutine.
func Do(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	target, err := Open(name)
	if err != nil {
		return err
	}
	defer target.Close()
	return visit(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return fn()
	})
}

// visit runs fn, which may change the network namespace of its thread, and
// takes the thread back. Letting the thread end instead would do for most of
// them, but the first one never ends, and /proc shows its namespace as that of
// the whole process.
func visit(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Sent also if fn ends its goroutine (testing's FailNow does).
		err := errors.New("function ended its goroutine")
		defer func() { done <- err }()

		runtime.LockOSThread()
		home, e := os.Open("/proc/thread-self/ns/net")
		if e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open own network namespace: %w", e)
			return
		}
		defer home.Close()
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = fn()
	}()
	return <-done
}
