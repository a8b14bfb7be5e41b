"""The figure of error against the number of labels, in the look of :mod:`hwr.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log10
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hwr.figures import BLUE, GREEN, GREY, HEADER, LEGEND, MARGIN, ORANGE, WIDTH, log_axis, new_page, panel
from hwr.learning_curve import ARMS, NAMES, Curve, percent
from hwr.power_law import shown

COLOURS = {"finetune": BLUE, "scratch": ORANGE}
HEIGHT, LEFT = 440, 84  # pixels: of the axes, and before them
FARTHEST = 10  # how many times the largest number of labels a fitted curve goes on towards the target
APART = 46  # pixels between two labels of the x axis


def draw(curve: Curve) -> Figure:
    """Draw the median error at each number of labels with its range over seeds, the fits, the start and the target."""
    errors = {arm: found for arm in ARMS if (found := curve.errors(arm))}
    if not errors:
        return new_page("No curve yet: no run has finished", HEADER)[0]
    sizes = sorted({n for found in errors.values() for n in found})
    figure, _ = new_page(_title(curve, errors), HEADER + 24 + HEIGHT + 56)
    title = f"{curve.metric}, % ({'validation' if curve.split == 'val' else curve.split})"
    axes = panel(figure, LEFT, HEADER + 24, WIDTH - LEFT - MARGIN, HEIGHT, title)
    right = _right(curve, sizes)
    low, high = sizes[0] / 1.25, right * 1.25
    values = [100 * error for found in errors.values() for each in found.values() for error in each]
    values += [100 * curve.start.error] if curve.start else []
    values += [100 * curve.target] if curve.target is not None else []
    zero = log_axis(axes, values)
    if curve.start:
        axes.axhline(max(100 * curve.start.error, zero), color=GREY, linewidth=1, label="start model")
    if curve.target is not None:
        axes.axhline(
            100 * curve.target, color=GREEN, linestyle=":", linewidth=1.4, label=f"target {percent(curve.target)}"
        )
    for place, (arm, found) in enumerate(errors.items()):
        _arm(axes, curve, arm, found, zero, (low, right), 1.01 ** (2 * place - 1))
    if curve.laws:
        axes.plot([], [], "--", color=GREY, linewidth=1, label="power law")
    axes.set(xscale="log", xlim=(low, high))
    _ticks(axes, sizes, low, high)
    axes.set_xlabel("training labels" + "; * beyond what was measured" * ("*" in figure.texts[0].get_text()))
    axes.legend(ncols=6, frameon=False, fontsize=8, labelcolor=GREY, **LEGEND)
    return figure


def _arm(
    axes: Axes,
    curve: Curve,
    arm: str,
    errors: Mapping[int, Sequence[float]],
    zero: float,
    span: tuple[float, float],
    aside: float,
) -> None:
    """Draw one arm, a little aside, so that one does not hide the other."""
    colour, sizes = COLOURS[arm], sorted(errors)
    x = np.array(sizes) * aside
    heights = [np.maximum([100 * error for error in errors[n]], zero) for n in sizes]
    axes.vlines(x, [h.min() for h in heights], [h.max() for h in heights], color=colour, alpha=0.25, linewidth=6)
    for place, each in zip(x, heights, strict=True):
        axes.plot([place] * len(each), each, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0)
    middle = [median(each) for each in heights]
    axes.plot(x, middle, "o-", color=colour, linewidth=1.6, markersize=5, label=NAMES[arm])
    if arm in curve.laws:
        n = np.geomspace(*span, 200)
        axes.plot(n, 100 * curve.laws[arm](n), "--", color=colour, linewidth=1)
    need = curve.needs.get(arm)
    if need is not None and curve.target is not None and span[0] <= need.labels <= span[1]:
        height = 100 * curve.target
        if need.low is not None and need.high is not None:
            ends = np.clip([need.low, need.high], *span)
            axes.hlines(height, *ends, color=colour, linewidth=5, alpha=0.3)
        axes.plot(need.labels, height, "D", color="white", markeredgecolor=colour, markersize=6, zorder=4)


def _title(curve: Curve, errors: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    name = "CER" if curve.metric == "CER" else "error"
    if curve.target is not None and curve.needs:
        parts = [
            f"{_about(need.labels, max(errors[arm]), curve.reached(arm))} {NAMES[arm]}"
            for arm, need in curve.needs.items()
        ]
        return f"Labels for {percent(curve.target)} {name}: {', '.join(parts)}"
    common = sorted(set.intersection(*(set(found) for found in errors.values())))
    if not common:
        return f"{name[0].upper()}{name[1:]} against the number of training labels"
    parts = [f"{percent(median(found[common[0]]))} {NAMES[arm]}" for arm, found in errors.items()]
    return f"{name[0].upper()}{name[1:]} with {common[0]:,} training labels: {', '.join(parts)}"


def _about(labels: float, most: int, reached: int | None) -> str:
    if labels == inf:
        return "out of reach" if reached is None else f"{reached:,}"
    return f"about {shown(labels)}{'*' * (labels > most)}"


def _right(curve: Curve, sizes: Sequence[int]) -> float:
    """The largest number of labels to be drawn: the largest measured, or what the target takes if that is not far."""
    wanted = [need.labels for need in curve.needs.values() if need.labels <= FARTHEST * sizes[-1]]
    return max([float(sizes[-1]), *(1.1 * labels for labels in wanted if labels > sizes[-1])])


def _ticks(axes: Axes, sizes: Sequence[int], low: float, high: float) -> None:
    """Mark the numbers of labels that were measured, and round ones beyond, where their names do not collide."""
    width = WIDTH - LEFT - MARGIN
    scale = width / log10(high / low)
    beyond = [step * 10**power for power in range(9) for step in (1, 2, 5) if sizes[-1] < step * 10**power < high]
    ticks: list[int] = []
    for n in [sizes[-1], *sizes[-2::-1], *beyond]:
        if all(abs(log10(n / other)) * scale >= APART for other in ticks):
            ticks.append(n)
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
