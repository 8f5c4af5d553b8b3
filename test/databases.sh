#!/bin/sh
# Tests of packages on a kind of database, one line each, and what failed:
# test/databases.sh postgresql|mariadb package...
# So many packages at a time as there are processors, for at most LIMIT (default
# 15m) each: they wait for their databases most of the time.
set -u
if [ "$1" = one ]; then # what is below, for one package
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if ISOSPIN_TEST_DATABASE=$2 go test -timeout "${LIMIT:-15m}" "$3" >"$log" 2>&1; then
		echo "$2	$(tail -n 1 "$log")"
		exit
	fi
	# Not the stacks of all goroutines; in one piece.
	printf '%s\tFAIL\t%s\n%s\n' "$2" "$3" "$(sed '/^goroutine /,$d' "$log" | head -n 60)"
	exit 1
fi
kind=$1
shift
packages=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@") || exit
echo "$packages" | xargs -r -P "$(nproc)" -n 1 "$0" one "$kind"
