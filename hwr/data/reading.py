"""Files of single characters, as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwr.errors import HwrError
from hwr.images import read_grey
from hwr.preprocess import CharacterPreprocess
from hwr.threads import in_threads


def read_prepared(paths: Sequence[str | Path], preprocess: CharacterPreprocess) -> tuple[Tensor, dict[int, HwrError]]:
    """Reads and prepares images, with a progress bar where they are many.

    Returns:
        Images uint8 (N, H, W), and why those at some positions, which are black then, cannot be read.
    """
    from rich.progress import track

    images = np.zeros((len(paths), preprocess.size, preprocess.size), np.uint8)
    errors: dict[int, HwrError] = {}
    found = in_threads(read_grey, paths)
    for i, image in enumerate(track(found, "Reading images", len(paths), transient=True, disable=len(paths) < 2000)):
        if isinstance(image, HwrError):
            errors[i] = image
        else:
            images[i] = preprocess(image)
    return torch.from_numpy(images), errors
