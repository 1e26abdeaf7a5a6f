"""What the stages of a run import, for `growth.sweep.launcher`; nothing is computed."""

import os

# Libraries may ask for GPUs as they are imported. The driver can't be used behind a fork once it
# has begun; so the answer is NVML's, which leaves it alone.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import growth.scoring.checkpoint_selection
import growth.scoring.results
import growth.tasks.benchmark_run
import growth.tasks.prediction_run
import growth.training.run  # noqa: F401
