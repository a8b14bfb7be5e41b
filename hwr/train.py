"""``python -m hwr.train experiment=NAME [key=value ...]``: train, test, and leave a run directory behind."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hwr.config import command

if TYPE_CHECKING:
    from hwr.experiment import Result

PROFILE = (
    "CER and WER: NFC, white space collapsed; case and punctuation count; words split at white space; "
    "intervals over writers where known"
)


def run(cfg: DictConfig) -> None:
    """Trains as configured and prints what came of it."""
    from hwr.experiment import fit

    result = fit(cfg)
    if result.trainer.is_global_zero:
        report(result)


def report(result: Result) -> None:
    """The closing table: figures, where the run is, what to try next."""
    from rich.console import Console
    from rich.table import Table

    m = result.metrics
    table = Table(show_header=False)
    kept = f"epoch {m['best_epoch']:.0f} of {m['epochs']:.0f}" if "best_epoch" in m else ""
    if "val/accuracy" in m:
        table.add_row("validation accuracy", f"{m['val/accuracy']:.2%}", kept)
    if "val/cer" in m:
        table.add_row("validation CER", f"{m['val/cer']:.2%}", kept)
        table.add_row("validation WER", f"{m['val/wer']:.2%}", "")
    if "test/accuracy" in m:
        interval = f"95 % interval {m['test/accuracy_low']:.2%} to {m['test/accuracy_high']:.2%}"
        table.add_row("test accuracy", f"{m['test/accuracy']:.2%}", interval)
        table.add_row("test macro F1", f"{m['test/f1_macro']:.4f}", f"{m['test/samples']:,.0f} images")
        table.add_row("calibration error", f"{m['test/calibration_error']:.4f}", "expected, 15 bins")
    if "test/cer" in m:
        for row in line_rows(result):
            table.add_row(*row)
    for row in result.adaptation.rows() if result.adaptation else ():
        table.add_row(*row)
    table.add_row(
        "training", f"{m['train_seconds']:.1f} s", f"{m['parameters']:,.0f} parameters, {result.trainer.precision}"
    )
    stopper = result.trainer.early_stopping_callback
    planned = result.trainer.max_epochs or -1
    ended = 0 < planned <= m["epochs"]
    if early := stopper is not None and stopper.stopped_epoch > 0 and not ended:  # not by max_time or max_steps
        enough = stopper.wait_count >= stopper.patience
        waited = f"{stopper.wait_count} epoch{'s' if stopper.wait_count > 1 else ''}"
        why = f"no better for {waited}" if enough else "no longer finite"
        of = f"of {planned}: " if planned > 0 else ""
        table.add_row("stopped early", f"{m['epochs']:.0f} epochs", f"{of}{stopper.monitor} was {why}")
    if "peak_memory_gb" in m:
        table.add_row("peak memory", f"{m['peak_memory_gb']:.2f} GB", "")
    console = Console()
    console.print(f"{result.run_dir}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    lines = "val/cer" in m or "test/cer" in m
    if lines:
        console.print(PROFILE, soft_wrap=True, highlight=False)
    console.print("Next:", style="bold")
    run = shlex.quote(str(result.run_dir))
    again = f"the same command with run_dir={run} ckpt_path=last callbacks.early_stopping=null goes on"
    for text in (
        *([again] if early else []),
        f"tensorboard --logdir {run}",
        f"python -m hwr.eval run={run}",
        f"python -m hwr.predict model={run} images=YOUR_{'LINE' if lines else 'IMAGE'}.png",
    ):
        console.print(f"  {text}", soft_wrap=True, highlight=False, markup=False)


def line_rows(result: Result) -> list[tuple[str, str, str]]:
    """What a test of lines found, as rows of name, figure and note; the run must have been tested."""
    from hwr.systems import LineSystem

    assert isinstance(result.system, LineSystem)
    m, writers = result.metrics, len(result.system.error_rate().groups)
    split = {"val": "validation"}.get(result.datamodule.test_split, result.datamodule.test_split)
    rows = []
    for name in ("cer", "wer"):
        low, high = m.get(f"test/{name}_low"), m.get(f"test/{name}_high")
        note = "no interval from one writer" if low is None else f"95 % interval {low:.2%} to {high:.2%}"
        rows.append((f"{split} {name.upper()}", f"{m[f'test/{name}']:.2%}", note))
    facts = f"{m['test/characters']:,.0f} characters" + (f", {writers:,} writers" if writers else "")
    rows.append(("lines", f"{m['test/lines']:,.0f}", facts))
    if m["test/lost"]:
        rows.append(("not readable", f"{m['test/lost']:,.0f}", "or too narrow for their text: counted as wrong"))
    return rows


main = command("train", run)

if __name__ == "__main__":
    main()
