"""The outputs of a network for other classes: rows in common are kept, new characters begin like their relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hwr.text.relatives import nearest

OUTPUTS = ("head", "shortcut")  # layers that have a row for each class
NOISE = 0.02  # on the row of a new character, as a share of the values of the row that it begins as
LOWER = 1.0  # nats that the bias of a new character lies below that of the row that it begins as


def relatives(old: Sequence[str], new: Sequence[str]) -> dict[int, int | None]:
    """For the index of each new character that of its :func:`hwr.text.relatives.nearest`, if it has any.

    Args:
        old: What the outputs stood for, the blank first.
        new: What they shall stand for.
    """
    found = {i: nearest(name, old[1:]) for i, name in enumerate(new) if name not in old}
    return {i: None if name is None else old.index(name) for i, name in found.items()}


def spread(rows: Tensor) -> float:
    """The mean distance of the rows (C, ...) of an output from their mean: the larger, the further are logits apart."""
    return float((rows - rows.mean(0)).flatten(1).norm(dim=1).mean())


def with_rows(
    fresh: Tensor, old: Tensor, sources: Sequence[int | None], relatives: Mapping[int, int | None], above: float
) -> Tensor:
    """Weights or biases of the outputs for other classes.

    A new character with a relative gets its row with a little noise and a lower bias. One without gets the mean of all
    rows, with the noise of its fresh one, and a higher bias. So nothing is read as them before they are learnt: a
    relative is more probable in every frame, and a trained network has something that is further above the mean. (Zero
    says nothing: all logits of a trained network may be far below it.)

    Args:
        fresh: Of the new classes (C, ...), not trained.
        old: Of the old ones.
        sources: For each new class the old index of the same class; None where it is new.
        relatives: See :func:`relatives`; new classes that are not in it stay fresh.
        above: How far above the mean the bias of a character without a relative is, see :func:`spread`.
    """
    value = fresh.clone()
    for i, source in enumerate(sources):
        if source is not None:
            value[i] = old[source]
    for i, relative in relatives.items():
        if relative is None:
            value[i] = old.mean(0) + (fresh[i] if old.ndim > 1 else above)
        else:
            row = old[relative]
            noise = NOISE * row.square().mean().sqrt() * torch.randn_like(row)
            value[i] = row + noise if row.ndim else row - LOWER
    return value
