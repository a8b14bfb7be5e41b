"""Learning-rate schedules, each a function of the optimiser and the length of the training.

They give what Lightning calls an ``lr_scheduler_config``. Shares are of the whole training, so that a schedule need not
know epochs or steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

Config = dict[str, Any]


def constant(optimizer: Optimizer, total_steps: int, max_epochs: int) -> Config:
    """The learning rate of the optimiser throughout."""
    return _factor(optimizer, lambda step: 1.0)


def step(optimizer: Optimizer, total_steps: int, max_epochs: int, milestones: Sequence[float], gamma: float) -> Config:
    """Multiplies the learning rate by ``gamma`` at each of the ``milestones`` (shares of the training)."""
    return _factor(optimizer, lambda now: gamma ** sum(now >= share * total_steps for share in milestones))


def exponential(optimizer: Optimizer, total_steps: int, max_epochs: int, gamma: float) -> Config:
    """Multiplies the learning rate by ``gamma`` after every epoch."""
    return {"scheduler": ExponentialLR(optimizer, gamma), "interval": "epoch"}


def linear(optimizer: Optimizer, total_steps: int, max_epochs: int, warmup: float, final: float) -> Config:
    """Rises linearly for a share ``warmup``, then falls linearly to the share ``final`` of the peak."""
    return _factor(optimizer, _warmed(total_steps, warmup, lambda x: 1 - (1 - final) * x))


def cosine(optimizer: Optimizer, total_steps: int, max_epochs: int, warmup: float, final: float) -> Config:
    """Rises linearly for a share ``warmup``, then falls along half a cosine (arXiv:1608.03983)."""
    return _factor(
        optimizer, _warmed(total_steps, warmup, lambda x: final + (1 - final) * (1 + math.cos(math.pi * x)) / 2)
    )


def onecycle(
    optimizer: Optimizer, total_steps: int, max_epochs: int, warmup: float, div_factor: float, final_div_factor: float
) -> Config:
    """One cycle of learning rate, and of momentum the other way (Smith and Topin, arXiv:1708.07120)."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    if warmup * (total_steps + 1) == 1:  # a rise of no steps: OneCycleLR divides by its length
        warmup = 0.0
    scheduler = OneCycleLR(
        optimizer, peaks, total_steps + 1, pct_start=warmup, div_factor=div_factor, final_div_factor=final_div_factor
    )
    return {"scheduler": scheduler, "interval": "step"}


def plateau(
    optimizer: Optimizer, total_steps: int, max_epochs: int, monitor: str, factor: float, patience: int, min_lr: float
) -> Config:
    """Multiplies the learning rate by ``factor`` when ``monitor`` has not improved for ``patience`` epochs.

    ``min_lr`` is the end for the highest of the groups' learning rates, the others keep their ratio to it.
    """
    mode: Literal["min", "max"] = "min" if monitor.endswith(("loss", "cer", "wer")) else "max"
    rates = [group["lr"] for group in optimizer.param_groups]
    ends = [min_lr * rate / (max(rates) or 1) for rate in rates]
    scheduler = ReduceLROnPlateau(optimizer, mode, factor, patience, min_lr=ends, eps=0.0)
    # System steps it, and tells if there is nothing to watch
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "strict": False}


def _factor(optimizer: Optimizer, factor: Callable[[int], float]) -> Config:
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def _warmed(total_steps: int, warmup: float, decay: Callable[[float], float]) -> Callable[[int], float]:
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return decay(min(1.0, (step - rise) / max(1, total_steps - rise)))

    return factor
