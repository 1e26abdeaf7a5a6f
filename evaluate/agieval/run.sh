#!/usr/bin/env bash
# Ask a model AGIEval's ten Chinese choice sets, zero- and few-shot.
#
#   bash evaluate/agieval/run.sh GPU MODEL_NAME_OR_PATH SAVE_TAG [flags]
#
# GPU      "cpu", a GPU's number such as 0, or several such as 0,1,2,3: questions are spread
# MODEL    a checkpoint, a run, or another model: folder, hub id or .gguf
# SAVE_TAG names evaluate/agieval/outputs/SAVE_TAG and evaluate/agieval/logs/SAVE_TAG.log
# Any other flag goes to evaluate/agieval/run.py (see its --help), such as --chat_template native.
# Goes on where it was interrupted. The data: python data/download.py --datasets agieval
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

run_benchmark agieval "$@"
