"""The datamodule all character data sets share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwr.data import turns
from hwr.data.batches import Batch, BatchOrder, CharacterSet
from hwr.data.corrections import correct_characters
from hwr.data.labels import choose
from hwr.data.lines.augment import LineAugment
from hwr.data.mixing import Draw, check_share, class_weights, joined_characters
from hwr.data.module import SplitDataModule, Splitter
from hwr.data.order import Order
from hwr.data.pseudo import check_confidence, read_pseudo_characters
from hwr.errors import HwrError
from hwr.files import write_json
from hwr.networks.base import CharacterNetwork
from hwr.preprocess import CharacterPreprocess

log = logging.getLogger(__name__)


class CharacterDataModule(SplitDataModule):
    """Splits, batching, augmentation and normalisation of images of single characters.

    A data set implements :meth:`load`. Where it brings no test or validation split, one is set apart from the training
    samples, with writers by writer.

    Args:
        preprocess: How an image becomes what the network sees; travels with the weights.
        split: Chooses the samples that leave training, see :mod:`hwr.data.splits`.
        batch_size: Of training, over all devices.
        eval_batch_size: Of validation and test, over all devices.
        augment: Changes a float batch (B, 1, H, W) in [0, 1] in training.
        seed: Of the order of the training samples.
        labels: Train on so many samples only, see :mod:`hwr.data.labels`; None means on all.
        labels_seed: Of their draw.
        corrections: A table of right labels for training samples, see :mod:`hwr.data.corrections`.
        balance: Draw as many training samples of every class, with replacement.
        pseudo_labels: A table of images that a model has read, to train on as well, see :mod:`hwr.data.pseudo`.
        pseudo_confidence: With which they must have been read.
        only: The names of the classes to keep; None keeps all.
        turned: Train on characters turned and mirrored, too, as classes of their own, see :mod:`hwr.data.turns`.
    """

    def __init__(
        self,
        preprocess: CharacterPreprocess,
        split: Splitter,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        augment: nn.Module | None = None,
        seed: int = 1,
        labels: int | None = None,
        labels_seed: int = 0,
        corrections: str | None = None,
        balance: bool = False,
        pseudo_labels: str | None = None,
        pseudo_confidence: float = 0.95,
        only: Sequence[str | int] | None = None,
        turned: bool = False,
    ) -> None:
        super().__init__(split, augment, seed)
        if isinstance(augment, LineAugment):
            raise HwrError("this augmentation is for lines; characters take augment=light or augment=null")
        if batch_size < 1 or eval_batch_size < 1:
            raise HwrError(
                f"data.batch_size and data.eval_batch_size must be at least 1, not {min(batch_size, eval_batch_size)}"
            )
        check_confidence(pseudo_confidence)
        self.preprocess = preprocess
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.labels, self.labels_seed, self.restricted = labels, labels_seed, False
        self.corrections, self.balance, self.only = corrections, balance, only
        self.pseudo_labels, self.pseudo_confidence = pseudo_labels, pseudo_confidence
        self.turned = turned
        self.sets: dict[str, CharacterSet] = {}
        self.classes: tuple[str, ...] = ()

    @abstractmethod
    def load(self) -> tuple[dict[str, CharacterSet], Sequence[str]]:
        """Reads the data set.

        Returns:
            The splits ``train`` and perhaps ``val`` and ``test``, and the names of the classes.
        """

    def setup(self, stage: str | None = None) -> None:
        """Loads the data once, and sets test and validation apart where there are none.

        Data without a training split can only judge a model.
        """
        if self.sets:
            return
        sets, classes = self.load()
        self.classes = tuple(classes)
        for name, part in sets.items():
            check_labels(part, len(self.classes), name)
        if self.only is not None:
            sets, self.classes = keep_classes(sets, self.classes, [str(name) for name in self.only])
        for name in ("test", "val"):
            if name not in sets and "train" in sets:
                train = sets["train"]
                self.apart[name] = len(train)
                chosen = self.split(train.labels.numpy(), train.writers)
                rest = np.setdiff1d(np.arange(len(train)), chosen)
                sets = {**sets, "train": train.subset(rest), name: train.subset(chosen)}
        if "train" not in sets:
            self.sets = sets
            return
        train, drawn, own = sets["train"], None, np.arange(len(sets["train"]))
        if self.pseudo_labels is not None:
            guessed = read_pseudo_characters(
                self.pseudo_labels, self.pseudo_confidence, sets, self.classes, self.preprocess
            )
            self.guessed = frozenset(guessed.names)
            train = joined_characters(train, guessed)
            sets = {**sets, "train": train}
        if self.labels is not None:
            drawn = choose(self.labels, train.labels.numpy(), self.labels_seed, own)
            train, self.restricted = train.subset(drawn), True
        if self.corrections is not None:
            train = correct_characters(sets, self.classes, self.corrections, drawn)
        sets = {**sets, "train": train}
        if len(sets["train"]) < 2:
            raise HwrError(f"{len(sets['train'])} training image: at least 2 are needed; add images or set less aside")
        self.sets = sets
        empty = [name for name, count in zip(self.classes, self.class_counts().tolist(), strict=True) if not count]
        if empty:
            log.warning("no training image of %s: such characters will not be read", ", ".join(empty))
        if self.turned:
            self.as_classes(turns.with_turned(self.classes))

    def restrict(self, positions: Sequence[int] | np.ndarray) -> None:
        """Trains on the samples at these positions of the training split only; it forgets the others."""
        part = self.sets["train"].subset(np.asarray(positions, np.int64))
        self.sets, self.restricted = {**self.sets, "train": part}, True

    def as_classes(self, classes: Sequence[str]) -> None:
        """Numbers the labels like another model's classes, by name.

        Raises:
            HwrError: If this data set has a class that the model lacks.
        """
        missing = [name for name in self.classes if name not in classes]
        if missing:
            raise HwrError(
                f"the data has {len(missing)} labels outside the model's {len(classes)} classes: "
                f"{', '.join(missing[:10])}; "
                f"the model knows {', '.join(classes[:20])}"
            )
        new = torch.tensor([classes.index(name) for name in self.classes])
        self.sets = {name: replace(part, labels=new[part.labels]) for name, part in self.sets.items()}
        self.classes = tuple(classes)

    def add_classes(self, names: Sequence[str]) -> None:
        """Puts classes that this data lacks after its own, for a model that is not to forget them."""
        if self.turned:
            names = (*names, *turns.with_turned([name for name in names if not name.endswith(turns.WAYS[1:])]))
        self.as_classes(tuple(dict.fromkeys((*self.classes, *names))))

    def mix(self, other: CharacterDataModule | None, share: float) -> None:
        """Decides what an epoch of training holds, once everything is set up.

        Args:
            other: Data whose training samples come again, so that they are not forgotten; None: there is none.
            share: Of each epoch that they are.
        """
        check_share(share)
        own, others = self.sets["train"], 0
        if other is not None and share:
            other.as_classes(self.classes)
            others = len(other.sets["train"])
            self.mixed = joined_characters(own, other.sets["train"])
        weights = class_weights(own.labels) if self.balance else None
        self.draw = Draw(len(own), weights, others, share, self.seed) if others or self.balance else None

    def class_counts(self) -> Tensor:
        """Training samples of each class, int64 (C,); those that are turned count in each way."""
        labels = self.sets["train"].labels
        if self.turned:
            labels = turns.numbers(self.classes)[:, labels]
        return torch.bincount(labels[labels >= 0], minlength=len(self.classes))

    def example(self) -> tuple[Tensor, ...]:
        """Random input of the shape of a training batch, for timing."""
        return (torch.rand(min(self.batch_size, 256), 1, self.preprocess.size, self.preprocess.size),)

    def loss_arguments(self, network: CharacterNetwork) -> dict[str, Any]:
        """What a loss needs to know of the data and the network."""
        sizes = {"num_classes": len(self.classes), "num_features": network.head.in_features}
        return {**sizes, "class_counts": self.class_counts()}

    def record(self, path: Path) -> None:
        """Writes which samples are in validation and test, and how many train (if not all: which), as JSON."""
        listed = {name: list(part.names) for name, part in self.sets.items() if name != "train" or self.restricted}
        sizes = {name: len(part) for name, part in self.sets.items()}
        if self.guessed:
            sizes["pseudo_labels"] = sizes["train"] - len(self.labelled())  # among those of train
        write_json(path, {"sizes": sizes, **listed})

    def order(self, name: str, rank: int, world: int) -> Order:
        """See :meth:`SplitDataModule.order`."""
        n, train = len(self.sets[name]), name == "train"
        size = self.batch_size if train else self.eval_batch_size
        if min(size, n) < world:
            raise HwrError(f"{world} devices cannot share {min(size, n)} samples ({name}); use fewer devices")
        draw = self.draw if train else None
        return BatchOrder(n if draw is None else len(draw), size, train, self.seed, rank, world, draw)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments and turns (in training) and normalises a whole batch on its device."""
        images, labels = batch.images.unsqueeze(1).float().div_(255), batch.labels  # (B, 1, H, W) in [0, 1]
        if self.trainer is not None and self.trainer.training:
            images = images if self.augment is None else self.augment(images)
            if self.turned:
                images, labels = turns.turned(images, labels, turns.numbers(self.classes))
        return batch._replace(images=self.preprocess.standardize(images), labels=labels)


