"""Characters turned and mirrored, each way a class of its own, for models that others are to start from.

To tell them apart a network has to see more than what tells the classes apart: its features serve other characters
better. After Lee et al. 2020, Self-supervised Label Augmentation via Input Transformations, arXiv:1910.05872.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

TURNS = ("", " turned 90", " turned 180", " turned 270")  # degrees, counter-clockwise
WAYS = (*TURNS, *(f" mirrored{turn}" for turn in TURNS))


def with_turned(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes, and after them those of their characters in the seven other ways."""
    return tuple(name + way for way in WAYS for name in classes)


@lru_cache(maxsize=1)
def numbers(classes: tuple[str, ...]) -> Tensor:
    """The number of each class in each way, int64 (8, C); -1 where there is none."""
    of = {name: i for i, name in enumerate(classes)}
    return torch.tensor([[of.get(name + way, -1) for name in classes] for way in WAYS])


def turned(images: Tensor, labels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Each image in a random way.

    Args:
        images: (B, 1, S, S).
        labels: int64 (B,).
        numbers: See :func:`numbers`.

    Returns:
        Images and labels of the same shapes.
    """
    ways = torch.randint(len(WAYS), labels.shape, device=labels.device)
    result = images.clone()
    for way in range(1, len(WAYS)):
        which = ways == way
        some = images[which].flip(3) if way >= len(TURNS) else images[which]
        result[which] = some.rot90(way % len(TURNS), (2, 3))
    return result, numbers.to(labels.device)[ways, labels]
