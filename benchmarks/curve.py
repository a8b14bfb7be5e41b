"""``python -m benchmarks.curve OUT RUN [RUN ...]``: error against wall time and lines seen, as OUT.csv and OUT.png.

Times are those of the TensorBoard events, validation and checkpoints included; where a run was resumed, the time
between its parts does not count.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hwr.files import write_text


def points(run: Path) -> list[tuple[float, float, float]]:
    """Minutes, lines seen and validation CER after each epoch."""
    lines = json.loads((run / "splits.json").read_text())["sizes"]["train"]
    rows: list[tuple[float, float, float]] = []
    seconds = 0.0
    for file in sorted((run / "tensorboard").rglob("events.out.tfevents.*")):  # one for each part of the run
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        if "val/cer" not in events.Tags()["scalars"]:
            continue
        start = events.FirstEventTimestamp()
        found = [event for event in events.Scalars("val/cer") if event.step]  # step 0: the figures of the kept epoch
        if not found:
            continue
        rows += [
            ((seconds + event.wall_time - start) / 60, lines * (len(rows) + i + 1), event.value)
            for i, event in enumerate(found)
        ]
        seconds += found[-1].wall_time - start
    return rows


def main() -> None:
    """Writes the table and the picture."""
    out, *runs = sys.argv[1:]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    text = "run,minutes,lines,val_cer\n"
    for run in runs:
        rows = points(Path(run))
        text += "".join(f"{Path(run).name},{m:.1f},{n:.0f},{cer:.4f}\n" for m, n, cer in rows)
        axes.plot([m for m, _, _ in rows], [100 * cer for _, _, cer in rows], label=Path(run).name)
    axes.set(xlabel="minutes of training", ylabel="validation CER, %", yscale="log")
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.grid(alpha=0.3)
    axes.legend()
    write_text(Path(f"{out}.csv"), text)
    figure.savefig(f"{out}.png", dpi=120)


if __name__ == "__main__":
    main()
