"""``python -m benchmarks.sweep [trials]``: a sweep of the digits, killed five times; what it costs beside training."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.common import machine

KILLS = 5
SPACE = ["network=tiny", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "data.batch_size=32,64"]
QUICK = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.precision=32-true", "callbacks.gallery=null"]


def main() -> None:
    """Runs the sweep, breaks it off at random moments, lets it end, and counts."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(machine(), flush=True)
    folder = Path(mkdtemp(prefix="hwr-bench-"))
    line = [sys.executable, "-m", "hwr.train", "-m", "sweep=random", f"sweep.trials={trials}", *SPACE, *QUICK]
    line += ["sweep.pruner=null", f"hydra.sweep.dir={folder}"]
    began, seen = time.perf_counter(), 0
    for kill in range(KILLS):
        sweep = subprocess.Popen(line, stdout=subprocess.DEVNULL, start_new_session=True)
        goal = seen + (trials - seen) // (KILLS + 1 - kill)
        while sweep.poll() is None and finished(folder) < goal:
            time.sleep(0.05)
        time.sleep(random.uniform(0, 3))  # anywhere in a trial, or between two
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
        seen = finished(folder)
        print(f"killed with {seen} of {trials} runs on disk", flush=True)
    subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - began
    report(folder, trials, wall)


def finished(folder: Path) -> int:
    """How many runs have written their figures."""
    return len(list(folder.glob("*/metrics.json")))


def report(folder: Path, trials: int, wall: float) -> None:
    """Compares what the study knows with what lies on disk, and prints it."""
    from hwr.sweeps.storage import Storage

    study = Storage(folder).load()
    runs = Counter(trial.user_attrs["run_dir"] for trial in study.trials)
    on_disk = {str(path.parent) for path in folder.glob("*/config.yaml")}
    states = Counter(trial.state.name for trial in study.trials)
    trained = [json.loads((Path(run) / "metrics.json").read_text())["train_seconds"] for run in runs]
    print(f"trials in the study: {dict(states)}; run directories: {len(on_disk)}")
    print(f"lost {trials - states['COMPLETE']}, doubled {sum(runs.values()) - len(runs) + len(on_disk - set(runs))}")
    again = sum(path.read_text().count("epoch 1/1") for path in folder.glob("*/train.log")) - trials
    print(f"trained again after a kill: {again}")
    print(f"{wall:.1f} s, of which training {sum(trained):.1f} s")
    print(f"beside training: {(wall - sum(trained)) / trials:.2f} s a trial, {KILLS} kills and restarts included")


if __name__ == "__main__":
    main()
