"""``python -m benchmarks.ship RUN NAME LICENCE``: put a trained model into the package, in half precision.

The weights lose precision: ``python -m hwr.eval run=NAME data=...`` scores what is shipped.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hwr import bundle


def main() -> None:
    """Copies the bundle of a run."""
    run, name, licence = sys.argv[1:]
    model = bundle.load(run)
    folder = bundle.SHIPPED / name
    replace(model, about={**model.about, "name": name, "licence": licence}).save(folder, half=True)
    size = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
