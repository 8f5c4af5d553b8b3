package openflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options of a Bridge.
type Options struct {
	Name   string       // required: of the bridge
	RunDir string       // required: Open vSwitch's run folder, which holds <bridge>.mgmt
	Mark   uint16       // required: upper 16 bits of the cookies of our flows; flows with others are never touched
	Meters MeterRange   // optional: ids of our meters; meters with others are never touched
	Logger *slog.Logger // optional
	// Program that speaks OpenFlow.
	Program string // optional: "ovs-ofctl"
	// Timeout of one run of the program.
	Timeout time.Duration // optional: 30 s
}

// Bridge is the flow tables of one bridge. It remembers what it has put there,
// so that a change costs its delta. It is used by one goroutine, but for
// Follow, FlushZone and FlushAddress.
type Bridge struct {
	options Options
	// actual is the flow at each match that is believed to be there; nil: not known.
	actual map[key]uint64
	// refused are wanted flows that the switch does not take, by cookie.
	refused map[uint64]Refusal
	// idle is a connection for the next bundle, kept while the bridge is followed.
	mu       sync.Mutex
	followed bool
	idle     *channel
	// meters are the meters of ours that are believed to be there; nil: not known.
	meters map[uint32]Meter
	// refusedMeters are wanted meters that the switch does not take.
	refusedMeters map[uint32]refusedMeter
}

// Refusal is a flow that ovs-ofctl or the switch did not take.
type Refusal struct {
	Flow Flow
	Err  error
}

// Change tells what an Apply did.
type Change struct {
	Added, Deleted int
	// Refused are all wanted flows that are not there since they are not taken, of this and of earlier calls.
	Refused []Refusal
}

// NewBridge makes a Bridge of which nothing is known yet.
func NewBridge(o Options) *Bridge {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Program == "" {
		o.Program = "ovs-ofctl"
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	return &Bridge{options: o, refused: map[uint64]Refusal{}, refusedMeters: map[uint32]refusedMeter{}}
}

// Socket is the bridge's management socket.
func (b *Bridge) Socket() string { return filepath.Join(b.options.RunDir, b.options.Name+".mgmt") }

// Forget makes the next Apply, and EnsureMeters, compare with what is there.
func (b *Bridge) Forget() { b.actual, b.meters = nil, nil }

// Known tells whether the next Apply is a delta only.
func (b *Bridge) Known() bool { return b.actual != nil }

// Apply makes the flows with our mark be those of the set, as one atomic
// change: new ones come before stale ones go. A delta is taken from what
// earlier calls did; after NewBridge, Forget or a failure the bridge is asked
// for what is there, and equal flows are left alone.
//
// A flow that is not taken is left out and told, and keeps no other one from
// being put in place. An error means that nothing is known of the outcome.
func (b *Bridge) Apply(ctx context.Context, s *Set) (Change, error) {
	var add []Flow
	var gone []uint64
	var change Change
	if b.actual == nil {
		present, err := b.dump(ctx)
		if err != nil {
			return change, err
		}
		clear(b.refused)
		actual := make(map[key]uint64, len(s.claims))
		for k := range s.claims {
			f, _ := s.wanted(k)
			cookie := f.Cookie(b.options.Mark)
			if _, ok := present[cookie]; ok {
				actual[k] = cookie
				delete(present, cookie)
			} else {
				add = append(add, f)
			}
		}
		for cookie := range present {
			gone = append(gone, cookie)
		}
		b.actual = actual
	} else {
		for k := range s.dirty {
			f, wanted := s.wanted(k)
			was, there := b.actual[k]
			cookie := f.Cookie(b.options.Mark)
			_, refused := b.refused[cookie]
			switch {
			case wanted && !(there && was == cookie) && !refused:
				add = append(add, f)
			case !wanted && there:
				gone = append(gone, was)
			}
		}
	}
	change, err := b.commit(ctx, add, gone)
	if err != nil {
		b.actual = nil
		return change, err
	}
	clear(s.dirty)
	for cookie, r := range b.refused {
		if f, ok := s.wanted(r.Flow.key()); ok && f == r.Flow {
			change.Refused = append(change.Refused, r)
		} else {
			delete(b.refused, cookie)
		}
	}
	return change, nil
}

// commit puts flows in place and removes others by cookie.
func (b *Bridge) commit(ctx context.Context, add []Flow, gone []uint64) (Change, error) {
	var change Change
	if len(add) == 0 && len(gone) == 0 {
		return change, nil
	}
	err := b.bundle(ctx, add, gone)
	if err == nil {
		b.taken(add)
		b.left(gone)
		return Change{Added: len(add), Deleted: len(gone)}, nil
	}
	// Either the switch is not there, or it does not take some flow: then what it takes is put in place without it.
	if _, reachable := b.dump(ctx); reachable != nil {
		return change, err
	}
	taken := b.bisect(ctx, add, err)
	if ctx.Err() != nil {
		return change, ctx.Err()
	}
	b.taken(taken)
	// A flow that was refused does not replace the one of the same match that is there, which may let pass what must not
	// pass any more.
	for _, r := range b.refused {
		if was, ok := b.actual[r.Flow.key()]; ok && was != r.Flow.Cookie(b.options.Mark) {
			gone = append(gone, was)
			delete(b.actual, r.Flow.key())
		}
	}
	if err := b.bundle(ctx, nil, gone); err != nil {
		return change, err
	}
	b.left(gone)
	return Change{Added: len(taken), Deleted: len(gone)}, nil
}

func (b *Bridge) taken(flows []Flow) {
	for _, f := range flows {
		b.actual[f.key()] = f.Cookie(b.options.Mark)
	}
}

func (b *Bridge) left(cookies []uint64) {
	if len(cookies) == 0 {
		return
	}
	gone := make(map[uint64]struct{}, len(cookies))
	for _, c := range cookies {
		gone[c] = struct{}{}
	}
	for k, c := range b.actual {
		if _, ok := gone[c]; ok {
			delete(b.actual, k)
		}
	}
}

// bisect adds flows of which at least one is refused, and returns those that
// were taken.
func (b *Bridge) bisect(ctx context.Context, flows []Flow, err error) []Flow {
	if len(flows) == 0 || ctx.Err() != nil {
		return nil
	}
	if len(flows) == 1 {
		b.refused[flows[0].Cookie(b.options.Mark)] = Refusal{Flow: flows[0], Err: err}
		b.options.Logger.Error("flow refused", "bridge", b.options.Name, "flow", flows[0].String(), "error", err)
		return nil
	}
	var taken []Flow
	for _, half := range [][]Flow{flows[:len(flows)/2], flows[len(flows)/2:]} {
		if err := b.bundle(ctx, half, nil); err != nil {
			taken = append(taken, b.bisect(ctx, half, err)...)
		} else {
			taken = append(taken, half...)
		}
	}
	return taken
}

// bundle runs one atomic change.
func (b *Bridge) bundle(ctx context.Context, add []Flow, gone []uint64) error {
	if len(add) == 0 && len(gone) == 0 {
		return nil
	}
	var text strings.Builder
	for _, f := range add {
		text.WriteString("add cookie=0x")
		text.WriteString(strconv.FormatUint(f.Cookie(b.options.Mark), 16))
		text.WriteByte(',')
		f.write(&text)
		text.WriteByte('\n')
	}
	for _, cookie := range gone {
		text.WriteString("delete cookie=0x")
		text.WriteString(strconv.FormatUint(cookie, 16))
		text.WriteString("/-1\n")
	}
	ctx, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	r, err := b.newRelay(ctx)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", b.options.Name, err)
	}
	_, err = b.run(ctx, strings.NewReader(text.String()), "--no-names", "--bundle", "add-flows", r.target(), "-")
	if broken := r.close(); err != nil && broken != nil {
		err = fmt.Errorf("bridge %s: %w", b.options.Name, broken)
	}
	return err
}

