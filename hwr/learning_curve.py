"""Error against the number of labels: what was measured, what a power law makes of it, and how that is told."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from hwr import power_law
from hwr.files import write_json, write_text
from hwr.power_law import Need, PowerLaw

ARMS, START = ("finetune", "scratch"), "start"
NAMES = {"finetune": "fine-tuned", "scratch": "from scratch", START: "start model"}
COLUMNS = ("arm", "labels", "seed", "error", "low", "high", "seconds", "run")


@dataclass(frozen=True)
class Point:
    """One model's error.

    Attributes:
        arm: ``finetune``, ``scratch``, or ``start`` for the start model as it is.
        labels: Trained on.
        seed: Of their draw; None for the start model.
        error: Share of characters that are wrong (lines: the character error rate, which may exceed 1).
        low: Lower end of its 95 % interval, where there is one.
        high: Upper end.
        seconds: Of training.
        run: Its directory.
        metric: ``error`` or ``CER``.
        floor: Half of what one mistake makes.
    """

    arm: str
    labels: int
    seed: int | None
    error: float
    low: float | None
    high: float | None
    seconds: float | None
    run: str
    metric: str = "error"
    floor: float = 1e-6


def point(
    arm: str, labels: int, seed: int | None, scores: Mapping[str, float], seconds: float | None, run: str
) -> Point:
    """A point from the figures that :func:`hwr.experiment.evaluate` gives."""
    if "test/cer" in scores:
        ends = scores.get("test/cer_low"), scores.get("test/cer_high")
        return Point(arm, labels, seed, scores["test/cer"], *ends, seconds, run, "CER", 0.5 / scores["test/characters"])
    error, low, high = (1 - scores[f"test/accuracy{end}"] for end in ("", "_high", "_low"))
    return Point(arm, labels, seed, error, low, high, seconds, run, "error", 0.5 / scores["test/samples"])


@dataclass(frozen=True)
class Curve:
    """All points.

    Attributes:
        points: In the order in which they were measured.
        split: That was scored.
        target: The error that is wanted, if any.
    """

    points: tuple[Point, ...]
    split: str
    target: float | None = None

    def add(self, point: Point) -> Curve:
        """The curve with one point more."""
        return replace(self, points=(*self.points, point))

    @property
    def start(self) -> Point | None:
        """The start model's, if it could be judged."""
        return next((p for p in self.points if p.arm == START), None)

    @property
    def metric(self) -> str:
        """What the error is."""
        return self.points[0].metric if self.points else "error"

    def errors(self, arm: str) -> dict[int, list[float]]:
        """For each number of labels the error of each run."""
        found: dict[int, list[float]] = {}
        for p in self.points:
            if p.arm == arm:
                found.setdefault(p.labels, []).append(p.error)
        return found

    @cached_property
    def laws(self) -> dict[str, PowerLaw]:
        """The power law of each arm that has one."""
        fits = {arm: power_law.fit(self.errors(arm), self._floor) for arm in ARMS}
        return {arm: law for arm, law in fits.items() if law is not None}

    @cached_property
    def needs(self) -> dict[str, Need]:
        """The labels that the target takes, for each arm that says."""
        if self.target is None:
            return {}
        found = {arm: power_law.needed(self.errors(arm), self.target, self._floor) for arm in self.laws}
        return {arm: need for arm, need in found.items() if need is not None}

    def reached(self, arm: str) -> int | None:
        """The fewest labels with which the median of the runs is at the target or below it."""
        at = [n for n, each in self.errors(arm).items() if self.target is not None and median(each) <= self.target]
        return min(at, default=None)

    @property
    def _floor(self) -> float:
        return max(p.floor for p in self.points)


def write(curve: Curve, folder: Path) -> None:
    """Writes ``curve.csv``, ``curve.json``, ``curve.png``; of splits other than val ``curve_SPLIT.csv`` and so on."""
    from hwr.curve_figures import draw
    from hwr.figures import save

    stem = "curve" if curve.split == "val" else f"curve_{curve.split}"
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(p).items()} for p in curve.points)
    write_text(folder / f"{stem}.csv", text.getvalue())
    write_json(folder / f"{stem}.json", summary(curve))
    save(draw(curve), folder / f"{stem}.png")


