"""The charts of a sweep's report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, combinations
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from matplotlib.ticker import PercentFormatter
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from hwr.callbacks import history as epochs
from hwr.sweeps.leaderboard import Estimate, Objective, Setting, objectives
from hwr.sweeps.report_parallel import parallel
from hwr.sweeps.report_svg import (
    BAD,
    HALF,
    MUTED,
    TOP,
    WIDE,
    Chart,
    colour,
    drawing,
    faint,
    logarithmic,
    mark,
    spread,
    whole,
)

Trials = Sequence[tuple[Setting, FrozenTrial]]
FANOVA_TRIALS = 150  # its time grows with their square: 15 s for 500
FEW, ROUGH = 4, 30  # fewer finished trials say nothing of importance; fewer say little
NONE = "No trial has finished with a number."


def charts(study: optuna.Study, ranked: Sequence[Setting]) -> list[Chart]:
    """All charts of a study; one that cannot be drawn says why.

    Args:
        study: Of a sweep.
        ranked: Its settings, the best first.
    """
    wanted = objectives(study)
    trials = [(one, trial) for one in reversed(ranked) for trial in one.trials]  # the best come last, on top
    return [
        *(front(ranked, *pair) for pair in combinations(wanted, 2)),
        parallel(trials, wanted),
        curves(trials, wanted),
        *(
            draw(i, one)
            for i, one in enumerate(wanted)
            for draw in (partial(importance, study), partial(history, trials))
        ),
    ]


def front(ranked: Sequence[Setting], x: Objective, y: Objective) -> Chart:
    """The means of one objective against those of another, with the Pareto front."""
    title = f"{y.name} against {x.name}"
    means = {one.rank: (one.estimates[x.name].mean, one.estimates[y.name].mean) for one in ranked}
    done = [one for one in ranked if all(map(isfinite, means[one.rank]))]
    if not done:
        return Chart(title, NONE)
    with drawing(title, WIDE) as (axes, svg):
        axes.plot(*zip(*sorted(means[one.rank] for one in done if one.front), strict=True), color=MUTED, linewidth=1)
        for one in reversed(done):
            width, height = (_half(one.estimates[objective.name]) for objective in (x, y))
            style: dict[str, Any] = {"color": colour(one), "markersize": 9 if one.front else 5, "markeredgewidth": 0}
            if width or height:
                axes.errorbar(*means[one.rank], height, width, "none", ecolor=colour(one), elinewidth=1, alpha=0.6)
            axes.plot(*means[one.rank], "o", gid=mark(one), **style)
        if logarithmic([means[one.rank][0] for one in done]):
            spread(axes, "x")
        if logarithmic([means[one.rank][1] for one in done]):
            spread(axes, "y")
        axes.set(xlabel=_named(x), ylabel=_named(y))
        return Chart(
            title, "Means over seeds with 95 % intervals. Large and joined: the Pareto front.", svg(), wide=True
        )


def importance(study: optuna.Study, index: int, objective: Objective) -> Chart:
    """The share of the variance of an objective that each parameter explains."""
    title = f"What decides {objective.name}"
    done = [t for t in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) if isfinite(t.values[index])]
    if len(done) < FEW or len({trial.values[index] for trial in done}) < 2:
        return Chart(title, f"Too few finished trials with different results: {len(done)}, and {FEW} are needed.")
    evaluator = FanovaImportanceEvaluator(seed=0) if len(done) <= FANOVA_TRIALS else PedAnovaImportanceEvaluator()
    plain = optuna.create_study()  # of these trials alone, whatever the study's objectives and states are
    plain.add_trials([_single(trial, index, objective) for trial in done])
    shares = get_param_importances(plain, evaluator=evaluator)
    if not shares:
        return Chart(title, "No parameter was varied in every trial.")
    names = list(shares)[::-1]
    with drawing(title, (HALF[0], max(HALF[1], 50 + 26 * len(names)))) as (axes, svg):
        bars = axes.barh(names, [shares[name] for name in names], height=min(0.6, len(names) / 8), color=TOP[0])
        axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=4, color=MUTED)
        axes.set(xlim=(0, max(shares.values()) * 1.15))
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.grid(visible=False, axis="y")
        axes.tick_params("y", length=0)
        how = "fANOVA" if isinstance(evaluator, FanovaImportanceEvaluator) else "PED-ANOVA"
        rough = f" Rough: only {len(done)} finished trials." * (len(done) < ROUGH)
        return Chart(title, f"Share of the differences between trials, by {how}.{rough}", svg())


def curves(trials: Trials, wanted: Sequence[Objective]) -> Chart:
    """The first objective that is measured in every epoch, as it went in each trial."""
    for objective in wanted:
        shown = [(*pair, points) for pair in trials if (points := _course(pair[1], objective.name))]
        if shown:
            break
    else:
        return Chart("Learning curves", "No trial measured an objective while it trained.")
    title = f"Learning curves: {objective.name}"
    with drawing(title, WIDE) as (axes, svg):
        for setting, trial, points in shown:
            width, alpha = (1.8, 0.9) if colour(setting) in TOP else (1.0, faint(len(shown)))
            marker = "x" if trial.state == TrialState.PRUNED else "o" if len(points) == 1 else None
            style: dict[str, Any] = {"color": colour(setting), "linewidth": width, "alpha": alpha}
            axes.plot(*zip(*points, strict=True), marker=marker, markevery=[-1], gid=mark(setting, trial), **style)
        if objective.minimize and logarithmic([value for *_, points in shown for _, value in points]):
            spread(axes, "y")
        whole(axes, [epoch for *_, points in shown for epoch, _ in points])
        axes.set(xlabel="epoch", ylabel=_named(objective))
        pruned = " A cross: pruned there." * any(trial.state == TrialState.PRUNED for _, trial, _ in shown)
        return Chart(title, f"A curve for each trial.{pruned}", svg(), wide=True)


def history(trials: Trials, index: int, objective: Objective) -> Chart:
    """The value of each trial in the order of their start, and the best so far."""
    title = f"{objective.name}, trial after trial"
    done = {t.number: (one, t) for one, t in trials if t.state == TrialState.COMPLETE and isfinite(t.values[index])}
    if not done:
        return Chart(title, NONE)
    numbers, failed = sorted(done), [trial.number for _, trial in trials if trial.state == TrialState.FAIL]
    values = [done[number][1].values[index] for number in numbers]
    with drawing(title, HALF) as (axes, svg):
        best = [*accumulate(values, min if objective.minimize else max)]
        axes.step(numbers, best, where="post", color=MUTED, linewidth=1)
        for number in (trial.number for _, trial in trials if trial.number in done):
            setting, trial = done[number]
            style: dict[str, Any] = {
                "color": colour(setting),
                "markersize": 6,
                "markeredgewidth": 0,
                "gid": mark(setting, trial),
            }
            axes.plot(number, trial.values[index], "o", **style)
        if objective.minimize and logarithmic(values):
            spread(axes, "y")
        axes.plot(failed, [0.03] * len(failed), "x", color=BAD, markersize=5, transform=axes.get_xaxis_transform())
        whole(axes, [*numbers, *failed])
        axes.set(xlabel="trial", ylabel=_named(objective))
        crosses = " Crosses: failed trials." * bool(failed)
        return Chart(title, f"A dot for each finished trial; the line is the best so far.{crosses}", svg())


def _course(trial: FrozenTrial, metric: str) -> list[tuple[float, float]]:
    """What was measured after each epoch: as reported to the study, which takes one objective only, or in the run."""
    points = sorted(trial.intermediate_values.items())
    path = Path(trial.user_attrs.get("run_dir", "")) / "history.csv"
    if not points and path.is_file():
        points = [(int(row["epoch"]), row[metric]) for row in epochs.read(path) if metric in row]
    return [(epoch, value) for epoch, value in points if isfinite(value)]


def _single(trial: FrozenTrial, index: int, objective: Objective) -> FrozenTrial:
    value = trial.values[index] if objective.minimize else -trial.values[index]
    return create_trial(value=value, params=trial.params, distributions=trial.distributions)


def _half(estimate: Estimate) -> float:
    return estimate.half if isfinite(estimate.half) else 0.0


def _named(objective: Objective) -> str:
    return f"{objective.name} ({'less' if objective.minimize else 'more'} is better)"
