#!/usr/bin/env bash
# Evaluate a model on CMMLU, 0- and 5-shot.
#
#   bash evaluate/cmmlu/run.sh GPU MODEL_NAME_OR_PATH SAVE_TAG [flags]
#
# GPU       "cpu", the number of a GPU such as 0, or several such as 0,1,2,3, which share the questions
# MODEL     a checkpoint, a run, or another model: folder, hub id or .gguf
# SAVE_TAG  names evaluate/cmmlu/outputs/SAVE_TAG and evaluate/cmmlu/logs/SAVE_TAG.log
# All other flags go to evaluate/cmmlu/run.py (see its --help), such as --chat_template native.
# After an interruption the same command resumes. Data: python data/download.py --datasets cmmlu
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

run_benchmark cmmlu "$@"
