// Package dump reads whole tables of the kernel over netlink without half of
// them missing: a dump that the kernel marks as interrupted, because the table
// changed meanwhile, is read again.
//
// It must not know what is being read.
package dump

import (
	"errors"
	"syscall"

	"github.com/vishvananda/netlink"
)

// attempts is far above what a table that changes now and then needs; one that
// never stands still ends as an error.
const attempts = 32

// Read calls list until its result is whole.
func Read[T any](list func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		v, err := list()
		if err == nil || i == attempts || !(errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, syscall.EINTR)) {
			return v, err
		}
	}
}
