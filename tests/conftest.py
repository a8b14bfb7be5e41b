"""Fixtures that several test files share."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

# Two test processes with two threads each on two cores spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What precision=auto measures here, under the load of other tests, is no answer for the user's own runs.
CACHE = TemporaryDirectory(prefix="hwr-test-cache-")
os.environ["XDG_CACHE_HOME"] = CACHE.name
# A shell has its jobs in the background ignore Ctrl-C, and whatever they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hwr(tmp_path: Path) -> Run:
    """Runs a command as a user types it, in an empty folder: ``hwr("train", "experiment=...")``."""

    def run(command: str, *arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "160"}
        line = [sys.executable, "-m", f"hwr.{command}", *arguments]
        return subprocess.run(line, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=240, **kwargs)

    return run


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 real digits of scikit-learn as uint8 (N, 28, 28), light on black, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = (data.images * 15.9375).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(i).resize((20, 20), Image.Resampling.BICUBIC)) for i in small])
    return np.pad(images, ((0, 0), (4, 4), (4, 4))), data.target.astype(np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes a uint8 array in the IDX format of MNIST and EMNIST (big-endian magic, sizes, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_root(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """A data root with a small MNIST in the genuine files: 400 training and 100 test digits."""
    images, labels = digits
    raw = tmp_path / "data" / "MNIST" / "raw"
    for prefix, part in (("train", slice(0, 400)), ("t10k", slice(400, 500))):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images[part])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels[part])
    return tmp_path / "data"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Like ``hwr``, but in this process: the command line is parsed all the same, and nothing is imported again."""

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"hwr.{command}", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        capfd.readouterr()
        code: object = 0
        try:
            importlib.import_module(f"hwr.{command}").main()
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess([command, *arguments], code, out, err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short run that reads most digits (do not write into it)."""
    from hwr.config import compose
    from hwr.experiment import fit

    # Brackets, a comma, an equals sign and a quote: a path that every command must take.
    folder = tmp_path_factory.mktemp("trained") / "a run (1), lr=1 [it's ok]"
    settings = ["network=lenet_16_32", "augment=none", "trainer.max_epochs=4", "data.batch_size=32"]
    cfg = compose(
        "train", [*settings, "trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null"]
    )
    cfg.run_dir = str(folder)
    fit(cfg)
    return folder


@pytest.fixture(scope="session")
def line_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short run that reads the lines of :mod:`line_model` (do not write into it)."""
    from line_model import train_lines

    return train_lines(tmp_path_factory.mktemp("lines"))
