#!/bin/sh
# Usage: system_packages.sh [bench | firmware-sim | firmware-test | firmware-fuzz]. Make sure of the programs that
# `make test` (or the target that is named) drives: installs them as root on Debian, else says what to install.
set -eu
missing=
need() {  # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
have() {  # have FILE PACKAGE
    [ -e "$1" ] || missing="$missing $2"
}

for_stacks() {
    need chromium chromium
    need nginx nginx-light
    have /usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream
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
}

for_simulator() {
    need gcc gcc
    need cmake cmake
    need ninja ninja-build
    need pkg-config pkg-config
    have /usr/include/stdio.h libc6-dev
    have /usr/include/libwebsockets.h libwebsockets-dev
    have /usr/include/mosquitto.h libmosquitto-dev
    have /usr/include/microhttpd.h libmicrohttpd-dev
    have /usr/include/psa/crypto.h libmbedtls-dev
}

# Units, a fuzzer, and the core for rv32 under qemu.
for_firmware_tests() {
    have /usr/include/cmocka.h libcmocka-dev
    need clang-14 clang-14
    have /usr/share/doc/libclang-rt-14-dev libclang-rt-14-dev
    need riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf
    have /usr/lib/picolibc/riscv64-unknown-elf/picolibc.specs picolibc-riscv64-unknown-elf
    need qemu-system-riscv32 qemu-system-misc
}

case "${1:-test}" in
    test) for_stacks && for_simulator && for_firmware_tests ;;
    bench) for_stacks && need wrk wrk ;;
    firmware-sim) for_simulator ;;
    firmware-test) for_stacks && for_simulator && for_firmware_tests ;; # the simulator before real servers and browsers
    firmware-fuzz) for_simulator && for_firmware_tests ;;
esac
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
