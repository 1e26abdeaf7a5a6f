#!/usr/bin/env bash
# Run all checks: lint, format, the order of the library's packages, types, shell scripts, tests.
#
#   bash scripts/test.sh [--slow] [pytest arguments]
#
# --slow   demos and kill campaigns too, which take longer than all other tests
# Makes .venv from requirements.txt if there is none and no virtual environment is active.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

which_tests=(-m "not slow") passed_on=()
for argument in "$@"; do
    case "$argument" in
        -h | --help)
            usage
            exit 0
            ;;
        --slow) which_tests=() ;;
        *) passed_on+=("$argument") ;;
    esac
done
use_environment

ruff check .
ruff format --check .
lint-imports --no-logo
shellcheck scripts/*.sh scripts/*.sbatch benchmarks/*.sh evaluate/*/run.sh .ci/run
# It takes most of a minute of one core, so the tests begin meanwhile; what it finds is printed last.
types="$(mktemp)"
mypy >"$types" 2>&1 &
types_process=$!
trap 'kill "$types_process" 2>/dev/null || true; rm -f "$types"' EXIT
# A file's tests stay in one process: they share what takes long to make. tests/conftest.py says
# which files are first.
status=0
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
    ${which_tests[@]+"${which_tests[@]}"} ${passed_on[@]+"${passed_on[@]}"} || status=$?
wait "$types_process" || status=1
cat "$types"
exit "$status"
