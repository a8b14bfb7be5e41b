"""Figures about a model's results."""

from __future__ import annotations

import csv
import io
import math
import time

import torch
from torch import Tensor


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``n`` independent trials (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def per_class(confusion: Tensor, classes: tuple[str, ...]) -> str:
    """A CSV table of precision, recall, F1 and support from a confusion matrix (C, C), rows true."""
    matrix = confusion.double().cpu()
    right, true, said = matrix.diag(), matrix.sum(1), matrix.sum(0)
    columns = (right / said.clamp(min=1), right / true.clamp(min=1), 2 * right / (true + said).clamp(min=1))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "precision", "recall", "f1", "support"])
    for i, name in enumerate(classes):
        table.writerow([name, *(f"{float(c[i]):.4f}" for c in columns), int(true[i])])
    return text.getvalue()


@torch.inference_mode()
def milliseconds(network: torch.nn.Module, shape: tuple[int, ...], runs: int = 15) -> float:
    """Median time of the network alone, per image of a batch of this shape."""
    device = next(network.parameters()).device
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    network.eval()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        network(images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2] * 1000 / shape[0]
