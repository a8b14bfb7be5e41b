"""``python -m benchmarks.audit characters|lines [SEED] [key=value ...]``: wrong labels planted, and how many are found.

Characters: 5 % of 5,000 digits of MNIST (and of the 500 of validation) get another label, each as likely as any.
Lines: 5 % of 800 lines of `poilus` get a wrong text: half of them the text of another line, a quarter another word in
place of one, a quarter a word less. What else is wrong in these data sets is not known and counts as right here.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter

import numpy as np

from benchmarks.common import DATA, machine

SHARE, CHARACTERS, VALIDATION, LINES = 0.05, 5000, 500, 800
KINDS = ("images-idx3", "labels-idx1")
OVERRIDES = {
    "characters": [
        "experiment=mnist_fast",
        "trainer.max_epochs=4",
        "data.split._target_=hwr.data.splits.last",
        f"data.split.size={VALIDATION}",
        "~data.split.seed",
    ],
    "lines": [
        "experiment=tsv_crnn",
        "init_from=copiste",
        "network=null",
        "charset.on_change=keep",
        "charset.unknown=skip",
        "folds=4",
        "trainer.max_epochs=12",
        "trainer.check_val_every_n_epoch=3",
        "trainer.precision=bf16-mixed",
        "optimizer=adamw",
        "optimizer.lr=1e-3",
        "optimizer.betas=[0.9,0.99]",
        "scheduler=onecycle",
        "scheduler.warmup=0.1",
        "callbacks.ema.decay=0.98",
        "callbacks.gallery=null",
    ],
}


def plant_characters(folder: Path, seed: int) -> dict[str, str]:
    """Writes digits with wrong labels among them; returns the kind of each planted error of training, by name."""
    rng = np.random.default_rng(seed)
    source, raw = DATA / "MNIST" / "raw", folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in source.glob("t10k-*-ubyte"):
        (raw / file.name).write_bytes(file.read_bytes())
    images, labels = (np.frombuffer((source / f"train-{kind}-ubyte").read_bytes(), np.uint8) for kind in KINDS)
    chosen = np.sort(rng.permutation(len(labels) - 8)[: CHARACTERS + VALIDATION])
    images, labels = images[16:].reshape(-1, 28, 28)[chosen], labels[8:][chosen].copy()
    wrong = [rng.permutation(CHARACTERS)[: round(SHARE * CHARACTERS)]]
    wrong += [CHARACTERS + rng.permutation(VALIDATION)[: round(SHARE * VALIDATION)]]
    planted = np.concatenate(wrong)
    labels[planted] = (labels[planted] + rng.integers(1, 10, len(planted))) % 10
    for kind, array in zip(KINDS, (images, labels), strict=True):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (raw / f"train-{kind}-ubyte").write_bytes(header + array.tobytes())
    return {f"train {i}": "another digit" for i in wrong[0].tolist()}


def plant_lines(folder: Path, seed: int) -> dict[str, str]:
    """Writes tables of lines with wrong texts among them; returns the kind of each planted error, by name."""
    rng = np.random.default_rng(seed)
    source = (DATA / "poilus").resolve()
    tables = {}
    for split in ("train", "val", "test"):
        head, *rows = (source / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        columns = head.split("\t")
        tables[split] = [dict(zip(columns, row.split("\t"), strict=True)) for row in rows]
        for row in tables[split]:
            row["image"] = str(source / row["image"])
    train = [tables["train"][i] for i in np.sort(rng.permutation(len(tables["train"]))[:LINES])]
    texts = [row["text"] for row in train]
    words = [word for text in texts for word in text.split()]
    planted: dict[str, str] = {}
    wanted = round(SHARE * LINES)
    for i in rng.permutation(LINES).tolist():
        kind = ("another line", "another line", "another word", "a word less")[len(planted) * 4 // wanted]
        new = texts[i].split()
        if kind == "another line":
            new = [texts[rng.integers(LINES)]]
        elif len(new) < 3:
            continue
        elif kind == "another word":
            new[rng.integers(len(new))] = words[rng.integers(len(words))]
        else:
            del new[rng.integers(len(new))]
        if " ".join(new) == texts[i]:
            continue
        train[i]["text"] = " ".join(new)
        planted[train[i]["image"]] = kind
        if len(planted) == wanted:
            break
    tables["train"] = train
    for split, rows in tables.items():
        lines = ["image\twriter\ttext", *("\t".join(row[c] for c in ("image", "writer", "text")) for row in rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return planted


def main() -> None:
    """Plants, audits, and counts what of it is in the first tenth of the list; what was broken off goes on."""
    from hwr.audit import run
    from hwr.config import compose

    what, *rest = sys.argv[1:]
    seed = int(next((word for word in rest if "=" not in word), "1"))
    folder = Path(gettempdir()) / f"hwr-bench-audit-{what}-{seed}"
    folder.mkdir(exist_ok=True)
    planted = {"characters": plant_characters, "lines": plant_lines}[what](folder, seed)
    where = f"data.root='{folder}'" if what == "characters" else f"data.path='{folder}'"
    overrides = [*OVERRIDES[what], where, *(word for word in rest if "=" in word)]
    print(machine(), flush=True)
    start = perf_counter()
    run(compose("audit", overrides, run_dir=folder / "audit"))
    minutes = (perf_counter() - start) / 60
    with (folder / "audit" / "audit.tsv").open(encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file, delimiter="\t")]
    first = set(names[: len(names) // 10])
    found = Counter(kind for name, kind in planted.items() if name in first)
    for kind, count in Counter(planted.values()).items():
        print(f"{kind}: {found[kind]} of {count}")
    print(
        f"{what}, seed {seed}: {found.total()} of {len(planted)} planted errors ({found.total() / len(planted):.1%}) "
        f"in the first {len(first)} of {len(names):,}; {minutes:.1f} minutes"
    )


if __name__ == "__main__":
    main()
