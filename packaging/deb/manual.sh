#!/bin/sh
# Prints a manual page of what the program given as argument says of itself.
set -eu

program=$1
text() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\([.']\)/\\\\\&\1/"; }
# commands NAME...: the names below a command, one on a line.
commands() { "$program" "$@" --help | sed -n '/^Available Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'; }
section() {
	printf '.SS isospin %s\n.nf\n' "$*"
	"$program" "$@" --help | text
	printf '.fi\n'
}

printf '.TH ISOSPIN 8\n.SH NAME\nisospin \\- OpenStack Networking in one binary\n'
printf '.SH SYNOPSIS\n.B isospin\n.I command\n.RI [ flags ]\n.SH DESCRIPTION\n.nf\n'
"$program" --help | text
printf '.fi\n.SH COMMANDS\n'
for name in $(commands); do
	case $name in completion | help) continue ;; esac
	section "$name"
	for below in $(commands "$name"); do section "$name" "$below"; done
done
printf '.SH FILES\n.I /etc/neutron/neutron.conf\n.br\n.I /var/lib/neutron\n.SH SEE ALSO\n/usr/share/doc/isospin/operate\n'
