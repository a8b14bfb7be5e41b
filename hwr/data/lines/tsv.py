"""Lines from a table of images and transcripts, or from pairs of ``x.png`` and ``x.gt.txt``.

A ``.tsv`` has a header, one line a row and no quoting: a quotation mark is a quotation mark (but a cell that is quoted
as in a ``.csv``, with doubled marks inside, is read as one). A ``.csv`` is quoted as in
RFC 4180 and separated by commas, semicolons or tabs. Both are UTF-8 and have the columns ``image`` (a path relative to
the table) and ``text``, perhaps ``writer``; other columns are passed over.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hwr.data.layout import SPLITS, files_below, one_table_each, split_folders, tell_unused
from hwr.data.lines.items import Lines, check_disjoint
from hwr.errors import HwrError
from hwr.images import IMAGE_SUFFIXES

TABLES = (".tsv", ".csv")
TRANSCRIPT = ".gt.txt"
_CLEANED = (".bin", ".nrm")  # x.bin.png, x.nrm.png: the names of binarised and normalised lines since OCRopus


class _Row(NamedTuple):
    line: int
    fields: list[str]
    problem: str = ""


def read_splits(path: str | Path) -> dict[str, Lines]:
    """Reads whatever lies there; ``train`` alone where the data has no splits of its own.

    Args:
        path: A ``.tsv`` or ``.csv`` table; a folder with ``train.tsv`` and perhaps ``val.tsv`` and ``test.tsv`` (or
            ``.csv``); a folder with ``train/`` and perhaps ``val/`` and ``test/`` of pairs; or a folder of pairs. To
            judge a model, one of these splits is enough.

    Raises:
        HwrError: If there is nothing, a table has no header, a split has no usable line, or two splits share a writer
            or an image.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return {"train": read_table(path)}
    if not path.is_dir():
        raise HwrError(f"data.path={path}: no such file or folder")
    if tables := one_table_each(path, SPLITS, TABLES):
        tell_unused(path, [table.name for table in tables.values()])
        splits = {name: read_table(table) for name, table in tables.items()}
    elif folders := split_folders(path, files_below(path, TRANSCRIPT)):
        splits = {name: read_pairs(path / name) for name in folders}
    else:
        splits = {"train": read_pairs(path)}
    check_disjoint(splits, where=path)
    return splits


def read_table(path: str | Path) -> Lines:
    """Reads a ``.tsv`` or ``.csv`` table; a row that cannot be used is rejected, the others are kept.

    Raises:
        HwrError: If the table cannot be read, lacks a column, or no row can be used.
    """
    path = Path(path)
    lines = Lines()
    for number, cells, problem in rows_of(path, ("image", "text")):
        image, text, writer = (cells.get(name, "") for name in ("image", "text", "writer"))
        if problem:
            lines.reject(image or f"line {number}", f"{path}, line {number}: {problem}", text, writer or None)
        else:
            lines.add(image, text, _image(path.parent, image), writer or None)
    return lines.checked(path)


def _image(folder: Path, name: str) -> Path:
    windows = "\\" in name and not os.path.exists(folder / name)  # a table made there
    return folder / (name.replace("\\", "/") if windows else name)


def rows_of(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str], str]]:
    """Number of the line, cells by column, and what is wrong with its shape, of each row of a table.

    Args:
        path: ``.tsv`` or ``.csv``.
        needed: Columns it must have, the second of them the text: fields too many are taken for a part of it.

    Raises:
        HwrError: If it cannot be read or lacks a column.
    """
    rows = _rows(path)
    header = next(rows, _Row(1, []))
    columns = [name.strip().lower() for name in header.fields]
    if header.problem or not set(needed) <= set(columns):
        raise HwrError(
            f"{path}, line 1: a header with the columns {' and '.join(needed)} is needed (writer is optional); "
            f"found: {', '.join(columns)[:80] or header.problem or 'nothing'}"
        )
    for row in rows:
        if not "".join(row.fields).strip() and not row.problem:
            continue
        fields, surplus = row.fields, len(row.fields) - len(columns)
        if surplus > 0:  # most likely of the text, which an evaluation counts as wrong from end to end
            start = columns.index(needed[1])
            end = start + surplus + 1
            fields = [*fields[:start], " ".join(fields[start:end]), *fields[end:]]
        cells = {name: cell.strip() for name, cell in zip(columns, fields, strict=False)}
        problem = row.problem or _problem(row, columns, cells.get("image", ""), cells.get("writer", ""))
        yield row.line, cells, problem


