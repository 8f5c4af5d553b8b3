// Package segment is what the segment type drivers share: ranges of ids and
// how one is taken from them. Each type is a directory of its own.
//
// It must not know networks' other attributes, nor how a segment is carried.
package segment

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/store"
)

// Factory makes the driver of a type from the configuration.
type Factory func(c *config.Config) (network.SegmentDriver, error)

var factories = map[string]Factory{}

// Register adds a type; a duplicate panics.
func Register(networkType string, f Factory) {
	if factories[networkType] != nil {
		panic("segment type " + networkType + " is registered twice")
	}
	factories[networkType] = f
}

// Load makes the drivers that [ml2] type_drivers names.
func Load(c *config.Config) (map[string]network.SegmentDriver, error) {
	drivers := map[string]network.SegmentDriver{}
	for _, name := range config.ML2TypeDrivers.Of(c) {
		f := factories[name]
		if f == nil {
			known := make([]string, 0, len(factories))
			for n := range factories {
				known = append(known, n)
			}
			sort.Strings(known)
			return nil, fmt.Errorf("[ml2] type_drivers: there is no type driver %q; known are %s", name, strings.Join(known, ", "))
		}
		d, err := f(c)
		if err != nil {
			return nil, err
		}
		drivers[name] = d
	}
	for _, name := range config.ML2TenantNetworkTypes.Of(c) {
		if drivers[name] == nil {
			return nil, fmt.Errorf("[ml2] tenant_network_types: %q is not among type_drivers; add it there", name)
		}
	}
	return drivers, nil
}

// Range is an inclusive range of segmentation ids.
type Range struct{ First, Last int }

// ParseRanges reads "1:1000"; option names the option for errors.
func ParseRanges(texts []string, option string, lowest, highest int) ([]Range, error) {
	var ranges []Range
	for _, t := range texts {
		first, last, ok := strings.Cut(strings.TrimSpace(t), ":")
		a, errA := strconv.Atoi(strings.TrimSpace(first))
		b, errB := strconv.Atoi(strings.TrimSpace(last))
		if !ok || errA != nil || errB != nil || a > b || a < lowest || b > highest {
			return nil, fmt.Errorf("%s: %q is not a range of ids within %d:%d; write it as 1:1000", option, t, lowest, highest)
		}
		ranges = append(ranges, Range{a, b})
	}
	return ranges, nil
}

// Take reserves one id; false: it is in use.
func Take(tx *store.Tx, networkType, physicalNetwork string, id int, segmentID string) (bool, error) {
	n, err := tx.Exec("INSERT INTO segment_allocation (network_type, physical_network, segmentation_id, segment_id) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
		networkType, physicalNetwork, id, segmentID)
	return n > 0, err
}

// tries at random before the ranges are searched: with half of them in use, all fail once in 256 times.
const tries = 8

// TakeAny reserves some free id of the ranges; network.ErrNoneFree when there is none.
func TakeAny(tx *store.Tx, networkType, physicalNetwork string, ranges []Range, segmentID string) (int, error) {
	total := 0
	for _, r := range ranges {
		total += r.Last - r.First + 1
	}
	if total == 0 {
		return 0, network.ErrNoneFree
	}
	for range tries {
		id := nth(ranges, rand.IntN(total))
		if ok, err := Take(tx, networkType, physicalNetwork, id, segmentID); err != nil || ok {
			return id, err
		}
	}
	used := map[int]bool{}
	err := tx.Query(func(scan func(...any) error) error {
		var id int
		err := scan(&id)
		used[id] = true
		return err
	}, "SELECT segmentation_id FROM segment_allocation WHERE network_type = ? AND physical_network = ?", networkType, physicalNetwork)
	if err != nil {
		return 0, err
	}
	for _, r := range ranges {
		for id := r.First; id <= r.Last; id++ {
			if used[id] {
				continue
			}
			if ok, err := Take(tx, networkType, physicalNetwork, id, segmentID); err != nil || ok {
				return id, err
			}
		}
	}
	return 0, network.ErrNoneFree
}

func nth(ranges []Range, n int) int {
	for _, r := range ranges {
		if size := r.Last - r.First + 1; n < size {
			return r.First + n
		} else {
			n -= size
		}
	}
	return 0
}
