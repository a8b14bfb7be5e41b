"""Lines in memory or in a memory-mapped file, and batches of lines of similar width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hwr.data.lines.items import Rejected
from hwr.data.order import Order
from hwr.text import Charset


class LineBatch(NamedTuple):
    """What a training step gets.

    Attributes:
        images: uint8 (B, H, W) as loaded, padded with 0 on the right; float (B, 1, H, W) once on the device.
        widths: int64 (B,), without the padding.
        targets: int64 (sum of lengths,), the labels of all lines in a row, from 1.
        lengths: int64 (B,), labels of each line.
        ids: int64 (B,), positions in the split.
        views: 2 if the second half of the batch holds the lines of the first once more, changed in another way.
    """

    images: Tensor
    widths: Tensor
    targets: Tensor
    lengths: Tensor
    ids: Tensor
    views: int = 1


class LineSet(Dataset[LineBatch]):
    """One split of a line data set; indexed by a list of positions, it gives a batch.

    Args:
        pixels: uint8 (P,), lines one after the other, each row by row, light ink on black.
        height: Of all lines.
        widths: int64 (N,).
        texts: The transcripts, normalised.
        names: Where each line comes from, for reports.
        writers: Whose hand each is, where known.
        lost: Lines of the split that cannot be read at all; an evaluation counts their texts as wrong.
        starts: int64 (N,), where each line begins in ``pixels``; None means that they fill it in order.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        height: int,
        widths: np.ndarray,
        texts: Sequence[str],
        names: Sequence[str],
        writers: Sequence[str | None],
        lost: Sequence[Rejected] = (),
        starts: np.ndarray | None = None,
    ) -> None:
        self.pixels, self.height, self.widths = pixels, height, np.asarray(widths, np.int64)
        self.texts, self.names, self.writers, self.lost = list(texts), list(names), list(writers), list(lost)
        self.starts = (np.cumsum(self.widths) - self.widths) * height if starts is None else starts
        self.labels: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.widths)

    def encode(self, charset: Charset) -> None:
        """Numbers the characters. Those the charset lacks are left out here; the text keeps them, as errors."""
        self.labels = [np.array(charset.encode(text, skip_unknown=True), np.int64) for text in self.texts]

    def image(self, position: int) -> np.ndarray:
        """One line, uint8 (H, W)."""
        start, width = self.starts[position], self.widths[position]
        return self.pixels[start : start + self.height * width].reshape(self.height, width)

    def fingerprint(self) -> str:
        """What tells these lines from any others, as hexadecimal digits."""
        lost = [(line.name, line.text) for line in self.lost]
        digest = hashlib.sha256(json.dumps([self.names, self.texts, self.widths.tolist(), lost]).encode())
        for i in range(len(self)):
            digest.update(self.image(i).tobytes())
        return digest.hexdigest()

    def subset(self, positions: np.ndarray, lost: Sequence[Rejected] = ()) -> LineSet:
        """The lines at these positions (of the same pixels), with these as lost."""
        texts, names, writers = ([c[i] for i in positions] for c in (self.texts, self.names, self.writers))
        starts = self.starts[positions]
        part = LineSet(self.pixels, self.height, self.widths[positions], texts, names, writers, lost, starts)
        part.labels = [self.labels[i] for i in positions] if self.labels else []
        return part

    def __getitem__(self, positions: Sequence[int]) -> LineBatch:
        return collate([self.image(i) for i in positions], [self.labels[i] for i in positions], positions)


def collate(images: Sequence[np.ndarray], labels: Sequence[np.ndarray], ids: Sequence[int]) -> LineBatch:
    """Pads images uint8 (H, W) of one height on the right and puts everything into tensors."""
    widths = [image.shape[1] for image in images]
    batch = np.zeros((len(images), images[0].shape[0], max(widths)), np.uint8)
    for row, image in enumerate(images):
        batch[row, :, : widths[row]] = image
    return LineBatch(
        torch.from_numpy(batch),
        torch.tensor(widths),
        torch.from_numpy(np.concatenate(labels)),
        torch.tensor([len(label) for label in labels]),
        torch.tensor(list(ids)),
    )


class WidthOrder(Order):
    """Lists the positions of batches of lines of similar width.

    Every line comes exactly once in an epoch over all processes. Each batch is shared between the processes, so that
    all have equally many batches and none an empty one. In training batches are made up anew and come in random order,
    a function of seed and epoch alone; otherwise the widest come first.

    Args:
        widths: int (N,), in pixels.
        columns: Most columns of pixels of a batch over all processes, padding included. A wider line comes alone; with
            several processes a batch has a line for each all the same.
        shuffle: Whether this is training.
        seed: Of the order.
        rank: Of this process.
        world: Number of processes.
        endless: Positions go on with N in the second epoch instead of starting at 0, for lines that are made up.
        draw: Which positions an epoch of training holds; None: each once. Batches have the sizes that the first epoch
            needs, so that later ones, whose lines have other widths, may exceed ``columns`` a little.
    """

    SPREAD = 1.1  # how much narrower a line may be than one before it, in training

    def __init__(
        self,
        widths: np.ndarray,
        columns: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        endless: bool = False,
        draw: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.widths, self.shuffle, self.seed, self.endless = np.asarray(widths), shuffle, seed, endless
        self.rank, self.world, self.draw = rank, world, draw
        first = self.widths if draw is None else self.widths[draw(0)]
        self.sizes = self._sizes(first, columns / self.SPREAD if shuffle else columns)

    def _sizes(self, widths: np.ndarray, columns: float) -> list[int]:
        """Lines of each batch, the widest first."""
        sizes: list[int] = []
        left = np.sort(widths)[::-1].tolist()
        while left:
            size = min(len(left), max(self.world, int(columns // max(1, left[0]))))
            sizes.append(size)
            left = left[size:]
        if len(sizes) > 1 and (lacking := self.world - sizes[-1]) > 0:
            if sizes[-2] - lacking >= self.world:
                sizes[-2:] = [sizes[-2] - lacking, self.world]
            else:
                sizes[-2:] = [sizes[-2] + sizes[-1]]
        return sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def batches(self) -> Iterator[Sequence[int]]:
        """See :meth:`Order.batches`."""
        chosen = np.arange(len(self.widths)) if self.draw is None else self.draw(self.epoch)
        keys = self.widths[chosen].astype(float)
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.shuffle:  # a line is at most SPREAD times narrower than its place says, so no batch grows too large
            keys = keys * rng.uniform(1, self.SPREAD, len(keys))
        order = chosen[np.argsort(-keys, kind="stable")]
        batches = np.split(order, np.cumsum(self.sizes)[:-1])
        offset = self.epoch * len(order) if self.endless else 0
        for i in rng.permutation(len(batches)) if self.shuffle else range(len(batches)):
            yield (batches[i][self.rank :: self.world] + offset).tolist()
