"""A small model of lines and the lines that it reads: printed figures, each character in a box of its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from line_fixtures import save

WIDE = 24  # pixels of each character's box at height 40
LEFT = 8  # before the first box
SETTINGS = [
    "experiment=tsv_crnn",
    "data.preprocess.height=32",
    "data.preprocess.deskew=false",
    "network.stages=[{channels: 8}, {channels: 16}, {channels: 24, pool: [4, 1]}]",
    "network.width=0",
    "network.hidden=32",
    "network.layers=1",
    "network.dropout=0",
    "augment=lines_none",
    "data.cache=null",
    "data.columns=1200",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=14",
    "optimizer.lr=0.01",
    "scheduler.warmup=0.1",
    "callbacks.gallery=null",
    "callbacks.ema=null",
]


def written(text: str, height: int = 40, noise: int = 12, seed: int = 0) -> np.ndarray:
    """Grey levels of a printed text, dark on light, uint8 (height, W), in proportion to a height of 40."""
    rng = np.random.default_rng(seed)
    image = np.full((40, 2 * LEFT + WIDE * len(text)), 225, np.uint8)
    for i, character in enumerate(text):
        cv2.putText(image, character, (LEFT + WIDE * i, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 30, 2, cv2.LINE_AA)
    image = (image + rng.integers(0, noise, image.shape)).clip(0, 255).astype(np.uint8)
    width = round(image.shape[1] * height / 40)
    return image if height == 40 else np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))


def texts(n: int, seed: int) -> list[str]:
    """Years, dates and pairs of numbers."""
    rng = np.random.default_rng(seed)
    kinds = (
        lambda: f"{rng.integers(1800, 2000)}",
        lambda: f"{rng.integers(1, 32)}/{rng.integers(1, 13)}/{rng.integers(10, 100)}",
        lambda: f"{rng.integers(0, 1000)} {rng.integers(0, 1000)}",
    )
    return [kinds[rng.integers(3)]() for _ in range(n)]


def write_split(folder: Path, split: str, lines: list[str], seed: int = 0) -> None:
    """A table of a split, with its images."""
    rows = []
    for i, text in enumerate(lines):
        save(folder / f"{split}{i}.png", written(text, seed=seed + i))
        rows.append(f"{split}{i}.png\t{text}\t{split}-w{i % 3}\n")
    (folder / f"{split}.tsv").write_text("image\ttext\twriter\n" + "".join(rows), encoding="utf-8")


def train_lines(folder: Path) -> Path:
    """Trains for seconds; returns the directory of a run that reads such lines."""
    from hwr.config import compose
    from hwr.experiment import fit

    data = folder / "lines"
    for seed, (split, n) in enumerate({"train": 240, "val": 30, "test": 20}.items()):
        write_split(data, split, texts(n, seed), 1000 * seed)
    cfg = compose("train", [*SETTINGS, f"data.path={data}"])
    cfg.run_dir = str(folder / "run of lines")
    fit(cfg)
    return Path(cfg.run_dir)
