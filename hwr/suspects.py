"""How ill a label fits what a model reads that has not seen it, for characters and for lines.

Ranking held-out items by their loss is an old way to wrong labels (Brodley and Friedl 1999, Journal of Artificial
Intelligence Research 11; Northcutt, Jiang and Chuang 2021, arXiv:1911.00068).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwr.data.base import CharacterDataModule
from hwr.data.batches import Batch
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.batches import LineBatch
from hwr.decoding import Hypothesis
from hwr.errors import HwrError
from hwr.reports import LineReading, error_rate
from hwr.text import Charset, alignment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT = "held out"


class Suspect(NamedTuple):
    """One item and how suspicious its label is.

    Attributes:
        name: The item's.
        label: The one it has.
        read: What the model reads.
        sure: How sure it is of that, 0 to 1.
        score: The higher, the more suspicious; infinite where a text does not fit into its image.
    """

    name: str
    label: str
    read: str
    sure: float
    score: float


class Items(ABC):
    """The training items of a datamodule.

    Attributes:
        names: Of the items, as the data set has them.
        labels: Of the items, as text.
        kind: What they are, in the plural.
    """

    names: Sequence[str]
    labels: Sequence[str]
    kind: str

    @abstractmethod
    def strata(self) -> Sequence[str]:
        """What each fold is to have its share of."""

    @abstractmethod
    def image(self, i: int) -> np.ndarray:
        """One item, uint8 (H, W), as a model gets it."""

    @abstractmethod
    def score(self, positions: np.ndarray, system: Any, data: Any) -> list[Suspect]:
        """Scores the items at these positions.

        Args:
            positions: int (M,).
            system: A system that has not seen them, on the device where it is to run.
            data: What it learnt from.
        """

    @abstractmethod
    def agreement(self, suspects: Sequence[Suspect]) -> str:
        """How well the models read the items, for people."""

    @abstractmethod
    def figure(self, ranked: Sequence[int], suspects: Sequence[Suspect], title: str) -> Figure:
        """A picture of the items at these positions, in this order."""


class Characters(Items):
    """Characters, scored by the cross-entropy of their label.

    Args:
        data: Set up.
    """

    kind = "characters"

    def __init__(self, data: CharacterDataModule) -> None:
        self.part = data.sets["train"]
        self.names = self.part.names
        self.labels = [data.classes[i] for i in self.part.labels.tolist()]

    def strata(self) -> Sequence[str]:
        """The classes."""
        return self.labels

    def image(self, i: int) -> np.ndarray:
        """See :class:`Items`."""
        return self.part.images[i].numpy()

    @torch.inference_mode()
    def score(self, positions: np.ndarray, system: Any, data: CharacterDataModule) -> list[Suspect]:
        """See :class:`Items`."""
        number = {name: i for i, name in enumerate(data.classes)}
        data.sets = {**data.sets, HELD_OUT: self.part.subset(positions)}
        found: dict[int, Suspect] = {}
        batch: Batch
        for batch in _batches(system, data):
            log_p = system(batch.images).log_softmax(1).cpu()
            for i, row, read in zip(positions[batch.ids.tolist()], log_p, log_p.argmax(1).tolist(), strict=True):
                loss = -float(row[number[self.labels[i]]])
                found[i] = Suspect(self.names[i], self.labels[i], data.classes[read], float(row[read].exp()), loss)
        return [found[i] for i in positions]

    def agreement(self, suspects: Sequence[Suspect]) -> str:
        """How many are read as labelled."""
        same = sum(one.label == one.read for one in suspects)
        return f"{same / len(suspects):.1%} of {len(suspects):,} characters are read as they are labelled"

    def figure(self, ranked: Sequence[int], suspects: Sequence[Suspect], title: str) -> Figure:
        """See :class:`Items`."""
        from hwr.figures import suspects as draw

        some = [suspects[i] for i in ranked]
        images = self.part.images[torch.tensor(ranked)].numpy()
        return draw(images, [s.label for s in some], [s.read for s in some], [s.sure for s in some], title)


class Lines(Items):
    """Lines, scored by :func:`doubt`.

    Args:
        data: Set up.

    Raises:
        HwrError: If the lines are made up anew in every epoch.
    """

    kind = "lines"

    def __init__(self, data: LineDataModule) -> None:
        if data.endless:
            raise HwrError("data: these lines are drawn anew in every epoch, so they have no labels to audit")
        self.part = data.sets["train"]
        self.names, self.labels = self.part.names, self.part.texts

    def strata(self) -> Sequence[str]:
        """Nothing: any lines will do, and one writer's may be on both sides, as labels are judged and not readers."""
        return [""] * len(self.names)

    def image(self, i: int) -> np.ndarray:
        """See :class:`Items`."""
        return self.part.image(i)

    @torch.inference_mode()
    def score(self, positions: np.ndarray, system: Any, data: LineDataModule) -> list[Suspect]:
        """See :class:`Items`."""
        charset = Charset("".join(data.classes))
        held_out = self.part.subset(positions)
        held_out.encode(charset)
        data.sets = {**data.sets, HELD_OUT: held_out}
        found: dict[int, Suspect] = {}
        batch: LineBatch
        for batch in _batches(system, data):
            log_probs, frames = (each.cpu() for each in system(batch.images, batch.widths))
            readings = system.decoder(log_probs, frames)
            for i, row, length, reading in zip(positions[batch.ids.tolist()], log_probs, frames, readings, strict=True):
                score = doubt(row[:length], self.labels[i], reading, charset)
                found[i] = Suspect(self.names[i], self.labels[i], reading.text, reading.confidence, score)
        return [found[i] for i in positions]

    def agreement(self, suspects: Sequence[Suspect]) -> str:
        """The error rate."""
        rate = error_rate(LineReading(0, s.name, None, s.label, s.read, s.sure) for s in suspects)
        return (
            f"{len(suspects):,} lines are read with {rate.cer:.1%} of their characters wrong, if their texts are right"
        )

    def figure(self, ranked: Sequence[int], suspects: Sequence[Suspect], title: str) -> Figure:
        """See :class:`Items`."""
        from hwr.line_figures import predictions

        some = [(i, suspects[i]) for i in ranked]
        readings = [LineReading(i, s.name, self.part.writers[i], s.label, s.read, s.sure) for i, s in some]
        return predictions([self.image(i) for i in ranked], readings, title, doubted=True)


