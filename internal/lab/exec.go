package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"isospin/internal/kernel/netns"
)

// Node returns the node of that name.
func (r *Record) Node(name string) (NodeRecord, error) {
	var names []string
	for _, n := range r.Nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return NodeRecord{}, fmt.Errorf("lab %s has no %q; it has %q", r.ID, name, names)
}

// Exec replaces this process by a program inside of a node. It returns only if
// that fails.
func (r *Record) Exec(n NodeRecord, program string, args ...string) error {
	runtime.LockOSThread() // an exec keeps the namespaces of the thread that calls it
	if n.Kind != "host" {
		ns, err := netns.Open(n.Namespace)
		if err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.Name, err)
		}
		// /sys/class/net is that of the namespace in which /sys was mounted.
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter %s: %w", n.Name, err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("enter %s: %w", n.Name, err)
		}
		_ = unix.Unmount("/sys", unix.MNT_DETACH)
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return fmt.Errorf("enter %s: mount /sys: %w", n.Name, err)
		}
	} else {
		task := "/proc/" + strconv.Itoa(r.PID) + "/task/" + strconv.Itoa(n.Thread) + "/ns/"
		for _, kind := range []struct {
			name string
			flag int
		}{{"net", unix.CLONE_NEWNET}, {"mnt", unix.CLONE_NEWNS}} {
			f, err := os.Open(task + kind.name)
			if err != nil {
				return fmt.Errorf("enter %s: %w", n.Name, err)
			}
			defer f.Close()
			if kind.flag == unix.CLONE_NEWNS {
				// A mount namespace cannot be entered while other threads share the root.
				if err := unix.Unshare(unix.CLONE_FS); err != nil {
					return fmt.Errorf("enter %s: %w", n.Name, err)
				}
			}
			if err := unix.Setns(int(f.Fd()), kind.flag); err != nil {
				return fmt.Errorf("enter %s: %w", n.Name, err)
			}
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, append([]string{program}, args...), os.Environ()))
}
