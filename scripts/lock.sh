#!/bin/sh
# Write requirements/*.txt from pyproject.toml: every package with its hashes, for every platform, no address.
set -eu
cd "$(dirname "$0")/.."
if ! command -v uv >/dev/null 2>&1; then
    echo "make lock needs uv: https://docs.astral.sh/uv/ (nothing else does)" >&2
    exit 1
fi
lock() {
    target=$1
    shift
    # shellcheck disable=SC2068  # the remaining arguments are separate options
    uv pip compile pyproject.toml $@ --universal --python-version 3.11 --generate-hashes --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file "requirements/$target.txt"
    echo "requirements/$target.txt: $(grep -c == "requirements/$target.txt") packages"
}
lock agent --extra agent
lock server --extra server
# amqtt 0.12 names one release of websockets, and passes our tests with the newer one that the servers use.
overrides=requirements/overrides.in
lock up --extra up --override $overrides
lock dev --extra up --group dev --override $overrides
lock bench-peers --group bench-peers
lock load --group load
lock_ui() {  # a real device UI that the tests drive, in an environment of its own
    name=$1
    shift
    uv pip compile "tests/device_uis/locks/$name.in" "$@" --universal --python-version 3.11 --generate-hashes --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file "tests/device_uis/locks/$name.txt"
    echo "tests/device_uis/locks/$name.txt: $(grep -c == "tests/device_uis/locks/$name.txt") packages"
}
lock_ui octoprint --override tests/device_uis/locks/octoprint.overrides
lock_ui notebook
lock_ui dashboard
node_locks="tests/device_uis/locks/node-red tests/gateway/login/locks/oidc-provider"
if command -v npm >/dev/null 2>&1; then
    for folder in $node_locks; do
        (cd "$folder" && npm install --package-lock-only --ignore-scripts --loglevel=error \
            --omit-lockfile-registry-resolved --no-audit --no-fund)
    done
else
    echo "npm is missing: the locks of programs for node stay as they are" >&2
fi
if grep -nE '(https?://|index-url|find-links)' requirements/*.txt tests/device_uis/locks/*.txt ||
    for folder in $node_locks; do grep -n '"resolved"' "$folder/package-lock.json"; done | grep .; then
    echo "a lock records a download address" >&2
    exit 1
fi
