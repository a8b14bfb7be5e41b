"""Reading images of lines: prepared in threads, read in batches of similar width, answered in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwr import decoders
from hwr.bundle import Bundle
from hwr.decoders import Decoder
from hwr.decoding import Hypothesis
from hwr.errors import HwrError
from hwr.images import Grey, read_grey
from hwr.line_preprocess import LinePreprocess, Placed
from hwr.networks import LineNetwork
from hwr.precision import choose
from hwr.recognizer import Recognizer
from hwr.threads import in_threads

PRECISIONS = ("auto", "32-true", "bf16-mixed")
WINDOW = 256  # lines prepared ahead, among which those of similar width are read together


@dataclass(frozen=True)
class TextReading:
    """What the model read in the image of one line.

    Attributes:
        text: The line.
        confidence: In [0, 1], the probability of the text per character, see :class:`hwr.decoding.Hypothesis`.
        char_confidences: For each character, in [0, 1].
        x_spans: For each character where it is, [left, right) in pixels of the image as it was given. Networks trained
            with CTC spike: a span lies on its character and is mostly narrower than its ink.
        seen: uint8 (H, W), what the network saw: light ink on black.
        blank: Whether no ink was found (then the text means nothing).
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    x_spans: tuple[tuple[float, float], ...]
    seen: Grey
    blank: bool


class _Line(NamedTuple):
    """A prepared line, and the width of the image that it was."""

    placed: Placed
    width: int


class LineRecognizer(Recognizer):
    """Reads images of lines; see :class:`Recognizer`.

    Args:
        model: A bundle of a model of lines.
        device: Where to compute.
        decoder: Makes the decoder, which is called in several threads; None is greedy.
        precision: ``32-true``, ``bf16-mixed``, or ``auto``: bfloat16 where this machine reads faster with it.
    """

    network: LineNetwork
    preprocess: LinePreprocess

    def __init__(
        self,
        model: Bundle,
        device: str = "cpu",
        decoder: Callable[[Bundle], Decoder] | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__(model, device)
        if precision not in PRECISIONS:
            raise HwrError(f"precision={precision}: known are {', '.join(PRECISIONS)}")
        if precision == "auto":
            precision = choose(self.network, model.example(8), self.device.type, training=False)
        self.precision = precision
        self.decoder = (decoder or decoders.greedy)(model)

    @torch.inference_mode()
    def log_probs(self, seen: Sequence[Grey]) -> tuple[Tensor, Tensor]:
        """Log-probabilities float32 (B, T, C) of preprocessed lines uint8 (H, W), and the frames (B,) of each."""
        widths = [image.shape[1] for image in seen]
        batch = np.zeros((len(seen), len(seen[0]), max(widths)), np.uint8)
        for row, image in zip(batch, seen, strict=True):
            row[:, : image.shape[1]] = image
        images = self.preprocess.normalize(torch.from_numpy(batch).to(self.device))
        sizes = torch.tensor(widths, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            logits, frames, _ = self.network(images.contiguous(memory_format=torch.channels_last), sizes)
        return logits.float().log_softmax(2).cpu(), frames.cpu()

    def read(self, image: Any) -> TextReading:
        """Reads one line: a path, a PIL image, or an array (H, W) or (H, W, 3).

        Raises:
            HwrError: If the image cannot be read.
        """
        return self._readings([self._prepare(image)], columns=1)[0]

    def read_files(self, paths: Iterable[str | Path], columns: int = 8000) -> Iterator[TextReading | HwrError]:
        """Reads many files; see :meth:`read_many`."""
        return self.read_many(paths, columns)

    def read_many(self, images: Iterable[Any], columns: int = 8000) -> Iterator[TextReading | HwrError]:
        """Reads many lines, while the next ones are prepared in threads.

        Args:
            images: Each as for :meth:`read`, or an HwrError, which is handed on.
            columns: Most columns of pixels that the network reads at once, padding included; a wider line comes alone.

        Yields:
            For each image, in order, its reading or what is wrong with it.
        """
        prepared = in_threads(self._prepared, images, ahead=WINDOW)
        while lines := list(islice(prepared, WINDOW)):
            readings = iter(self._readings([line for line in lines if not isinstance(line, HwrError)], columns))
            yield from (line if isinstance(line, HwrError) else next(readings) for line in lines)

    def _prepare(self, image: Any) -> _Line:
        grey = read_grey(image)
        try:
            return _Line(self.preprocess.place(grey), grey.shape[1])
        except HwrError as error:
            raise HwrError(f"{image}: {error}" if isinstance(image, str | Path) else str(error)) from None

    def _prepared(self, image: Any) -> _Line | HwrError:
        return image if isinstance(image, HwrError) else self._prepare(image)

    def _readings(self, lines: Sequence[_Line], columns: int) -> list[TextReading]:
        order, batches = sorted(range(len(lines)), key=lambda i: -lines[i].placed.light.shape[1]), list[list[int]]()
        while order:
            size = max(1, columns // lines[order[0]].placed.light.shape[1])
            batches.append(order[:size])
            order = order[size:]

        def read(batch: list[int]) -> dict[int, TextReading]:
            hypotheses = self.decoder(*self.log_probs([lines[i].placed.light for i in batch]))
            return {i: self._reading(lines[i], h) for i, h in zip(batch, hypotheses, strict=True)}

        found: dict[int, TextReading] = {}
        for some in self._each(read, batches):
            found |= some
        return [found[i] for i in range(len(lines))]

    def _each(
        self, read: Callable[[list[int]], dict[int, TextReading]], batches: Sequence[list[int]]
    ) -> Iterator[dict[int, TextReading]]:
        """The readings of each batch; a CPU reads as many at a time as there are threads (at most eight) to share.

        That is faster than one batch with all threads: these would wait for each other at every frame of an LSTM, and
        for those that prepare the next lines.
        """
        threads = torch.get_num_threads()
        readers = min(threads, 8)
        if self.device.type != "cpu" or readers == 1 or len(batches) < 2:
            yield from map(read, batches)
            return

        def alone(batch: list[int]) -> dict[int, TextReading]:
            torch.set_num_threads(threads // readers)  # of the thread that calls it
            return read(batch)

        try:
            for found in in_threads(alone, batches, threads=readers):
                if isinstance(found, HwrError):
                    raise found
                yield found
        finally:
            torch.set_num_threads(threads)  # threads to come take after the last call

    def _reading(self, line: _Line, hypothesis: Hypothesis) -> TextReading:
        spans = tuple((_original(a, line), _original(b, line)) for a, b in hypothesis.x_spans(self.network.stride))
        own = hypothesis.text, hypothesis.confidence, hypothesis.char_confidences
        seen = line.placed.light
        return TextReading(*own, spans, seen, blank=not seen.any())


def _original(x: float, line: _Line) -> float:
    """Where a column of what the network sees is in the image, at half its height if the line was sheared upright."""
    return min(max((x - line.placed.left) * line.placed.scale, 0.0), float(line.width))
