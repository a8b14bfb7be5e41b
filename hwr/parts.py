"""The parts of an experiment, made from its configuration: data, system, trainer."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from hwr import precision, trackers, transfer
from hwr.bundle import Bundle
from hwr.callbacks import AtomicCheckpointIO
from hwr.config import choices
from hwr.data.base import CharacterDataModule
from hwr.data.lines.base import LineDataModule
from hwr.decoders import Decoder
from hwr.errors import HwrError
from hwr.memory import batch_key
from hwr.ranks import check_devices
from hwr.systems import CharacterSystem, LineSystem, System
from hwr.systems.losses import CTC

log = logging.getLogger(__name__)
SCALING = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}  # powers of the ratio of batches
PRECISIONS = {"32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}
PRECISIONS |= {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # for short
MADE = ("data", "loss", "optimizer", "scheduler", "system", "trainer")
OFF_INSIDE = ("distill", "tune", "lr_scaling", "sweep")  # what switches them off is one of their own keys
DataModule = CharacterDataModule | LineDataModule


def make(node: DictConfig, **kwargs: Any) -> Any:
    """What a node of the configuration describes."""
    return hydra.utils.instantiate(node, _convert_="all", **kwargs)


def check_complete(cfg: DictConfig) -> None:
    """Raises :class:`HwrError` if a part that every training needs is set to null, or a count of the trainer is none.

    Args:
        cfg: As composed from ``conf/train.yaml``.
    """
    needed = {key: f"{key}._target_" for key in MADE} | {key: key for key in ("monitor", "replay", *OFF_INSIDE)}
    needed |= {f"data.{key}": f"data.{key}" for key in ("preprocess", "split") if key in (cfg.get("data") or ())}
    for key, inside in needed.items():
        if OmegaConf.select(cfg, inside) is None:
            known = ", ".join(choices(key))
            others = f", or take one of {known}" if known else ""
            raise HwrError(f"{key}=null: a training needs it; leave it out for the default{others}")
    for key in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        count = cfg.trainer[key]
        if count is None and key.startswith("check"):  # by steps, see trainer.val_check_interval
            continue
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise HwrError(f"trainer.{key}={count}: a whole number from 1 is needed")


def datamodule(cfg: DictConfig) -> DataModule:
    """The data that :func:`hwr.experiment.fit` would train on, set up.

    Args:
        cfg: As composed from ``conf/train.yaml``.

    Raises:
        HwrError: If it cannot be read.
    """
    with one_line_errors():
        check_complete(cfg)
        return data_for(cfg, None if cfg.init_from is None else transfer.find(cfg.init_from))


def data_of(model: Bundle, run: str, node: DictConfig | None = None) -> DataModule:
    """The data that a model was trained on, or other data, with the same splits, prepared and numbered as it needs.

    Args:
        model: What will read it.
        run: Where the model is from.
        node: The configuration of other data; None is that of the run.

    Raises:
        HwrError: If there is none, or it is not of the kind that the model reads.
    """
    config = Path(run) / "config.yaml"
    if node is None and not config.is_file():
        raise HwrError(f"{run} has no config.yaml that says on which data to judge it; add data=NAME")
    data: DataModule = make(OmegaConf.load(config).data if node is None else node)
    if isinstance(data, LineDataModule) != (model.kind == "line"):
        raise HwrError(f"{run} reads {model.kind}s, and this data is not of {model.kind}s; choose other data=")
    data.preprocess = model.preprocess
    data.setup()
    data.as_classes(model.classes)
    return data


def data_for(cfg: DictConfig, start: transfer.Start | None) -> DataModule:
    """The data to train on, set up; numbered and prepared as the start model needs."""
    more: dict[str, Any] = {"augment": make(cfg.augment), "seed": cfg.seed}
    if cfg.charset is not None:
        ours = ("unknown", "on_change")
        charset = make(OmegaConf.masked_copy(cfg.charset, [key for key in cfg.charset if key not in ours]))
        more |= {"charset": start.charset(charset, cfg.charset.on_change) if start else charset}
        more |= {"unknown": cfg.charset.unknown}
    data: DataModule = make(cfg.data, **more)
    if start is not None:
        start.prepare(data, follow=cfg.network is None or "_target_" not in cfg.network)
    data.setup()
    _check_training(data, "data")
    return data


def by_labels(cfg: DictConfig, labels: int) -> DictConfig:
    """Settings that are null are taken from the row of ``by_labels`` for so many training labels.

    A row holds from its number of labels on; keys are written with dots. What the user sets stays.

    Args:
        cfg: As composed from ``conf/train.yaml``.
        labels: There are.
    """
    rows = cfg.by_labels or {}
    row = rows.get(max((n for n in rows if n <= labels), default=None), {})
    cfg = cfg.copy()
    for key, value in row.items():
        if OmegaConf.select(cfg, str(key)) is None:
            OmegaConf.update(cfg, str(key), value, force_add=True)
    return cfg


def old_data(cfg: DictConfig, start: transfer.Start | None, data: DataModule) -> DataModule | None:
    """What the start model was made for: as configured, else as its run says; None if nobody knows."""
    node = cfg.old_data
    if start is None or start.model is None:
        if node is not None or cfg.replay:
            raise HwrError("old_data and replay mean something for a start model only; add init_from=MODEL")
        return None
    config = Path(start.name).expanduser() / "config.yaml"
    if node is None and config.is_file():
        node = OmegaConf.load(config).data
    if node is None:
        if cfg.replay:
            raise HwrError(f"replay={cfg.replay}: init_from={start.name} does not say on what; add data@old_data=NAME")
        return None
    old: DataModule = make(node)
    if isinstance(old, LineDataModule) != isinstance(data, LineDataModule):
        raise HwrError("old_data: characters and lines cannot be mixed")
    old.preprocess = data.preprocess
    try:
        old.setup()
        if cfg.replay:
            _check_training(old, "old_data")
    except HwrError as error:
        if cfg.old_data is not None:
            raise
        problem = f"the data of init_from={start.name} cannot be read ({error}); data@old_data=NAME says where it is"
        if cfg.replay:
            raise HwrError(f"replay={cfg.replay}: {problem}") from None
        log.warning("%s, or what the start forgets is not known", problem)
        return None
    return old


def replayed(cfg: DictConfig, data: DataModule) -> list[str]:
    """What tells the old data that a training replays from any other; nothing if it replays none.

    Args:
        cfg: As composed from ``conf/train.yaml``.
        data: That of this configuration.
    """
    if not cfg.replay or cfg.init_from is None:
        return []
    old = old_data(cfg, transfer.find(cfg.init_from), data)
    return [] if old is None or old.streamed else [old.sets["train"].fingerprint()]


def _check_training(data: DataModule, key: str) -> None:
    if "train" not in data.sets:
        raise HwrError(f"{key}: there is no training split, only {' and '.join(data.sets)}, which can judge a model")


def mix(data: DataModule, old: DataModule | None, share: float, network: Any) -> None:
    """Has each epoch draw a share of its items from old data."""
    if share and old is not None and (data.streamed or old.streamed):
        raise HwrError("replay: items in shards are not mixed with others; take the data that was packed")
    if isinstance(data, CharacterDataModule):
        data.mix(old if isinstance(old, CharacterDataModule) else None, share)
        return
    if isinstance(old, LineDataModule):
        old.check_feasible(network)
    data.mix(old if isinstance(old, LineDataModule) else None, share)


def system_for(cfg: DictConfig, model: Bundle, data: DataModule) -> System:
    """Network, loss and optimiser, checked against the data."""
    network: Any = model.build()
    if isinstance(data, LineDataModule):
        data.warn_of_unknown()
        data.check_feasible(network)
    try:
        loss = make(cfg.loss)(**data.loss_arguments(network))
    except TypeError as error:
        raise HwrError(f"loss: {error}; lines are learnt with loss=ctc, characters with the others") from error
    parts = {"loss": loss, "optimizer": optimizer_for(cfg), "scheduler": make(cfg.scheduler)}
    system: System = make(cfg.system, _partial_=True)(network=network, bundle=model, **parts)
    if isinstance(system, LineSystem) != isinstance(data, LineDataModule):
        raise HwrError("system: lines are learnt with system=line, characters with system=character")
    return system.to(memory_format=torch.channels_last)


def optimizer_for(cfg: DictConfig) -> Any:
    """What makes the optimiser; its learning rate grows with the batch as ``lr_scaling`` says.

    Raises:
        HwrError: If there is no such rule, or it lacks the batch that ``optimizer.lr`` is for.
    """
    rule, base = cfg.lr_scaling.rule, cfg.lr_scaling.base
    if rule not in SCALING:
        raise HwrError(f"lr_scaling.rule={rule}: known are {', '.join(SCALING)}")
    settings: dict[str, Any] = {}
    if cfg.optimizer.get("fused") and str(cfg.trainer.precision).startswith("16"):
        settings["fused"] = False  # Lightning cannot clip gradients that one kernel unscales and applies
    if rule == "none":
        return make(cfg.optimizer, **settings)
    if not base or base < 0:
        raise HwrError(f"lr_scaling.base={base}: the data.{batch_key(cfg.data)} that optimizer.lr is for is needed")
    batch = cfg.data[batch_key(cfg.data)] * cfg.trainer.accumulate_grad_batches
    return make(cfg.optimizer, lr=cfg.optimizer.lr * (batch / base) ** SCALING[rule], **settings)


def judge(model: Bundle, data: DataModule, decoder: Callable[[Bundle], Decoder]) -> System:
    """A system that only evaluates."""
    network: Any = model.build()
    parts: dict[str, Any] = {"bundle": model, "optimizer": _no_optimizer, "scheduler": _no_optimizer}
    if isinstance(data, LineDataModule):
        data.warn_of_unknown()
        data.check_feasible(network)
        return LineSystem(network, CTC(), decoder(model), **parts)
    return CharacterSystem(network, torch.nn.Identity(), **parts)


def trainer_for(cfg: DictConfig, system: System, data: DataModule) -> Trainer:
    """Lightning's trainer, with what the terminal and the processor allow."""
    for name, node in cfg.callbacks.items():
        if node is not None and "_target_" not in node:
            mend = f"name its file, as in 'callbacks=[default,{name}]', or take them out with '~callbacks.{name}'"
            raise HwrError(f"callbacks.{name}: settings of a callback that is not there; {mend}")
    callbacks: list[Callback] = [make(c) for c in cfg.callbacks.values() if c is not None]
    terminal = sys.stdout.isatty()
    if not terminal:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    loggers = trackers.loggers(cfg.get("logger"))
    if not loggers:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    settings: dict[str, Any] = {"callbacks": callbacks, "enable_progress_bar": terminal}
    settings["precision"] = precision_for(cfg, system, data)
    # To fill every new tensor finds mistakes in kernels, and takes 3 to 6 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of a module
    check_devices(processor(cfg), cfg.trainer.devices)
    limit = cfg.trainer.get("max_time")
    if limit is not None and not (re.fullmatch(r"\d+(:\d+){3}", str(limit)) and re.search("[1-9]", limit)):
        raise HwrError(f"trainer.max_time={limit}: days:hours:minutes:seconds are needed, such as 00:00:30:00")
    trainer: Trainer = make(cfg.trainer, logger=loggers, plugins=[AtomicCheckpointIO()], **settings)
    return trainer


