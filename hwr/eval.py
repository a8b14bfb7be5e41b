"""``python -m hwr.eval run=DIR``: score a model on any split or another data set."""

from __future__ import annotations

from omegaconf import DictConfig

from hwr.config import command


def run(cfg: DictConfig) -> None:
    """Scores as configured and prints the figures and where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    from hwr.experiment import evaluate

    result = evaluate(cfg)
    m = result.metrics
    table = Table(show_header=False)
    for name, value in m.items():
        if name.startswith("test/") and name != "test/samples":
            table.add_row(name.removeprefix("test/").replace("_", " "), f"{value:.4f}")
    table.add_row("images", f"{m['test/samples']:,.0f}")
    for size in (1, 256):
        table.add_row(f"ms per image, batch {size}", f"{m[f'ms_per_image_batch_{size}']:.3f}")
    console = Console()
    console.print(f"{cfg.run} on {cfg.split}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    console.print(f"metrics.json, per_class.csv and figures: {result.run_dir}", soft_wrap=True, highlight=False)


main = command("eval", run)

if __name__ == "__main__":
    main()
