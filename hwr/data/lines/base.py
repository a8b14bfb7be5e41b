"""The datamodule all line data sets share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwr.data.augment import Augment
from hwr.data.corrections import correct_lines
from hwr.data.labels import choose
from hwr.data.lines.batches import LineBatch, LineSet, WidthOrder
from hwr.data.lines.cache import prepare
from hwr.data.lines.groups import groups_of, share_out
from hwr.data.lines.items import Lines, Rejected, right_to_left
from hwr.data.lines.lost import check_some, infeasible, tell_lost
from hwr.data.mixing import Draw, JoinedLines, check_share, rarity
from hwr.data.module import SplitDataModule, Splitter
from hwr.data.order import Order
from hwr.data.pseudo import check_confidence, read_pseudo_lines
from hwr.errors import HwrError
from hwr.files import write_json
from hwr.line_preprocess import LinePreprocess
from hwr.networks.base import LineNetwork
from hwr.text import Charset, code_points

log = logging.getLogger(__name__)
MakeCharset = Callable[[Iterable[str]], Charset]


class LineDataModule(SplitDataModule):
    """Splits, charset, cache, batching and augmentation of images of text lines.

    A data set implements :meth:`read`. Where it brings no validation or test split, one is set apart from the training
    lines: by writer where writers are known, else by text, else by line; never is one image on both sides.

    No line gets lost in silence: what cannot be used is left out of training, and counts as wrong from end to end in
    the other splits; the log says how many, ``splits.json`` which and why.

    Args:
        preprocess: How an image becomes what the network sees; travels with the weights.
        split: Chooses the lines that leave training, see :mod:`hwr.data.splits`.
        charset: Makes the charset from the training transcripts, see :func:`hwr.text.make_charset`.
        unknown: What to do with a training line that has characters outside the charset: ``error``, or ``skip`` the
            line.
        columns: Most columns of pixels of a training batch, padding and second views included, over all devices.
        eval_columns: The same for validation and test.
        cache: Folder for prepared lines; None keeps them in memory.
        augment: Changes a float batch in training, see :class:`hwr.data.lines.augment.LineAugment`.
        seed: Of the order of the training lines.
        labels: Train on so many lines only, see :mod:`hwr.data.labels`; None means on all.
        labels_seed: Of their draw.
        corrections: A table of right texts for training lines, see :mod:`hwr.data.corrections`.
        balance: Draw training lines with replacement, those with rare characters oftener.
        pseudo_labels: A table of lines that a model has read, to train on as well, see :mod:`hwr.data.pseudo`.
        pseudo_confidence: With which they must have been read.
    """

    def __init__(
        self,
        preprocess: LinePreprocess,
        split: Splitter,
        charset: MakeCharset = Charset.of,
        unknown: str = "error",
        columns: int = 16_000,
        eval_columns: int = 32_000,
        cache: str | None = None,
        augment: nn.Module | None = None,
        seed: int = 1,
        labels: int | None = None,
        labels_seed: int = 0,
        corrections: str | None = None,
        balance: bool = False,
        pseudo_labels: str | None = None,
        pseudo_confidence: float = 0.5,
    ) -> None:
        super().__init__(split, augment, seed)
        if isinstance(augment, Augment):
            raise HwrError("this augmentation is for characters; lines take augment=lines or augment=null")
        if unknown not in ("error", "skip"):
            raise HwrError(f"charset.unknown must be error or skip, not {unknown!r}")
        if min(columns, eval_columns) < 1:
            raise HwrError("data.columns and data.eval_columns must be at least 1")
        check_confidence(pseudo_confidence)
        self.preprocess = preprocess
        self.columns, self.eval_columns, self.unknown = columns, eval_columns, unknown
        self.labels, self.labels_seed, self.restricted = labels, labels_seed, False
        self.corrections, self.balance = corrections, balance
        self.pseudo_labels, self.pseudo_confidence = pseudo_labels, pseudo_confidence
        self.cache = Path(cache).expanduser() if cache is not None else None
        self._make_charset = charset
        self.sets: dict[str, LineSet] = {}
        self.charset: Charset | None = None
        self.endless = False

    @abstractmethod
    def read(self) -> dict[str, Lines]:
        """Finds the lines of each split: ``train``, and perhaps ``val`` and ``test``."""

    def load(self) -> dict[str, LineSet]:
        """Reads the splits, sets validation and test apart where there are none, and prepares the images."""
        splits = self.read()
        for name in ("test", "val"):
            if name not in splits and "train" in splits:
                self.apart[name] = len(splits["train"])
                splits["train"], splits[name] = self._set_apart(name, splits["train"])
        if self.pseudo_labels is not None:
            guessed = read_pseudo_lines(self.pseudo_labels, self.pseudo_confidence, splits)
            self.guessed = frozenset(item.name for item in guessed.items)
            splits["train"].extend(guessed)
        return {name: prepare(lines, self.preprocess, self.cache, name) for name, lines in splits.items()}

    def setup(self, stage: str | None = None) -> None:
        """Loads the data once, chooses the charset and rejects training lines that nothing can be learnt from.

        Data without a training split can only judge a model.
        """
        if self.sets:
            return
        self.sets = self.load()
        for name, part in self.sets.items():
            tell_lost(name, part.lost)
            check_some(name, part.lost, len(part))
        if "train" not in self.sets:
            return
        drawn = None
        if self.labels is not None:
            drawn = choose(self.labels, np.zeros(len(self.sets["train"]), int), self.labels_seed, self.labelled())
        if self.corrections is not None:
            self.sets["train"] = correct_lines(self.sets, self.corrections, drawn)
            check_some("train", self.sets["train"].lost, len(self.sets["train"]))
            self.restricted = drawn is not None
        elif drawn is not None:
            self.restrict(drawn)
        train = self.sets["train"]
        if leftwards := sum(map(right_to_left, train.texts)):
            log.warning(
                "%d training lines are written from right to left; frames go from left to right, so mirror the images",
                leftwards,
            )
        self.charset = self._make_charset(train.texts)
        self._lose("train", self._outside(self.charset))
        self.as_classes(self.classes)

    def restrict(self, positions: Sequence[int] | np.ndarray) -> None:
        """Trains on the lines at these positions of the training split only; it forgets the others, not the charset."""
        part = self.sets["train"]
        self.sets["train"], self.restricted = part.subset(np.asarray(positions, np.int64), part.lost), True

    @property
    def classes(self) -> tuple[str, ...]:
        """The characters of the charset, in order."""
        return tuple(self.charset.characters) if self.charset else ()

    @property
    def transcripts(self) -> list[str]:
        """What the training lines say, but for those that only a model has read."""
        texts = self.sets["train"].texts
        return [texts[i] for i in self.labelled()]

    def as_classes(self, classes: Sequence[str]) -> None:
        """Numbers characters like this charset."""
        self.charset = Charset("".join(classes))
        for part in self.sets.values():
            part.encode(self.charset)

    def mix(self, other: LineDataModule | None, share: float) -> None:
        """Decides what an epoch of training holds, once everything is set up and feasible.

        Args:
            other: Data whose training lines come again, so that they are not forgotten, but for those with characters
                outside the charset; None: there is none.
            share: Of each epoch that they are.

        Raises:
            HwrError: If this data is endless, or there are no such lines.
        """
        check_share(share)
        own, others = self.sets["train"], 0
        if self.endless and (self.balance or share):
            raise HwrError("data.balance and replay mean nothing for lines made up without end")
        if other is not None and share:
            assert self.charset is not None
            part = other.sets["train"]
            if not other.endless:
                known = [i for i, text in enumerate(part.texts) if not self.charset.missing([text])]
                part = part.subset(np.array(known, np.int64))
            if not len(part):
                raise HwrError("replay: every line of old_data has characters outside the charset; extend it")
            part.encode(self.charset)
            self.mixed, others = JoinedLines(own, part), len(part)
        weights = rarity(own.texts) if self.balance else None
        self.draw = Draw(len(own), weights, others, share, self.seed) if others or self.balance else None

    def warn_of_unknown(self) -> None:
        """Says which characters of validation and test the charset lacks: they count as errors."""
        for name, part in self.sets.items():
            if name == "train":
                continue
            lacking = Charset("".join(self.classes)).missing([*part.texts, *(line.text for line in part.lost)])
            if lacking:
                log.warning("%s: the charset lacks %s, which count as errors", name, code_points(dict(lacking)))

    def check_feasible(self, network: LineNetwork) -> None:
        """Rejects training lines that have more characters and repeats than the network gives frames.

        CTC needs a frame for each character and one between equal neighbours (Graves et al. 2006). In the other splits
        such a line counts as wrong from end to end.
        """
        for name, part in list(self.sets.items()):
            self._lose(name, infeasible(network, part.widths, part.labels))

    def record(self, path: Path) -> None:
        """Writes which lines are in validation and test, how many train (if not all: which), what is lost and why."""
        listed = {name: part.names for name, part in self.sets.items() if name != "train" or self.restricted}
        sizes = {name: len(part) for name, part in self.sets.items()}
        if self.guessed:
            sizes["pseudo_labels"] = sizes["train"] - len(self.labelled())  # among those of train
        rejected = {name: [str(line) for line in part.lost] for name, part in self.sets.items() if part.lost}
        write_json(path, {"sizes": sizes, "rejected": rejected, **listed})

    def example(self) -> tuple[Tensor, ...]:
        """Random input of the shape of a typical training batch, for timing: images and widths."""
        width = int(np.median(self.sets["train"].widths))
        size = max(1, self.columns // width)
        return torch.rand(size, 1, self.preprocess.height, width), torch.full((size,), width)

    def loss_arguments(self, network: LineNetwork) -> dict[str, Any]:
        """What a loss needs to know of the data: nothing."""
        return {}

    def order(self, name: str, rank: int, world: int) -> Order:
        """See :meth:`SplitDataModule.order`."""
        part, train = self.sets[name], name == "train"
        check_some(name, part.lost, len(part))
        if len(part) < world:
            raise HwrError(f"{world} devices cannot share {len(part)} lines ({name}); use fewer devices")
        columns = self.columns // getattr(self.augment, "views", 1) if train else self.eval_columns
        widths = self.mixed.widths if train and isinstance(self.mixed, JoinedLines) else part.widths
        draw = self.draw if train else None
        return WidthOrder(widths, columns, train, self.seed, rank, world, train and self.endless, draw)

    def on_after_batch_transfer(self, batch: LineBatch, dataloader_idx: int) -> LineBatch:
        """Brings a whole batch into [0, 1] and augments it (in training) on its device."""
        images, widths = self.preprocess.normalize(batch.images), batch.widths
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            images, widths = self.augment(images, widths)
            if (views := len(images) // len(batch.ids)) > 1:
                again = {"targets": batch.targets, "lengths": batch.lengths, "ids": batch.ids}
                batch = batch._replace(views=views, **{name: each.repeat(views) for name, each in again.items()})
        return batch._replace(images=images, widths=widths)

    def _set_apart(self, name: str, lines: Lines) -> tuple[Lines, Lines]:
        """The lines that stay, and those of a new split."""
        groups = groups_of(lines.items, name)
        try:
            chosen = set(self.split(np.zeros(len(lines), int), groups).tolist())
        except HwrError as error:
            raise HwrError(
                f"{name} cannot be set apart from {len(lines)} lines: {error}; or bring a {name} split of its own"
            ) from None
        parts = ([item for i, item in enumerate(lines.items) if (i in chosen) == out] for out in (False, True))
        rest, out = (Lines(part) for part in parts)
        rest.rejected, out.rejected = share_out(lines.rejected, rest.items, out.items)
        return rest, out

    def _outside(self, charset: Charset) -> dict[int, str]:
        train = self.sets["train"]
        bad = {i: lacking for i, text in enumerate(train.texts) if (lacking := charset.missing([text]))}
        if bad and self.unknown == "error":
            lacking = charset.missing(train.texts)
            first = train.names[next(iter(bad))]
            raise HwrError(
                f"the charset lacks {code_points(dict(lacking))} of the training transcripts (first: {first}); add to "
                "the charset (to that of a start model: charset.on_change=extend), or leave such lines out with "
                "charset.unknown=skip"
            )
        return {i: f"the charset lacks {code_points(lacking)}" for i, lacking in bad.items()}

    def _lose(self, name: str, reasons: Mapping[int, str]) -> None:
        """Moves lines of a split to its lost ones."""
        if not reasons:
            return
        part = self.sets[name]
        lost = [Rejected(part.names[i], why, part.texts[i], part.writers[i]) for i, why in reasons.items()]
        check_some(name, [*lost, *part.lost], len(part) - len(lost))
        kept = np.array([i for i in range(len(part)) if i not in reasons], np.int64)
        self.sets[name] = part.subset(kept, [*part.lost, *lost])
        tell_lost(name, lost)
