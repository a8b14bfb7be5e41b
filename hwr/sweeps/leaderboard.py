"""What a sweep found: trials that differ only in their seed make one setting, and settings are ranked."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import ArrayLike
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t as student

CONFIDENCE = 0.95  # of the intervals
SEED = "seed"  # the swept key in which the replicas of a setting differ
OF_SWEEPS = ("hydra", "sweep")  # keys that a single run has no use for, and those below them


@dataclass(frozen=True)
class Objective:
    """What the sweep looks at.

    Attributes:
        name: Of the metric.
        minimize: Whether less is better, rather than more.
    """

    name: str
    minimize: bool


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: NaN where there is nothing to average.
        half: The 95 % interval (Student's t) is ``mean`` plus and minus this; NaN with fewer than two seeds.
    """

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value a seed; a value that is not finite makes the mean so."""
        n = len(values)
        mean = sum(values) / n if n else math.nan
        if n < 2 or not math.isfinite(mean):
            return cls(mean, math.nan)
        quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
        return cls(mean, quantile * statistics.stdev(values) / math.sqrt(n))

    def __str__(self) -> str:
        """Two digits of the uncertainty, and as many decimals of the mean."""
        if not math.isfinite(self.half):
            return written(self.mean)
        if not self.half:
            return f"{written(self.mean)} ± 0"
        decimals = max(0, 1 - math.floor(math.log10(self.half)))
        return f"{self.mean:,.{decimals}f} ± {self.half:,.{decimals}f}"


@dataclass(frozen=True)
class Setting:
    """One choice of the swept keys, trained with one or several seeds.

    Attributes:
        rank: From 1; settings without a finished trial come last.
        front: Whether no other is at least as good in every objective and better in one: with one objective, the best.
        values: By swept key, the seed apart.
        trials: Every attempt, whatever came of it.
        estimates: By metric; those of the objectives come first.
        seconds: Mean time of a finished trial, NaN if unknown.
    """

    rank: int
    front: bool
    values: Mapping[str, str]
    trials: tuple[FrozenTrial, ...]
    estimates: Mapping[str, Estimate]
    seconds: float

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that count, one a seed."""
        return _replicas(self.trials)

    def count(self, state: TrialState) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)


def objectives(study: optuna.Study) -> list[Objective]:
    """The objectives of a study, by the names that the sweep gave them."""
    minimize = [direction == optuna.study.StudyDirection.MINIMIZE for direction in study.directions]
    names = [str(name) for name, *_ in study.user_attrs.get("objectives", [])] or study.metric_names or []
    if len(names) != len(minimize):
        names = ["objective"] if len(minimize) == 1 else [f"objective {i}" for i in range(1, len(minimize) + 1)]
    return [Objective(*pair) for pair in zip(names, minimize, strict=True)]


