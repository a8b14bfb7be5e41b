"""Pictures of a training of lines: in the trackers, in the terminal, and as PNG in the run directory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import rich
from lightning import LightningModule, Trainer
from rich.text import Text

from hwr.callbacks.pictures import Pictures
from hwr.data.module import datamodule_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwr.data.lines.base import LineDataModule
    from hwr.data.lines.batches import LineBatch, LineSet
    from hwr.reports import LineReading
    from hwr.systems import LineSystem

STYLES = {"equal": "", "substitute": "bold red", "insert": "bold yellow", "delete": "bold cyan"}


class LineGallery(Pictures):
    """What the model sees, what it reads, and where it goes wrong.

    Args:
        dirpath: Pictures go to ``figures/`` in it.
        every_n_epochs: How often some validation lines, always the same, are drawn for the trackers (eight) and printed
            (three); 0 for never.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 1) -> None:
        super().__init__(dirpath, every_n_epochs)

    def samples(self, trainer: Trainer, batch: LineBatch) -> Figure:
        """See :meth:`Pictures.samples`."""
        from hwr import line_figures

        data: LineDataModule = datamodule_of(trainer)
        charset = data.charset
        assert charset is not None  # training has begun
        seen = (batch.images[:16, 0].float().clamp(0, 1) * 255).byte().cpu().numpy()
        images = [image[:, : max(1, width)] for image, width in zip(seen, batch.widths.tolist(), strict=False)]
        labels = np.split(batch.targets.cpu().numpy(), np.cumsum(batch.lengths.cpu().numpy())[:-1])[:16]
        texts = [charset.decode(label.tolist()) for label in labels]
        return line_figures.samples(images, texts)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows some lines of validation."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self.is_due(trainer):
            return
        some = _some(cast("LineSystem", pl_module).readings, 8)
        _print(some[:3])
        if trainer.loggers:
            from hwr import line_figures

            self.draw(trainer, "val/predictions", line_figures.predictions(_images(trainer, "val", some), some))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was read in the test, over all processes."""
        if not trainer.is_global_zero:
            return
        from hwr import line_figures

        readings = cast("LineSystem", pl_module).readings
        split = datamodule_of(trainer).test_split
        worst, some = line_figures.worst(readings), _some(readings, 16)
        figures = {
            "worst_lines": line_figures.worst_lines(_images(trainer, split, worst), worst),
            "predictions": line_figures.predictions(_images(trainer, split, some), some),
            "confusions": line_figures.confusions(readings),
            "cer_by_length": line_figures.cer_by_length(readings),
        }
        if any(line.writer is not None for line in readings):
            figures["cer_by_writer"] = line_figures.cer_by_writer(readings)
        for name, figure in figures.items():
            self.draw(trainer, f"test/{name}", figure)


def _images(trainer: Trainer, split: str, readings: Sequence[LineReading]) -> list[np.ndarray | None]:
    part: LineSet = datamodule_of(trainer).sets[split]
    return [part.image(line.id) if line.id >= 0 else None for line in readings]


def _some(readings: Sequence[LineReading], most: int) -> list[LineReading]:
    """Lines that have an image, drawn at random but always the same, in the order of the split."""
    known = sorted((line for line in readings if line.id >= 0), key=lambda line: line.id)
    return [known[i] for i in sorted(np.random.default_rng(0).permutation(len(known))[:most].tolist())]


def coloured(line: LineReading, columns: float) -> list[Text]:
    """A transcript and below it what was read, differences coloured, in pairs of rows of so many characters."""
    from hwr.line_figures import differences, printable

    return [
        Text.assemble(f"  {name}: ", *((str(run[side]), STYLES[run.kind]) for run in runs))
        for runs in differences(line.reference, line.hypothesis, columns, printable)
        for name, side in (("true", 1), ("read", 2))
    ]


def _print(readings: Sequence[LineReading]) -> None:
    """Prints readings, in colour where the terminal has colours."""
    console = rich.get_console()  # the one of the progress bar, which moves out of the way
    columns = max(20, console.width - 8) if console.is_terminal else math.inf
    for line in readings:
        for row in coloured(line, columns):
            console.print(row, soft_wrap=True)
