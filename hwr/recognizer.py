"""From a model and images to readings: the one class that prediction, serving and exports use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwr import bundle
from hwr.bundle import Bundle
from hwr.errors import HwrError
from hwr.images import read_grey
from hwr.networks import CharacterNetwork, LineNetwork
from hwr.threads import in_threads

if TYPE_CHECKING:
    from hwr.decoders import Decoder
    from hwr.line_recognizer import LineRecognizer


@dataclass(frozen=True)
class Reading:
    """What the model read in one image.

    Attributes:
        label: The most probable class.
        confidence: Its probability.
        top: The most probable classes with their probabilities, best first.
        seen: uint8 (S, S), what the network saw: light ink on black.
        blank: Whether no ink was found (then the label means nothing).
    """

    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    seen: np.ndarray
    blank: bool


class Recognizer:
    """A trained model, ready to read images; ``Recognizer.load(...)`` makes the kind that the model is.

    Args:
        model: A bundle (see :func:`hwr.bundle.load` for what can be loaded).
        device: Where to compute.

    Raises:
        HwrError: If there is no such device, or the weights are of another network.
    """

    network: CharacterNetwork | LineNetwork

    def __init__(self, model: Bundle, device: str = "cpu") -> None:
        self.bundle, self.classes, self.preprocess = model, model.classes, model.preprocess
        try:
            self.device = torch.device(device)
            self.network = model.build().eval().to(self.device).to(memory_format=torch.channels_last)
        except (AssertionError, RuntimeError) as error:  # torch's words for a device that is not there
            raise HwrError(f"device={device}: {str(error).splitlines()[0]}; use device=cpu") from None

    @staticmethod
    def load(
        model: str | Path = "mnist",
        device: str = "cpu",
        decoder: Callable[[Bundle], Decoder] | None = None,
        precision: str = "auto",
    ) -> CharacterRecognizer | LineRecognizer:
        """Loads a run, a bundle, a checkpoint, or a shipped model by name.

        Args:
            model: Of characters or of lines.
            device: Where to compute.
            decoder: For a model of lines: makes its decoder, such as :func:`hwr.decoders.beam`; None is greedy.
            precision: Of a model of lines, see :class:`hwr.line_recognizer.LineRecognizer`.
        """
        from hwr.line_recognizer import LineRecognizer

        loaded = bundle.load(model)
        if loaded.kind == "line":
            return LineRecognizer(loaded, device, decoder, precision)
        return CharacterRecognizer(loaded, device)


class CharacterRecognizer(Recognizer):
    """Reads images of single characters; see :class:`Recognizer`."""

    @torch.inference_mode()
    def probabilities(self, seen: np.ndarray) -> np.ndarray:
        """Probabilities float32 (B, C) of preprocessed images uint8 (B, S, S)."""
        images = self.preprocess.normalize(torch.from_numpy(seen).to(self.device))
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        result: np.ndarray = logits.float().softmax(1).cpu().numpy()
        return result

    def read(self, image: Any, top_k: int = 5) -> Reading:
        """Reads one image: a path, a PIL image, or an array (H, W) or (H, W, 3).

        Raises:
            HwrError: If the image cannot be read.
        """
        return self._readings(np.stack([self.preprocess(read_grey(image))]), top_k)[0]

    def read_files(
        self, paths: Iterable[str | Path], top_k: int = 5, batch_size: int = 256
    ) -> Iterator[Reading | HwrError]:
        """Reads many files, decoding in threads; gives a reading, or what is wrong with the file, for each in order."""
        found = in_threads(read_grey, paths)
        while part := list(islice(found, batch_size)):
            good = [self.preprocess(image) for image in part if not isinstance(image, HwrError)]
            readings = iter(self._readings(np.stack(good), top_k) if good else [])
            yield from (image if isinstance(image, HwrError) else next(readings) for image in part)

    def _readings(self, seen: np.ndarray, top_k: int) -> list[Reading]:
        probabilities = self.probabilities(seen)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        result = []
        for image, p, best in zip(seen, probabilities, order, strict=True):
            top = tuple((self.classes[i], float(p[i])) for i in best)
            result.append(Reading(top[0][0], top[0][1], top, image, blank=not image.any()))
        return result
