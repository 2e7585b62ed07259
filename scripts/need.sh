#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks, from the
# distribution's packages, saying so first:
#
#     scripts/need.sh postgres psql race node python openssl
#
# It uses whatever is there already, and leaves no new service running: no
# PostgreSQL cluster is created. As an ordinary user it tries sudo without a
# password, and otherwise prints the one line to run.
set -euo pipefail
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

packages=()
for need in "$@"; do
	case $need in
	postgres) # the server's programs; Debian keeps them out of PATH
		have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql) ;;
	psql) have psql || packages+=(postgresql-client) ;;
	race) # the race detector links with the C library
		have gcc || have clang || packages+=(gcc)
		[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev) ;;
	node)
		have node || packages+=(nodejs)
		have npm || packages+=(npm) ;;
	python) # with its PostgreSQL driver, for the example
		python3 -c 'import psycopg2' 2>/dev/null || /usr/bin/python3 -c 'import psycopg2' 2>/dev/null || packages+=(python3 python3-psycopg2) ;;
	slapd) # OpenLDAP's server, which Debian keeps in /usr/sbin, and its clients
		have slapd || [ -x /usr/sbin/slapd ] || packages+=(slapd)
		have ldapadd || packages+=(ldap-utils) ;;
	hvac) # the Python client of an example
		python3 -c 'import hvac, psycopg2' 2>/dev/null || /usr/bin/python3 -c 'import hvac, psycopg2' 2>/dev/null || packages+=(python3 python3-hvac python3-psycopg2) ;;
	age) have age && have age-keygen || packages+=(age) ;; # what encrypting files is measured beside
	openssl) # the pages make keys and a certificate with it
		have openssl || packages+=(openssl) ;;
	*) echo "need.sh: I do not know what $need is" >&2; exit 2 ;;
	esac
done
[ ${#packages[@]} -eq 0 ] && exit 0

if ! have apt-get; then
	echo "Missing on this machine: ${packages[*]} (Debian's names). Install them, then run make again." >&2
	exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if have sudo && sudo -n true 2>/dev/null; then
		as_root=(sudo -n)
	else
		echo "Missing on this machine: ${packages[*]}. Run this, then make again:" >&2
		echo "    sudo $PWD/scripts/need.sh $*" >&2
		exit 1
	fi
fi

install() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

before="" policy=""
undo() { # what was changed for the time of installing
	[ -z "$before" ] || { "${as_root[@]}" tee "$conf" <"$before" >/dev/null; rm -f "$before"; }
	[ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
}
trap undo EXIT

echo "==> Installing from the distribution's packages: ${packages[*]}"
"${as_root[@]}" apt-get update -qq
if [[ " ${packages[*]} " == *" slapd "* ]] && [ ! -e /usr/sbin/policy-rc.d ]; then
	# Debian's package would start its service; this is how one says no.
	policy=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 0755 "$policy"
fi
if [[ " ${packages[*]} " == *" postgresql "* ]]; then
	# Debian's package would create a cluster and start it. Its switch for
	# that is put back afterwards to what it was.
	echo "    (programs only: no database cluster is created, no service is started)"
	conf=/etc/postgresql-common/createcluster.conf
	install postgresql-common
	before=$(mktemp)
	cat "$conf" >"$before"
	{ grep -v '^[[:space:]#]*create_main_cluster' "$before" || true; echo 'create_main_cluster = false'; } |
		"${as_root[@]}" tee "$conf" >/dev/null
fi
install "${packages[@]}"
