"""What all systems share: the optimiser, and checkpoints that explain themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from hwr.bundle import Bundle
from hwr.errors import HwrError

MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]
MakeSchedule = Callable[..., Any]


class System(LightningModule):
    """A network in training.

    Args:
        network: A module with ``backbone`` and ``head``.
        bundle: What else makes a model of it; travels in every checkpoint as plain containers.
        optimizer: Makes the optimiser from parameter groups.
        scheduler: One of :mod:`hwr.systems.schedules`.
        l1: Weight of the sum of absolute weights.
        seed: Of augmentation and dropout.
    """

    def __init__(
        self,
        network: nn.Module,
        bundle: Bundle,
        optimizer: MakeOptimizer,
        scheduler: MakeSchedule,
        l1: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.bundle, self.l1, self.seed = network, bundle, l1, seed
        self._make_optimizer, self._make_schedule = optimizer, scheduler
        self._finite = torch.tensor(True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Two groups of parameters, with and without weight decay, and the schedule."""
        groups = parameter_groups(self.network)
        own = {id(p) for p in self.network.parameters()}
        groups[1]["params"] += [p for p in self.parameters() if id(p) not in own]  # what a loss learns is not decayed
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise HwrError("the schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        part = "optimizer"
        try:
            optimizer = self._make_optimizer(groups)
            part = "scheduler"
            schedule = self._make_schedule(optimizer, int(steps), self.trainer.max_epochs or 1)
        except (TypeError, ValueError) as error:
            raise HwrError(f"{part}: {error} (the experiment's own keys are removed with ~{part}.KEY)") from error
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @abstractmethod
    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """What there is to say about the last test: figures, and the texts of files by name. All processes call it."""

    def timings(self) -> dict[str, float]:
        """Figures of the network's speed here."""
        return {}

    def l1_penalty(self) -> Tensor:
        """``l1`` times the sum of absolute weights, norms and biases excepted."""
        decayed = [p for group in parameter_groups(self.network)[:1] for p in group["params"]]
        return self.l1 * torch.stack([p.abs().sum() for p in decayed]).sum()

    def on_train_epoch_start(self) -> None:
        """Makes augmentation and dropout a function of seed, epoch and rank: a resumed run goes on as it would have."""
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)

    def log_step(self, name: str, value: Tensor) -> None:
        """Logs one value of the present step, every ``log_every_n_steps`` (Lightning's own way costs time in each)."""
        step = self.trainer.global_step
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning does not declare it
        if self.logger is not None and step % every == 0:
            self.logger.log_metrics({name: float(value.detach())}, step)

    def watch(self, loss: Tensor) -> None:
        """Remembers whether a loss was not finite, without waiting for the device."""
        self._finite = torch.isfinite(loss.detach()) & self._finite.to(loss.device)

    def on_validation_start(self) -> None:
        """Ends a training whose loss is no number before its weights are saved."""
        if not bool(self._finite):
            raise HwrError(
                f"the training loss is not a number any more in epoch {self.current_epoch + 1}; lower optimizer.lr, "
                "clip the gradients with trainer.gradient_clip_val=1, or use trainer.precision=32-true"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights mean."""
        checkpoint["hwr"] = self.bundle.describe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model, by name and setting."""
        theirs, ours = checkpoint.get("hwr"), self.bundle.describe()
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


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters: matrices and kernels first, then norms and biases, which are never decayed."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trainable if p.ndim > 1]}]
    return [*groups, {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0}]
