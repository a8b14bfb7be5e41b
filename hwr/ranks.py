"""The processes of one training over several devices: how many there are, and what happens when one of them ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from hwr.errors import HwrError

if TYPE_CHECKING:
    from lightning import Trainer

GRACE = 5.0  # seconds in which a process may end by itself when another one is gone
AGAIN = "go on from the last checkpoint with ckpt_path=last"


def rank() -> int:
    """The number of this process among those of the run, as torchrun, SLURM or Lightning says; 0 if it is alone."""
    return max(int(os.environ.get(name) or 0) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))


def nodes() -> int:
    """The number of machines of this job, as torchrun or SLURM says."""
    return int(_told("WORLD_SIZE", "SLURM_NNODES")) // int(_told("LOCAL_WORLD_SIZE", default="1"))


def node_devices() -> int:
    """The number of processes on each machine of this job, as torchrun or SLURM says."""
    return int(_told("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"))


def job() -> str | None:
    """What all processes of this run call it, for the name of its directory; None where Lightning starts the others.

    Raises:
        HwrError: If processes on several machines have no name in common.
    """
    env = os.environ
    if int(env.get("SLURM_NTASKS") or 1) > 1 and "SLURM_STEP_ID" in env:
        return f"{env['SLURM_JOB_ID']}.{env['SLURM_STEP_ID']}"
    name = env.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # torchrun has none
        if nodes() > 1:
            raise HwrError("torchrun needs --rdzv-id=NAME, so that all processes agree on the directory of the run")
        return f"pid{os.getppid()}"
    return None if name is None else re.sub(r"[^\w.-]|_", "-", name)


def _told(*names: str, default: str = "") -> str:
    """The first of these environment variables that there is."""
    if not (value := next((os.environ[name] for name in names if os.environ.get(name)), default)):
        raise HwrError(
            "trainer=multinode: start it with torchrun or srun, see docs/devices.md; on one machine take trainer=ddp"
        )
    return value


def check_devices(processor: str, devices: Any) -> None:
    """Refuses more processes on a CPU than it has cores (Lightning itself counts GPUs only).

    Args:
        processor: ``cpu``, ``cuda`` or ``mps``.
        devices: Lightning's setting.

    Raises:
        HwrError: If there are too many.
    """
    cores = os.cpu_count() or 1
    if processor == "cpu" and isinstance(devices, int) and devices > cores:
        raise HwrError(f"trainer.devices={devices}: this machine has {cores} CPU cores, and each process needs one")


def wait_for_the_first() -> None:
    """Gives process 0 the time to tell of an error that all have met, and to end the others, this one among them."""
    if rank():
        time.sleep(GRACE)


@contextmanager
def guarded(trainer: Trainer) -> Iterator[None]:
    """Ends this process, with one line, within ``2 * GRACE`` seconds after another one of the run has ended too early.

    Without it processes wait for one another until a timeout, or Lightning kills them without a word.

    Args:
        trainer: Whose ``fit`` and ``test`` are called inside.

    Raises:
        HwrError: If another process is gone, or the port is in use over which they would meet.
    """
    if trainer.world_size == 1:
        yield
        return
    guard = _Guard(trainer)
    guard.start()
    try:
        yield
        _part()
    except BaseException as error:
        why = _explained(error, guard)
        guard.kill()
        if why is None:
            raise
        if not why:
            raise SystemExit(1) from error
        raise HwrError(why) from error
    finally:
        guard.over.set()


def _part() -> None:
    """Ends the communication: its threads may abort a process that ends with them."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _explained(error: BaseException, guard: _Guard) -> str | None:
    """What a failure of the communication means; nothing if that was told; None if it is none."""
    import torch.distributed

    text = str(error)
    if "EADDRINUSE" in text or "address already in use" in text:
        port = os.environ.get("MASTER_PORT")
        return f"MASTER_PORT={port} is in use; set it to a free port, or unset it (on one machine) to have one found"
    if not isinstance(error, torch.distributed.DistError) and not (isinstance(error, RuntimeError) and "gloo" in text):
        return None
    why = guard.loss(GRACE)
    return f"the connection to the other processes broke off; {AGAIN}" if why is None else why


class _Guard(threading.Thread):
    """Watches the processes that this one has started, or the one that has started it.

    Attributes:
        over: Set when there is nothing to watch any more.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(daemon=True, name="hwr-guard")
        self.over = threading.Event()
        self._launcher, self._world = trainer.strategy.launcher, trainer.world_size
        self._children: list[subprocess.Popen[bytes]] = []
        if self._launcher is not None:
            self._launcher.kill = self.interrupt  # type: ignore[method-assign]  # see there
        self._parent = os.getppid() if "LOCAL_RANK" in os.environ and rank() else None

    def run(self) -> None:
        """Ends this process where another one is gone and the main thread, waiting for it, does not notice."""
        while not self.over.wait(0.2):
            procs = getattr(self._launcher, "procs", [])
            if procs:  # ours from now on: Lightning's own observer kills without a word
                self._children, procs[:] = [*procs], []
            if (why := self.loss()) is not None and not self.over.wait(GRACE):
                self.kill()
                sys.stdout.flush()
                if why:
                    print(f"hwr.train: error: {why}", file=sys.stderr, flush=True)
                os._exit(1)

    def interrupt(self, signum: int) -> NoReturn:
        """What Lightning's handlers of Ctrl-C and SIGTERM call in the main thread to end the other processes.

        It does not return: on SIGTERM Lightning would go on to tell the others, which are waiting for something else.
        """
        self.over.set()
        self.kill()
        raise SystemExit(1)

    def loss(self, patience: float = 0.0) -> str | None:
        """Which process is gone, if one is, looked for as many seconds; an empty text if it has told of it itself."""
        until = time.monotonic() + patience
        while True:
            for number, child in enumerate(self._children, 1):
                if (code := child.poll() or 0) < 0:
                    name = signal.Signals(-code).name
                    return f"process {number + 1} of {self._world} was killed (by {name}); {AGAIN}"
                if code:
                    return ""
            if self._parent not in (None, os.getppid()):
                return f"the first of {self._world} processes was killed; {AGAIN}"
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends the processes that this one has started."""
        for child in [*self._children, *getattr(self._launcher, "procs", [])]:
            child.kill()
