#!/bin/sh
# Usage: system_packages.sh [bench]. Make sure of the programs that `make test` (with `bench`: `make bench`) drives:
# installs them as root on Debian, else says what to install.
set -eu
missing=
need() {  # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need chromium chromium
need nginx nginx-light
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing libnginx-mod-stream"
need caddy caddy
need redis-server redis-server
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing="$missing postgresql-15"
need haproxy haproxy
need curl curl
need openssl openssl
need jq jq
need node nodejs
need npm npm
need ip iproute2
need nft nftables
need faketime faketime
need sshd openssh-server
need ssh openssh-client
need mosquitto mosquitto
need java openjdk-17-jre-headless
need mvn maven
need promtool prometheus
need docker-compose docker-compose
if [ "${1:-}" = bench ]; then
    need wrk wrk
fi
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # A package's service must not start: the tests start nginx themselves, on ports of their own.
    # shellcheck disable=SC2086  # one word a package
    apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
fi
echo "make ${1:-test} needs programs that are not installed. On Debian or Ubuntu run:" >&2
echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
exit 1
