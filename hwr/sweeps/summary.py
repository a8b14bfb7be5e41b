"""What a sweep prints when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from hwr.sweeps import leaderboard
from hwr.sweeps.leaderboard import Setting

SHOWN = 10


def show(study: optuna.Study, ranked: Sequence[Setting], folder: Path) -> None:
    """Prints the best settings, where everything is, and the command of the winner.

    Args:
        study: Of the sweep.
        ranked: Its settings, the best first.
        folder: Of the sweep.
    """
    console, objectives = Console(), leaderboard.objectives(study)
    done = [one for one in ranked if one.finished]
    table = Table()
    keys = list(dict.fromkeys(key for one in done for key in one.values))
    for name in ("", *keys, *(objective.name for objective in objectives), "seeds"):
        table.add_column(name)
    for one in done[:SHOWN]:
        figures = [str(one.estimates[objective.name]) for objective in objectives]
        table.add_row(str(one.rank), *(one.values.get(key, "") for key in keys), *figures, str(len(one.finished)))
    console.print(str(folder), soft_wrap=True, highlight=False, markup=False)
    if not done:
        return
    console.print(table)
    if len(done) > SHOWN:
        console.print(f"and {len(done) - SHOWN} more in {folder / 'leaderboard.csv'}", soft_wrap=True, highlight=False)
    console.print("Next:", style="bold")
    winners = [one for one in done if one.front][:SHOWN] if len(objectives) > 1 else done[:1]
    for one in winners:
        console.print(f"  {leaderboard.command(study, one)}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"  report: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
