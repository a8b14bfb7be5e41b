"""Sweeps in several processes: killed, interrupted, on several devices, on a cluster."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hwr.sweeps.storage import Storage

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUICK = [
    "trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null", "network=tiny",
    "hydra.sweep.dir=sweep",
]  # fmt: skip
LAUNCHERS = ["hydra/launcher=here", "hydra/launcher=processes"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a sweep and does not wait for it."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "160"}
        line = [sys.executable, "-m", "hwr.train", "-m", *arguments]
        started.append(
            subprocess.Popen(line, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    """Waits until a file is there."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if found := sorted(path.glob(pattern)):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern}: {process.communicate()}")


def epochs(run: Path) -> list[int]:
    """Those that were trained, in their order."""
    lines = (run / "train.log").read_text().splitlines()
    return [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("epoch ")]


def trial_processes(folder: Path) -> list[int]:
    """Of a sweep, still alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if b"hwr.sweeps.trial" in line and str(folder).encode() in line:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_killed_and_continued(
    hwr: Run, start: Callable[..., subprocess.Popen[str]], tmp_path: Path, launcher: str
) -> None:
    typed = ["seed=1,2", launcher, *QUICK, "trainer.max_epochs=6"]
    sweep = start(*typed)
    first = wait_for(tmp_path / "sweep", "000_*/checkpoints/last.ckpt", sweep).parents[1]
    sweep.kill()
    sweep.wait()
    end = time.monotonic() + 20
    while trial_processes(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert not trial_processes(tmp_path)  # they do not go on alone
    before = epochs(first)
    assert 0 < len(before) < 6

    done = hwr("train", "-m", *typed)
    assert done.returncode == 0, done.stderr
    assert epochs(first) in (list(range(1, 7)), [*before, *range(len(before), 7)])  # none again but the one cut off
    trials = Storage(tmp_path / "sweep").load().trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert [t.user_attrs["overrides"] for t in trials] == [["seed=1"], ["seed=2"]]
    assert all(sorted(t.intermediate_values) == list(range(1, 7)) for t in trials)
    assert len(list((tmp_path / "sweep").glob("*/config.yaml"))) == 2
    whole = hwr("train", "seed=2", *QUICK[:-1], "trainer.max_epochs=6", "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    second = tmp_path / "sweep" / "001_seed-2"
    alone, after = (json.loads((run / "metrics.json").read_text()) for run in (tmp_path / "whole", second))
    assert after["val/loss"] == pytest.approx(alone["val/loss"], rel=1e-5)  # nothing is left of the trial before it


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c(start: Callable[..., subprocess.Popen[str]], tmp_path: Path, launcher: str) -> None:
    sweep = start("seed=1,2,3", launcher, *QUICK, "trainer.max_epochs=500")
    wait_for(tmp_path / "sweep", "000_*/checkpoints/last.ckpt", sweep)
    sweep.send_signal(signal.SIGINT)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 1
    assert err.splitlines()[-1] == (
        "hwr.train: error: interrupted; 0 of 3 trials are finished; go on by running the same command again"
    )
    assert "Traceback" not in err
    assert "failed" not in out + err
    assert not trial_processes(tmp_path)
    states = {t.state for t in Storage(tmp_path / "sweep").load().trials}
    assert states == {TrialState.RUNNING}  # to be gone on with


def test_a_trial_on_two_devices_has_processes_of_its_own(hwr: Run, tmp_path: Path) -> None:
    devices = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=32"]
    done = hwr("train", "-m", "seed=1,2", *QUICK, *devices, "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    trials = Storage(tmp_path / "sweep").load().trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert [sorted(t.intermediate_values) for t in trials] == [[1, 2]] * 2
    assert done.stdout.count("trial 0") == done.stdout.count("trial 1") == 1


def test_a_failed_trial_in_another_process(hwr: Run, tmp_path: Path) -> None:
    broken = "+callbacks.broken={_target_:builtins.object}"
    done = hwr("train", "-m", "data.batch_size=0,64", "hydra/launcher=processes", *QUICK, "trainer.max_epochs=1")
    assert done.returncode == 1
    assert "trial 0 (data.batch_size=0) failed: data.batch_size" in done.stderr
    assert "Traceback" not in done.stderr
    done = hwr("train", "-m", "hydra/launcher=processes", *QUICK[:-1], broken, "hydra.sweep.dir=broken")
    assert done.returncode == 1
    (trial,) = Storage(tmp_path / "broken").load().trials
    assert trial.user_attrs["error"].startswith("Traceback (most recent call last)")
    assert trial.user_attrs["error"] in done.stderr


SBATCH = """#!{python}
import pathlib, subprocess, sys
script = pathlib.Path(sys.argv[-1])
pathlib.Path("{folder}", "script.sh").write_text(script.read_text())
number = 100
while True:  # two are submitted at the same time, and each is a job of its own
    try:
        log = open(pathlib.Path("{folder}", f"job{{number}}"), "x")
        break
    except FileExistsError:
        number += 1
env = {{"SLURM_JOB_ID": str(number), "SLURM_JOBID": str(number), "SLURM_LOCALID": "0", "SLURM_PROCID": "0",
       "SLURM_NTASKS": "1", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost"}}
import os
subprocess.Popen(["bash", script], stdout=log, stderr=log, env={{**os.environ, **env}}, start_new_session=True)
print("Submitted batch job", number)
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for job in {folder}/job*; do n=${{job##*job}}; echo "$n|RUNNING|here"; done
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands with the names of SLURM's, which keep the batch script and run it at once on this machine."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", "#!/bin/bash\n")):
        (folder / name).write_text(
            text.format(python=sys.executable, folder=folder) if name in ("sbatch", "sacct") else text
        )
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm(hwr: Run, slurm: Path, tmp_path: Path) -> None:
    cluster = ["hydra/launcher=slurm", "hydra.launcher.parameters.partition=long", "hydra.launcher.parameters.time=90"]
    done = hwr("train", "-m", "seed=1,2", *cluster, *QUICK, "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    script = (slurm / "script.sh").read_text().splitlines()
    for line in ("#SBATCH --partition=long", "#SBATCH --time=90", "#SBATCH --cpus-per-task=4", "#SBATCH --nodes=1"):
        assert line in script
    assert not [line for line in script if "None" in line or "null" in line]
    assert any(line.startswith("srun ") and "submitit.core._submit" in line for line in script)
    trials = Storage(tmp_path / "sweep").load().trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert len(list(slurm.glob("job*"))) == 2
