// Package feed is the contract between the server and the agents of hosts, as
// generated from feed.proto. It is all that the two sides share.
package feed
