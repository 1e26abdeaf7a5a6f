#!/usr/bin/env bash
# From nothing to growth curves: the whole chain on the sample set and the pocket model.
#
#   bash scripts/demo.sh [--quick] [--seed N] [--wait]
#
# Creates the environment and a sample data set (data/sample), tunes the pocket model (train/pocket)
# on settings of growing size, predicts, scores, selects checkpoints, draws evaluate/plots and writes
# evaluate/report. Takes 3 minutes on two free cores once the packages are installed.
# --quick   two settings and one epoch, about a minute; drawn as a curve of its own, pocket-quick
# --seed N  seed of the samples and of the training order; default: 0. Runs of several seeds are
#           repeats of one another in the figure
# --wait    where another demo is at work: wait until it has ended
# After an interruption the same command resumes. To start over, remove runs/runs-pocket* and
# evaluate/*/*/pocket*.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

settings="curated-10,curated-40,curated-160,curated-640,curated-2560,synthetic-160,synthetic-640"
size=pocket epochs=2 seed=0 wait=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --quick) settings="curated-10,curated-2560" size=pocket-quick epochs=1 ;;
        --seed)
            seed="${2:-}"
            [[ "$seed" =~ ^[0-9]+$ ]] || fail "--seed '$seed': expected a whole number"
            shift
            ;;
        --wait) wait=(--wait) ;;
        *) fail "$1: no such flag; bash scripts/demo.sh --help" ;;
    esac
    shift
done
use_environment

began=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - began))" "$*"; }

# One run per core: with small models, two runs at a time are faster than one run on two cores.
jobs=$(env -u OMP_NUM_THREADS nproc) # nproc heeds OMP_NUM_THREADS
((jobs <= 4)) || jobs=4
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

say "1/2 sample data: data/sample"
# The file that is written last; a demo that begins meanwhile waits.
[[ -f data/sample/synthetic/40960/synthetic_40960.json ]] ||
    python data/make_sample.py --output_dir data/sample --wait >/dev/null
say "2/2 tune train/pocket $epochs epochs, predict, score, select, plot; $jobs settings at a time: $settings"
# A model that has not learnt to answer never stops; 48 tokens are enough for every answer here.
sweep() {
    exec bash scripts/run_sweep.sh --model_size "$size" --model_name_or_path train/pocket \
        --data_types "$settings" --data_dir data/sample --build_dir data/sample/builds \
        --run_name "demo-$seed" --seed "$seed" --jobs "$jobs" ${wait[@]+"${wait[@]}"} \
        --train_flags "--epochs $epochs --total_batch_size 16 --learning_rate 1e-3 --end_learning_rate 1e-4" \
        --predict_flags "--max_new_tokens 48 --batch_size 128"
}
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
run_and_wait logged "$log" sweep
report="$(tail -n 2 "$log" | head -n 1)"
say "done: look at $(tail -n 1 "$log") and $report"
