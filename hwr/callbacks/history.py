"""One row of figures an epoch, and a dashboard in TensorBoard."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from hwr.files import write_text
from hwr.systems import LineSystem, System

LEARNING = {
    "characters": {"accuracy": ["train/accuracy", "val/accuracy"]},
    "lines": {
        "character and word error rate": ["val/cer", "val/wer"],
        "blank fraction": ["val/blank_fraction"],  # near 1 for long: the network has not begun to read
        "mean length": ["val/mean_length"],
    },
}
MACHINE = {"speed": ["system/samples_per_s"], "memory": ["system/memory_gb"]}
UNPRINTED = ("val/blank_fraction", "val/mean_length")


class History(Callback):
    """Writes ``history.csv`` in the run directory after every epoch (the first is 1); a resumed run goes on in it.

    Where the output is no terminal (a log file, say) each epoch also prints a line.

    Args:
        dirpath: The run directory.
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "history.csv"
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the rows of the epochs before the one a resumed run starts with (known from here on)."""
        if trainer.current_epoch and self.path.is_file():
            self.rows = [row for row in read(self.path) if row["epoch"] <= trainer.current_epoch]
        if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
            kind = "lines" if isinstance(pl_module, LineSystem) else "characters"
            charts = {"learning": {"loss": ["train/loss", "val/loss"], **LEARNING[kind]}, "machine": MACHINE}
            layout = {page: {name: ["Multiline", tags] for name, tags in of.items()} for page, of in charts.items()}
            trainer.logger.experiment.add_custom_scalars(layout)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row of this epoch (validation has run by then)."""
        if not trainer.is_global_zero:
            return
        seen: dict[str, Any] = {**cast("System", pl_module).validated, **trainer.callback_metrics}
        values = {k: float(v) for k, v in seen.items()}
        for i, optimizer in enumerate(trainer.optimizers):
            values[f"lr{i or ''}"] = optimizer.param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **values})
        write_text(self.path, _csv(self.rows))
        if not sys.stdout.isatty():
            names = [name for name in values if name.startswith(("train/", "val/")) and name not in UNPRINTED]
            shown = "  ".join(f"{name} {values[name]:.4g}" for name in names)
            of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
            print(f"epoch {trainer.current_epoch + 1}{of}  {shown}", flush=True)


def best_checkpoint(trainer: Trainer) -> tuple[str, int] | None:
    """The checkpoint that is kept for its validation, and its epoch (the first is 1)."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            path = callback.best_model_path
            return path, torch.load(path, map_location="cpu", weights_only=True)["epoch"] + 1
    return None


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a ``history.csv``; a value that was not measured in an epoch is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: int(v) if v.isdigit() else float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
