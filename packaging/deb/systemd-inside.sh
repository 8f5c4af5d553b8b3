#!/bin/bash
# What systemd.sh runs inside, as a service of a systemd that has just booted.
set -euo pipefail
cd /test
: >begun
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
step() { echo "systemd-test: $*"; }
fail() {
	echo "systemd-test: FAILED: $*"
	systemctl status --no-pager --lines=0 isospin-server isospin-agent || true
	journalctl --no-pager -o cat -u isospin-server -u isospin-agent | grep -v msg=request | tail -n 30 || true
	exit 1
}
trap 'journalctl --no-pager >journal 2>&1 || true' EXIT
# until_true SECONDS COMMAND...: waits until it succeeds.
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || fail "not so in time: $*"
		sleep 0.1
	done
}
of() { systemctl show --value -p "$2" "isospin-$1"; }
request() { curl -sS --fail-with-body --max-time 20 -X "$1" -H 'Content-Type: application/json' ${3:+-d "$3"} "http://127.0.0.1:9696$2"; }
# create KIND BODY: its id.
create() { request POST "/v2.0/$1" "$2" | sed 's/.*"id": *"\([0-9a-f-]\{36\}\)".*/\1/'; }
# Kernel and systemd say so of what a sandbox refuses.
no_denials() {
	! journalctl --no-pager -o cat _SYSTEMD_UNIT=isospin-server.service + _SYSTEMD_UNIT=isospin-agent.service \
		| grep -iE 'not permitted|permission denied|read-only file system|address family not supported|bad system call' || fail "the sandbox refuses something"
}

ip link set lo up
ip address add 192.0.2.250/32 dev lo # the tunnel's
install -d /etc/neutron/plugins/ml2
cat >/etc/neutron/neutron.conf <<-'END'
	[DEFAULT]
	auth_strategy = noauth
	debug = true
	core_plugin = ml2
	bind_host = 127.0.0.1
	host = isospin-test
END
cat >/etc/neutron/plugins/ml2/ml2_conf.ini <<-'END'
	[ml2]
	type_drivers = flat,vxlan
	tenant_network_types = vxlan
	mechanism_drivers = openvswitch
	[ml2_type_vxlan]
	vni_ranges = 1:1000
	[ml2_type_flat]
	flat_networks = public
END
cat >/etc/neutron/isospin.conf <<-'END'
	[ovs]
	datapath_type = netdev
	local_ip = 192.0.2.250
	bridge_mappings = public:br-ex
	[agent]
	tunnel_types = vxlan
	resync_interval = 5
END

old=$(ls isospin_1.0.0_*.deb) new=$(ls isospin_1.0.1_*.deb)
step "install $old"
dpkg -i "$old"
[ "$(of server ActiveState)$(of agent ActiveState)" = inactiveinactive ] || fail "a service was started"
systemd-analyze verify --man=no isospin-server.service isospin-agent.service 2>&1 | grep 'isospin-' && fail "the units have mistakes"
for unit in server agent; do
	echo "isospin-$unit: $(systemd-analyze security --no-pager "isospin-$unit.service" | tail -n 1)"
done

step "server: start, notification, sandbox"
# A short watchdog, to see it bite.
for unit in server agent; do
	install -d "/run/systemd/system/isospin-$unit.service.d"
	printf '[Service]\nWatchdogSec=4s\n' >"/run/systemd/system/isospin-$unit.service.d/watchdog.conf"
done
systemctl daemon-reload
systemctl start isospin-server
[ "$(of server ActiveState)/$(of server SubState)" = active/running ] || fail "the server is not active"
systemctl status --no-pager --lines=0 isospin-server
main=$(of server MainPID)
[ "$(stat -c %U "/proc/$main")" = neutron ] || fail "the server runs as another user"
grep -qx 'CapEff:	0*' "/proc/$main/status" || fail "the server has capabilities"
grep -qx 'Seccomp:	2' "/proc/$main/status" || fail "the server has no filter of system calls"
awk '$5 == "/" { options = $6 } END { exit options !~ /^ro(,|$)/ }' "/proc/$main/mountinfo" || fail "the server can write everywhere"
network=$(create networks '{"network":{"name":"kept"}}')
[ -n "$network" ] || fail "no network"
no_denials

