"""``python -m hwr.audit experiment=NAME [folds=5] [key=value ...]``: which training labels are likely wrong.

Every training item is scored by a model that has not seen it (cross-validation). What comes of it are a table to
correct, which the next training takes as ``data.corrections``, and a picture of the most suspicious items.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig, OmegaConf

from hwr.config import command
from hwr.errors import HwrError

if TYPE_CHECKING:
    from hwr.suspects import Items, Suspect

COLUMNS = ("rank", "image", "label", "read", "sure", "score", "corrected")
OWN_KEYS = ("folds=", "top=", "data.corrections=", "run_dir=")  # of an audit, not of the training after it
MOST, PRINTED = 200, 10  # items of the picture, at most, and of the printed list


def run(cfg: DictConfig) -> None:
    """Audits as configured, or goes on with an audit that was broken off, and prints what came of it."""
    from hwr.data.lines.base import LineDataModule
    from hwr.figures import save
    from hwr.parts import datamodule, replayed
    from hwr.suspects import Characters, Lines

    for key, low, high in (("folds", 2, 1000), ("top", 1, MOST)):
        if not isinstance(cfg[key], int) or not low <= cfg[key] <= high:
            raise HwrError(f"{key}={cfg[key]}: a whole number from {low} to {high} is needed")
    if cfg.ckpt_path is not None:
        raise HwrError("ckpt_path: an audit that was broken off goes on when the same command is run again")
    if cfg.trainer.devices not in (1, "1"):
        raise HwrError("trainer.devices: an audit trains one model after the other on one device; leave it at 1")
    out, data = Path(cfg.run_dir), datamodule(cfg)
    if data.streamed:
        raise HwrError("training items in shards are not audited; audit the data that was packed")
    out = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    items = Lines(data) if isinstance(data, LineDataModule) else Characters(data)
    known = _corrected(out / "audit.tsv", cfg.data.get("corrections"))
    suspects = cross_validate(cfg, items, replayed(cfg, data))
    ranked = sorted(range(len(suspects)), key=lambda i: (-suspects[i].score, i))
    _write_table(out / "audit.tsv", [suspects[i] for i in ranked], known)
    shown = ranked[: cfg.top]
    title = f"{len(shown):,} of {len(ranked):,} training {items.kind}, the most suspicious labels first"
    save(items.figure(shown, suspects, title), out / "audit.png")
    _report(out, [suspects[i] for i in ranked], items)


def cross_validate(cfg: DictConfig, items: Items, replayed: Sequence[str] = ()) -> list[Suspect]:
    """Scores every training item with a model that has not seen it; what an earlier call finished is not done again.

    Args:
        cfg: As composed from ``conf/audit.yaml``. Each fold leaves its run below ``run_dir``.
        items: Of the data that it names.
        replayed: What tells the old data among it from any other, see :func:`hwr.parts.replayed`.

    Returns:
        In the order of the items.
    """
    from hwr.suspects import Suspect

    keys = [hashlib.sha256(items.image(i).tobytes()).hexdigest() for i in range(len(items.names))]
    found: dict[int, Suspect] = {}
    for number, held_out in enumerate(deal(keys, items.strata(), cfg.folds, cfg.seed), start=1):
        folder = Path(cfg.run_dir) / f"fold{number}-{_fingerprint(cfg, items, [*keys, *replayed], held_out)}"
        scores = folder / "scores.json"
        if not scores.is_file():
            rest = len(keys) - len(held_out)
            print(f"fold {number} of {cfg.folds}: {rest:,} {items.kind} to learn from, {len(held_out):,} to judge")
            _score(cfg, folder, items, held_out, scores)
        rows = json.loads(scores.read_text(encoding="utf-8"))
        found |= {i: Suspect(*row) for i, row in zip(held_out.tolist(), rows, strict=True)}
    return [found[i] for i in range(len(keys))]


def deal(keys: Sequence[str], strata: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    """Deals items out to folds so that each has the same share of every stratum, and equal items are in one.

    Args:
        keys: (N,) items of the same key are the same.
        strata: (N,) of a key, that of its first item counts.
        folds: How many.
        seed: Of the draw.

    Returns:
        For each fold, sorted positions.

    Raises:
        HwrError: If there are fewer different items than folds.
    """
    first = dict(zip(reversed(keys), reversed(strata), strict=True))
    if len(first) < folds:
        raise HwrError(f"folds={folds}: there are only {len(first)} different training images; give fewer folds")
    groups = list(dict.fromkeys(keys))
    shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    fold = {key: i % folds for i, key in enumerate(sorted(shuffled, key=first.__getitem__))}
    numbers = np.array([fold[key] for key in keys])
    return [np.flatnonzero(numbers == i) for i in range(folds)]


def _score(cfg: DictConfig, folder: Path, items: Items, held_out: np.ndarray, scores: Path) -> None:
    """Trains without the items at these positions, or goes on where that stopped, and writes their scores."""
    from hwr.experiment import fit
    from hwr.files import write_json

    fold = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("folds", "top")])
    fold.run_dir, fold.test = str(folder), False
    fold.ckpt_path = "last" if (folder / "checkpoints" / "last.ckpt").is_file() else None
    log = logging.getLogger("hwr.data")
    level = log.level
    log.setLevel(logging.ERROR)  # what there is to say of the data was said when it was set up for all folds
    try:
        result = fit(fold, lambda data: data.restrict(np.setdiff1d(np.arange(len(items.names)), held_out)))
    finally:
        log.setLevel(level)
    system = result.system.to(result.trainer.strategy.root_device)
    suspects = items.score(held_out, system, result.datamodule)
    if result.trainer.is_global_zero:
        write_json(scores, suspects)


def _fingerprint(cfg: DictConfig, items: Items, keys: Sequence[str], held_out: np.ndarray) -> str:
    """Eight hexadecimal digits that tell a fold of these settings and data from any other."""
    from hwr import transfer

    plain = cfg.copy()
    plain.run_dir, plain.top = "", 0
    settings = OmegaConf.to_yaml(plain, resolve=True)
    models = [transfer.fingerprint(name) for name in (cfg.init_from, cfg.distill.teacher) if name is not None]
    facts = [settings, *models, *items.names, *items.labels, *keys, *map(str, held_out)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def _corrected(table: Path, applied: str | None) -> dict[str, str]:
    """What was corrected already, by name: in the corrections that are applied, and in an earlier table of this audit.

    It is written out again, so that the newest table says everything.
    """
    from hwr.data.corrections import read

    tables = [path for path in (applied, table) if path is not None and Path(path).expanduser().is_file()]
    return {one.name: one.label for path in tables for one in read(path)}


def _write_table(path: Path, ranked: Sequence[Suspect], known: Mapping[str, str]) -> None:
    from hwr.data.corrections import write

    rows: list[Sequence[object]] = [
        (rank, s.name, s.label, s.read, f"{s.sure:.4f}", f"{s.score:.4f}", known.get(s.name, ""))
        for rank, s in enumerate(ranked, start=1)
    ]
    here = {s.name for s in ranked}
    rows += [("", name, "", "", "", "", label) for name, label in known.items() if name not in here]
    write(path, COLUMNS, rows)


def _report(out: Path, ranked: Sequence[Suspect], items: Items) -> None:
    """The top of the list, where everything is, what to do next."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hwr.data.corrections import REMOVE

    table = Table("rank", "image", "label", "read", "score")
    for rank, one in enumerate(ranked[:PRINTED], start=1):
        cells = (one.name, one.label, one.read, f"{one.score:.2f}")
        table.add_row(str(rank), *(Text(cell, overflow="fold") for cell in cells))
    table_path = out / "audit.tsv"
    console = Console()
    console.print(f"{out}", soft_wrap=True, highlight=False, markup=False)
    console.print(items.agreement(ranked), soft_wrap=True, highlight=False)
    console.print(table)
    console.print("Next:", style="bold")
    for text in (
        f"look at {out / 'audit.png'}",
        f"write right labels into the column corrected of {table_path} ({REMOVE} leaves an item out)",
        shlex.join(["python", "-m", "hwr.train", *_settings(), f"data.corrections={table_path}"]),
    ):
        console.print(f"  {text}", soft_wrap=True, highlight=False, markup=False)


def _settings() -> list[str]:
    """What was typed, without what is of an audit alone."""
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [word for word in typed if not word.startswith(OWN_KEYS)]


main = command("audit", run)

if __name__ == "__main__":
    main()
