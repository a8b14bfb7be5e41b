"""Medians and quantiles of images, several times faster than NumPy's: its sort of short numbers is vectorised."""

from __future__ import annotations

import numpy as np


def median(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """As ``np.median``, float32.

    Args:
        values: uint8 or float32.
        axis: Along which; None takes all values.
    """
    ordered = _ordered(values, axis)
    count = ordered.shape[-1]
    low, high = ordered[..., (count - 1) // 2], ordered[..., count // 2]
    return np.asarray((low.astype(np.float32) + high) / np.float32(2))


def quantile(values: np.ndarray, share: float) -> float:
    """As ``np.quantile`` of all values.

    Args:
        values: uint8 or float32.
        share: Of the values that are below, from 0 to 1.
    """
    ordered = _ordered(values, None)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (float(ordered[high]) - float(ordered[low])) * (place - low))


def _ordered(values: np.ndarray, axis: int | None) -> np.ndarray:
    rows = values.ravel() if axis is None else np.moveaxis(values, axis, -1)
    return np.sort(rows.astype(np.int16) if rows.dtype == np.uint8 else rows, axis=-1)  # bytes are sorted slowly
