#!/usr/bin/env bash
# Training and prediction on one GPU: a LLaMA of 1B parameters in bf16, with random weights.
#
#   bash benchmarks/gpu.sh --data_dir data/curated/1000 --valid_dir data/curated/valid --tokenizer MODEL [--toy]
#
# --data_dir D, --valid_dir V, --tokenizer T   training lines, valid lines, a model whose tokenizer to take
# --toy   two layers of width 64 on the CPU: whether the commands work, no measure of speed
# Prints tokens per second, the share of the card's measured matrix-product peak and memory of an
# optimizer step (one kernel for all samples, each sample by itself, the published loop); then
# questions per second of the batched path, of continuous batching and of generate. Needs the
# repository's environment, nothing more, and about 20 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

data_dir="" valid_dir="" tokenizer=""
shape=(--layers 16 --hidden 2048 --heads 32 --kv_heads 8 --intermediate 8192 --device cuda)
training=(--samples 64 --steps 5) prediction=(--rounds 3 --questions 100)
while [[ $# -gt 0 ]]; do
    case "$1" in
        -h | --help)
            usage benchmarks/gpu.sh
            exit 0
            ;;
        --data_dir | --valid_dir | --tokenizer)
            [[ -e "${2:-}" ]] || fail "$1 '${2:-}': no such file or folder"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --toy)
            shape=(--layers 2 --hidden 64 --heads 4 --kv_heads 2 --intermediate 96 --device cpu)
            training=(--samples 8 --steps 1) prediction=(--rounds 1 --questions 1 --max_new_tokens 16)
            ;;
        *) fail "$1: no such flag; bash benchmarks/gpu.sh --help" ;;
    esac
    shift
done
for flag in data_dir valid_dir tokenizer; do
    [[ -n "${!flag}" ]] || fail "--$flag is missing; bash benchmarks/gpu.sh --help"
done
activate_environment

python benchmarks/training.py --loops ours per_sample published --precision bf16 --data_dir "$data_dir" \
    --tokenizer "$tokenizer" "${shape[@]}" "${training[@]}"
python benchmarks/prediction.py --tasks "answers at once" rambles perplexity --precision bf16 \
    --paths "on today's generate" "ours by --backend continuous" ours --data_dir "$valid_dir" \
    --tokenizer "$tokenizer" "${shape[@]}" "${prediction[@]}"
