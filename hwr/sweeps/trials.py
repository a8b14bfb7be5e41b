"""The trials of a sweep: which comes next, where it runs, and what came of it; all of it on disk."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hwr.config import nearest, slug
from hwr.errors import HwrError
from hwr.sweeps.launchers import Job, quoted
from hwr.sweeps.space import Space, Value
from hwr.sweeps.storage import Storage, same_settings
from hwr.terminal import duration

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class Trials:
    """The study of a sweep, on disk.

    Args:
        folder: Of the sweep, absolute.
        space: What is varied.
        objectives: ``min`` or ``max`` by metric.
        cfg: The node ``sweep``.

    Attributes:
        study: Optuna's.
        count: How many trials there are to be.
    """

    def __init__(self, folder: Path, space: Space, objectives: Mapping[str, str], cfg: DictConfig) -> None:
        self.folder, self.space, self.objectives, self.cfg = folder, space, objectives, cfg
        if cfg.sampler is None:
            self.count = min(space.combinations, cfg.trials or space.combinations)
        else:
            self.count = cfg.trials * max(1, len(space.seeds))
        self.storage = Storage(folder)
        self.study = self.storage.create([DIRECTIONS[direction] for direction in objectives.values()])
        self.broken_off = [trial.number for trial in self._all() if trial.state == TrialState.RUNNING]

    def begin(self, settings: Mapping[str, Any], command: list[str], experiment: str) -> None:
        """Notes what the sweep is about.

        Raises:
            HwrError: If the folder holds a sweep about something else, or runs that this study knows nothing of.
        """
        if not self._all() and any(self.folder.glob("*/config.yaml")):
            raise HwrError(f"{self.folder}: holds runs, but their study.db is gone; choose hydra.sweep.dir=FOLDER")
        same_settings(self.study, settings, self.folder)
        self.study.set_user_attr("command", command)
        self.study.set_user_attr("experiment", experiment)
        self.study.set_user_attr("objectives", [list(pair) for pair in self.objectives.items()])

    @property
    def finished(self) -> int:
        """How many trials have ended, in whatever way."""
        return sum(trial.state.is_finished() for trial in self._all())

    @property
    def failed(self) -> list[optuna.trial.FrozenTrial]:
        """Those that ended with an error."""
        return [trial for trial in self._all() if trial.state == TrialState.FAIL]

    def next(self) -> Job | None:
        """What to train now: first what was broken off, then what Optuna (or the grid) says; None at the end."""
        trial = self.storage.trial(self.study, self.broken_off.pop(0)) if self.broken_off else self._ask()
        if trial is None:
            return None
        overrides = self.space.overrides({d.key: d.suggest(trial) for d in self.space.dimensions})
        folder = self.folder / "_".join(filter(None, (f"{trial.number:03d}", slug(",".join(overrides)))))
        folder.mkdir(exist_ok=True)
        trial.set_user_attr("overrides", overrides)
        trial.set_user_attr("run_dir", str(folder))
        more = ["ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
        if len(self.objectives) == 1:  # Optuna prunes for one objective only
            more.append(self._pruning(trial.number))
        title = f"trial {trial.number}" + (f" ({' '.join(overrides)})" if overrides else "")
        return Job(trial.number, title, (*self.space.fixed, *overrides, *more), folder)

    def record(self, job: Job, error: str | None, seconds: float) -> None:
        """Keeps what came of a trial, and prints it.

        Args:
            job: That has ended.
            error: Its traceback, if it failed.
            seconds: It took.

        Raises:
            HwrError: If a run does not have the metric of the sweep.
        """
        trial = self.storage.trial(self.study, job.number)
        trial.set_user_attr("seconds", seconds)
        metrics: dict[str, float] = {}
        if error is None:
            metrics = json.loads((job.folder / "metrics.json").read_text(encoding="utf-8"))
            trial.set_user_attr("metrics", metrics)
            if lacking := [name for name in self.objectives if name not in metrics]:
                hint = nearest(lacking[0], list(metrics)) or f"; there are {', '.join(metrics)}"
                if lacking[0] == "peak_memory_gb":
                    hint = "; it is known of trials in processes of their own: hydra/launcher=processes"
                raise HwrError(f"sweep.objectives: {lacking[0]} is no metric of {job.title}{hint}")
            if wrong := [name for name in self.objectives if not math.isfinite(metrics[name])]:
                error = f"{wrong[0]} is {metrics[wrong[0]]}"
        if error is not None:
            trial.set_user_attr("error", error)
            self.study.tell(job.number, state=TrialState.FAIL)
            print(f"{job.title} failed: {error}", file=sys.stderr, flush=True)
            return
        if "pruned" in trial.user_attrs:
            self.study.tell(job.number, state=TrialState.PRUNED)
            found = f"given up after epoch {trial.user_attrs['pruned']}"
        else:
            self.study.tell(job.number, [metrics[name] for name in self.objectives])
            found = ", ".join(f"{name} {metrics[name]:.4g}" for name in self.objectives)
        print(f"{self.finished} of {self.count}: {job.title}: {found} in {duration(seconds)}", flush=True)

    def _all(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _ask(self) -> optuna.Trial | None:
        trials = self._all()
        waiting = bool(trials) and trials[-1].state == TrialState.WAITING  # killed between the two steps below
        number = len(trials) - waiting
        if number >= self.count:
            return None
        if not waiting:
            self.study.enqueue_trial(self._given(number, trials))
        if self.cfg.sampler is not None:  # a sampler that began anew with the same seed would repeat its first trials
            seed = np.random.SeedSequence([self.cfg.seed, number]).generate_state(1)[0]
            self.study.sampler = hydra.utils.instantiate(self.cfg.sampler)(seed=int(seed))
        return self.study.ask()

    def _given(self, number: int, trials: list[optuna.trial.FrozenTrial]) -> dict[str, Value]:
        """What the sampler has no choice about: all in a grid, else the seed, so that suggestions meet all seeds."""
        if self.cfg.sampler is None:
            return self.space.combination(number)
        if not self.space.seeds:
            return {}
        turn = number % len(self.space.seeds)
        return {**(trials[number - turn].params if turn else {}), "seed": self.space.seeds[turn]}

    def _pruning(self, number: int) -> str:
        (metric,) = self.objectives
        place = f"folder:'{quoted(self.folder)}',number:{number},metric:'{quoted(metric)}'"
        return f"+callbacks.sweep={{_target_:hwr.sweeps.pruning.Pruning,{place},pruner:${{sweep.pruner}}}}"