# alive UNIT: the watchdog is told, and a process that hangs, or is killed, is replaced.
alive() {
	local unit=$1 first main restarts
	first=$(of "$unit" WatchdogTimestampMonotonic)
	beaten() { [ "$(of "$unit" WatchdogTimestampMonotonic)" -gt "$first" ]; }
	until_true 10 beaten
	restarted() { [ "$(of "$unit" NRestarts)" -gt "$restarts" ] && [ "$(of "$unit" SubState)" = running ]; }
	restarts=$(of "$unit" NRestarts) main=$(of "$unit" MainPID)
	kill -STOP "$main"
	until_true 40 restarted
	journalctl --no-pager -o cat -u "isospin-$unit" | grep -qi 'watchdog timeout' || fail "it was not the watchdog"
	restarts=$(of "$unit" NRestarts) main=$(of "$unit" MainPID)
	kill -KILL "$main"
	until_true 40 restarted
}
step "server: watchdog, restart"
alive server
request GET /v2.0/networks | grep -q '"kept"' || fail "the network is gone"

step "server: a request under way is answered when it stops"
(
	# The head now, the body once it is stopping.
	exec 3<>/dev/tcp/127.0.0.1/9696
	body='{"network":{"name":"drained"}}'
	printf 'POST /v2.0/networks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n' "${#body}" >&3
	: >sent
	until [ "$(of server ActiveState)" = deactivating ]; do sleep 0.05; done
	printf '%s' "$body" >&3
	cat <&3 >answer
) &
request_under_way=$!
until_true 10 test -e sent
systemctl reload isospin-server
systemctl stop isospin-server
wait "$request_under_way" || true
grep -q '201 Created' answer || fail "the request was cut off: $(cat answer)"
[ "$(of server Result)/$(of server ExecMainStatus)" = success/0 ] || fail "stopping it failed: $(of server Result)"
systemctl start isospin-server
request GET /v2.0/networks | grep -q '"drained"' || fail "what was answered is not there"
no_denials

if [ -x /usr/sbin/mariadbd ]; then
	step "server: on MariaDB, started together with it"
	systemctl start mariadb
	mariadb -e "CREATE DATABASE isospin; CREATE USER isospin@127.0.0.1 IDENTIFIED BY 'test'; GRANT ALL ON isospin.* TO isospin@127.0.0.1"
	systemctl stop isospin-server mariadb
	cp /etc/neutron/isospin.conf without
	printf '[database]\nconnection = mysql+pymysql://isospin:test@127.0.0.1/isospin\n' >>/etc/neutron/isospin.conf
	# Each name is a request of its own: the first starts while the second waits for it.
	systemctl start mariadb isospin-server
	[ "$(systemctl show --value -p ActiveEnterTimestampMonotonic mariadb)" -le "$(of server ExecMainStartTimestampMonotonic)" ] || fail "the server did not wait for its database"
	[ "$(of server NRestarts)" = 0 ] || fail "the server was restarted"
	request POST /v2.0/networks '{"network":{"name":"elsewhere"}}' >/dev/null
	! request GET /v2.0/networks | grep -q '"kept"' || fail "this is SQLite"
	cp without /etc/neutron/isospin.conf
	systemctl stop isospin-server mariadb
	[ "$(of server Result)" = success ] || fail "stopping it failed: $(of server Result)"
	systemctl start isospin-server
	no_denials
else
	step "SKIPPED: the server on MariaDB: mariadb-server is not in this Debian"
fi

step "agent: start beside Open vSwitch"
# The modules of the kernel are not wanted: the data path is Open vSwitch's own.
install -d /run/systemd/system/ovs-vswitchd.service.d
cat >/run/systemd/system/ovs-vswitchd.service.d/datapath.conf <<-'END'
	[Service]
	Type=forking
	ExecStart=
	ExecStart=/usr/sbin/ovs-vswitchd unix:/run/openvswitch/db.sock --pidfile --detach --no-chdir --log-file
	ExecStop=
