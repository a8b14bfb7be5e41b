"""Greedy CTC decoding: the best class of each frame, repeats merged, blanks removed (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hwr.decoding.alignment import checked, hypotheses
from hwr.decoding.hypothesis import Hypothesis
from hwr.text import Charset


class GreedyDecoder:
    """Reads the most probable path of each line.

    Args:
        charset: Names the classes.
    """

    def __init__(self, charset: Charset) -> None:
        self.charset = charset

    def __call__(self, log_probs: Tensor, lengths: Tensor | Sequence[int]) -> list[Hypothesis]:
        """Decodes a batch.

        Args:
            log_probs: (B, T, C) log_softmax over C, any float type and device.
            lengths: (B,) frames that count in each line.
        """
        log_probs, frames = checked(log_probs, lengths, self.charset)
        if not log_probs.shape[1]:
            return [Hypothesis("", 0.0, (), ())] * len(frames)
        path = log_probs.numpy().argmax(2)  # (B, T)
        path = np.where(np.arange(path.shape[1]) < frames[:, None], path, 0)
        return hypotheses(log_probs, frames, path, self.charset)