def summary(curve: Curve) -> dict[str, Any]:
    """What there is to say, as plain containers."""
    found: dict[str, Any] = {"split": curve.split, "metric": curve.metric, "target": curve.target}
    found["start"] = curve.start.error if curve.start else None
    for arm in ARMS:
        errors = sorted(curve.errors(arm).items())
        own: dict[str, Any] = {
            "labels": {
                str(n): {"median": median(each), "low": min(each), "high": max(each), "runs": len(each)}
                for n, each in errors
            },
            "law": asdict(curve.laws[arm]) if arm in curve.laws else None,
        }
        if need := curve.needs.get(arm):
            ends = {k: v if v is None or isfinite(v) else "never" for k, v in need._asdict().items()}
            own["needed"] = {**ends, "measured": errors[0][0] <= need.labels <= errors[-1][0]}
        found[arm] = own
    return found


def told(curve: Curve, arm: str) -> list[str]:
    """The power law of an arm, and the labels that the target takes, in words."""
    sizes = sorted(curve.errors(arm))
    if arm not in curve.laws:
        return [f"{NAMES[arm]}: no power law from fewer than {power_law.SIZES} numbers of labels"] if sizes else []
    law = curve.laws[arm]
    rest = f" + {law.c:.2%}" if law.c else ""
    how = (
        f"typically {law.off:.0%} off"
        if len(sizes) > power_law.SIZES
        else "three unknowns from three numbers of labels"
    )
    lines = [f"{NAMES[arm]}: {curve.metric} = {law.a:.3g} n^-{law.b:.2f}{rest}, {how}"]
    if curve.target is not None and (need := curve.needs.get(arm)):
        reached = curve.reached(arm)
        if reached is None or isfinite(need.labels):
            text = needed(need, law, curve.target, sizes[0], sizes[-1])
        else:
            text = f"is reached with {reached:,} labels, though by the fit it is out of reach"
        lines.append(f"  {percent(curve.target)} {text}")
    if curve.target is not None and arm == "finetune" and curve.start and curve.start.error <= curve.target:
        lines.append("  the start model is there without any")
    return lines


def needed(need: Need, law: PowerLaw, target: float, fewest: int, most: int) -> str:
    """The labels that a target takes, with their interval and where they lie, in words."""
    if isfinite(need.labels):
        text = f"takes about {power_law.shown(need.labels)} labels"
    elif law.c >= target:
        text = f"is out of reach: the fit levels off at {law.c:.2%}"
    else:
        text = f"is out of reach: the fit takes more than {power_law.shown(power_law.MOST)} labels"
    if need.low is None or need.high is None:
        text += " (one seed each: no interval)"
    elif isfinite(need.low):
        end = f"to {power_law.shown(need.high)}" if isfinite(need.high) else "upwards"
        text += f" (95 % interval over seeds: {power_law.shown(need.low)} {end})"
    if isfinite(need.labels) and not fewest <= need.labels <= most:
        end, place = (f"{most:,}", "beyond") if need.labels > most else (f"{fewest:,}", "below")
        text += f", {place} the {end} that were measured"
    return text


def report(curve: Curve, folder: Path) -> None:
    """Prints a table of errors, the power laws, and where everything is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("labels", "seeds", *(f"{curve.metric}, {NAMES[arm]}" for arm in ARMS))
    if curve.start:
        table.add_row("0", "", f"{curve.start.error:.2%} ({NAMES[START]})", "")
    errors = {arm: curve.errors(arm) for arm in ARMS}
    for n in sorted({n for each in errors.values() for n in each}):
        found = [errors[arm].get(n, []) for arm in ARMS]
        table.add_row(f"{n:,}", str(max(map(len, found))), *map(_cell, found))
    console = Console()
    console.print(f"{folder}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    for line in (line for arm in ARMS for line in told(curve, arm)):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"split {curve.split}; medians, with the range over seeds", soft_wrap=True, highlight=False)


def percent(share: float) -> str:
    """To three digits, and no zeros behind."""
    return f"{100 * share:.3g}%"


def _cell(errors: list[float]) -> str:
    if len(errors) < 2:
        return f"{errors[0]:.2%}" if errors else ""
    return f"{median(errors):.2%} ({min(errors):.2%} to {max(errors):.2%})"
