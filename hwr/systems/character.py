"""Learning to tell characters apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from hwr.data.batches import Batch
from hwr.networks import CharacterNetwork
from hwr.reports import milliseconds, per_class, wilson
from hwr.systems.base import System


class CharacterSystem(System):
    """A character network with its loss and metrics.

    ``val/`` metrics are logged every epoch, ``test/`` metrics (more of them) once; all are exact over the whole split,
    also over several processes.

    Args:
        network: Images (B, 1, H, W) -> logits (B, C).
        loss: See :mod:`hwr.systems.losses`.
        top_k: A label among the k most probable counts as right in ``top{k}_accuracy``.
        kwargs: See :class:`System`.
    """

    network: CharacterNetwork

    def __init__(self, network: CharacterNetwork, loss: torch.nn.Module, top_k: int = 3, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.loss = loss
        n = len(self.bundle.classes)
        self.train_loss, self.train_accuracy = MeanMetric(nan_strategy="ignore"), MeanMetric()
        self.eval_loss = MeanMetric()
        self.val_metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(n, average="micro"), "f1_macro": MulticlassF1Score(n)}, prefix="val/"
        )
        k = min(top_k, n)
        self.test_metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(n, average="micro"),
                f"top{k}_accuracy": MulticlassAccuracy(n, average="micro", top_k=k),
                **{
                    f"{name}_{average}": metric(n, average=average)
                    for name, metric in (
                        ("precision", MulticlassPrecision),
                        ("recall", MulticlassRecall),
                        ("f1", MulticlassF1Score),
                    )
                    for average in ("macro", "weighted")
                },
                "calibration_error": MulticlassCalibrationError(n),
            },
            prefix="test/",
        )
        self.confusion = MulticlassConfusionMatrix(n)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of normalised images (B, 1, H, W), without autocast: what is scored is what will be used."""
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        features = self.network.backbone(batch.images.contiguous(memory_format=torch.channels_last))
        logits = self.network.head(features).float()
        loss: Tensor = self.loss(logits, features, batch.labels)
        if self.distillation is not None:
            loss = self.distillation.characters(loss, logits, batch.images)
        self.watch(loss)
        self.train_loss.update(loss.detach(), len(batch.labels))
        self.train_accuracy.update((logits.detach().argmax(1) == batch.labels).float())
        loss = self.shared(loss, len(batch.labels))
        self.log_step("train/batch_loss", loss)
        if self.trainer.is_last_batch:
            learnt = {"train/loss": self.train_loss, "train/accuracy": self.train_accuracy}
            self.log_dict(learnt, on_step=False, on_epoch=True)
        return self.penalised(loss)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Counts a batch; see :meth:`test_step`."""
        logits = self(batch.images)
        with counting():
            self.val_metrics.update(logits, batch.labels)
        return self._readings(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the split."""
        self.log("val/loss", self.eval_loss, prog_bar=True)
        self.log_dict(self.val_metrics, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Counts a batch and hands its probabilities (B, C), labels (B,) and ids (B,) to the callbacks."""
        logits = self(batch.images)
        with counting():
            self.test_metrics.update(logits.log_softmax(1), batch.labels)  # logits all in [0, 1] pass for probabilities
            self.confusion.update(logits, batch.labels)
        return self._readings(logits, batch)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the split."""
        self.log("test/loss", self.eval_loss)
        self.log_dict(self.test_metrics)

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """The accuracy's interval, and figures of each class."""
        matrix = self.confusion.compute()  # added up over all processes
        n = int(matrix.sum())
        low, high = wilson(float(matrix.diag().sum()) / n, n)
        figures = {"test/accuracy_low": low, "test/accuracy_high": high, "test/samples": float(n)}
        return figures, {"per_class.csv": per_class(matrix, self.bundle.classes)}

    def timings(self) -> dict[str, float]:
        """Milliseconds an image."""
        return {f"ms_per_image_batch_{n}": milliseconds(self.network, *self.bundle.example(n)) for n in (1, 256)}

    def _readings(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        self.check_numbers(logits)
        self.eval_loss.update(torch.nn.functional.cross_entropy(logits, batch.labels), len(batch.labels))
        return {"probabilities": logits.softmax(1), "labels": batch.labels, "ids": batch.ids}


@contextmanager
def counting() -> Iterator[None]:
    """Lets torchmetrics count as it does where algorithms need not be deterministic.

    Whole numbers add up to the same in any order, and the other way takes 8 * B * C^2 bytes: tens of gigabytes for the
    3,755 classes of CASIA-HWDB1.1.
    """
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
