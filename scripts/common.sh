# Sourced by the other scripts.
# shellcheck shell=bash

# The comment that a script opens with is its help; by default the script in scripts/ that runs.
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${1:-scripts/$(basename "$0")}"; }

# Bad input: one message, exit code 2.
fail() {
    echo "error: $*" >&2
    exit 2
}

# Flags whose values are paths; those of models may be hub ids.
path_flags=" --train_dir --valid_dir --output_dir --run_dir --data_dir --build_dir --pred_data_path"
path_flags+=" --cmmlu_dir --agieval_dir --profile --recipes"
path_flags+=" --study --results_path --plots_path --dump_examples --dump_prompts --fsdp_config --deepspeed --gguf "
model_flags=" --model_name_or_path --base_model "

# from_caller FLAG VALUE: print the value of a flag; a relative path is the caller's. The scripts go
# to the repository's root first of all, so that OLDPWD is where they were called.
from_caller() {
    local flag="$1" value="$2"
    if [[ "${OLDPWD:-$PWD}" != "$PWD" && -n "$value" && "$value" != /* ]] &&
        [[ "$path_flags" == *" $flag "* || ("$model_flags" == *" $flag "* && -e "$OLDPWD/$value") ]]; then
        value="$OLDPWD/$value"
    fi
    printf '%s\n' "$value"
}

# resolve_paths ARGUMENTS: set `resolved` to them, with the caller's relative paths made absolute.
resolve_paths() {
    local argument flag=""
    resolved=()
    for argument in "$@"; do
        case "$argument" in
            --*=*) argument="${argument%%=*}=$(from_caller "${argument%%=*}" "${argument#*=}")" ;;
            --*) flag="$argument" ;;
            *) argument="$(from_caller "$flag" "$argument")" ;;
        esac
        resolved+=("$argument")
    done
}

# to_caller PATH: print a path of an output, absolute where the caller is elsewhere.
to_caller() {
    if [[ "${OLDPWD:-$PWD}" == "$PWD" || "$1" == /* ]]; then
        printf '%s\n' "$1"
    else
        printf '%s\n' "$PWD/$1"
    fi
}

# run_and_wait COMMAND ...: run it in a process group of its own. Signals that this script gets are
# passed on to the whole group, and the script ends only when the group has.
run_and_wait() {
    local child status=0 signalled=false
    set -m # else the group would be this script's, and deaf to Ctrl-C
    "$@" </dev/null &
    child=$!
    set +m
    for signal in INT TERM HUP; do
        # shellcheck disable=SC2064 # now, while the names have their values
        trap "signalled=true; kill -$signal -- -$child 2>/dev/null || true" "$signal"
    done
    # A signal ends `wait`, not the child.
    while
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null
    do :; done
    if $signalled; then
        while kill -0 -- "-$child" 2>/dev/null; do sleep 0.1; done
    fi
    trap - INT TERM HUP
    return "$status"
}

# while_locked FILE FLAG [--wait] COMMAND ...: run it while no other launch does with the same FILE,
# which FLAG has named (growth/core/locks.py).
while_locked() {
    local file="$1" flag="$2" wait=""
    shift 2
    if [[ "$1" == --wait ]]; then
        wait=yes
        shift
    fi
    python -c '
import signal
import subprocess
import sys
from pathlib import Path

from growth.core.cli import run_script
from growth.core.locks import locked

def main(_):
    file, flag, wait, *command = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the command gets it too, and is waited for
    with locked(Path(file), flag, bool(wait)):
        sys.exit(subprocess.run(command).returncode)

run_script(main)
' "$file" "$flag" "$wait" "$@"
}

# logged LOG COMMAND ...: run it, its output also in a log. A signal to the group ends the command;
# this shell and tee stay until its last words are written.
logged() {
    local log="$1"
    shift
    trap : INT TERM HUP
    "$@" 2>&1 | (
        trap '' INT TERM HUP
        exec tee -a "$log"
    )
}

# For scripts that need an installed environment: a Python that has the package is used as it is;
# otherwise .venv is activated, if it is there.
activate_environment() {
    # -P: the current folder, which holds the package's source, does not count as installed.
    if python -P -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("growth") is None)' \
        2>/dev/null; then
        return
    fi
    [[ -f .venv/bin/activate ]] ||
        fail "no environment is active and there is no .venv; run the three install lines of README.md first"
    # shellcheck disable=SC1091
    source .venv/bin/activate
}

# install_packages PYTHON PIP-ARGUMENTS ...: `pip install` into that Python's environment. uv unpacks and
# compiles on all cores, a third of pip's time. It reads no pip.conf: pip's index and folders of wheels
# are passed on, with commas between them. Where uv fails, pip does it.
install_packages() {
    local python="$1" pip=("$1" -m pip --quiet --disable-pip-version-check)
    shift
    pip_setting() {
        local variable="PIP_${1//-/_}"
        variable="${variable^^}"
        printf '%s' "${!variable:-$("$python" -m pip config get "global.$1" 2>/dev/null || true)}"
    }
    (
        index="$(pip_setting index-url)" links="$(pip_setting find-links)"
        if [[ -n "$index" ]]; then export UV_DEFAULT_INDEX="$index"; fi
        export UV_FIND_LINKS="${links//[[:space:]]/,}"
        "${pip[@]}" install uv==0.13.9 &&
            "$python" -m uv pip install --quiet --compile-bytecode --python "$python" "$@"
    ) || "${pip[@]}" install "$@"
}

# For scripts that start from nothing: an active virtual environment is used as it is; otherwise
# .venv is made from requirements.txt, once, and activated.
use_environment() {
    [[ -z "${VIRTUAL_ENV:-}" ]] || return 0
    # One that the three install lines of the README have made has no copy of the requirements.
    if [[ ! -f .venv/requirements.txt ]] &&
        .venv/bin/python -P -c 'import growth, pytest, torch' 2>/dev/null; then
        cp requirements.txt .venv/requirements.txt
    fi
    if ! cmp -s requirements.txt .venv/requirements.txt; then
        echo "installing requirements.txt into .venv (some minutes and up to 6 GB, the first time)"
        "${PYTHON:-python3}" -m venv .venv
        install_packages .venv/bin/python -r requirements.txt
        cp requirements.txt .venv/requirements.txt
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
}

# run_benchmark NAME GPU MODEL TAG [flags]: run evaluate/NAME/run.py, its output also in a log.
run_benchmark() {
    local name="$1" help="bash evaluate/$1/run.sh --help"
    shift
    case "${1:-}" in
        -h | --help)
            usage "evaluate/$name/run.sh"
            return
            ;;
    esac
    [[ $# -ge 3 ]] || fail "expected GPU MODEL_NAME_OR_PATH SAVE_TAG, got $# arguments; $help"
    local gpu="$1" model tag="$3" launch=(python) commas resolved
    model="$(from_caller --model_name_or_path "$2")"
    shift 3
    resolve_paths "$@"
    if [[ "$gpu" == cpu ]]; then
        export CUDA_VISIBLE_DEVICES=""
    elif [[ "$gpu" =~ ^[0-9]+(,[0-9]+)*$ ]]; then
        export CUDA_VISIBLE_DEVICES="$gpu"
        commas="${gpu//[^,]/}"
        [[ -z "$commas" ]] || launch=(torchrun --standalone --nproc_per_node "$((${#commas} + 1))")
    else
        fail "GPU $gpu: expected \"cpu\", a number, or numbers such as 0,1; $help"
    fi
    [[ -n "$tag" && "$tag" != -* ]] || fail "SAVE_TAG ${tag:-(empty)}: expected a name; $help"
    activate_environment
    local log="evaluate/$name/logs/$tag.log"
    mkdir -p "$(dirname "$log")"
    run_and_wait logged "$log" "${launch[@]}" "evaluate/$name/run.py" --model_name_or_path "$model" \
        --tag "$tag" ${resolved[@]+"${resolved[@]}"}
}
