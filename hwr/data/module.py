"""What the datamodules of characters and of lines share: loaders of splits, in batches of an order of our own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from hwr.data.mixing import Draw
from hwr.data.order import Order
from hwr.errors import HwrError

Splitter = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


class SplitDataModule(LightningDataModule):
    """Splits that are read in batches.

    Args:
        split: Chooses the samples that leave training, see :mod:`hwr.data.splits`.
        augment: Changes a float batch in training.
        seed: Of the order of the training samples.

    Attributes:
        sets: The splits by name; one that is indexed by a list of positions gives a batch.
        apart: Splits that were set apart from training, and of how many items.
        guessed: The names of the training items that only a model has labelled.
        test_split: The name of the split that is scored.
        draw: Which training samples an epoch holds; None: each once.
        streamed: Whether training items are read from shards: then they are neither chosen from, nor mixed, nor judged.
        workers: Processes that read training batches; 0: the training process does.
        mixed: What training reads where there is other data among it; ``sets["train"]`` are its first samples.
    """

    sets: Mapping[str, Dataset[Any]]
    streamed = False

    def __init__(self, split: Splitter, augment: nn.Module | None, seed: int) -> None:
        super().__init__()
        self.split, self.augment, self.seed = split, augment, seed
        self.apart: dict[str, int] = {}
        self.guessed: frozenset[str] = frozenset()
        self.test_split = "test"
        self.workers = 0
        self.draw: Draw | None = None
        self.mixed: Dataset[Any] | None = None
        self._training: Order | None = None
        self._resumed: dict[str, Any] | None = None

    @abstractmethod
    def order(self, name: str, rank: int, world: int) -> Order:
        """Lists the positions of each batch of a split, for one process of several.

        Raises:
            HwrError: If there is nothing to read, or too little for so many processes.
        """

    def labelled(self) -> np.ndarray:
        """Positions int64 (N,) of the training items that a person has labelled."""
        train: Any = self.sets["train"]
        if not self.guessed:
            return np.arange(len(train))
        return np.flatnonzero([name not in self.guessed for name in train.names])

    def loader(self, name: str) -> DataLoader[Any]:
        """The loader of one split; each process of a multi-device run reads its share."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        part, order = self.sets[name], self.order(name, rank, world)
        part = self.mixed if name == "train" and self.mixed is not None else part
        if getattr(self.trainer, "overfit_batches", 0):  # Lightning would order single samples in place of our batches
            return DataLoader(FixedBatches(part, list(order)), batch_size=None)
        # A generator of its own: a loader with workers draws a number from it when it starts, which in an unbroken run
        # is in the first epoch alone.
        workers = self.workers if name == "train" else 0
        settings: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        part = HandsErrorsOver(part) if workers else part
        if name == "train":
            self._training, order.resumed = order, self._resumed
        return LateLoader(part, batch_size=None, sampler=order, generator=torch.Generator(), **settings)

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch of training is; Lightning puts it into checkpoints.

        (It would also keep the state of loaders, but where a schedule asks for the number of steps it never loads it.)
        """
        return {} if self._training is None else self._training.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets training go on in the middle of an epoch; called before there are loaders."""
        self._resumed = state_dict or None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raises what a worker process could not read."""
        if isinstance(batch, HwrError):
            raise batch
        return batch

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the split that is scored: ``test``, unless ``test_split`` says otherwise."""
        if self.streamed and self.test_split == "train":
            raise HwrError("split=train: training items in shards are not judged; take val or test, or what was packed")
        return self.loader(self.test_split)


class LateLoader(DataLoader[Any]):
    """Starts, and its workers with it, when the first batch is asked for; counts the batches that it hands out.

    In a resumed run Lightning opens a loader before it tells the order which epoch it is.
    """

    sampler: Order

    def __iter__(self) -> Any:
        self.sampler.read = self.sampler.skipped()
        for batch in super().__iter__():
            self.sampler.read += 1
            yield batch


class HandsErrorsOver(Dataset[Any]):
    """Gives what the user can mend in place of a batch: raised in a worker process, it would become a page of text.

    Args:
        samples: Where the batches come from.
    """

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __getitem__(self, positions: Sequence[int]) -> Any:
        try:
            return self.samples[positions]
        except HwrError as error:
            return error


class FixedBatches(Dataset[Any]):
    """The same batches in every epoch; indexed by the number of the batch.

    Args:
        samples: Where they come from.
        positions: Of the samples of each batch.
    """

    def __init__(self, samples: Dataset[Any], positions: Sequence[Sequence[int]]) -> None:
        self.samples, self.positions = samples, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Any:
        return self.samples[self.positions[number]]


def datamodule_of(trainer: Trainer) -> Any:
    """The datamodule of the present fit or test."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning does not declare it
