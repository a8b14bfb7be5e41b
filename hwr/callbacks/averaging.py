"""The average of the weights over the training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from hwr.errors import HwrError


class EMAWeightAveraging(WeightAveraging):
    """Exponential moving average of weights and batch-norm statistics; validation, test and the bundle use it.

    Lightning's own rounds even what does not change (``decay * w + (1 - decay) * w`` is not always ``w``), and counters
    downward: frozen weights would drift. Here the average moves by a share of its distance, which is then exactly 0.

    Args:
        decay: Share of the old average that is left after a step.

    Raises:
        HwrError: If it is no share.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise HwrError(f"callbacks.ema.decay={decay}: a share between 0 and 1 is needed")

        @torch.no_grad()
        def update(averages: Iterable[Tensor], values: Iterable[Tensor], count: Tensor | int) -> None:
            for average, value in zip(averages, values, strict=True):
                if average.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:  # a counter
                    average.copy_(value)

        super().__init__(multi_avg_fn=update)
