"""Lines prepared once and kept in one memory-mapped file: the second start takes seconds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from hwr.data.lines.batches import LineSet
from hwr.data.lines.items import LineItem, Lines, Rejected, fingerprint
from hwr.errors import HwrError
from hwr.files import write_json
from hwr.line_preprocess import LinePreprocess
from hwr.threads import in_threads

VERSION = 4  # of the preparation: a change of what LinePreprocess computes needs a new one
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """Prepared lines.

    Attributes:
        pixels: uint8 (P,), lines one after the other.
        widths: int64 (N,), of the lines that could be read.
        problems: What is wrong with the others, by their position among the items (in decimal, as in JSON).
    """

    pixels: np.ndarray
    widths: np.ndarray
    problems: dict[str, str]


def prepare(lines: Lines, preprocess: LinePreprocess, cache: Path | None, name: str) -> LineSet:
    """Reads and prepares the lines of one split, or maps what an earlier run prepared.

    A cache that is damaged is made again; where none can be written, the lines are kept in memory. Processes that
    prepare the same lines at once do so twice, and the first to finish is the one whose files stay.

    Args:
        lines: What a reader found.
        preprocess: How an image becomes what the network sees.
        cache: Folder for prepared lines; None keeps them in memory.
        name: Of the split, for the progress bar.

    Returns:
        The lines; those that were rejected before or cannot be read now are in ``lost``.
    """
    found: Prepared | None = None
    if cache is not None:
        try:
            found = _cached(lines.items, preprocess, cache, name)
        except OSError as error:
            reason = error.strerror or error
            log.warning("%s: %s; prepared lines are kept in memory instead (data.cache=FOLDER)", cache, reason)
    if found is None:
        memory = bytearray()
        widths, problems = _read(lines.items, preprocess, name, memory.extend)
        found = Prepared(np.frombuffer(memory, np.uint8), widths, problems)
    return _line_set(found, lines, preprocess.height)


def _cached(items: Sequence[LineItem], preprocess: LinePreprocess, cache: Path, name: str) -> Prepared:
    """Maps the lines' folder, which is made if need be.

    Raises:
        OSError: If it cannot be written.
    """
    folder = cache / fingerprint(items, VERSION, preprocess)
    found = _mapped(folder, len(items), preprocess.height)
    mended = found is not None and _mended(found, items, preprocess)
    if found and not mended:
        return found
    if folder.exists():
        why = "lines that could not be read can be now" if mended else "damaged prepared lines"
        log.warning("%s: %s; preparing them again", folder, why)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=".new-", ignore_cleanup_errors=True) as temporary:
        part = Path(temporary) / "part"
        part.mkdir()
        with (part / "pixels.bin").open("wb") as file:
            widths, problems = _read(items, preprocess, name, file.write)
            file.flush()
            os.fsync(file.fileno())
        write_json(part / "index.json", {"widths": widths.tolist(), "problems": problems})
        if not mended and (found := _mapped(folder, len(items), preprocess.height)):  # another process was faster
            return found
        if folder.exists():
            folder.rename(Path(temporary) / "damaged")
        try:
            part.rename(folder)
        except OSError:  # another process was faster by a hair, or it is another matter
            if not folder.is_dir():
                raise
    if found := _mapped(folder, len(items), preprocess.height):
        return found
    raise OSError(f"{folder} cannot be read back")


def _mended(found: Prepared, items: Sequence[LineItem], preprocess: LinePreprocess) -> bool:
    """Whether a line that could not be read can be now: a drive is back, say, or a right was given."""
    again = in_threads(lambda position: preprocess(items[int(position)].read()), found.problems)
    return any(not isinstance(line, HwrError) for line in again)


def _mapped(folder: Path, count: int, height: int) -> Prepared | None:
    """The lines in a folder, or None if there are none or it is damaged."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        widths, problems = np.array(index["widths"], np.int64), dict(index["problems"])
        file = folder / "pixels.bin"
        pixels = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = len(widths) + len(problems) == count and len(pixels) == int(widths.sum()) * height
    return Prepared(pixels, widths, problems) if whole else None


def _line_set(prepared: Prepared, lines: Lines, height: int) -> LineSet:
    pixels, widths, problems = prepared
    good = [item for i, item in enumerate(lines.items) if str(i) not in problems]
    bad = [(item, problems[str(i)]) for i, item in enumerate(lines.items) if str(i) in problems]
    lost = [*lines.rejected, *(Rejected(item.name, reason, item.text, item.writer) for item, reason in bad)]
    texts, names, writers = [i.text for i in good], [i.name for i in good], [i.writer for i in good]
    return LineSet(pixels, height, widths, texts, names, writers, lost)


def _read(
    items: Sequence[LineItem], preprocess: LinePreprocess, name: str, write: Callable[[memoryview], object]
) -> tuple[np.ndarray, dict[str, str]]:
    """Hands on the pixels of each line; gives the widths, and by position what is wrong with the others."""
    from rich.console import Console
    from rich.progress import track

    widths: list[int] = []
    problems: dict[str, str] = {}
    console = Console(stderr=True)
    found = in_threads(lambda item: preprocess(item.read()), items)
    quiet = len(items) < 500 or not console.is_terminal
    for i, line in enumerate(track(found, f"Preparing {name}", len(items), console=console, disable=quiet)):
        if isinstance(line, HwrError):
            problems[str(i)] = str(line)
        else:
            widths.append(line.shape[1])
            write(line.ravel().data)
    return np.array(widths, np.int64), problems