def _problem(row: _Row, columns: list[str], image: str, writer: str) -> str:
    """What is wrong with a row's shape; its text and its image are looked at later."""
    if len(row.fields) > len(columns):
        return f"{len(row.fields)} fields where the header has {len(columns)}: a tab or separator inside the text?"
    if len(row.fields) < len(columns):
        return f"{len(row.fields)} fields where the header has {len(columns)}"
    if not image:
        return "no image is named"
    if any("\udc80" <= c <= "\udcff" for field in row.fields for c in field):
        return "not UTF-8"
    if "writer" in columns and not writer:
        return "the writer is empty; fill it in, or leave the whole column out"
    return ""


def _rows(path: Path) -> Iterator[_Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise HwrError(f"{path}: cannot be read ({error.strerror})") from error
    if text.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise HwrError(f"{path}: UTF-16; save the table as UTF-8")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if path.suffix.lower() == ".tsv":  # what csv.QUOTE_NONE does, without its limit on the length of a field
        for number, line in enumerate(lines, start=1):
            yield _Row(number, [_plain(cell) for cell in line.split("\t")])
    else:
        yield from _quoted_rows(lines, max(",;\t", key=lines[0].count))


def _plain(cell: str) -> str:
    """A cell without the quotation marks that pandas and spreadsheets put around one with such marks inside."""
    inner = cell[1:-1]
    quoted = len(cell) > 4 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _quoted_rows(lines: list[str], delimiter: str) -> Iterator[_Row]:
    """Rows of RFC 4180, but each of them one line, as the text of a line is: a mark left open costs no other row."""
    for number, line in enumerate(lines, start=1):
        try:
            yield _Row(number, next(csv.reader([f"{line}\n"], delimiter=delimiter, strict=True), []))
        except csv.Error as error:
            mend = 'a text stands on one line, and a quotation mark inside quotes is written ""'
            yield _Row(number, line.split(delimiter), f"{error}; {mend}")


def read_pairs(folder: str | Path) -> Lines:
    """Reads pairs of ``x.png`` (or any image format) and ``x.gt.txt``, at any depth.

    Raises:
        HwrError: If there are no transcripts, or no pair can be used.
    """
    folder = Path(folder)
    texts: dict[Path, Path] = {}
    images: dict[Path, list[Path]] = {}
    for path in files_below(folder):
        if path.name.endswith(TRANSCRIPT):
            texts[path.with_name(path.name.removesuffix(TRANSCRIPT))] = path
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(path.with_suffix(""), []).append(path)
    if not texts:
        raise HwrError(
            f"{folder}: neither train.tsv (or train.csv) nor pairs of x.png and x{TRANSCRIPT}; "
            "give a table with the columns image and text, or such a folder"
        )
    for stem in [stem for stem in images if stem.suffix in _CLEANED and stem not in texts]:
        images.setdefault(stem.with_suffix(""), []).extend(images.pop(stem))
    lines = Lines()
    for stem in sorted(texts.keys() | images.keys()):
        _add_pair(lines, stem.relative_to(folder).as_posix(), texts.get(stem), images.get(stem, []))
    return lines.checked(folder)


def _add_pair(lines: Lines, name: str, text: Path | None, images: list[Path]) -> None:
    if text is None:
        lines.reject(name, f"{images[0]} has no transcript {Path(name).name}{TRANSCRIPT}")
        return
    try:
        content = text.read_text(encoding="utf-8-sig", errors="surrogateescape").strip()
    except OSError as error:
        lines.reject(name, f"{text} cannot be read ({error.strerror})")
        return
    if len(parts := content.splitlines()) > 1:
        reason = f"{text} holds {len(parts)} lines; one line of text goes with one image"
        lines.reject(name, reason, " ".join(parts))
    elif not images:
        lines.reject(name, f"{text} has no image beside it", content)
    elif len(images) > 1:
        lines.reject(name, f"several images: {', '.join(image.name for image in images)}; keep one", content)
    else:
        lines.add(name, content, images[0])
