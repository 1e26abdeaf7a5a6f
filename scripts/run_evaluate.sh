#!/usr/bin/env bash
# Evaluate a run: predict and score its checkpoints on valid, choose one, predict and score that one
# on test.
#
#   bash scripts/run_evaluate.sh --run_dir runs/runs-7b/curated-160/<timestamp>
#
# --run_dir RUN    a run's folder, as scripts/run_train.sh makes it (or RUN as the first word)
# --data_dir D     holds curated/valid and curated/test; default: data
# --num_processes N   predict in N processes, one a GPU; default: 1
# Any other flag goes to evaluate/predict.py (see its --help), such as --limit 5.
# Starts evaluate/run.py, which makes evaluate/pred-data/{valid,test}/... and
# evaluate/results/{valid,test}/... and goes on where it was interrupted.
# Then: python evaluate/plot.py --plot_type all
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

num_processes=1 flags=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --num_processes)
            [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || fail "--num_processes ${2:-}: expected a whole number of at least 1"
            num_processes="$2"
            shift
            ;;
        *)
            [[ ${#flags[@]} -gt 0 || "$1" == -* ]] || flags=(--run_dir)
            flags+=("$1")
            ;;
    esac
    shift
done

launch=(python)
if ((num_processes > 1)); then
    launch+=(-m torch.distributed.run --standalone --nproc_per_node "$num_processes")
fi
exec "${launch[@]}" evaluate/run.py ${flags[@]+"${flags[@]}"}
