#!/usr/bin/env bash
# Merge a LoRA adapter into its base model; OUTPUT_DIR becomes an ordinary model folder.
#
#   bash scripts/merge_lora.sh CHECKPOINT OUTPUT_DIR [--precision bf16]
#
# All other flags go to evaluate/export.py (see its --help).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
resolve_paths "$@"
set -- ${resolved[@]+"${resolved[@]}"}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    usage
    exit 0
fi
[[ $# -ge 2 ]] || fail "expected CHECKPOINT OUTPUT_DIR; bash scripts/merge_lora.sh --help"
activate_environment
exec python evaluate/export.py --model_name_or_path "$(from_caller --model_name_or_path "$1")" \
    --output_dir "$(from_caller --output_dir "$2")" "${@:3}"
