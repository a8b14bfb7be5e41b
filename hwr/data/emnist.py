"""EMNIST, upright and labelled from 0."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.mnist import read_idx, resize
from hwr.errors import HwrError

SUBSETS = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")


class EMNIST(CharacterDataModule):
    """EMNIST (Cohen et al. 2017, arXiv:1702.05373): letters and digits in MNIST's form.

    The files hold every image transposed (rows and columns swapped), and ``letters`` counts its labels from 1: both are
    mended here, once. ``balanced`` and ``bymerge`` fold the 15 lower-case letters that look like their capitals.

    Args:
        root: Where data sets live: the files are in ``root/EMNIST/raw``.
        subset: ``balanced`` (47 classes), ``byclass`` (62), ``bymerge`` (47), ``letters`` (26), ``digits`` or
            ``mnist`` (10).
        download: Whether torchvision may download (and verify) missing files (560 MB).
        kwargs: See :class:`CharacterDataModule`.
    """

    def __init__(self, root: str, subset: str = "balanced", download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if subset not in SUBSETS:
            raise HwrError(f"data.subset={subset}: EMNIST has {', '.join(SUBSETS)}")
        self.root, self.subset_name, self.download = Path(root).expanduser(), subset, download

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Reads both official parts."""
        from torchvision.datasets import EMNIST as Files

        sets: dict[str, CharacterSet] = {}
        classes: list[str] = []
        for part in ("train", "test"):
            stem = f"emnist-{self.subset_name}-{part}"
            images, labels, classes = read_idx(
                partial(Files, split=self.subset_name, train=part == "train"),
                "EMNIST",
                self.root,
                [f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"],
                self.download,
                "gzip.zip at https://www.nist.gov/itl/products-and-services/emnist-dataset",
            )
            if self.subset_name == "letters":
                if int(labels.min()) < 1:
                    file = self.root / "EMNIST" / "raw" / f"{stem}-labels-idx1-ubyte"
                    raise HwrError(f"{file}: a label 0, but letters start at 1")
                labels = labels - 1
            upright = resize(images.transpose(1, 2).contiguous(), self.preprocess.size)
            sets[part] = CharacterSet(upright, labels, [f"{part} {i}" for i in range(len(labels))])
        return sets, classes[1:] if self.subset_name == "letters" else classes
