#!/bin/bash
# Installs, runs, upgrades, removes and purges the package in a Debian of its
# own. Needs root; Debian comes from DEBIAN_MIRROR, or from an unpacked one in
# CHROOT_BASE. Mounts, processes and network are those of namespaces, so that
# nothing is left on the machine however this ends.
set -euo pipefail

cd "$(dirname -- "$0")/../.."
packages=procps,systemd-standalone-sysusers,systemd-standalone-tmpfiles

if [ "${1:-}" != inside ]; then
	name=deb-test
	. packaging/deb/debian.sh
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	for program in dpkg-deb unshare perl; do
		command -v "$program" >/dev/null || skip "needs $program"
	done
	[ -n "${CHROOT_BASE:-}" ] || command -v debootstrap >/dev/null || skip "apt-get install debootstrap"
	work=$(mktemp -d)
	trap 'rm -rf --one-file-system "$work"' EXIT
	trap 'end; exit 1' HUP INT TERM
	for version in 1.0.0-rc1 1.0.0; do
		CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X isospin/internal/telemetry.stamp=v$version" -o "$work/program-$version" ./cmd/isospin
		BINARY=$work/program-$version VERSION=v$version OUTPUT=$work packaging/deb/build.sh
	done
	debian "$packages"
	apart --net "$0" inside "$work"
	exit
fi

work=$2 root=$2/root
step() { echo "deb-test: $*"; }
fail() { echo "deb-test: FAILED: $*" >&2; [ ! -e "$work/server.log" ] || tail -20 "$work/server.log" >&2; exit 1; }
mount -t proc proc "$root/proc"
ip link set lo up
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
inside() { chroot "$root" "$@"; }
# contents NAME: writes the path of every file; those that dpkg, debconf and the
# account database keep for themselves are left out.
contents() {
	(cd "$root" && find . -xdev -path ./proc -prune -o -print) | grep -Ev \
		'^\./(var/lib/dpkg/|var/cache/debconf/|var/log/|etc/(passwd|group|shadow|gshadow)-?$|etc/\.pwd\.lock$|etc/sub[ug]id-?$|tmp/|run/)' | sort >"$work/$1"
}
foreign() { (cd "$root" && find etc/neutron var/lib/neutron/neutrondb -exec stat -c '%n %a %u:%g %s %Y' {} + ; find "$root/etc/neutron" -type f -exec md5sum {} +); }
# request METHOD PATH [BODY]: the answer's status line and body.
request() {
	exec 3<>/dev/tcp/127.0.0.1/9696 || return 1
	printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "${#3}" "${3:-}" >&3
	cat <&3
	exec 3>&-
}
# start: as the unit says, with a listener in the place of systemd, which waits for READY=1.
start() {
	local unit=$root/usr/lib/systemd/system/isospin-server.service command user
	command=$(sed -n 's/^ExecStart=//p' "$unit") user=$(sed -n 's/^User=//p' "$unit")
	rm -f "$root/run/notify"
	perl -MIO::Socket::UNIX -e '
		my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die "$ARGV[0]: $!";
		chmod 0666, $ARGV[0] or die;
		open my $there, ">", "$ARGV[0].there" or die;
		alarm 60;
		while (defined $s->recv(my $m, 4096)) { exit 0 if $m =~ /^READY=1$/m }' "$root/run/notify" &
	local listener=$!
	until [ -e "$root/run/notify.there" ]; do
		kill -0 "$listener" 2>/dev/null || fail "nobody listens in the place of systemd"
		sleep 0.05
	done
	rm "$root/run/notify.there"
	# shellcheck disable=SC2086 # a command and its arguments
	NOTIFY_SOCKET=/run/notify chroot --userspec="$user" "$root" $command >>"$work/server.log" 2>&1 &
	server=$!
	wait "$listener" || fail "the server did not say READY=1"
	kill -0 "$server" 2>/dev/null || fail "the server ended"
	rm "$root/run/notify"
}
stop() {
	kill -TERM "$server"
	wait "$server" || fail "the server ended with $?"
}

