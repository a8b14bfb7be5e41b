"""Figures about a model's results."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwr.text import ErrorRate, confusions


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``n`` independent trials (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def per_class(confusion: Tensor, classes: tuple[str, ...]) -> str:
    """A CSV table of precision, recall, F1 and support from a confusion matrix (C, C), rows true."""
    matrix = confusion.double().cpu()
    right, true, said = matrix.diag(), matrix.sum(1), matrix.sum(0)
    columns = (right / said.clamp(min=1), right / true.clamp(min=1), 2 * right / (true + said).clamp(min=1))
    rows = [[name, *(f"{float(c[i]):.4f}" for c in columns), int(true[i])] for i, name in enumerate(classes)]
    return _table(["class", "precision", "recall", "f1", "support"], rows)


@torch.inference_mode()
def milliseconds(network: torch.nn.Module, images: Tensor, *more: Tensor, runs: int = 15) -> float:
    """Median time of the network alone, per image of a batch."""
    device = next(network.parameters()).device
    images = images.to(device, memory_format=torch.channels_last)
    rest = [x.to(device) for x in more]
    network.eval()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        network(images, *rest)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2] * 1000 / len(images)


@dataclass(frozen=True)
class LineReading:
    """What was read in one line of a split.

    Attributes:
        id: Position in the split; -1 for a line that could not be read at all.
        name: Where the line comes from.
        writer: Whose hand, where known.
        reference: Its transcript.
        hypothesis: What was read.
        confidence: See :class:`hwr.decoding.Hypothesis`.
    """

    id: int
    name: str
    writer: str | None
    reference: str
    hypothesis: str
    confidence: float


def error_rate(readings: Iterable[LineReading]) -> ErrorRate:
    """Of these readings, by writer."""
    rate = ErrorRate()
    for line in readings:
        rate.add(line.reference, line.hypothesis, line.writer)
    return rate


def by_length(
    readings: Iterable[LineReading], edges: Sequence[int] = (10, 20, 30, 40, 50, 60, 80)
) -> dict[str, ErrorRate]:
    """Error rates of lines of up to so many characters, and of longer ones; groups without lines are left out."""
    names = [f"{low + 1}-{high}" for low, high in zip((0, *edges), edges, strict=False)] + [f"over {edges[-1]}"]
    groups: dict[str, list[LineReading]] = {name: [] for name in names}
    for line in readings:
        groups[names[sum(len(line.reference) > edge for edge in edges)]].append(line)
    return {name: error_rate(group) for name, group in groups.items() if group}


def line_tables(readings: Sequence[LineReading]) -> dict[str, str]:
    """CSV tables about readings of lines, by file name: every line, worst first; confusions; by writer; by length."""
    rates = [(1.0 if line.id < 0 else error_rate([line]).cer, line) for line in readings]
    rates.sort(key=lambda pair: (-pair[0], pair[1].name))
    lines = [
        [r.name, r.writer or "", f"{cer:.4f}", f"{r.confidence:.4f}", r.reference, r.hypothesis] for cer, r in rates
    ]
    pairs = confusions((line.reference, line.hypothesis) for line in readings)
    writers: dict[str, list[LineReading]] = {}
    for line in readings:
        if line.writer is not None:
            writers.setdefault(line.writer, []).append(line)
    hands = {name: error_rate(group) for name, group in writers.items()}
    worst = dict(sorted(hands.items(), key=lambda item: (-item[1].cer, item[0])))
    tables = {
        "lines.csv": _table(["line", "writer", "cer", "confidence", "reference", "hypothesis"], lines),
        "confusions.csv": _table(["reference", "hypothesis", "times"], pairs),
        "by_length.csv": _rates("characters", by_length(readings)),
    }
    return tables | ({"by_writer.csv": _rates("writer", worst)} if worst else {})


def _rates(name: str, rates: Mapping[str, ErrorRate]) -> str:
    rows = [[key, f"{r.cer:.4f}", f"{r.wer:.4f}", r.lines, r.characters] for key, r in rates.items()]
    return _table([name, "cer", "wer", "lines", "reference characters"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
