"""Figures of what a line model sees and reads: images and readings in, a matplotlib ``Figure`` out.

The companion of :mod:`hwr.figures`: the same page, 1000 pixels wide, and the same colours. Images are uint8 (H, W) with
light ink on black, each of its own width, drawn as dark ink on white paper. A transcript and its reading stand one
above the other, character above character, in a font whose characters are all of one width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf, isfinite
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image as Picture
from rich.cells import cell_len

from hwr import text
from hwr.figures import BLUE, GREEN, GREY, HEADER, INK, LINE, MARGIN, ORANGE, RED, WIDTH, new_page
from hwr.reports import LineReading, by_length, error_rate
from hwr.text import ErrorRate, Operation, alignment, normalise

Image = NDArray[np.uint8]
Kind = Literal["equal", "substitute", "insert", "delete"]
GAP, NOTHING = "·", "∅"
COLOURS: dict[Kind, str] = {"equal": INK, "substitute": RED, "insert": ORANGE, "delete": BLUE}
TINTS: dict[Kind, str] = {"substitute": "#fbe1dd", "insert": "#fcebd6", "delete": "#dce8f6"}
MEANING: dict[Kind, str] = {"substitute": "another character", "insert": "too much", "delete": "missing"}
CHINESE = ["Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"]
CHINESE += ["Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "SimSun"]
_INSTALLED = {font.name for font in fontManager.ttflist}
FONTS = ["DejaVu Sans Mono", *[name for name in CHINESE if name in _INSTALLED][:1]]
_FACES = [get_font(findfont(FontProperties(family=name))) for name in FONTS]
COLUMN, ROW, LABEL = 9, 18, 42  # pixels: one character and one row of text of 9 points; the room for "true", "read"
COLUMNS = (WIDTH - 2 * MARGIN - LABEL) // COLUMN
HIGHEST, LOWEST = 48, 28  # heights of an image in pixels; one that were lower goes on below itself


def differences(reference: str, hypothesis: str, columns: float, show: Callable[[str], str]) -> list[list[Operation]]:
    """Sets what is in a line and what was read one above the other, character above character.

    Args:
        reference: The transcript, normalised here.
        hypothesis: What was read, likewise.
        columns: Room for characters of ordinary width (Chinese ones take two) before a new row begins.
        show: How to show one character: :func:`printable` or :func:`drawable`. They are asked about a space only where
            it was taken for something else, or the other way round.

    Returns:
        Rows (at least one) of runs of one kind of operation. Both sides of a run are equally wide: what is missing on
        one side is filled with ``·``.
    """
    rows: list[list[Operation]] = [[]]
    room = columns
    for kind, *sides in alignment(normalise(reference), normalise(hypothesis)):
        shown = [" " if side == " " and kind != "substitute" else "".join(map(show, side)) for side in sides]
        width = max(map(cell_len, shown))
        width += width > 2  # code points keep apart
        above, below = (side + (" " if side else GAP) * (width - cell_len(side)) for side in shown)
        if width > room and rows[-1]:
            rows.append([])
            room = columns
        room -= width
        if rows[-1] and rows[-1][-1].kind == kind:
            last = rows[-1].pop()
            above, below = last.reference + above, last.hypothesis + below
        rows[-1].append(Operation(kind, above, below))
    return rows


def printable(character: str) -> str:
    """A character as a terminal can print it: ``␣`` for a space, ``U+200B`` for what cannot be seen."""
    if character.isspace():
        return "␣"
    if unicodedata.category(character)[0] == "M":  # it would stand on its neighbour
        return f"◌{character}"
    return character if character.isprintable() else f"U+{ord(character):04X}"


def drawable(character: str) -> str:
    """A character as the fonts can draw it: as :func:`printable`, and ``U+4E00`` for what they lack."""
    known = any(face.get_char_index(ord(character)) for face in _FACES)
    return printable(character) if known or character.isspace() else f"U+{ord(character):04X}"


def samples(images: Sequence[Image], texts: Sequence[str]) -> Figure:
    """Draw training lines with their transcripts, as the model gets them."""
    if not images:
        return new_page("No lines to show", HEADER)[0]
    rows = [differences(line, line, COLUMNS, drawable) for line in texts]
    heights = [_height(image) + 4 + ROW * len(row) + 14 for image, row in zip(images, rows, strict=True)]
    figure, page = new_page("Training lines as the model sees them", HEADER + sum(heights))
    y = HEADER
    for image, row, height in zip(images, rows, heights, strict=True):
        below = _image(page, image, y) + 4
        for place, runs in enumerate(row):
            _runs(page, MARGIN, below + place * ROW, [(run.kind, run.reference) for run in runs])
        y += height
    return figure


def predictions(
    images: Sequence[Image | None], readings: Sequence[LineReading], title: str = "", doubted: bool = False
) -> Figure:
    """Draw lines with their transcripts and what was read in them, differences coloured.

    Args:
        images: Of each reading; None where there is none to show.
        readings: In the order in which they are drawn.
        title: Of the page; how many were right if empty.
        doubted: Number the lines, and do not call their transcripts true.
    """
    if not readings:
        return new_page("No lines to show", HEADER)[0]
    rate = error_rate(readings)
    right = sum(error_rate([line]).cer == 0 for line in readings)
    title = title or f"{right:,} of these {len(readings):,} lines read without an error; CER {percent(rate.cer)}"
    rows = [differences(line.reference, line.hypothesis, COLUMNS, drawable) for line in readings]
    heights = [24 + _height(image) + 4 + 2 * ROW * len(row) + 20 for image, row in zip(images, rows, strict=True)]
    figure, page = new_page(title, HEADER + 26 + sum(heights))
    _legend(page)
    y = HEADER + 26
    for rank, (image, line, row, height) in enumerate(zip(images, readings, rows, heights, strict=True), start=1):
        _text(page, MARGIN, y, _caption(line, f"{rank}. " if doubted else ""), GREY)
        below = _image(page, image, y + 20) + 4
        right_colour = GREEN if len(row) <= 1 and all(run.kind == "equal" for run in row[0]) else INK
        for place, runs in enumerate(row):
            top = below + 2 * ROW * place
            for name, shift, side in (("text" if doubted else "true", 0, 1), ("read", ROW, 2)):
                _text(page, MARGIN, top + shift, name, GREY)
                colour = right_colour if side == 2 else INK
                _runs(page, MARGIN + LABEL, top + shift, [(run.kind, str(run[side])) for run in runs], colour)
        y += height
    return figure


def worst(readings: Sequence[LineReading], most: int = 16) -> list[LineReading]:
    """The lines with most edits per character, the worst first; without errors none, of unreadable ones at most two."""
    ranked = [(error_rate([line]).cer, line) for line in readings]
    ranked = sorted(((cer, line) for cer, line in ranked if cer > 0), key=lambda pair: (-pair[0], pair[1].name))
    some = [line for _, line in ranked]
    lost = [line for line in some if line.id < 0][2:]
    return [line for line in some if line not in lost][:most]


def worst_lines(images: Sequence[Image | None], readings: Sequence[LineReading]) -> Figure:
    """Draw lines as :func:`predictions` does, under a title that calls them the worst."""
    if not readings:
        return new_page("No errors to show: every line is read correctly", HEADER)[0]
    return predictions(images, readings, f"The {len(readings):,} lines with most errors per character")


def confusions(readings: Sequence[LineReading], most: int = 30) -> Figure:
    """Draw how often one character was read for another; ``∅`` is no character at all."""
    found = text.confusions((line.reference, line.hypothesis) for line in readings)
    if not found:
        return new_page("No errors to show: every line is read correctly", HEADER)[0]
    total, shown = sum(pair.times for pair in found), found[:most]
    kinds: list[Kind] = ["insert" if not a else "delete" if not b else "substitute" for a, b, _ in shown]
    names = [" → ".join(drawable(side) if side else NOTHING for side in pair[:2]) for pair in shown]
    bars = [(pair.times, f"{pair.times:,}  ({percent(pair.times / total)})") for pair in shown]
    title = f"The most frequent confusions (true → read): {sum(pair.times for pair in shown):,} of {total:,} edits"
    figure, page = _bars(title, names, bars, [COLOURS[kind] for kind in kinds])
    _legend(page)
    return figure


def cer_by_length(readings: Sequence[LineReading]) -> Figure:
    """Draw the character error rate of lines by the length of their transcripts."""
    rates = by_length(readings)
    title = f"Character error rate by length of the line, in characters; of all {percent(error_rate(readings).cer)}"
    return _rates(title, rates, error_rate(readings))


def cer_by_writer(readings: Sequence[LineReading], most: int = 40) -> Figure:
    """Draw the character error rate of each writer, the worst first, at most so many."""
    hands: dict[str, list[LineReading]] = {}
    for line in readings:
        if line.writer is not None:
            hands.setdefault(line.writer, []).append(line)
    rates = [(name, error_rate(lines)) for name, lines in hands.items()]
    rates.sort(key=lambda pair: (-pair[1].cer, pair[0]))
    which = f"the {most} worst of {len(rates):,} writers" if len(rates) > most else f"{len(rates):,} writers"
    title = f"Character error rate by writer: {which}; of all {percent(error_rate(readings).cer)}"
    return _rates(title if rates else "No writers are known", dict(rates[:most]), error_rate(readings))


def percent(share: float) -> str:
    """A share for people: ``12.3%``, ``∞`` where it has no bound."""
    return f"{share:.1%}" if isfinite(share) else "∞"


def _rates(title: str, rates: Mapping[str, ErrorRate], overall: ErrorRate) -> Figure:
    """Draw bars of character error rates by name, with a dashed rule at that of all."""
    highest = max((rate.cer for rate in rates.values() if isfinite(rate.cer)), default=1.0)
    bars = []
    for rate in rates.values():
        note = f"{percent(rate.cer):>6}  WER {percent(rate.wer):>6}  {rate.lines:,} line{'s' * (rate.lines != 1)}"
        bars.append((min(rate.cer, highest), note))
    names = ["".join(drawable(c) if c != " " else c for c in name) for name in rates]
    return _bars(title, names, bars, [BLUE] * len(bars), overall.cer)[0]


def _bars(
    title: str,
    names: Sequence[str],
    bars: Sequence[tuple[float, str]],
    colours: Sequence[str],
    rule: float = inf,
) -> tuple[Figure, Axes]:
    """Draw a horizontal bar with its name before it and a note behind it each; a dashed rule at the rate of all."""
    step, top = 24, HEADER + 26
    figure, page = new_page(title, top + step * len(bars) + 16)
    if not bars:
        return figure, page
    names = [_cut(name, 24) for name in names]
    left = MARGIN + COLUMN * max(map(cell_len, names)) + 12
    room = WIDTH - MARGIN - left - COLUMN * max(len(note) for _, note in bars) - 12
    scale = room / (max(value for value, _ in bars) or 1)
    for place, (name, (value, note), colour) in enumerate(zip(names, bars, colours, strict=True)):
        y = top + step * place
        _text(page, left - 12, y, name, INK, ha="right")
        page.add_patch(Rectangle((left, y - 1), max(1, value * scale), step - 7, color=colour, linewidth=0))
        _text(page, left + (room if isfinite(rule) else value * scale) + 10, y, note, GREY)
    if 0 < rule * scale <= room:
        x = left + rule * scale
        page.plot([x, x], [top - 6, top + step * len(bars) - 4], "--", color=GREY, linewidth=1)
        _text(page, x, top - 26, "all lines", GREY, ha="center")
    return figure, page


def _height(image: Image | None) -> int:
    """The height in pixels that an image takes."""
    if image is None:
        return LOWEST
    height, strips = _size(image)
    return strips * height + 4 * (strips - 1)


def _size(image: Image) -> tuple[int, int]:
    """The height at which an image (H, W) is drawn, and in how many strips one below the other."""
    page = WIDTH - 2 * MARGIN
    height = min(HIGHEST, max(LOWEST, int(page * image.shape[0] / image.shape[1])))
    return height, ceil(round(image.shape[1] * height / image.shape[0]) / page) or 1


def _image(page: Axes, image: Image | None, y: int) -> int:
    """Draw one image at a height, or an empty box; return where it ends."""
    if image is None:
        page.add_patch(Rectangle((MARGIN, y), WIDTH - 2 * MARGIN, LOWEST, fill=False, edgecolor=LINE, linewidth=0.8))
        _text(page, WIDTH / 2, y + 6, "no image: the line could not be read", GREY, ha="center")
        return y + LOWEST
    height, strips = _size(image)
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    small = 255 - np.asarray(Picture.fromarray(image).resize((width, height), Picture.Resampling.LANCZOS))
    each = ceil(width / strips)
    for place in range(strips):
        strip = small[:, place * each : (place + 1) * each]
        x1, y0, y1 = MARGIN + strip.shape[1], y + place * (height + 4), y + place * (height + 4) + height
        extent = (MARGIN, x1, y1, y0)
        page.imshow(strip, "gray", aspect="auto", interpolation="nearest", vmin=0, vmax=255, extent=extent)
        page.plot([MARGIN, x1, x1, MARGIN, MARGIN], [y0, y0, y1, y1, y0], color=LINE, linewidth=0.8)
    return y + _height(image)


def _runs(page: Axes, x: float, y: float, runs: Sequence[tuple[Kind, str]], equal: str = INK) -> None:
    """Draw runs of one row of text, coloured by kind."""
    for kind, shown in runs:
        if kind != "equal":
            width = COLUMN * cell_len(shown)
            page.add_patch(Rectangle((x, y - 2), width, ROW - 1, color=TINTS[kind], linewidth=0))
        colour = equal if kind == "equal" else COLOURS[kind]
        for word, start in _words(shown):
            _text(page, x + COLUMN * start, y, word, colour)
        x += COLUMN * cell_len(shown)


def _words(shown: str) -> list[tuple[str, int]]:
    """What is between spaces and the column where it begins; wide characters one by one, to keep to theirs."""
    found: list[tuple[str, int]] = []
    column, last = 0, " "
    for character in shown:
        joins = found and last != " " and character != " " and len(last) == cell_len(last) == 1
        if unicodedata.category(character)[0] == "M" and found:
            joins = True
        if character != " ":
            if joins:
                found[-1] = found[-1][0] + character, found[-1][1]
            else:
                found.append((character, column))
        column, last = column + cell_len(character), character
    return found


def _text(page: Axes, x: float, y: float, line: str, colour: str, **kwargs: Any) -> None:
    """Draw one row of text from its top."""
    how: dict[str, Any] = {"color": colour, "size": 9, "va": "center_baseline", "family": FONTS, "parse_math": False}
    page.text(x, y + ROW / 2 - 1, line, **how, **kwargs)


def _legend(page: Axes) -> None:
    """Say below the title what the colours mean."""
    x = MARGIN
    for kind, meaning in MEANING.items():
        _runs(page, x, HEADER - 14, [(kind, meaning)])
        x += COLUMN * (len(meaning) + 2)


def _caption(line: LineReading, number: str) -> str:
    """Which line it is, how wrong and how sure."""
    sure = ">99%" if 0.995 <= line.confidence < 1 else f"{line.confidence:.0%}"
    facts = f"CER {percent(error_rate([line]).cer)}" + (f"  {sure} sure" if line.id >= 0 else "")
    name = "".join(drawable(c) if c != " " else c for c in line.name + (f" by {line.writer}" if line.writer else ""))
    return f"{number}{_cut(name, COLUMNS - len(facts) - len(number))}  {facts}"


def _cut(name: str, columns: int) -> str:
    """The end of a name, which tells it from others, in so many columns."""
    if cell_len(name) <= columns:
        return name
    while cell_len(name) >= columns:
        name = name[1:]
    return f"…{name}"
