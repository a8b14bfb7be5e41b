"""What to do where memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig

from hwr.errors import HwrError

SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of CUDA and MPS, of the CPU, of cuBLAS


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory, of a GPU or of the machine, did not suffice."""
    told = isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    return told or isinstance(error, MemoryError)


def of_machine() -> int:
    """Bytes that this machine, or the container that this is, has in all."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # there is no such file, or it says `max`
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return size


def batch_key(data: DictConfig) -> str:
    """The setting of a datamodule that says how large a training batch is, over all devices."""
    return "batch_size" if "batch_size" in data else "columns"


@contextmanager
def advised(advice: Callable[[], str]) -> Iterator[None]:
    """Turns a lack of memory into one line that says which settings need less.

    Args:
        advice: Says what the user can do about it.

    Raises:
        HwrError: In place of an error of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise HwrError(f"out of memory ({_what(error)}); {advice()}") from error


def advice(cfg: DictConfig) -> str:
    """For training: the same batch in two parts, smaller batches in validation, numbers of half the size.

    Args:
        cfg: As composed from ``conf/train.yaml``; the advice says what its settings are now.
    """
    key, parts = batch_key(cfg.data), cfg.trainer.accumulate_grad_batches or 1
    size, eval_size = cfg.data[key], cfg.data[f"eval_{key}"]
    words = [
        f"learn the same with data.{key}={max(1, size // 2)} trainer.accumulate_grad_batches={2 * parts} "
        f"(now {size} and {parts})",
        f"validate with data.eval_{key}={max(1, eval_size // 2)} (now {eval_size})",
    ]
    if not str(cfg.trainer.precision).startswith(("bf16", "16")):
        words.append(f"take trainer.precision=bf16-mixed (now {cfg.trainer.precision})")
    return ", ".join([*words, "or a smaller network"])


def eval_advice(cfg: DictConfig) -> str:
    """For scoring: smaller batches, and the memory of the machine instead of that of a GPU.

    Args:
        cfg: As composed from ``conf/eval.yaml``.
    """
    if cfg.data is None:
        smaller = f"make eval_batch_size (of lines: eval_columns) in {Path(cfg.run) / 'config.yaml'} smaller"
    else:
        key = f"eval_{batch_key(cfg.data)}"
        smaller = f"score with data.{key}={max(1, cfg.data[key] // 2)} (now {cfg.data[key]})"
    return smaller if cfg.accelerator == "cpu" else f"{smaller}, or take accelerator=cpu"


def _what(error: BaseException) -> str:
    """The sentence that says how much was asked for, without the place in the source."""
    lines = str(error).splitlines() or ["there is no more"]
    line = next((line for line in lines if any(sign in line for sign in SIGNS)), lines[0])
    return line.rpartition("] ")[2].partition(". GPU")[0][:200]