def settings(study: optuna.Study) -> list[Setting]:
    """All settings of a study, the best first.

    With several objectives the Pareto front comes first, then what would be the front without it, and so on; within
    each the first objective decides.

    Args:
        study: Of a sweep. Trials that have not ended are left out.
    """
    groups: dict[tuple[tuple[str, str], ...], list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            values = {key: value for key, value in overrides(trial).items() if key != SEED}
            groups.setdefault(tuple(sorted(values.items())), []).append(trial)
    wanted = objectives(study)
    order = _keys(trial for trials in groups.values() for trial in trials)
    found = [(dict(sorted(key, key=lambda pair: order.index(pair[0]))), trials) for key, trials in groups.items()]
    estimates = [_estimates(_replicas(trials), wanted) for _, trials in found]
    costs = np.array([[_cost(one[o.name].mean, o.minimize) for o in wanted] for one in estimates])
    levels = fronts(costs) if found else []
    places = sorted(range(len(found)), key=lambda i: (levels[i], *costs[i]))
    return [
        Setting(
            rank,
            levels[i] == 0 and bool(np.isfinite(costs[i]).any()),
            found[i][0],
            tuple(found[i][1]),
            estimates[i],
            Estimate.of(_known([trial.user_attrs for trial in _replicas(found[i][1])], "seconds")).mean,
        )
        for rank, i in enumerate(places, start=1)
    ]


def fronts(costs: ArrayLike) -> list[int]:
    """For each row of costs (N, objectives), less being better: 0 on the Pareto front, 1 on that of the others, ..."""
    rows = np.asarray(costs, dtype=float)
    if rows.shape[1] == 1:
        return [int(level) for level in np.unique(rows, return_inverse=True)[1].ravel()]
    beats = np.logical_and((rows[:, None] <= rows[None]).all(-1), (rows[:, None] < rows[None]).any(-1))
    levels, left = np.zeros(len(rows), dtype=int), np.ones(len(rows), dtype=bool)
    while left.any():
        front = left & ~beats[left].any(0)
        left &= ~front
        levels[left] += 1
    return [int(level) for level in levels]


def written(number: float) -> str:
    """Four digits, but all of a large whole number."""
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e12 else f"{number:.4g}"


def overrides(trial: FrozenTrial) -> dict[str, str]:
    """The swept keys of a trial and their values, as they are typed."""
    typed = trial.user_attrs.get("overrides")
    pairs = (
        [str(word).partition("=") for word in typed] if typed else [(k, "=", str(v)) for k, v in trial.params.items()]
    )
    return {key.lstrip("+"): value for key, _, value in pairs}


def command(study: optuna.Study, setting: Setting) -> str:
    """What to type for one run with a setting (and the first seed that finished with it)."""
    trial = [*setting.finished, *setting.trials][0]
    swept = overrides(trial)
    words = [str(word) for word in study.user_attrs.get("command", [])]
    if not words and "experiment" in study.user_attrs:
        words = [f"experiment={study.user_attrs['experiment']}"]
    kept = [word for word in words if not _of_sweep(word, swept)]
    own = [str(word) for word in trial.user_attrs.get("overrides", [])] or [f"{k}={v}" for k, v in swept.items()]
    return shlex.join(["python", "-m", "hwr.train", *kept, *own])


def rows(study: optuna.Study, ranked: Sequence[Setting]) -> list[dict[str, Any]]:
    """The table ``leaderboard.csv``: NaN and what is not known are empty."""
    keys = list(dict.fromkeys(key for one in ranked for key in one.values))
    names = list(dict.fromkeys(name for one in ranked for name in one.estimates))
    table = []
    for one in ranked:
        row: dict[str, Any] = {"rank": one.rank}
        row |= {"pareto_front": one.front} if len(study.directions) > 1 else {}
        row |= {key: one.values.get(key, "") for key in keys}
        row |= {
            "seeds": len(one.finished),
            "pruned": one.count(TrialState.PRUNED),
            "failed": one.count(TrialState.FAIL),
        }
        for name in names:
            estimate = one.estimates.get(name, Estimate.of([]))
            row |= {name: _cell(estimate.mean), f"{name} ± 95 %": _cell(estimate.half)}
        row |= {"seconds": _cell(one.seconds), "command": command(study, one)}
        table.append(row)
    return table


def _replicas(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Of the finished trials the last with each seed, so that one run repeated is not taken for two."""
    return list({overrides(t).get(SEED): t for t in trials if t.state == TrialState.COMPLETE}.values())


def _estimates(trials: Sequence[FrozenTrial], wanted: Sequence[Objective]) -> dict[str, Estimate]:
    found = {o.name: Estimate.of([trial.values[i] for trial in trials]) for i, o in enumerate(wanted)}
    names = dict.fromkeys(name for trial in trials for name in trial.user_attrs.get("metrics", {}))
    for name in names:
        if name not in found:
            found[name] = Estimate.of(_known([trial.user_attrs.get("metrics", {}) for trial in trials], name))
    return found


def _known(facts: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(each[name]) for each in facts if each.get(name) is not None]


def _keys(trials: Iterable[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(key for trial in trials for key in overrides(trial)))


def _cost(value: float, minimize: bool) -> float:
    return math.inf if math.isnan(value) else value if minimize else -value


def _of_sweep(word: str, swept: Mapping[str, str]) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    return key in swept or any(key == own or key.startswith((f"{own}.", f"{own}/")) for own in OF_SWEEPS)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"
