#!/bin/bash
# Runs OpenStack's own tests of the network API (neutron_tempest_plugin.api)
# against `isospin server`, with the real Keystone and hosts that are simulated
# but for the protocol by which they attach. Everything is on 127.0.0.1 and in
# one directory; nothing that it starts outlives it.
#
#   run.sh [REGEX]     only tests whose name matches; default: all of the plug-in's API tests
#
# The exit status is not 0 when a test fails; when all were to run, also when
# fewer pass than testdata/expected.txt demands, or others are skipped than it
# names.
#
#   INTEROP_EXTENSIONS=server   test the extensions that the server lists (default)
#   INTEROP_EXTENSIONS=all      test those of Neutron (Zed with every service plug-in): what the server lacks fails
#   INTEROP_CONCURRENCY=2       tests at a time
#   INTEROP_DIR=…               where all is kept; default isospin-interop in $TMPDIR or /tmp
#   INTEROP_ISOSPIN=bin/isospin the program to test
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Debian's Python, whatever else is on the machine.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
unset PYTHONPATH VIRTUAL_ENV PYENV_VERSION ${!OS_*}

if [ "$(id -u)" -ne 0 ]; then
	echo "interop: skipped: it installs packages and runs Keystone as its own user, and so needs root"
	exit 0
fi
everything='^neutron_tempest_plugin\.api\.'
regex=${1:-$everything}
dir=${INTEROP_DIR:-${TMPDIR:-/tmp}/isospin-interop}
isospin=$(realpath "${INTEROP_ISOSPIN:-$here/../../../bin/isospin}")
concurrency=${INTEROP_CONCURRENCY:-2}
extensions=${INTEROP_EXTENSIONS:-server}
case $extensions in server | all) ;; *) echo "interop: INTEROP_EXTENSIONS is server or all" >&2; exit 2 ;; esac

"$here/../../../packaging/peers.sh" test/interop/tempest

umask 077
mkdir -p "$dir"/{log,results}
chmod 711 "$dir" # Keystone's user passes through
exec {lock}>"$dir/lock"
flock -n $lock || { echo "interop: another run uses $dir" >&2; exit 1; }

# --- processes -------------------------------------------------------------
groups=() # leaders of the process groups that we started, the newest first
start() { # start NAME COMMAND...
	setsid -- "${@:2}" >"$dir/log/$1" 2>&1 </dev/null {lock}>&- &
	groups=($! "${groups[@]}")
}
stop() {
	local status=$? g
	trap - EXIT
	for g in "${groups[@]}"; do
		kill -TERM -- "-$g" 2>/dev/null || continue
		for _ in $(seq 100); do kill -0 -- "-$g" 2>/dev/null || continue 2; sleep 0.1; done
		kill -KILL -- "-$g" 2>/dev/null || true
	done
	rm -rf "$dir/state" "$dir/hosts"
	exit $status
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

answers() { # answers NAME URL: waits until it does, or until NAME has ended
	local code
	for _ in $(seq 600); do
		code=$(curl -s -o /dev/null -m 5 -w '%{http_code}' "$2" || true)
		case $code in 2* | 300 | 401) return 0 ;; esac
		kill -0 "${groups[0]}" 2>/dev/null || break
		sleep 0.1
	done
	echo "interop: $1 does not answer; the end of $dir/log/$1:" >&2
	tail -n 20 "$dir/log/$1" >&2
	return 1
}
read -r keystone_port api_port < <(/usr/bin/python3 -c '
import socket
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in free))')

# --- Keystone --------------------------------------------------------------
# Its database is made once for a directory and used again by later runs.
k=$dir/keystone
url=http://127.0.0.1:$keystone_port/v3
if [ ! -e "$k/made" ]; then
	rm -rf "$k"
	mkdir -p "$k"/{policy.d,fernet,credential,home}
	secret() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }
	printf 'admin_password=%s\nservice_password=%s\n' "$(secret)" "$(secret)" >"$k/secrets"
