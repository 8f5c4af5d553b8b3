#!/bin/sh
# Makes the certificates with which the server and the agents know each other.
#
#   certificates.sh DIRECTORY authority
#   certificates.sh DIRECTORY server NAME [DNS:NAME|IP:ADDRESS]...
#   certificates.sh DIRECTORY agent HOST
#
# HOST is [DEFAULT] host of the agent. The key of the authority stays where it
# was made; a host gets its own certificate and key, and authority.pem.
set -eu

usage() {
	sed -n '4,6s/^# *//p' "$0" >&2
	exit 2
}
[ $# -ge 2 ] || usage
directory=$1 what=$2
shift 2
umask 077
mkdir -p "$directory"
cd "$directory"

# issue NAME USAGE SUBJECT-ALTERNATIVE-NAMES
issue() {
	[ -e authority.key ] || {
		echo "certificates.sh: there is no authority in $directory" >&2
		exit 1
	}
	openssl req -x509 -CA authority.pem -CAkey authority.key -days 825 \
		-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 -subj "/CN=$1" \
		-addext "subjectAltName=$3" -addext basicConstraints=critical,CA:FALSE \
		-addext keyUsage=critical,digitalSignature -addext "extendedKeyUsage=$2" \
		-keyout "$1.key" -out "$1.pem" 2>/dev/null
	chmod 644 "$1.pem"
	echo "$directory/$1.pem $directory/$1.key"
}

case $what in
authority)
	if [ -e authority.key ]; then
		echo "certificates.sh: $directory has an authority already" >&2
		exit 1
	fi
	openssl req -x509 -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 \
		-subj "/CN=isospin feed" -addext basicConstraints=critical,CA:TRUE \
		-addext keyUsage=critical,keyCertSign,cRLSign \
		-keyout authority.key -out authority.pem 2>/dev/null
	chmod 644 authority.pem
	echo "$directory/authority.pem $directory/authority.key"
	;;
server)
	[ $# -ge 1 ] || usage
	name=$1
	shift
	names=DNS:$name
	for more in "$@"; do names=$names,$more; done
	issue "$name" serverAuth "$names"
	;;
agent)
	[ $# -eq 1 ] || usage
	issue "$1" clientAuth "DNS:$1"
	;;
*) usage ;;
esac
