"""What the benchmarks share."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

DATA = Path(os.environ.get("HWR_DATA_DIR", "data"))


def machine() -> str:
    """One line about where the figures were measured."""
    from hwr.precision import cpu_has_bfloat16, cpu_name

    bf16 = "with" if cpu_has_bfloat16() else "without"
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning"))
    return f"{cpu_name()}, {os.cpu_count()} cores, {bf16} bfloat16 units; Python {platform.python_version()}, {names}"


def fit(*overrides: str) -> Any:
    """Trains in a temporary run directory."""
    from hwr.config import compose
    from hwr.experiment import fit as run

    return run(compose("train", overrides, run_dir=mkdtemp(prefix="hwr-bench-")))


def middle(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.4g} (of {len(values)}: {min(values):.4g} to {max(values):.4g})"
