"""Writing with a pen: the stroke fonts of A. V. Hershey, joined and unsteady as handwriting is.

The Hershey fonts were originally created by Dr. A. V. Hershey while working at the U.S. National Bureau of Standards;
the format of the font data was originally created by James Hurt, Cognition, Inc. They may be used freely for any
purpose, with this acknowledgement. They come with the package Hershey-Fonts (MIT).

Coordinates are in the fonts' unit: x to the right, y down, the baseline at 0, capitals 21 units high.
"""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt
from HersheyFonts import HersheyFonts

from hwr.errors import HwrError

Grey = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]  # (P, 2), x and y
FONTS = (  # those of the package with Latin letters in their places, and widths for all
    *("cursive", "futural", "futuram", "gothgbt", "gothgrt", "gothiceng", "gothicger", "gothicita", "gothitt"),
    *("rowmand", "rowmans", "scriptc", "scripts", "timesi", "timesib", "timesr", "timesrb"),
)
BASELINE, CAPITALS, DESCENDERS = 9, 21, 7  # y of the baseline in the font files; units above and below it
_WRONG = set("^`{}~")  # some of the fonts have an arrow, a quotation mark or another brace in their places
_MARKS: dict[str, list[list[tuple[float, float]]]] = {  # from the middle of the top of the letter, or of its foot
    "\u0300": [[(-3, -5), (1, -2)]],
    "\u0301": [[(3, -5), (-1, -2)]],
    "\u0302": [[(-3, -2), (0, -5), (3, -2)]],
    "\u0303": [[(-4, -3), (-2, -4.5), (0, -3.5), (2, -2.5), (4, -4)]],
    "\u0308": [[(-2.5, -4), (-2.5, -3.5)], [(2.5, -4), (2.5, -3.5)]],
    "\u030a": [[(0, -2), (-1.5, -3), (-1.5, -4.5), (0, -5.5), (1.5, -4.5), (1.5, -3), (0, -2)]],
    "\u030c": [[(-3, -5), (0, -2), (3, -5)]],
    "\u0327": [[(0, 0), (-0.5, 2), (1.5, 2.5), (2, 4), (0.5, 5.5), (-2, 5)]],
}
_CEDILLA = "\u0327"


@dataclass(frozen=True)
class Glyph:
    """A character.

    Attributes:
        strokes: Each (P, 2); x from the left edge.
        width: How far the pen advances.
    """

    strokes: Sequence[Points]
    width: float

    @property
    def ends(self) -> tuple[Points, Points] | None:
        """Where a neighbour can be joined on, left and right (2,): ends of strokes between baseline and x-height."""
        low = [s for s in self.strokes if len(s) > 2]
        starts = [s[0] for s in low if -15 < s[0, 1] < 1]
        stops = [s[-1] for s in low if -15 < s[-1, 1] < 1]
        if not starts or not stops:
            return None
        return min(starts, key=lambda p: float(p[0])), max(stops, key=lambda p: float(p[0]))


