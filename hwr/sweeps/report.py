"""The end of a sweep: ``leaderboard.csv``, and ``report.html``, a page that needs nothing but itself."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from jinja2 import Environment, PackageLoader, StrictUndefined
from optuna.trial import FrozenTrial, TrialState

from hwr import __version__
from hwr.files import write_bytes
from hwr.sweeps import leaderboard
from hwr.sweeps.leaderboard import Estimate, Objective, Setting
from hwr.sweeps.report_charts import charts
from hwr.sweeps.report_svg import VARIABLES, colour
from hwr.terminal import duration

METRICS = ("val/accuracy", "val/cer", "val/wer", "val/loss", "test/accuracy", "test/cer", "test/wer", "parameters")
FRONT = 5  # most settings of a Pareto front whose commands are shown


def write(study: optuna.Study, folder: Path) -> list[Setting]:
    """Writes both files, each at once; earlier ones are replaced.

    Args:
        study: Of a sweep: finished, interrupted, or still running.
        folder: Of the sweep; run directories inside it are linked.

    Returns:
        The settings, the best first.

    Raises:
        OSError: If they cannot be written.
    """
    ranked = leaderboard.settings(study)
    files = {"leaderboard.csv": _csv(leaderboard.rows(study, ranked)), "report.html": page(study, ranked, folder)}
    for name, text in files.items():  # a traceback may quote a file name that is no Unicode
        write_bytes(folder / name, text.encode("utf-8", "backslashreplace"))
    return ranked


def page(study: optuna.Study, ranked: Sequence[Setting], folder: Path) -> str:
    """The report as HTML.

    Args:
        study: Of a sweep.
        ranked: Its settings, the best first.
        folder: What links to run directories start from.
    """
    wanted = leaderboard.objectives(study)
    trials = study.get_trials(deepcopy=False)
    several = len(wanted) > 1
    done = [one for one in ranked if one.finished]
    whiskers = _whiskers({one.rank: one.estimates[wanted[0].name] for one in ranked})
    winners = [one for one in done if one.front][:FRONT] if several else done[:1]
    environment = Environment(
        loader=PackageLoader("hwr.sweeps", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=study.user_attrs.get("experiment") or study.study_name,
        version=__version__,
        objectives=wanted,
        several=several,
        counts={state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState},
        hours=duration(sum(float(trial.user_attrs.get("seconds") or 0) for trial in trials)),
        keys=list(dict.fromkeys(key for one in ranked for key in one.values)),
        metrics=[name for name in METRICS if any(name in one.estimates for one in ranked)],
        rows=[_row(one, whiskers[one.rank], folder) for one in ranked],
        winners=[{"rank": one.rank, "command": leaderboard.command(study, one)} for one in winners],
        charts=charts(study, ranked),
        about={one.rank: _about(one, wanted) for one in ranked},
        failures=[_failure(trial) for trial in trials if trial.state == TrialState.FAIL],
    )


def _row(one: Setting, whisker: Sequence[float], folder: Path) -> dict[str, Any]:
    return {
        "setting": one,
        "colour": VARIABLES[colour(one)],
        "whisker": whisker,
        "runs": [(trial, _link(trial, folder)) for trial in one.trials],
        "pruned": one.count(TrialState.PRUNED),
        "failed": one.count(TrialState.FAIL),
        "seconds": duration(one.seconds) if isfinite(one.seconds) else "",
    }


def _about(one: Setting, wanted: Sequence[Objective]) -> str:
    found = [f"{objective.name} {one.estimates[objective.name]}" for objective in wanted] if one.finished else []
    return "\n".join([*(f"{key}={value}" for key, value in one.values.items()), *found])


def _whiskers(estimates: Mapping[int, Estimate]) -> dict[int, Sequence[float]]:
    """For each estimate its mean and the ends of its interval, as shares of the width that all need; () for none."""
    places: dict[int, Sequence[float]] = {}
    for key, one in estimates.items():
        half = one.half if isfinite(one.half) else 0.0
        places[key] = (one.mean, one.mean - half, one.mean + half) if isfinite(one.mean) else ()
    ends = [end for place in places.values() for end in place]
    low, width = (min(ends), max(ends) - min(ends)) if ends else (0.0, 0.0)
    return {key: [(end - low) / width for end in place] if width else () for key, place in places.items()}


def _failure(trial: FrozenTrial) -> dict[str, Any]:
    text = str(trial.user_attrs.get("error") or "").strip()
    lines = text.splitlines() or ["nothing was kept of the reason; the process may have been killed"]
    what = " ".join(f"{key}={value}" for key, value in leaderboard.overrides(trial).items())
    return {"number": trial.number, "what": what, "last": lines[-1], "text": text}


def _link(trial: FrozenTrial, folder: Path) -> str:
    """Where the run directory is, from the page, or nothing if it is not below the page."""
    run_dir = trial.user_attrs.get("run_dir")
    if not run_dir:
        return ""
    path = os.path.relpath(run_dir, folder)
    return "" if path.startswith(os.pardir) else quote(Path(path).as_posix()) + "/"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]) if rows else ["rank"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
