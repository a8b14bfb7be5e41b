"""The digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import torch

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.preprocess import CharacterPreprocess


class Digits(CharacterDataModule):
    """1,797 handwritten digits, 8x8 with 17 grey levels (UCI Optical Recognition of Handwritten Digits, CC BY 4.0).

    There is no official test split: the last fifth, in file order, is test. Writers follow one another in the file, so
    that most of them are on one side only; a random split would be easier.
    """

    TEST = 359

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Brings every digit into MNIST's form: cropped, scaled, centred by mass."""
        everything = _prepared(replace(self.preprocess, polarity="light_on_dark"))  # the model reads either
        cut = len(everything) - self.TEST
        sets = {"train": everything.subset(np.arange(cut)), "test": everything.subset(np.arange(cut, len(everything)))}
        return sets, [str(i) for i in range(10)]


@lru_cache(maxsize=1)  # the runs of a sweep or a curve come one after the other
def _prepared(preprocess: CharacterPreprocess) -> CharacterSet:
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = (data.images * 15.9375).astype(np.uint8)  # 0..16 -> 0..255
    framed = [np.pad(cv2.resize(image, (40, 40), interpolation=cv2.INTER_CUBIC), 8) for image in grey]
    images = torch.from_numpy(np.stack([preprocess(image) for image in framed]))
    labels = torch.from_numpy(data.target.astype(np.int64))
    return CharacterSet(images, labels, [f"digit {i}" for i in range(len(labels))])
