package simulate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"isospin/api/feed"
)

// FleetOptions of NewFleet.
type FleetOptions struct {
	// Hosts is how many there are, 1 to 10,000. // required
	Hosts int
	// NamePrefix begins their names, the number from 1 ends them. // optional, "simulated-"
	NamePrefix string
	// Servers are where they attach, as in [isospin] feed_server. // required
	Servers []string
	// Certificates returns what a host shows, and whom it trusts. Needed for https. // optional
	Certificates func(host string) (*tls.Config, error)
	// BridgeMappings are the physical networks that every host reaches, with
	// the bridge of each. // optional
	BridgeMappings map[string]string
	// ReportInterval is the time between heartbeats. // optional, 30 s
	ReportInterval time.Duration
	// Reconnect waits. // optional, 0.1 and 10 s, as agents'
	ReconnectMin, ReconnectMax time.Duration
	// Told is called with each message that a host gets, in the host's order;
	// number is from 0. It must not change the message. // optional
	Told   func(number int, m *feed.ServerMessage)
	Logger *slog.Logger // required
}

// Fleet is many hosts in little memory. They speak the whole protocol, but
// keep of what they are told only what they must say of it: which object they
// have in which version, and that it is applied.
type Fleet struct {
	options FleetOptions
	hosts   []*host
	started time.Time

	synced  atomic.Int64
	counted [5]atomic.Int64
}

// Counts of what the hosts of a fleet were told.
type Counts struct {
	// Attaches that got as far as the first message.
	Attaches int64
	Messages int64
	// Bytes of the messages, without what carries them.
	Bytes int64
	// Objects that were told whole, or deleted; and elements of sets.
	Objects, Elements int64
}

const (
	countAttaches = iota
	countMessages
	countBytes
	countObjects
	countElements
)

// Counts since the fleet began.
func (f *Fleet) Counts() Counts {
	n := func(i int) int64 { return f.counted[i].Load() }
	return Counts{Attaches: n(countAttaches), Messages: n(countMessages), Bytes: n(countBytes), Objects: n(countObjects), Elements: n(countElements)}
}

// Less is what was counted after before was.
func (c Counts) Less(before Counts) Counts {
	return Counts{c.Attaches - before.Attaches, c.Messages - before.Messages, c.Bytes - before.Bytes, c.Objects - before.Objects, c.Elements - before.Elements}
}

// NewFleet makes the hosts and opens nothing.
func NewFleet(o FleetOptions) (*Fleet, error) {
	if err := checkHosts(o.Hosts); err != nil {
		return nil, err
	}
	if len(o.Servers) == 0 {
		return nil, errors.New("simulate: no server to attach to")
	}
	if o.NamePrefix == "" {
		o.NamePrefix = defaultPrefix
	}
	for d, value := range map[*time.Duration]time.Duration{&o.ReportInterval: 30 * time.Second, &o.ReconnectMin: 100 * time.Millisecond, &o.ReconnectMax: 10 * time.Second} {
		if *d <= 0 {
			*d = value
		}
	}
	f := &Fleet{options: o, started: time.Now()}
	address := tunnelAddresses.Addr()
	for n := range o.Hosts {
		address = address.Next()
		f.hosts = append(f.hosts, &host{fleet: f, number: n, name: f.Name(n), functions: functions(o.BridgeMappings, address), have: map[key]item{}, wake: make(chan struct{}, 1)})
	}
	return f, nil
}

// Name of a host by its number from 0.
func (f *Fleet) Name(number int) string { return fmt.Sprintf("%s%d", f.options.NamePrefix, number+1) }

// Synced is how many hosts are attached and have all that they need.
func (f *Fleet) Synced() int { return int(f.synced.Load()) }

// Run attaches the hosts, keeps them attached until ctx ends, and returns when
// all of them have ended.
func (f *Fleet) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, h := range f.hosts {
		running.Go(func() { h.follow(ctx) })
	}
	running.Wait()
}

// pause before the next attempt to attach, as agents do it: between half of
// and the whole of min·2ⁿ, so that hosts that lost a server do not return as one.
func (f *Fleet) pause(failures int) time.Duration {
	d := f.options.ReconnectMax
	if failures < 32 && f.options.ReconnectMin<<failures < d {
		d = f.options.ReconnectMin << failures
	}
	return d/2 + rand.N(d/2+1)
}
