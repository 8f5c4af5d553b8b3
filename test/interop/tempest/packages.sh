#!/bin/sh
# Installs what the run needs and the machine lacks, as Debian 12 packages it.
# It starts no service.
set -eu

# file | package | what it is for
needed='
/usr/bin/keystone-wsgi-public|keystone|the real identity service, which the server asks about tokens
/usr/bin/uwsgi_python3|uwsgi-plugin-python3|what runs keystone
/usr/bin/tempest|tempest|the test framework of OpenStack
/usr/lib/python3/dist-packages/neutron_tempest_plugin|neutron-tempest-plugin|the tests of the API
/usr/bin/stestr|python3-stestr|what runs the tests, several at a time
/usr/lib/python3/dist-packages/subunit|python3-subunit|what reads their results
/usr/lib/python3/dist-packages/openstack|python3-openstacksdk|what makes users, endpoints and the outside network
/usr/bin/curl|curl|asks whether a service answers
/usr/bin/setpriv|util-linux|runs keystone as its own user
'
missing=''
while IFS='|' read -r what package why; do
	[ -n "$what" ] && [ ! -e "$what" ] || continue
	echo "interop: $what is missing; package $package ($why)"
	missing="$missing $package"
done <<END
$needed
END
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
	echo "interop: this is not Debian; install what is named above by other means" >&2
	exit 1
}
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
echo "interop: installing$missing"
apt="apt-get -qq -o DPkg::Lock::Timeout=600 -o Dir::Cache::archives=$cache -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
$apt update
# shellcheck disable=SC2086 # lists
$apt install -y --no-install-recommends $missing >/dev/null
