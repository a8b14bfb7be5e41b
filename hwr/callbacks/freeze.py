"""Which parts of a network learn, and from when on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from hwr.errors import HwrError
from hwr.networks.parts import Network

log = logging.getLogger(__name__)
EVERYTHING = "all"


class FreezeSchedule(Callback):
    """Lets only some parts of the network learn, and others later.

    What is frozen stays as it is to the last bit: weights, batch-norm statistics, and the average of weights that have
    not learnt yet (of others it comes nearer to what they are frozen at, which is what the rest goes on with); its
    dropout is off. What is frozen follows from the epoch alone, and the optimiser knows all parameters from the start,
    so that a resumed training equals an unbroken one.

    A line says what learns at the beginning and whenever that changes.

    Args:
        train: What learns after so many epochs: ``{0: [head], 3: [rnn, head], 0.5: [all]}`` is the head alone, with
            what reads from the fourth epoch on, and everything in the second half (an epoch is a whole number, a share
            of all epochs a fraction below 1). Parts go by the names of the network's modules, ``backbone`` means all of
            ``backbone.stage1``, ``backbone.stage2`` and so on.

    Raises:
        HwrError: If a stage is not given in this way or none begins at 0.
    """

    def __init__(self, train: Mapping[int | float, str | Collection[str]]) -> None:
        if not isinstance(train, Mapping) or not all(isinstance(x, str | Collection | None) for x in train.values()):
            raise HwrError(f"callbacks.freeze.train={train}: stages with names of parts are needed: {{0: [head]}}")
        for begin in train:
            if isinstance(begin, bool) or not (
                (isinstance(begin, int) and begin >= 0) or (isinstance(begin, float) and 0 <= begin < 1)
            ):
                raise HwrError(
                    "callbacks.freeze.train: a stage begins after some epochs (0, 1, 2, ...) or a share of them (0.5), "
                    f"not {begin!r}"
                )
        if not any(begin == 0 for begin in train):
            raise HwrError("callbacks.freeze.train: what learns from the start? add a stage 0, such as 0: [head]")
        self.train = {begin: [names] if isinstance(names, str) else list(names or ()) for begin, names in train.items()}
        self._shown: list[str] | None = None

    def stages(self, network: Network, max_epochs: int) -> dict[int, list[str]]:
        """The names of the parts that learn, for each epoch from which on they do.

        Raises:
            HwrError: If a name is of no part, or a stage leaves nothing to learn.
        """
        named = {begin: _chosen(network, names) for begin, names in self.train.items()}
        return _by_epoch(named.items(), max_epochs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the names, and lets everything learn when the optimiser is made and processes are joined.

        Processes would never share the gradients of what was frozen when they were joined; what is frozen after that
        has none, and must not be waited for.
        """
        if stage != "fit":
            return
        self._shown = None
        stages = self.stages(_network(pl_module), _epochs(trainer))
        timed = any(isinstance(callback, Timer) for callback in getattr(trainer, "callbacks", ()))
        if timed and len(stages) > 1 and trainer.is_global_zero:
            log.warning(
                "callbacks.freeze: the last stage begins with epoch %d of trainer.max_epochs=%s, if trainer.max_time "
                "lasts till then; give as many epochs as fit into it",
                max(stages) + 1, trainer.max_epochs,
            )  # fmt: skip
        _network(pl_module).freeze(())
        if isinstance(trainer.strategy, DDPStrategy):
            trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
        elif trainer.world_size > 1:
            raise HwrError("callbacks.freeze: over several devices parts are frozen with trainer.strategy=ddp only")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes what is frozen in this epoch (of a resumed training perhaps not the first, nor its beginning)."""
        self._freeze(trainer, _network(pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes what is frozen in this epoch."""
        self._freeze(trainer, _network(pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the network as it was."""
        _network(pl_module).freeze(())

    def _freeze(self, trainer: Trainer, network: Network) -> None:
        stages = self.stages(network, _epochs(trainer))
        learning = stages[max(begin for begin in stages if begin <= trainer.current_epoch)]
        network.freeze([name for name in network.parts() if name not in learning])
        if trainer.is_global_zero and learning != self._shown:
            print(f"epoch {trainer.current_epoch + 1}: {_counts(network, learning)}", flush=True)
        self._shown = learning


class GradualUnfreezing(FreezeSchedule):
    """Lets the head learn first, then part after part from the top down (Howard and Ruder 2018, arXiv:1801.06146).

    Args:
        until: The share of the epochs after which everything learns; the parts begin in even distances.

    Raises:
        HwrError: If ``until`` is no such share.
    """

    def __init__(self, until: float = 0.5) -> None:
        if not 0 <= until < 1:
            raise HwrError(f"callbacks.freeze.until={until}: a share of the epochs is needed, at least 0 and below 1")
        super().__init__({0: EVERYTHING})
        self.until = until

    def stages(self, network: Network, max_epochs: int) -> dict[int, list[str]]:
        """See :meth:`FreezeSchedule.stages`."""
        parts = list(network.parts())
        steps = max(1, len(parts) - 1)
        return _by_epoch(((self.until * i / steps, parts[-1 - i :]) for i in range(len(parts))), max_epochs)


def _by_epoch(stages: Iterable[tuple[int | float, list[str]]], max_epochs: int) -> dict[int, list[str]]:
    """The same by the epoch, in order; of two that fall on one epoch the later holds."""
    given = list(stages)
    if max_epochs < 0 and any(isinstance(begin, float) and begin for begin, _ in given):
        raise HwrError("callbacks.freeze: stages that begin after a share of the epochs need trainer.max_epochs")
    exact = [(begin * max_epochs if isinstance(begin, float) else begin, names) for begin, names in given]
    return {round(begin): names for begin, names in sorted(exact, key=lambda stage: stage[0])}


def _chosen(network: Network, names: Collection[str]) -> list[str]:
    parts = list(network.parts())
    for name in names:
        if name != EVERYTHING and not any(_names(name, part) for part in parts):
            known = ", ".join(dict.fromkeys([EVERYTHING, *(word for part in parts for word in (_top(part), part))]))
            raise HwrError(f"callbacks.freeze.train: this network has no part {name!r}; it has {known}")
    found = [part for part in parts if any(name == EVERYTHING or _names(name, part) for name in names)]
    if not found:
        raise HwrError("callbacks.freeze.train: a stage has everything frozen; name a part that learns, such as head")
    return found


def _names(name: str, part: str) -> bool:
    return f"{part}.".startswith(f"{name}.")


def _top(part: str) -> str:
    return part.partition(".")[0]


def _counts(network: Network, learning: Collection[str]) -> str:
    sizes = {name: _size(modules) for name, modules in network.parts().items()}
    frozen = [name for name in sizes if name not in learning]
    learnt = sum(sizes[name] for name in learning)
    if not frozen:
        return f"all {learnt:,} parameters learn"
    still = sum(sizes[name] for name in frozen)
    return f"{learnt:,} parameters learn ({', '.join(learning)}), {still:,} are frozen ({', '.join(frozen)})"


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for p in nn.ModuleList(modules).parameters())


def _network(pl_module: LightningModule) -> Network:
    return cast("Network", pl_module.network)


def _epochs(trainer: Trainer) -> int:
    return -1 if trainer.max_epochs is None else trainer.max_epochs
