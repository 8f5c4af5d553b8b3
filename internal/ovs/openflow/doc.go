// Package openflow keeps the flows that we want in the tables of one bridge,
// next to flows of others: atomic deltas through ovs-ofctl bundles, and a
// comparison with what is there, so that a restart changes nothing that is
// right already. Meters that flows use are kept in the same way.
//
// It must not know what flows mean. Flows are given and compared in the text
// form of ovs-ofctl.
package openflow
