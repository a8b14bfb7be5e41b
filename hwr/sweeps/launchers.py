"""Where the trials of a sweep run: in this process, in several fresh ones, or on a SLURM cluster."""

from __future__ import annotations

import errno
import os
import queue
import signal
import subprocess
import sys
import traceback
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hwr.config import own_sources
from hwr.errors import HwrError, Interrupted
from hwr.terminal import told_elsewhere


@dataclass(frozen=True)
class Job:
    """One training that a launcher is to run.

    Attributes:
        number: Of the trial.
        title: For people.
        overrides: What ``hwr.train`` is told.
        folder: The run directory, absolute.
    """

    number: int
    title: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def log(self) -> Path:
        """Where everything that the training prints is kept."""
        return self.folder / "train.log"


class TrialLauncher(Launcher):
    """Runs one job after the other, or ``n`` at a time; what they leave in their folders is the result."""

    n = 1

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.context, self.task, self.config = hydra_context, task_function, config
        whole_from_one("hydra.launcher.n", self.n)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> NoReturn:
        """How other sweepers would call it."""
        raise HwrError("hydra/launcher: the launchers of hwr work with hydra/sweeper=hwr only")

    @abstractmethod
    def run(self, job: Job) -> str | None:
        """Trains, and waits until it is done.

        Returns:
            Nothing, or the traceback (one line for a mistake of the user) if it failed.

        Raises:
            KeyboardInterrupt: If the user stopped it.
        """

    def stop(self) -> None:
        """Asks the jobs that run to end, so that they can go on later."""


class Here(TrialLauncher):
    """In this process, which saves the imports."""

    def run(self, job: Job) -> str | None:
        """Trains, with what is printed in the job's log."""
        from hwr import experiment  # noqa: F401  # before stderr is elsewhere: Lightning's log holds on to it

        basic = BasicLauncher()
        basic.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        folder = f"hydra.sweep.dir='{quoted(job.folder.parent)}'", f"hydra.sweep.subdir='{quoted(job.folder.name)}'"
        with told_elsewhere(job.log, job.title):
            (done,) = basic.launch([[*job.overrides, *folder]], initial_job_idx=job.number)
        error = done._return_value  # `return_value` prints, and raises what is told here in another way
        if isinstance(error, Interrupted):
            raise KeyboardInterrupt from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise error  # no other trial would fare better
        if isinstance(error, HwrError):
            return str(error)
        return "".join(traceback.format_exception(error)).rstrip() if isinstance(error, Exception) else None


class Processes(TrialLauncher):
    """Each trial in a fresh process, several at a time; with GPUs, each has one of its own.

    Args:
        n: How many at a time.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self.running: set[subprocess.Popen[bytes]] = set()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        found = visible_gpus() if self.n > 1 else []
        for place in range(self.n):
            self.devices.put(found[place % len(found)] if found else None)

    def run(self, job: Job) -> str | None:
        """Trains, with what is printed in the job's log."""
        device = self.devices.get()
        try:
            with job.log.open("ab") as log:
                log.seek(0, os.SEEK_END)
                began = log.tell()
                code = self._wait(command(self.config, job, "hwr.sweeps.trial"), log, device)
            return None if code == 0 else failure(job.log, began, code)
        finally:
            self.devices.put(device)

    def stop(self) -> None:
        """Interrupts the trials like Ctrl-C, and waits for them."""
        for process in list(self.running):
            process.send_signal(signal.SIGINT)
        for process in list(self.running):
            process.wait()

    def _wait(self, line: Sequence[str], log: IO[bytes], device: str | None) -> int:
        env = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.n)), **os.environ}
        if device is not None:
            env["CUDA_VISIBLE_DEVICES"] = device
        process = subprocess.Popen(  # a session of its own: Ctrl-C reaches it through `stop`, once
            line, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True
        )
        self.running.add(process)
        code = process.wait()
        self.running.discard(process)
        return code


class Slurm(TrialLauncher):
    """Each trial as a job of a SLURM cluster, through submitit; the folder of the sweep must be seen from its nodes.

    Args:
        n: Most jobs in the queue at a time.
        parameters: Submitit's, such as ``timeout_min``, ``gpus_per_node``, ``slurm_partition``.
    """

    def __init__(self, n: int, parameters: dict[str, Any]) -> None:
        self.n = n
        self.parameters = {name: value for name, value in parameters.items() if value is not None}
        self.running: dict[Path, Any] = {}

    def run(self, job: Job) -> str | None:
        """Submits the training, or finds it again after an interrupted sweep, and waits for it."""
        try:
            import submitit
        except ImportError:
            raise HwrError("hydra/launcher=slurm needs submitit: pip install 'hwr[slurm]'") from None
        note, logs = job.folder / "slurm_job", job.folder / "slurm"
        if note.is_file():
            submitted: Any = submitit.SlurmJob(logs, note.read_text().strip())
        else:
            executor = submitit.SlurmExecutor(logs, python=sys.executable)
            executor.update_parameters(job_name=f"hwr-{job.number}", **self.parameters)
            submitted = executor.submit(run_command, command(self.config, job, "hwr.train"), str(job.log))
            note.write_text(submitted.job_id)
        self.running[note] = submitted
        try:
            began, code = submitted.result()
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
            return f"SLURM job {submitted.job_id}: {error}"
        finally:
            self.running.pop(note, None)
        return None if code == 0 else failure(job.log, began, code)

    def stop(self) -> None:
        """Cancels the jobs."""
        for note, submitted in list(self.running.items()):
            submitted.cancel()
            note.unlink()


def command(config: DictConfig, job: Job, module: str) -> list[str]:
    """The command line of one training, with the user's own configuration where there is one."""
    found = own_sources(config.hydra)
    return [sys.executable, "-m", module, *job.overrides, *found, f"hydra.run.dir='{quoted(job.folder)}'"]


def run_command(line: Sequence[str], log: str) -> tuple[int, int]:
    """Runs a command and keeps what it prints; returns where that begins in the log, and the exit status."""
    with Path(log).open("ab") as file:
        file.seek(0, os.SEEK_END)
        return file.tell(), subprocess.run(
            line, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        ).returncode


def failure(log: Path, began: int, code: int) -> str:
    """What a failed training said: its traceback, or the line for a mistake of the user."""
    text = log.read_bytes()[began:].decode(errors="replace").rstrip()
    lines = text.splitlines() or [""]
    if lines[-1].startswith("hwr.train: error: "):
        return lines[-1].removeprefix("hwr.train: error: ")
    start = text.find("Traceback (most recent call last)")
    said = text[start:] if start >= 0 else "\n".join(lines[-10:])
    return f"{said}\nexit status {code}; all it printed is in {log}" if code > 0 else f"{said}\nended by signal {-code}"


def visible_gpus() -> list[str]:
    """What to set ``CUDA_VISIBLE_DEVICES`` to for one GPU each."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (given.split(",") if given else [str(i) for i in range(99)])[: torch.cuda.device_count()]


def whole_from_one(key: str, value: object) -> int:
    """The value, or :class:`HwrError` if it is no whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise HwrError(f"{key}={value}: a whole number from 1 is needed")
    return value


def quoted(path: Path | str) -> str:
    """A path as it stands between single quotes in an override."""
    return str(path).replace("'", "\\'")
