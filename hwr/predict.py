"""``python -m hwr.predict images='*.png'``: read images of single characters or of lines, or the lines of pages."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from hwr.config import command
from hwr.errors import HwrError

if TYPE_CHECKING:
    from hwr.line_recognizer import LineRecognizer, TextReading
    from hwr.recognizer import CharacterRecognizer, Reading

FORMATS = ("table", "json", "csv")


def run(cfg: DictConfig) -> None:
    """Reads every image; those that cannot be read are named on standard error and make the exit status 1."""
    if cfg.format not in FORMATS:
        raise HwrError(f"format={cfg.format}: known are {', '.join(FORMATS)}")
    if (cfg.images is None) == (cfg.pages is None):
        which = "images must be given" if cfg.images is None else "images and pages cannot both be given"
        raise HwrError(f"{which}: images=FILES of characters or lines, or pages=FILES.xml of whole pages")
    if cfg.output is not None and (not str(cfg.output) or (cfg.images is not None and Path(cfg.output).is_dir())):
        raise HwrError(f"output={cfg.output}: {'a folder; ' if cfg.output else ''}the name of a file is needed")
    from hwr.images import list_images
    from hwr.line_recognizer import LineRecognizer

    if cfg.pages is not None:
        from hwr.predict_pages import list_pages, read_pages

        pages = list_pages(patterns(cfg.pages))
        recognizer = load(cfg)
        if not isinstance(recognizer, LineRecognizer):
            raise HwrError(f"pages: model={cfg.model} reads single characters; give the run of a model of lines")
        read_pages(cfg, pages, recognizer)
        return
    paths = list_images(patterns(cfg.images))
    recognizer = load(cfg)
    lines = isinstance(recognizer, LineRecognizer)
    if not lines and not cfg.decoder._target_.endswith(".greedy"):
        raise HwrError(f"decoder: model={cfg.model} reads single characters, which need none; leave decoder out")
    print_readings(cfg, paths, _read(cfg, paths, recognizer), lines)


def load(cfg: DictConfig) -> CharacterRecognizer | LineRecognizer:
    """The recogniser that is asked for."""
    from hydra.utils import instantiate

    from hwr.recognizer import Recognizer

    return Recognizer.load(cfg.model, cfg.device, instantiate(cfg.decoder, _partial_=True), cfg.precision)


def patterns(given: Any) -> str | list[str]:
    """What ``images`` or ``pages`` names: one file, folder or pattern, or several."""
    return list(given) if isinstance(given, ListConfig) else str(given)


def _read(
    cfg: DictConfig, paths: list[Path], recognizer: CharacterRecognizer | LineRecognizer
) -> Iterator[Reading | TextReading | HwrError]:
    from hwr.recognizer import CharacterRecognizer

    if isinstance(recognizer, CharacterRecognizer):
        return recognizer.read_files(paths, cfg.top_k, cfg.batch_size)
    return recognizer.read_files(paths, cfg.columns)


def print_readings(
    cfg: DictConfig, paths: list[Path], readings: Iterator[Reading | TextReading | HwrError], lines: bool
) -> None:
    """Prints or writes what was read in images, in the format asked for.

    Args:
        cfg: As composed from ``conf/predict.yaml``.
        paths: The images.
        readings: What was read in each, or why not.
        lines: Whether the images are of lines.

    Raises:
        HwrError: At the end, if some could not be read; then nothing is written if none could.
    """
    from hwr.files import write_bytes, write_text

    rows, failed, seen_names, what = [], 0, unique_names(paths), "text" if lines else "label"
    for path, reading in zip(paths, readings, strict=True):
        if isinstance(reading, HwrError):
            if len(paths) == 1:
                raise reading
            failed += 1
            print(f"hwr.predict: error: {reading}", file=sys.stderr)
            continue
        if reading.blank:
            print(f"hwr.predict: warning: {path}: no ink found; the {what} means nothing", file=sys.stderr)
        if cfg.save_seen is not None:
            write_bytes(Path(cfg.save_seen) / seen_names[path], png(reading.seen))
        rows.append({"image": str(path), **as_row(reading)})
    if failed == len(paths):
        raise HwrError(f"none of {failed} images could be read")
    text = {"table": as_table, "json": as_json, "csv": as_csv}[cfg.format](rows, what)
    if cfg.output is None:
        print(text, end="")
    else:
        write_text(Path(cfg.output), text)
    if failed:
        raise HwrError(f"{failed} of {len(paths)} images could not be read; the others were")


def unique_names(paths: Iterable[Path], suffix: str = ".png") -> dict[Path, str]:
    """A file name for each path; files of one name from several folders are numbered."""
    taken: set[str] = set()
    names = {}
    for path in paths:
        name, number = f"{path.stem}{suffix}", 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}{suffix}"
        taken.add(name)
        names[path] = name
    return names


def png(seen: Any) -> bytes:
    """Encodes an array uint8 (H, W)."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(seen).save(out, "png")
    return out.getvalue()


def as_row(reading: Reading | TextReading) -> dict[str, Any]:
    """A reading as plain values; of a line each character with its confidence and its place [left, right), pixels."""
    from hwr.recognizer import Reading

    confidence = round(reading.confidence, 4)
    if isinstance(reading, Reading):
        top = [{"label": label, "probability": round(p, 4)} for label, p in reading.top]
        return {"label": reading.label, "confidence": confidence, "top": top}
    characters = [
        {"character": character, "confidence": round(p, 4), "x": [round(left, 1), round(right, 1)]}
        for character, p, (left, right) in zip(reading.text, reading.char_confidences, reading.x_spans, strict=True)
    ]
    return {"text": reading.text, "confidence": confidence, "characters": characters}


def as_table(rows: list[dict[str, Any]], what: str) -> str:
    """For people.

    Args:
        rows: See :func:`as_row`.
        what: The key of what was read, ``label`` or ``text``.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("image", what, "confidence", *(["next"] if what == "label" else []))
    for row in rows:
        rest = "  ".join(f"{t['label']} {t['probability']:.1%}" for t in row.get("top", [])[1:])
        more = [_escape(rest)] if what == "label" else []
        table.add_row(_escape(row["image"]), f"[bold]{_escape(row[what])}", f"{row['confidence']:.1%}", *more)
    out = io.StringIO()
    Console(file=out, force_terminal=sys.stdout.isatty(), width=None if sys.stdout.isatty() else 1000).print(table)
    return out.getvalue()


def as_json(rows: list[dict[str, Any]], what: str) -> str:
    """A list of objects."""
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_csv(rows: list[dict[str, Any]], what: str) -> str:
    """One line an image; for characters one pair of columns a rank."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ranks = max((len(row.get("top", [])) for row in rows), default=0)
    writer.writerow(
        ["image", what, "confidence", *(f"{key}{i + 1}" for i in range(ranks) for key in ("label", "probability"))]
    )
    for row in rows:
        best = [value for t in row.get("top", []) for value in t.values()]
        writer.writerow([row["image"], row[what], row["confidence"], *best])
    return out.getvalue()


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


main = command("predict", run)

if __name__ == "__main__":
    main()
