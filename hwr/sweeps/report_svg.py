"""Charts as SVG that takes its colours and its type from the page around it.

matplotlib lays them out in stand-in colours, which become CSS variables. What belongs to a setting carries its rank in
``data-rank``, so that the page can light it up everywhere.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from optuna.trial import FrozenTrial

from hwr.sweeps.leaderboard import Setting, written

INK, MUTED, LINE, REST, BAD, CARD = "#000001", "#000002", "#000003", "#000004", "#000005", "#000006"
TOP = ("#000011", "#000012", "#000013", "#000014", "#000015")  # the best settings, each the same in every chart
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", REST: "rest", BAD: "bad", CARD: "card"}
VARIABLES |= {stand_in: f"c{number}" for number, stand_in in enumerate(TOP, start=1)}
HALF, WIDE = (480, 300), (1000, 340)  # points, which the page shows as about as many pixels
SPREAD = 10  # a ratio of largest to smallest that asks for a logarithmic axis
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True)
class Chart:
    """One figure of the page.

    Attributes:
        title: Above it.
        note: Below it: what is drawn, or why nothing is.
        svg: Empty where there is nothing to draw.
        wide: Takes the whole width of the page.
    """

    title: str
    note: str
    svg: str = ""
    wide: bool = False


@contextmanager
def drawing(title: str, size: tuple[float, float]) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and what gives their SVG, to be called before the block ends.

    Args:
        title: Said to those who do not see the chart.
        size: Width and height in points.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page has other fonts than matplotlib
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
        yield figure.add_subplot(), lambda: _svg(figure, title)


def mark(setting: Setting, trial: FrozenTrial | None = None) -> str:
    """The ``gid`` of what belongs to a setting, or to one of its trials."""
    return f"rank-{setting.rank}-{'' if trial is None else trial.number}"


def colour(setting: Setting) -> str:
    """Of everything that belongs to a setting."""
    return TOP[setting.rank - 1] if setting.rank <= len(TOP) and setting.finished else REST


def faint(number: int) -> float:
    """The opacity of lines that are not among the best, so many of them that they would hide the others."""
    return max(0.1, min(0.55, 30 / number))


def logarithmic(values: Sequence[float]) -> bool:
    """Whether finite values spread so far that they are better seen on a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= SPREAD


def spread(axes: Axes, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with numbers as people write them."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: written(value))
    axis.set_minor_locator(NullLocator())


def whole(axes: Axes, numbers: Sequence[float]) -> None:
    """Makes the x axis one of whole numbers, however few there are."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if len(set(numbers)) == 1:
        axes.set_xlim(numbers[0] - 1, numbers[0] + 1)


def _svg(figure: Figure, title: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = re.sub(r'<g id="rank-(\d+)-(\d*)">', r'<g class="mark" data-rank="\1" data-trial="\2">', out.getvalue())
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])
    text = re.sub(r"(?<=: )#0000[01]\d", lambda found: f"var(--{VARIABLES.get(found[0], 'ink')})", text)
    width, height = figure.get_size_inches() * 72
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(title)}">'
    return head + text[text.index(">") + 1 :]
