"""How the image of one character becomes what the network sees, the same for training data and for prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from hwr.errors import HwrError
from hwr.ink import FAINTEST_INK, WORKING_SIDE, Grey, Plane, find_ink, ink_sign, reduced

CHOICES = {
    "center": ("mass", "box"),
    "polarity": ("auto", "dark_on_light", "light_on_dark"),
    "threshold": ("none", "otsu", "adaptive"),
}
THINNEST_STROKE = 0.1  # as a share of `fit`: thinner strokes are thickened to this


@dataclass(frozen=True)
class CharacterPreprocess:
    """Turns the image of one character into MNIST's form: light ink on black, scaled and centred.

    The defaults reproduce MNIST (an MNIST image comes out as it went in); `fit=24, center="box"` suits EMNIST. It
    travels with a network's weights, as `to_dict()`.

    Attributes:
        size: Side of the square output in pixels.
        fit: Longest side of the ink in the output in pixels, its proportions kept. None keeps the whole frame, which
            is only padded to a square and resized; paper and lighting then stay as they are.
        center: What is put in the middle of the output: the ink's centre of "mass" or its bounding "box".
        polarity: "dark_on_light" ink, "light_on_dark" ink, or "auto" to tell for each image.
        median: Side in pixels of a median filter run over the input, odd; 0 for none.
        threshold: "none" keeps grey levels; "otsu" (one threshold per character) and "adaptive" (one per
            neighbourhood) make ink and paper two-valued before the ink is scaled.
        mean: Mean that `normalize` subtracts, of levels scaled to 0..1.
        std: Standard deviation that `normalize` divides by, of levels scaled to 0..1.
    """

    size: int = 28
    fit: int | None = 20
    center: str = "mass"
    polarity: str = "auto"
    median: int = 0
    threshold: str = "none"
    mean: float = 0.1307
    std: float = 0.3081

    def __post_init__(self) -> None:
        """Checks the fields; mean and std may also be sequences of one number, as torchvision writes them."""
        _check(_is_int(self.size) and 4 <= self.size <= 1024, "size", self.size, "a whole number from 4 to 1024")
        fits = self.fit is None or (_is_int(self.fit) and 1 <= self.fit <= self.size)
        _check(fits, "fit", self.fit, f"null or a whole number from 1 to size ({self.size})")
        odd = _is_int(self.median) and (self.median == 0 or (self.median % 2 == 1 and 3 <= self.median <= 255))
        _check(odd, "median", self.median, "0 (off) or an odd number from 3 to 255")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            _check(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")
        for name in ("mean", "std"):
            given: Any = getattr(self, name)
            one = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 1
            value = given[0] if one else given
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            _check(number and (name == "mean" or value > 0), name, given, "one number" + " above 0" * (name == "std"))
            object.__setattr__(self, name, float(value))

    def __call__(self, image: Grey) -> Grey:
        """Prepares one image.

        Args:
            image: Grey levels, uint8, shape (H, W), of any size.

        Returns:
            The character, light ink on black, uint8, shape (size, size). All zero if and only if no ink was found.

        Raises:
            ValueError: The image is not a uint8 array of shape (H, W) with at least one pixel.
        """
        if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
            raise ValueError(f"expected a uint8 image of shape (H, W), got {image.dtype} of shape {image.shape}")
        if self.median:
            image = np.asarray(cv2.medianBlur(image, self.median), np.uint8)
        if self.fit is None:
            return self._whole_frame(image)
        ink = find_ink(image, self.polarity)
        if ink is None:
            return np.zeros((self.size, self.size), np.uint8)
        if self.threshold != "none":
            light = np.pad(np.rint(ink * 255).astype(np.uint8), max(ink.shape) // 4 + 2)
            dots = self._two_valued(light) > 0
            ink = _cropped(dots).astype(np.float32)
        return self._placed(_scaled(_thickened(ink, self.fit), self.fit))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Makes the network's input of prepared images.

        Args:
            images: uint8, shape (B, H, W).

        Returns:
            (levels / 255 - mean) / std, float32, shape (B, 1, H, W), on the same device.

        Raises:
            ValueError: The images have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 3:
            raise ValueError(f"expected uint8 images of shape (B, H, W), got {images.dtype} of {tuple(images.shape)}")
        return self.standardize(images.unsqueeze(1).float().div_(255))

    def standardize(self, images: torch.Tensor) -> torch.Tensor:
        """(images - mean) / std of float images in [0, 1], any shape."""
        return (images - self.mean) / self.std

    def to_dict(self) -> dict[str, int | float | str | None]:
        """Returns the fields as plain values, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CharacterPreprocess:
        """Makes one from field values; fields left out keep their defaults.

        Raises:
            HwrError: A key is not a field, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise HwrError(f"preprocess: unknown setting {', '.join(unknown)}: the settings are {', '.join(known)}")
        return cls(**{str(key): value for key, value in values.items()})

    def _whole_frame(self, image: Grey) -> Grey:
        """The frame, ink light, padded to a square in the rim's typical grey level and resized."""
        if int(image.max()) - int(image.min()) < FAINTEST_INK:
            return np.zeros((self.size, self.size), np.uint8)
        if self.polarity != "light_on_dark":
            small = reduced(image, WORKING_SIDE)
            if ink_sign(small - np.float32(np.median(small)), self.polarity) < 0:
                image = 255 - image
        if self.threshold != "none":
            image = self._two_valued(image)
        height, width = image.shape
        if height != width:
            spare = abs(height - width)
            pad = (spare // 2, spare - spare // 2)
            rim = int(np.median(np.concatenate((image[0], image[-1], image[:, 0], image[:, -1]))))
            image = np.pad(image, ((0, 0), pad) if height > width else (pad, (0, 0)), constant_values=rim)
        if len(image) == self.size:
            return image.copy()
        method = cv2.INTER_AREA if len(image) > self.size else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (self.size, self.size), interpolation=method), np.uint8)

    def _two_valued(self, light: Grey) -> Grey:
        """Makes light ink 255 and everything else 0."""
        if self.threshold == "otsu":
            return np.asarray(cv2.threshold(light, 0, 255, cv2.THRESH_OTSU)[1], np.uint8)
        block = max(3, max(light.shape) // 2 | 1)
        method, kind = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
        return np.asarray(cv2.adaptiveThreshold(light, 255, method, kind, block, -12), np.uint8)

    def _placed(self, ink: Plane) -> Grey:
        """Puts ink (0..1, at most `size` x `size`) into the output, all of it inside."""
        height, width = ink.shape
        row, column = height / 2, width / 2
        if self.center == "mass":
            across, down = ink.sum(axis=1), ink.sum(axis=0)  # not cv2.moments, which takes (N, 2) for N points
            row = float(across @ np.arange(height)) / float(across.sum())
            column = float(down @ np.arange(width)) / float(down.sum())
        top = min(max(round(self.size / 2 - row), 0), self.size - height)
        left = min(max(round(self.size / 2 - column), 0), self.size - width)
        out = np.zeros((self.size, self.size), np.uint8)
        out[top : top + height, left : left + width] = np.rint(ink * 255)
        return out


def _cropped(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thickened(ink: Plane, fit: int) -> Plane:
    """Thickens strokes that would come out thinner than THINNEST_STROKE, as fine pens in large photos do."""
    side = max(ink.shape)
    if side < 1.5 * fit:
        return ink
    half = (ink > 0.5).astype(np.uint8)
    contours = cv2.findContours(half, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    length = sum(cv2.arcLength(contour, True) for contour in contours) / 2
    stroke = int(half.sum()) / max(length, 1.0)
    grow = round(THINNEST_STROKE * side - stroke)
    if grow < 1:
        return ink
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
    return np.asarray(cv2.dilate(np.pad(ink, (grow + 1) // 2), kernel), np.float32)


def _scaled(ink: Plane, fit: int) -> Plane:
    """Scales ink so that its longest side is `fit` pixels and its strongest strokes are 1."""
    scale = fit / max(ink.shape)
    if scale != 1:
        size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
        ink = np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
    levels = np.sort(ink[ink > 0.1 * ink.max()])
    return np.asarray(np.minimum(ink * (1 / levels[int(0.9 * levels.size)]), 1), np.float32)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise HwrError(f"preprocess.{name}: {value!r} is not allowed: set it to {expected}")
