// Package upgrade shows that a release follows its predecessor: its steps of
// the schema are those of the release before and more, and servers of both run
// beside each other (run.sh, with the release before from the repository).
//
// It must not know any table.
package upgrade
