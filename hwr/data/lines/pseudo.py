"""Lines that a model has read and nobody has transcribed: pseudo-labels (Lee 2013), for training only."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from hwr.data.lines.items import Lines
from hwr.data.lines.tsv import rows_of
from hwr.errors import HwrError

log = logging.getLogger(__name__)


def read_pseudo_labels(path: str | Path, confidence: float, splits: Mapping[str, Lines]) -> Lines:
    """Reads a table of ``image``, ``text`` and ``confidence``, as ``hwr.predict format=csv`` writes it.

    Images that are in a split are passed over: those of training have a transcript, and what is judged by must not be
    learnt from, not even as it was read.

    Args:
        path: Of the table; its images are relative to it, or to the working directory, where ``hwr.predict`` ran.
        confidence: A line that was read with less is left out.
        splits: The lines that have transcripts.

    Raises:
        HwrError: If the table cannot be read, or no line of it can be used.
    """
    path = Path(path).expanduser()
    taken = {item.image for lines in splits.values() for item in lines.items}
    found, unsure = Lines(), 0
    for number, cells, problem in rows_of(path, ("image", "text", "confidence")):
        sure = _number(cells.get("confidence", ""))
        if problem or sure is None:
            reason = problem or f"confidence {cells['confidence']!r} is not a number between 0 and 1"
            found.reject(cells.get("image") or f"line {number}", f"{path}, line {number}: {reason}")
        elif sure < confidence:
            unsure += 1
        else:
            image = path.parent / cells["image"]
            image = image if os.path.exists(image) else Path(cells["image"])
            found.add(str(image), cells["text"], image)
    items = [item for item in found.items if item.image not in taken]
    known = len(found) - len(items)
    left = f"{unsure:,} read with confidence below {confidence:g}, {known:,} that have a transcript"
    if not items:
        first = f", {len(found.rejected):,} unusable: {found.rejected[0]}" if found.rejected else ""
        raise HwrError(f"data.pseudo_labels={path}: no line of it can be used: {left}{first}")
    log.warning("train: %s lines of %s as a model read them; left out: %s", f"{len(items):,}", path, left)
    return Lines(items, found.rejected)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
