// Package feed follows the committed changes: it keeps the objects that hosts
// care about in memory, works out for each change which hosts must know, and
// serves each host's stream with exactly what it misses. Projections (the
// core's here, those of extensions in their directories) turn objects into
// what hosts understand.
//
// It must not know HTTP resources, nor what a host does with what it is told;
// after start it never queries the database for one host's sake.
package feed
