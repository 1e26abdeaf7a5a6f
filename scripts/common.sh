# Sourced by the scripts beside it.
# shellcheck shell=bash

# The comment that the script opens with is its help.
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "scripts/$(basename "$0")"; }

# Bad input: one message, exit code 2.
fail() {
    echo "error: $*" >&2
    exit 2
}

# For scripts that start from nothing: an active virtual environment is taken as it is; otherwise
# .venv is made from requirements.txt, once, and activated.
use_environment() {
    [[ -z "${VIRTUAL_ENV:-}" ]] || return 0
    if ! cmp -s requirements.txt .venv/requirements.txt; then
        echo "installing requirements.txt into .venv (some minutes, about 2 GB, the first time)"
        "${PYTHON:-python3}" -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt .venv/requirements.txt
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
}
