#!/bin/sh
# Tests of packages on a kind of database, one line each, and what failed:
# test/databases.sh postgresql|mariadb package...
# One package at a time, for at most LIMIT (default 15m) each.
set -u
kind=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@"); do
	if ISOSPIN_TEST_DATABASE=$kind go test -timeout "${LIMIT:-15m}" "$package" >"$log" 2>&1; then
		echo "$kind	$(tail -n 1 "$log")"
	else
		failed=1
		echo "$kind	FAIL	$package"
		# Not the stacks of all goroutines.
		sed '/^goroutine /,$d' "$log" | head -n 60
	fi
done
exit $failed
