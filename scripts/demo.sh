#!/usr/bin/env bash
# From nothing to growth curves: the whole chain on the sample set and the pocket model.
#
#   bash scripts/demo.sh [--quick] [--seed N]
#
# Makes the environment and a sample data set (data/sample), tunes the pocket model (train/pocket) on
# growing settings, predicts, scores, chooses checkpoints, and draws evaluate/plots. 5 to 6 minutes
# on two cores once the packages are there.
# --quick takes two settings and one epoch, under 2 minutes; it has a curve of its own, pocket-quick.
# --seed N draws other samples for the settings, in another order; its runs stand beside the others
# in the figure, as repeats. Default: 0.
# Run again, it goes on where it stopped; remove runs/runs-pocket* and evaluate/*/*/pocket* to begin anew.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

# the long ones first, so that no core waits at the end
settings="curated-2560 synthetic-640 curated-640 synthetic-160 curated-160 curated-40 curated-10"
size=pocket epochs=2 seed=0
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --quick) settings="curated-2560 curated-10" size=pocket-quick epochs=1 ;;
        --seed)
            seed="${2:-}"
            [[ "$seed" =~ ^[0-9]+$ ]] || fail "--seed '$seed': expected a whole number"
            shift
            ;;
        *) fail "$1: no such flag; bash scripts/demo.sh --help" ;;
    esac
    shift
done
use_environment

began=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - began))" "$*"; }

# One run in one process on one core: with small models, two beside each other beat one on two.
jobs=$(env -u OMP_NUM_THREADS nproc) # which would heed it
((jobs <= 4)) || jobs=4
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

say "1/2 sample data: data/sample"
[[ -d data/sample/synthetic ]] || python data/make_sample.py --output_dir data/sample >/dev/null
say "2/2 tune train/pocket $epochs epochs, predict, score, choose, plot; $jobs settings at a time: $settings"
# A model that does not know how to answer yet rambles: 48 tokens are room for every answer here.
figure=$(
    bash scripts/run_sweep.sh --model_size "$size" --model_name_or_path train/pocket \
        --data_types "$settings" --data_dir data/sample --build_dir "data/sample/seed-$seed" \
        --run_name "demo-$seed" --seed "$seed" --jobs "$jobs" \
        --train_flags "--epochs $epochs --total_batch_size 16 --learning_rate 1e-3 --end_learning_rate 1e-4" \
        --predict_flags "--max_new_tokens 48 --batch_size 128" | tee >(cat >&2) | tail -n 1
)
say "done: look at $figure"
