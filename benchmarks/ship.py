"""``python -m benchmarks.ship RUN NAME LICENCE TEST_COMMAND``: put a trained model into the package, in half precision.

What ``python -m hwr.eval run=RUN`` found on the test split, once, goes along. The weights lose precision: TEST_COMMAND,
which the model's card names, scores what is shipped.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from hwr import bundle


def main() -> None:
    """Copies the bundle of a run."""
    run, name, licence, test_command = sys.argv[1:]
    model = bundle.load(run)
    scores = Path(run) / "eval" / "test" / "metrics.json"
    tested = json.loads(scores.read_text()) if scores.is_file() else {}
    metrics = {**model.metrics, **{key: value for key, value in tested.items() if key.startswith("test/")}}
    about = {**model.about, "name": name, "licence": licence, "test_command": test_command}
    if data := os.environ.get("HWR_DATA_DIR"):  # where it lay here says nothing
        about["command"] = about["command"].replace(data, "$HWR_DATA_DIR")
    folder = bundle.SHIPPED / name
    replace(model, metrics=metrics, about=about).save(folder, half=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
