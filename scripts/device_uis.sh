#!/bin/sh
# Install the real device UIs that tests/device_uis drives, and the OpenID provider that tests/gateway/login logs in by,
# into build/device-uis, each from its own lock with hashes; the second run does nothing. They are programs beside the product, never imported by it. Needs Python and npm.
set -eu
cd "$(dirname "$0")/.."
locks=tests/device_uis/locks
target=build/device-uis
python=${PYTHON:-.venv/bin/python}
mkdir -p "$target"

# The stamp is the lock itself: a changed lock is installed again, a broken installation has no stamp.
current() {  # current NAME LOCK
    cmp -s "$2" "$target/$1/.installed"
}

python_ui() {  # python_ui NAME
    rm -rf "${target:?}/$1"
    "$python" -m venv "$target/$1"
    # What is never imported need not be compiled; the rest compiles itself at its first start.
    "$target/$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
        --require-hashes --no-deps --only-binary :all: -r "$locks/$1.txt"
    cp "$locks/$1.txt" "$target/$1/.installed"
}

node_ui() {  # node_ui NAME LOCK
    rm -rf "${target:?}/$1"
    mkdir "$target/$1"
    cp "$(dirname "$2")/package.json" "$2" "$target/$1/"
    (cd "$target/$1" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$2" "$target/$1/.installed"
}

# Side by side: each spends half its time waiting for the registry.
waiting=
begin() {  # begin KIND NAME LOCK
    current "$2" "$3" && return 0
    echo "installing $2 into $target" >&2
    "$1" "$2" "$3" >"$target/$2.log" 2>&1 &
    waiting="$waiting $2:$!"
}
begin node_ui node-red "$locks/node-red/package-lock.json"
begin node_ui oidc-provider tests/gateway/login/locks/oidc-provider/package-lock.json
for name in octoprint notebook dashboard; do
    begin python_ui "$name" "$locks/$name.txt"
done
failed=
for one in $waiting; do
    if ! wait "${one#*:}"; then
        failed=yes
        echo "installing ${one%:*} failed:" >&2
        tail -n 20 "$target/${one%:*}.log" >&2
    fi
done
[ -z "$failed" ]
