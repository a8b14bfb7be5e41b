"""Parallel coordinates: an axis for each swept key and each objective, a line for each finished trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hwr.sweeps.leaderboard import SEED, Objective, Setting, overrides, written
from hwr.sweeps.report_svg import CARD, LINE, MUTED, TOP, WIDE, Chart, colour, drawing, faint, logarithmic, mark

NARROWEST = 120  # points between two axes
NAMED = 12  # most values of an axis that are all named
LONGEST = 20  # characters of a name


@dataclass(frozen=True)
class Scale:
    """An axis of values.

    Attributes:
        places: For each value that occurs its height, from 0 to 1.
        ticks: Heights that are named, and their names.
    """

    places: Mapping[str, float]
    ticks: Mapping[float, str]

    @classmethod
    def of(cls, values: Sequence[str], log: bool | None = None, downward: bool = False) -> Scale:
        """An axis of numbers where all values are, else of names.

        Args:
            values: As they are written.
            log: Whether the axis is logarithmic; None: if the values spread so far.
            downward: Whether less is further up.
        """
        distinct = list(dict.fromkeys(values))
        numbers = [_number(value) for value in distinct]
        if any(number is None for number in numbers):
            heights = [0.5 if len(distinct) == 1 else i / (len(distinct) - 1) for i in range(len(distinct))]
            step = math.ceil(len(distinct) / NAMED)
            return cls(
                dict(zip(distinct, heights, strict=True)), dict(zip(heights[::step], distinct[::step], strict=True))
            )
        known = [number for number in numbers if number is not None]
        log = logarithmic(known) if log is None else log
        low, high = min(known), max(known)

        def height(number: float) -> float:
            if low == high:
                return 0.5
            a, b, x = (math.log(v) if log else v for v in (low, high, number))
            return (b - x if downward else x - a) / (b - a)

        places = {value: height(number) for value, number in zip(distinct, known, strict=True)}
        if len(distinct) <= NAMED // 2:
            return cls(places, {place: value for value, place in places.items()})
        ticks = (LogLocator() if log else MaxNLocator(6)).tick_values(low, high)
        ticks = [tick for tick in ticks if low <= tick <= high]
        ends = [low, high] * (len(ticks) < 2)  # a logarithmic axis of less than a power of ten
        return cls(places, {height(tick): written(tick) for tick in [*ticks, *ends]})


def parallel(trials: Sequence[tuple[Setting, FrozenTrial]], wanted: Sequence[Objective]) -> Chart:
    """The chart, or why there is none.

    Args:
        trials: Those drawn last lie on top.
        wanted: The objectives.
    """
    title = "All choices at a glance"
    done = [(one, t) for one, t in trials if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))]
    if not done:
        return Chart(title, "No trial has finished with a number.")
    chosen = [overrides(trial) for _, trial in done]
    keys = [key for key in dict.fromkeys(k for each in chosen for k in each) if key != SEED]
    keys = [key for key in keys if len({each.get(key) for each in chosen}) > 1]
    if not keys:
        return Chart(title, "The finished trials differ in nothing but their seed.")
    columns = [[each.get(key, "–") for each in chosen] for key in keys]
    scales = [Scale.of(sorted(column, key=_order), _log(key, done)) for key, column in zip(keys, columns, strict=True)]
    for i, objective in enumerate(wanted):
        columns.append([f"{trial.values[i]:.6g}" for _, trial in done])
        scales.append(Scale.of(columns[-1], downward=objective.minimize))
    heights = [[scale.places[value] for value in column] for scale, column in zip(scales, columns, strict=True)]
    size = (max(WIDE[0], NARROWEST * len(scales)), WIDE[1])
    with drawing(title, size) as (axes, svg):
        for (setting, trial), line in zip(done, zip(*heights, strict=True), strict=True):
            _line(axes, line, setting, trial, faint(len(done)))
        for x, (name, scale) in enumerate(zip([*keys, *(one.name for one in wanted)], scales, strict=True)):
            _axis(axes, x, name.replace(".", ".\n"), scale)
        axes.set(xlim=(-0.35, len(scales) - 0.65), ylim=(-0.06, 1.06))
        axes.set_axis_off()
        note = "A line for each finished trial, in the colour of its setting; better is further up on the right."
        return Chart(title, note, svg(), wide=True)


def _line(axes: Axes, heights: Sequence[float], setting: Setting, trial: FrozenTrial, rest: float) -> None:
    points, codes = [(0.0, heights[0])], [Path.MOVETO]
    for x, (a, b) in enumerate(pairwise(heights)):
        points += [(x + 0.4, a), (x + 0.6, b), (x + 1.0, b)]
        codes += [Path.CURVE4] * 3
    width, alpha = (2.0, 0.9) if colour(setting) in TOP else (1.0, rest)
    style = {"edgecolor": colour(setting), "linewidth": width, "alpha": alpha, "gid": mark(setting, trial)}
    axes.add_patch(PathPatch(Path(points, codes), facecolor="none", **style))


def _axis(axes: Axes, x: int, name: str, scale: Scale) -> None:
    axes.plot([x, x], [0, 1], color=LINE, linewidth=1.2, zorder=3)
    axes.text(x, 1.09, name, ha="center", va="bottom", weight="bold")
    for height, text in scale.ticks.items():
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
        axes.plot(x, height, "_", color=MUTED, markersize=5, zorder=3)
        box = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1}
        axes.text(x + 0.03, height, text, color=MUTED, va="center", size=10, zorder=4, bbox=box)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _order(text: str) -> tuple[bool, float, str]:
    number = _number(text)
    return number is None, number or 0.0, text


def _log(key: str, done: Sequence[tuple[Setting, FrozenTrial]]) -> bool | None:
    """Whether values were drawn on a logarithmic scale; None if they were not drawn from an interval."""
    found = (each for _, trial in done for name, each in trial.distributions.items() if name.lstrip("+") == key)
    return next((each.log for each in found if isinstance(each, FloatDistribution | IntDistribution)), None)
