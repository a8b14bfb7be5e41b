"""Lines of text drawn with stroke fonts and the user's own fonts, on paper that is not quite even.

The stroke fonts are those of A. V. Hershey; see :mod:`hwr.data.lines.strokes` for where they come from.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from hwr.data.lines.endless import EndlessLines, LineSource
from hwr.data.lines.items import check_text
from hwr.data.lines.outlines import outline_fonts
from hwr.data.lines.strokes import StrokeFont
from hwr.data.lines.words import sentences
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess
from hwr.text import code_points, normalise

log = logging.getLogger(__name__)
Grey = npt.NDArray[np.uint8]
_GRAIN = (512, 2048)  # of the sheet of paper that pieces are taken from


class Font(Protocol):
    """Anything that writes.

    Attributes:
        name: For messages.
        characters: What it can write.
    """

    name: str
    characters: frozenset[str]

    def draw(self, rng: np.random.Generator, text: str, size: float, steady: bool = False) -> Grey:
        """Ink uint8 (H, W) of a text in letters of about ``size`` pixels; ``steady`` without any variation."""


class TextLines(LineSource):
    """Draws stretches of a text.

    Args:
        lines: Of the text, after :func:`hwr.text.normalise`.
        fonts: Each draws lines of which it has all characters; there is such a line for each.
        preprocess: How lines are prepared.
    """

    def __init__(self, lines: Sequence[str], fonts: Sequence[Font], preprocess: LinePreprocess) -> None:
        self.fonts = fonts
        self.preprocess = replace(preprocess, polarity="dark_on_light")  # of what is drawn; the model reads either
        pools = {}
        for font in fonts:
            pools[font.characters] = [line.split() for line in lines if font.characters.issuperset(line)]
        self.pools = [pool for pool in pools.values() if pool]
        drawn = {" ".join(line) for pool in self.pools for line in pool}
        self.texts = [*sorted(drawn), " ".join([*sorted(drawn)[:1], *sorted(drawn)[:1]])]

    def text(self, rng: np.random.Generator, length: int) -> str:
        """Words that follow one another in the text, from one line after another that one font can draw."""
        pool = self.pools[rng.integers(len(self.pools))]
        text = ""
        while len(text) < length:
            line = pool[rng.integers(len(pool))]
            for word in line[rng.integers(len(line)) :]:
                longer = f"{text} {word}".strip()
                if text and len(longer) > length:
                    return text
                text = longer[:length].strip()
        return text

    def draw(self, rng: np.random.Generator, text: str) -> Grey:
        """See :meth:`LineSource.draw`."""
        able = [font for font in self.fonts if font.characters.issuperset(text)]
        size = self.preprocess.height * rng.uniform(0.7, 1.1)
        ink = able[rng.integers(len(able))].draw(rng, text, size)
        return self.preprocess(on_paper(rng, ink))


def on_paper(rng: np.random.Generator, ink: Grey) -> Grey:
    """Dark ink, uneven along the line, on light paper with shadows, grain and noise.

    Args:
        rng: Draws all of it.
        ink: uint8 (H, W), 255 for full ink.

    Returns:
        Grey levels uint8 (H, W).
    """
    height, width = ink.shape
    if rng.random() < 0.5:
        ink = np.asarray(cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.3, 1.0)), np.uint8)
    paper, dark = rng.uniform(150, 250), rng.uniform(0.35, 0.95)
    flow = 1 - rng.uniform(0, 0.4) * rng.random(max(2, width // 60), dtype=np.float32)
    shade = paper - rng.uniform(0, 30) * rng.random((2, max(2, width // 200)), dtype=np.float32)
    line = np.asarray(cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    line *= 1 - ink * (cv2.resize(flow[None], (width, 1), interpolation=cv2.INTER_LINEAR) * np.float32(dark / 255))
    for grain in _grain():
        top, left = rng.integers(0, _GRAIN[0]), rng.integers(0, _GRAIN[1])
        rows, columns = (np.arange(top, top + height) % _GRAIN[0], np.arange(left, left + width) % _GRAIN[1])
        line += np.float32(rng.uniform(0, 6)) * grain[rows[:, None], columns]
    return np.clip(line, 0, 255).astype(np.uint8)


@cache
def _grain() -> tuple[np.ndarray, np.ndarray]:
    """Coarse and fine noise of mean 0 and deviation 1, float32."""
    rng = np.random.default_rng(0)
    fine = rng.standard_normal(_GRAIN, dtype=np.float32)
    coarse = np.asarray(cv2.GaussianBlur(fine, (0, 0), 2.5), np.float32)
    return coarse / coarse.std(), rng.standard_normal(_GRAIN, dtype=np.float32)


def read_text(path: str | Path) -> list[str]:
    """The different lines of a UTF-8 file, normalised; empty ones and those with control characters are left out.

    Raises:
        HwrError: If it cannot be read, is not UTF-8, or has fewer than three different lines.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HwrError(f"data.text={path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise HwrError(f"data.text={path}: cannot be read ({error.strerror})") from None
    lines = []
    for number, line in enumerate(content.split("\n"), start=1):
        try:
            if text := normalise(line):
                check_text(text)
                lines.append(text)
        except HwrError as error:
            log.warning("%s, line %d is left out: %s", path, number, error)
    lines = list(dict.fromkeys(lines))
    if len(lines) < 3:
        raise HwrError(f"data.text={path}: {len(lines)} different lines of text; at least 3 are needed, one a split")
    return lines


def drawable(lines: Sequence[str], fonts: Sequence[Font]) -> tuple[list[str], list[Font]]:
    """The lines that at least one font can draw, and the fonts that can draw at least one; the log says what is not.

    Raises:
        HwrError: If nothing can be drawn, or fewer than three lines.
    """
    able = [font for font in fonts if any(font.characters.issuperset(line) for line in lines)]
    kept = [line for line in lines if any(font.characters.issuperset(line) for font in able)]
    known = frozenset[str]().union(*(font.characters for font in fonts))
    lacking = Counter(c for line in lines for c in line if c not in known)
    shown = code_points(dict(lacking.most_common())) or "no font has all characters of a line"
    if len(kept) < 3:
        raise HwrError(
            f"data.text: of {len(lines)} lines the fonts can draw {len(kept)}, and at least 3 are needed; they lack: "
            f"{shown}; give fonts that have them with data.fonts=FOLDER"
        )
    if len(kept) < len(lines):
        log.warning("%d of %d lines of text cannot be drawn: %s", len(lines) - len(kept), len(lines), shown)
    if idle := [font.name for font in fonts if font not in able]:
        log.warning("fonts that can draw no line of the text are left out: %s", ", ".join(idle))
    return kept, able


class Synthetic(EndlessLines):
    """Lines of text drawn with stroke fonts and fonts of your own; validation and test have other lines of the text.

    Args:
        text: A UTF-8 file, of lines or of words; None for the French and English that is built in.
        hershey: Names of stroke fonts, see :data:`hwr.data.lines.strokes.FONTS`.
        fonts: A folder of TrueType and OpenType fonts, or None.
        kwargs: See :class:`EndlessLines`.
    """

    def __init__(self, text: str | None, hershey: Sequence[str], fonts: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not hershey and fonts is None:
            raise HwrError(
                "nothing to draw with: name stroke fonts in data.hershey, or a folder of fonts in data.fonts"
            )
        self.text, self.hershey, self.fonts = text, hershey, fonts

    def sources(self) -> Mapping[str, LineSource]:
        """See :meth:`EndlessLines.sources`: a tenth of the lines each for validation and test, always the same ones."""
        lines = list(dict.fromkeys(map(normalise, sentences()))) if self.text is None else read_text(self.text)
        lines, fonts = drawable(lines, self._fonts({c for line in lines for c in line}))
        lines = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
        tenth = math.ceil(len(lines) / 10)
        parts = {"train": lines[2 * tenth :], "val": lines[:tenth], "test": lines[tenth : 2 * tenth]}
        return {name: TextLines(part, fonts, self.preprocess) for name, part in parts.items()}

    def _fonts(self, wanted: Collection[str]) -> list[Font]:
        own = outline_fonts(self.fonts, wanted) if self.fonts is not None else []
        return [*map(StrokeFont, self.hershey), *own]
