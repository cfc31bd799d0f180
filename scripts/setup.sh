#!/bin/sh
# Usage: setup.sh LOCK [VENV]. Install requirements/LOCK.txt into VENV (.venv) with its hashes; the second run does nothing.
# Needs Python 3.11 or newer and a shell, nothing else. PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
lock=$1
requirements=requirements/$lock.txt
venv=${2:-.venv}
stamp=$venv/.installed-$lock

if [ ! -f "$requirements" ]; then
    echo "there is no $requirements" >&2
    exit 1
fi
# The stamp is the lock itself: a changed lock is installed again. `dev` holds all of `up`.
if cmp -s "$requirements" "$stamp" || { [ "$lock" = up ] && cmp -s requirements/dev.txt "$venv/.installed-dev"; }; then
    exit 0
fi

new_enough='import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)'
python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Towline needs Python 3.11 or newer, and found none (PYTHON=/path/to/python chooses one)" >&2
    exit 1
fi

# A virtual environment that is broken or of an interpreter that went away is made anew.
if ! "$venv/bin/python" -c "$new_enough" 2>/dev/null || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" 2>"/tmp/towline-venv.$$"; then
        cat "/tmp/towline-venv.$$" >&2
        rm -f "/tmp/towline-venv.$$"
        rm -rf "$venv"
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "installing python3-venv" >&2
            apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
            "$python" -m venv "$venv"
        else
            echo "the venv module is incomplete; on Debian: sudo apt-get install -y python3-venv" >&2
            exit 1
        fi
    fi
    rm -f "/tmp/towline-venv.$$"
fi

echo "installing the packages of $requirements into $venv" >&2
rm -f "$venv"/.installed-*
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --no-deps --only-binary :all: -r "$requirements" >&2

# The checkout itself: importable and with its command, without a build.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd > "$site/towline.pth"
printf '#!/bin/sh\nexec "%s/%s/bin/python" -m towline "$@"\n' "$(pwd)" "$venv" > "$venv/bin/towline"
chmod 755 "$venv/bin/towline"
cp "$requirements" "$stamp"
