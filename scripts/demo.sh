#!/usr/bin/env bash
# From nothing to growth curves: the whole chain on the sample set and the pocket model.
#
#   bash scripts/demo.sh [--quick]
#
# Makes the environment, a sample data set (data/sample), the pocket model (runs/pocket), tunes it on
# growing settings, predicts, scores, chooses checkpoints, and draws evaluate/plots. At most 6 minutes
# on two cores once the packages are there; --quick takes three settings and one epoch.
# Run again, it goes on where it stopped; remove runs/runs-pocket and evaluate/*/*/pocket to begin anew.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

# the long ones first, so that no core waits at the end
settings="curated-2560 synthetic-2560 curated-640 curated-160 synthetic-160 curated-40 curated-10"
epochs=2
case "${1:-}" in
    "") ;;
    --quick) settings="curated-640 curated-160 curated-10" epochs=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "$1: no such flag; bash scripts/demo.sh --help" ;;
esac
use_environment

began=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - began))" "$*"; }

# One run in one process on one core: with small models, two beside each other beat one on two.
jobs=$(nproc) # before the next line, which nproc would heed
((jobs <= 4)) || jobs=4
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

say "1/3 sample data: data/sample"
[[ -d data/sample/synthetic ]] || python data/make_sample.py --output_dir data/sample >/dev/null
say "2/3 pocket model: runs/pocket"
[[ -d runs/pocket ]] || python train/make_pocket.py >/dev/null 2>&1
say "3/3 tune $epochs epochs, predict, score, choose, plot; $jobs settings at a time: $settings"
# An untrained model rambles: 64 tokens are room for every answer of the sample set.
figure=$(
    bash scripts/run_sweep.sh --model_size pocket --model_name_or_path runs/pocket \
        --data_types "$settings" --data_dir data/sample --build_dir data/sample --run_name demo --jobs "$jobs" \
        --train_flags "--epochs $epochs --learning_rate 2e-3 --end_learning_rate 2e-4" \
        --predict_flags "--max_new_tokens 64 --batch_size 128" | tee >(cat >&2) | tail -n 1
)
say "done: look at $figure"
