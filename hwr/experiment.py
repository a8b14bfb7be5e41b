"""Configuration in, result out: the one way to run anything. Commands, sweeps and tests all call it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from hwr import adaptation, bundle, memory, parts, ranks, trackers, transfer, tune
from hwr.adaptation import Adaptation
from hwr.bundle import Bundle
from hwr.callbacks import Gallery, LineGallery, Record, history
from hwr.callbacks.resources import peak_memory_gb
from hwr.data.base import CharacterDataModule
from hwr.data.lines.base import LineDataModule
from hwr.decoders import Decoder, greedy
from hwr.errors import HwrError, Interrupted, check_seed
from hwr.files import write_json, write_text
from hwr.parts import DataModule
from hwr.systems import System
from hwr.systems.distillation import Distillation

log = logging.getLogger(__name__)
KERNELS = 4096  # that oneDNN keeps; its own limit of 1,024 is that of some 30 shapes of batches
FILLED = ("optimizer", "trainer", "system", "callbacks", "tune", "lr_scaling")  # what labels or a search may change


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        metrics: Flat figures, as in ``metrics.json``.
        run_dir: Where everything lies.
        datamodule: With its splits.
        system: With the best weights, if the run was tested.
        trainer: Lightning's.
        adaptation: What fine-tuning gained and cost, where the run began with another model.
    """

    metrics: dict[str, float]
    run_dir: Path
    datamodule: DataModule
    system: System
    trainer: Trainer
    adaptation: Adaptation | None = None


