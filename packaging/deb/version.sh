#!/bin/sh
# Prints a Debian version for what git describe says: v1.2.3 is 1.2.3, a release
# candidate sorts before its release, commits after a tag behind it. Without a
# tag the number of commits counts. VERSION in the environment wins.
set -eu

if [ -n "${VERSION:-}" ]; then
	described=$VERSION
elif described=$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null); then
	:
elif commit=$(git describe --always --dirty 2>/dev/null); then
	described=0.0.0-$(git rev-list --count HEAD)-g$commit
else
	described=0.0.0
fi
printf '%s\n' "$described" | sed -E '
	s/^v//
	s/-dirty$/+dirty/
	s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/
	s/-(alpha|beta|rc)/~\1/
	s/-/./g
	s/[^A-Za-z0-9.+~]/./g
	s/^([^0-9])/0.\1/'
