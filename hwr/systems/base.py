"""What all systems share: the optimiser, and checkpoints that explain themselves."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from hwr.bundle import Bundle
from hwr.errors import HwrError
from hwr.networks.parts import Network
from hwr.systems import resuming
from hwr.systems.distillation import Distillation

MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]
MakeSchedule = Callable[..., Any]
ENDLESS = 10**9  # steps of a schedule where only time ends the training: more than it will have


class System(LightningModule):
    """A network in training.

    Args:
        network: Made of parts, the last its ``head``.
        bundle: What else makes a model of it; travels in every checkpoint as plain containers.
        optimizer: Makes the optimiser from parameter groups.
        scheduler: One of :mod:`hwr.systems.schedules`.
        l1: Weight of the sum of absolute weights.
        l2_sp: Weight of half the squared distance from the start weights (Li et al. 2018, arXiv:1802.01483), see
            :meth:`keep_start`.
        layer_decay: The learning rate of each part of the network is that of the part after it times this; the head
            has the optimiser's (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022, arXiv:2106.08254).
        seed: Of augmentation and dropout.

    Raises:
        HwrError: If a setting is out of range.
    """

    def __init__(
        self,
        network: Network,
        bundle: Bundle,
        optimizer: MakeOptimizer,
        scheduler: MakeSchedule,
        l1: float = 0.0,
        l2_sp: float = 0.0,
        layer_decay: float = 1.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < layer_decay <= 1:
            raise HwrError(f"system.layer_decay={layer_decay}: a factor above 0 and at most 1 is needed")
        if not 0 <= l2_sp < math.inf:
            raise HwrError(f"system.l2_sp={l2_sp}: a weight of at least 0 is needed")
        self.network, self.bundle, self.l1, self.l2_sp, self.seed = network, bundle, l1, l2_sp, seed
        self.layer_decay = layer_decay
        self.make_optimizer, self._make_schedule = optimizer, scheduler
        self._finite = torch.tensor(True)
        self._start: dict[str, Tensor] = {}
        self._steps = 0
        self._kept: Sequence[Mapping[str, Any]] = ()
        self.validated: Mapping[str, float] = {}  # what a checkpoint knew of an epoch whose end is still to come
        self._began, self._seconds_before = time.perf_counter(), 0.0
        self.distillation: Distillation | None = None

    def keep_start(self, names: Iterable[str]) -> None:
        """Remembers the present values of these parameters of the network, toward which ``l2_sp`` pulls them.

        Args:
            names: Of the parameters that came from start weights; others than parameters mean nothing.
        """
        if self.l2_sp:
            own = dict(self.network.named_parameters())
            self._start = {name: own[name].detach().clone() for name in names if name in own}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Two groups of parameters (of each part, with a layer decay), with and without weight decay; the schedule."""
        if self.l2_sp and not self._start:
            raise HwrError("system.l2_sp pulls toward start weights, and there are none; add init_from=MODEL")
        groups = self._groups()
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf") and self._timer() is None:
            raise HwrError("the schedule needs an end: give trainer.max_epochs, trainer.max_steps or trainer.max_time")
        self._steps = int(min(steps, ENDLESS))
        part = "optimizer"
        try:
            optimizer = self.make_optimizer(groups)
            for group in optimizer.param_groups:
                group["lr"] *= group.pop("lr_scale", 1.0)
            part = "scheduler"
            schedule = self._make_schedule(optimizer, self._steps, self.trainer.max_epochs or 1)
        except (TypeError, ValueError) as error:
            raise HwrError(f"{part}: {error} (the experiment's own keys are removed with ~{part}.KEY)") from error
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _groups(self) -> list[dict[str, Any]]:
        groups = parameter_groups(self.network)
        if self.layer_decay < 1:
            groups = layer_groups(self.network, self.layer_decay)
        own = {id(p) for p in self.network.parameters()}
        groups[1]["params"] += [p for p in self.parameters() if id(p) not in own]  # what a loss learns is not decayed
        return groups

    @abstractmethod
    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """What there is to say about the last test: figures, and the texts of files by name. All processes call it."""

    def timings(self) -> dict[str, float]:
        """Figures of the network's speed here."""
        return {}

    def penalised(self, loss: Tensor) -> Tensor:
        """The loss with what weighs on the weights themselves."""
        loss = loss + self.l1_penalty() if self.l1 else loss
        return loss + self.l2_sp_penalty() if self.l2_sp else loss

    def l1_penalty(self) -> Tensor:
        """``l1`` times the sum of absolute weights, norms and biases excepted."""
        decayed = [p for group in parameter_groups(self.network)[:1] for p in group["params"]]
        return self.l1 * torch.stack([p.abs().sum() for p in decayed]).sum()

    def l2_sp_penalty(self) -> Tensor:
        """``l2_sp`` / 2 times the squared distance of what learns from where it started; new parameters are free."""
        learning = {name: p for name, p in self.network.named_parameters() if p.requires_grad and name in self._start}
        squares = [(p - self._start[name]).square().sum() for name, p in learning.items()]
        return self.l2_sp / 2 * torch.stack([torch.zeros((), device=self.device), *squares]).sum()

    def on_fit_start(self) -> None:
        """Moves the start weights to the device, and looks at the clock."""
        self._began = time.perf_counter()
        self._start = {name: value.to(self.device) for name, value in self._start.items()}

    @property
    def seconds(self) -> float:
        """How long this training has taken, with what was before a checkpoint that it goes on from."""
        return self._seconds_before + time.perf_counter() - self._began

    def on_train_start(self) -> None:
        """Picks up what a checkpoint kept of the middle of an epoch; where it was made at the end, that starts anew."""
        if self.global_rank < len(self._kept):
            kept = self._kept[self.global_rank]
            resuming.set_random_state(kept["random"], self.device)
            for name, state in kept["metrics"].items():
                for key, value in state.items():
                    setattr(self._running()[name], key, value.to(self.device))
        self._kept = ()

    def on_train_epoch_start(self) -> None:
        """Makes augmentation and dropout a function of seed, epoch and rank: a resumed run goes on as it would have."""
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)
        for metric in self._running().values():
            metric.reset()

    def on_train_epoch_end(self) -> None:
        """Steps a plateau schedule, so that the checkpoints of this epoch know of it; Lightning would do it after them.

        Raises:
            HwrError: If validation does not log what the schedule watches.
        """
        seen: dict[str, Any] = {**self.validated, **self.trainer.callback_metrics}
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and config.monitor in seen:
                config.scheduler.step(seen[config.monitor])
            elif config.reduce_on_plateau and any(name.startswith("val/") for name in seen):
                raise HwrError(
                    f"scheduler.monitor={config.monitor} is not logged; take one of: {', '.join(sorted(seen))}"
                )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Called by Lightning after steps and epochs; a plateau schedule has been stepped by then.

        Where ``trainer.max_time`` will end the training before its last step, a schedule of steps is as far as the time
        is, so that the learning rate has come down when the time is up (budgeted training, Li et al. 2020,
        arXiv:1905.04753).
        """
        if isinstance(scheduler, ReduceLROnPlateau):
            return
        timer = self._timer()
        if timer is not None and self.trainer.lr_scheduler_configs[0].interval != "epoch":
            elapsed, left = timer.time_elapsed(), cast("float", timer.time_remaining())
            spent = self.trainer.strategy.broadcast(min(1.0, elapsed / (elapsed + left)))  # all processes as the first
            steps = getattr(scheduler, "total_steps", self._steps + 1) - 1  # a resumed one-cycle schedule has its own
            scheduler.last_epoch = min(steps, max(self.global_step, round(spent * steps))) - 1
        super().lr_scheduler_step(scheduler, metric)

    def _timer(self) -> Timer | None:
        """What ends the training after ``trainer.max_time``, if anything does."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
        timers = (callback for callback in callbacks if isinstance(callback, Timer))
        return next((timer for timer in timers if timer.time_remaining() is not None), None)

    def _running(self) -> dict[str, Metric]:
        """What is averaged over an epoch of training, by name."""
        return {n: m for n, m in self.named_children() if isinstance(m, Metric) and n.startswith("train_")}

    def shared(self, loss: Tensor, count: int | Tensor) -> Tensor:
        """The loss of this process's part of the batch, weighed so that the mean over processes is the whole batch's.

        Over several devices gradients are averaged, as if all parts were equally large.

        Args:
            loss: A mean.
            count: Over how many samples, or characters of lines.
        """
        if self.trainer.world_size == 1:
            return loss
        own = torch.as_tensor(count, dtype=torch.float32, device=loss.device)
        return loss * (own / self.trainer.strategy.reduce(own.clone(), reduce_op="mean"))

    def log_step(self, name: str, value: Tensor) -> None:
        """Logs the mean over processes of one value of the present step, every ``log_every_n_steps``.

        (Lightning's own way costs time in each step.)
        """
        step = self.trainer.global_step
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning does not declare it
        if self.loggers and step % every == 0:
            mean = self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
            for logger in self.loggers:
                logger.log_metrics({name: float(mean)}, step)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips, also for a fused optimiser in bfloat16: Lightning refuses that for the sake of float16's scaling."""
        if self.trainer.precision == "bf16-mixed":
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or GradClipAlgorithmType.NORM)
            Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def watch(self, loss: Tensor) -> None:
        """Remembers whether a loss was not finite, without waiting for the device."""
        self._finite = torch.isfinite(loss.detach()) & self._finite.to(loss.device)

    def on_validation_start(self) -> None:
        """Ends a training whose loss or weights are no numbers before they are saved."""
        finite = bool(self._finite) and all(bool(p.isfinite().all()) for p in self.network.parameters())
        if not self.trainer.strategy.reduce_boolean_decision(finite):
            raise self._diverged()

    def check_numbers(self, scores: Tensor) -> None:
        """Raises :class:`HwrError` if what the network says in an evaluation is not a number."""
        if bool(scores.isnan().any()):
            raise HwrError("what the network says is not a number") if self.trainer.testing else self._diverged()

    def _diverged(self) -> HwrError:
        return HwrError(
            f"the training loss is not a number any more in epoch {self.current_epoch + 1}; lower optimizer.lr, "
            "clip the gradients with trainer.gradient_clip_val=1, or use trainer.precision=32-true"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights mean, and of every process what it takes to go on in the middle of an epoch."""
        checkpoint["hwr"] = {**self.bundle.describe(), "about": dict(self.bundle.about)}
        metrics = {name: cast("dict[str, Tensor]", m.metric_state) for name, m in self._running().items()}
        on_cpu = {name: {key: value.cpu() for key, value in state.items()} for name, state in metrics.items()}
        own = {"random": resuming.random_state(self.device), "metrics": on_cpu}
        processes: list[Any] = [own] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(processes, own)
        checkpoint["hwr_processes"] = processes
        checkpoint["hwr_seconds"] = self.seconds
        checkpoint["hwr_recipe"] = self._recipe()
        if self.trainer.validating and self.trainer.is_last_batch:
            checkpoint["hwr_validated"] = {name: float(value) for name, value in self.trainer.callback_metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model, by name and setting."""
        resuming.check_model(checkpoint.get("hwr"), self.bundle.describe())
        groups = [len(state["param_groups"]) for state in checkpoint.get("optimizer_states", ())]
        if groups and groups[0] != len(self._groups()):  # in groups by part, or not
            raise HwrError("ckpt_path: the checkpoint has another system.layer_decay; repeat the settings of that run")
        resuming.check_recipe(checkpoint.get("hwr_recipe", {}), self._recipe())
        self._kept = checkpoint.get("hwr_processes", ())
        self._seconds_before = checkpoint.get("hwr_seconds", 0.0)
        self.validated = checkpoint.get("hwr_validated", {})

    def _recipe(self) -> dict[str, Any]:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
        return resuming.recipe(self.make_optimizer, self._make_schedule, callbacks)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters: matrices and kernels first, then norms and biases, which are never decayed."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trainable if p.ndim > 1]}]
    return [*groups, {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0}]


def layer_groups(network: Network, layer_decay: float) -> list[dict[str, Any]]:
    """:func:`parameter_groups` of each part of a network, from the head down.

    Each has a ``name`` and an ``lr_scale``: ``layer_decay`` to the power of the part's distance from the head.
    """
    groups = []
    for distance, (name, modules) in enumerate(reversed(network.parts().items())):
        decayed, plain = parameter_groups(nn.ModuleList(modules))
        scale = {"lr_scale": layer_decay**distance}
        groups += [{**decayed, **scale, "name": name}, {**plain, **scale, "name": f"{name}.no_decay"}]
    return groups
