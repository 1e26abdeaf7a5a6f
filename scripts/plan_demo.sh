#!/usr/bin/env bash
# From mixtures to a plan, and whether it is worth anything: the loop on the sample set and the
# pocket model.
#
#   bash scripts/plan_demo.sh [--runs N] [--budget N] [--wait]
#
# Tunes the pocket model on small settings and on the recipes of a design (data/design.py), fits what
# helps what (evaluate/fit.py --design), plans a budget of lines (evaluate/plan.py), then tunes the
# plan, equal shares, a random mix and the paper's reconstruct scaled down, three seeds each, and
# compares each with equal shares (evaluate/compare.py). About 12 minutes on two cores.
# --runs N    recipes of the design; default: 16
# --budget N  lines of the plan and of what it is compared with: 160, 640 or 2560; default: 640
# --wait      where another one is at work: wait until it has ended
# Prints the outcome whichever way it goes. After an interruption the same command resumes. To start
# over, remove runs/runs-pocket-{design,plan}, evaluate/*/*/pocket-{design,plan} and data/sample/plan.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

runs=16 budget=640 wait=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --runs | --budget)
            [[ "${2:-}" =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 '${2:-}': expected a whole number above 0"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --wait) wait=(--wait) ;;
        *) fail "$1: no such flag; bash scripts/plan_demo.sh --help" ;;
    esac
    shift
done
[[ " 160 640 2560 " == *" $budget "* ]] ||
    fail "--budget $budget: expected 160, 640 or 2560, as equal shares are the setting curated-$budget"
activate_environment

began=$(date +%s)
say() { printf '[%4d s] %s\n' "$(($(date +%s) - began))" "$*"; }
jobs=$(env -u OMP_NUM_THREADS nproc) # nproc heeds OMP_NUM_THREADS
((jobs <= 4)) || jobs=4
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
folder="data/sample/plan/$budget-$runs"

# sweep SIZE FLAGS: as scripts/demo.sh tunes; runs of the plan are no part of what it is made of.
sweep() {
    local size="$1"
    shift
    run_and_wait bash scripts/run_sweep.sh --model_size "$size" --model_name_or_path train/pocket \
        --data_dir data/sample --build_dir data/sample/builds --jobs "$jobs" ${wait[@]+"${wait[@]}"} \
        --train_flags "--epochs 2 --total_batch_size 16 --learning_rate 1e-3 --end_learning_rate 1e-4" \
        --predict_flags "--max_new_tokens 48 --batch_size 128" "$@"
}

say "1/5 sample data and a design of $runs recipes: data/sample, $folder/design"
[[ -f data/sample/synthetic/40960/synthetic_40960.json ]] ||
    python data/make_sample.py --output_dir data/sample --wait >/dev/null
python data/design.py --total "$budget" --runs "$runs" --data_dir data/sample \
    --output_dir "$folder/design" ${wait[@]+"${wait[@]}"}

say "2/5 tune train/pocket on them and on curated-10 to -$budget, $jobs at a time: about $(((runs + 4) / 3 + 1)) minutes"
settings="curated-10,curated-40,curated-160"
[[ ",$settings," == *",curated-$budget,"* ]] || settings+=",curated-$budget"
sweep pocket-design --data_types "$settings" --recipes "$folder/design"

say "3/5 what helps what, and the plan: about a minute"
python evaluate/fit.py --design --model_size pocket-design --output_dir "$folder/fit" ${wait[@]+"${wait[@]}"}
python evaluate/plan.py --budget "$budget" --model_size pocket-design --data_dir data/sample \
    --output_dir "$folder" ${wait[@]+"${wait[@]}"}

say "4/5 tune the plan, equal shares and two control mixes, three seeds each: about 5 minutes"
python - "$folder" "$budget" <<'PYTHON'
import sys
from pathlib import Path

from growth.core.files import write_text
from growth.data.settings import pool_sizes
from growth.data.study import published_study, recipe_text
from growth.planning.shares import control_mixes

folder, budget = Path(sys.argv[1]), int(sys.argv[2])
study = published_study()
pool = study.pool_of_lines(None)
sizes = pool_sizes(study, pool, Path("data/sample"))
for name, lines in control_mixes(study.recipe("reconstruct"), sizes, budget, seed=0).items():
    about = f"A control mix of scripts/plan_demo.sh: {name}."
    text = recipe_text(f"{name}-{budget}", pool, lines, {}, about)
    write_text(folder / f"controls/{name}-{budget}.toml", text)
PYTHON
sweep pocket-plan --data_types "curated-$budget" --seeds 0,1,2 \
    --recipes "$folder/plan.toml" "$folder/controls"

say "5/5 each of them against equal shares, curated-$budget"
for name in "plan-$budget" "random-$budget" "scaled-reconstruct-$budget"; do
    python evaluate/compare.py "pocket-plan/$name" "pocket-plan/curated-$budget" ${wait[@]+"${wait[@]}"}
done
say "done: $folder/plan.csv says what was predicted; $folder/fit/transference.png what helps what"
