// Package lab is a cloud on one machine: hypervisors that are network
// namespaces, each with an Open vSwitch and an agent process of its own, joined
// by an underlay; an outside network; instances that are namespaces too; and
// the API server as a child process.
//
//	underlay namespace
//	  br-ul  172.31.0.1/24, MTU 1600 ── one veth per host ── br-ul of the host, 172.31.0.10+N
//	  br-ex  ───────────────────────── one veth per host ── br-ex of the host
//	                       └─ veth ── outside namespace, 203.0.113.1/24
//
// A host has a private mount namespace: its /run is its own, so that the named
// namespaces of routers and networks (qrouter-…, qdhcp-…) of several hosts do
// not meet. A thread of this process keeps it, so it survives its agent and
// never this process.
//
// Everything made carries the lab's random id in its name or is below the lab's
// folder; whatever a killed lab leaves behind is found by its record and removed
// by RemoveLeftovers.
//
// The package knows the API, the configuration files and the commands of the
// server and the agents, and nothing of what is inside of them.
package lab
