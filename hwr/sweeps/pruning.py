"""Within a trial: tells the study how it goes after each validation, and ends early what will not win."""

from __future__ import annotations

from functools import cached_property

import optuna
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from hwr.sweeps.storage import Storage


class Pruning(Callback):
    """Reports the metric of a sweep; a trial that its pruner gives up stops as if it had been its last epoch.

    Args:
        folder: Of the sweep.
        number: Of the trial.
        metric: What is reported.
        pruner: None gives up nothing.
    """

    def __init__(self, folder: str, number: int, metric: str, pruner: optuna.pruners.BasePruner | None) -> None:
        self.folder, self.number, self.metric, self.pruner = folder, number, metric, pruner

    @cached_property
    def trial(self) -> optuna.Trial:
        """Found in the study by its number."""
        storage = Storage(self.folder)
        return storage.trial(storage.load(self.pruner or optuna.pruners.NopPruner()), self.number)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports and asks; one process does it for all."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or self.metric not in trainer.callback_metrics:
            return
        give_up = trainer.is_global_zero and self._report(
            float(trainer.callback_metrics[self.metric]), trainer.current_epoch + 1
        )
        if trainer.strategy.broadcast(give_up):
            trainer.should_stop = True

    def _report(self, value: float, epoch: int) -> bool:
        known = self.trial.study.get_trials(deepcopy=False)[self.number].intermediate_values
        if epoch not in known:  # a resumed trial repeats the epoch in which it was killed
            self.trial.report(value, epoch)
        give_up = self.trial.should_prune()
        if give_up:
            self.trial.set_user_attr("pruned", epoch)
        return give_up
