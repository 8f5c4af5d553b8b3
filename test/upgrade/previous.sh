#!/bin/sh
# The release before this commit, as git knows it; before the first, the last
# commit whose tables were others. A clone that knows neither (it is shallow, or no
# clone) is told on standard error, and the status is 3.
set -eu
if ! git rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
	echo "this is no clone of the repository, so that no older release can be built; name a binary by ISOSPIN_UPGRADE_FROM" >&2
	exit 3
fi
head=$(git rev-parse HEAD)
# A commit that is itself released follows the release before it.
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null || true)
if [ -n "$tag" ]; then
	echo "$tag"
	exit
fi
if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
	echo "this clone is shallow and has no tag of an older release: git fetch --unshallow --tags, or name a commit" >&2
	exit 3
fi
golden=test/upgrade/testdata/schema.golden
cd "$(git rev-parse --show-toplevel)"
changed=$(git log -n 1 --format=%H -- $golden)
before=$(git rev-parse --quiet --verify "$changed^" || true)
if [ -n "$before" ] && git cat-file -e "$before:$golden" 2>/dev/null; then
	echo "$before"
elif [ -n "$changed" ] && [ "$changed" != "$head" ]; then
	echo "$changed"
else
	echo "nothing is older than this commit: there is no tag v… before it, and it has frozen the schema itself" >&2
	exit 3
fi
