"""Training on only some of the labels: draws that are nested, so that error against their number is one curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwr.errors import HwrError, check_seed


def choose(
    labels: int, classes: npt.NDArray[np.integer], seed: int, among: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.int64]:
    """Draws training samples, from all classes as equally as can be.

    For one seed the first 50 are among the first 200, and so on: every class is shuffled, and the classes are dealt out
    in rounds, each in a random order.

    Args:
        labels: How many to draw.
        classes: int (N,), the class of each sample; all alike where there are none.
        seed: Of the draw.
        among: Positions of the samples to draw from; all others come on top. None: all are drawn from.

    Returns:
        Sorted positions int64 (labels,), or more by those that come on top.

    Raises:
        HwrError: If there are fewer than that, or it is no number to train on.
    """
    if among is not None:
        others = np.setdiff1d(np.arange(len(classes)), among)
        return np.union1d(among[choose(labels, classes[among], seed)], others)
    if isinstance(labels, bool) or not isinstance(labels, int) or labels < 0:
        raise HwrError(f"data.labels={labels}: a whole number of training labels is needed, or null for all")
    if labels == 0:
        raise HwrError("data.labels=0: nothing to learn from; judge the start model as it is with hwr.eval")
    if labels == 1:
        raise HwrError("data.labels=1: one label teaches nothing; at least 2 are needed")
    if labels > len(classes):
        raise HwrError(f"data.labels={labels}: there are {len(classes)} training labels; give fewer, or null for all")
    check_seed("data.labels_seed", seed)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    _, counts = np.unique(classes, return_counts=True)
    rounds = np.concatenate([np.arange(count) for count in counts])
    order = by_class[np.lexsort((rng.random(len(classes)), rounds))]
    return np.sort(order[:labels])
