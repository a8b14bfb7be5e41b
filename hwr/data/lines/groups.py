"""Which lines must stay in one split: those of a writer, of a text, of an image, and their lost lines with them."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import numpy as np

from hwr.data.lines.items import LineItem, Rejected

log = logging.getLogger(__name__)


def groups_of(items: Sequence[LineItem], name: str) -> np.ndarray | None:
    """For each line the number of its group, whose lines stay together; None if every line stands alone.

    Lines belong together that share an image or a writer; where some writers are not known, also those of one text.
    The lines of a single page can only be told apart by their outlines.

    Args:
        items: Of the lines that a split is to be taken from.
        name: Of that split, for a warning.

    Returns:
        int64 (N,), or None.
    """
    writers = {item.writer for item in items}
    kinds = [("writer", "text") if None in writers else ("writer",), ("text",), ()]
    for kind in kinds if writers != {None} else kinds[1:]:
        groups = _joined(
            [
                [("image", item.image.picture if kind else item.image)]
                + [("writer", item.writer)] * ("writer" in kind and item.writer is not None)
                + [("text", item.text_id)] * ("text" in kind and item.text_id is not None)
                for item in items
            ]
        )
        if len(set(groups)) > 1:
            break
    if writers != {None} and "writer" not in kind:
        log.warning("%s: too few writers to set some apart, so it shares writers with training", name)
    return np.array(groups) if len(set(groups)) < len(items) else None


def share_out(
    rejected: Sequence[Rejected], rest: Sequence[LineItem], out: Sequence[LineItem]
) -> tuple[list[Rejected], list[Rejected]]:
    """Deals lines that cannot be used out to two parts of a split, for an evaluation drops nothing.

    Those of a writer go where that writer's other lines went. Of those without a writer, and of writers who are on both
    sides, the second part gets the share that it has of the lines that can be used.

    Returns:
        Those of ``rest`` and those of ``out``.
    """
    stay, leave = ({item.writer for item in items} for items in (rest, out))
    free = [i for i, lost in enumerate(rejected) if lost.writer is None or lost.writer in stay & leave]
    drawn = np.random.default_rng(0).permutation(free)[: round(len(free) * len(out) / max(1, len(rest) + len(out)))]
    gone = {*drawn.tolist(), *(i for i, lost in enumerate(rejected) if lost.writer in leave - stay - {None})}
    kept = [lost for i, lost in enumerate(rejected) if i not in gone]
    return kept, [lost for i, lost in enumerate(rejected) if i in gone]


def _joined(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """Numbers of the connected groups of lines, where lines with a key in common are connected (union-find)."""
    parent: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, *others in keys:
        for other in others:
            parent[root(first)] = root(other)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(line[0]), len(numbers)) for line in keys]