# What an operator and Neutron's packages have put there.
mkdir -p "$root/etc/neutron/plugins/ml2" "$root/var/lib/neutron"
printf '[DEFAULT]\nauth_strategy = noauth\ncore_plugin = ml2\nbind_host = 127.0.0.1\n' >"$root/etc/neutron/neutron.conf"
printf '[ml2]\ntenant_network_types = vxlan\n[ml2_type_vxlan]\nvni_ranges = 1:1000\n' >"$root/etc/neutron/plugins/ml2/ml2_conf.ini"
printf '"create_network": ""\n' >"$root/etc/neutron/policy.yaml"
printf '[isospin]\nevent_retention = 3600\n' >"$root/etc/neutron/isospin.conf"
echo "not ours" >"$root/var/lib/neutron/neutrondb"
chmod 640 "$root/etc/neutron/neutron.conf"
chmod 755 "$root/var/lib/neutron"
contents before
foreign >"$work/foreign-before"
cp "$work"/*.deb "$root/tmp/"
old=$(cd "$root/tmp" && echo isospin_1.0.0~rc1_*.deb) new=$(cd "$root/tmp" && ls isospin_1.0.0_*.deb)

step "install $old"
inside dpkg -i "/tmp/$old"
inside getent passwd neutron >/dev/null || fail "there is no account"
[ -z "$(inside pgrep -x isospin || true)" ] || fail "a service was started"
inside isospin version | grep -q 'v1.0.0-rc1' || fail "wrong program"
inside isospin config check | grep -q '^vni_ranges = 1:1000\b' || fail "the configuration in /etc/neutron is not used"
[ -s "$root/usr/share/doc/isospin/examples/neutron.conf" ] || fail "no example"
[ -z "$(inside dpkg-query -W -f '${Conffiles}' isospin)" ] || fail "files of the operator would be the package's"
zcat "$root/usr/share/man/man8/isospin.8.gz" | grep -q '^\.SS isospin server' || fail "the manual has no commands"
if command -v systemd-analyze >/dev/null; then
	# What the units refer to beside the program is not in this Debian.
	systemd-analyze verify --man=no --root="$root" isospin-server.service isospin-agent.service >"$work/verify" 2>&1 || true
	! grep -E 'isospin-[a-z]+\.service' "$work/verify" | grep -v 'Unit .* not found' || fail "the units have mistakes"
else
	step "SKIPPED: the units are not verified: there is no systemd-analyze"
fi
# As Debian's Neutron has it.
inside chown root:neutron /etc/neutron/neutron.conf
inside chown neutron:neutron /var/lib/neutron
foreign >"$work/foreign-before"

step "run it"
start
request POST /v2.0/networks '{"network":{"name":"kept"}}' | grep -q '201 Created' || fail "no network"

step "upgrade to $new while it runs"
inside dpkg -i "/tmp/$new"
kill -0 "$server" || fail "the upgrade stopped the server"
request GET /v2.0/networks '' | grep -q '"kept"' || fail "the running server does not answer after the upgrade"
inside isospin version | grep -q 'v1.0.0 ' || fail "wrong program after the upgrade"
stop
start
request GET /v2.0/networks '' | grep -q '"kept"' || fail "the new program does not have the network"
inside isospin db check >/dev/null || fail "the database does not fit"
stop

step "remove"
inside dpkg -r isospin
[ ! -e "$root/usr/bin/isospin" ] || fail "the program stays"
[ -e "$root/var/lib/neutron/isospin.sqlite" ] || fail "removing took the database"

step "purge"
inside dpkg -P isospin
[ -e "$root/var/lib/neutron/isospin.sqlite" ] || fail "purging took the database, unasked"

step "install again, purge with the state"
inside dpkg -i "/tmp/$new"
start
request GET /v2.0/networks '' | grep -q '"kept"' || fail "the network is gone"
stop
inside debconf-set-selections <<<'isospin isospin/purge-state boolean true'
inside dpkg -P isospin
foreign >"$work/foreign-after"
diff "$work/foreign-before" "$work/foreign-after" || fail "files of others changed"
contents after
diff "$work/before" "$work/after" || fail "files stay, or are missing"
[ -z "$(inside dpkg -l isospin 2>/dev/null | grep '^[a-z]' | grep -v '^un' || true)" ] || fail "dpkg knows the package still"
step "all is well"
