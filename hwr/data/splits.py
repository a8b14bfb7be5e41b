"""Ways to set validation (or test) samples apart from training samples.

A splitter is a function ``(labels, writers) -> indices`` of the samples that leave the training set.
"""

from __future__ import annotations

import numpy as np

from hwr.errors import HwrError, check_seed


def stratified(
    labels: np.ndarray, writers: np.ndarray | None = None, *, size: float | int, seed: int = 0
) -> np.ndarray:
    """Draws samples so that every class keeps its share; with writers, whole writers.

    Args:
        labels: int (N,).
        writers: (N,) or None. When given, no writer is on both sides, and classes are balanced as far
            as that allows.
        size: A share below 1 of the samples, or their number.
        seed: Of the draw; the same seed gives the same split.

    Returns:
        Sorted indices (M,).

    Raises:
        HwrError: If the set is too small to be split.
    """
    n = len(labels)
    wanted = round(n * size) if size < 1 else int(size)
    if not 0 < wanted < n:
        raise HwrError(
            f"cannot set {size} aside from {n} samples; give data.split.size a share below 1 or a smaller number"
        )
    check_seed("data.split.seed", seed)
    rng = np.random.default_rng(seed)
    if writers is not None:
        return _whole_writers(writers, wanted, rng)
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * wanted / n
    take = np.floor(shares).astype(int)
    rest = np.argsort(take - shares, kind="stable")[: wanted - take.sum()]  # largest remainders first
    take[rest] += 1
    take = np.minimum(take, counts - 1)  # a class never leaves training altogether
    if not take.any():
        raise HwrError("every class has a single sample, so none can be set aside; add samples")
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen))


def last(labels: np.ndarray, writers: np.ndarray | None = None, *, size: int) -> np.ndarray:
    """Takes the last ``size`` samples, as many published MNIST figures do. Indices (size,)."""
    if writers is not None:
        raise HwrError("data.split: the last samples may be by writers of the others; use hwr.data.splits.stratified")
    if not 0 < size < len(labels) or size != int(size):
        raise HwrError(
            f"cannot set the last {size} of {len(labels)} samples aside; data.split.size must be a smaller whole number"
        )
    return np.arange(len(labels) - size, len(labels))


def _whole_writers(writers: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    names, counts = np.unique(writers, return_counts=True)
    if len(names) < 2:
        raise HwrError("all samples are by one writer, so they cannot be split by writer; leave the writer column out")
    chosen: list[int] = []
    total = 0
    for i in rng.permutation(len(names)):
        closer = abs(total + counts[i] - wanted) < abs(total - wanted)
        if closer and len(chosen) < len(names) - 1:
            chosen.append(int(i))
            total += counts[i]
    if not chosen:
        chosen = [int(np.argmin(counts))]
    return np.flatnonzero(np.isin(writers, names[chosen]))
