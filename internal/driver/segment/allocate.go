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

// ParseRanges reads "1:1000"; option names the option for errors.
func ParseRanges(texts []string, option string, lowest, highest int) ([]network.Range, error) {
	var ranges []network.Range
	for _, t := range texts {
		first, last, ok := strings.Cut(strings.TrimSpace(t), ":")
		a, errA := strconv.Atoi(strings.TrimSpace(first))
		b, errB := strconv.Atoi(strings.TrimSpace(last))
		if !ok || errA != nil || errB != nil || a > b || a < lowest || b > highest {
			return nil, fmt.Errorf("%s: %q is not a range of ids within %d:%d; write it as 1:1000", option, t, lowest, highest)
		}
		ranges = append(ranges, network.Range{First: a, Last: b})
	}
	return ranges, nil
}

// Take reserves one id; false: it is in use.
func Take(tx *store.Tx, networkType, physicalNetwork string, id int, segmentID string) (bool, error) {
	n, err := tx.Exec("INSERT INTO segment_allocation (network_type, physical_network, segmentation_id, segment_id) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
		networkType, physicalNetwork, id, segmentID)
	return n > 0, err
}

// tries at random before ranges are searched: with half of them in use, all fail once in 16 times.
const tries = 4

// TakeAny reserves some free id of the ranges; network.ErrNoneFree when there is none.
// With a share f of the ids in use it looks at 1/(1-f) of them.
func TakeAny(tx *store.Tx, networkType, physicalNetwork string, ranges []network.Range, segmentID string) (int, error) {
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
	// From a place by chance to the end, then from the beginning.
	first := rand.IntN(len(ranges))
	at := ranges[first]
	at.First += rand.IntN(at.Last - at.First + 1)
	for i := range len(ranges) + 1 {
		if i > 0 {
			at = ranges[(first+i)%len(ranges)]
		}
		if id, err := takeFirst(tx, networkType, physicalNetwork, at, segmentID); err != nil || id > 0 {
			return id, err
		}
	}
	return 0, network.ErrNoneFree
}

// takeFirst reserves the first free id of a range; 0: there is none.
func takeFirst(tx *store.Tx, networkType, physicalNetwork string, r network.Range, segmentID string) (int, error) {
	for id := r.First; id <= r.Last; {
		if ok, err := Take(tx, networkType, physicalNetwork, id, segmentID); err != nil || ok {
			return id, err
		}
		// The end of the ids in use that begin here.
		var used int
		err := tx.Row(`SELECT a.segmentation_id FROM segment_allocation a WHERE a.network_type = ? AND a.physical_network = ? AND a.segmentation_id BETWEEN ? AND ?
			AND NOT EXISTS (SELECT 1 FROM segment_allocation b WHERE b.network_type = a.network_type AND b.physical_network = a.physical_network AND b.segmentation_id = a.segmentation_id + 1)
			ORDER BY a.segmentation_id LIMIT 1`, []any{networkType, physicalNetwork, id, r.Last}, &used)
		if err == store.ErrNoRow { // somebody has just given it back, or the ids in use go on beyond the range
			used, err = id, nil
			var n int
			if err := tx.Row("SELECT COUNT(*) FROM segment_allocation WHERE network_type = ? AND physical_network = ? AND segmentation_id = ?", []any{networkType, physicalNetwork, r.Last}, &n); err != nil || n > 0 {
				return 0, err
			}
		}
		if err != nil {
			return 0, err
		}
		id = used + 1
	}
	return 0, nil
}

func nth(ranges []network.Range, n int) int {
	for _, r := range ranges {
		if size := r.Last - r.First + 1; n < size {
			return r.First + n
		} else {
			n -= size
		}
	}
	return 0
}

// On keeps the ranges of one physical network.
func On(ranges []network.Range, physicalNetwork string) []network.Range {
	var list []network.Range
	for _, r := range ranges {
		if r.PhysicalNetwork == physicalNetwork {
			list = append(list, r)
		}
	}
	return list
}

// TakePreferred is TakeAny of the ranges on a physical network, preferred ones first.
func TakePreferred(tx *store.Tx, networkType, physicalNetwork string, from network.Ranges, segmentID string) (int, error) {
	id, err := TakeAny(tx, networkType, physicalNetwork, On(from.Preferred, physicalNetwork), segmentID)
	if err == network.ErrNoneFree {
		id, err = TakeAny(tx, networkType, physicalNetwork, On(from.Shared, physicalNetwork), segmentID)
	}
	return id, err
}
