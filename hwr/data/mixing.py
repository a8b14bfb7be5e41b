"""Epochs that are not each training sample once: rare classes oftener, samples of other data among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hwr.data.batches import CharacterSet
from hwr.data.lines.batches import LineBatch, LineSet, collate
from hwr.errors import HwrError


class Draw:
    """Which training samples an epoch holds: a function of seed and epoch alone.

    Args:
        own: Number of training samples, N.
        weights: Float (N,): N samples are drawn with replacement, in proportion; None takes each once.
        others: Number of samples of other data, M, which have the positions N to N + M.
        share: Of an epoch that are drawn from the others, without replacement while they last.
        seed: Of the draw.
    """

    def __init__(
        self, own: int, weights: np.ndarray | None = None, others: int = 0, share: float = 0.0, seed: int = 0
    ) -> None:
        self.own, self.others, self.seed = own, others, seed
        self.weights = None if weights is None else weights / weights.sum()
        self.replayed = round(own * share / (1 - share)) if others else 0

    def __len__(self) -> int:
        return self.own + self.replayed

    def __call__(self, epoch: int) -> np.ndarray:
        """Positions int64 (len,) of an epoch."""
        rng = np.random.default_rng((self.seed, epoch, 1))
        own = np.arange(self.own)
        if self.weights is not None:
            own = rng.choice(self.own, self.own, p=self.weights)
        rounds = -(-self.replayed // max(1, self.others))
        others = np.concatenate([np.zeros(0, int), *(rng.permutation(self.others) for _ in range(rounds))])
        return np.concatenate([own, self.own + others[: self.replayed]])


def class_weights(labels: Tensor) -> np.ndarray:
    """Float (N,): samples of every class together weigh the same."""
    counts = torch.bincount(labels)
    return (1.0 / counts[labels].double()).numpy()


def rarity(texts: Sequence[str]) -> np.ndarray:
    """Float (N,): the mean over a line's characters of one over the square root of how often each occurs in all."""
    counts = Counter(character for text in texts for character in text)
    return np.array([np.mean([counts[c] ** -0.5 for c in text]) if text else 0.0 for text in texts])


def check_share(share: float) -> None:
    """Raises :class:`HwrError` if it is no share of an epoch that leaves room for the data itself."""
    if not 0 <= share < 1:
        raise HwrError(f"replay={share}: a share of the epoch is needed, at least 0 and below 1")


def joined_characters(one: CharacterSet, other: CharacterSet) -> CharacterSet:
    """Both sets, one after the other, with the classes of both numbered alike already.

    Where the writers of one alone are known, each of the other's samples counts as by a writer of its own.
    """
    images, labels = torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels])
    writers = None
    if one.writers is not None:
        writers = np.concatenate([one.writers, other.names if other.writers is None else other.writers])
    return CharacterSet(images, labels, [*one.names, *other.names], writers)


class JoinedLines(Dataset[LineBatch]):
    """Several sets of lines of one height, one after the other; indexed by a list of positions, it gives a batch."""

    def __init__(self, *parts: LineSet) -> None:
        self.parts = parts
        self.widths = np.concatenate([part.widths for part in parts])
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, positions: Sequence[int]) -> LineBatch:
        images, labels = [], []
        for position in positions:
            number = int(np.searchsorted(self._ends, position, side="right"))
            part = self.parts[number]
            inside = position - int(self._ends[number]) + len(part)
            images.append(part.image(inside))
            labels.append(part.labels[inside])
        return collate(images, labels, positions)