fi
. "$k/secrets"
cat >"$k/keystone.conf" <<END
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///$k/keystone.sqlite?timeout=30
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = $k/fernet
[fernet_receipts]
key_repository = $k/fernet
[credential]
key_repository = $k/credential
# One process, so that what it has cached is what there is.
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
# The least that bcrypt has: tempest makes some hundred users.
password_hash_rounds = 4
[oslo_policy]
policy_dirs = $k/policy.d
END
cat >"$k/uwsgi.ini" <<END
[uwsgi]
http-socket = 127.0.0.1:$keystone_port
plugins = python3
wsgi-file = /usr/bin/keystone-wsgi-public
chdir = $k/home
master = true
lazy-apps = true
enable-threads = true
processes = 1
threads = 8
buffer-size = 65535
rem-header = Content-Length
add-header = Connection: close
die-on-term = true
no-orphans = true
disable-logging = true
END
chown -R keystone:keystone "$k"
chown root:root "$k/secrets"
as_keystone=(setpriv --reuid=keystone --regid=keystone --init-groups env -i "PATH=$PATH" LC_ALL=C.UTF-8 "HOME=$k/home"
	"OS_KEYSTONE_CONFIG_FILES=$k/keystone.conf" PYTHONWARNINGS=ignore)
{
	manage=("${as_keystone[@]}" keystone-manage --config-file "$k/keystone.conf")
	if [ ! -e "$k/made" ]; then
		echo "interop: making Keystone's database" >&3
		"${manage[@]}" db_sync
		# Readers and the writer do not wait for each other.
		"${as_keystone[@]}" /usr/bin/python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA journal_mode=WAL")' "$k/keystone.sqlite"
		"${manage[@]}" fernet_setup --keystone-user keystone --keystone-group keystone
		"${manage[@]}" credential_setup --keystone-user keystone --keystone-group keystone
	fi
	# The password by the environment: other users may read arguments.
	"${as_keystone[@]}" "OS_BOOTSTRAP_PASSWORD=$admin_password" keystone-manage --config-file "$k/keystone.conf" bootstrap \
		--bootstrap-region-id RegionOne --bootstrap-admin-url "$url" --bootstrap-internal-url "$url" --bootstrap-public-url "$url"
	touch "$k/made"
} 3>&1 >"$dir/log/keystone-manage" 2>&1
start keystone "${as_keystone[@]}" uwsgi_python3 --ini "$k/uwsgi.ini"
answers keystone "$url"
export OS_AUTH_URL=$url OS_IDENTITY_API_VERSION=3 OS_USERNAME=admin OS_PASSWORD=$admin_password OS_PROJECT_NAME=admin \
	OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default OS_REGION_NAME=RegionOne
cloud() { SERVICE_PASSWORD=$service_password PYTHONWARNINGS=ignore /usr/bin/python3 "$here/cloud.py" "$@"; }
cloud identity "http://127.0.0.1:$api_port"

# --- the server and its hosts ----------------------------------------------
rm -rf "$dir/state" "$dir/hosts"
mkdir -p "$dir/state" "$dir/hosts"
cat >"$dir/neutron.conf" <<END
[DEFAULT]
bind_host = 127.0.0.1
bind_port = $api_port
core_plugin = ml2
service_plugins = router,metering,qos,trunk,segments,port_forwarding,conntrack_helper,local_ip,ndp_proxy,log,network_segment_range,tag,timestamp,revisions,flavors,auto_allocate,network_ip_availability
auth_strategy = keystone
state_path = $dir/state
global_physnet_mtu = 1500
allow_automatic_dhcp_failover = false
# With the default domain, ports have no names.
dns_domain = interop.example.
[isospin]
# The tests are those of 2022: they lower quotas below what is used, and expect
# no subnets of external networks in lists.
disabled_extensions = quota-check-limit-default,subnet-external-network
[database]
connection = sqlite:///$dir/state/neutron.sqlite
[keystone_authtoken]
www_authenticate_uri = http://127.0.0.1:$keystone_port
auth_url = http://127.0.0.1:$keystone_port
auth_type = password
project_name = service
username = neutron
password = $service_password
project_domain_name = Default
user_domain_name = Default
service_token_roles_required = true
[oslo_policy]
policy_file = $dir/policy.yaml
END
# Tests of 2022 presuppose these; the defaults have become stricter since.
cat >"$dir/policy.yaml" <<'END'
"create_policy:tags": "rule:regular_user"
"update_policy:tags": "rule:regular_user"
"delete_policy:tags": "rule:regular_user"
"get_policy_dscp_marking_rule": "rule:regular_user"
END
cat >"$dir/ml2_conf.ini" <<'END'
[ml2]
type_drivers = local,flat,vlan,gre,vxlan,geneve
tenant_network_types = vxlan
mechanism_drivers = openvswitch
# In 2022 no bandwidth could be promised on networks of tunnels.
tunnelled_network_rp_name =
extension_drivers = port_security,qos,subnet_dns_publish_fixed_ip,data_plane_status,uplink_status_propagation,port_device_profile,port_numa_affinity_policy,tag_ports_during_bulk_creation
[ml2_type_flat]
flat_networks = public
[ml2_type_vlan]
network_vlan_ranges = public,physnet1:1:4000
[ml2_type_gre]
tunnel_id_ranges = 1:1000
[ml2_type_vxlan]
vni_ranges = 1:2000
[ml2_type_geneve]
vni_ranges = 1:2000
max_header_size = 38
[securitygroup]
enable_security_group = true
END
start server "$isospin" server --config-file "$dir/neutron.conf" --config-file "$dir/ml2_conf.ini"
answers server "http://127.0.0.1:$api_port/"
start hosts env TMPDIR="$dir/hosts" "$isospin" lab simulate --hosts 2 --name-prefix interop-node- --bridge-mapping public=br-ex --bridge-mapping physnet1=br-phys \
	--config-file "$dir/neutron.conf"
