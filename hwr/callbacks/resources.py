"""How fast, and in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


class ResourceMonitor(Callback):
    """Logs samples per second of the training batches, the process's peak memory and the GPU's, every epoch."""

    def __init__(self) -> None:
        self._start, self._samples = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start, self._samples = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts over all processes, and stops the clock (validation comes after it)."""
        self._samples += len(batch.images) * trainer.world_size
        self._seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        pl_module.log("system/samples_per_s", self._samples / max(self._seconds, 1e-9), rank_zero_only=True)
        pl_module.log("system/memory_gb", peak_memory_gb(), rank_zero_only=True)
        if torch.cuda.is_available():
            pl_module.log("system/gpu_memory_gb", torch.cuda.max_memory_allocated() / 1e9, rank_zero_only=True)


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in 10^9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
