#!/usr/bin/env bash
# Evaluate a run: predict and score its checkpoints on valid, select one, predict and score the
# selected one on test.
#
#   bash scripts/run_evaluate.sh --run_dir runs/runs-7b/curated-160/<timestamp>
#
# --run_dir RUN      folder of a run, as written by scripts/run_train.sh; RUN may also be given as
#                    the first argument without the flag
# --data_dir D       holds curated/valid and curated/test; default: data
# --num_processes N  predict in N processes, one per GPU; default: 1
# All other flags go to evaluate/run.py (see its --help), such as --limit 5. It writes evaluate/pred-data/{valid,test}/... and
# evaluate/results/{valid,test}/... After an interruption the same command resumes.
# Next: python evaluate/plot.py --plot_type all
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
resolve_paths "$@"
set -- ${resolved[@]+"${resolved[@]}"}

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
            if [[ ${#flags[@]} -gt 0 || "$1" == -* ]]; then
                flags+=("$1")
            else
                flags=(--run_dir "$(from_caller --run_dir "$1")")
            fi
            ;;
    esac
    shift
done

activate_environment
launch=(python)
if ((num_processes > 1)); then
    launch+=(-m torch.distributed.run --standalone --nproc_per_node "$num_processes")
fi
exec "${launch[@]}" evaluate/run.py ${flags[@]+"${flags[@]}"}