class StrokeFont:
    """A Hershey font with accented letters and what French needs, drawn by an unsteady hand.

    Args:
        name: One of :data:`FONTS`.

    Raises:
        HwrError: If there is no such font.
    """

    def __init__(self, name: str) -> None:
        if name not in FONTS:
            raise HwrError(f"data.hershey: there is no font {name}; there are {', '.join(FONTS)}")
        font = HersheyFonts()
        font.load_default_font(name)
        found = cast("dict[str, _PackageGlyph]", font.all_glyphs)
        plain = _mended({c: _glyph(g) for c, g in found.items() if " " <= c <= "~" and c not in _WRONG})
        self.name, self.glyphs = name, {**plain, **_accented(plain), **_composed(plain)}
        self.characters = frozenset(self.glyphs)
        self.ends = {c: glyph.ends for c, glyph in self.glyphs.items() if c.isalpha() and c == c.lower()}
        self.script = name.startswith(("cursive", "script"))

    def draw(self, rng: np.random.Generator, text: str, size: float, steady: bool = False) -> Grey:
        """Writes a text.

        Args:
            rng: Draws slant, pen and everything unsteady.
            text: Of :attr:`characters`.
            size: Pixels from the capitals' top to the descenders' foot.
            steady: Leaves everything as the font has it.

        Returns:
            Ink uint8 (H, W), 0 for paper and 255 for ink, with a margin.
        """
        strokes = self._lay_out(text) if steady else self._write(rng, text)
        scale = size / (CAPITALS + DESCENDERS)
        points = np.concatenate(strokes)
        if not steady:
            points = _bent(rng, points)
        points = points * scale
        pen = max(1, round(scale * (1.5 if steady else rng.uniform(0.5, 2.2))))
        margins = np.full(4, 3.0) if steady else rng.uniform(2, 0.3 * size, 4)  # left, top, right, bottom
        low = np.minimum(points.min(0), (0, -CAPITALS * scale * 0.7)) - pen - margins[:2]
        high = np.maximum(points.max(0), 0) + pen + margins[2:]
        width, height = (math.ceil(side) for side in (high - low).tolist())
        ink = np.zeros((height, width), np.uint8)
        fixed = np.rint((points - low) * 16).astype(np.int32)
        lines = np.split(fixed, np.cumsum([len(s) for s in strokes])[:-1])
        cv2.polylines(ink, lines, False, 255, pen, cv2.LINE_AA, 4)
        if not steady and scale > 1.5 and rng.random() < 0.4:  # a broad nib
            shift = np.rint(rng.uniform(-0.7, 0.7, 2) * 16 * scale).astype(np.int32)
            cv2.polylines(ink, [line + shift for line in lines], False, 255, pen, cv2.LINE_AA, 4)
        return ink

    def _lay_out(self, text: str) -> list[Points]:
        strokes, x = [], 0.0
        for character in text:
            glyph = self.glyphs[character]
            strokes += [_moved(stroke, x, 0) for stroke in glyph.strokes]
            x += glyph.width
        return strokes

    def _write(self, rng: np.random.Generator, text: str) -> list[Points]:
        strokes: list[Points] = []
        joined = self.script or rng.random() < 0.4
        reach = 5.0 if self.script else 8.0
        tracking = rng.uniform(-1, 0.5) if self.script else rng.uniform(-3, 1.5)
        spacing = rng.uniform(-4, 6)
        shaky = rng.uniform(0, 1)
        draws = rng.normal(size=(len(text), 4)) * shaky
        x, exit_point = 0.0, None
        for character, (grow, turn, rise, step) in zip(text, draws.tolist(), strict=True):
            glyph = self.glyphs[character]
            size, angle = 1 + 0.06 * grow, math.radians(2.5 * turn)
            matrix = size * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            shift = (x, 0.5 * rise)
            ends = self.ends.get(character) if joined else None
            if ends and exit_point is not None:
                entry = ends[0] @ matrix + shift
                if 0.3 < math.dist(entry, exit_point) < reach and entry[0] > exit_point[0] - 1:
                    strokes.append(_join(exit_point, entry))
            exit_point = ends[1] @ matrix + shift if ends else None
            strokes += [stroke @ matrix + shift for stroke in glyph.strokes]
            x += glyph.width * size + 0.7 * step + (spacing if character == " " else tracking)
        return strokes


class _PackageGlyph(Protocol):
    """What the package gives."""

    strokes: Sequence[Sequence[tuple[int, int]]]
    left_offset: int
    char_width: int


def _glyph(found: _PackageGlyph) -> Glyph:
    x, y = -found.left_offset, -BASELINE
    strokes = [_moved(_smooth(np.array(stroke, float)), x, y) for stroke in found.strokes if len(stroke)]
    return Glyph(strokes, found.char_width)


def _moved(stroke: Points, x: float, y: float) -> Points:
    return np.asarray(stroke + np.array((x, y)), float)


def _mended(plain: dict[str, Glyph]) -> dict[str, Glyph]:
    """Some fonts have the full stop above the baseline, and the apostrophe as low as a comma."""
    drop = -max(float(stroke[:, 1].max()) for stroke in plain["."].strokes)
    lift = -CAPITALS - min(float(stroke[:, 1].min()) for stroke in plain["'"].strokes)
    shifts = {**dict.fromkeys(".,:;", drop), "'": lift}
    moved = {
        c: Glyph([_moved(stroke, 0, dy) for stroke in plain[c].strokes], plain[c].width) for c, dy in shifts.items()
    }
    return plain | moved


