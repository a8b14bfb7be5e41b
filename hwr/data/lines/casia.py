"""CASIA handwritten Chinese: characters (HWDB1.x, ``.gnt``) and lines (HWDB2.x, ``.dgrl``), as they unpack.

Formats: tables 2 and 4 of http://www.nlpr.ia.ac.cn/databases/handwriting/Offline_database.html; integers are
little-endian, bitmaps one byte a pixel, row by row, 255 = background.

    .gnt   again and again: size of this record (4 bytes), GB code (2), width (2), height (2), bitmap
    .dgrl  size of the header (4), "DGRL" (8), illustration (the rest, ends with 0), code type (20), bytes of a code
           (2), bits of a pixel (2); page height (4), page width (4), number of lines (4); for each line: number of
           characters (4), their codes, top, left, height, width (4 each), bitmap

A file that breaks off gives what comes before the break.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hwr.data.layout import files_below
from hwr.data.lines.items import Grey, LineImage, Lines, Stamp, check_disjoint
from hwr.errors import HwrError

log = logging.getLogger(__name__)
_SPLIT_NAMES = {"train": "train|trn", "val": "val", "test": "(?<!con)test|tst"}  # "contest" says nothing
_MAX_LINES = 1000  # no page has as many: the file is damaged


@dataclass(frozen=True, slots=True)
class Bitmap(LineImage):
    """Uncompressed pixels inside a file.

    Attributes:
        offset: Of the first pixel, bytes.
        height: Pixels.
        width: Pixels.
    """

    offset: int
    height: int
    width: int

    def read(self) -> Grey:
        """The pixels, uint8 (H, W), 255 = background."""
        try:
            with open(self.stamp.path, "rb") as file:
                file.seek(self.offset)
                content = file.read(self.height * self.width)
        except OSError as error:
            raise HwrError(f"{self.stamp.path}: cannot be read ({error.strerror})") from error
        if len(content) < self.height * self.width:
            raise HwrError(f"{self.stamp.path}: has become shorter since it was listed; start again")
        return np.frombuffer(content, np.uint8).reshape(self.height, self.width).copy()


class _Broken(Exception):
    """The file ends, or makes no sense from here on."""


class _Reader:
    """Reads integers from a file and knows how much is left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    @property
    def position(self) -> int:
        return self.file.tell()

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def bytes(self, count: int) -> bytes:
        self.need(count)
        return self.file.read(count)

    def skip(self, count: int) -> None:
        self.need(count)
        self.file.seek(count, 1)

    def need(self, count: int) -> None:
        if self.position + count > self.size:
            raise _Broken(f"the file breaks off: {self.size} bytes, {self.position + count} needed")


def read_gnt(path: str | Path) -> Lines:
    """Reads the characters of one ``.gnt`` file, or of all below a folder.

    Names are ``1001-c.gnt#12``, writers what comes before the hyphen in the file name. A whole corpus has millions of
    records: go through it file by file.

    Raises:
        HwrError: If there is nothing usable.
    """
    return _read(Path(path), ".gnt", _gnt)


def read_dgrl(path: str | Path) -> Lines:
    """Reads the lines of one ``.dgrl`` file, or of all below a folder.

    Names are ``501-P16.dgrl#0``; the writer is 501, the text P16, which other writers copied as well.

    Raises:
        HwrError: If there is nothing usable.
    """
    return _read(Path(path), ".dgrl", _dgrl)


def read_splits(root: str | Path, read: Callable[[Path], Lines] = read_dgrl) -> dict[str, Lines]:
    """Reads the official split by writers: folders whose names hold ``train`` or ``trn``, ``test`` or ``tst``.

    Args:
        root: Holds them (``HWDB2.0Train``, ``HWDB2.1Test``, ``HWDB1.1trn_gnt`` ...); a folder without such ones is all
            ``train``.
        read: :func:`read_dgrl` or :func:`read_gnt`.

    Raises:
        HwrError: If a folder has nothing usable, or a writer is in two splits.
    """
    root = Path(root).expanduser()
    found = split_folders(root)
    if found == {"train": [root]}:
        return {"train": read(root)}
    splits: dict[str, Lines] = {}
    for split, folders in found.items():
        for folder in folders:
            splits.setdefault(split, Lines()).extend(_prefixed(read(folder), folder.relative_to(root).as_posix()))
    check_disjoint(splits, ("writer", "image"), root)
    return splits


def split_folders(root: Path) -> dict[str, list[Path]]:
    """The folders (or files) of each split by their names, at any depth, or the root as ``train`` where no name tells.

    Raises:
        HwrError: If there is no such root.
    """
    if not root.is_dir():
        raise HwrError(f"{root}: no such folder; unpack the data set there, or set data.root or HWR_DATA_DIR")
    splits: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() or p.suffix.lower() in (".gnt", ".dgrl")):
        split = next((split for split, mark in _SPLIT_NAMES.items() if re.search(mark, folder.name.lower())), None)
        if split is None and folder.is_file():
            unnamed.append(folder)
            continue
        found = {split: [folder]} if split else split_folders(folder)
        if found == {"train": [folder]} and not split:
            unnamed.append(folder)
            continue
        for name, folders in found.items():
            splits.setdefault(name, []).extend(folders)
    if splits and unnamed:
        log.warning("%s: not read: %s; its name says neither train nor test", root, ", ".join(p.name for p in unnamed))
    return splits or {"train": [root]}


