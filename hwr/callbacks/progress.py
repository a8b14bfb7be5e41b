"""The progress bar."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's, with the figures that say how it is going and no others."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leaves out the logger's version."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