END
systemctl daemon-reload
systemctl start isospin-agent
[ "$(of agent ActiveState)/$(of agent SubState)" = active/running ] || fail "the agent is not active"
systemctl is-active openvswitch-switch >/dev/null || fail "Open vSwitch was not started"
systemctl status --no-pager --lines=0 isospin-agent
ovs-vsctl --may-exist add-br br-ex -- set bridge br-ex datapath_type=netdev
attached() { request GET /v2.0/agents | grep -q '"alive": *true'; }
until_true 30 attached

step "agent: a port, DHCP, a router"
subnet=$(create subnets '{"subnet":{"network_id":"'"$network"'","ip_version":4,"cidr":"10.1.0.0/24"}}')
port=$(create ports '{"port":{"network_id":"'"$network"'","mac_address":"fa:16:3e:00:00:01","binding:host_id":"isospin-test","device_owner":"compute:nova","device_id":"guest"}}')
[ -n "$subnet" ] && [ -n "$port" ] || fail "no port"
ip netns add guest
ip link add tap-guest type veth peer name eth0 netns guest address fa:16:3e:00:00:01
ip link set tap-guest up
ip -n guest link set eth0 up
ovs-vsctl add-port br-int tap-guest -- set Interface tap-guest external_ids:iface-id="$port" external_ids:iface-status=active external_ids:attached-mac=fa:16:3e:00:00:01
active() { request GET "/v2.0/ports/$port" | grep -q '"status": *"ACTIVE"'; }
until_true 30 active
until_true 30 test -e "/run/netns/qdhcp-$network"
lease() { ip netns exec guest udhcpc -i eth0 -n -q -t 3 -T 2 -s /bin/true 2>&1 | tee lease | grep -q 'lease of 10\.1\.0\.'; }
until_true 40 lease
cat lease
outside=$(create networks '{"network":{"name":"outside","router:external":true,"provider:network_type":"flat","provider:physical_network":"public"}}')
create subnets '{"subnet":{"network_id":"'"$outside"'","ip_version":4,"cidr":"198.51.100.0/24","enable_dhcp":false}}' >/dev/null
router=$(create routers '{"router":{"name":"way","external_gateway_info":{"network_id":"'"$outside"'"}}}')
request PUT "/v2.0/routers/$router/add_router_interface" '{"subnet_id":"'"$subnet"'"}' >/dev/null
until_true 30 ip netns exec "qrouter-$router" nft list table inet isospin
gateway() { ip -n "qrouter-$router" -4 address | grep -q 'inet 10\.1\.0\.1/24' && ip -n "qrouter-$router" -4 address | grep -q 'inet 198\.51\.100\.'; }
until_true 30 gateway
ip -n "qrouter-$router" -br -4 address
no_denials

step "agent: watchdog, restart; the data path stays"
alive agent
until_true 30 attached
systemctl stop isospin-agent
[ "$(of agent Result)/$(of agent ExecMainStatus)" = success/0 ] || fail "stopping it failed: $(of agent Result)"
gateway || fail "the router went with the agent"
[ -e "/run/netns/qdhcp-$network" ] || fail "the namespace went with the agent"
systemctl start isospin-agent
until_true 30 attached
lease || until_true 40 lease
no_denials

step "upgrade to $new: services that run are restarted"
dpkg -i "$new"
for unit in server agent; do
	[ "$(of "$unit" SubState)" = running ] || fail "the $unit does not run after the upgrade"
	cmp "/proc/$(of "$unit" MainPID)/exe" /usr/bin/isospin || fail "the $unit runs the old program"
done
isospin version | grep -q 'v1.0.1' || fail "wrong program"
until_true 30 attached

step "remove: services end, the data path stays"
dpkg -r isospin
[ -z "$(pgrep -x isospin || true)" ] || fail "a service stays"
gateway || fail "the router went with the package"
no_denials
step "all is well"
: >passed
