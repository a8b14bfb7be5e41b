"""Strings of real handwritten digits: a data set of lines that needs no download."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hwr.data.lines.endless import EndlessLines, LineSource, interval
from hwr.data.mnist import read_idx
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess

Grey = npt.NDArray[np.uint8]
Bank = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]  # light on black (N, H, W), and the digits (N,)


def embedded(root: Path, download: bool) -> dict[str, Bank]:
    """The 1,797 digits of scikit-learn (UCI Optical Recognition of Handwritten Digits, CC BY 4.0), 8 x 8.

    Writers follow one another in the file, so the last fifth is test and a tenth before it validation.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = (data.images * 15.9375).astype(np.uint8)  # 0..16 -> 0..255
    images = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC) for image in grey])
    return _cut(images, data.target.astype(np.int64), 1258, 1438)


def mnist(root: Path, download: bool) -> dict[str, Bank]:
    """MNIST's digits, see :class:`hwr.data.mnist.MNIST`: the last twelfth of its training part validates."""
    from torchvision.datasets import MNIST

    files = [f"{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    where = "http://yann.lecun.com/exdb/mnist or a mirror of it"
    parts = [
        read_idx(partial(MNIST, train=train), "MNIST", root, files, download, where)[:2] for train in (True, False)
    ]
    images, labels = (np.concatenate([part[i].numpy() for part in parts]) for i in (0, 1))
    train = len(parts[0][0])
    return _cut(images, labels, train - train // 12, train)


SOURCES = {"digits": embedded, "mnist": mnist}


def _cut(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], val: int, test: int) -> dict[str, Bank]:
    bounds = {"train": slice(val), "val": slice(val, test), "test": slice(test, None)}
    return {name: (images[part], labels[part]) for name, part in bounds.items()}


@dataclass(frozen=True)
class Hand:
    """How digits are put together. Lengths are in heights of a digit.

    Attributes:
        scale: Smallest and largest height of a digit, of the height of the line.
        gap: Smallest and largest gap between the ink of neighbours; below 0 they may touch or overlap.
        slant: Degrees by which a string leans, either way.
        wobble: How far a digit is off the baseline, either way.
    """

    scale: tuple[float, float]
    gap: tuple[float, float]
    slant: float
    wobble: float


class DigitLines(LineSource):
    """Puts images of digits side by side.

    Args:
        bank: Images of digits.
        hand: How they are put together.
        preprocess: What is done to a line once it is composed, as to any other line.
    """

    texts: Sequence[str] = ("0123456789",)

    def __init__(self, bank: Bank, hand: Hand, preprocess: LinePreprocess) -> None:
        self.hand, self.height = hand, preprocess.height
        self.preprocess = replace(preprocess, polarity="light_on_dark")  # of what is composed; the model reads either
        images, labels = bank
        self.digits = [[_ink(image) for image in images[labels == digit] if image.any()] for digit in range(10)]
        if lacking := [str(digit) for digit, found in enumerate(self.digits) if not found]:
            raise HwrError(f"no image of the digits {', '.join(lacking)} in this part of data.source; take another")

    def text(self, rng: np.random.Generator, length: int) -> str:
        """So many digits, all equally likely."""
        return "".join(map(str, rng.integers(0, 10, length).tolist()))

    def draw(self, rng: np.random.Generator, text: str) -> Grey:
        """See :meth:`LineSource.draw`."""
        return self.preprocess(self.compose(rng, text))

    def compose(self, rng: np.random.Generator, text: str) -> Grey:
        """Draws light digits on black, uint8 (height, W)."""
        hand, count, rows = self.hand, len(text), self.height
        size = rng.uniform(*hand.scale) * rows
        gap, lean = size * rng.uniform(*hand.gap), math.tan(math.radians(rng.uniform(-hand.slant, hand.slant)))
        gaps = gap + 0.05 * size * rng.uniform(-1, 1, count)
        offsets = np.cumsum(rng.normal(0, 0.5, count))
        limit = min(hand.wobble * size, max(0.0, (rows - size) / 2))
        offsets = np.clip(offsets - offsets.mean(), -1, 1) * limit
        pieces, margin = [], rng.uniform(0.1, 0.5) * size
        for character, offset, choice in zip(text, offsets.tolist(), rng.random(count).tolist(), strict=True):
            digits = self.digits[int(character)]
            pieces.append(_placed(digits[int(choice * len(digits))], size, lean, offset, rows))
        starts, x = [], margin
        for piece, space in zip(pieces, gaps.tolist(), strict=True):
            starts.append(round(x))
            x = max(x + 0.3 * size, x + piece.shape[1] + space)
        end = max(start + piece.shape[1] for start, piece in zip(starts, pieces, strict=True))
        line = np.zeros((rows, round(end + margin)), np.uint8)
        for start, piece in zip(starts, pieces, strict=True):
            part = line[:, start : start + piece.shape[1]]
            np.maximum(part, piece, out=part)
        return line


def _ink(image: Grey) -> Grey:
    """Cuts out the ink and scales it to 255."""
    image = (image * (255 / image.max())).astype(np.uint8)
    left, top, width, height = cv2.boundingRect((image > 40).astype(np.uint8))
    return image[top : top + height, left : left + width]


def _placed(digit: Grey, size: float, lean: float, offset: float, rows: int) -> Grey:
    """A digit of this height, sheared, in the middle of a strip (rows, W), ``offset`` pixels lower."""
    scale = size / digit.shape[0]
    across = abs(lean) * size
    width = math.ceil(scale * digit.shape[1] + across) + 1
    top = (rows - size) / 2 + offset
    matrix = np.array([[scale, -lean * scale, max(0.0, lean) * size], [0, scale, top]])
    return np.asarray(cv2.warpAffine(digit, matrix, (width, rows), flags=cv2.INTER_LINEAR), np.uint8)


class DigitStrings(EndlessLines):
    """Strings of real handwritten digits, composed at random; no digit's image is in two splits.

    Args:
        source: ``digits`` (scikit-learn's, embedded) or ``mnist``.
        root: Where MNIST's files are, see :class:`hwr.data.mnist.MNIST`.
        download: Whether they may be downloaded.
        scale: See :class:`Hand`.
        gap: See :class:`Hand`.
        slant: See :class:`Hand`.
        wobble: See :class:`Hand`.
        kwargs: See :class:`EndlessLines`.
    """

    def __init__(
        self,
        source: str,
        root: str,
        download: bool,
        scale: Sequence[float],
        gap: Sequence[float],
        slant: float,
        wobble: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if source not in SOURCES:
            raise HwrError(f"data.source={source}: there are {', '.join(SOURCES)}")
        if not (0 <= slant <= 60 and 0 <= wobble <= 1):
            raise HwrError("data.slant must be 0 to 60 degrees, data.wobble 0 to 1")
        sizes = interval("scale", scale, 0.2)
        if sizes[1] > 1:
            raise HwrError(f"data.scale is of the height of the line, at most 1, not {sizes[1]}")
        self.hand = Hand(sizes, interval("gap", gap, -0.5), slant, wobble)
        self.source, self.root, self.download = source, Path(root).expanduser(), download

    def sources(self) -> Mapping[str, LineSource]:
        """See :meth:`EndlessLines.sources`."""
        banks = SOURCES[self.source](self.root, self.download)
        return {name: DigitLines(bank, self.hand, self.preprocess) for name, bank in banks.items()}
