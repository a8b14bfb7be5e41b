"""Writing the items of any data set as shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.batches import LineSet
from hwr.data.lines.lost import frames_needed
from hwr.data.shards.format import FORMAT, INDEX, VERSION, Block, Shard, encode, intact, sealed
from hwr.errors import HwrError
from hwr.files import write_bytes, write_text

ALIKE = 1.1  # how many times as wide as another a training line may be that is shuffled among the same ones


class Planned(NamedTuple):
    """A shard to be written.

    Attributes:
        key: Of its sample: the name of the file without its ending.
        split: Whose items.
        positions: Of its items in the split, int (N,).
    """

    key: str
    split: str
    positions: np.ndarray


def pack(data: CharacterDataModule | LineDataModule, out: Path, shard_mb: float, settings: Any = None) -> list[Shard]:
    """Writes all splits as shards, and the index last.

    What an earlier call left in the folder is checked, and what is whole is not written again: a call that was broken
    off goes on, and a shard that was damaged since is mended. The same data gives the same bytes.

    Args:
        data: Set up.
        out: The folder.
        shard_mb: Megabytes of pixels in a shard, about.
        settings: What else tells this data from other data, as plain containers.

    Raises:
        HwrError: If the folder holds other shards, or cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    plan = [planned for split, part in data.sets.items() for planned in _plan(part, split, shard_mb * 1e6)]
    about = _about(data) | {"shard_mb": shard_mb, "data": _fingerprint(data, settings)}
    try:
        lines = _begun(out, json.dumps(about, ensure_ascii=False) + "\n")
        write_text(out / f"{INDEX}.part", "".join(lines))
        console = Console(stderr=True)
        todo = track(plan, "Packing", console=console, disable=not console.is_terminal)
        with (out / f"{INDEX}.part").open("a", encoding="utf-8") as journal:
            for number, planned in enumerate(todo, start=1):
                if number < len(lines) and _whole(out, Shard.read(lines[number])):
                    continue
                shard = _write(out, planned, data.sets[planned.split])
                if number == len(lines):
                    lines.append(shard.line())
                    journal.write(lines[-1])
                    journal.flush()
                    os.fsync(journal.fileno())
        write_text(out / INDEX, sealed(lines))
        (out / f"{INDEX}.part").unlink()
    except OSError as error:
        raise HwrError(f"{error.filename or out}: {error.strerror}; mend that, and the same command goes on") from None
    return [Shard.read(line) for line in lines[1:]]


def _begun(out: Path, header: str) -> list[str]:
    """The lines of the index that an earlier call wrote, or the first line alone; removes half a file that it left."""
    for path in (out / f"{INDEX}.part", out / INDEX):
        if path.is_file():
            found = path.read_text(encoding="utf-8").splitlines(keepends=True)
            if found[:1] != [header]:
                raise HwrError(
                    f"out={out}: holds shards of other data or settings; choose another folder, or remove it"
                )
            for half in out.glob(".*.tmp"):
                half.unlink()
            return [header, *(line for line in found[1:] if '"file"' in line and line.endswith("}\n"))]
    return [header]


def _whole(out: Path, shard: Shard) -> bool:
    try:
        return intact(shard, (out / shard.file).read_bytes())
    except FileNotFoundError:
        return False


def _plan(part: CharacterSet | LineSet, split: str, limit: float) -> Iterator[Planned]:
    """Deals the items of a split out to shards of so many bytes of pixels.

    Training items are shuffled, because a batch comes from few shards; lines of similar width stay together.
    """
    if isinstance(part, LineSet):
        sizes, alike = part.widths * part.height, np.log(part.widths) // np.log(ALIKE)
    else:
        sizes, alike = np.full(len(part), part.images[0].numel()), np.zeros(len(part))
    order = np.arange(len(part))
    if split == "train":
        order = np.lexsort((np.random.default_rng(0).random(len(part)), alike))
    full, wider = np.diff((np.cumsum(sizes[order]) - 1) // limit) > 0, np.diff(alike[order]) > 0
    cuts = np.flatnonzero(full | (wider if split == "train" else False)) + 1
    shards = np.split(order, cuts) if len(part) else []
    for number, positions in enumerate(shards):
        yield Planned(f"{split}-{number:06d}", split, positions)


def _write(out: Path, planned: Planned, part: CharacterSet | LineSet) -> Shard:
    summary: dict[str, Any] = {}
    if isinstance(part, LineSet):
        block, summary = _lines(part, planned.positions)
    else:
        block = _characters(part, planned.positions)
    content, file = encode(planned.key, block), f"{planned.key}.tar"
    write_bytes(out / file, content)
    digest = hashlib.sha256(content).hexdigest()
    return Shard(file, planned.split, len(planned.positions), len(content), digest, **summary)


def _characters(part: CharacterSet, positions: np.ndarray) -> Block:
    some = part.subset(positions)
    facts = {"names": some.names, "writers": None if some.writers is None else some.writers.tolist()}
    return Block({"images": some.images.numpy(), "labels": some.labels.numpy()}, _json(facts))


def _lines(part: LineSet, positions: np.ndarray) -> tuple[Block, dict[str, Any]]:
    """A block, and what the index says of it."""
    images = [part.image(i) for i in positions.tolist()]
    names, writers, texts = ([column[i] for i in positions] for column in (part.names, part.writers, part.texts))
    widths = np.array([image.shape[1] for image in images], np.int64)
    needed = [frames_needed([ord(c) for c in text]) for text in texts]
    block = Block(
        {"pixels": np.concatenate([image.ravel() for image in images]), "widths": widths},
        _json({"names": names, "writers": writers, "texts": texts}),
    )
    return block, {"width": int(widths.max()), "narrow": _narrow(widths.tolist(), needed)}


def _narrow(widths: list[int], needed: list[int]) -> tuple[tuple[int, int], ...]:
    """Pairs of width and frames such that every line is as wide, and needs as few frames, as one of them."""
    found: list[tuple[int, int]] = []
    for width, frames in sorted(zip(widths, needed, strict=True), key=lambda pair: (pair[0], -pair[1])):
        if not found or frames > found[-1][1]:
            found.append((width, frames))
    return tuple(found)


def _about(data: CharacterDataModule | LineDataModule) -> dict[str, Any]:
    """The first line of the index, see :class:`hwr.data.shards.format.Index`."""
    about: dict[str, Any] = {"format": FORMAT, "version": VERSION, "preprocess": data.preprocess.to_dict()}
    if isinstance(data, CharacterDataModule):
        return about | {"kind": "characters", "classes": data.classes, "counts": data.class_counts().tolist()}
    lost = {split: [astuple(line) for line in part.lost] for split, part in data.sets.items()}
    characters = sorted({c for text in data.sets["train"].texts for c in text})
    return about | {"kind": "lines", "classes": characters, "lost": lost}


def _fingerprint(data: CharacterDataModule | LineDataModule, settings: Any) -> str:
    """The SHA-256 of settings, names and labels."""
    digest = hashlib.sha256(_json(settings))
    for part in data.sets.values():
        labels = part.texts if isinstance(part, LineSet) else part.labels.tolist()
        digest.update(_json([*part.names]) + _json([*labels]))
    return digest.hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
