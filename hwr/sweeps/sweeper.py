"""``-m``: trains one trial after the other, or several at a time, until none is left; then says what is best."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hwr.config import check_types, explain, own_sources
from hwr.errors import HwrError
from hwr.sweeps.launchers import Here, Job, Processes, TrialLauncher, whole_from_one
from hwr.sweeps.space import Space, parse
from hwr.sweeps.storage import alone, told_if_damaged
from hwr.sweeps.trials import DIRECTIONS, Trials


class OptunaSweeper(Sweeper):
    """Asks Optuna for settings, has a launcher train with them, and tells Optuna what came of it."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra with the configuration that all trials have in common."""
        if config.hydra.job.config_name != "train":
            raise HwrError("-m is for hwr.train; run this command once for each setting")
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise HwrError("-m: start a sweep as one process, without torchrun; its trials start their own")
        self.context, self.task, self.common = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Begins the sweep, or goes on with it.

        Args:
            arguments: What was typed, without what is Hydra's own.

        Raises:
            HwrError: If it cannot begin, was interrupted, or a trial failed.
        """
        from hwr.sweeps import report, summary

        cfg = self.common.sweep
        listed = [f"{key}={value}" for key, value in cfg.params.items()]
        space = parse([*listed, *arguments], self.context.config_loader)
        check(cfg, space)
        example = self._checked(space)
        objectives = dict(cfg.objectives or {example.monitor.metric: example.monitor.mode})
        launcher = self._fitting(example, space)
        folder = Path(self.common.hydra.sweep.dir).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder), told_if_damaged(folder):
            trials = Trials(folder, space, objectives, cfg)
            trials.begin(settings(example, space), arguments, example.name)
            try:
                run(trials, launcher, math.inf if cfg.timeout is None else cfg.timeout)
            except KeyboardInterrupt:
                done = f"{trials.finished} of {trials.count} trials are finished"
                raise HwrError(f"interrupted; {done}; go on by running the same command again") from None
            finally:
                ranked = report.write(trials.study, folder)
            summary.show(trials.study, ranked, folder)
            if trials.failed:
                about = trials.failed[0].user_attrs
                why = f"the first in {about['run_dir']}: {about['error'].splitlines()[-1]}"
                raise HwrError(f"{len(trials.failed)} of {trials.count} trials failed, {why}")

    def _checked(self, space: Space) -> DictConfig:
        """The configuration of one trial, after a look at every choice, so that mistakes are told at once."""
        first = space.first()
        for dimension in space.dimensions:
            others = [override for override in first if not override.startswith(f"{dimension.key}=")]
            for override in dimension.extremes()[1:]:
                self._composed([*others, override])
        return self._composed(first)

    def _composed(self, overrides: list[str]) -> DictConfig:
        try:
            cfg = self.context.config_loader.load_sweep_config(self.common, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise HwrError(explain(error, "train", overrides)) from error
        check_types(cfg, "train", [*own_sources(self.common.hydra), *overrides])
        return cfg

    def _fitting(self, example: DictConfig, space: Space) -> TrialLauncher:
        """The launcher that was chosen, or fresh processes where a trial itself starts some."""
        chosen = self.launcher
        if not isinstance(chosen, TrialLauncher):
            raise HwrError("hydra/launcher: choose here, processes or slurm")
        varied = [d.key for d in space.dimensions if d.key in ("trainer", "trainer.devices")]
        if example.trainer.devices in (1, "1") and not varied:
            return chosen
        if isinstance(chosen, Processes) and chosen.n > 1:
            raise HwrError(f"hydra.launcher.n={chosen.n}: each trial takes several devices by itself; leave it at 1")
        if not isinstance(chosen, Here):
            return chosen
        fresh = Processes()  # Lightning starts the command line again for each device: here that is the whole sweep
        fresh.setup(hydra_context=self.context, task_function=self.task, config=self.common)
        return fresh


class _AtOnce(Executor):
    """Runs in this thread, where Ctrl-C arrives."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **kwargs))
        return done


def run(trials: Trials, launcher: TrialLauncher, timeout: float) -> None:
    """Trains until nothing is left to train.

    Args:
        trials: Of the sweep.
        launcher: Trains.
        timeout: Seconds after which none is begun any more.

    Raises:
        KeyboardInterrupt: If the user stopped it; all that ran has ended by then.
    """
    end = time.monotonic() + timeout
    running: dict[Future[tuple[str | None, float]], Job] = {}
    with ThreadPoolExecutor(launcher.n) if launcher.n > 1 else _AtOnce() as pool:
        try:
            while True:
                while len(running) < launcher.n and time.monotonic() < end and (job := trials.next()):
                    running[pool.submit(train, launcher, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    trials.record(running.pop(future), *future.result())
        except BaseException:
            launcher.stop()
            raise


def train(launcher: TrialLauncher, job: Job) -> tuple[str | None, float]:
    """Trains, unless the sweep was killed between the end of this run and its record; returns an error and seconds."""
    began = time.perf_counter()
    error = None if (job.folder / "metrics.json").is_file() else launcher.run(job)
    return error, time.perf_counter() - began


def check(cfg: DictConfig, space: Space) -> None:
    """Raises :class:`HwrError` for settings that no sweep can be made of."""
    for key in ("trials", "timeout"):
        if cfg[key] is not None:
            whole_from_one(f"sweep.{key}", cfg[key])
    if cfg.sampler is None:
        _ = space.combinations
    elif not [dimension for dimension in space.dimensions if dimension.key != "seed"]:
        raise HwrError("sweep: nothing to choose; add a range, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
    elif cfg.trials is None:
        raise HwrError("sweep.trials must be given: how many settings to try")
    wanted = cfg.objectives
    if wanted is not None and not (OmegaConf.is_dict(wanted) and wanted and set(wanted.values()) <= set(DIRECTIONS)):
        raise HwrError(f"sweep.objectives={wanted}: min or max is needed for each metric, as in '{{val/loss: min}}'")


def settings(example: DictConfig, space: Space) -> dict[str, Any]:
    """What makes a sweep another sweep when it changes, by key."""
    cfg = example.copy()
    with read_write(cfg), open_dict(cfg):
        cfg.run_dir = ""
        del cfg["hydra"], cfg.sweep["trials"], cfg.sweep["timeout"]  # these two may change when a sweep goes on
    varied = {dimension.key: dimension.values() for dimension in space.dimensions}
    flat = _flat(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    return varied | {key: value for key, value in flat.items() if key not in varied}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    return {
        k: v for key, value in node.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
