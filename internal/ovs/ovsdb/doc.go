// Package ovsdb is a client of the Open vSwitch Database Management Protocol
// (RFC 7047, with ovsdb-server's monitor_cond and monitor_cond_since
// extensions): transactions, and a cache of rows that a monitor keeps current
// across reconnects.
//
// It knows nothing of any one database's tables.
package ovsdb
