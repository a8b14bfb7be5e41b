"""What a model has read and nobody has transcribed: pseudo-labels (Lee 2013), for training only.

They come as the table that ``hwr.predict format=csv`` writes: ``image``, ``label`` or ``text``, and ``confidence``.
Images that are in a split are passed over: those of training have a label, and what is judged by must not be learnt
from, not even as it was read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hwr.data.batches import CharacterSet
from hwr.data.lines.items import Lines
from hwr.data.lines.tsv import rows_of
from hwr.data.reading import read_prepared
from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess

log = logging.getLogger(__name__)


@dataclass
class _Readings:
    """A table of readings, and what of it cannot be used.

    Attributes:
        path: Of the table; its images are relative to it, or to the working directory, where ``hwr.predict`` ran.
        confidence: What was read with less is left out.
        unsure: How many those are.
        rejected: What each row lacks that cannot be used: the image or the line, and the reason.
    """

    path: Path
    confidence: float
    unsure: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def rows(self, what: str) -> Iterator[tuple[str, Path]]:
        """What was read, and where the image is, of each row that was read surely enough."""
        for number, cells, problem in rows_of(self.path, ("image", what, "confidence")):
            sure = _number(cells.get("confidence", ""))
            if problem or sure is None:
                reason = problem or f"confidence {cells['confidence']!r} is not a number between 0 and 1"
                self.rejected.append((cells.get("image") or f"line {number}", f"{self.path}, line {number}: {reason}"))
            elif sure < self.confidence:
                self.unsure += 1
            else:
                image = self.path.parent / cells["image"]
                yield cells[what], image if os.path.exists(image) else Path(cells["image"])

    def tell(self, used: int, what: str, left: Sequence[str], unusable: Sequence[str]) -> None:
        """Says how much of the table is learnt from.

        Raises:
            HwrError: If that is nothing.
        """
        out = ", ".join([f"{self.unsure:,} read with confidence below {self.confidence:g}", *left])
        out += f", {len(unusable):,} unusable: {unusable[0]}" if unusable else ""
        if not used:
            raise HwrError(f"data.pseudo_labels={self.path}: no {what} of it can be used: {out}")
        log.warning("train: %s %ss of %s as a model read them; left out: %s", f"{used:,}", what, self.path, out)


def check_confidence(confidence: float) -> None:
    """Raises :class:`HwrError` unless it is one."""
    if not 0 <= confidence <= 1:
        raise HwrError(f"data.pseudo_confidence={confidence}: a number between 0 and 1 is needed")


def read_pseudo_lines(path: str | Path, confidence: float, splits: Mapping[str, Lines]) -> Lines:
    """Reads lines with the text that a model gave them.

    Args:
        path: Of the table.
        confidence: A line that was read with less is left out.
        splits: The lines that have transcripts.

    Raises:
        HwrError: If the table cannot be read, or no line of it can be used.
    """
    table, found = _Readings(Path(path).expanduser(), confidence), Lines()
    taken = {item.image for lines in splits.values() for item in lines.items}
    for text, image in table.rows("text"):
        found.add(str(image), text, image)
    for name, reason in table.rejected:
        found.reject(name, reason)
    items = [item for item in found.items if item.image not in taken]
    known = f"{len(found) - len(items):,} that have a transcript"
    table.tell(len(items), "line", [known], [str(line) for line in found.rejected])
    return Lines(items, found.rejected)


def read_pseudo_characters(
    path: str | Path,
    confidence: float,
    sets: Mapping[str, CharacterSet],
    classes: Sequence[str],
    preprocess: CharacterPreprocess,
) -> CharacterSet:
    """Reads images of single characters with the class that a model gave them.

    Args:
        path: Of the table.
        confidence: A character that was read with less is left out.
        sets: The characters that have labels.
        classes: Their names; what was read as none of them is left out.
        preprocess: How an image becomes what the network sees.

    Raises:
        HwrError: If the table cannot be read, or no character of it can be used.
    """
    table = _Readings(Path(path).expanduser(), confidence)
    taken = {os.path.abspath(name) for part in sets.values() for name in part.names}
    number = {name: i for i, name in enumerate(classes)}
    rows = list(table.rows("label"))
    own = [(label, os.path.abspath(image)) for label, image in rows if label in number]
    new = {image: number[label] for label, image in own if image not in taken}
    names = list(new)
    images, errors = read_prepared(names, preprocess)
    read = [i for i in range(len(new)) if i not in errors]
    unusable = [*(reason for _, reason in table.rejected), *map(str, errors.values())]
    left = [f"{len(own) - len(new):,} that have a label or come twice", f"{len(rows) - len(own):,} of other classes"]
    table.tell(len(read), "character", left, unusable)
    labels = torch.tensor(list(new.values()))
    return CharacterSet(images[read], labels[read], [names[i] for i in read])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
