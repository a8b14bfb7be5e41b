"""How the image of one line becomes what the network sees, the same for training, prediction and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch

from hwr.errors import HwrError
from hwr.ink import Grey, Plane, ink_sign, reduced

POLARITIES = ("auto", "dark_on_light", "light_on_dark")


@dataclass(frozen=True)
class LinePreprocess:
    """Grey levels, light ink on black paper, one height, aspect ratio kept.

    Attributes:
        height: Of the lines, in pixels.
        polarity: ``auto``, ``dark_on_light`` or ``light_on_dark``.
        contrast: Whether the paper (also where it is uneven) is set to 0 and the darkest ink to 255.
        median: Kernel of a median filter against specks, odd; 0 for none.
        max_width: Wider lines (after scaling) are refused, in pixels.
    """

    height: int = 64
    polarity: str = "auto"
    contrast: bool = True
    median: int = 0
    max_width: int = 8000

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not isinstance(self.height, int) or not 8 <= self.height <= 512:
            raise HwrError(f"preprocess.height must be a whole number from 8 to 512, not {self.height!r}")
        if self.polarity not in POLARITIES:
            raise HwrError(f"preprocess.polarity must be one of {', '.join(POLARITIES)}, not {self.polarity!r}")
        if self.median and (self.median < 0 or self.median % 2 == 0):
            raise HwrError(f"preprocess.median must be 0 (off) or odd, not {self.median!r}")

    def __call__(self, image: Grey) -> Grey:
        """Prepares one line.

        Args:
            image: uint8 (H, W), of any size.

        Returns:
            uint8 (height, W'), W' at least 1.

        Raises:
            HwrError: If the line would be wider than ``max_width``.
        """
        width = max(1, round(image.shape[1] * self.height / image.shape[0]))
        if width > self.max_width:
            raise HwrError(f"{width} pixels wide at height {self.height}, more than {self.max_width}; is it one line?")
        if self.median:
            image = np.asarray(cv2.medianBlur(image, self.median), np.uint8)
        shrinks = image.shape[0] > self.height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        if image.shape != (self.height, width):
            image = np.asarray(cv2.resize(image, (width, self.height), interpolation=interpolation), np.uint8)
        paper = np.float32(np.median(image))
        sign = ink_sign(np.asarray(reduced(image, 256) - paper, np.float32), self.polarity)
        light = image if sign > 0 else 255 - image
        return _stretched(light) if self.contrast else light

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
    level = np.median(light, axis=0).astype(np.float32)[None]
    reach = (2 * height) | 1
    ground = cv2.blur(level, (reach, 1), borderType=cv2.BORDER_REPLICATE)
    ink: Plane = np.asarray(light - ground, np.float32)
    noise = 1.4826 * float(np.median(np.abs(ink)))
    full = float(np.quantile(ink, 0.995))
    if full < 12:
        return np.zeros((height, width), np.uint8)
    floor = min(2 * noise, 0.3 * full)
    return np.clip((ink - floor) * (255 / (full - floor)), 0, 255).astype(np.uint8)
