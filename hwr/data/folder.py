"""Your own characters, from folders or from a table."""

from __future__ import annotations

import csv
import io
import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.layout import SPLITS, one_table_each, tell_unused
from hwr.data.reading import read_prepared
from hwr.errors import HwrError
from hwr.images import list_images

TABLES = (".csv", ".tsv")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One labelled image file."""

    path: Path
    label: str
    writer: str | None = None


class Folder(CharacterDataModule):
    """Images by class, or a table of images and labels.

    ``path`` is one of

    - a folder with one folder of images a class, named like the class;
    - a folder with ``train/``, ``test/`` and perhaps ``val/`` of such folders;
    - a ``.csv`` or ``.tsv`` table with a header and the columns ``image``, ``label`` and perhaps ``writer``; images are
      relative to the table;
    - a folder with ``labels.csv``, or with ``train.csv``, ``test.csv`` and perhaps ``val.csv`` (or ``.tsv``).

    Without a test split of its own, one is set aside in the same way as validation is. With writers, no writer is in
    two splits. Without a training split, there are ``test`` or ``val`` to judge a model by.

    Args:
        path: See above.
        kwargs: See :class:`CharacterDataModule`.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(path).expanduser()

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Reads all images; one that cannot be read stops with its name."""
        items = find_items(self.path)
        check_writers(items)
        classes = sorted({item.label for item in items.get("train") or chain(*items.values())})
        if len(classes) < 2 and "train" in items:
            raise HwrError(f"{self.path}: only the class {classes[0]!r}; at least two classes are needed")
        return {name: self._read(part, classes) for name, part in items.items()}, classes

    def _read(self, items: Sequence[Item], classes: Sequence[str]) -> CharacterSet:
        number = {name: i for i, name in enumerate(classes)}
        for item in items:
            if item.label not in number:
                raise HwrError(
                    f"{item.path}: the label {item.label!r} is outside the {len(classes)} classes of the training part"
                )
        images, errors = read_prepared([item.path for item in items], self.preprocess)
        if errors:
            more = f" (and {len(errors) - 1} more that cannot be read)" if len(errors) > 1 else ""
            raise HwrError(f"{next(iter(errors.values()))}{more}; mend or remove them")
        blank = torch.nonzero(images.flatten(1).amax(1) == 0).flatten().tolist()
        if blank:
            log.warning("%d images show no ink, for example %s", len(blank), items[blank[0]].path)
        writers = np.array([item.writer for item in items]) if items[0].writer is not None else None
        labels = torch.tensor([number[item.label] for item in items])
        return CharacterSet(images, labels, [str(item.path) for item in items], writers)


def find_items(path: Path) -> dict[str, list[Item]]:
    """Finds the labelled images of each split; ``train`` alone where the data does not say.

    Raises:
        HwrError: If there is nothing, a class folder is empty, or a table is malformed.
    """
    if path.is_file():
        return {"train": read_table(path)}
    if not path.is_dir():
        raise HwrError(f"data.path={path}: no such file or folder")
    for names in (SPLITS, ("labels",)):
        if tables := one_table_each(path, names, TABLES):
            tell_unused(path, [table.name for table in tables.values()])
            return {name.replace("labels", "train"): read_table(table) for name, table in tables.items()}
    if splits := _splits(path):
        tell_unused(path, splits)
        return {name: read_folders(path / name) for name in splits}
    return {"train": read_folders(path)}


def _splits(path: Path) -> list[str]:
    """Which splits the folder has; without ``train``, only if there is no other folder and these hold folders."""
    folders = {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
    found = [name for name in SPLITS if name in folders]
    alone = folders == set(found) and all(any(p.is_dir() for p in (path / name).iterdir()) for name in found)
    return found if "train" in found or alone else []


def read_folders(path: Path) -> list[Item]:
    """Reads one folder of images a class."""
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise HwrError(f"{path}: no class folders; expected one folder of images for each class, or a table labels.csv")
    return [Item(file, _nfc(folder.name)) for folder in folders for file in _images_of(folder)]


def _images_of(folder: Path) -> list[Path]:
    try:
        return list_images(folder)
    except HwrError:
        raise HwrError(f"{folder}: this class folder holds no images; add some or remove it") from None


def read_table(path: Path) -> list[Item]:
    """Reads a table with the columns ``image``, ``label`` and perhaps ``writer``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HwrError(f"{path}: not UTF-8 text (byte {error.start}); save the table as UTF-8") from None
    delimiter = max("\t,;", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return _items(rows, path)
    except csv.Error as error:
        raise HwrError(f'{path}, line {rows.line_num}: {error}; a quotation mark is written \'""""\'') from None


def _items(rows: csv.DictReader[str], path: Path) -> list[Item]:
    columns = rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    if not {"image", "label"} <= set(columns):
        raise HwrError(
            f"{path}, line 1: the columns image and label are needed (writer is optional); "
            f"found: {', '.join(columns) or 'nothing'}"
        )
    items = []
    for row in rows:
        image, label = (row["image"] or "").strip(), _nfc((row["label"] or "").strip())
        if not image or not label:
            raise HwrError(f"{path}, line {rows.line_num}: the {'label' if image else 'image'} is empty")
        writer = (row.get("writer") or "").strip()
        if "writer" in columns and not writer:
            raise HwrError(
                f"{path}, line {rows.line_num}: the writer is empty; fill it in, or leave the whole column out"
            )
        items.append(Item(path.parent / image, label, writer or None))
    if not items:
        raise HwrError(f"{path}: a header but no rows")
    return items


def check_writers(items: dict[str, list[Item]]) -> None:
    """Raises :class:`HwrError` if a writer is in two splits."""
    home: dict[str, str] = {}
    for name, part in items.items():
        for item in part:
            if item.writer is not None and home.setdefault(item.writer, name) != name:
                raise HwrError(
                    f"the writer {item.writer!r} is in {home[item.writer]} and in {name}; "
                    "move all of a writer to one split"
                )


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
