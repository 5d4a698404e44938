#!/bin/sh
# venv.sh FOLDER PYTHON [LOCK]: make or renew the virtual environment that `make` works in, from requirements.lock.
# With another LOCK it is an environment of its own, without Stager in it.
# Writes nothing outside FOLDER but temporary files. Debian leaves pip out of venv unless python3-venv is
# installed; then pip is taken from where there is one: the system's, its wheel, or Debian's package of the
# wheel, which apt fetches and checks without root.
set -eu
venv=$1
python=$2
lock=${3:-requirements.lock}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf '%s\n' "$*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    say "make: '$python' is not Python 3.11 or newer. Install one, or name it: make PYTHON=/path/to/python3 ..."
    exit 1
}

install_wheel() { # install pip into the environment out of its own wheel
    "$venv/bin/python" "$1/pip" install --quiet --no-cache-dir --no-index "$1"
}

fetch_wheel() { # print the path of pip's wheel out of Debian's package of it
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
    set -- -q -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o "APT::Sandbox::User=$(id -un)"
    cd "$scratch"
    apt-get "$@" update >apt.log 2>&1 && apt-get "$@" download python3-pip-whl >>apt.log 2>&1 &&
        dpkg-deb -x python3-pip-whl*.deb unpacked && ls "$PWD"/unpacked/usr/share/python-wheels/pip-*.whl
}

give_pip() { # set $pip to a command that installs into the environment
    pip="$venv/bin/python -m pip"
    $pip --version >/dev/null 2>&1 && return
    # --python came with pip 22.3
    if "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1; then
        pip="$python -m pip --python $venv/bin/python"
        return
    fi
    for wheel in /usr/share/python-wheels/pip-*.whl; do
        [ -e "$wheel" ] && install_wheel "$wheel" && return
    done
    say "No pip and no python3-venv here: fetching pip's wheel with apt, into a temporary folder."
    wheel=$(fetch_wheel) && install_wheel "$wheel" && return
    [ -s "$scratch/apt.log" ] && tail -n 3 "$scratch/apt.log" >&2
    say "make: this Python comes without pip. Install it and try again: sudo apt install python3-venv"
    rm -rf "$venv"
    exit 1
}

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else
        "$python" -m venv --without-pip "$venv"
    fi
fi
give_pip
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
say "Installing what $lock names into $venv ..."
$pip install --quiet --require-hashes --only-binary :all: -r "$lock"
[ "$lock" != requirements.lock ] || $pip install --quiet --no-deps --no-build-isolation --editable .
