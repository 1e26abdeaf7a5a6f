#!/usr/bin/env bash
# Run the study on one model: build, tune and evaluate each setting, then draw the curves.
#
#   bash scripts/run_sweep.sh --model_size 7b --model_name_or_path MODEL \
#       --data_types "curated-10 curated-40 curated-160" --data_dir data
#
# --model_size S, --model_name_or_path M   as in scripts/run_train.sh
# --study FILE           the study file; default: data/doit.toml, the published study
# --data_types "T ..."   settings, or patterns such as "curated-*"; default: those of all series
# --data_dir D           holds the study's pools, valid and test lines; default: data
# --build_dir B          settings are built in B/seed-S-<sum of D's path>/T; default: data/builds
# --run_name N           name of each run's folder; default: sweep, for other seeds than 0 sweep-seed-S
# --seed S               seed of the sampling and of the training order; default: 0
# --jobs N               settings run at the same time; default: 1
# --train_flags "..."    further flags of train/finetune.py, such as "--epochs 3"
# --predict_flags "..."  further flags of evaluate/run.py
# --wait                 where another sweep is at work on one of these runs: wait until it has ended
# Prints one line per setting; the full output goes to runs/runs-S/T/N.sweep.log. The last line is
# the path of the overview figure. After an interruption the same command resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
resolve_paths "$@"
set -- ${resolved[@]+"${resolved[@]}"}

model_size="" model="" data_dir="data" build_dir="data/builds" run_name="" seed=0 jobs=1 train_flags="" predict_flags="" wait_flag=""
data_types="" study=""
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --model_size | --model_name_or_path | --study | --data_types | --data_dir | --build_dir | --run_name | --seed | --jobs | \
            --train_flags | --predict_flags)
            [[ $# -gt 1 ]] || fail "$1: its value is missing"
            name="${1#--}"
            [[ "$name" != model_name_or_path ]] || name=model
            printf -v "$name" '%s' "$2"
            shift
            ;;
        --wait) wait_flag=--wait ;;
        *) fail "$1: no such flag; bash scripts/run_sweep.sh --help" ;;
    esac
    shift
done
[[ -n "$model_size" ]] || fail "--model_size is missing, such as 7b; it names the runs"
[[ -n "$model" ]] || fail "--model_name_or_path is missing"
# Ten digits at most, which bash can count; no 08, which it would take for octal.
if ! [[ "$seed" =~ ^(0|[1-9][0-9]{0,9})$ ]] || ((seed >= 2 ** 32)); then
    fail "--seed '$seed': expected a whole number below 4294967296, without leading zeros"
fi
[[ "$jobs" =~ ^[1-9][0-9]*$ ]] || fail "--jobs '$jobs': expected a whole number of at least 1"
for name in "$model_size" "$run_name"; do
    [[ "$name" != */* && "$name" != . && "$name" != .. ]] ||
        fail "'$name': expected a plain name for --model_size and --run_name, that a folder can have"
done
if [[ -z "$run_name" ]]; then
    run_name=sweep
    ((seed == 0)) || run_name="sweep-seed-$seed"
fi
# Other seeds and other data have builds of their own: two sweeps never train on each other's lines.
key="$(realpath -m "$data_dir" ${study:+"$study"} | cksum | cut -d " " -f 1)"
build_dir="${build_dir%/}/seed-$seed-$key"
activate_environment
# Words are separated here, and handed on as words: no value of a flag is ever read as code.
read -r -d '' -a settings <<<"$data_types" || true
# The study's folder of valid lines, and the settings, a line each.
plan="$(
    python - "$study" "$data_dir" ${settings[@]+"${settings[@]}"} <<'PYTHON'
import sys
from pathlib import Path

from growth.core.cli import run_script
from growth.core.errors import InputError
from growth.data.records import read_evaluation_files
from growth.data.study import named_study

file, data_dir, *patterns = sys.argv[1:]


def main(_):
    study = named_study(Path(file) if file else None)
    # Now, not after hours of training: are the lines to evaluate on what the study says?
    for folder in study.splits.values():
        if (Path(data_dir) / folder).is_dir():
            read_evaluation_files(Path(data_dir) / folder, "--data_dir", study)
    settings = study.matching(patterns)
    if not settings:
        names = ", ".join(study.recipes) or "none; give it [[series]] or [[settings]]"
        raise InputError(
            f"--data_types: the study {study.source} has no series, whose settings are the "
            f"default; name settings of it ({names})"
        )
    print(study.splits["valid"], *settings, sep="\n")


run_script(main)
PYTHON
)"
mapfile -t settings <<<"$plan"
valid="${settings[0]}"
settings=("${settings[@]:1}")

began=$(date +%s)
# shellcheck disable=SC2329 # while_locked calls it
steps() {
    local data_type="$1" run_dir="$2" train predict
    read -r -d '' -a train <<<"$train_flags" || true
    read -r -d '' -a predict <<<"$predict_flags" || true
    # What two sweeps share, one waits for.
    python data/build.py --data_type "$data_type" --data_dir "$data_dir" \
        --output_dir "$build_dir" --seed "$seed" --wait ${study:+--study "$study"} &&
        bash scripts/run_train.sh --data_type "$data_type" --model_size "$model_size" --resume --seed "$seed" \
            --model_name_or_path "$model" --output_dir "$run_dir" \
            --train_dir "$build_dir/$data_type" --valid_dir "$data_dir/$valid" \
            ${study:+--study "$study"} ${train[@]+"${train[@]}"} &&
        bash scripts/run_evaluate.sh --run_dir "$run_dir" --data_dir "$data_dir" \
            ${study:+--study "$study"} ${predict[@]+"${predict[@]}"}
}
# shellcheck disable=SC2329 # xargs calls it
one_setting() {
    local data_type="$1"
    local run_dir="runs/runs-$model_size/$data_type/$run_name" log
    log="$run_dir.sweep.log"
    mkdir -p "$(dirname "$run_dir")"
    # shellcheck disable=SC2086,SC2094 # empty, or the flag; the log's name stands for its lock
    if while_locked "$log" --run_name $wait_flag bash -c 'steps "$@"' steps "$data_type" "$run_dir" \
        >>"$log" 2>&1; then
        echo "[$(($(date +%s) - began)) s] $data_type: $(grep '^chosen: ' "$log" | tail -n 1)"
    else
        echo "[$(($(date +%s) - began)) s] $data_type: failed, see $log" >&2
        grep '^error: ' "$log" | tail -n 1 >&2 || true
        return 1
    fi
}
export -f one_setting steps while_locked
export model_size model study valid data_dir build_dir run_name seed train_flags predict_flags wait_flag began
# When one setting fails, xargs continues with the others and reports it in its exit code.
# shellcheck disable=SC2329 # run_and_wait calls it
all_settings() {
    # shellcheck disable=SC2016 # the shell that xargs starts expands it
    printf '%s\0' "${settings[@]}" |
        xargs -0 -n 1 -P "$jobs" bash -c 'set -uo pipefail; trap "exit 143" INT TERM HUP; one_setting "$1"' sweep
}
status=0
run_and_wait all_settings || status=$?
((status < 128)) || exit "$status" # a signal
((status == 0)) || status=1
to_caller "$(python evaluate/plot.py --plot_type all --wait ${study:+--study "$study"} | tail -n 1)"
exit "$status"
