"""Finding a batch size and a learning rate before training."""

from __future__ import annotations

import copy
import io
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.tuner.tuning import Tuner
from omegaconf import DictConfig, OmegaConf

from hwr import memory, parts
from hwr.callbacks.resources import peak_memory_gb
from hwr.data.base import CharacterDataModule
from hwr.errors import HwrError
from hwr.parts import DataModule
from hwr.systems import System

STEPS = 100  # of the search for a learning rate
LOWEST, HIGHEST = 1e-6, 1.0  # learning rates


def tuned(cfg: DictConfig, system: System, data: DataModule, resume: str | None) -> DictConfig:
    """Settings with what ``tune`` asks for; a line says what was found. A resumed run keeps what its beginning found.

    Args:
        cfg: As composed from ``conf/train.yaml``.
        system: Ready for training; gets the learning rate, and keeps its weights.
        data: That it will be trained on; gets the batch size.
        resume: The checkpoint from which training goes on.

    Raises:
        HwrError: If nothing can be found, or there are several devices.
    """
    if not (cfg.tune.batch_size or cfg.tune.lr):
        return cfg
    if cfg.trainer.devices != 1:
        raise HwrError("tune finds what fits one device: run it with trainer.devices=1, then give the others as much")
    cfg, key = cfg.copy(), memory.batch_key(cfg.data)
    cfg.trainer.precision = parts.precision_for(cfg, system, data)
    found = None if resume is None else _recorded(Path(resume).parents[1] / "config.yaml")
    if cfg.tune.batch_size:
        cfg.data[key] = found.data[key] if found else largest_batch(cfg, system, data)
        setattr(data, key, cfg.data[key])
        print(f"tune: data.{key}={cfg.data[key]}", flush=True)
    if cfg.tune.lr:
        cfg.optimizer.lr = found.optimizer.lr if found else learning_rate(cfg, system, data)
        cfg.lr_scaling.rule = "none"  # it was found with this very batch
        system.make_optimizer = parts.make(cfg.optimizer)
        print(f"tune: optimizer.lr={cfg.optimizer.lr:g}", flush=True)
    cfg.tune = {"batch_size": False, "lr": False}
    return cfg


def _recorded(path: Path) -> Any:
    if not path.is_file():
        raise HwrError(
            f"tune: there is no {path} that says what was found at the beginning; give the values themselves"
        )
    return OmegaConf.load(path)


def largest_batch(cfg: DictConfig, system: System, data: DataModule) -> int:
    """The batch (samples, for lines columns of pixels) that fits into memory, found by doubling and halving.

    (Lightning's own search compares its size with the number of samples, which does not suit columns.) It ends where an
    epoch would have fewer than ten batches, and on a CPU before the process might need more than half of the machine's
    memory: no error would tell, the system would kill it.

    Args:
        cfg: Says with which to begin.
        system: To train for a few steps; a copy of it is.
        data: To train on; its batch size is changed.

    Raises:
        HwrError: If not even the smallest fits.
    """
    key = memory.batch_key(cfg.data)
    most = sys.maxsize if data.streamed else _whole(data) // 10
    size, best = cfg.data[key], 0
    while size:
        setattr(data, key, size)
        if _fits(cfg, system, data):
            best = size
            if size >= most or (parts.processor(cfg) == "cpu" and 4 * peak_memory_gb() * 1e9 > memory.of_machine()):
                break
            size = min(2 * size, most)
        else:
            size = 0 if best else size // 2
    if not best:
        raise HwrError(f"tune.batch_size: not even data.{key}=1 fits; take a smaller network")
    return best


def _whole(data: DataModule) -> int:
    """The size of a batch that would hold all training items."""
    if isinstance(data, CharacterDataModule):
        return len(data.sets["train"])
    return int(data.sets["train"].widths.sum()) * getattr(data.augment, "views", 1)


def _fits(cfg: DictConfig, system: System, data: DataModule) -> bool:
    try:
        _trial(cfg, system, data, steps=3).fit(copy.deepcopy(system), datamodule=data)
    except (MemoryError, RuntimeError) as error:
        if not memory.is_shortage(error):
            raise
        return False
    return True


def learning_rate(cfg: DictConfig, system: System, data: DataModule) -> float:
    """Where the loss falls most steeply while the learning rate rises (Smith 2017, arXiv:1506.01186).

    Args:
        cfg: The settings of the run.
        system: To train for a hundred steps; a copy of it is.
        data: To train on.

    Raises:
        HwrError: If the loss does not say.
    """
    bar = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())  # Lightning's, which fills log files
    with bar, tempfile.TemporaryDirectory() as folder:  # Lightning writes the first weights down, and takes them back
        trainer = _trial(cfg, system, data, STEPS, default_root_dir=folder)
        search = Tuner(trainer).lr_find(
            copy.deepcopy(system), datamodule=data, min_lr=LOWEST, max_lr=HIGHEST, num_training=STEPS, update_attr=False
        )
    data.load_state_dict({})  # Lightning has told it to go on where the trial of a batch size ended
    found = search and search.suggestion()
    if not found:
        raise HwrError("tune.lr: the losses say nothing; set optimizer.lr")
    return float(f"{found:.2g}")


def _trial(cfg: DictConfig, system: System, data: DataModule, steps: int, **settings: str) -> Trainer:
    """A trainer that only takes some steps."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks, cfg.logger = {}, None
    steps_only = {"max_steps": steps, "max_epochs": -1, "max_time": None, "check_val_every_n_epoch": 10**9}
    cfg.trainer = {**cfg.trainer, **steps_only, "enable_checkpointing": False, **settings}
    return parts.trainer_for(cfg, system, data)
