#!/usr/bin/env bash
# Try what docs/reliability.md promises: faults on every stage, fuzz cases over every reader and
# parser, and memory and time against the number of lines. Prints what was tried and what held.
#
#   bash scripts/reliability.sh [--faults 400] [--fuzz_examples 3000] [--seed 0]
#
# --faults N         trials of tests/faults/campaign.py; default: 400
# --fuzz_examples N  examples of each test of tests/fuzz; default: 3000, more than 100,000 cases
# --seed S           of the faults; default: 0
# Takes about half an hour on two cores. Exits with 1 if anything did not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

faults=400 fuzz_examples=3000 seed=0
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --faults | --fuzz_examples | --seed)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || fail "$1 '${2:-}': expected a whole number"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        *) fail "$1: no such flag; bash scripts/reliability.sh --help" ;;
    esac
    shift
done
activate_environment

export OMP_NUM_THREADS=1
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
status=0
# The faults beside the rest: each uses one core.
python tests/faults/campaign.py --faults "$faults" --seed "$seed" >"$logs/faults" 2>&1 &
campaign=$!
GROWTH_FUZZ_EXAMPLES="$fuzz_examples" python -m pytest -q --disable-warnings tests/fuzz \
    >"$logs/fuzz" 2>&1 || status=1
# The table alone; what the stages print is shown if one fails.
python benchmarks/scale.py >"$logs/scale" 2>"$logs/scale-errors" || {
    status=1
    tail -n 25 "$logs/scale-errors" >>"$logs/scale"
}
wait "$campaign" || status=1
for part in faults fuzz scale; do
    printf '\n== %s\n' "$part"
    tail -n 25 "$logs/$part"
done
exit "$status"
