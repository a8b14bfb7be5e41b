"""Error against the number of labels as a power law, and the labels that a target error takes. Nothing but numpy.

Hestness et al. 2017 (arXiv:1712.00409) and Rosenfeld et al. 2020 (arXiv:1909.12673) found that error falls like
``a * n ** -b + c`` over orders of magnitude once learning has begun; with few labels, where a model does little better
than guessing, it does not, and :attr:`PowerLaw.off` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SIZES = 3  # fewest numbers of labels that three unknowns can be found from
STEEPEST = 5.0  # largest exponent that is looked for
DRAWS = 1000  # of the bootstrap
STEPS = 100  # of the search
MOST = 1e9  # labels; beyond there is nobody to write them, and no fit to be believed


class Need(NamedTuple):
    """The labels that a target takes; infinite if it is not to be reached.

    Attributes:
        labels: By the fit to all runs.
        low: Lower end of the 95 % interval; None where no number of labels has several seeds.
        high: Upper end.
    """

    labels: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PowerLaw:
    """``a * n ** -b + c``, with a > 0, b >= 0 and c >= 0.

    Attributes:
        a: Error at one label, above ``c``.
        b: How steeply it falls.
        c: What no number of labels takes away.
        off: By what share the means of the runs at a number of labels are typically off the curve (root mean square, in
            log space).
    """

    a: float
    b: float
    c: float
    off: float = 0.0

    def __call__(self, n: npt.ArrayLike) -> Floats:
        """The error at numbers of labels."""
        values: Floats = self.a * np.asarray(n, np.float64) ** -self.b + self.c
        return values

    def labels(self, target: float) -> float:
        """The labels at which the error falls to ``target``; infinite beyond :data:`MOST`."""
        if target <= self.c:
            return inf
        if self.b == 0:
            return inf if target < self.a + self.c else 1.0
        logarithm = (np.log(self.a) - np.log(target - self.c)) / self.b
        return float(np.exp(logarithm)) if logarithm <= np.log(MOST) else inf


def fit(errors: Mapping[int, Sequence[float]], floor: float = 1e-6) -> PowerLaw | None:
    """Least squares in log space, every run counting once.

    Args:
        errors: For each number of labels the error of each run.
        floor: An error below it counts as this much: half of what one mistake makes, say, for a run without any.

    Returns:
        None if there are fewer than three numbers of labels.
    """
    if len(errors) < SIZES:
        return None
    sizes, means, counts = _summary(errors, floor)
    a, b, c = (float(values[0]) for values in _fit(sizes, means[None], counts))
    law = PowerLaw(a, b, c)
    residuals = means - np.log(law(sizes))
    return PowerLaw(a, b, c, float(np.expm1(np.sqrt((counts * residuals**2).sum() / counts.sum()))))


def needed(errors: Mapping[int, Sequence[float]], target: float, floor: float = 1e-6, seed: int = 0) -> Need | None:
    """The labels that a target error takes, with a 95 % interval over seeds.

    The interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over the runs of each number of
    labels. With three seeds it is rather too narrow, and of the form of the curve it knows nothing.

    Args:
        errors: See :func:`fit`.
        target: The error that is wanted.
        floor: See :func:`fit`.
        seed: Of the bootstrap.
    """
    law = fit(errors, floor)
    if law is None:
        return None
    labels = law.labels(target)
    if max(map(len, errors.values())) < 2:
        return Need(labels)
    sizes, _, counts = _summary(errors, floor)
    rng = np.random.default_rng(seed)
    drawn = [np.log(np.maximum(errors[int(n)], floor)) for n in sizes]
    means = np.stack([rng.choice(runs, (DRAWS, len(runs))).mean(1) for runs in drawn], axis=1)
    found = np.array([PowerLaw(*values).labels(target) for values in zip(*_fit(sizes, means, counts), strict=True)])
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")  # between two infinities there is no other
    return Need(labels, float(low), float(high))


def _summary(errors: Mapping[int, Sequence[float]], floor: float) -> tuple[Floats, Floats, Floats]:
    """Numbers of labels (S,), ascending, the mean log errors (S,) there, and how many runs (S,)."""
    sizes = sorted(errors)
    if min(map(len, errors.values())) < 1 or sizes[0] < 1:
        raise ValueError("every number of labels must be positive and have an error")
    means = [float(np.log(np.maximum(errors[n], floor)).mean()) for n in sizes]
    return np.array(sizes, float), np.array(means), np.array([len(errors[n]) for n in sizes], float)


def _fit(sizes: Floats, means: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Fits log errors (D, S) at sizes (S,), the squares weighted by counts (S,); gives a, b, c, each (D,).

    With ``r = c / a`` the model is ``log a + log(n ** -b + r)``, whose best ``log a`` is a mean. That leaves b and
    log r: from the best of a grid a damped Gauss-Newton search (Marquardt 1963) goes down the valley in which they lie.
    """
    weights = counts / counts.sum()
    scale = np.exp(weights @ np.log(sizes))
    x = np.log(sizes / scale)
    grid_b, grid_r = (g.ravel() for g in np.meshgrid(np.linspace(0, STEEPEST, 41), np.linspace(-8, 4, 25)))
    shapes = np.logaddexp(-grid_b[:, None] * x, grid_r[:, None])  # (G, S)
    loss = np.stack([_loss(row - shapes, weights) for row in means])  # (D, G)
    place = loss.argmin(1)
    b, log_r, best = grid_b[place], grid_r[place], loss.min(1)
    damping = np.full(len(means), 1e-3)
    for _ in range(STEPS):
        shapes = np.logaddexp(-b[:, None] * x, log_r[:, None])
        rest = np.exp(log_r[:, None] - shapes)  # r / (n ** -b + r)
        slopes = np.stack([_centred(-x * (1 - rest), weights), _centred(rest, weights)], axis=2)  # (D, S, 2)
        weighted = slopes * weights[:, None]
        normal = np.einsum("dsi,dsj->dij", weighted, slopes)
        damped = normal + (damping[:, None, None] * normal + 1e-15) * np.eye(2)
        step = np.linalg.solve(damped, np.einsum("dsi,ds->di", weighted, _centred(means - shapes, weights))[..., None])
        new_b, new_r = np.clip(b + step[:, 0, 0], 0, STEEPEST), np.clip(log_r + step[:, 1, 0], -30, 30)
        loss = _loss(means - np.logaddexp(-new_b[:, None] * x, new_r[:, None]), weights)
        better = loss < best
        b, log_r, best = (np.where(better, *pair) for pair in ((new_b, b), (new_r, log_r), (loss, best)))
        damping = np.where(better, damping / 5, np.minimum(damping * 3, 1e9))
    # Without a rest: a line through the logarithms.
    spread = weights @ x**2
    slope = np.clip(-_centred(means, weights) @ (weights * x) / spread, 0, STEEPEST)
    r = np.where(_loss(means + slope[:, None] * x, weights) <= best + 1e-12, 0.0, np.exp(log_r))
    b = np.where(r == 0, slope, b)
    shapes = np.log(np.exp(-b[:, None] * x) + r[:, None])
    a = np.exp((means - shapes) @ weights)
    return a * scale**b, b, a * r


def _centred(values: Floats, weights: Floats) -> Floats:
    """Values (..., S) less their weighted mean over the last axis."""
    centred: Floats = values - (values @ weights)[..., None]
    return centred


def _loss(residuals: Floats, weights: Floats) -> Floats:
    """Weighted mean square about the weighted mean, over the last axis."""
    squares: Floats = _centred(residuals, weights) ** 2 @ weights
    return squares


def shown(labels: float) -> str:
    """A number of labels to two digits, as nobody knows it better."""
    digits = max(0, len(str(int(labels))) - 2)
    return f"{int(round(labels, -digits)):,}"
