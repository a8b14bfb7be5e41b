"""Reading the lines of whole pages and writing what they say into copies of their ALTO or PAGE XML."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig

from hwr.data.lines.pages import WRITTEN, PageCrop, line_crops
from hwr.data.lines.write_back import write_back
from hwr.errors import HwrError
from hwr.images import Grey
from hwr.line_recognizer import LineRecognizer, TextReading
from hwr.predict import unique_names


@dataclass(frozen=True)
class PageLine:
    """A line of a page: its crop, or why there is none."""

    page: Path
    id: str
    crop: PageCrop | HwrError


def list_pages(patterns: str | Sequence[str]) -> list[Path]:
    """Finds the XML files that files, folders (not their subfolders) and patterns name, each once.

    What an earlier run wrote beside its originals is left out, unless it is named itself.

    Raises:
        HwrError: If one of them names no XML file.
    """
    found: dict[Path, Path] = {}
    for given in [patterns] if isinstance(patterns, str) else list(patterns):
        path = Path(given).expanduser()
        if path.is_file():
            files = [path]
        else:
            base, pattern = (path, "*.xml") if path.is_dir() else _pattern(path)
            files = [p for p in sorted(base.glob(pattern)) if p.suffix == ".xml" and not p.name.endswith(WRITTEN)]
        if not files:
            raise HwrError(f"pages={given}: no .xml file there; name ALTO or PAGE files, a folder of them or a pattern")
        found |= {file.resolve(): file for file in files if file.resolve() not in found}
    return list(found.values())


def _pattern(path: Path) -> tuple[Path, str]:
    """The longest existing folder, and the pattern below it."""
    base = next((parent for parent in path.parents if parent.is_dir()), Path())
    return base, str(path.relative_to(base))


def outputs(pages: Sequence[Path], output: str | None) -> dict[Path, Path]:
    """Where each page is written: beside its original, into a folder, or, if there is one page, to a file.

    Raises:
        HwrError: If that is an original, or one file is to hold several pages.
    """
    if output is None:
        targets = {page: page.with_name(f"{page.stem}{WRITTEN}") for page in pages}
    elif output.endswith(".xml"):
        if len(pages) > 1:
            raise HwrError(f"output={output}: one file cannot hold {len(pages)} pages; name a folder")
        targets = {pages[0]: Path(output).expanduser()}
    else:
        targets = {page: Path(output).expanduser() / name for page, name in unique_names(pages, ".xml").items()}
    originals = {page.resolve() for page in pages}
    for target in targets.values():
        if target.resolve() in originals:
            raise HwrError(f"output={output}: {target} is the page itself, which is never overwritten; name another")
    return targets


def read_pages(cfg: DictConfig, pages: Sequence[Path], recognizer: LineRecognizer) -> None:
    """Reads the lines of each page, writes its XML with them, and prints one line about it.

    A line or page that cannot be read is named on standard error and left as it was; the others are done.

    Args:
        cfg: As composed from ``conf/predict.yaml``.
        pages: ALTO or PAGE files.
        recognizer: A model of lines.

    Raises:
        HwrError: At the end, if a line or page could not be read or written.
    """
    if cfg.format != "table" or cfg.save_seen is not None:
        raise HwrError("format and save_seen are for images; what is read in pages goes into their XML")
    targets, failures = outputs(pages, None if cfg.output is None else str(cfg.output)), Failures()
    lines = list(_lines(pages, cfg.straighten, failures))
    readings = recognizer.read_many(_crops(lines), cfg.columns)
    written = 0
    for page, group in groupby(zip(lines, readings, strict=True), key=lambda pair: pair[0].page):
        read = _readings(page, list(group), failures)
        if not read:
            continue
        try:
            write_back(page, targets[page], {id_: (found.text, found.confidence) for id_, found in read.items()})
        except HwrError as error:
            failures.add(str(error))
            continue
        written += 1
        mean = sum(found.confidence for found in read.values()) / len(read)
        print(f"{page}: {len(read)} lines, mean confidence {mean:.1%} -> {targets[page]}", flush=True)
    if failures.count:
        rest = "the others were" if written else "so nothing was written"
        raise HwrError(f"{failures.count} pages or lines could not be read or written; {rest}")


class Failures:
    """What could not be done, told at once on standard error."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, message: str, of: int = 1) -> None:
        """Tells a failure of so many lines."""
        self.count += of
        print(f"hwr.predict: error: {message}", file=sys.stderr)


def _lines(pages: Sequence[Path], straighten: bool, failures: Failures) -> Iterator[PageLine]:
    for page in pages:
        try:
            crops = line_crops(page, straighten)
            if not crops:
                raise HwrError(f"{page}: no TextLine in it; find the lines first, with a layout analysis")
            shared = crops[0][1]
            if isinstance(shared, HwrError) and all(crop is shared for _, crop in crops):  # the image's fault
                raise HwrError(f"{page}: {shared}")
        except HwrError as error:
            failures.add(str(error))
            continue
        yield from (PageLine(page, line.id, crop) for line, crop in crops)


def _crops(lines: Sequence[PageLine]) -> Iterator[Grey | HwrError]:
    """Cuts the lines out, page by page."""
    for line in lines:
        if isinstance(line.crop, HwrError):
            yield line.crop
            continue
        try:
            yield line.crop.read()
        except HwrError as error:
            yield error


def _readings(
    page: Path, pairs: Sequence[tuple[PageLine, TextReading | HwrError]], failures: Failures
) -> dict[str, TextReading]:
    """The readings by line; tells of the lines that have none."""
    read: dict[str, TextReading] = {}
    problems: dict[str, list[str]] = {}
    for line, found in pairs:
        if isinstance(found, HwrError):
            problems.setdefault(str(found), []).append(line.id)
            continue
        if found.blank:
            print(
                f"hwr.predict: warning: {page}, line {line.id}: no ink found; the text means nothing", file=sys.stderr
            )
        if line.id in read:
            problems.setdefault("another line has the same id", []).append(line.id)
        else:
            read[line.id] = found
    for problem, ids in problems.items():
        first = f"line {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
        failures.add(f"{page}, {first}: {problem}", len(ids))
    return read
