#!/bin/sh
# A rolling upgrade under load from an older release to this tree, on each
# database: test/upgrade/run.sh [commit or tag]. Without an argument it is the
# newest tag. The older one is built in a temporary worktree.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
from=${1:-$(git describe --tags --abbrev=0 2>/dev/null || true)}
if [ -z "$from" ]; then
	echo "there is no tag; name the commit to upgrade from" >&2
	exit 2
fi
work=$(mktemp -d)
trap 'git worktree remove --force "$work/tree" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/tree" "$from"
(cd "$work/tree" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X isospin/internal/telemetry.stamp=$from" -o "$work/older" ./cmd/isospin)
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/newer" ./cmd/isospin
echo "from $(git log -1 --format='%h of %ci' "$from") to $(git log -1 --format='%h of %ci')"
CGO_ENABLED=0 go run -trimpath ./test/chaos -load 30s -upgrade-from "$work/older" -executable "$work/newer" -database "${DATABASES:-postgresql,mariadb}" -keep "${LOGS:-/tmp/isospin-chaos-logs}"
