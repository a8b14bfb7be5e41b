"""How the image of one line becomes what the network sees, the same for training, prediction and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from hwr.errors import HwrError
from hwr.ink import Grey, Plane, ink_sign, reduced
from hwr.ranked import median, quantile

POLARITIES = ("auto", "dark_on_light", "light_on_dark")


class Placed(NamedTuple):
    """A prepared line and where it was.

    Attributes:
        light: uint8 (H, W), light ink on black.
        left: Column of ``light`` where the image began, at half the height.
        scale: Pixels of the image for each column of ``light``.
    """

    light: Grey
    left: float
    scale: float


@dataclass(frozen=True)
class LinePreprocess:
    """Grey levels, light ink on black paper, one height, aspect ratio kept.

    Attributes:
        height: Of the lines, in pixels.
        polarity: ``auto``, ``dark_on_light`` or ``light_on_dark``.
        contrast: Whether the paper (also where it is uneven) is set to 0 and the darkest ink to 255.
        median: Kernel of a median filter against specks, odd; 0 for none.
        max_width: Wider lines (after scaling) are refused, in pixels.
        deskew: Whether climbing or falling writing is laid level, and paper above and below the ink cut off.
        deslant: Whether slanted writing is sheared upright, which makes the line a little wider.
    """

    height: int = 64
    polarity: str = "auto"
    contrast: bool = True
    median: int = 0
    max_width: int = 8000
    deskew: bool = False
    deslant: bool = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not isinstance(self.height, int) or not 8 <= self.height <= 512:
            raise HwrError(f"preprocess.height must be a whole number from 8 to 512, not {self.height!r}")
        if self.polarity not in POLARITIES:
            raise HwrError(f"preprocess.polarity must be one of {', '.join(POLARITIES)}, not {self.polarity!r}")
        whole = isinstance(self.median, int) and not isinstance(self.median, bool)
        if not whole or (self.median and not (0 < self.median < 256 and self.median % 2)):
            raise HwrError(f"preprocess.median must be 0 (off) or odd and at most 255, not {self.median!r}")
        if not isinstance(self.max_width, int) or self.max_width < 1:
            raise HwrError(f"preprocess.max_width must be a whole number above 0, not {self.max_width!r}")

    def __call__(self, image: Grey) -> Grey:
        """Prepares one line.

        Args:
            image: uint8 (H, W), of any size.

        Returns:
            uint8 (height, W'), W' at least 1; all 0 where there is no ink.

        Raises:
            HwrError: If the image has no pixels, or the line would be wider than ``max_width``.
        """
        return self.place(image).light

    def place(self, image: Grey) -> Placed:
        """Prepares one line, see :meth:`__call__`, and says where it was."""
        if image.size == 0:
            raise HwrError("the image has no pixels")
        width = max(1, round(image.shape[1] * self.height / image.shape[0]))
        if width > self.max_width:
            raise HwrError(
                f"{image.shape[1]} x {image.shape[0]} pixels: at height {self.height} {width} pixels wide, more than "
                f"preprocess.max_width={self.max_width}; is it one whole line?"
            )
        scale = image.shape[1] / width
        image = _without_surroundings(image)
        if self.median:
            image = np.asarray(cv2.medianBlur(image, self.median), np.uint8)
        shrinks = image.shape[0] > self.height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        if image.shape != (self.height, width):
            image = np.asarray(cv2.resize(image, (width, self.height), interpolation=interpolation), np.uint8)
        paper = median(image)
        contrast = np.asarray(reduced(image, 256) - paper, np.float32)
        if not contrast.any():  # blank: then light paper is likelier than dark
            contrast += 1 if paper < 128 else -1
        light = image if ink_sign(contrast, self.polarity) > 0 else 255 - image
        if self.contrast:
            light = _stretched(light)
        if self.deskew:
            light = _level(light)
            scale *= width / light.shape[1]
            width = light.shape[1]
        if self.deslant:
            light = _upright(light)
        return Placed(light, (light.shape[1] - width) / 2, scale)  # shearing adds paper on both sides

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W) -> float32 (B, 1, H, W), paper 0 and full ink 1."""
        return images.unsqueeze(1).float().div_(255)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LinePreprocess:
        """Makes one from field values.

        Raises:
            HwrError: If a key is unknown.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise HwrError(f"preprocess: unknown setting {', '.join(unknown)}: the settings are {', '.join(known)}")
        return cls(**values)


def _stretched(light: Grey) -> Grey:
    """Subtracts the paper around each column and scales full ink to 255; a blank line becomes 0."""
    height, width = light.shape
    # the paper's level, column by column: the median is paper even in dense writing; smoothed along the line
    level = median(light, axis=0)[None]
    reach = (2 * height) | 1
    ground = cv2.blur(level, (reach, 1), borderType=cv2.BORDER_REPLICATE)
    ink: Plane = np.asarray(light - ground, np.float32)
    noise = _spread(ink)
    full = quantile(ink, 0.995)
    if full < max(12.0, 4 * noise):
        full = _peak(ink, full)
        if not full:
            return np.zeros((height, width), np.uint8)
    floor = min(2 * noise, 0.3 * full)
    return np.asarray(np.clip((ink - floor) * (255 / (full - floor)), 0, 255), np.uint8)


def _peak(ink: Plane, full: float) -> float:
    """Contrast of full ink where little stands out: faint or noisy writing, or a few characters in a long line.

    Args:
        ink: Contrast to the paper, shape (H, W).
        full: What the quantile says.

    Returns:
        0 for a blank line.
    """
    flat = ink - median(ink, axis=1)[:, None]  # what is alike all along the line is a shadow
    smooth = cv2.blur(flat, (3, 3))  # strokes stand out where noise averages out
    grain = 1.5 * _spread(flat - smooth)
    if quantile(flat, 0.995) >= max(12.0, 4 * grain):
        return full
    peak = float(smooth.max())
    return 0.0 if peak < max(6.0, 8 * min(grain, _spread(smooth))) else max(full, peak)


def _spread(values: np.ndarray) -> float:
    """Standard deviation of most values, from the median of their sizes, whatever the others are."""
    return 1.4826 * float(median(np.abs(values)))


def _without_surroundings(image: Grey) -> Grey:
    """Paints black or white around a line that was cut out along its outline with the grey of its paper.

    Such surroundings are of one colour, reach the rim, and leave one solid piece that is most of the image and has
    another grey. What is not so is left alone, clean scans on white above all.
    """
    for around in (image <= 8, image >= 250):
        if not 0.02 < around.mean() < 0.5:
            continue
        framed = np.pad(around.astype(np.uint8), 1, constant_values=1)
        outside = (cv2.connectedComponents(framed, connectivity=4)[1] == 1)[1:-1, 1:-1]  # joined to the frame
        pieces = cv2.connectedComponentsWithStats((~outside).astype(np.uint8), connectivity=4)[2][1:, cv2.CC_STAT_AREA]
        if not len(pieces) or outside.mean() < 0.02 or pieces.max() < 0.98 * pieces.sum():
            continue
        inside = image[~outside]
        paper = np.uint8(median(inside))
        levels = np.abs(inside.astype(np.int16) - paper)
        solid = np.mean(around[~outside]) < 0.02 and np.mean(levels < 40) > 0.5
        if solid and abs(float(paper) - float(median(image[outside]))) > 12:
            fringe = cv2.dilate(outside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # where both colours mix
            painted: Grey = np.where(fringe, paper, image)
            return painted
    return image


def _level(light: Grey) -> Grey:
    """Shears a line so that its ink neither climbs nor falls, and makes the rows that have ink the whole height.

    The slope is that of a straight line through the middles of the ink of short spans, fitted three times, each time
    with less weight on the spans that are far from it (Holland and Welsch 1977). Where the ink is not four times as
    wide as the line is high, it is the shape of a few characters, and is kept.
    """
    height, width = light.shape
    paper = int(median(light))
    ink: Plane = np.clip(light.astype(np.float32) - paper - 48, 0, None)
    if not ink.any():
        return light
    spans = cv2.resize(ink, (-(-width // 16), height), interpolation=cv2.INTER_AREA)  # (H, S)
    mass = spans.sum(0)
    middle = np.arange(height, dtype=np.float32) @ spans / np.maximum(mass, 1e-6)
    across = (np.arange(len(mass)) + 0.5) * (width / len(mass)) - width / 2
    slope, weight = 0.0, np.sqrt(mass)
    inked = across[np.flatnonzero(mass)]
    for _ in range(3 if inked[-1] - inked[0] >= 4 * height else 0):
        slope, offset = np.polyfit(across, middle, 1, w=weight)
        far = (middle - slope * across - offset) / (height / 4)
        weight = np.sqrt(mass) / (1 + np.square(far))
    slope = float(np.clip(slope, -0.5, 0.5))
    rise = np.round(slope * across).astype(int)
    room = int(np.abs(rise).max())
    rows = np.zeros(height + 2 * room)
    for span, up in zip(spans.T, rise.tolist(), strict=True):
        rows[room - up : room - up + height] += span
    share = rows.cumsum() / rows.sum()
    top, bottom = np.searchsorted(share, (0.002, 0.998)) - room
    tall = max(1.25 * (bottom - top + 1), height / 1.6)  # a dash alone is not blown up
    zoom = height / tall
    left, up = -width / 2, (top + bottom + 1) / 2 - tall / 2
    new = max(1, round(width * zoom))
    # from (x, y) of the result to that of the line: x = x' / zoom, y = y' / zoom + up + slope (x - width / 2)
    matrix = np.array([[width / new, 0, 0], [slope * width / new, 1 / zoom, up + slope * left]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(light, matrix, (new, height), flags=how, borderValue=paper), np.uint8)


def _upright(light: Grey) -> Grey:
    """Shears a line so that the sums of ink over its columns vary most, as they do where strokes are upright.

    Of the shears up to 45 degrees either way, a step of about 1.4 degrees apart (after Vinciarelli and Luettin 2001).
    """
    height, width = light.shape
    paper = int(median(light))
    ink = np.clip(light.astype(np.float32) - paper, 0, None)

    def sheared(plane: Plane | Grey, shear: float, how: int, fill: int) -> np.ndarray:
        room = int(np.ceil(abs(shear) * (height - 1)))
        matrix = np.array([[1, shear, (room - shear * (height - 1)) / 2], [0, 1, 0]])
        return np.asarray(cv2.warpAffine(plane, matrix, (width + room, height), flags=how, borderValue=fill))

    shears = sorted(np.linspace(-1, 1, 81).tolist(), key=abs)
    scores = [float(np.square(sheared(ink, s, cv2.INTER_NEAREST, 0).sum(0)).sum()) for s in shears]
    best = shears[int(np.argmax(scores))]
    return np.asarray(sheared(light, best, cv2.INTER_LINEAR, paper), np.uint8) if best else light
