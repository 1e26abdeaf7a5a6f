#!/usr/bin/env bash
# Fine-tune a foundation model on one setting.
#
#   bash scripts/run_train.sh --data_type curated-160 --model_size 7b \
#       --model_name_or_path MODEL --batch_size 8 --gradient_accumulation 1
#
# --data_type T      a setting, built in data/T by `python data/build.py --data_type T`, or the name
#                    of a recipe that `python data/build.py --recipe FILE` has built
# --model_size S     labels the run and its curves, such as 7b
# --resume           resume the newest run of this setting and size
# --num_processes N  processes on this machine, one per GPU; default: 1. They share the samples of
#                    each step. The variable TORCHRUN_ARGS holds further flags of torchrun, such as
#                    --nnodes (train/configs/README.md)
# Relative paths among the flags begin where the script is called, outputs in the repository.
# All other flags, --train_dir and --valid_dir included, go to train/finetune.py (see its --help).
# Writes runs/runs-S/T/<timestamp>/ (run.json, metrics.jsonl, checkpoint-<step>) and the log
# runs/runs-S/T/<timestamp>.log.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
resolve_paths "$@"
set -- ${resolved[@]+"${resolved[@]}"}

data_type="" model_size="" output_dir="" train_dir="" study="" resume=false
num_processes=1 fresh=false
given=("$@")
passed_on=()
for ((i = 0; i < ${#given[@]}; i++)); do
    case "${given[i]}" in
        -h | --help)
            usage
            exit 0
            ;;
        --data_type) data_type="${given[i + 1]:-}" ;;
        --model_size) model_size="${given[i + 1]:-}" ;;
        --output_dir) output_dir="${given[i + 1]:-}" ;;
        --train_dir) train_dir="${given[i + 1]:-}" ;;
        --study) study="${given[i + 1]:-}" ;;
        --resume) resume=true ;;
        --num_processes)
            num_processes="${given[i + 1]:-}"
            ((i += 1))
            continue
            ;;
    esac
    passed_on+=("${given[i]}")
done
[[ "$num_processes" =~ ^[1-9][0-9]*$ ]] ||
    fail "--num_processes '$num_processes': expected a whole number of at least 1"
[[ -n "$data_type" ]] || fail "--data_type is missing; bash scripts/run_train.sh --help"
[[ -n "$model_size" ]] || fail "--model_size is missing, such as 7b; it names the run"
[[ "$model_size" != */* ]] || fail "--model_size '$model_size': expected a plain name such as 7b"
activate_environment

# The name of the setting is checked before anything is created; a misspelt one is answered with
# the nearest names. A run to resume knows its study, which train/finetune.py looks up.
if [[ -n "$study" ]] || ! $resume || [[ -n "$output_dir" && ! -e "$output_dir/run.json" ]]; then
    python - "$data_type" "$study" "${train_dir:-data/$data_type}" <<'PYTHON'
import sys
from pathlib import Path

from growth.core.cli import run_script
from growth.data.settings import setting_of
from growth.data.study import named_study

setting, file, train_dir = sys.argv[1:]
run_script(lambda _: setting_of(named_study(Path(file) if file else None), setting, Path(train_dir)))
PYTHON
fi
if [[ -z "$train_dir" && ! -d "data/$data_type" ]]; then
    fail "data/$data_type: not built yet; python data/build.py --data_type $data_type"
fi

if [[ -z "$output_dir" ]]; then
    setting="runs/runs-$model_size/$data_type"
    if $resume && [[ -z "${RUN_TIMESTAMP:-}" ]]; then
        newest="$(find "$setting" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort | tail -n 1)"
        [[ -n "$newest" ]] || fail "--resume: there is no run in $setting to resume"
        output_dir="$newest"
    else
        fresh=true
    fi
fi

existed=true
[[ -d "${setting:-$(dirname "$output_dir")}" ]] || existed=false
mkdir -p "${setting:-$(dirname "$output_dir")}"
if $fresh && [[ -n "${RUN_TIMESTAMP:-}" ]]; then
    output_dir="$setting/$RUN_TIMESTAMP" # of a job, whose nodes share it
elif $fresh; then
    # Made by this script alone: of two that begin in one second, one waits for the next.
    while
        output_dir="$setting/$(date +%Y%m%d-%H%M%S)"
        ! mkdir "$output_dir" 2>/dev/null
    do
        [[ -d "$output_dir" ]] || fail "$output_dir: can't be made"
        sleep 0.2
    done
fi
log="${output_dir%/}.log"
status=0
launch=(python)
if [[ "$num_processes" -gt 1 || -n "${TORCHRUN_ARGS:-}" ]]; then
    launcher_flags=(--nproc_per_node "$num_processes")
    if [[ -n "${TORCHRUN_ARGS:-}" ]]; then
        read -r -a more <<<"$TORCHRUN_ARGS"
        launcher_flags+=("${more[@]}")
    else
        launcher_flags+=(--standalone)
    fi
    launch=(python -m torch.distributed.run "${launcher_flags[@]}")
fi
run_and_wait logged "$log" "${launch[@]}" train/finetune.py --train_dir "data/$data_type" \
    --valid_dir data/curated/valid --output_dir "$output_dir" "${passed_on[@]}" || status=$?
! $fresh || rmdir "$output_dir" 2>/dev/null || true # empty: the run never started
if [[ $status -ne 0 && ! -d "$output_dir" ]]; then
    # The run never started: remove what was created for it.
    rm -f "$log"
    $existed || rmdir -p --ignore-fail-on-non-empty "$(dirname "$output_dir")"
    exit "$status"
fi
[[ $status -eq 0 ]] && to_caller "$output_dir"
exit "$status"
