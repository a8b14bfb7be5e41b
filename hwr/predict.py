"""``python -m hwr.predict images='*.png'``: read images of single characters."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from hwr.config import command
from hwr.errors import HwrError

FORMATS = ("table", "json", "csv")


def run(cfg: DictConfig) -> None:
    """Reads every image; those that cannot be read are named on standard error and make the exit status 1."""
    if cfg.format not in FORMATS:
        raise HwrError(f"format={cfg.format}: known are {', '.join(FORMATS)}")
    from hwr.files import write_bytes, write_text
    from hwr.images import list_images
    from hwr.recognizer import Recognizer

    paths = list_images(list(cfg.images) if isinstance(cfg.images, ListConfig) else str(cfg.images))
    recognizer = Recognizer.load(cfg.model, cfg.device)
    rows, failed, seen_names = [], 0, unique_names(paths)
    for path, reading in zip(paths, recognizer.read_files(paths, cfg.top_k, cfg.batch_size), strict=True):
        if isinstance(reading, HwrError):
            failed += 1
            print(f"hwr.predict: error: {reading}", file=sys.stderr)
            continue
        if reading.blank:
            print(f"hwr.predict: warning: {path}: no ink found; the label means nothing", file=sys.stderr)
        if cfg.save_seen is not None:
            write_bytes(Path(cfg.save_seen) / seen_names[path], png(reading.seen))
        top = [{"label": label, "probability": round(p, 4)} for label, p in reading.top]
        rows.append(
            {"image": str(path), "label": reading.label, "confidence": round(reading.confidence, 4), "top": top}
        )
    text = {"table": as_table, "json": as_json, "csv": as_csv}[cfg.format](rows)
    if cfg.output is None:
        print(text, end="")
    else:
        write_text(Path(cfg.output), text)
    if failed:
        raise HwrError(f"{failed} of {len(paths)} images could not be read; the others were")


def unique_names(paths: Iterable[Path]) -> dict[Path, str]:
    """A PNG name for each path; files of one name from several folders are numbered."""
    taken: set[str] = set()
    names = {}
    for path in paths:
        name, number = f"{path.stem}.png", 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}.png"
        taken.add(name)
        names[path] = name
    return names


def png(seen: Any) -> bytes:
    """Encodes an array uint8 (H, W)."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(seen).save(out, "png")
    return out.getvalue()


def as_table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    from rich.console import Console
    from rich.table import Table

    table = Table("image", "label", "confidence", "next")
    for row in rows:
        rest = "  ".join(f"{t['label']} {t['probability']:.1%}" for t in row["top"][1:])
        table.add_row(row["image"], f"[bold]{_escape(row['label'])}", f"{row['confidence']:.1%}", _escape(rest))
    out = io.StringIO()
    Console(file=out, force_terminal=sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120).print(table)
    return out.getvalue()


def as_json(rows: list[dict[str, Any]]) -> str:
    """A list of objects."""
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_csv(rows: list[dict[str, Any]]) -> str:
    """One line an image, one pair of columns a rank."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ranks = max((len(row["top"]) for row in rows), default=0)
    writer.writerow(
        ["image", "label", "confidence", *(f"{key}{i + 1}" for i in range(ranks) for key in ("label", "probability"))]
    )
    for row in rows:
        writer.writerow([row["image"], row["label"], row["confidence"], *(v for t in row["top"] for v in t.values())])
    return out.getvalue()


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


main = command("predict", run)

if __name__ == "__main__":
    main()
