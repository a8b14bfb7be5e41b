"""``python -m benchmarks.kraken KETOS DATA``: training lines per second of ``crnn`` and of kraken's default network.

KETOS is kraken's training command (``pip install kraken``, best into an environment of its own); DATA a folder with
``train.tsv``. Both learn from lines of that table with as many threads as there are cores. What kraken takes before and
after training falls away, because only the difference of a long and a short run counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import machine, middle
from benchmarks.lines import training

SHORT, LONG = 16, 176  # lines, a multiple of kraken's batch of 8
RUNS = 3


def pairs(data: Path, folder: Path, count: int) -> list[str]:
    """Lines from all over the table, so that they are as wide as those that hwr sees, with ``.gt.txt`` files."""
    rows = [row.split("\t") for row in (data / "train.tsv").read_text(encoding="utf-8").splitlines()]
    image, text = rows[0].index("image"), rows[0].index("text")
    paths = []
    for number, row in enumerate(rows[1 :: (len(rows) - 1) // count][:count]):
        path = folder / f"{number}{Path(row[image]).suffix}"
        shutil.copy(data / row[image], path)
        path.with_suffix(".gt.txt").write_text(row[text], encoding="utf-8")
        paths.append(str(path))
    return paths


def seconds(ketos: str, folder: Path, lines: list[str]) -> float:
    """Of one epoch of kraken over these lines, its start and the reading of one more line included."""
    threads = str(os.cpu_count())
    listed = {"-t": lines[:-1], "-e": lines[-1:]}
    for option, names in listed.items():
        (folder / option).write_text("\n".join(names))
    command = [ketos, "--threads", threads, "-d", "cpu", "train", "-f", "path", "-B", "8", "-N", "1", "-q", "fixed"]
    command += [word for option in listed for word in (option, str(folder / option))]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Prints one line a figure."""
    ketos, data = sys.argv[1], Path(sys.argv[2])
    version = subprocess.run([str(Path(ketos).with_name("kraken")), "--version"], capture_output=True, text=True).stdout
    print(f"{machine()}; {version.strip()}", flush=True)
    ours, theirs = [], []
    with TemporaryDirectory(prefix="hwr-kraken-") as name:
        lines = pairs(data, Path(name), LONG + 1)
        for _ in range(RUNS):
            ours.append(training(str(data), "auto"))
            short = seconds(ketos, Path(name), [*lines[:SHORT], lines[-1]])
            theirs.append((LONG - SHORT) / (seconds(ketos, Path(name), lines) - short))
            print(f"hwr {ours[-1]:.1f}, kraken {theirs[-1]:.2f} lines/s: {ours[-1] / theirs[-1]:.1f} times", flush=True)
    print(f"hwr {middle(ours)}, kraken {middle(theirs)} lines/s")
    print(f"ratio {middle([a / b for a, b in zip(ours, theirs, strict=True)])}")


if __name__ == "__main__":
    main()
