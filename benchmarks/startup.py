"""``python -m benchmarks.startup``: seconds to ``--help``, images/s of ``predict``, peak memory of a training."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import DATA, machine, middle


def seconds(*command: str) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def predict_speed(folder: Path, count: int = 1000) -> list[float]:
    """Images per second of reading PNG files, decoding included, model loaded."""
    from PIL import Image
    from torchvision.datasets import MNIST

    from hwr import Recognizer

    images = MNIST(str(DATA), train=True).data[:count].numpy()
    paths = [folder / f"{i}.png" for i in range(count)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    recognizer = Recognizer.load("mnist")
    speeds = []
    for _ in range(4):
        start = time.perf_counter()
        assert len(list(recognizer.read_files(paths))) == count
        speeds.append(count / (time.perf_counter() - start))
    return speeds[1:]  # the first warms up


def main() -> None:
    """Prints the three figures."""
    print(machine())
    print(f"python -m hwr.train --help: {middle([seconds('hwr.train', '--help') for _ in range(3)])} s")
    with TemporaryDirectory() as name:
        print(f"predict, 1,000 PNG files: {middle(predict_speed(Path(name)))} images/s")
        env = {**os.environ, "HYDRA_FULL_ERROR": "1"}
        train = ["hwr.train", "experiment=mnist_cnn", "trainer.max_epochs=1", f"hydra.run.dir={name}/run"]
        subprocess.run([sys.executable, "-m", *train], check=True, stdout=subprocess.DEVNULL, env=env)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"peak memory of an epoch of mnist_cnn, test and pictures: {peak:.2f} GB")


if __name__ == "__main__":
    main()
