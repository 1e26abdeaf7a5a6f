# Sourced by the scripts that start from nothing: an active virtual environment is taken as it is;
# otherwise .venv is made from requirements.txt, once, and activated.
# shellcheck shell=bash
if [[ -z "${VIRTUAL_ENV:-}" ]]; then
    if ! cmp -s requirements.txt .venv/requirements.txt; then
        echo "installing requirements.txt into .venv (some minutes, about 2 GB, the first time)"
        "${PYTHON:-python3}" -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt .venv/requirements.txt
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
