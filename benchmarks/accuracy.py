"""``python -m benchmarks.accuracy EXPERIMENT [SEED ...] [key=value ...]``: validation and test accuracy over seeds.

Everything was chosen on validation; test is scored by the run that this command makes, and reported whatever it is.
"""

from __future__ import annotations

import sys
from statistics import median

from benchmarks.common import fit, machine


def main() -> None:
    """One run a seed; the median is what counts."""
    experiment, *rest = sys.argv[1:]
    seeds = [word for word in rest if "=" not in word] or ["1", "2", "3"]
    overrides = [word for word in rest if "=" in word]
    print(machine())
    rows = []
    for seed in seeds:
        result = fit(f"experiment={experiment}", f"seed={seed}", *overrides)
        m = result.metrics
        rows.append((m["val/accuracy"], m["test/accuracy"]))
        print(
            f"{experiment} seed {seed}: validation {m['val/accuracy']:.2%}, test {m['test/accuracy']:.2%}, "
            f"{m['parameters']:,.0f} parameters, {m['epochs']:.0f} epochs, {m['train_seconds']:.0f} s "
            f"({result.trainer.precision}), peak {m['peak_memory_gb']:.2f} GB, {result.run_dir}",
            flush=True,
        )
    print(f"median of {len(rows)}: validation {median(r[0] for r in rows):.2%}, test {median(r[1] for r in rows):.2%}")


if __name__ == "__main__":
    main()