public=$(cloud network)
cloud extensions >"$dir/results/extensions.txt"
case $extensions in
server) enabled=$(paste -sd, "$dir/results/extensions.txt") ;;
all) enabled=$(paste -sd, "$here/testdata/extensions.txt") ;;
esac

# --- tempest ---------------------------------------------------------------
t=$dir/tempest
rm -rf "$t"
mkdir -p "$t"/{lock,repository}
packages=/usr/lib/python3/dist-packages
cat >"$t/tempest.conf" <<END
[DEFAULT]
log_file = $t/tempest.log
[oslo_concurrency]
lock_path = $t/lock
[auth]
use_dynamic_credentials = true
admin_username = admin
admin_password = $admin_password
admin_project_name = admin
admin_domain_name = Default
tempest_roles = member
[identity]
auth_version = v3
uri_v3 = $url
region = RegionOne
[service_available]
neutron = true
nova = false
glance = false
cinder = false
swift = false
horizon = false
[network]
region = RegionOne
public_network_id = $public
floating_network_name = public
project_network_cidr = 10.100.0.0/16
project_network_mask_bits = 28
[network-feature-enabled]
api_extensions = $enabled
ipv6 = true
ipv6_subnet_attributes = true
port_security = true
floating_ips = true
port_admin_state_change = true
[validation]
run_validation = false
[neutron_plugin_options]
available_type_drivers = flat,vlan,local,vxlan
provider_vlans = physnet1
agent_availability_zone = nova
create_shared_resources = true
END
cat >"$t/.stestr.conf" <<END
[DEFAULT]
test_path=$packages/tempest/test_discover
top_dir=$packages
group_regex=([^\.]*\.)*
END
echo "interop: $(wc -l <"$dir/results/extensions.txt") extensions listed, testing $extensions; concurrency $concurrency; results in $dir/results"
cd "$t"
begin=$SECONDS
start stestr env PYTHON=/usr/bin/python3 TEMPEST_CONFIG_DIR="$t" TEMPEST_CONFIG=tempest.conf OS_TEST_TIMEOUT=300 PYTHONWARNINGS=ignore \
	PYTHONPATH="$here/python" sh -c 'exec stestr --config .stestr.conf --repo-url "$PWD/repository" run --concurrency "$1" --subunit "$2" >results.subunit' \
	sh "$concurrency" "$regex"
wait "${groups[0]}" || true # the report tells what failed
if [ ! -s results.subunit ]; then
	echo "interop: the tests did not run; the end of $dir/log/stestr:" >&2
	tail -n 20 "$dir/log/stestr" >&2
	exit 1
fi
whole=()
[ "$regex" != "$everything" ] || whole=("$here/testdata/expected.txt")
/usr/bin/python3 "$here/report.py" results.subunit "$dir/results" $((SECONDS - begin)) "$concurrency" "$here/testdata/neutron.txt" "${whole[@]}" |
	tee "$dir/results/summary.txt"
exit "${PIPESTATUS[0]}"