def _prefixed(lines: Lines, folder: str) -> Lines:
    out = Lines()
    for item in lines.items:
        out.add(f"{folder}/{item.name}", item.text, item.image, item.writer, item.text_id)
    for bad in lines.rejected:
        out.reject(f"{folder}/{bad.name}", bad.reason, bad.text, bad.writer)
    return out


def _read(path: Path, suffix: str, parse: Callable[[_Reader, Stamp, Lines, str], None]) -> Lines:
    path = path.expanduser()
    files = files_below(path, suffix) if path.is_dir() else [path]
    if not files:
        raise HwrError(f"{path}: no {suffix} file in it")
    lines = Lines()
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            stamp = Stamp.of(file)
            with file.open("rb") as content:
                parse(_Reader(content, stamp.size), stamp, lines, name)
        except (HwrError, _Broken) as error:
            lines.reject(name, str(error))
        except OSError as error:
            lines.reject(name, f"cannot be read ({error.strerror})")
    return lines.checked(path)


def _gnt(reader: _Reader, stamp: Stamp, lines: Lines, name: str) -> None:
    writer, _ = _writer_and_text(name)
    number = 0
    while (start := reader.position) < reader.size:
        label = f"{name}#{number}"
        try:
            size, code, width, height = _gnt_header(reader)
            if size != 10 + width * height:
                raise _Broken(f"{size} bytes with {width} x {height} pixels; the rest of the file is left out")
            image = Bitmap(stamp, reader.position, height, width)
            reader.skip(width * height)
        except _Broken as error:
            lines.reject(label, f"byte {start}: {error}", writer=writer)
            return
        _add(lines, label, _text(code, 2), image, writer, None)
        number += 1


def _gnt_header(reader: _Reader) -> tuple[int, bytes, int, int]:
    (size,), code = reader.numbers("<I"), reader.bytes(2)
    width, height = reader.numbers("<HH")
    return size, code, width, height


def _dgrl(reader: _Reader, stamp: Stamp, lines: Lines, name: str) -> None:
    writer, text_id = _writer_and_text(name)
    (header,) = reader.numbers("<I")
    kind = reader.bytes(8).rstrip(b"\0 ")
    if kind != b"DGRL" or header < 36:
        raise HwrError(f"not a DGRL file: its format code is {kind!r}")
    reader.skip(header - 36 + 20)
    code_length, bits = reader.numbers("<HH")
    if bits != 8 or code_length not in (1, 2, 4):
        raise HwrError(f"{bits} bits a pixel and {code_length} bytes a code; 8 bits and 1, 2 or 4 bytes can be read")
    _, _, count = reader.numbers("<III")
    if count > _MAX_LINES:
        raise HwrError(f"damaged: {count} lines on one page")
    for number in range(count):
        label = f"{name}#{number}"
        codes = b""
        try:
            (characters,) = reader.numbers("<I")
            codes = reader.bytes(characters * code_length)
            _, _, height, width = reader.numbers("<IIII")
            image = Bitmap(stamp, reader.position, height, width)
            reader.skip(height * width)
        except _Broken as error:
            for lost in range(number, count):
                text = _text(codes, code_length)[0] if lost == number else ""
                lines.reject(f"{name}#{lost}", f"line {lost + 1} of {count}: {error}", text, writer)
            return
        _add(lines, label, _text(codes, code_length), image, writer, text_id)


def _add(
    lines: Lines, name: str, text: tuple[str, str], image: Bitmap, writer: str | None, text_id: str | None
) -> None:
    """Adds an item unless its text or its size is wrong."""
    characters, problem = text
    if image.height * image.width == 0:
        problem = f"the image has {image.width} x {image.height} pixels"
    if problem:
        lines.reject(name, problem, characters, writer)
    else:
        lines.add(name, characters, image, writer, text_id)


def _text(codes: bytes, length: int) -> tuple[str, str]:
    """The characters of GB codes, and what is wrong with them; a code shorter than ``length`` is filled up with 0."""
    characters, problem = "", ""
    for start in range(0, len(codes), length):
        code = codes[start : start + length]
        try:
            character = code.rstrip(b"\0").decode("gb18030")
        except UnicodeDecodeError:
            character = ""
        if len(character) != 1:
            problem = f"the code {code.hex(' ')} is no GB18030 character (ff ff marks what is crossed out)"
        characters += character
    return characters, problem


def _writer_and_text(name: str) -> tuple[str | None, str | None]:
    """``501`` and ``P16`` of ``501-P16.dgrl``; ``1.0train-gb1.gnt`` holds many writers, whose numbers are not told."""
    writer, hyphen, text = Path(name).stem.partition("-")
    return (writer, text or None) if hyphen and writer.isdigit() else (None, None)
