"""``python -m benchmarks.shards``: training from shards against training from memory, reading alone, and memory.

Speed: one network and batch size (``mnist_fast``), MNIST in memory and in shards in turn. Reading: an epoch of batches
without a network. Memory: of the training process and its loaders together, over a run on 10 thousand and on 1 million
synthetic characters: proportional set size without mapped files, looked at every 0.1 s (how much of PyTorch's files is
counted as a process's own depends on what else runs).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks.common import fit, machine, middle
from hwr.config import compose
from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.shards.writer import pack
from hwr.data.splits import last
from hwr.parts import datamodule
from hwr.preprocess import CharacterPreprocess

RUNS = 3
EPOCHS = 3  # of a run; the speed is that of the last
SIZES = (10_000, 1_000_000)


class Noise(CharacterDataModule):
    """Characters of random pixels.

    Args:
        size: Of the training split; validation and test have 1,000 each.
    """

    def __init__(self, size: int) -> None:
        super().__init__(CharacterPreprocess(), partial(last, size=1000))
        self.size = size

    def load(self) -> tuple[dict[str, CharacterSet], list[str]]:
        """Draws them."""
        sets = {}
        for name, n in (("train", self.size), ("val", 1000), ("test", 1000)):
            images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8)
            sets[name] = CharacterSet(images, torch.arange(n) % 10, [f"{name} {i}" for i in range(n)])
        return sets, [str(i) for i in range(10)]


def pack_experiment(out: Path, *overrides: str) -> None:
    """Packs the data of an experiment."""
    cfg = compose("train", overrides)
    cfg.augment = None
    pack(datamodule(cfg), out, 4)


def speed(*overrides: str) -> float:
    """Training samples per second of the last epoch."""
    result = fit("experiment=mnist_fast", f"trainer.max_epochs={EPOCHS}", "test=false", *overrides)
    return float(result.trainer.callback_metrics["system/samples_per_s"])


def reading(*overrides: str) -> str:
    """Megabytes of pixels and items per second of two epochs of batches, nothing learnt."""
    data = datamodule(compose("train", overrides))
    loader = data.train_dataloader()
    items = size = 0
    began = time.perf_counter()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            items += len(batch.ids)
            size += batch.images.numel()
    seconds = time.perf_counter() - began
    return f"{items / seconds:,.0f} items/s, {size / seconds / 1e6:,.0f} MB/s of padded pixels"


def held_mb(pid: int) -> float:
    """Memory of a process and its children without mapped files, in megabytes; 0 once it has gone."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = sum(int(row.split()[1]) for row in rows if row.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1e3
    return own + sum(held_mb(int(child)) for child in children)


@contextmanager
def watched(found: list[float]) -> Iterator[None]:
    """Notes the memory of this process and its children while something runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            found.append(held_mb(os.getpid()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def memory(size: int, workers: int) -> None:
    """Trains a very small network on shards of so many synthetic characters and prints the memory that took."""
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.shards", "noise", str(size), folder], check=True)
        found: list[float] = []
        with watched(found):
            source = ("data=shards", f"data.path={folder}", f"data.workers={workers}")
            few = "network.stages=[{channels: 2, kernel: 5}, {channels: 4}]"
            epochs = f"trainer.max_epochs={max(1, 100_000 // size)}"
            fit("experiment=mnist_fast", few, epochs, "trainer.precision=32-true", "test=false", *source)
    print(f"{size:,} characters, {workers} workers: {max(found):.0f} MB at most, {median(found):.0f} MB in the middle")


def main() -> None:
    """Runs everything; what is compared in turn, memory in fresh processes."""
    if sys.argv[1:2] == ["noise"]:
        data = Noise(int(sys.argv[2]))
        data.setup()
        pack(data, Path(sys.argv[3]), 4)
        return
    if sys.argv[1:2] == ["memory"]:
        memory(int(sys.argv[2]), int(sys.argv[3]))
        return
    print(f"{machine()}, {torch.get_num_threads()} threads")
    with TemporaryDirectory() as folder:
        characters, lines = Path(folder, "characters"), Path(folder, "lines")
        pack_experiment(characters, "experiment=mnist_fast")
        pack_experiment(lines, "experiment=synthetic_crnn", "data.train_lines=2000", "data.val_lines=10")
        shards = ("data=shards", f"data.path={characters}")
        found = [(speed(), speed(*shards)) for _ in range(RUNS)]
        print(f"training, samples/s: memory {middle([a for a, _ in found])}, shards {middle([b for _, b in found])}")
        print(f"  ratio {median(b / a for a, b in found):.2f} ({', '.join(f'{b / a:.2f}' for a, b in found)})")
        for workers in (0, 2):
            more = f"data.workers={workers}"
            print(f"reading, {workers} workers: {reading('experiment=mnist_fast', *shards, more)} (characters)")
            source = ("data=line_shards", f"data.path={lines}")
            print(f"reading, {workers} workers: {reading('experiment=synthetic_crnn', *source, more)} (lines)")
    for workers in (0, 2):
        for size in SIZES:
            line = [sys.executable, "-m", "benchmarks.shards", "memory", str(size), str(workers)]
            subprocess.run(line, check=True)


if __name__ == "__main__":
    main()
