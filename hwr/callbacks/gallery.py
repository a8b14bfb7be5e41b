"""Pictures of a training: in the trackers, and as PNG in the run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer

from hwr.callbacks.pictures import Pictures
from hwr.data.batches import Batch
from hwr.data.module import datamodule_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwr.data.base import CharacterDataModule
    from hwr.systems import CharacterSystem


class Gallery(Pictures):
    """What the model sees, what it reads, and where it goes wrong.

    Args:
        dirpath: Pictures go to ``figures/`` in it.
        every_n_epochs: How often the validation set is drawn for the trackers; 0 for never.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 10) -> None:
        super().__init__(dirpath, every_n_epochs)
        self.outputs: list[dict[str, np.ndarray]] = []

    def samples(self, trainer: Trainer, batch: Batch) -> Figure:
        """See :meth:`Pictures.samples`."""
        from hwr import figures

        data: CharacterDataModule = datamodule_of(trainer)
        seen = batch.images[:40, 0].float().cpu() * data.preprocess.std + data.preprocess.mean
        images = (seen.clamp(0, 1) * 255).byte().numpy()
        return figures.samples(images, _names(data, batch.labels[:40].cpu().numpy()))

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
        if self.is_due(trainer):
            self._keep(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws validation for the trackers."""
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
        matrix = cast("CharacterSystem", pl_module).confusion.compute().cpu().numpy()
        if trainer.is_global_zero:
            self._draw_readings(trainer, "test", matrix)

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
        from hwr import figures

        data: CharacterDataModule = datamodule_of(trainer)
        kept = {key: np.concatenate([output[key] for output in self.outputs]) for key in self.outputs[0]}
        self.outputs = []
        part = data.sets[data.test_split if split == "test" else split]
        images = part.images[torch.from_numpy(kept["ids"])].numpy()
        truth, predicted, sure = _names(data, kept["truth"]), _names(data, kept["predicted"]), kept["confidence"]
        if matrix is None:
            matrix = np.zeros((len(data.classes),) * 2, int)
            np.add.at(matrix, (kept["truth"], kept["predicted"]), 1)
        some = np.random.default_rng(0).permutation(len(images))[:40]
        figure_of = {
            "predictions": figures.predictions(
                images[some], [truth[i] for i in some], [predicted[i] for i in some], sure[some]
            ),
            "worst_errors": figures.worst_errors(images, truth, predicted, sure),
            "confused_pairs": figures.confused_pairs(images, kept["truth"], kept["predicted"], data.classes),
            "confusion": figures.confusion(matrix, data.classes),
            "reliability": figures.reliability(sure, kept["truth"] == kept["predicted"]),
        }
        for name, figure in figure_of.items():
            self.draw(trainer, f"{split}/{name}", figure)


def _names(data: CharacterDataModule, labels: np.ndarray) -> list[str]:
    return [data.classes[i] for i in labels]
