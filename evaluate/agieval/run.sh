#!/usr/bin/env bash
# Evaluate a model on AGIEval's ten Chinese multiple-choice sets, zero- and few-shot.
#
#   bash evaluate/agieval/run.sh GPU MODEL_NAME_OR_PATH SAVE_TAG [flags]
#
# GPU       "cpu", the number of a GPU such as 0, or several such as 0,1,2,3, which share the questions
# MODEL     a checkpoint, a run, or another model: folder, hub id or .gguf
# SAVE_TAG  names evaluate/agieval/outputs/SAVE_TAG and evaluate/agieval/logs/SAVE_TAG.log
# All other flags go to evaluate/agieval/run.py (see its --help), such as --chat_template native.
# After an interruption the same command resumes. Data: python data/download.py --datasets agieval
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

run_benchmark agieval "$@"
