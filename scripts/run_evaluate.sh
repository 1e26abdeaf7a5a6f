#!/usr/bin/env bash
# Evaluate one run: predict and score its checkpoints on valid, choose one, predict and score that
# one on test.
#
#   bash scripts/run_evaluate.sh --run_dir runs/runs-7b/curated-160/<timestamp>
#
# --run_dir RUN    a run's folder, as scripts/run_train.sh makes it (or RUN as the first word)
# --data_dir D     holds curated/valid and curated/test; default: data
# --num_processes N   predict in N processes, one a GPU; default: 1
# Any other flag goes to evaluate/predict.py (see its --help), such as --limit 5.
# Makes evaluate/pred-data/{valid,test}/... and evaluate/results/{valid,test}/...; goes on where it
# was interrupted. Then: python evaluate/plot.py --plot_type all
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

run_dir="" data_dir="data" num_processes=1 rest=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --run_dir)
            [[ $# -gt 1 ]] || fail "--run_dir: the folder is missing"
            run_dir="$2"
            shift
            ;;
        --data_dir)
            [[ $# -gt 1 ]] || fail "--data_dir: the folder is missing"
            data_dir="$2"
            shift
            ;;
        --num_processes)
            [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || fail "--num_processes ${2:-}: expected a whole number of at least 1"
            num_processes="$2"
            shift
            ;;
        *)
            if [[ -z "$run_dir" && ${#rest[@]} -eq 0 && "$1" != -* ]]; then
                run_dir="$1"
            else
                rest+=("$1")
            fi
            ;;
    esac
    shift
done
[[ -n "$run_dir" ]] || fail "--run_dir is missing; bash scripts/run_evaluate.sh --help"
[[ -f "$run_dir/run.json" ]] || fail "--run_dir $run_dir: no run.json in it; give the folder of a run"

# <model_size>/<data_type>/<timestamp>, from the run's own record
run="$(
    python - "$run_dir" <<'PYTHON'
import sys
from pathlib import Path

from growth.command_line import run_script
from growth.layout import read_run, run_folder

run_script(lambda _: print(run_folder(read_run(Path(sys.argv[1])))))
PYTHON
)"

predict=(python evaluate/predict.py)
if ((num_processes > 1)); then
    predict=(python -m torch.distributed.run --standalone --nproc_per_node "$num_processes" evaluate/predict.py)
fi
"${predict[@]}" --model_name_or_path "$run_dir" \
    --eval_data_path "$data_dir/curated/valid" --split valid ${rest[@]+"${rest[@]}"}
python evaluate/score.py --pred_data_path "evaluate/pred-data/valid/$run" \
    --results_path "evaluate/results/valid/$run" --details
chosen="$(python evaluate/select_checkpoint.py --results_path "evaluate/results/valid/$run" | tail -n 1)"
echo "chosen: $chosen"
checkpoint="$(basename "${chosen%%$'\t'*}")"

"${predict[@]}" --model_name_or_path "$run_dir/$checkpoint" \
    --eval_data_path "$data_dir/curated/test" --split test ${rest[@]+"${rest[@]}"}
python evaluate/score.py --pred_data_path "evaluate/pred-data/test/$run" \
    --results_path "evaluate/results/test/$run" --details
