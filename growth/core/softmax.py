"""The probability of one of several, from logits or log-likelihoods."""

import math
from collections.abc import Sequence

_LARGEST = 1e300  # JSON has whole numbers beyond any float
_MOST_NATS = 700.0  # whose exponential is still a number


def softmax_at(logs: Sequence[float], place: int) -> float:
    """The softmax over unnormalised log-probabilities, in nats, at one place: 0 to 1."""
    bounded = [max(-_LARGEST, min(_LARGEST, log)) for log in logs]
    return 1 / math.fsum(math.exp(min(log - bounded[place], _MOST_NATS)) for log in bounded)
