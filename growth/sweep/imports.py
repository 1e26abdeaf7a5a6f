"""What the stages of a run import, for `growth.sweep.launcher`; nothing is computed."""

import growth.scoring.checkpoint_selection
import growth.scoring.results
import growth.tasks.benchmark_run
import growth.tasks.prediction_run
import growth.training.run  # noqa: F401
