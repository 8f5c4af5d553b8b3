#!/bin/sh
# Installs RabbitMQ and oslo.messaging as Debian packages them, if they are
# missing. It starts no service. Without root the test is skipped, and says so.
set -eu

missing=''
[ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
[ -e /usr/lib/python3/dist-packages/oslo_messaging ] || missing="$missing python3-oslo.messaging"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "interop: missing$missing"
	exit 0
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
echo "interop: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # a list
apt-get -qq install -y --no-install-recommends $missing >/dev/null
