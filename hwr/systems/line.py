"""Learning to read lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import MeanMetric

from hwr.data.lines.batches import LineBatch, LineSet
from hwr.data.module import datamodule_of
from hwr.decoding import GreedyDecoder, Hypothesis
from hwr.networks.base import LineNetwork
from hwr.reports import LineReading, error_rate, line_tables, milliseconds
from hwr.systems.base import System
from hwr.systems.losses import CTC
from hwr.text import ErrorRate
from hwr.text.errors import Metric

Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]


class LineSystem(System):
    """A line network with CTC (Graves et al. 2006) and error rates.

    ``val/`` and ``test/`` log the loss, the character and word error rates over the whole split, also over several
    processes, the share of blank frames and the mean length of what is read. Every line of the split counts, also those
    that cannot be read.

    Args:
        network: Images (B, 1, H, W) and widths (B,) -> logits (B, T, C) and frames (B,).
        loss: See :class:`hwr.systems.losses.CTC`.
        decoder: Log-probabilities (B, T, C) and frames (B,) -> readings; None is the most probable path.
        kwargs: See :class:`System`.
    """

    network: LineNetwork

    def __init__(self, network: LineNetwork, loss: CTC, decoder: Decoder | None = None, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.loss = loss
        self.decoder: Decoder = decoder or GreedyDecoder(self.bundle.charset)
        self.train_loss = MeanMetric(nan_strategy="ignore")
        self.eval_loss, self.blanks = MeanMetric(), MeanMetric()
        self.readings: list[LineReading] = []

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, T, C) and frames (B,), without autocast: what is scored is what will be used."""
        with torch.autocast(images.device.type, enabled=False):
            logits, frames, _ = self.network(images.contiguous(memory_format=torch.channels_last), widths)
        return logits.float().log_softmax(2), frames

    def training_step(self, batch: LineBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        logits, frames, aside = self.network(batch.images.contiguous(memory_format=torch.channels_last), batch.widths)
        loss: Tensor = self.loss(logits, frames, aside, batch.targets, batch.lengths, batch.views)
        if self.distillation is not None:
            loss = self.distillation.lines(loss, logits, batch.images, batch.widths, batch.lengths.sum())
        self.watch(loss)
        self.train_loss.update(loss.detach(), _characters(batch))
        loss = self.shared(loss, _characters(batch))
        self.log_step("train/batch_loss", loss)
        if self.trainer.is_last_batch:
            self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        return self.penalised(loss)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last epoch."""
        self.readings = []

    def on_test_epoch_start(self) -> None:
        """Forgets what was read before."""
        self.readings = []

    def validation_step(self, batch: LineBatch, batch_idx: int) -> None:
        """Reads a batch."""
        self._read(batch, self._split("val"))

    def test_step(self, batch: LineBatch, batch_idx: int) -> None:
        """Reads a batch."""
        self._read(batch, self._split("test"))

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the split."""
        self._finish("val", self._split("val"))

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the split."""
        self._finish("test", self._split("test"))

    def error_rate(self) -> ErrorRate:
        """Of everything that was read in the last validation or test, by writer."""
        return error_rate(self.readings)

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Error rates, with intervals where there are writers to draw from, and tables."""
        rate = self.error_rate()
        figures = {"test/lines": float(rate.lines), "test/characters": float(rate.characters)}
        figures["test/lost"] = float(sum(line.id < 0 for line in self.readings))
        metrics: tuple[Metric, ...] = ("cer", "wer")
        for metric in metrics:
            if interval := rate.interval(metric):
                figures |= {f"test/{metric}_low": interval[0], f"test/{metric}_high": interval[1]}
        return figures, line_tables(self.readings)

    def timings(self) -> dict[str, float]:
        """Milliseconds a line of 1,000 pixels."""
        return {f"ms_per_line_batch_{n}": milliseconds(self.network, *self.bundle.example(n), runs=5) for n in (1, 16)}

    def _split(self, name: str) -> LineSet:
        """A split of the present data; ``test`` is the one that is scored."""
        data = datamodule_of(self.trainer)
        part: LineSet = data.sets[data.test_split if name == "test" else name]
        return part

    def _read(self, batch: LineBatch, part: LineSet) -> None:
        log_probs, frames = self(batch.images, batch.widths)
        self.check_numbers(log_probs)
        loss = self.loss.ctc(log_probs, frames, batch.targets, batch.lengths)
        self.eval_loss.update(loss, _characters(batch))
        inside = torch.arange(log_probs.shape[1], device=frames.device) < frames[:, None]
        self.blanks.update((log_probs.argmax(2)[inside] == 0).float())
        found = self.decoder(log_probs, frames)
        for position, hypothesis in zip(batch.ids.tolist(), found, strict=True):
            facts = part.names[position], part.writers[position], part.texts[position]
            self.readings.append(LineReading(position, *facts, hypothesis.text, hypothesis.confidence))

    def _finish(self, prefix: str, part: LineSet) -> None:
        if self.trainer.world_size > 1:
            shares: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(shares, self.readings)
            self.readings = [line for share in shares for line in share]
        self.readings += [
            LineReading(-1, line.name, line.writer, line.text, "", 0.0) for line in part.lost if line.judged
        ]
        rate = self.error_rate()
        lengths = [len(line.hypothesis) for line in self.readings]
        figures = {"cer": rate.cer, "wer": rate.wer, "mean_length": sum(lengths) / max(1, len(lengths))}
        self.log(f"{prefix}/loss", self.eval_loss, prog_bar=True)
        self.log(f"{prefix}/blank_fraction", self.blanks)
        for name, value in figures.items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "cer", rank_zero_only=False)


def _characters(batch: LineBatch) -> Tensor:
    """What the loss of a batch is a mean over: every character counts the same, whatever the batches."""
    return batch.lengths.sum().clamp(min=1)