def doubt(log_probs: Tensor, text: str, reading: Hypothesis, charset: Charset) -> float:
    """How suspicious the text of a line is: that of its worst place.

    A place is a word, or several, where text and reading differ. There the text is put right after the reading, and
    what counts is how much more probable the line's text becomes (in nats), times the squared mean confidence of the
    characters read there: models misread hesitantly. The loss of a whole line is mostly that of its hardest words.

    Args:
        log_probs: (T, C).
        text: The one that the line has.
        reading: The most probable one.
        charset: Of the C classes.

    Returns:
        At least 0; infinite for a text that does not fit into the frames.
    """
    found = places(text, reading.text)
    texts = [text, *(text[:a] + reading.text[c:d] + text[b:] for a, b, c, d in found)]
    labels = [charset.encode(each, skip_unknown=True) for each in texts]
    own, *others = loss(log_probs, labels).tolist()
    if own == inf:
        return inf
    sure = reading.char_confidences
    scores = [0.0]
    for other, (_, _, start, end) in zip(others, found, strict=True):
        there = (
            sure[start:end] or sure[max(0, start - 1) : start + 1] or (reading.confidence,)
        )  # too much: its neighbours
        scores.append((own - other) * (sum(there) / len(there)) ** 2)
    return max(scores)


def places(text: str, read: str) -> list[tuple[int, int, int, int]]:
    """Where two texts differ, from and to in the one and in the other; a space that they share ends a place."""
    found: list[tuple[int, int, int, int]] = []
    place: tuple[int, int, int, int] | None = None
    i = j = 0
    for kind, left, right in alignment(text, read):
        a, c = (place[0], place[2]) if place else (i, j)
        i, j = i + len(left), j + len(right)
        if kind != "equal":
            place = a, i, c, j
        elif left == " " and place:
            found.append(place)
            place = None
    return [*found, place] if place else found


def loss(log_probs: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Minus the log-probability of each of several texts of one line, float32 (N,); infinite where one does not fit.

    Args:
        log_probs: (T, C) on the CPU.
        labels: N texts, as numbers from 1.
    """
    targets = torch.tensor([number for text in labels for number in text], dtype=torch.long)
    lengths = torch.tensor([len(text) for text in labels])
    frames = torch.full((len(labels),), len(log_probs))
    return F.ctc_loss(log_probs[:, None].expand(-1, len(labels), -1), targets, frames, lengths, reduction="none")


def _batches(system: Any, data: Any) -> Iterator[Any]:
    """The batches of the items held out as the system takes them, on its device."""
    system.eval()
    for positions in data.order(HELD_OUT, 0, 1):
        batch = data.transfer_batch_to_device(data.sets[HELD_OUT][positions], system.device, 0)
        yield data.on_after_batch_transfer(batch, 0)
