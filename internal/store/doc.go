// Package store is the one truth: it opens the database, runs closures in
// transactions, maps structs to rows, answers list queries, writes each change
// as an event in the same transaction, and upgrades the schema. What SQL
// dialects differ in stays in here.
//
// It must not know HTTP, the feed, or what any table means.
package store
