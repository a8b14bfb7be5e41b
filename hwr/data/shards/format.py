"""Shards on disk or in an object store: what they look like, and how they are written, checked and read.

A shard is a tar file in the WebDataset convention: one sample, a block of items, as NumPy arrays and a JSON member.
Any tar or WebDataset reader understands it. Characters have ``images.npy`` uint8 (N, H, W) and ``labels.npy`` int64
(N,); lines have ``pixels.npy`` uint8 (P,), line after line, each row by row, and ``widths.npy`` int64 (N,). ``json``
holds ``names``, ``writers`` and, for lines, ``texts``. The images are prepared as a network sees them.

``index.jsonl`` beside the shards is written last. Its first line says what the data set is, the others describe a shard
each, with the SHA-256 of the file, and the last is the SHA-256 of all lines before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from hwr.errors import HwrError

FORMAT, VERSION = "hwr-shards", 1
INDEX = "index.jsonl"
HEADER = re.compile(rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*")


@dataclass(frozen=True)
class Shard:
    """One shard as the index describes it.

    Attributes:
        file: Its name in the index; its address once the index is read.
        split: Whose items it holds.
        items: How many.
        bytes: Size of the file.
        sha256: Of the file, hexadecimal.
        width: Of the widest line, in pixels; 0 for characters.
        narrow: The narrowest lines for what CTC needs, as widths in pixels and frames: every other line is as wide and
            needs as few frames as one of these.
    """

    file: str
    split: str
    items: int
    bytes: int
    sha256: str
    width: int = 0
    narrow: tuple[tuple[int, int], ...] = ()

    def line(self) -> str:
        """Its line of the index."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Shard:
        """The shard of a line of the index."""
        values = json.loads(line)
        return cls(**{**values, "narrow": tuple((int(w), int(n)) for w, n in values["narrow"])})


