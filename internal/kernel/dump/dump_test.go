package dump_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"isospin/internal/kernel/dump"
)

func TestReadAgainWhatWasInterrupted(t *testing.T) {
	calls := 0
	list := func(interruptions int, err error) func() (int, error) {
		calls = 0
		return func() (int, error) {
			if calls++; calls <= interruptions {
				return -1, fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
			}
			return calls, err
		}
	}
	if n, err := dump.Read(list(3, nil)); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	broken := errors.New("broken")
	if n, err := dump.Read(list(0, broken)); n != 1 || err != broken {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := dump.Read(list(1<<30, nil)); !errors.Is(err, netlink.ErrDumpInterrupted) || calls > 100 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