def precision_for(cfg: DictConfig, system: System, data: DataModule) -> str:
    """Lightning's name of the precision; where it is left to the machine, the faster one.

    Raises:
        HwrError: If it is none in which hwr trains: what the network sees and the losses stay float32.
    """
    name = str(cfg.trainer.precision)
    if name == "auto":
        return precision.choose(system.network, data.example(), processor(cfg))
    if name not in PRECISIONS:
        raise HwrError(f"trainer.precision={name}: take auto, {', '.join(dict.fromkeys(PRECISIONS.values()))}")
    return PRECISIONS[name]


def processor(cfg: DictConfig) -> str:
    """What ``trainer.accelerator`` comes to here: ``cpu``, ``cuda`` or ``mps``."""
    if cfg.trainer.accelerator in ("cpu", "mps"):
        return str(cfg.trainer.accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _no_optimizer(*args: Any, **kwargs: Any) -> Any:
    raise HwrError("this system only evaluates")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what Hydra and Lightning say of wrong settings into one line; keeps their chatter down."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*exists and is not empty.*",
            ".*treespec.*",
            ".*LeafSpec.*",
            ".*smaller than the logging interval.*",
            ".*your dataloader is not resumable.*",  # the order is, see hwr.data.order
            ".*system/.*sync_dist=True.*",
        ):
            warnings.filterwarnings("ignore", message)
        try:
            yield
        except InstantiationException as error:
            cause = error.__cause__
            if isinstance(cause, HwrError):
                raise cause from None
            key = next((line.split(":", 1)[1].strip() for line in str(error).splitlines() if "full_key" in line), "")
            raise HwrError(f"{key or 'configuration'}: {cause or error}{_mend(str(cause))}") from error
        except MisconfigurationException as error:
            raise HwrError(f"trainer: {error}{_mend(str(error))}") from error


def _mend(text: str) -> str:
    if "backend" in text:
        return "; trainer.accelerator=auto takes what there is"
    return "; trainer.devices=N takes N GPUs or, on a CPU, N processes" if "devices" in text else ""
