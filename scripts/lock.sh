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
lock up --extra up
lock dev --extra up --group dev
if grep -nE '(https?://|index-url|find-links)' requirements/*.txt; then
    echo "a lock records a download address" >&2
    exit 1
fi
