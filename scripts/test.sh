#!/usr/bin/env bash
# Run all checks: lint, format, shell scripts, tests.
#
#   bash scripts/test.sh [pytest arguments]
#
# Makes .venv from requirements.txt if there is none and no virtual environment is active.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
use_environment

ruff check .
ruff format --check .
shellcheck scripts/*.sh scripts/*.sbatch evaluate/*/run.sh .ci/run
# A file's tests stay in one process: they share what takes long to make.
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --dist loadfile "$@"
