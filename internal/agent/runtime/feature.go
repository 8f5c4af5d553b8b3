package runtime

import (
	"context"

	"isospin/api/feed"
)

// Feature is one function of a host: it makes the data path be what State
// says. One instance serves one host; the runtime calls its methods from one
// goroutine of its own.
type Feature interface {
	// Function describes the feature as a row of the agents API. It is called
	// after Start, and again before each heartbeat.
	Function() *feed.Function

	// Start prepares the feature: opens sockets, connects to OVSDB. wake may be
	// called at any time from any goroutine; it makes the runtime call Apply
	// soon with a zero Changes (something local has changed). Goroutines that
	// Start begins end when ctx does.
	Start(ctx context.Context, wake func()) error

	// Apply makes the host be what want says. It is idempotent; deleting the
	// absent succeeds; only what the feature itself made is ever removed. want
	// is immutable and must not be changed. changes names what differs from the
	// last call that succeeded; with changes.All everything is compared with
	// what is there.
	//
	// The result tells, for each object that the feature acted upon in this
	// call, what became of it. One object that cannot be applied is a result
	// with STATE_ERROR and never keeps others from being applied. An error is
	// returned only when nothing can be done now (OVSDB is gone): the runtime
	// calls again, with backoff and changes.All.
	Apply(ctx context.Context, want *State, changes Changes) ([]*feed.Applied, error)

	// Stop releases sockets and child processes. It leaves the data path as it
	// is: stopping an agent loses no packet.
	Stop()
}

// State is what the host must look like. It is immutable: a change makes a
// new State that shares what did not change.
type State struct {
	Ports          map[string]*feed.Port
	Networks       map[string]*feed.Network
	Forwarding     map[string]*ForwardingTable // by network id
	SecurityGroups map[string]*feed.SecurityGroup
	AddressSets    map[string]*AddressSet
	Routers        map[string]*feed.Router
	QoSPolicies    map[string]*feed.QoSPolicy
	Trunks         map[string]*feed.Trunk
	Logs           map[string]*feed.Log
	// AdminStateUp by agent type; absent is true.
	AdminStateUp map[string]bool
}

// ForwardingTable is the ports of a network on other hosts, by port id.
type ForwardingTable struct {
	NetworkID string
	Entries   map[string]*feed.ForwardingEntry
}

// AddressSet is a set of addresses ("10.0.0.5") and CIDRs ("10.1.0.0/24").
type AddressSet struct {
	ID        string
	Addresses map[string]struct{}
}

// Changes names the objects that differ from the State of the last successful
// Apply, deleted ones among them. The zero value is no change.
type Changes struct {
	// All: compare everything, the other fields say nothing.
	All            bool
	Ports          map[string]struct{}
	Networks       map[string]struct{}
	Forwarding     map[string]ForwardingChange // by network id
	SecurityGroups map[string]struct{}
	AddressSets    map[string]AddressSetChange
	Routers        map[string]struct{}
	QoSPolicies    map[string]struct{}
	Trunks         map[string]struct{}
	Logs           map[string]struct{}
}

// ForwardingChange is what changed in one ForwardingTable: port ids, deleted
// ones among them. Whole: the table is new, gone or replaced.
type ForwardingChange struct {
	Whole bool
	Ports map[string]struct{}
}

// AddressSetChange is what changed in one AddressSet. Whole: the set is new,
// gone or replaced.
type AddressSetChange struct {
	Whole     bool
	Addresses map[string]struct{}
}
