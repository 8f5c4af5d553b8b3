#!/bin/sh
# Makes bin/isospin_<version>_<architecture>.deb of bin/isospin. It needs no
# network and no root; the same commit gives the same bytes.
set -eu

cd "$(dirname -- "$0")/../.."
version=$(packaging/deb/version.sh)
architecture=$(dpkg --print-architecture)
binary=${BINARY:-bin/isospin}
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$root"
umask 022
doc=$root/usr/share/doc/isospin

install -D -m 755 "$binary" "$root/usr/bin/isospin"
for unit in server agent; do
	install -D -m 644 "packaging/systemd/isospin-$unit.service" "$root/usr/lib/systemd/system/isospin-$unit.service"
done
install -D -m 644 packaging/systemd/sysusers.conf "$root/usr/lib/sysusers.d/isospin.conf"
install -D -m 644 packaging/systemd/tmpfiles.conf "$root/usr/lib/tmpfiles.d/isospin.conf"

install -D -m 644 packaging/deb/copyright "$doc/copyright"
install -D -m 644 README.md "$doc/README.md"
for page in docs/operate/*.md; do
	install -D -m 644 "$page" "$doc/operate/${page##*/}"
done
mkdir -p "$doc/examples"
"$binary" config sample >"$doc/examples/neutron.conf"
install -m 644 packaging/prometheus/alerts.yml packaging/grafana/isospin.json packaging/tls/certificates.sh "$doc/examples/"
"$binary" config reference >"$doc/operate/options.md"
{
	printf 'isospin (%s) unstable; urgency=medium\n\n  * See the history of the source.\n\n' "$version"
	printf ' -- isospin <isospin@localhost>  %s\n' "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"

mkdir -p "$root/usr/share/man/man8" "$root/usr/share/bash-completion/completions"
packaging/deb/manual.sh "$binary" | gzip -9n >"$root/usr/share/man/man8/isospin.8.gz"
"$binary" completion bash >"$root/usr/share/bash-completion/completions/isospin"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
	install -m 755 "packaging/deb/$script" "$root/DEBIAN/$script"
done
install -m 644 packaging/deb/templates "$root/DEBIAN/templates"
size=$(du -k -s --apparent-size "$root" | cut -f 1)
sed -e "s/@version@/$version/" -e "s/@architecture@/$architecture/" -e "s/@size@/$size/" packaging/deb/control >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"

package=${OUTPUT:-bin}/isospin_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zgzip --build "$root" "$package" >/dev/null
echo "$package"
