"""What the orders in which samples are read have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import Sampler

from hwr.errors import HwrError


class Order(Sampler[Sequence[int]]):
    """Lists the positions of each batch of an epoch, for one process of several.

    Attributes:
        seed: Of the order.
        world: Number of processes.
        epoch: Which epoch; in training each has an order of its own, a function of its number.
        read: Batches of the epoch that were handed out so far, those before a run was resumed included.
        resumed: The :meth:`state` of a run that goes on: its epoch begins with the first batch that was not read.
    """

    seed: int
    world: int
    epoch = 0
    read = 0
    resumed: Mapping[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches of a whole epoch."""

    @abstractmethod
    def batches(self) -> Iterator[Sequence[int]]:
        """All batches of the epoch."""

    def __iter__(self) -> Iterator[Sequence[int]]:
        return islice(self.batches(), self.skipped(), None)

    def facts(self) -> dict[str, int]:
        """What the batches of an epoch depend on, by names that users know."""
        return {"seed": self.seed, "processes": self.world, "batches an epoch": len(self)}

    def state(self) -> dict[str, Any]:
        """What it takes to go on after the batches that were read, as plain containers."""
        return {"epoch": self.epoch, "read": self.read, "facts": self.facts()}

    def skipped(self) -> int:
        """How many batches of the epoch were read before.

        Raises:
            HwrError: If they were others.
        """
        if self.resumed is None or self.resumed["epoch"] != self.epoch:
            return 0
        for name, value in self.facts().items():
            if (theirs := self.resumed["facts"].get(name)) != value:
                raise HwrError(
                    f"ckpt_path: made in the middle of an epoch with {name}={theirs}, and here it is {value}; repeat "
                    "the settings of that run, or take a checkpoint of the end of an epoch"
                )
        return int(self.resumed["read"])
