"""Character sets in memory and the order in which they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hwr.data.order import Order


class Batch(NamedTuple):
    """What a training step gets.

    Attributes:
        images: uint8 (B, H, W) as loaded, float (B, 1, H, W) once normalised on the device.
        labels: int64 (B,).
        ids: int64 (B,), positions in the split.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor


@dataclass(frozen=True)
class CharacterSet(Dataset[Batch]):
    """One split of a character data set as one uint8 tensor; indexed by a list of positions, it gives a batch.

    Attributes:
        images: uint8 (N, H, W), light ink on black.
        labels: int64 (N,), from 0.
        names: (N,) where each sample comes from, for reports.
        writers: (N,) or None.
    """

    images: Tensor
    labels: Tensor
    names: Sequence[str]
    writers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        ids = torch.as_tensor(positions)
        return Batch(self.images[ids], self.labels[ids], ids)

    def fingerprint(self) -> str:
        """What tells these samples from any others, as hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([list(self.names), self.labels.tolist()]).encode())
        digest.update(self.images.numpy().tobytes())
        return digest.hexdigest()

    def subset(self, positions: np.ndarray) -> CharacterSet:
        """The samples at these positions."""
        ids = torch.from_numpy(positions)
        writers = None if self.writers is None else self.writers[positions]
        return CharacterSet(self.images[ids], self.labels[ids], [self.names[i] for i in positions], writers)


class BatchOrder(Order):
    """Lists the positions of each batch, for this process when there are several.

    In training every epoch is a new order, a function of seed and epoch alone (so that a resumed run sees what an
    unbroken one would), the last incomplete batch is left out, and a batch of ``batch_size`` is shared between the
    processes. Otherwise every sample comes exactly once over all processes, and all processes get equally many batches
    (samples are neither dropped nor repeated to fill up).

    Args:
        n: Number of samples.
        batch_size: Over all processes.
        shuffle: Whether this is training.
        seed: Of the order.
        rank: Of this process.
        world: Number of processes.
        draw: Which positions an epoch of training holds, ``n`` of them; None: 0 to n - 1.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        draw: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.n, self.batch_size, self.shuffle, self.draw = n, min(batch_size, n), shuffle, draw
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        if self.shuffle:
            return self.n // self.batch_size
        return min(-(-self.n // self.batch_size), self.n // self.world)  # no process gets an empty batch

    def batches(self) -> Iterator[Sequence[int]]:
        """See :meth:`Order.batches`."""
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
            order = order if self.draw is None else self.draw(self.epoch)[order]
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                yield order[start + self.rank : start + self.batch_size : self.world].tolist()
        else:
            own = np.arange(self.rank, self.n, self.world)
            yield from (part.tolist() for part in np.array_split(own, len(self)))