// dump returns the cookies of the flows with our mark.
func (b *Bridge) dump(ctx context.Context) (map[uint64]struct{}, error) {
	ours := CookieText(uint64(b.options.Mark)<<markShift) + "/" + CookieText(^uint64(hashMask))
	out, err := b.run(ctx, nil, "--no-stats", "dump-flows", b.target(), "cookie="+ours)
	if err != nil {
		return nil, err
	}
	present := map[uint64]struct{}{}
	for line := range strings.Lines(string(out)) {
		_, rest, ok := strings.Cut(line, "cookie=0x")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ",")
		cookie, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("bridge %s: dump-flows: %w", b.options.Name, err)
		}
		present[cookie] = struct{}{}
	}
	return present, nil
}

// FlushZone forgets every connection of a conntrack zone.
func (b *Bridge) FlushZone(ctx context.Context, zone uint16) error {
	_, err := b.run(ctx, nil, "ct-flush-zone", b.target(), strconv.Itoa(int(zone)))
	return err
}

// FlushAddress forgets the connections of a conntrack zone that an address
// opened or was called by. It needs Open vSwitch 3.1.
func (b *Bridge) FlushAddress(ctx context.Context, zone uint16, address netip.Addr) error {
	family := "nw"
	if address.Is6() {
		family = "ipv6"
	}
	var errs []error
	for _, side := range []string{"src", "dst"} {
		_, err := b.run(ctx, nil, "ct-flush", b.target(), "zone="+strconv.Itoa(int(zone)), fmt.Sprintf("ct_%s_%s=%s", family, side, address))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *Bridge) target() string { return "unix:" + b.Socket() }

// run runs ovs-ofctl with OpenFlow 1.4.
func (b *Bridge) run(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.options.Program, append([]string{"-O", "OpenFlow14"}, args...)...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+b.options.RunDir)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		if len(text) > 600 {
			text = text[:600] + " ..."
		}
		if text == "" {
			text = err.Error()
		}
		return nil, fmt.Errorf("bridge %s: %w", b.options.Name, errors.New(text))
	}
	return out.Bytes(), nil
}