def fit(cfg: DictConfig, prepare: Callable[[DataModule], None] | None = None) -> Result:
    """Trains, tests the best checkpoint, and writes the run directory.

    Args:
        cfg: As composed from ``conf/train.yaml``.
        prepare: May change the data once it is set up, before the network is made: restrict it, say.

    Raises:
        HwrError: For anything the user can mend.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))  # read when the first kernel is made
    with parts.one_line_errors(), memory.advised(partial(memory.advice, cfg)):
        before = peak_memory_gb()
        parts.check_complete(cfg)
        plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
        run_dir = Path(plain["run_dir"])
        resume = _resume_path(plain["ckpt_path"], run_dir)
        check_seed("seed", plain["seed"])
        lightning.seed_everything(plain["seed"], verbose=False)
        start = None if plain["init_from"] is None else transfer.find(plain["init_from"])
        plain["network"] = transfer.network_of(plain["network"], start)
        data = parts.data_for(cfg, start)
        plain["data"]["preprocess"] |= data.preprocess.to_dict()
        if prepare is not None:
            prepare(data)
        cfg = parts.by_labels(cfg, len(data.sets["train"]))
        old = parts.old_data(cfg, start, data)
        if old is not None and cfg.replay and isinstance(data, CharacterDataModule):
            data.add_classes(old.classes)
        model = Bundle(plain["network"], data.classes, data.preprocess, about=start.about if start else {})
        system = parts.system_for(cfg, model, data)
        if start is not None:
            taken = transfer.take(start, system.network, model, plain["init_mismatch"])
            system.keep_start(taken.whole)
        compared = start.model if start is not None else None
        if compared is not None and not adaptation.comparable(compared, data, old):
            compared = None
        parts.mix(data, old, cfg.replay, system.network)
        if cfg.distill.teacher is not None:
            teacher = bundle.load(cfg.distill.teacher)
            system.distillation = Distillation(teacher, model, cfg.distill.weight, cfg.distill.temperature)
        cfg = tune.tuned(cfg, system, data, resume)
        plain |= {key: OmegaConf.to_container(cfg[key], resolve=True) for key in FILLED}
        plain["data"][memory.batch_key(cfg.data)] = cfg.data[memory.batch_key(cfg.data)]
        trainer = parts.trainer_for(cfg, system, data)
        plain["trainer"]["precision"] = str(trainer.precision)
        trainer.callbacks.append(Record(partial(_record, plain, data)))  # type: ignore[attr-defined]
        with ranks.guarded(trainer):
            _run_fit(trainer, system, data, resume)
            if trainer.is_global_zero and not (run_dir / "config.yaml").exists():  # nothing was to be learnt
                _record(plain, data)
            metrics = {
                **_best_epoch(trainer, run_dir),
                "epochs": float(trainer.current_epoch),
                "train_seconds": system.seconds,
                "parameters": float(sum(p.numel() for p in system.network.parameters())),
            }
            if (peak := peak_memory_gb()) > before:  # else it is that of an earlier trial of this process
                metrics["peak_memory_gb"] = peak
            best = history.best_checkpoint(trainer)
            if best:  # Lightning's own loading takes the weights that were averaged, not their average
                bundle.load_weights(system.network, bundle.from_checkpoint(Path(best[0])).weights)
            if plain["test"]:
                trainer.test(system, datamodule=data, verbose=False)
                figures, tables = system.report()
                metrics |= {**_logged(trainer, "test/"), **figures}
        if any(name.startswith("ms_per_") for name in plain["sweep"]["objectives"] or ()):
            metrics |= system.timings()  # where nobody asks it is not worth its time
        found = None
        if trainer.is_global_zero:
            about = _provenance(plain, data) | dict(model.about)
            done = replace(model, weights=_on_cpu(system.network.state_dict()), about=about)
            if compared is not None:
                split, device = data.test_split if plain["test"] else "val", trainer.strategy.root_device
                replace(done, metrics=metrics).save(run_dir / "bundle")  # whatever becomes of the comparison
                found = adaptation.compare(compared, done, data, old, split, device)
                found.write(run_dir)
                metrics |= found.metrics()
            replace(done, metrics=metrics).save(run_dir / "bundle")
            if plain["test"]:
                _write_tables(run_dir, tables)
            write_json(run_dir / "metrics.json", metrics)
            trackers.close(trainer, plain, metrics)
        return Result(metrics, run_dir, data, system, trainer, found)


def evaluate(cfg: DictConfig) -> Result:
    """Scores a model on a split of its own data or of another data set.

    Args:
        cfg: As composed from ``conf/eval.yaml``.

    Raises:
        HwrError: For anything the user can mend.
    """
    with parts.one_line_errors(), memory.advised(partial(memory.eval_advice, cfg)):
        model = bundle.load(cfg.run)
        decoder, other = parts.make(cfg.decoder, _partial_=True), cfg.data is not None
        if model.kind != "line" and decoder.func is not greedy:
            raise HwrError(f"decoder: run={cfg.run} reads single characters, which need none; leave decoder out")
        data = parts.data_of(model, cfg.run, cfg.data)
        if other and cfg.split in data.apart:
            log.warning(
                "%s: %d of %d items, set apart as in training; a split of its own (%s.tsv or a folder %s) counts whole",
                cfg.split, len(data.sets[cfg.split]), data.apart[cfg.split], cfg.split, cfg.split,
            )  # fmt: skip
        out = Path(cfg.output) if cfg.output else _eval_dir(Path(cfg.run), other, str(cfg.split), decoder.func)
        gallery = LineGallery(str(out)) if isinstance(data, LineDataModule) else Gallery(str(out))
        trainer, system = _test(model, data, cfg.split, cfg.accelerator, decoder, [gallery])
        figures, tables = system.report()
        metrics = {**_logged(trainer, "test/"), **figures, **system.timings()}
        _write_tables(out, tables)
        write_json(out / "metrics.json", metrics)
        return Result(metrics, out, data, system, trainer)


def score(model: Bundle, data: DataModule, split: str, accelerator: str = "auto") -> dict[str, float]:
    """The figures of a model on a split, without tables and pictures.

    Args:
        model: With its weights.
        data: As :func:`data_of` prepares it for the model.
        split: Of that data.
        accelerator: Lightning's.

    Raises:
        HwrError: If there is no such split, or nothing to be read in it.
    """
    with parts.one_line_errors():
        trainer, system = _test(model, data, split, accelerator)
        return {**_logged(trainer, "test/"), **system.report()[0]}


def _test(
    model: Bundle,
    data: DataModule,
    split: str,
    accelerator: str,
    decoder: Callable[[Bundle], Decoder] = greedy,
    callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, System]:
    if split not in data.sets:
        raise HwrError(f"split={split}: there are {', '.join(data.sets)}")
    data.test_split = split
    system = parts.judge(model, data, decoder)
    try:
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            logger=False,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=sys.stdout.isatty(),
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except ValueError as error:
        raise HwrError(f"accelerator={accelerator}: {error}") from None
    trainer.test(system, datamodule=data, verbose=False)
    return trainer, system


def _on_cpu(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in weights.items()}


def _resume_path(ckpt_path: str | None, run_dir: Path) -> str | None:
    if ckpt_path is None:
        return None
    path = run_dir / "checkpoints" / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if path.is_file():
        bundle.from_checkpoint(path)  # says so if it is none
        return str(path)
    if ckpt_path == "last":
        raise HwrError(
            "ckpt_path=last: no earlier run of this experiment with the same settings reached the end of an epoch; "
            "repeat the settings of that run, or give its ckpt_path=RUN/checkpoints/last.ckpt"
        )
    raise HwrError(f"ckpt_path={ckpt_path}: no such checkpoint")


def _record(plain: Mapping[str, Any], data: DataModule) -> None:
    run_dir = Path(plain["run_dir"])
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(plain))
    data.record(run_dir / "splits.json")


def _run_fit(trainer: Trainer, system: System, data: DataModule, resume: str | None) -> None:
    again = shlex.join([*(a for a in sys.argv[1:] if not a.startswith("ckpt_path=")), "ckpt_path=last"])
    try:
        trainer.fit(system, datamodule=data, ckpt_path=resume)
    except ValueError as error:
        if resume and "Tried to step" in str(error):
            raise HwrError(
                "ckpt_path: the one-cycle schedule of that run is over and cannot be made longer; "
                "start from its weights with init_from=, or train with scheduler=cosine"
            ) from None
        raise
    except MisconfigurationException as error:
        if done := re.search(r"restored a checkpoint with current_epoch=(\d+)", str(error)):
            learnt = f"the run has learnt for {int(done[1]) + 1} epochs already"
            raise HwrError(f"trainer.max_epochs={trainer.max_epochs}: {learnt}; give more") from None
        raise
    except RuntimeError as error:
        if "Early stopping conditioned on metric" in str(error):
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            mend = f"take one of {known}" if known else "callbacks.early_stopping=null where nothing is validated"
            raise HwrError(f"monitor: what early stopping watches is not logged; {mend}") from None
        raise
    except SystemExit:
        if not trainer.interrupted:
            raise
        how = f"with: python -m hwr.train {again}" if _typed() else "by running the same command again"
        raise Interrupted(f"interrupted in epoch {trainer.current_epoch + 1}; go on {how}") from None


def _best_epoch(trainer: Trainer, run_dir: Path) -> dict[str, float]:
    best, path = history.best_checkpoint(trainer), run_dir / "history.csv"
    if best is None or not path.is_file():
        return _logged(trainer, "val/")
    row = next((row for row in history.read(path) if row["epoch"] == best[1]), {})
    return {"best_epoch": float(best[1]), **{k: v for k, v in row.items() if k.startswith("val/")}}


def _logged(trainer: Trainer, prefix: str) -> dict[str, float]:
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}


def _write_tables(folder: Path, tables: Mapping[str, str]) -> None:
    for name, text in tables.items():
        write_text(folder / name, text)


def _provenance(plain: Mapping[str, Any], data: DataModule) -> dict[str, Any]:
    unsaid = ("hydra.run.dir=", "ckpt_path=last", "+callbacks.sweep=")  # where it lay, and what a sweep added
    words = [word for word in _words() if not word.startswith(unsaid)]
    return {
        "name": plain["name"],
        "data": (type(data).__doc__ or "").strip().splitlines()[0],
        "command": shlex.join(["python", "-m", "hwr.train", *words]) if _typed() else "hwr.experiment.fit",
        "seed": plain["seed"],
        "versions": {name: version(name) for name in ("torch", "lightning")},
    }


def _typed() -> bool:
    """Whether this is ``hwr.train`` and not a library call or another command."""
    return Path(sys.argv[0]).stem in ("train", "hwr-train", "trial")


def _words() -> list[str]:
    """What was typed; for a trial of a sweep, what would have to be typed for it alone."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return sys.argv[1:]
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(word) for word in words]


def _eval_dir(run: Path, other: bool, split: str, decoder: Callable[..., Decoder]) -> Path:
    home = run if run.is_dir() else Path("outputs") / run.stem
    name = split if decoder is greedy else f"{split}_{decoder.__name__}"
    return home / ("eval_other_data" if other else "eval") / name
