"""How data lies in folders: which tables and folders are splits, and what would be passed over without a word."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from hwr.errors import HwrError

SPLITS = ("train", "val", "test")
log = logging.getLogger(__name__)


def files_below(folder: Path, suffix: str = "") -> list[Path]:
    """All files at any depth, in order, but for hidden ones (what macOS and notebooks leave beside the data).

    Args:
        folder: To look in.
        suffix: What their names end with, in small letters.

    Raises:
        HwrError: If a folder cannot be looked into: what is in it would be missing without a word.
    """

    def fail(error: OSError) -> None:
        raise HwrError(f"{error.filename}: cannot be looked into ({error.strerror})") from None

    found, seen = list[Path](), set[str]()
    for where, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(where)) in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where) / name for name in names if name.lower().endswith(suffix) and not name.startswith(".")]
    return sorted(found)


def split_folders(path: Path, files: Iterable[Path]) -> list[str]:
    """Which of ``train``, ``val`` and ``test`` are the splits of a folder; a warning tells what is outside them.

    Args:
        path: The folder.
        files: Those at any depth that hold data.

    Raises:
        HwrError: If there is data outside them, and no ``train``: is it for training?
    """
    found = [name for name in SPLITS if (path / name).is_dir()]
    outside = [name for file in files if (name := file.relative_to(path)).parts[0] not in found]
    if found and outside and "train" not in found:
        raise HwrError(
            f"{path}: {found[0]}/ and, outside it, {outside[0]}: put what is for training into train/, "
            "or give that folder another name"
        )
    if found and outside:
        among = ", ".join(f"{name}/" for name in found)
        log.warning("%s: %d files outside %s are not read, such as %s", path, len(outside), among, outside[0])
    return found


def one_table_each(path: Path, names: Iterable[str], suffixes: Iterable[str]) -> dict[str, Path]:
    """The tables of these names in a folder.

    Raises:
        HwrError: If there are two of one name.
    """
    found: dict[str, Path] = {}
    for table in (path / f"{name}{suffix}" for name in names for suffix in suffixes):
        if table.is_file() and found.setdefault(table.stem, table) != table:
            raise HwrError(f"{found[table.stem]} and {table.name}: two tables of one split; keep one")
    return found


def tell_unused(path: Path, used: Collection[str]) -> None:
    """Warns of tables and folders that are named like a split and are none of those that are read."""
    likely = {*SPLITS, "training", "valid", "validation", "dev", "testing", "eval"}
    tables = [p for p in path.iterdir() if p.is_dir() or p.suffix.lower() in (".tsv", ".csv")]
    if unused := sorted(p.name for p in tables if p.stem.lower() in likely and p.name not in used):
        log.warning("%s: not read: %s; read are %s", path, ", ".join(unused), ", ".join(used))
