#!/bin/sh
# Mosquitto that reads its list of revoked devices again whenever that changes: for where the keeper, which writes the
# list, runs in another container and cannot signal it (no `pid_file` in ingest's table `keeper`).
#
#   serve.sh CONFIGURATION LIST
#
# Five looks a second: the keeper ends a revoked device's connection at once and again after a second, and must not
# find the old list in use then. Who watches ends with the broker, and the broker with who watches, so that a
# supervisor starts both again.
set -u

look() { stat -c '%i %Y %Z %s' "$1" 2>/dev/null; }

seen=$(look "$2") # before the broker reads it: a change meanwhile is told once too often at worst
(
    trap 'kill -TERM $$ 2>/dev/null' EXIT
    trap 'exit 1' TERM INT HUP
    while kill -0 $$ 2>/dev/null; do
        sleep 0.2
        now=$(look "$2")
        if [ -n "$now" ] && [ "$now" != "$seen" ]; then
            seen=$now
            kill -HUP $$
        fi
    done
) &
exec mosquitto -c "$1"
