"""CASIA-HWDB1.x: single Chinese characters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.layout import files_below
from hwr.data.lines.casia import read_gnt, split_folders
from hwr.data.lines.items import Lines
from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess
from hwr.text import code_points

log = logging.getLogger(__name__)


class _Part(NamedTuple):
    images: torch.Tensor
    texts: list[str]
    names: list[str]
    writers: list[str]


class CASIACharacters(CharacterDataModule):
    """CASIA-HWDB1.x: 3,926 Chinese characters, letters and digits by 1,020 writers (Liu, Yin, Wang and Wang 2011).

    The classes are the characters of the training part. Validation, and the test part where there is none, are set
    apart by writer.

    Args:
        root: Where data sets live: ``root/HWDB1`` holds ``HWDB1.1trn_gnt``, ``HWDB1.1tst_gnt`` and so on.
        kwargs: See :class:`CharacterDataModule`.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser() / "HWDB1"

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Reads all parts, file by file; logs the records that are no character."""
        folders = split_folders(self.root)
        parts = {name: _read(name, paths, self.root, self.preprocess) for name, paths in folders.items()}
        home: dict[str, str] = {}
        for name, part in parts.items():
            for writer in sorted(set(part.writers)):
                if home.setdefault(writer, name) != name:
                    raise HwrError(f"{self.root}: the writer {writer!r} is in {home[writer]} and in {name}; move one")
        if "train" not in parts:
            raise HwrError(f"{self.root}: no folder with train or trn in its name beside {', '.join(sorted(parts))}")
        classes = sorted(set(parts["train"].texts))
        number = {character: i for i, character in enumerate(classes)}
        for name, part in parts.items():
            if lacking := sorted(set(part.texts) - set(classes)):
                raise HwrError(
                    f"{self.root}: {name} has {code_points(lacking)}, which the training part lacks; "
                    "unpack both parts of the same release"
                )
        sets = {
            name: CharacterSet(
                part.images,
                torch.tensor([number[c] for c in part.texts]),
                part.names,
                np.array(part.writers) if len(set(part.writers)) > 1 else None,  # one file of many writers: HWDB1.0
            )
            for name, part in parts.items()
        }
        return sets, classes


def _read(name: str, folders: Sequence[Path], root: Path, preprocess: CharacterPreprocess) -> _Part:
    """The characters of one split, images uint8 (N, size, size); a file without a writer in its name is its own."""
    from rich.progress import track

    files = [p for folder in folders for p in ([folder] if folder.is_file() else files_below(folder, ".gnt"))]
    if not files:
        raise HwrError(f"{folders[0]}: no .gnt file in it")
    memory, texts, names, writers, bad = bytearray(), list[str](), list[str](), list[str](), list[str]()
    with ThreadPoolExecutor() as pool:
        found = pool.map(partial(_file, preprocess=preprocess), files)
        progress = track(found, f"Reading {name}", len(files), transient=True, disable=len(files) < 20)
        for file, (lines, images) in zip(files, progress, strict=True):
            where = file.relative_to(root).parent.as_posix()
            memory += images
            texts += [item.text for item in lines.items]
            names += [f"{where}/{item.name}" for item in lines.items]
            writers += [item.writer or file.stem for item in lines.items]
            bad += [f"{where}/{line}" for line in lines.rejected]
    if bad:
        log.warning("%s: %d records of %d files left out: %s", name, len(bad), len(files), "; ".join(bad[:3]))
    if not texts:
        raise HwrError(f"{folders[0]}: no character can be used; the first: {bad[0]}")
    pixels = torch.frombuffer(memory, dtype=torch.uint8).view(-1, preprocess.size, preprocess.size)
    return _Part(pixels, texts, names, writers)


def _file(path: Path, preprocess: CharacterPreprocess) -> tuple[Lines, bytes]:
    """The characters of one file, prepared, one after the other."""
    try:
        lines = read_gnt(path)
    except HwrError as error:
        lines = Lines()
        lines.reject(path.name, str(error))
    return lines, b"".join(preprocess(item.read()).tobytes() for item in lines.items)
