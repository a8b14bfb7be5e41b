"""``python -m hwr.eval run=DIR``: score a model on any split or another data set."""

from __future__ import annotations

from omegaconf import DictConfig

from hwr.config import command


def run(cfg: DictConfig) -> None:
    """Scores as configured and prints the figures and where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    from hwr.experiment import evaluate
    from hwr.train import PROFILE, line_rows

    result = evaluate(cfg)
    m, lines = result.metrics, "test/cer" in result.metrics
    table = Table(show_header=False)
    if lines:
        for row in line_rows(result):
            table.add_row(*row)
    else:
        for name, value in m.items():
            if name.startswith("test/") and name != "test/samples":
                table.add_row(name.removeprefix("test/").replace("_", " "), f"{value:.4f}")
        table.add_row("images", f"{m['test/samples']:,.0f}")
    for name, value in m.items():
        if name.startswith("ms_per_"):
            what, _, size = name.removeprefix("ms_per_").partition("_batch_")
            table.add_row(f"ms per {what}, batch {size}", f"{value:.3f}")
    console = Console()
    console.print(f"{cfg.run} on {cfg.split}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    if lines:
        console.print(PROFILE, soft_wrap=True, highlight=False, markup=False)
    tables = "lines.csv, confusions.csv" if lines else "per_class.csv"
    where = f"metrics.json, {tables} and figures: {result.run_dir}"
    console.print(where, soft_wrap=True, highlight=False, markup=False)


main = command("eval", run)

if __name__ == "__main__":
    main()
