// Package sysctl reads and writes kernel settings of the network namespace of
// the calling thread; call it inside netns.Do for another one.
//
// It must not know why a setting is wanted.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const root = "/proc/sys/"

// Setting is one key below /proc/sys, with slashes since device names may have
// dots, and its value: "net/ipv4/ip_forward", "1".
type Setting struct {
	Key, Value string
}

func (s Setting) String() string { return s.Key + " = " + s.Value }

// Get returns the value of a key. A key that this kernel lacks is fs.ErrNotExist.
func Get(key string) (string, error) {
	if !filepath.IsLocal(key) {
		return "", fmt.Errorf("sysctl key %q is not valid", key)
	}
	b, err := os.ReadFile(root + key)
	if err != nil {
		return "", fmt.Errorf("sysctl %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Set gives each key its value, in order; those that have it are not written.
func Set(settings ...Setting) error {
	for _, s := range settings {
		old, err := Get(s.Key)
		if err != nil {
			return err
		}
		if old == s.Value {
			continue
		}
		if err := os.WriteFile(root+s.Key, []byte(s.Value), 0); err != nil {
			return fmt.Errorf("sysctl %s = %s: %w", s.Key, s.Value, err)
		}
	}
	return nil
}

// Device6 is how IPv6 behaves on a device of ours.
type Device6 struct {
	// Enabled: the device has IPv6 and a link-local address made from its MAC
	// address (RFC 4291, modified EUI-64).
	Enabled bool
	// AcceptAdvertisements: learn routes and addresses from routers on the link,
	// also while forwarding.
	AcceptAdvertisements bool
}

// SetDevice6 applies d to a device. Duplicate address detection is off: the
// addresses of our devices are known to be unique. A kernel without IPv6 is
// success unless it is to be on.
func SetDevice6(device string, d Device6) error {
	if device == "" || strings.ContainsAny(device, "/") {
		return fmt.Errorf("device name %q is not valid", device)
	}
	base := "net/ipv6/conf/" + device + "/"
	if _, err := Get(base + "disable_ipv6"); errors.Is(err, fs.ErrNotExist) && !d.Enabled {
		return nil
	}
	ra, disable := "0", "1"
	if d.AcceptAdvertisements {
		ra = "2" // also with forwarding on
	}
	if d.Enabled {
		disable = "0"
	}
	return Set(
		Setting{base + "accept_dad", "0"},
		Setting{base + "dad_transmits", "0"},
		Setting{base + "addr_gen_mode", "0"},
		Setting{base + "accept_ra", ra},
		Setting{base + "disable_ipv6", disable},
	)
}
