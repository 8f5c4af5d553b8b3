// Package migration fills a database as the release before would have left it,
// brings its tables up to date, and shows that nothing is lost: with nobody
// beside, with clients of a server of the release before, and when the program
// is killed in the middle.
//
//	go test ./test/migration -v -ports 100000 -timeout 1h
//
// ISOSPIN_UPGRADE_FROM names a binary of an older release, which then fills the
// database and serves its clients (test/upgrade/run.sh makes one); otherwise
// the tables begin with the first step of each module, and this program's own
// code stands for the older release.
//
// It must not know how tables are brought up to date.
package migration
