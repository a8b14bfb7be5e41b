"""Writing with outline fonts: any TrueType or OpenType files of the user's."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hwr.errors import HwrError

Grey = npt.NDArray[np.uint8]
SUFFIXES = (".ttf", ".otf", ".ttc")


class OutlineFont:
    """A font file, drawn slanted and on a wavy baseline; one without a space has no characters at all here.

    Args:
        path: The file.
        wanted: Characters that will be drawn, as far as the font has them.

    Raises:
        HwrError: If it cannot be read.
    """

    def __init__(self, path: Path, wanted: Collection[str]) -> None:
        from matplotlib.ft2font import FT2Font

        self.name, self.path = path.name, path
        try:
            codes = set(FT2Font(str(path)).get_charmap())
            font = self._font(32)
        except (OSError, RuntimeError) as error:
            raise HwrError(f"{path}: not a font that can be read ({error}); take it out of data.fonts") from None
        drawn = {c for c in {*wanted, " "} if ord(c) in codes and (c == " " or font.getmask(c).getbbox() is not None)}
        self.characters = frozenset(drawn if " " in drawn else ())

    def draw(self, rng: np.random.Generator, text: str, size: float, steady: bool = False) -> Grey:
        """Writes a text, see :meth:`hwr.data.lines.strokes.StrokeFont.draw`."""
        font = self._font(max(8, round(size)))
        left, top, right, bottom = (int(side) for side in font.getbbox(text))
        ascent = round(0.5 * size)
        height = max(1, bottom - min(top, ascent))
        margin = 3 if steady else round(rng.uniform(2, 0.3 * size))
        sheet = Image.new("L", (max(1, right - left) + 2 * margin, height + 2 * margin))
        ImageDraw.Draw(sheet).text((margin - left, margin - min(top, ascent)), text, fill=255, font=font)
        ink = np.asarray(sheet, np.uint8)
        return ink if steady else _bent(rng, ink, size)

    def _font(self, size: int) -> ImageFont.FreeTypeFont:
        return _loaded(self.path, size)


@lru_cache(maxsize=512)
def _loaded(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _bent(rng: np.random.Generator, ink: Grey, size: float) -> Grey:
    """Slant, width, slope and a wave of the baseline."""
    height, width = ink.shape
    lean, narrow = math.tan(math.radians(rng.uniform(-10, 20))), rng.uniform(0.8, 1.1)
    amplitude, period = rng.uniform(0, 0.06) * size, rng.uniform(3, 15) * size
    slope = float(np.clip(rng.normal(0, 0.006) * width, -0.15 * size, 0.15 * size))
    room = math.ceil(amplitude + abs(slope) / 2)
    rows, columns = height + 2 * room, math.ceil((width + abs(lean) * height) * narrow)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    along = x / narrow
    bend = amplitude * np.sin(2 * math.pi * along / period + rng.uniform(0, 2 * math.pi))
    source_y = y - room - bend - slope * (along / max(1, width) - 0.5)
    source_x = along - max(0.0, lean) * height + lean * source_y
    maps = source_x.astype(np.float32), source_y.astype(np.float32)
    return np.asarray(cv2.remap(ink, *maps, cv2.INTER_LINEAR), np.uint8)


def outline_fonts(folder: str | Path, wanted: Collection[str]) -> list[OutlineFont]:
    """The fonts in a folder, at any depth.

    Raises:
        HwrError: If there is no such folder, no font in it, or one cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise HwrError(f"data.fonts={folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise HwrError(f"data.fonts={folder}: no font in it; put {', '.join(SUFFIXES)} files there")
    return [OutlineFont(path, wanted) for path in files]
