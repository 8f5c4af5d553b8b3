// Package vswitch works with the bridges, ports and interfaces of one Open
// vSwitch through its database, as ovs-vsctl does: idempotent requests that
// return when ovs-vswitchd has carried them out, and a view of what is there
// that follows every change.
//
// It knows OpenFlow only by port numbers, and nothing of networks or tenants.
package vswitch
