"""Lines prepared once and kept in one memory-mapped file: the second start takes seconds."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hwr.data.lines.batches import LineSet
from hwr.data.lines.items import LineItem, Lines, Rejected, fingerprint
from hwr.errors import HwrError
from hwr.files import new_directory, write_json
from hwr.line_preprocess import LinePreprocess

VERSION = 1  # of the preparation: a change of what LinePreprocess computes needs a new one
log = logging.getLogger(__name__)


def prepare(lines: Lines, preprocess: LinePreprocess, cache: Path | None, name: str) -> LineSet:
    """Reads and prepares the lines of one split, or maps what an earlier run prepared.

    Args:
        lines: What a reader found.
        preprocess: How an image becomes what the network sees.
        cache: Folder for prepared lines; None keeps them in memory.
        name: Of the split, for the progress bar.

    Returns:
        The lines; those that were rejected before or cannot be read now are in ``lost``.
    """
    if cache is None:
        pixels, widths, problems = _read(lines.items, preprocess, name)
        return _line_set(pixels, widths, problems, lines, preprocess.height)
    folder = cache / fingerprint(lines.items, VERSION, preprocess)
    if not (folder / "index.json").is_file():
        pixels, widths, problems = _read(lines.items, preprocess, name)
        with new_directory(folder) as part:
            np.save(part / "pixels.npy", pixels)
            write_json(part / "index.json", {"widths": widths.tolist(), "problems": problems})
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        widths = np.array(index["widths"], np.int64)
        if len(pixels) != int(widths.sum()) * preprocess.height:
            raise ValueError("the pixels are not those of the index")
    except (OSError, ValueError, KeyError) as error:
        raise HwrError(f"{folder}: damaged prepared lines ({error}); remove that folder") from None
    return _line_set(pixels, widths, index["problems"], lines, preprocess.height)


def _line_set(pixels: np.ndarray, widths: np.ndarray, problems: dict[str, str], lines: Lines, height: int) -> LineSet:
    good = [item for i, item in enumerate(lines.items) if str(i) not in problems]
    bad = [(item, problems[str(i)]) for i, item in enumerate(lines.items) if str(i) in problems]
    lost = [*lines.rejected, *(Rejected(item.name, reason, item.text, item.writer) for item, reason in bad)]
    texts, names, writers = [i.text for i in good], [i.name for i in good], [i.writer for i in good]
    return LineSet(pixels, height, widths, texts, names, writers, lost)


def _read(
    items: Sequence[LineItem], preprocess: LinePreprocess, name: str
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Pixels, widths of the lines that can be read, and by position what is wrong with the others."""
    from rich.console import Console
    from rich.progress import track

    parts: list[np.ndarray] = []
    problems: dict[str, str] = {}
    console = Console(stderr=True)
    found = _in_threads(items, preprocess)
    quiet = len(items) < 500 or not console.is_terminal
    for i, line in enumerate(track(found, f"Preparing {name}", len(items), console=console, disable=quiet)):
        if isinstance(line, HwrError):
            problems[str(i)] = str(line)
        else:
            parts.append(line)
    widths = np.array([part.shape[1] for part in parts], np.int64)
    pixels = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.uint8)
    return pixels, widths, problems


def _in_threads(items: Sequence[LineItem], preprocess: LinePreprocess) -> Iterator[np.ndarray | HwrError]:
    """Prepares lines in order, a few ahead of the caller."""

    def one(item: LineItem) -> np.ndarray | HwrError:
        try:
            return preprocess(item.read())
        except HwrError as error:
            return error

    threads = min(8, os.cpu_count() or 1)
    pending: deque[Future[np.ndarray | HwrError]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(one, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
