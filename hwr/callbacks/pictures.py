"""What the pictures of characters and of lines share: when they are drawn, and where they go."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer

from hwr import trackers
from hwr.callbacks import history

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures(Callback):
    """Draws the first batch and the learning curves.

    Args:
        dirpath: Pictures go to ``figures/`` in it.
        every_n_epochs: How often validation is drawn for the trackers; 0 for never.
    """

    def __init__(self, dirpath: str, every_n_epochs: int) -> None:
        self.folder, self.every_n_epochs = Path(dirpath) / "figures", every_n_epochs

    @abstractmethod
    def samples(self, trainer: Trainer, batch: Any) -> Figure:
        """A figure of a batch as it enters the network."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the first batch."""
        if trainer.is_global_zero and not (trainer.global_step or batch_idx or trainer.current_epoch):
            self.draw(trainer, "samples", self.samples(trainer, batch))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the learning curves."""
        path = self.folder.parent / "history.csv"
        if trainer.is_global_zero and path.is_file():
            from hwr import figures

            best = history.best_checkpoint(trainer)
            self.draw(trainer, "curves", figures.curves(history.read(path), best and best[1]))

    def is_due(self, trainer: Trainer) -> bool:
        """Whether validation is drawn in this epoch."""
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def draw(self, trainer: Trainer, tag: str, figure: Figure) -> None:
        """Gives a figure to the trackers and, but for validation, writes a PNG, named as the tag without the split."""
        from hwr import figures

        split, _, name = tag.rpartition("/")
        if split != "val":
            figures.save(figure, self.folder / f"{name}.png")
        trackers.picture(trainer, tag, figure)
