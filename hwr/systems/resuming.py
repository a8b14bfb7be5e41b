"""What a run that goes on takes from a checkpoint, and what it has to repeat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from hwr.errors import HwrError

log = logging.getLogger(__name__)


def check_model(theirs: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> None:
    """Raises :class:`HwrError` unless the checkpoint's description of its model is ours, by name and setting."""
    if theirs is None:
        raise HwrError("ckpt_path: this checkpoint was not written by hwr")
    for key in ours:
        if theirs.get(key) != ours[key]:
            what = _difference(theirs.get(key), ours[key])
            raise HwrError(f"ckpt_path: the checkpoint has another {key} ({what}); repeat the settings of that run")


def _difference(theirs: Any, ours: Any) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        key = next(k for k in [*theirs, *ours] if theirs.get(k) != ours.get(k))
        theirs, ours = f"{key}: {theirs.get(key)}", ours.get(key)
    return f"{str(theirs)[:100]}, here {str(ours)[:100]}"


def recipe(
    optimizer: Callable[..., Any], scheduler: Callable[..., Any], callbacks: Iterable[Callback]
) -> dict[str, str | float | None]:
    """The parts whose state in a checkpoint no other part can take over, by name, and the learning rate."""
    averages = [type(callback).__name__ for callback in callbacks if isinstance(callback, WeightAveraging)]
    return {
        "optimizer": _name(optimizer),
        "scheduler": _name(scheduler),
        "callbacks.ema": averages[0] if averages else None,
        "optimizer.lr": getattr(optimizer, "keywords", {}).get("lr"),
    }


def check_recipe(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compares what :func:`recipe` says of a checkpoint and of a run that is to go on from it.

    Raises:
        HwrError: If a part is another; another learning rate only means nothing, and a line says so.
    """
    for key, was in theirs.items():
        now = ours.get(key)
        if was != now and key == "optimizer.lr":
            log.warning("%s=%s changes nothing in a run that goes on: its optimiser has begun with %s", key, now, was)
        elif was != now:
            mend = "repeat its settings, or start from its weights with init_from="
            raise HwrError(f"ckpt_path: that run has {key}={was or 'null'}, this one {now or 'null'}; {mend}")


def _name(make: Callable[..., Any]) -> str:
    return getattr(getattr(make, "func", make), "__name__", type(make).__name__)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators of random numbers that augmentation and dropout draw from, by type of device."""
    states = {"cpu": torch.get_rng_state()}
    return states if device.type == "cpu" else {**states, device.type: torch.get_device_module(device).get_rng_state()}


def set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Undoes :func:`random_state`; what is of another type of device means nothing."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type].cpu())