@dataclass(frozen=True)
class Block:
    """The items of a shard.

    Attributes:
        arrays: By name, see this module.
        json: Names, writers and texts, as UTF-8.
    """

    arrays: Mapping[str, np.ndarray]
    json: bytes

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Names, writers and texts."""
        found: dict[str, Any] = json.loads(self.json)
        return found


@dataclass(frozen=True)
class Index:
    """What lies in a folder of shards.

    Attributes:
        path: The folder, or its address in an object store; of several, with commas between them.
        about: The first line: ``kind`` (characters or lines), ``preprocess``, ``classes`` (of lines: the characters
            of the training transcripts), of characters ``counts`` of the training items of each class, of lines the
            ``lost`` ones of each split.
        shards: Of all splits, in order.
    """

    path: str
    about: Mapping[str, Any]
    shards: Sequence[Shard]

    @property
    def classes(self) -> list[str]:
        """Of the training items; of lines their characters."""
        return list(self.about["classes"])

    def of(self, split: str) -> list[Shard]:
        """The shards of a split."""
        return [shard for shard in self.shards if shard.split == split]


def encode(key: str, block: Block) -> bytes:
    """The tar file of one sample; the same items give the same bytes."""
    members = {}
    for name, array in block.arrays.items():
        np.save(content := io.BytesIO(), array, allow_pickle=False)
        members[f"{key}.{name}.npy"] = content.getvalue()
    members[f"{key}.json"] = block.json
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            file.addfile(info, io.BytesIO(value))
    return tar.getvalue()


def decode(content: bytes) -> Block:
    """The items of a tar file that :func:`encode` made."""
    arrays, facts = {}, b"{}"
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            start = member.offset_data
            if member.name.endswith(".npy"):
                arrays[member.name.split(".")[-2]] = _array(content, start)
            else:
                facts = content[start : start + member.size]
    return Block(arrays, facts)


def _array(content: bytes, start: int) -> np.ndarray:
    """An array in NumPy's format 1.0 at an offset, without a copy.

    NumPy's own reader parses the header as Python, which now and then fails in threads of Python 3.11 (cpython 106905).
    """
    begin = start + 10
    end = begin + int.from_bytes(content[start + 8 : begin], "little")
    header = HEADER.fullmatch(content[begin:end])
    if header is None:
        raise HwrError(f"a shard holds an array of another kind than hwr writes: {content[begin:end]!r}")
    shape = [int(size) for size in header[2].replace(b",", b" ").split()]
    return np.frombuffer(content, header[1].decode(), math.prod(shape), end).reshape(shape)


def sealed(lines: Iterable[str]) -> str:
    """An index of these lines, each with its line feed."""
    text = "".join(lines)
    return text + json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n"


def read_index(path: str | Sequence[str], kind: str) -> Index:
    """Reads the index of a folder of shards, or joins those of several.

    Args:
        path: The folder, or an address that fsspec understands (``s3://``, ``gs://``, ``https://`` ...), or a list.
        kind: What is wanted: ``characters`` or ``lines``.

    Raises:
        HwrError: If there is none, it is of another version or kind, or damaged, or several do not belong together.
    """
    if isinstance(path, str):
        return _read_index(path, kind)
    if not path:
        raise HwrError("data.path=[]: name one folder at least")
    return _joined([_read_index(one, kind) for one in path])


def _joined(parts: Sequence[Index]) -> Index:
    """One index of all shards."""
    first = parts[0].about
    for part in parts[1:]:
        for what, one, other in _settings(first, part.about):
            if one != other:
                raise HwrError(
                    f"data.path: {parts[0].path} and {part.path} do not belong together: packed with {what}={one} and "
                    f"{what}={other}; pack both with the same settings"
                )
    abouts = [part.about for part in parts]
    if first["kind"] == "lines":
        joined = {
            "classes": sorted({character for about in abouts for character in about["classes"]}),
            "lost": {name: [line for about in abouts for line in about["lost"][name]] for name in first["lost"]},
        }
    else:
        joined = {"counts": np.sum([about["counts"] for about in abouts], axis=0).tolist()}
    shards = [shard for part in parts for shard in part.shards]
    return Index(", ".join(part.path for part in parts), {**first, **joined}, shards)


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The settings of two data sets that must be the same: their names and values."""
    names = dict.fromkeys([*one["preprocess"], *other["preprocess"]])
    yield from ((f"preprocess.{name}", one["preprocess"].get(name), other["preprocess"].get(name)) for name in names)
    if one["kind"] != "lines":  # of lines it is their characters, which are joined
        yield "classes", " ".join(one["classes"]), " ".join(other["classes"])


def _read_index(path: str, kind: str) -> Index:
    path = path.rstrip("/") if remote(path) else str(Path(path).expanduser())
    where = f"{path}/{INDEX}"
    try:
        text = fetch(where).decode()
    except FileNotFoundError:
        unfinished = not remote(path) and Path(f"{where}.part").is_file()
        mend = "packing was broken off: run the same hwr.pack command again" if unfinished else "hwr.pack writes one"
        raise HwrError(f"data.path={path}: no {INDEX} there; {mend}") from None
    except UnicodeDecodeError:
        text = ""
    lines = text.splitlines(keepends=True)
    try:
        about = json.loads(lines[0])
        if about["format"] != FORMAT:
            raise HwrError(f"{where}: not an index of shards that hwr.pack wrote")
        if about["version"] != VERSION:
            raise HwrError(
                f"{where}: version {about['version']} of the format, and this hwr reads {VERSION}; update hwr"
            )
        whole = sealed(lines[:-1]) == text
    except (IndexError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise HwrError(f"{where}: cut short or damaged; run the hwr.pack command that wrote it again, or copy it again")
    if about["kind"] != kind:
        other = {"characters": "shards", "lines": "line_shards"}[about["kind"]]
        raise HwrError(f"data.path={path}: shards of {about['kind']}, not of {kind}; read them with data={other}")
    shards = [Shard.read(line) for line in lines[1:-1]]
    return Index(path, about, [replace(shard, file=f"{path}/{shard.file}") for shard in shards])


def remote(path: str) -> bool:
    """Whether this is an address in place of a folder."""
    return "://" in path


def fetch(where: str) -> bytes:
    """A file from a folder or an object store.

    Raises:
        FileNotFoundError: If there is none.
        HwrError: If it cannot be read.
    """
    try:
        with fsspec.open(where, "rb") as file:
            content: bytes = file.read()
            return content
    except Exception as error:  # every store has exceptions of its own: no such store, no access, no network
        if isinstance(error, FileNotFoundError) and error.__cause__ is None:  # else it stands for something else
            raise
        reason = error.__cause__ or error
        raise HwrError(f"{where}: cannot be read ({reason or type(reason).__name__})") from error


def read_shard(shard: Shard) -> Block:
    """Reads and checks a shard of an index that was read.

    Raises:
        HwrError: If it is missing, cannot be read, or is not what the index says.
    """
    try:
        content = fetch(shard.file)
    except FileNotFoundError:
        raise HwrError(f"{shard.file}: this shard is missing") from None
    if len(content) != shard.bytes:
        raise HwrError(f"{shard.file}: this shard is damaged ({len(content):,} bytes, {INDEX} says {shard.bytes:,})")
    if not intact(shard, content):
        raise HwrError(f"{shard.file}: this shard is damaged (its SHA-256 is not the one in {INDEX})")
    return decode(content)


def intact(shard: Shard, content: bytes) -> bool:
    """Whether these are the bytes of the shard."""
    return len(content) == shard.bytes and hashlib.sha256(content).hexdigest() == shard.sha256
