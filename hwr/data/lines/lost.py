"""Training lines that are lost: those that CTC cannot learn from, and what is said of those that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from hwr.data.lines.items import Rejected
from hwr.errors import HwrError
from hwr.networks.base import LineNetwork

log = logging.getLogger(__name__)


def infeasible(
    network: LineNetwork, widths: np.ndarray, labels: Sequence[Sequence[int] | np.ndarray]
) -> dict[int, str]:
    """Which lines have fewer frames than CTC needs, and how many they lack.

    Args:
        network: Says how many frames a line has.
        widths: int64 (N,), in pixels.
        labels: The characters of each line.
    """
    frames = network.output_lengths(torch.tensor(widths)).tolist()
    return {
        i: f"{widths[i]} px wide: {frames[i]} frames, but its {len(label)} characters need {needed}"
        for i, label in enumerate(labels)
        if frames[i] < (needed := frames_needed(label))
    }


def frames_needed(labels: Sequence[int] | np.ndarray) -> int:
    """Frames that CTC needs: one a character, and one between equal neighbours."""
    labels = np.asarray(labels)
    return int(len(labels) + (labels[1:] == labels[:-1]).sum())


def check_some(name: str, lost: Sequence[Rejected], left: int) -> None:
    """Raises :class:`HwrError` if no line of a split is left."""
    if not left:
        first = f"; the first: {lost[0]}" if lost else ""
        which = f"none of {len(lost)} training lines" if name == "train" else f"{name}: none of {len(lost)} lines"
        raise HwrError(f"{which} can be used{first}")


def tell_lost(name: str, lost: Sequence[Rejected]) -> None:
    """Says how many lines of a split are lost, and why the first are."""
    fates = {"left out of training": lost}
    if name != "train":
        fates = {"count as wrong from end to end": [line for line in lost if line.judged]}
        fates["without a transcript cannot be judged"] = [line for line in lost if not line.judged]
    for fate, lines in fates.items():
        if lines:
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            log.warning("%s: lines %s: %d: %s%s", name, fate, len(lines), "; ".join(map(str, lines[:3])), more)
