"""Choosing between float32 and bfloat16 by measurement."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from hwr.files import write_json

WORTH = 1.1  # bfloat16 must be this much faster to be chosen


def choose(network: nn.Module, inputs: tuple[Tensor, ...], accelerator: str, training: bool = True) -> str:
    """Lightning's name of the faster precision for training, or for using, this network here.

    GPUs with bfloat16 units use them. On a CPU with them a few steps are timed, once for each network and
    batch shape: the answer stays in the user's cache, so that the same run gives the same numbers on the same machine.

    Args:
        network: On the CPU; it is not changed.
        inputs: What the network takes, of the shapes of a training batch.
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        training: Whether the network is to be trained.
    """
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator != "cpu" or not cpu_has_bfloat16():
        return "32-true"
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hwr" / "precision.json"
    facts = (
        torch.__version__,
        cpu_name(),
        torch.get_num_threads(),
        [tuple(x.shape) for x in inputs],
        str(network),
        training,
    )
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    try:
        known: dict[str, str] = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = "bf16-mixed" if speedup(network, inputs, training) >= WORTH else "32-true"
        with contextlib.suppress(OSError):  # then it is measured again next time
            write_json(cache, known)
    return known[key]


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products (AVX512-BF16, AMX, or Arm's BF16)."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def cpu_name() -> str:
    """The CPU's name as torch knows it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "unknown"))


def speedup(network: nn.Module, inputs: tuple[Tensor, ...], training: bool = True, steps: int = 8) -> float:
    """How many times faster a network, in training forward and backward, runs with bfloat16 autocast than in float32.

    The fastest of some runs of each counts: whatever else the machine does only ever slows a run down.
    """
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
        net = copy.deepcopy(network).train(training)
        images = inputs[0].contiguous(memory_format=torch.channels_last)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for i in range(steps):
            for half in (False, True):
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    out = net(images, *inputs[1:])
                    loss = (out[0] if isinstance(out, tuple) else out).float().square().mean()
                if training:
                    loss.backward()
                if i:  # the first round warms up
                    seconds[half].append(time.perf_counter() - start)
    return min(seconds[False]) / min(seconds[True])