def keep_classes(
    sets: Mapping[str, CharacterSet], classes: Sequence[str], only: Sequence[str]
) -> tuple[dict[str, CharacterSet], tuple[str, ...]]:
    """Leaves out the samples of all classes but these.

    Raises:
        HwrError: If there is no such class, fewer than two are left, or a split has no sample of them.
    """
    if unknown := [name for name in only if name not in classes]:
        raise HwrError(f"data.only: no class {unknown[0]!r}; there are {' '.join(classes[:60])}")
    kept = tuple(name for name in classes if name in only)
    if len(kept) < 2:
        raise HwrError("data.only: at least two classes are needed")
    number = torch.tensor([kept.index(name) if name in only else -1 for name in classes])
    found = {}
    for name, part in sets.items():
        positions = np.flatnonzero(number[part.labels].numpy() >= 0)
        if not len(positions):
            raise HwrError(f"data.only: no sample of {' '.join(kept[:60])} in the {name} split")
        some = part.subset(positions)
        found[name] = replace(some, labels=number[some.labels])
    return found, kept


def check_labels(part: CharacterSet, n_classes: int, where: str) -> None:
    """Raises :class:`HwrError` if the set is empty or a label is not in [0, n_classes)."""
    if len(part) == 0:
        raise HwrError(f"the {where} split is empty")
    if len(part.images) != len(part.labels):
        raise HwrError(f"{where}: {len(part.images)} images but {len(part.labels)} labels; is a file from another set?")
    bad = torch.nonzero((part.labels < 0) | (part.labels >= n_classes)).flatten()
    if len(bad):
        first = int(bad[0])
        raise HwrError(
            f"{where}: {len(bad)} labels outside the {n_classes} classes, "
            f"first {int(part.labels[first])} at {part.names[first]}"
        )
