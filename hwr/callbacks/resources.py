"""How fast, and in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


class ResourceMonitor(Callback):
    """Logs samples per second of the training batches, the process's peak memory and the GPU's, every epoch.

    Also samples and seconds since training began, validation and pictures included; a resumed run goes on counting.
    """

    def __init__(self) -> None:
        self.samples, self._seconds_before = 0, 0.0
        self._start = self._epoch_start = self._epoch_end = 0.0
        self._epoch_samples = 0

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        return {"samples": self.samples, "seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.samples, self._seconds_before = state_dict["samples"], state_dict["seconds"]

    def seconds(self) -> float:
        """Since training began."""
        return self._seconds_before + time.perf_counter() - self._start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, also of an epoch in whose middle a resumed run begins."""
        self._start = self._epoch_start = time.perf_counter()
        self._epoch_samples = self.samples

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._epoch_start, self._epoch_samples = time.perf_counter(), self.samples

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts over all processes, and stops the clock of the epoch (validation comes after it)."""
        self.samples += len(batch.images) * trainer.world_size
        self._epoch_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        pace = (self.samples - self._epoch_samples) / max(self._epoch_end - self._epoch_start, 1e-9)
        values = {"samples_per_s": pace, "samples": float(self.samples), "seconds": self.seconds()}
        values["memory_gb"] = peak_memory_gb()
        if torch.cuda.is_available():
            values["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        pl_module.log_dict({f"system/{name}": value for name, value in values.items()}, rank_zero_only=True)


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in 10^9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
