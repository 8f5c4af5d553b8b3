// Package l3 is the "L3 agent" of a host: each router is a network namespace
// with a device per interface, kernel routing, one nftables table for address
// translation, and router advertisements.
//
// Routers are planned without touching anything (plan.go, rules.go) and then
// made so (apply.go). Namespaces are those named qrouter-… that the feature
// recorded in its state file or finds marked as its own in Open vSwitch; others
// are never removed.
//
// It must not know the server, nor how packets get from one host to another.
package l3
