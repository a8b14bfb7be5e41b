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


def with_rows(fresh: Tensor, old: Tensor, sources: Sequence[int | None], relatives: Mapping[int, int | None]) -> Tensor:
    """Weights or biases of the outputs for other classes.

    A new character with a relative gets its row with a little noise, one without keeps its fresh row, and both a lower
    bias. So nothing is read as them before they are learnt: a relative is more probable in every frame, and a trained
    network has something more probable than a fresh row in every frame.

    Args:
        fresh: Of the new classes (C, ...), not trained.
        old: Of the old ones.
        sources: For each new class the old index of the same class; None where it is new.
        relatives: See :func:`relatives`; new classes that are not in it stay fresh.
    """
    value = fresh.clone()
    for i, source in enumerate(sources):
        if source is not None:
            value[i] = old[source]
    for i, relative in relatives.items():
        row = fresh[i] if relative is None else old[relative]
        noise = NOISE * row.square().mean().sqrt() * torch.randn_like(row)
        value[i] = row + noise if row.ndim else row - LOWER
    return value
