"""``python -m benchmarks.speed``: how much sooner than a plain PyTorch loop MNIST is learnt, and samples per second.

The loop is that of the tutorials: Conv 32/64 5x5, FC 128, Adam 1e-3, batch 64, a DataLoader with 2 workers that turns
every image into a normalised tensor. Both see the same 55,000 training and 5,000 validation images (the last of the
training set); the clock runs from before the data is loaded to the end of the validation that reaches 99.0 %, imports
excluded.
"""

from __future__ import annotations

import time
from statistics import median

import torch
import torch.utils.tensorboard
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

import hwr.experiment
import hwr.figures  # noqa: F401  (imports are not timed)
from benchmarks.common import DATA, fit, machine, middle

GOAL = 0.99
RUNS = 3


def plain_loop(seed: int, max_epochs: int = 10) -> tuple[float, float]:
    """Seconds to the goal, and training samples per second."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    mnist = datasets.MNIST(str(DATA), train=True, transform=transform)
    train = DataLoader(Subset(mnist, range(55_000)), batch_size=64, shuffle=True, num_workers=2)
    val = DataLoader(Subset(mnist, range(55_000, 60_000)), batch_size=1000, num_workers=2)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    speeds = []
    for _ in range(max_epochs):
        epoch = time.perf_counter()
        net.train()
        for images, labels in train:
            loss = nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        speeds.append(55_000 / (time.perf_counter() - epoch))
        net.eval()
        with torch.no_grad():
            right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in val)
        print(f"  plain loop: {right / 50:.2f} % after {time.perf_counter() - start:.1f} s", flush=True)
        if right / 5000 >= GOAL:
            return time.perf_counter() - start, median(speeds)
    raise SystemExit("the plain loop did not reach the goal")


class Clock(Callback):
    """Notes when validation reaches the goal."""

    reached = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the accuracy of this validation."""
        if float(trainer.callback_metrics["val/accuracy"]) >= GOAL:
            self.reached = min(self.reached, time.perf_counter())


LAST = ("data.split._target_=hwr.data.splits.last", "~data.split.seed", "data.split.size=5000", "test=false")


def mnist_fast(seed: int) -> float:
    """Seconds to the goal (infinite if it is missed)."""
    start = time.perf_counter()
    result = fit("experiment=mnist_fast", f"seed={seed}", *LAST, "+callbacks.clock._target_=benchmarks.speed.Clock")
    # Hydra imports this module by its name; as a script it is another
    clock = next(c for c in result.trainer.callbacks if type(c).__name__ == "Clock")
    seconds = float(clock.reached) - start
    print(f"  mnist_fast: {result.metrics['val/accuracy']:.2%}, goal after {seconds:.1f} s", flush=True)
    return seconds


def same_network(seed: int) -> float:
    """Training samples per second of the loop's network and batch size in hwr."""
    result = fit(
        "experiment=mnist_fast", "network=lenet_32_64", "network.dropout=0", "data.batch_size=64", "optimizer=adam",
        "optimizer.lr=1e-3", "optimizer.betas=[0.9,0.999]", "scheduler=constant", "~scheduler.warmup",
        "trainer.max_epochs=2", f"seed={seed}", *LAST,
    )  # fmt: skip
    return float(result.trainer.callback_metrics["system/samples_per_s"])


def main() -> None:
    """Runs everything in turn, so that a slow spell of the machine hits both."""
    print(machine())
    loop_seconds, loop_speed, fast_seconds, same_speed = [], [], [], []
    for seed in range(1, RUNS + 1):
        seconds, speed = plain_loop(seed)
        loop_seconds.append(seconds)
        loop_speed.append(speed)
        fast_seconds.append(mnist_fast(seed))
        same_speed.append(same_network(seed))
        print(f"run {seed}: loop {speed:.0f}/s, same network in hwr {same_speed[-1]:.0f}/s", flush=True)
    print(f"seconds to {GOAL:.0%} validation: loop {middle(loop_seconds)}, mnist_fast {middle(fast_seconds)}")
    print(f"  ratio {median(a / b for a, b in zip(loop_seconds, fast_seconds, strict=True)):.1f}")
    print(f"samples/s, same network and batch: loop {middle(loop_speed)}, hwr {middle(same_speed)}")
    print(f"  ratio {median(b / a for a, b in zip(loop_speed, same_speed, strict=True)):.2f}")


if __name__ == "__main__":
    main()
