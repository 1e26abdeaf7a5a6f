"""transformers' Trainer, imported without the library `datasets`.

The Trainer imports `datasets`, and with it pandas and pyarrow, wherever they are installed, only to
ask of what it is given whether it is one of theirs. It never is here, and they take longer to
import than a small run takes per step.
"""

import transformers.utils

_is_available = transformers.utils.is_datasets_available
transformers.utils.is_datasets_available = lambda: False  # the Trainer keeps this answer
try:
    from transformers import Trainer, TrainingArguments
finally:
    transformers.utils.is_datasets_available = _is_available

__all__ = ["Trainer", "TrainingArguments"]
