"""What the orders in which samples are read have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch.utils.data import Sampler


class Order(Sampler[Sequence[int]]):
    """Lists the positions of each batch of an epoch, for one process of several.

    Attributes:
        epoch: Which epoch; in training each has an order of its own, a function of its number.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches."""
