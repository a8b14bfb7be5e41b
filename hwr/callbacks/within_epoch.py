"""Checkpoints in the middle of an epoch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from hwr.errors import HwrError


class WithinEpoch(ModelCheckpoint):
    """Overwrites ``last.ckpt`` every few minutes; the run that it resumes reads what is left of the epoch.

    Only after a step of the optimiser, whose gradients are no part of a checkpoint, and not after the last batch of an
    epoch: what belongs to its end (validation, schedules) would be left out in the resumed run.

    Args:
        dirpath: Where it lies.
        minutes: How often, about; 0 for never.

    Raises:
        HwrError: If that is no number from 0.
    """

    def __init__(self, dirpath: str, minutes: float = 0) -> None:
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes < 0:
            raise HwrError(f"callbacks.within_epoch.minutes={minutes}: a number from 0 is needed")
        self.minutes = minutes
        every = timedelta(minutes=minutes)
        super().__init__(dirpath, "last", train_time_interval=every, enable_version_counter=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.minutes and stepped and not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
