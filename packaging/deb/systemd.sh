#!/bin/bash
# Runs the units of the package under a systemd of its own, in a Debian of its
# own: sandboxes, notification, watchdog, restart, stop, upgrade; and an agent
# that binds a port, serves DHCP and makes a router. Needs root and cgroup v2; Debian
# comes from DEBIAN_MIRROR, or from an unpacked one in CHROOT_BASE. Mounts,
# processes and network are those of namespaces, so that nothing is left on the
# machine however this ends. JOURNAL=file keeps what the services wrote.
set -euo pipefail

cd "$(dirname -- "$0")/../.."
packages=systemd,systemd-sysv,dbus,iproute2,nftables,openvswitch-switch,procps,curl,udhcpc

case ${1:-} in
"")
	name=systemd-test
	. packaging/deb/debian.sh
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	for program in dpkg-deb unshare pivot_root; do
		command -v "$program" >/dev/null || skip "needs $program"
	done
	grep -qw cgroup2 /proc/filesystems || skip "the kernel has no cgroup v2"
	grep -q '^Seccomp:' /proc/self/status || skip "the kernel has no seccomp"
	[ -n "${CHROOT_BASE:-}" ] || command -v debootstrap >/dev/null || skip "apt-get install debootstrap"
	work=$(mktemp -d)
	# Control groups stay when what is inside has ended.
	leave() {
		end
		[ ! -e "$work/group" ] || unshare --mount "$0" groups "$work" || true
		rm -rf --one-file-system "$work"
	}
	trap leave EXIT
	trap 'exit 1' HUP INT TERM
	# Two versions, of which one upgrades the other.
	for version in 1.0.0 1.0.1; do
		CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X isospin/internal/telemetry.stamp=v$version" -o "$work/program" ./cmd/isospin
		BINARY=$work/program VERSION=v$version OUTPUT=$work packaging/deb/build.sh
	done
	debian "$packages"
	mkdir -p "$work/root/test" "$work/cgroup"
	cp "$work"/isospin_*.deb packaging/deb/systemd-inside.sh "$work/root/test/"
	apart --net --uts --ipc "$0" begin "$work" >"$work/console" 2>&1 || true
	cat "$work/root/test/log" 2>/dev/null || true
	[ -z "${JOURNAL:-}" ] || cp "$work/root/test/journal" "$JOURNAL" || true
	if [ ! -e "$work/root/test/begun" ]; then
		tail -20 "$work/console" >&2
		[ -e "$work/group" ] || skip "no control group can be made"
		echo "systemd-test: FAILED: systemd did not boot" >&2
		exit 1
	fi
	[ -e "$work/root/test/passed" ]
	;;
begin)
	# A control group of its own becomes the root of those that systemd makes.
	work=$2
	mount -t cgroup2 none "$work/cgroup"
	group=isospin-test-${work##*.}
	mkdir "$work/cgroup/$group"
	echo "$group" >"$work/group"
	echo $$ >"$work/cgroup/$group/cgroup.procs"
	umount "$work/cgroup"
	exec unshare --cgroup "$0" boot "$work"
	;;
boot)
	root=$2/root
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount -t cgroup2 none "$root/sys/fs/cgroup"
	mount -t tmpfs -o mode=755 none "$root/dev"
	mount -t tmpfs -o mode=755 none "$root/run"
	mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
	for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
		IFS=: read -r name major minor <<<"$node"
		mknod -m 666 "$root/dev/$name" c "$major" "$minor"
	done
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	hostname isospin-test
	echo isospin-test >"$root/etc/hostname"
	: >"$root/etc/machine-id"
	mkdir -p "$root/etc/systemd/system"
	cat >"$root/etc/systemd/system/isospin-test.service" <<-'END'
		[Unit]
		Description=test of the units
		After=dbus.service systemd-journald.service
		[Service]
		Type=oneshot
		ExecStart=/bin/bash /test/systemd-inside.sh
		ExecStopPost=/bin/systemctl --no-block exit
		StandardOutput=append:/test/log
		StandardError=inherit
		TimeoutStartSec=5min
	END
	cat >"$root/etc/systemd/system/isospin-test.target" <<-'END'
		[Unit]
		Requires=basic.target
		Wants=isospin-test.service
		AllowIsolate=yes
	END
	mkdir "$root/old"
	cd "$root"
	pivot_root . old
	umount -l /old
	exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=isospin-test.target --show-status=no
	;;
groups)
	work=$2
	mount -t cgroup2 none "$work/cgroup"
	find "$work/cgroup/$(cat "$work/group")" -depth -type d -exec rmdir {} \; 2>/dev/null
	umount "$work/cgroup"
	;;
esac
