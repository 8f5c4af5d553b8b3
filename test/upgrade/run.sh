#!/bin/sh
# A rolling upgrade under load from the release before to this tree, on each
# database, and the upgrade of a filled one: test/upgrade/run.sh [commit or tag].
# Without an argument previous.sh chooses. The older release is built of what
# git has, in a temporary directory.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
if [ $# -gt 0 ]; then
	from=$1
else
	status=0
	from=$(test/upgrade/previous.sh) || status=$?
	if [ "$status" = 3 ]; then
		echo "SKIPPED: no upgrade from an older release was tried"
		exit
	fi
	[ "$status" = 0 ] || exit "$status"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
git archive "$from" | tar -x -C "$work/tree"
(cd "$work/tree" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X isospin/internal/telemetry.stamp=$from" -o "$work/older" ./cmd/isospin)
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/newer" ./cmd/isospin
echo "from $from ($(git log -1 --format='%h of %ci' "$from")) to $(git log -1 --format='%h of %ci')"
CGO_ENABLED=0 go run -trimpath ./test/chaos -load "${LOAD:-30s}" -upgrade-from "$work/older" -executable "$work/newer" -database "${DATABASES:-postgresql,mariadb}" -keep "${LOGS:-/tmp/isospin-chaos-logs}"
ISOSPIN_UPGRADE_FROM=$work/older go test -count=1 -v -timeout 30m ./test/migration -executable "$work/newer"
