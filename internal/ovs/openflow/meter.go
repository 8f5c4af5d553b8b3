package openflow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Meter drops what exceeds a rate (OpenFlow Switch Specification 1.3, section
// 5.7): a flow sends packets through it with the action meter:<id>.
type Meter struct {
	// Packets: the rate is in packets per second and the burst in packets, else kilobits per second and kilobits.
	Packets     bool
	Rate, Burst uint32
}

// String is the meter's text form, as ovs-ofctl reads it, without its id.
func (m Meter) String() string {
	unit := "kbps"
	if m.Packets {
		unit = "pktps"
	}
	return fmt.Sprintf("%s,burst,band=type=drop,rate=%d,burst_size=%d", unit, m.Rate, m.Burst)
}

// MeterRange is the ids from First to Last. Meters bear no cookies: whose they
// are is told by their ids.
type MeterRange struct{ First, Last uint32 }

func (r MeterRange) holds(id uint32) bool { return r.First <= id && id <= r.Last && r.Last > 0 }

type refusedMeter struct {
	meter Meter
	err   error
}

// EnsureMeters makes all wanted meters be there, before the flows that use
// them; those that are right already are left alone. A meter that is not taken
// is returned, and not tried again until it is another one or Forget is called.
// An error means that nothing is known of the outcome.
func (b *Bridge) EnsureMeters(ctx context.Context, want map[uint32]Meter) (refused map[uint32]error, err error) {
	if b.meters == nil {
		if len(want) == 0 && b.options.Meters == (MeterRange{}) {
			return nil, nil
		}
		if b.meters, err = b.dumpMeters(ctx); err != nil {
			b.meters = nil
			if _, reachable := b.dump(ctx); reachable != nil {
				return nil, err
			}
			b.meters = map[uint32]Meter{} // a switch that has no meters at all
		}
		clear(b.refusedMeters)
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		m := want[id]
		have, there := b.meters[id]
		if there && have == m {
			continue
		}
		if r, ok := b.refusedMeters[id]; ok && r.meter == m {
			continue
		}
		delete(b.refusedMeters, id)
		command := "add-meter"
		if there {
			command = "mod-meter"
		}
		if _, err := b.run(ctx, nil, command, b.target(), fmt.Sprintf("meter=%d,%s", id, m)); err != nil {
			// Either the switch is not there, or it does not take the meter.
			if _, reachable := b.dump(ctx); reachable != nil {
				b.meters = nil
				return nil, err
			}
			b.options.Logger.Error("meter refused", "bridge", b.options.Name, "meter", m.String(), "error", err)
			b.refusedMeters[id] = refusedMeter{m, err}
			continue
		}
		b.meters[id] = m
	}
	for id, r := range b.refusedMeters {
		if want[id] != r.meter {
			delete(b.refusedMeters, id)
			continue
		}
		if refused == nil {
			refused = map[uint32]error{}
		}
		refused[id] = r.err
	}
	return refused, nil
}

// PruneMeters removes the meters of ours that are not wanted, after the flows
// that used them: a meter takes its flows along.
func (b *Bridge) PruneMeters(ctx context.Context, want map[uint32]Meter) error {
	for _, id := range slices.Sorted(maps.Keys(b.meters)) {
		if _, ok := want[id]; ok {
			continue
		}
		if _, err := b.run(ctx, nil, "del-meter", b.target(), "meter="+strconv.FormatUint(uint64(id), 10)); err != nil {
			b.meters = nil
			return err
		}
		delete(b.meters, id)
	}
	return nil
}

// dumpMeters returns the meters with ids of ours. One of another form than
// ours is the zero Meter, which is never wanted.
func (b *Bridge) dumpMeters(ctx context.Context) (map[uint32]Meter, error) {
	out, err := b.run(ctx, nil, "dump-meters", b.target())
	if err != nil {
		return nil, err
	}
	present, err := parseMeters(string(out))
	if err != nil {
		return nil, fmt.Errorf("bridge %s: dump-meters: %w", b.options.Name, err)
	}
	maps.DeleteFunc(present, func(id uint32, _ Meter) bool { return !b.options.Meters.holds(id) })
	return present, nil
}

// parseMeters reads what ovs-ofctl writes: "meter=1 kbps burst bands=", and
// below it "type=drop rate=1000 burst_size=800" for each band.
func parseMeters(text string) (map[uint32]Meter, error) {
	meters := map[uint32]Meter{}
	var id uint32
	bands := 0
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if digits, ok := strings.CutPrefix(fields[0], "meter="); ok {
			n, err := strconv.ParseUint(digits, 10, 32)
			if err != nil {
				return nil, err
			}
			id, bands = uint32(n), 0
			meters[id] = Meter{}
			if slices.Equal(fields[1:], []string{"kbps", "burst", "bands="}) || slices.Equal(fields[1:], []string{"pktps", "burst", "bands="}) {
				meters[id] = Meter{Packets: fields[1] == "pktps"}
			} else {
				bands = 1 // not of our form, whatever follows
			}
			continue
		}
		if !strings.HasPrefix(fields[0], "type=") {
			continue
		}
		if id == 0 {
			return nil, errors.New("a band without a meter")
		}
		m := meters[id]
		if bands++; bands > 1 || len(fields) != 3 || fields[0] != "type=drop" {
			meters[id] = Meter{}
			continue
		}
		rate, err := strconv.ParseUint(strings.TrimPrefix(fields[1], "rate="), 10, 32)
		if err != nil {
			return nil, err
		}
		burst, err := strconv.ParseUint(strings.TrimPrefix(fields[2], "burst_size="), 10, 32)
		if err != nil {
			return nil, err
		}
		m.Rate, m.Burst = uint32(rate), uint32(burst)
		meters[id] = m
	}
	return meters, nil
}
