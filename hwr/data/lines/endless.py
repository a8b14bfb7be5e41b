"""Lines that are made up while training goes on: every epoch has new ones, validation and test stay what they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr.data.lines.base import LineDataModule
from hwr.data.lines.batches import LineBatch, LineSet, collate
from hwr.data.lines.items import Lines
from hwr.data.lines.lost import frames_needed
from hwr.errors import HwrError
from hwr.networks.base import LineNetwork
from hwr.text import Charset, code_points

Grey = npt.NDArray[np.uint8]
_SPLITS = ("train", "val", "test")


class LineSource(ABC):
    """Makes up texts and draws them; what comes out depends on nothing but the random numbers that go in.

    Attributes:
        texts: Texts in which every character occurs that can be drawn.
    """

    texts: Sequence[str]

    @abstractmethod
    def text(self, rng: np.random.Generator, length: int) -> str:
        """A text, after :func:`hwr.text.normalise`, of about ``length`` characters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, text: str) -> Grey:
        """Its picture as the network sees it, uint8 (height, W)."""


class EndlessSet(LineSet):
    """Lines made up from their position: 0 to N - 1 in the first epoch, then on; how long each is repeats every epoch.

    ``texts`` and ``labels`` are those of the first epoch.

    Args:
        source: Draws the lines.
        height: Of all lines.
        lengths: int (N,), characters of each line, about.
        widths: int (N,), pixels of each line, about.
        key: With the position, what the random numbers start from.
        stride: Pixels for each frame: where a line is too narrow for its text, paper is added on its right.
    """

    def __init__(
        self,
        source: LineSource,
        height: int,
        lengths: np.ndarray,
        widths: np.ndarray,
        key: tuple[int, ...],
        stride: int,
    ) -> None:
        self.source, self.lengths, self.key, self.stride = source, lengths, key, stride
        self.charset: Charset | None = None
        texts = [source.text(self._rng(i), length) for i, length in enumerate(lengths.tolist())]
        names = [f"line {i}" for i in range(len(lengths))]
        super().__init__(np.zeros(0, np.uint8), height, widths, texts, names, [None] * len(lengths))

    def encode(self, charset: Charset) -> None:
        """See :meth:`LineSet.encode`."""
        self.charset = charset
        super().encode(charset)

    def line(self, position: int) -> tuple[str, Grey]:
        """The text and the picture uint8 (H, W) at a position, which may be N or more."""
        rng = self._rng(position)
        text = self.source.text(rng, int(self.lengths[position % len(self.lengths)]))
        image = self.source.draw(rng, text)
        short = self.stride * frames_needed([ord(c) for c in text]) - image.shape[1]
        return text, np.pad(image, ((0, 0), (0, short))) if short > 0 else image

    def image(self, position: int) -> Grey:
        """See :meth:`LineSet.image`."""
        return self.line(position)[1]

    def __getitem__(self, positions: Sequence[int]) -> LineBatch:
        assert self.charset is not None
        texts, images = zip(*map(self.line, positions), strict=True)
        return collate(images, [np.array(self.charset.encode(text, skip_unknown=True)) for text in texts], positions)

    def _rng(self, position: int) -> np.random.Generator:
        return np.random.default_rng((*self.key, position))


class EndlessLines(LineDataModule):
    """Training lines without end, a function of seed and position alone; validation and test lines drawn once.

    Validation and test do not depend on the seed of the run. Every training line has the frames that CTC needs.

    Args:
        length: Fewest and most characters of a line.
        train_lines: Lines of an epoch.
        val_lines: Lines of validation.
        test_lines: Lines of test.
        kwargs: See :class:`LineDataModule`; there is nothing to be split, and nothing to be kept on disk.
    """

    def __init__(self, length: Sequence[int], train_lines: int, val_lines: int, test_lines: int, **kwargs: Any) -> None:
        super().__init__(split=_nothing, **kwargs)
        self.length = interval("length", length, 1)
        self.sizes = dict(zip(_SPLITS, (train_lines, val_lines, test_lines), strict=True))
        if min(self.sizes.values()) < 1:
            raise HwrError("data.train_lines, data.val_lines and data.test_lines must be at least 1")
        self.endless = True

    @abstractmethod
    def sources(self) -> Mapping[str, LineSource]:
        """What draws the lines of ``train``, ``val`` and ``test``."""

    def read(self) -> dict[str, Lines]:
        """Nothing: no line lies anywhere."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Draws validation and test once, and chooses the charset."""
        if self.sets:
            return
        if self.labels is not None:
            self.restrict(())
        sources = self.sources()
        texts = sources["train"].texts
        self.charset = self._make_charset(texts)
        if lacking := self.charset.missing(texts):
            raise HwrError(
                f"the charset lacks {code_points(dict(lacking))} of the texts to be drawn; take charset=auto, or texts "
                "without them"
            )
        self.sets = {name: self._made_up(name, source) for name, source in sources.items()}
        self.as_classes(self.classes)

    def restrict(self, positions: Sequence[int] | np.ndarray) -> None:
        """Refuses to."""
        raise HwrError("lines made up without end have no labels to choose from; see data.train_lines")

    def check_feasible(self, network: LineNetwork) -> None:
        """Training lines get the width that the network needs; the others see :meth:`LineDataModule.check_feasible`."""
        train = self.sets.pop("train")
        assert isinstance(train, EndlessSet)
        train.stride = network.stride
        super().check_feasible(network)
        self.sets = {"train": train, **self.sets}

    def _made_up(self, name: str, source: LineSource) -> LineSet:
        part, low, high = _SPLITS.index(name), *self.length
        rng = np.random.default_rng((part, 0))
        rate = np.mean([_width_of_a_character(source, rng, int(n)) for n in rng.integers(low, high + 1, 32)])
        lengths = rng.integers(low, high + 1, self.sizes[name])
        widths = np.maximum(1, np.rint(rate * lengths)).astype(np.int64)
        height = self.preprocess.height
        key = (part, self.seed if name == "train" else 0)
        made_up = EndlessSet(source, height, lengths, widths, key, stride=max(1, height // 8))
        return made_up if name == "train" else _drawn(made_up)


def interval(name: str, values: Sequence[float], least: float) -> tuple[Any, Any]:
    """Checks a setting of two numbers, the lower first.

    Raises:
        HwrError: If it is anything else, or goes below ``least``.
    """
    if len(values) != 2 or not least <= values[0] <= values[1]:
        raise HwrError(f"data.{name} must be two numbers, the lower first, from {least}, not {list(values)}")
    return values[0], values[1]


def _width_of_a_character(source: LineSource, rng: np.random.Generator, length: int) -> float:
    return float(source.draw(rng, source.text(rng, length)).shape[1] / length)


def _drawn(lines: EndlessSet) -> LineSet:
    images = [lines.image(i) for i in range(len(lines))]
    pixels = np.concatenate([image.ravel() for image in images])
    widths = np.array([image.shape[1] for image in images])
    return LineSet(pixels, lines.height, widths, lines.texts, lines.names, lines.writers)


def _nothing(labels: np.ndarray, writers: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, np.int64)
