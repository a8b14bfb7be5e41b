"""Corrections of labels: a table that a person fills in and the next training reads.

``hwr.audit`` writes it, and any table with the columns ``image`` and ``corrected`` will do: tab-separated (or with
commas or semicolons, as the header shows), cells quoted as in RFC 4180 where need be, UTF-8 or what a spreadsheet
saves as "Unicode text" (UTF-16). Rows whose ``corrected`` is empty say nothing.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hwr.data.batches import CharacterSet
from hwr.data.lines.batches import LineSet
from hwr.data.lines.items import Rejected, check_text
from hwr.errors import HwrError
from hwr.files import write_text
from hwr.text import normalise

log = logging.getLogger(__name__)
REMOVE = "<remove>"  # in place of a label: train without this item


class Correction(NamedTuple):
    """What a person says of one item.

    Attributes:
        name: The item's, as its data set has it.
        label: The right one, or :data:`REMOVE`.
        where: The table and the line, for messages.
    """

    name: str
    label: str
    where: str


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table that :func:`read` and spreadsheets understand."""
    text = io.StringIO()
    csv.writer(text, "excel-tab", lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def read(path: str | Path) -> list[Correction]:
    """Reads the rows that say something.

    Raises:
        HwrError: If there is no such table, it is malformed, or it says two things of one item.
    """
    path = Path(path).expanduser()
    text = _decoded(path)
    rows = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=max("\t,;", key=text.partition("\n")[0].count), strict=True
    )
    found: dict[str, Correction] = {}
    try:
        columns = rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
        if not {"image", "corrected"} <= set(columns):
            raise HwrError(
                f"{path}, line 1: the columns image and corrected are needed; found: {', '.join(columns) or 'nothing'}"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row:
                raise HwrError(f"{where}: more fields than the header has; quote a field that holds a separator")
            one = Correction(row["image"] or "", (row["corrected"] or "").strip(), where)
            if not one.label:
                continue
            before = found.setdefault(one.name, one)
            if before.label != one.label:
                raise HwrError(
                    f"{where}: {one.name} is {one.label} here and {before.label} in {before.where}; keep one of them"
                )
    except csv.Error as error:
        raise HwrError(
            f"{path}, line {rows.reader.line_num}: {error}; a cell that begins with a quotation mark is quoted as a "
            'whole, with each mark inside it written ""'
        ) from None
    return list(found.values())


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HwrError(f"data.corrections={path}: cannot be read ({error.strerror})") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise HwrError(f"{path}: not UTF-8 (byte {error.start}); save the table as UTF-8") from None
    if "\0" in text:
        raise HwrError(f"{path}: not UTF-8 (it has bytes of 0); save the table as UTF-8")
    return text


def correct_characters(
    sets: Mapping[str, CharacterSet], classes: Sequence[str], path: str, drawn: np.ndarray | None = None
) -> CharacterSet:
    """The training samples as a table of corrections has them.

    Args:
        sets: All splits.
        classes: Their names; a corrected label is one of them.
        path: Of the table.
        drawn: Positions of the training samples that are wanted; None: all.

    Raises:
        HwrError: If a row names no training sample, or no class.
    """
    part = sets["train"]
    labels, gone = part.labels.clone(), set[int]()
    for one, positions in _matched(path, {name: each.names for name, each in sets.items()}):
        label = unicodedata.normalize("NFC", one.label)
        if label.lower() == REMOVE:
            gone.update(positions)
        elif label in classes:
            labels[torch.tensor(positions)] = classes.index(label)
        else:
            raise HwrError(
                f"{one.where}: {label!r} is none of the {len(classes)} classes ({', '.join(classes[:20])}); "
                f"write one of them, or {REMOVE}"
            )
    wanted = range(len(part)) if drawn is None else drawn.tolist()
    kept = np.array([i for i in wanted if i not in gone], np.int64)
    _tell(path, int((labels != part.labels)[kept].sum()), len(wanted) - len(kept))
    return replace(part, labels=labels).subset(kept)


def correct_lines(sets: Mapping[str, LineSet], path: str, drawn: np.ndarray | None = None) -> LineSet:
    """The training lines as a table of corrections has them; those it removes are among the lost ones.

    Args:
        sets: All splits.
        path: Of the table.
        drawn: Positions of the training lines that are wanted; None: all.

    Raises:
        HwrError: If a row names no training line, or its text cannot be one.
    """
    part = sets["train"]
    texts, gone = list(part.texts), dict[int, str]()
    for one, positions in _matched(path, {name: each.names for name, each in sets.items()}):
        text = normalise(one.label)
        try:
            check_text(text)
        except HwrError as error:
            raise HwrError(f"{one.where}: {error}") from None
        for i in positions:
            if text.lower() == REMOVE:
                gone[i] = f"removed by {one.where}"
            else:
                texts[i] = text
    wanted = range(len(part)) if drawn is None else drawn.tolist()
    kept = [i for i in wanted if i not in gone]
    _tell(path, sum(texts[i] != part.texts[i] for i in kept), len(wanted) - len(kept))
    lost = [Rejected(part.names[i], gone[i], part.texts[i], part.writers[i]) for i in wanted if i in gone]
    found = part.subset(np.array(kept, np.int64), [*part.lost, *lost])
    found.texts = [texts[i] for i in kept]
    return found


def _tell(path: str, changed: int, gone: int) -> None:
    log.warning("%s: %d training labels corrected, %d items left out of training", path, changed, gone)


def _matched(path: str, names: Mapping[str, Sequence[str]]) -> list[tuple[Correction, list[int]]]:
    """The corrections, each with the positions of the training items of its name."""
    corrections = read(path)
    places: dict[str, list[int]] = {one.name: [] for one in corrections}
    for i, name in enumerate(names["train"]):
        if name in places:
            places[name].append(i)
    for one in corrections:
        if not places[one.name]:
            other = next((split for split in names if one.name in names[split]), None)
            if other:
                raise HwrError(f"{one.where}: {one.name} is in {other}; only training items are corrected")
            first = next(iter(names["train"]), "")
            raise HwrError(
                f"{one.where}: no training item is called {one.name!r} (they are called like {first!r}); "
                "name it as the audit did, with the same data.path"
            )
    return [(one, places[one.name]) for one in corrections]
