"""What ALTO and PAGE XML say about the lines of a page, in the file's own units.

Formats: ALTO 2 to 4 (https://www.loc.gov/standards/alto/, measurement units pixel, mm10 and inch1200), PAGE 2013-07-15
to 2019-07-15 (https://github.com/PRImA-Research-Lab/PAGE-XML). Elements are known by their local names, whatever
version's namespace they are in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hwr.data.lines.safe_xml import local, parse
from hwr.errors import HwrError

Point = tuple[float, float]
UNITS = {"pixel", "mm10", "inch1200"}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SOFT_HYPHEN = "\u00ad"


class NoPageError(HwrError):
    """An XML file of another kind."""


class Box(NamedTuple):
    """A rectangle in the units of the file."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class XmlLine:
    """A line as the file has it, in the units of the file.

    Attributes:
        id: The file's, or ``line_7`` for a line without one, counted from 1 in the order of the file.
        text: As it is, perhaps empty.
        polygon: Corners (x, y) of its outline, or empty.
        baseline: Points (x, y) from its beginning to its end, or empty.
        box: Where given.
        problem: What is wrong with its coordinates.
    """

    id: str
    text: str
    polygon: tuple[Point, ...] = ()
    baseline: tuple[Point, ...] = ()
    box: Box | None = None
    problem: str = ""


@dataclass(frozen=True)
class XmlPage:
    """A page as the file has it.

    Attributes:
        image: Name of the image, perhaps empty.
        size: Width and height in the units of the file, 0 where not given.
        unit: ``pixel``, or another of which ``size`` is the only thing that gives the scale.
        lines: In the order of the file.
    """

    image: str
    size: tuple[float, float]
    unit: str
    lines: tuple[XmlLine, ...]


def read_page(path: str | Path) -> XmlPage:
    """Reads an ALTO or PAGE file.

    Raises:
        NoPageError: If it is neither.
        HwrError: If it cannot be parsed, or has not one page.
    """
    root = parse(path)
    kind = local(root.tag)
    if kind not in ("alto", "PcGts"):
        raise NoPageError(f"{path}: neither ALTO nor PAGE XML: its root element is {kind}")
    pages = [element for element in root.iter() if local(element.tag) == "Page"]
    if len(pages) != 1:
        raise HwrError(f"{path}: {len(pages)} pages; one file is read as one page with one image")
    page = pages[0]
    if kind == "PcGts":
        size = (_float(page.get("imageWidth")), _float(page.get("imageHeight")))
        lines = tuple(page_line(e, i) for i, e in _text_lines(page))
        return XmlPage(page.get("imageFilename", "").strip(), size, "pixel", lines)
    unit = _content(root, "MeasurementUnit") or "pixel"
    if unit not in UNITS:
        raise HwrError(f"{path}: the MeasurementUnit {unit!r} is none of {', '.join(sorted(UNITS))}")
    size = (_float(page.get("WIDTH")), _float(page.get("HEIGHT")))
    return XmlPage(_content(root, "fileName"), size, unit, tuple(alto_line(e, i) for i, e in _text_lines(page)))


def _text_lines(page: Element) -> Iterator[tuple[int, Element]]:
    return enumerate((e for e in page.iter() if local(e.tag) == "TextLine"), start=1)


def line_id(given: str | None, number: int) -> str:
    """What a line is called, given the file's id of it and its number from 1."""
    return (given or "").strip() or f"line_{number}"


