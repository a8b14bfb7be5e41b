"""MNIST, and what it shares with the other data sets that torchvision downloads in IDX files."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.errors import HwrError


def read_idx(
    make: Callable[..., Any], name: str, root: Path, files: Sequence[str], download: bool, source: str
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Reads one part of a torchvision IDX data set, downloading it first where needed.

    Args:
        make: ``torchvision.datasets.X`` with everything but ``root`` and ``download`` given.
        name: Of the data set, as torchvision's folder.
        root: Where data sets live; the files are in ``root/name/raw``.
        files: The files this part needs.
        download: Whether a missing file may be fetched.
        source: Where a person finds the files, for the error message.

    Returns:
        Images uint8 (N, 28, 28), labels int64 (N,), and torchvision's class names.

    Raises:
        HwrError: If files are missing and cannot be downloaded, or are damaged.
    """
    raw = root / name / "raw"
    missing = [f for f in files if not (raw / f).is_file()]
    where = f"get them from {source} and put them, unzipped, into {raw} (data.root or $HWR_DATA_DIR says where)"
    if missing and not download:
        raise HwrError(f"{name}: no {', '.join(missing)} in {raw}; {where}, or say data.download=true")
    if missing:
        made = [folder for folder in (raw, raw.parent, root) if not folder.exists()]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                make(root=str(root), download=True)
        except Exception as error:
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                for folder in made:
                    folder.rmdir()
            locked = isinstance(error, PermissionError)
            why = f"missing, and {raw} cannot be written" if locked else "could not be downloaded (no network?)"
            raise HwrError(f"{name}: {', '.join(missing)} {why}; {where}") from None
    for file, kind in zip(files, ("images", "labels") * (len(files) // 2), strict=True):
        check_idx(raw / file, 3 if kind == "images" else 1)
    data = make(root=str(root), download=False)
    images, labels = data.data, data.targets.long()
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise HwrError(
            f"{name}: {raw} holds {tuple(images.shape)} images and {len(labels)} labels, not N x 28 x 28 and N; "
            "a file is of another set"
        )
    return images, labels, list(data.classes)


def check_idx(path: Path, dimensions: int) -> None:
    """Raises :class:`HwrError` unless the file is as long as its IDX header says, with so many dimensions of bytes."""
    try:
        with path.open("rb") as file:
            header = file.read(4 * (dimensions + 1))
    except PermissionError:
        raise HwrError(f"{path}: cannot be read: permission denied") from None
    sizes = [int.from_bytes(header[i : i + 4], "big") for i in range(4, 4 * (dimensions + 1), 4)]
    size = 4 * (dimensions + 1) + math.prod(sizes)
    if header[:4] != bytes([0, 0, 8, dimensions]) or path.stat().st_size != size:
        raise HwrError(
            f"{path}: not an IDX file of {dimensions} dimensions, or damaged or cut short; delete it and fetch it again"
        )


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, H, W) -> uint8 (N, size, size), antialiased."""
    if images.shape[1:] == (size, size):
        return images
    chunks = [
        F.interpolate(part[:, None].float(), (size, size), mode="bilinear", antialias=True)
        for part in torch.split(images, 4096)
    ]
    return torch.cat([chunk[:, 0].round().byte() for chunk in chunks])


class MNIST(CharacterDataModule):
    """MNIST: 60,000 training and 10,000 test digits (LeCun, Cortes, Burges), CC BY-SA 3.0.

    Args:
        root: Where data sets live: the four files are in ``root/MNIST/raw``.
        download: Whether torchvision may download (and verify) missing files.
        kwargs: See :class:`CharacterDataModule`.
    """

    def __init__(self, root: str, download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.download = Path(root).expanduser(), download

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Reads both official parts."""
        from torchvision.datasets import MNIST as Files

        sets = {}
        files = [f"{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for split in ("train", "test"):
            images, labels, _ = read_idx(
                partial(Files, train=split == "train"),
                "MNIST",
                self.root,
                files,
                self.download,
                "http://yann.lecun.com/exdb/mnist or a mirror of it",
            )
            names = [f"{split} {i}" for i in range(len(labels))]
            sets[split] = CharacterSet(resize(images, self.preprocess.size), labels, names)
        return sets, [str(i) for i in range(10)]
