#!/bin/sh
# Installs, as Debian packages them, the programs of others that tests run with
# or against. Unlike those of setup.sh no build needs them: a test whose peer is
# missing is skipped. It does nothing when nothing is missing, and starts no
# service.
#
#   peers.sh [DIRECTORY...]      what the tests of these directories need; default: all
#   peers.sh -n [DIRECTORY...]   only says which tests do not run as things are
#
# It says what is missing in the end and which tests that keeps from running;
# then its exit status is 1.
set -eu

PATH="$PATH:/usr/sbin:/sbin"

# program or file | package | tests, by directory
peers='
/usr/lib/frr/bgpd|frr|internal/bgp:TestFRR internal/agent/l3:TestEVPNWithFRR
kea-dhcp6|kea-dhcp6-server|internal/agent/l3/pd:TestKea
/usr/bin/keystone-wsgi-public|keystone|internal/identity/keystone:TestRealKeystone test/interop/tempest
/usr/lib/python3/dist-packages/oslo_policy|python3-oslo.policy|test/access:TestPeer
promtool|prometheus|test/packaging:TestAlertRules
/usr/lib/rabbitmq/bin/rabbitmq-server|rabbitmq-server|test/interop/rabbitmq:TestRabbitMQ
/usr/lib/python3/dist-packages/oslo_messaging|python3-oslo.messaging|test/interop/rabbitmq:TestRabbitMQ
openstack|python3-openstackclient|test/interop/openstackclient:TestClient test/interop/openstackclient:TestQuota test/interop/openstackclient:TestCommands
/usr/lib/python3/dist-packages/neutronclient|python3-neutronclient|test/interop/openstackclient:TestCommands
openssl|openssl|internal/doctor:TestCertificates internal/doctor:TestMutualTLS internal/telemetry:TestCertificates
sqlite3|sqlite3|test/migration:TestBackup
git|git|test/upgrade:TestPrevious
/usr/bin/uwsgi_python3|uwsgi-plugin-python3|test/interop/tempest
/usr/bin/tempest|tempest|test/interop/tempest
/usr/lib/python3/dist-packages/neutron_tempest_plugin|neutron-tempest-plugin|test/interop/tempest
/usr/bin/stestr|python3-stestr|test/interop/tempest
/usr/lib/python3/dist-packages/subunit|python3-subunit|test/interop/tempest
/usr/lib/python3/dist-packages/openstack|python3-openstacksdk|test/interop/tempest
/usr/bin/curl|curl|test/interop/tempest
'

install=yes
[ "${1-}" != -n ] || { install=''; shift; }
chosen=" $* "

# missing prints "package tests..." of what is not there and was asked for.
missing() {
	while IFS='|' read -r what package tests; do
		case $what in
		'') continue ;;
		/*) [ ! -e "$what" ] || continue ;;
		*) ! command -v "$what" >/dev/null || continue ;;
		esac
		for test in $tests; do
			case $chosen in
			'  ' | *" ${test%%:*} "*)
				echo "$package $tests"
				break
				;;
			esac
		done
	done <<END
$peers
END
}

packages=$(missing | cut -d ' ' -f 1 | sort -u | tr '\n' ' ')
[ -n "$packages" ] || exit 0

if [ -n "$install" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
	# Packages must not start their services.
	policy=/usr/sbin/policy-rc.d
	ours=''
	cache=$(mktemp -d)
	trap 'rm -rf "$cache"; [ -z "$ours" ] || rm -f "$ours"' EXIT
	trap 'exit 1' HUP INT TERM
	if [ ! -e "$policy" ]; then
		ours=$policy
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	# Nor make databases and endpoints of their own.
	debconf-set-selections <<'END'
keystone keystone/configure_db boolean false
keystone keystone/configure_db-dbconfig boolean false
keystone keystone/create-admin-tenant boolean false
keystone keystone/register-endpoint boolean false
END
	# An archive cache of our own: container images empty the usual one after any
	# other run of apt, even while we install from it.
	mkdir "$cache/partial"
	chmod 755 "$cache" # apt downloads as its own user
	chown _apt "$cache/partial"
	export DEBIAN_FRONTEND=noninteractive
	apt="apt-get -qq -o DPkg::Lock::Timeout=600 -o Dir::Cache::archives=$cache -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
	echo "peers: installing $packages"
	$apt update || true
	# All at once, or else each that can be: one that fails keeps no other away.
	# shellcheck disable=SC2086 # lists
	$apt install -y --no-install-recommends $packages >/dev/null || for package in $packages; do
		$apt install -y --no-install-recommends "$package" >/dev/null || true
	done
else
	echo "peers: packaging/peers.sh installs what is missing, as root of a Debian" >&2
fi

left=$(missing | sort -u)
[ -n "$left" ] || exit 0
while read -r package tests; do
	echo "peers: package $package is missing; not run: $tests" >&2
done <<END
$left
END
exit 1
