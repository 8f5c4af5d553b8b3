#!/bin/sh
# Makes a Debian machine able to build, run and test isospin: looks for the
# programs that are needed, installs the packages of those that are missing,
# and checks that Go is there. Does nothing when nothing is missing. It starts
# no service. Without root it prints what to run, and fails.
set -eu

PATH="$PATH:/usr/local/go/bin:/usr/sbin:/sbin"
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# program or file | package | what it is for
needed='
ovs-vswitchd|openvswitch-switch|the data path of hosts
ovsdb-server|openvswitch-common|the database of the data path
ovs-ofctl|openvswitch-common|writing OpenFlow flows
ip|iproute2|hosts of the lab and of the tests are network namespaces
nft|nftables|address translation and filters of routers
ethtool|ethtool|checksums on veth pairs
ping|iputils-ping|the lab shows that packets arrive
/bin/kill|procps|tests stop processes inside namespaces
busybox|busybox|tests lease addresses with its DHCP client
dhclient|isc-dhcp-client|tests lease addresses with it, DHCPv6 too
conntrack|conntrack|tests make connections known to the kernel
make|make|the targets of the Makefile
/usr/lib/postgresql|postgresql|tests of the store run on each database
mariadbd|mariadb-server|tests of the store run on each database
/etc/ssl/certs/ca-certificates.crt|ca-certificates|Go fetches modules over HTTPS
'

missing=''
while IFS='|' read -r what package why; do
	case $what in
	'') continue ;;
	/*) [ -e "$what" ] && continue ;;
	*) command -v "$what" >/dev/null && continue ;;
	esac
	case " $missing " in
	*" $package "*) ;;
	*)
		echo "setup: $what is missing; package $package ($why)"
		missing="$missing $package"
		;;
	esac
done <<EOF
$needed
EOF

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null; then
		echo "setup: this is not Debian; install what is named above by other means" >&2
		exit 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		echo "setup: to install packages, root must run:" >&2
		echo "  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
		exit 1
	fi
	# Packages must not start their services: isospin's lab runs its own
	# processes, and a machine's own Open vSwitch is its operator's business.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		trap 'exit 1' HUP INT TERM
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	echo "setup: installing$missing"
	apt-get update -qq
	# shellcheck disable=SC2086 # a list
	apt-get install -y -qq --no-install-recommends $missing
fi

want=$(sed -n 's/^go //p' "$root/go.mod")
if ! command -v go >/dev/null; then
	echo "setup: Go is missing; install Go $want or later from https://go.dev/dl/ and put its bin directory on PATH" >&2
	exit 1
fi
# In the module's directory a newer toolchain is chosen where GOTOOLCHAIN allows.
have=$(cd "$root" && go env GOVERSION) || {
	echo "setup: go does not work, see above; Go $want or later is needed" >&2
	exit 1
}
have=${have#go}
oldest=$(printf '%s\n%s\n' "$want" "${have%%[!0-9.]*}" | sort -V | head -n 1)
if [ "$oldest" != "$want" ]; then
	echo "setup: Go $have is too old; install Go $want or later from https://go.dev/dl/" >&2
	exit 1
fi
