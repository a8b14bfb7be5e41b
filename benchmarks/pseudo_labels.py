"""``python -m benchmarks.pseudo_labels DATA [LABELS] [key=value ...]``: what lines without transcripts are worth.

The shipped ``copiste`` learns LABELS lines of the table ``train.tsv`` in DATA, reads the other training lines as if
nobody had transcribed them, and learns anew from both, twice. Validation error after each step.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from benchmarks.common import fit, machine
from hwr.data.labels import choose

ROUNDS = 2  # of reading the others and learning anew


def take_apart(data: Path, folder: Path, labels: int) -> None:
    """Makes ``folder`` a data set with so many training lines, and ``folder/others`` a folder of the other images."""
    for split in ("train", "val", "test"):
        with (data / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        image = header.index("image")
        for row in rows:
            row[image] = str((data / row[image]).resolve())
        if split == "train":
            chosen = set(choose(labels, np.zeros(len(rows), int), 0).tolist())
            (folder / "others").mkdir()
            for i, row in enumerate(rows):
                if i not in chosen:
                    (folder / "others" / f"{i:06}{Path(row[image]).suffix}").symlink_to(row[image])
            rows = [rows[i] for i in sorted(chosen)]
        text = "\n".join("\t".join(row) for row in [header, *rows])
        (folder / f"{split}.tsv").write_text(text, encoding="utf-8")


def main() -> None:
    """One line a step."""
    data, overrides = Path(sys.argv[1]), sys.argv[2:]
    labels = int(overrides.pop(0)) if overrides and overrides[0].isdigit() else 200
    print(machine(), flush=True)
    with TemporaryDirectory(prefix="hwr-pseudo-") as name:
        folder, more = Path(name), list[str]()
        take_apart(data, folder, labels)
        for step in range(ROUNDS + 1):
            start = perf_counter()
            done = fit(
                "experiment=finetune_hand", "init_from=copiste", f"data.path={folder}", "test=false", *more, *overrides
            )
            lines = done.datamodule
            what = f"and {len(lines.sets['train']) - len(lines.transcripts):,} lines as read" if more else "alone"
            print(
                f"{labels} labels {what}: CER {done.metrics['val/cer']:.2%}, WER {done.metrics['val/wer']:.2%} "
                f"(start: CER {done.metrics['new/before']:.2%}), {perf_counter() - start:.0f} s",
                flush=True,
            )
            table = folder / f"read{step}.csv"
            if step < ROUNDS:
                read = [f"model={done.run_dir}", f"images={folder / 'others'}", "format=csv", f"output={table}"]
                subprocess.run([sys.executable, "-m", "hwr.predict", *read], check=True)
            more = [f"data.pseudo_labels={table}"]


if __name__ == "__main__":
    main()
