"""What keeps track of runs besides their directories: TensorBoard always, MLflow and Weights & Biases if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import hydra
from lightning import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from hwr.errors import HwrError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HYPERPARAMETERS = ("seed", "data", "augment", "network", "loss", "optimizer", "scheduler", "system", "trainer")
PACKAGES = ("mlflow", "wandb")  # that are not installed with hwr


def loggers(node: DictConfig | None) -> list[Logger]:
    """What a run logs to; a tracker that cannot be used is told before training.

    Args:
        node: The loggers by name; None for none.

    Raises:
        HwrError: If a package is missing, or a tracker cannot be reached.
    """
    found = []
    for key, each in (node or {}).items():
        name = str(key)
        if name in PACKAGES and find_spec(name) is None:
            raise HwrError(f"logger={name}: the package {name} is not installed; install it with: pip install {name}")
        logger: Logger = hydra.utils.instantiate(each, _convert_="all")
        if not isinstance(logger, TensorBoardLogger):
            _begin(name, logger)
        found.append(logger)
    return found


def picture(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Shows a figure wherever pictures are kept; MLflow keeps the last one of a name."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_figure(logger.run_id, figure, f"{tag}.png")
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [figure], trainer.global_step)


def close(trainer: Trainer, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Tells every logger the hyperparameters and what came of the run, and ends it.

    Args:
        trainer: That has trained and tested.
        settings: The resolved configuration.
        metrics: Those of the run; TensorBoard shows those of validation and test beside the hyperparameters.
    """
    parameters = {key: settings[key] for key in HYPERPARAMETERS}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            shown = {key: value for key, value in metrics.items() if key.startswith(("val/", "test/"))}
            logger.log_hyperparams(parameters, shown)
        else:
            logger.log_hyperparams(parameters)
            logger.log_metrics(dict(metrics), trainer.global_step)
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # else a sweep in one process would keep all of its runs open


def _begin(name: str, logger: Logger) -> None:
    try:
        _ = logger.experiment  # type: ignore[attr-defined]  # every logger of Lightning has one, if undeclared
    except Exception as error:  # whatever a tracker raises, of which there is no list
        told = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise HwrError(f"logger={name}: {told}; logger=tensorboard does without {name}") from error
