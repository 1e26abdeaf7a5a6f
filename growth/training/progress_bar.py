"""The progress bar of a training run."""

import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):
    """One bar over the whole run: step, time left, loss, tokens/s; a line per epoch."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Open the bar, on the main process only."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                dynamic_ncols=True,
                # In a log file every update is a line: few of them.
                mininterval=0.2 if sys.stderr.isatty() else 30,
            )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Advance the bar; print the validation result."""
        logs = given["logs"]
        if self.bar is None:
            return
        if "loss" in logs:
            self.bar.set_postfix(
                loss=f"{logs['loss']:.4f}",
                tokens_per_s=f"{logs['tokens_per_second']:,.0f}",
                useful=f"{logs['useful_tokens']:.0%}",
                refresh=False,
            )
            self.bar.update(state.global_step - self.bar.n)
        elif "eval_loss" in logs:
            self.bar.write(
                f"epoch {state.epoch:g}: step {state.global_step}, validation loss "
                f"{logs['eval_loss']:.4f}, perplexity {logs['eval_perplexity']:.2f}",
                file=sys.stderr,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """End the bar's line, also where training has failed: the message has one of its own."""
        if self.bar is not None:
            self.bar.close()
