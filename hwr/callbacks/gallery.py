"""Pictures of a training: in TensorBoard, and as PNG in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from hwr.callbacks import history
from hwr.data.base import CharacterDataModule
from hwr.data.batches import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Gallery(Callback):
    """What the model sees, what it reads, and where it goes wrong.

    Args:
        dirpath: Pictures go to ``figures/`` in it.
        every_n_epochs: How often the validation set is drawn into TensorBoard; 0 for never.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 10) -> None:
        self.folder, self.every_n_epochs = Path(dirpath) / "figures", every_n_epochs
        self.outputs: list[dict[str, np.ndarray]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Draws the first batch as it enters the network."""
        if trainer.global_step or batch_idx or trainer.current_epoch or not trainer.is_global_zero:
            return
        data = _datamodule(trainer)
        seen = batch.images[:40, 0].float().cpu() * data.preprocess.std + data.preprocess.mean
        images = (seen.clamp(0, 1) * 255).byte().numpy()
        self._draw(trainer, "samples", "samples", images, _names(data, batch.labels[:40].cpu().numpy()))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last epoch."""
        self.outputs = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what was read, in the epochs that are drawn."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._keep(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws validation into TensorBoard."""
        if self.outputs and trainer.is_global_zero:
            self._draw_readings(trainer, "val", None)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets what was kept."""
        self.outputs = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what was read."""
        self._keep(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the test set, over all processes where the counts are, over this one's share where samples are."""
        matrix = pl_module.confusion.compute().cpu().numpy()  # type: ignore[operator, union-attr]
        if trainer.is_global_zero:
            self._draw_readings(trainer, "test", matrix)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the learning curves."""
        path = self.folder.parent / "history.csv"
        if trainer.is_global_zero and path.is_file():
            best = history.best_checkpoint(trainer)
            self._draw(trainer, "curves", "curves", history.read(path), best and best[1])

    def _keep(self, outputs: dict[str, torch.Tensor]) -> None:
        best = outputs["probabilities"].max(1)
        self.outputs.append(
            {
                "predicted": best.indices.cpu().numpy(),
                "confidence": best.values.float().cpu().numpy(),
                "truth": outputs["labels"].cpu().numpy(),
                "ids": outputs["ids"].cpu().numpy(),
            }
        )

    def _draw_readings(self, trainer: Trainer, split: str, matrix: np.ndarray | None) -> None:
        data = _datamodule(trainer)
        kept = {key: np.concatenate([output[key] for output in self.outputs]) for key in self.outputs[0]}
        self.outputs = []
        part = data.sets[data.test_split if split == "test" else split]
        images = part.images[torch.from_numpy(kept["ids"])].numpy()
        truth, predicted = _names(data, kept["truth"]), _names(data, kept["predicted"])
        if matrix is None:
            matrix = np.zeros((len(data.classes),) * 2, int)
            np.add.at(matrix, (kept["truth"], kept["predicted"]), 1)
        some = np.random.default_rng(0).permutation(len(images))[:40]
        self._draw(
            trainer,
            f"{split}/predictions",
            "predictions",
            images[some],
            [truth[i] for i in some],
            [predicted[i] for i in some],
            kept["confidence"][some],
        )
        self._draw(trainer, f"{split}/worst_errors", "worst_errors", images, truth, predicted, kept["confidence"])
        self._draw(
            trainer, f"{split}/confused_pairs", "confused_pairs", images, kept["truth"], kept["predicted"], data.classes
        )
        self._draw(trainer, f"{split}/confusion", "confusion", matrix, data.classes)
        self._draw(
            trainer, f"{split}/reliability", "reliability", kept["confidence"], kept["truth"] == kept["predicted"]
        )

    def _draw(self, trainer: Trainer, tag: str, name: str, *what: Any) -> None:
        from hwr import figures

        figure: Figure = getattr(figures, name)(*what)
        if not tag.startswith("val/"):
            figures.save(figure, self.folder / f"{name}.png")
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_figure(tag, figure, trainer.global_step)


def _datamodule(trainer: Trainer) -> CharacterDataModule:
    data: CharacterDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _names(data: CharacterDataModule, labels: np.ndarray) -> list[str]:
    return [data.classes[i] for i in labels]
