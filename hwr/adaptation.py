"""What fine-tuning gained on the new data, and what it cost on the old."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from hwr.bundle import Bundle
from hwr.data.base import CharacterDataModule
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.batches import WidthOrder
from hwr.decoding import GreedyDecoder
from hwr.errors import HwrError
from hwr.files import write_text
from hwr.parts import DataModule
from hwr.reports import LineReading, error_rate, wilson

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Score:
    """An error on a split.

    Attributes:
        data: ``new`` or ``old``.
        when: ``before`` or ``after``.
        error: Share of characters that are wrong (lines: the character error rate, which may exceed 1).
        low: Lower end of its 95 % interval; None where there is none.
        high: Upper end.
    """

    data: str
    when: str
    error: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Adaptation:
    """Errors before and after fine-tuning.

    Attributes:
        scores: Of the new data, then of the old, each before and after.
        split: That was scored.
        lines: Whether errors are character error rates of lines.
    """

    scores: tuple[Score, ...]
    split: str
    lines: bool

    def metrics(self) -> dict[str, float]:
        """Flat figures: ``new/before``, ``new/before_low`` and so on."""
        ends = {"": "error", "_low": "low", "_high": "high"}
        named = {f"{s.data}/{s.when}{end}": getattr(s, name) for s in self.scores for end, name in ends.items()}
        return {name: value for name, value in named.items() if value is not None}

    def rows(self) -> list[tuple[str, str, str]]:
        """For the closing table: what, how much, and its interval."""
        what = "CER" if self.lines else "error"
        found = {(s.data, s.when): s for s in self.scores}
        rows = [(f"{what}, new data, {when}", *_shown(found["new", when])) for when in ("before", "after")]
        if ("old", "after") in found:
            before, after = found["old", "before"], found["old", "after"]
            rows.append(
                (f"{what}, old data, after", _shown(after)[0], f"before {before.error:.2%}; {_shown(after)[1]}")
            )
        else:
            rows.append((f"{what}, old data", "not known", "say which with data@old_data=NAME"))
        return rows

    def write(self, folder: Path) -> None:
        """Writes ``adaptation.csv`` and ``adaptation.png``."""
        from hwr import figures

        rows = [(f"{s.data} data", s.when, s.error, s.low, s.high) for s in self.scores]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("data", "when", "error", "low", "high"), *rows])
        write_text(folder / "adaptation.csv", text.getvalue())
        what = f"{'CER' if self.lines else 'Error'} ({'validation' if self.split == 'val' else self.split})"
        figures.save(figures.before_and_after(rows, what), folder / "adaptation.png")


def _shown(score: Score) -> tuple[str, str]:
    interval = "no interval" if score.low is None else f"95 % interval {score.low:.2%} to {score.high:.2%}"
    return f"{score.error:.2%}", interval


def comparable(before: Bundle, data: DataModule, old: DataModule | None) -> bool:
    """Whether a start can read the data, old data included: shards may hold images prepared otherwise than it needs.

    If not, a warning says so.
    """
    try:
        for part in (data, old):
            if part is not None and part.streamed:
                _prepared(part, before)
    except HwrError as error:
        log.warning("what the start is worth on this data is not known: %s", error)
        return False
    return True


def compare(
    before: Bundle, after: Bundle, data: DataModule, old: DataModule | None, split: str, device: torch.device
) -> Adaptation:
    """Scores two models with their weights on new and on old data.

    Args:
        before: The start.
        after: What became of it.
        data: What it was adapted to, set up.
        old: What the start was made for, set up, if anybody knows.
        split: To score; of old data the other one if it has no such split.
        device: Where they read.
    """
    parts = {"new": data} if old is None else {"new": data, "old": old}
    scores = []
    for name, part in parts.items():
        where = next(each for each in (split, "test", "val") if each in part.sets)
        for when, model in (("before", before), ("after", after)):
            scores.append(Score(name, when, *score(model, part, where, device)))
    return Adaptation(tuple(scores), split, isinstance(data, LineDataModule))


@torch.inference_mode()
def score(
    model: Bundle, data: DataModule, split: str, device: torch.device = CPU
) -> tuple[float, float | None, float | None]:
    """The error of a model on a split, and its interval; classes and characters that the model lacks are errors.

    Images that are prepared otherwise than the model needs are read and prepared anew.
    """
    network: Any = model.build().eval().to(device).to(memory_format=torch.channels_last)
    if data.preprocess != model.preprocess:
        data = _prepared(data, model)
        if isinstance(data, LineDataModule):
            data.check_feasible(network)
    if isinstance(data, CharacterDataModule):
        wrong = 0
        part = data.sets[split]
        for positions in np.array_split(np.arange(len(part)), -(-len(part) // data.eval_batch_size)):
            batch = data.on_after_batch_transfer(move_data_to_device(part[positions.tolist()], device), 0)
            read_as = network(batch.images.contiguous(memory_format=torch.channels_last)).argmax(1)
            for label, read in zip(batch.labels.tolist(), read_as.tolist(), strict=True):
                wrong += data.classes[label] != model.classes[read]
        return wrong / len(part), *wilson(wrong / len(part), len(part))
    rate = error_rate(_readings(model, network, data, split, device))
    return rate.cer, *(rate.interval() or (None, None))


def _prepared(data: DataModule, model: Bundle) -> DataModule:
    """The same data with images as a model needs them."""
    data = copy(data)
    data.sets, data.preprocess = {}, model.preprocess
    data.setup()
    return data


def _readings(
    model: Bundle, network: torch.nn.Module, data: LineDataModule, split: str, device: torch.device
) -> Iterator[LineReading]:
    part, decode = data.sets[split], GreedyDecoder(model.charset)
    order: Sequence[Sequence[int]] = list(WidthOrder(part.widths, data.eval_columns, False)) if len(part) else []
    for positions in order:
        batch = data.on_after_batch_transfer(move_data_to_device(part[positions], device), 0)
        logits, frames, _ = network(batch.images.contiguous(memory_format=torch.channels_last), batch.widths)
        for i, found in zip(positions, decode(logits.log_softmax(2), frames), strict=True):
            yield LineReading(i, part.names[i], part.writers[i], part.texts[i], found.text, found.confidence)
    for line in part.lost:
        yield LineReading(-1, line.name, line.writer, line.text, "", 0.0)
