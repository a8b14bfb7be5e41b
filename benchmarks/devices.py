"""``python -m benchmarks.devices [RUNS]``: two processes with a thread each against one process with one thread.

Both train the same network, in which computation dominates, with the same batches of the embedded digits: samples per
second, in turn, and how far the losses of the first 50 steps are apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from lightning import Callback, LightningModule, Trainer

from benchmarks.common import machine, middle

WARM, STEPS, BATCH = 5, 50, 128
SETTINGS = [
    "network=cnn", "network.stages=[{channels: 128, norm: false}, {channels: 256, norm: false}]", "network.dropout=0",
    "augment=none", "optimizer=sgd", "optimizer.lr=0.005", "optimizer.momentum=0", "optimizer.nesterov=false",
    "scheduler=constant", f"data.batch_size={BATCH}", "callbacks.ema=null", "callbacks.best=null",
    "callbacks.last=null", "callbacks.periodic=null", "callbacks.early_stopping=null", "callbacks.gallery=null",
    "logger=null", "test=false", "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_epochs=5",
    "+trainer.limit_val_batches=0", "+trainer.enable_checkpointing=false",
    "+callbacks.clock._target_=benchmarks.devices.Clock",
]  # fmt: skip


class Clock(Callback):
    """Writes down the loss and the time of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict, batch: object, batch_idx: int
    ) -> None:
        """Notes both."""
        self.steps.append((time.perf_counter(), float(outputs["loss"])))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes them."""
        (Path(os.environ["BENCH_OUT"]) / f"{trainer.global_rank}.json").write_text(json.dumps(self.steps[:STEPS]))


def run(*overrides: str) -> tuple[float, list[float]]:
    """Samples per second over all processes, and the loss of each step."""
    folder = mkdtemp(prefix="hwr-bench-")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_OUT": folder}
    line = [sys.executable, "-m", "hwr.train", *SETTINGS, *overrides, f"hydra.run.dir={folder}/run"]
    subprocess.run(line, env=env, check=True, stdout=subprocess.DEVNULL)
    ranks = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    seconds = ranks[0][-1][0] - ranks[0][WARM - 1][0]
    losses = [sum(loss for _, loss in step) / len(ranks) for step in zip(*ranks, strict=True)]
    return (STEPS - WARM) * BATCH / seconds, losses


def main() -> None:
    """Runs both in turn, so that a slow spell of the machine hits both."""
    print(f"{machine()}, a thread each")
    one, two, apart = [], [], []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        speed, losses = run()
        both, shared = run("trainer=ddp", "trainer.devices=2")
        one.append(speed)
        two.append(both)
        apart.append(max(abs(a - b) for a, b in zip(losses, shared, strict=True)))
        print(f"one process {speed:.0f}/s, two {both:.0f}/s, ratio {both / speed:.2f}", flush=True)
    print(f"samples/s: one process {middle(one)}, two {middle(two)}")
    print(f"  ratio {median(b / a for a, b in zip(one, two, strict=True)):.2f}")
    print(f"losses of {len(losses)} steps: at most {max(apart):.1e} apart")


if __name__ == "__main__":
    main()
