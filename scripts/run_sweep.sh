#!/usr/bin/env bash
# Run the study on one or several models: build, tune and evaluate each setting, then draw the curves.
#
#   bash scripts/run_sweep.sh --model_size 7b --model_name_or_path MODEL \
#       --data_types "curated-10 curated-40 curated-160" --data_dir data
#
# --model_size S, --model_name_or_path M   as in scripts/run_train.sh
# --models "7b=M 13b=N"  several models instead
# --study FILE           the study file; default: data/doit.toml, the published study
# --data_types "T ..."   settings, or patterns such as "curated-*"; default: those of all series
# --recipes F ...        recipes, files or folders of them, run like settings; they replace the default
#                        of --data_types
# --data_dir D           holds the study's pools, valid and test lines; default: data
# --build_dir B          settings are built in B/seed-S-<sum of D's path>/T; default: data/builds
# --run_name N           name of each run's folder; default: sweep, for other seeds than 0 sweep-seed-S
# --seeds S,...          seeds of the sampling and of the training order; default: 0
# --benchmarks B,...     cmmlu, agieval: run on each chosen checkpoint; --cmmlu_dir, --agieval_dir,
#                        --benchmark_limit N say on what
# --train_flags "..."    further flags of train/finetune.py, such as "--epochs 3"
# --predict_flags "..."  further flags of evaluate/run.py
# --jobs N               runs at the same time; default: 1, with --gpus as many as they have room for
# --gpus 0,1,...         each run gets --num_processes N of them for itself; default: 1
# --executor E           local, snakemake (which it installs when first needed), or slurm; --profile
#                        FILE says what a job of SLURM asks for
# --keep_checkpoints K   chosen (default): once a run's choice is made and predicted on test, its other
#                        checkpoints are removed; all keeps them
# --dry_run              print the plan and end
# --wait                 where another sweep is at work on one of these runs: wait until it has ended
# Prints one line per run; the full output goes to runs/runs-S/T/N.log (training) and N.sweep.log. The
# last line is the path of the overview figure, the one before that of the report. After an
# interruption the same command resumes. docs/sweep.md says more, `python scripts/sweep.py --help` all.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

for ((i = 1; i <= $#; i++)); do
    next=$((i + 1))
    case "${!i}" in
        --train_flags | --predict_flags) i=$next ;; # --help among those is of another script
        -h | --help)
            usage
            exit 0
            ;;
        --executor) executor="${!next:-}" ;;
        --executor=*) executor="${!i#*=}" ;;
    esac
done
resolve_paths "$@"
activate_environment
case "${executor:-local}" in
    snakemake | slurm)
        if ! python -c 'import snakemake' 2>/dev/null; then
            echo "installing requirements-sweep.txt (half a minute, 90 MB, the first time)" >&2
            install_packages python -r requirements-sweep.txt
        fi
        ;;
esac
export GROWTH_CALLER="${OLDPWD:-$PWD}"
run_and_wait python scripts/sweep.py ${resolved[@]+"${resolved[@]}"}
