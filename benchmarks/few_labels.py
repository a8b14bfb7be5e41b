"""``python -m benchmarks.few_labels [key=value ...]``: a model of MNIST 0 to 4 learns 5 to 9 from ten labels each.

Beside it the same network learns the same labels from scratch, in the same way but with one learning rate for all its
layers. Then what the fine-tuned model reads in the other training images, whose labels nobody looks at, is learnt from
as well, from the same start, twice. All was chosen on validation; test is scored by the runs that this command makes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from PIL import Image

from benchmarks.common import fit, machine
from hwr import parts
from hwr.config import compose
from hwr.experiment import Result

DRAWS = 5
ROUNDS = 2  # of reading the other images and learning anew
START = ["data.only=[0,1,2,3,4]", "data.turned=true", "augment=medium", "data.batch_size=256"]
START += ["callbacks.ema.decay=0.99", "trainer.max_epochs=6", "test=false"]
FEW = ["data=mnist", "data.only=[5,6,7,8,9]", "data.labels=50", "callbacks.gallery=null"]
FEW += ["trainer.check_val_every_n_epoch=100"]  # that is once, at the end: there are far more images than labels
SCRATCH = ["init_from=null", "network=cnn", "finetune=null"]


READ = ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2", "data.batch_size=128"]


def run(*overrides: str) -> tuple[Result, str]:
    """One run, and its errors and seconds in words."""
    start = perf_counter()
    done = fit("experiment=finetune_full", *FEW, *overrides)
    val, test = errors(done)
    return done, f"{val:.2%} of validation wrong (test {test:.2%}, {perf_counter() - start:.0f} s)"


def errors(done: Result) -> tuple[float, float]:
    """Of one run, on validation and on test."""
    return 1 - done.metrics["val/accuracy"], 1 - done.metrics["test/accuracy"]


def write_images(folder: Path, old: Path) -> None:
    """All training images of the new digits as files, without their labels."""
    few = [setting for setting in FEW if not setting.startswith("data.labels")]
    data = parts.datamodule(compose("train", ["experiment=finetune_full", f"init_from={old}", *few]))
    data.setup()
    for i, image in enumerate(data.sets["train"].images.numpy()):
        Image.fromarray(image).save(folder / f"{i:05}.png")


def main() -> None:
    """One line a run, then medians."""
    overrides = sys.argv[1:]
    print(machine(), flush=True)
    old = fit("experiment=mnist_cnn", *START).run_dir
    rows: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory(prefix="hwr-few-") as name:
        folder = Path(name)
        write_images(folder, old)
        for draw in range(1, DRAWS + 1):
            drawn, more = [f"data.labels_seed={draw}", f"seed={draw}", *overrides], list[str]()
            arms = {"from scratch": SCRATCH, "fine-tuned": []} | {f"and as read, {i + 1}": READ for i in range(ROUNDS)}
            for arm, settings in arms.items():
                start = [] if arm == "from scratch" else [f"init_from={old}"]
                done, words = run(*start, *settings, *more, *drawn)
                print(f"draw {draw}: {arm} {words}", flush=True)
                rows.setdefault(arm, []).append(errors(done))
                if start:
                    table = folder / f"{draw}.csv"
                    read = [f"model={done.run_dir}", f"images={folder}/*.png", "format=csv", f"output={table}"]
                    subprocess.run([sys.executable, "-m", "hwr.predict", *read], check=True)
                    more = [f"data.pseudo_labels={table}"]
    base = [median(column) for column in zip(*rows["from scratch"], strict=True)]
    for arm, found in rows.items():
        val, test = (median(column) for column in zip(*found, strict=True))
        ratio = f"ratio {val / base[0]:.2f} (test {test / base[1]:.2f})"
        print(f"median of {DRAWS}: {arm} {val:.2%} (test {test:.2%}), {ratio}")


if __name__ == "__main__":
    main()