def alto_line(line: Element, number: int) -> XmlLine:
    """An ALTO ``TextLine``."""
    name, text = line_id(line.get("ID"), number), alto_text(line)
    try:
        shape = next((e for e in line if local(e.tag) == "Shape"), ())
        polygon = next((points(e.get("POINTS")) for e in shape if local(e.tag) == "Polygon"), ())
        sides = [line.get(side) for side in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
        box = Box(*(_number(side) for side in sides if side)) if all(sides) else None
        baseline = _alto_baseline(line.get("BASELINE"), box)
    except ValueError as error:
        return XmlLine(name, text, problem=str(error))
    return XmlLine(name, text, polygon, baseline, box)


def _alto_baseline(given: str | None, box: Box | None) -> tuple[Point, ...]:
    """ALTO 4.2 gives points; before, one number: the height at which the line stands."""
    if given and len(_NUMBER.findall(given)) == 1:
        y = _number(given)
        return ((box.left, y), (box.left + box.width, y)) if box else ()
    return points(given)


def alto_text(line: Element) -> str:
    """What is to be read in an ALTO line.

    Words are joined as the ``SP`` between them say, and by spaces where the line has no ``SP`` at all. The hyphen at a
    line's end (``HYP``) belongs to what is read; ``SUBS_CONTENT``, the word put together again, does not.
    """
    spaced = any(local(e.tag) == "SP" for e in line)
    text, words = "", 0
    for element in line:
        kind = local(element.tag)
        if kind == "SP":
            text += " "
        elif kind == "String":
            text += (" " if words and not spaced else "") + element.get("CONTENT", "")
            words += 1
        elif kind == "HYP":
            hyphen = element.get("CONTENT", "").replace(_SOFT_HYPHEN, "-") or "-"
            text = text.replace(_SOFT_HYPHEN, "-")
            text += "" if text.endswith(hyphen) else hyphen
    return text


def page_line(line: Element, number: int) -> XmlLine:
    """A PAGE ``TextLine``."""
    name, text = line_id(line.get("id"), number), page_text(line)
    try:
        polygon, baseline = (_page_points(line, kind) for kind in ("Coords", "Baseline"))
    except ValueError as error:
        return XmlLine(name, text, problem=str(error))
    return XmlLine(name, text, polygon, baseline)


def _page_points(line: Element, kind: str) -> tuple[Point, ...]:
    """The attribute ``points``, or, as until 2010, ``Point`` elements with ``x`` and ``y``."""
    for element in (e for e in line if local(e.tag) == kind):
        old = " ".join(f"{e.get('x')},{e.get('y')}" for e in element if local(e.tag) == "Point")
        return points(element.get("points") or old)
    return ()


def page_text(line: Element) -> str:
    """What is to be read in a PAGE line.

    The ``Unicode`` (else ``PlainText``) of its version of the lowest index that says something, else its words joined
    by spaces; that of a word is likewise put together of its glyphs.
    """
    versions = [e for e in line if local(e.tag) == "TextEquiv"]
    versions.sort(key=lambda e: _float(e.get("index")) if e.get("index") else float("inf"))
    for kind in ("Unicode", "PlainText"):
        for text in (e.text or "" for version in versions for e in version if local(e.tag) == kind):
            if text.strip():
                return text
    words, glyphs = ([page_text(e) for e in line if local(e.tag) == kind] for kind in ("Word", "Glyph"))
    if words:
        return " ".join(words) if all(words) else ""  # with a word missing it is no transcript
    return "".join(glyphs)


def points(given: str | None) -> tuple[Point, ...]:
    """Points from ``x,y x,y`` or ``x y x y``; none from nothing.

    Raises:
        ValueError: If it is neither.
    """
    numbers = [_number(n) for n in re.split(r"[\s,]+", (given or "").strip()) if n]
    if len(numbers) % 2:
        raise ValueError(f"an odd number of coordinates: {(given or '')[:40]!r}")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _number(given: str) -> float:
    if not _NUMBER.fullmatch(given.strip()) or abs(float(given)) > 1e9:
        raise ValueError(f"{given[:40]!r} is no coordinate")
    return float(given)


def _float(given: str | None) -> float:
    try:
        return _number(given or "")
    except ValueError:
        return 0.0


def _content(root: Element, name: str) -> str:
    return next(((e.text or "").strip() for e in root.iter() if local(e.tag) == name), "")
