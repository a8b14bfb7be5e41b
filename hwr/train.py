"""``python -m hwr.train experiment=NAME [key=value ...]``: train, test, and leave a run directory behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hwr.config import command

if TYPE_CHECKING:
    from hwr.experiment import Result


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
    if "val/accuracy" in m:
        table.add_row(
            "validation accuracy",
            f"{m['val/accuracy']:.2%}",
            f"epoch {m['best_epoch']:.0f} of {m['epochs']:.0f}" if "best_epoch" in m else "",
        )
    if "test/accuracy" in m:
        interval = f"95 % interval {m['test/accuracy_low']:.2%} to {m['test/accuracy_high']:.2%}"
        table.add_row("test accuracy", f"{m['test/accuracy']:.2%}", interval)
        table.add_row("test macro F1", f"{m['test/f1_macro']:.4f}", f"{m['test/samples']:,.0f} images")
        table.add_row("calibration error", f"{m['test/calibration_error']:.4f}", "expected, 15 bins")
    table.add_row(
        "training", f"{m['train_seconds']:.1f} s", f"{m['parameters']:,.0f} parameters, {result.trainer.precision}"
    )
    table.add_row("peak memory", f"{m['peak_memory_gb']:.2f} GB", "")
    console = Console()
    console.print(f"{result.run_dir}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    console.print("Next:", style="bold")
    for text in (
        f"tensorboard --logdir {result.run_dir}",
        f"python -m hwr.eval run={result.run_dir}",
        f"python -m hwr.predict model={result.run_dir} images=YOUR_IMAGE.png",
    ):
        console.print(f"  {text}", soft_wrap=True, highlight=False)


main = command("train", run)

if __name__ == "__main__":
    main()
