# Read by test.sh and systemd.sh: a Debian in a directory, and what runs in it
# ends with the script. The reader sets name (what its lines begin with) and work.

skip() { echo "$name: SKIPPED: $*"; exit 0; }

child=
# apart OPTION... COMMAND: runs it in namespaces of its own; a signal ends it.
apart() {
	unshare --mount --pid --fork --kill-child "$@" &
	child=$!
	local status=0
	wait "$child" || status=$?
	child=
	return "$status"
}

# end: killing unshare kills what is inside, and ends its mounts.
end() {
	[ -z "$child" ] || { kill -KILL "$child" 2>/dev/null; wait "$child" 2>/dev/null || true; child=; }
}

# debian PACKAGES: puts a Debian with them into $work/root, from DEBIAN_MIRROR or
# where apt gets this release from; or the unpacked one in CHROOT_BASE.
debian() {
	if [ -n "${CHROOT_BASE:-}" ]; then
		cp -a "$CHROOT_BASE" "$work/root"
		return
	fi
	local release mirror
	release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n "s/^$release main //p" | head -n 1)}
	mirror=${mirror:-http://deb.debian.org/debian}
	echo "$name: fetching Debian $release from $mirror"
	apart debootstrap --variant=minbase --include="$1" "$release" "$work/root" "$mirror" >"$work/log" 2>&1 || {
		tail -5 "$work/log" >&2
		! grep -q 'getting release file' "$work/log" || skip "$mirror is not reachable"
		exit 1
	}
}