def _smooth(stroke: Points, times: int = 2) -> Points:
    """Cuts gentle corners (Chaikin 1974); sharp ones stay."""
    for _ in range(times):
        if len(stroke) < 3:
            return stroke
        before, here, after = stroke[:-2], stroke[1:-1], stroke[2:]
        a, b = here - before, after - here
        gentle = (a * b).sum(1) > 0.4 * np.hypot(*a.T) * np.hypot(*b.T)
        pairs = np.stack(
            [here - a * np.where(gentle, 0.25, 0)[:, None], here + b * np.where(gentle, 0.25, 0)[:, None]], 1
        )
        stroke = np.concatenate([stroke[:1], pairs.reshape(-1, 2), stroke[-1:]])
    return stroke


def _accented(plain: dict[str, Glyph]) -> dict[str, Glyph]:
    """Letters with one mark, for all marks and letters that Unicode has a code point for."""
    out = {}
    for letter in string.ascii_letters:
        for mark, shape in _MARKS.items():
            character = unicodedata.normalize("NFC", letter + mark)
            if len(character) == 1:
                base = _dotless(plain[letter]) if letter in "ij" and mark != _CEDILLA else plain[letter]
                points = np.concatenate(base.strokes)
                if mark == _CEDILLA:
                    edge = float(points[:, 1].max())
                    middle = float(points[points[:, 1] > edge - 2, 0].mean())
                else:
                    edge = float(points[:, 1].min())
                    middle = float(points[points[:, 1] < edge + 5, 0].mean())
                marks = [_moved(_smooth(np.array(stroke, float)), middle, edge) for stroke in shape]
                out[character] = Glyph([*base.strokes, *marks], base.width)
    return out


def _dotless(glyph: Glyph) -> Glyph:
    body = min(glyph.strokes, key=lambda s: -float(np.ptp(s[:, 1])))
    return Glyph([s for s in glyph.strokes if s[:, 1].max() >= body[:, 1].min()], glyph.width)


def _composed(plain: dict[str, Glyph]) -> dict[str, Glyph]:
    """Characters made of others."""

    def beside(parts: str, scale: tuple[float, float], advance: float, lift: float = 0) -> Glyph:
        strokes, x = [], 0.0
        for part in parts:
            glyph = plain[part]
            strokes += [_moved(stroke * scale, x, lift) for stroke in glyph.strokes]
            x += glyph.width * scale[0] * advance
        return Glyph(strokes, x + plain[parts[-1]].width * scale[0] * (1 - advance))

    ring = np.array([(3, -21), (1, -20), (0, -18), (1, -16), (3, -15), (5, -16), (6, -18), (5, -20), (3, -21)], float)
    out = {"’": beside("'", (1, 1), 1), "…": beside("...", (1, 1), 0.8), "°": Glyph([_smooth(ring)], 8)}
    out |= {"–": beside("-", (0.9, 1), 1), "—": beside("-", (1.3, 1), 1)}
    out |= {"«": beside("<<", (0.4, 0.6), 0.7, -2), "»": beside(">>", (0.4, 0.6), 0.7, -2)}
    return out | {"œ": beside("oe", (0.9, 1), 0.8), "æ": beside("ae", (0.9, 1), 0.8), "Œ": beside("OE", (0.9, 1), 0.75)}


def _join(start: Points, end: Points) -> Points:
    """A stroke that sags a little."""
    middle = (start + end) / 2 + (0, 0.15 * math.dist(start, end))
    return _smooth(np.array([start, middle, end]))


def _bent(rng: np.random.Generator, points: Points) -> Points:
    """Slant, width, a slope and a wave of the baseline, and a hand that trembles."""
    x, y = points.T
    length = float(np.ptp(x)) + 1
    lean, narrow = math.tan(math.radians(rng.uniform(-10, 25))), rng.uniform(0.75, 1.15)
    phases = rng.uniform(0, 2 * math.pi, 4)
    wave = rng.uniform(0, 1.5) * np.sin(2 * math.pi * x / rng.uniform(60, 400) + phases[0])
    slope = rng.normal(0, 0.006) * np.clip(length, 0, 600) * (x / length - 0.5)
    tremble = rng.uniform(0, 0.5)
    dx = tremble * np.sin(x / rng.uniform(3, 9) + y / 5 + phases[1])
    dy = tremble * np.sin(x / rng.uniform(3, 9) - y / 4 + phases[2])
    return np.stack([(x + dx - lean * y) * narrow, y + dy + wave + slope], 1)
