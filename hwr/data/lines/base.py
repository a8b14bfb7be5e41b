"""The datamodule all line data sets share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hwr.data.lines.batches import LineBatch, LineSet, WidthOrder
from hwr.data.lines.cache import prepare
from hwr.data.lines.items import LineItem, Lines, Rejected
from hwr.errors import HwrError
from hwr.files import write_json
from hwr.line_preprocess import LinePreprocess
from hwr.networks.base import LineNetwork
from hwr.text import Charset, code_points

log = logging.getLogger(__name__)
MakeCharset = Callable[[Iterable[str]], Charset]
Splitter = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


class LineDataModule(LightningDataModule):
    """Splits, charset, cache, batching and augmentation of images of text lines.

    A data set implements :meth:`read`. Where it brings no validation or test split, one is set apart from the training
    lines: by writer where writers are known, else by text, else by line.

    Args:
        preprocess: How an image becomes what the network sees; travels with the weights.
        split: Chooses the lines that leave training, see :mod:`hwr.data.splits`.
        charset: Makes the charset from the training transcripts, see :func:`hwr.text.make_charset`.
        unknown: What to do with a training line that has characters outside the charset: ``error``, or ``skip`` the
            line.
        columns: Most columns of pixels of a training batch, padding included, over all devices.
        eval_columns: The same for validation and test.
        cache: Folder for prepared lines; None keeps them in memory.
        augment: Changes a float batch in training, see :class:`hwr.data.lines.augment.LineAugment`.
        seed: Of the order of the training lines.
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
    ) -> None:
        super().__init__()
        if unknown not in ("error", "skip"):
            raise HwrError(f"charset.unknown must be error or skip, not {unknown!r}")
        if min(columns, eval_columns) < 1:
            raise HwrError("data.columns and data.eval_columns must be at least 1")
        self.preprocess, self.split, self.augment, self.seed = preprocess, split, augment, seed
        self.columns, self.eval_columns, self.unknown = columns, eval_columns, unknown
        self.cache = Path(cache).expanduser() if cache is not None else None
        self._make_charset = charset
        self.sets: dict[str, LineSet] = {}
        self.rejected: list[Rejected] = []
        self.charset: Charset | None = None
        self.test_split = "test"
        self.endless = False

    @abstractmethod
    def read(self) -> dict[str, Lines]:
        """Finds the lines of each split: ``train``, and perhaps ``val`` and ``test``."""

    def load(self) -> dict[str, LineSet]:
        """Reads the splits, sets validation and test apart where there are none, and prepares the images."""
        splits = self.read()
        for name in ("test", "val"):
            if name not in splits:
                splits["train"], splits[name] = self._set_apart(splits["train"])
        return {name: prepare(lines, self.preprocess, self.cache, name) for name, lines in splits.items()}

    def setup(self, stage: str | None = None) -> None:
        """Loads the data once, chooses the charset and rejects training lines that nothing can be learnt from."""
        if self.sets:
            return
        self.sets = self.load()
        train = self.sets["train"]
        self.rejected, train.lost = list(train.lost), []
        if not len(train):
            first = f"; the first: {self.rejected[0]}" if self.rejected else ""
            raise HwrError(f"none of {len(self.rejected)} training lines can be used{first}")
        self.charset = self._make_charset(train.texts)
        self._reject(self._outside(self.charset))
        self.as_classes(self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The characters of the charset, in order."""
        return tuple(self.charset.characters) if self.charset else ()

    def as_classes(self, classes: Sequence[str]) -> None:
        """Numbers characters like this charset; says which of validation and test it lacks: they count as errors."""
        self.charset = Charset("".join(classes))
        for name, part in self.sets.items():
            part.encode(self.charset)
            lacking = self.charset.missing([*part.texts, *(line.text for line in part.lost)])
            if lacking and name != "train":
                log.warning("%s: the charset lacks %s, which count as errors", name, code_points(dict(lacking)))

    def check_feasible(self, network: LineNetwork) -> None:
        """Rejects training lines that have more characters and repeats than the network gives frames.

        CTC needs a frame for each character and one between equal neighbours (Graves et al. 2006). In the other splits
        such a line counts as wrong from end to end.
        """
        for name, part in self.sets.items():
            frames = network.output_lengths(torch.from_numpy(part.widths)).tolist()
            short = {
                i: f"{part.widths[i]} px wide: {frames[i]} frames, but {needed} are needed for its {len(label)} characters"
                for i, label in enumerate(part.labels)
                if frames[i] < (needed := frames_needed(label))
            }
            if name == "train":
                self._reject(short)
            elif short:
                log.warning("%s: %d lines are too narrow for their text and count as wrong", name, len(short))
                kept = np.array([i for i in range(len(part)) if i not in short], np.int64)
                lost = [Rejected(part.names[i], why, part.texts[i], part.writers[i]) for i, why in short.items()]
                self.sets[name] = part.subset(kept, [*part.lost, *lost])

    def record(self, path: Path) -> None:
        """Writes which lines are in validation and test, how many train, and what was rejected and why, as JSON."""
        held_out = {name: part.names for name, part in self.sets.items() if name != "train"}
        sizes = {name: len(part) for name, part in self.sets.items()}
        lost = {name: [str(line) for line in part.lost] for name, part in self.sets.items() if part.lost}
        rejected = [str(line) for line in self.rejected]
        write_json(path, {"sizes": sizes, "rejected": rejected, "unreadable": lost, **held_out})

    def example(self) -> tuple[Tensor, ...]:
        """Random input of the shape of a typical training batch, for timing: images and widths."""
        width = int(np.median(self.sets["train"].widths))
        size = max(1, self.columns // width)
        return torch.rand(size, 1, self.preprocess.height, width), torch.full((size,), width)

    def loss_arguments(self, network: LineNetwork) -> dict[str, Any]:
        """What a loss needs to know of the data: nothing."""
        return {}

    def loader(self, name: str) -> DataLoader[LineBatch]:
        """The loader of one split; each process of a multi-device run reads its share."""
        part = self.sets[name]
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        train = name == "train"
        if not len(part):
            raise HwrError(f"{name}: none of {len(part.lost)} lines can be read; the first: {part.lost[0]}")
        columns = self.columns if train else self.eval_columns
        order = WidthOrder(part.widths, columns, train, self.seed, rank, world, train and self.endless)
        if getattr(self.trainer, "overfit_batches", 0):  # Lightning would order single lines in place of our batches
            return DataLoader([part[positions] for positions in order], batch_size=None)  # type: ignore[arg-type]
        return DataLoader(part, batch_size=None, sampler=order, generator=torch.Generator())

    def train_dataloader(self) -> DataLoader[LineBatch]:
        """Shuffled training batches."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[LineBatch]:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[LineBatch]:
        """Batches of the split that is scored: ``test``, unless ``test_split`` says otherwise."""
        return self.loader(self.test_split)

    def on_after_batch_transfer(self, batch: LineBatch, dataloader_idx: int) -> LineBatch:
        """Brings a whole batch into [0, 1] and augments it (in training) on its device."""
        images, widths = self.preprocess.normalize(batch.images), batch.widths
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            images, widths = self.augment(images, widths)
        return batch._replace(images=images, widths=widths)

    def _set_apart(self, lines: Lines) -> tuple[Lines, Lines]:
        groups = [_group(item) for item in lines.items]
        known = len(set(groups)) > 1 and None not in groups
        chosen = set(self.split(np.zeros(len(groups), int), np.array(groups) if known else None).tolist())
        parts = ([item for i, item in enumerate(lines.items) if (i in chosen) == out] for out in (False, True))
        rest, out = (Lines(part) for part in parts)
        rest.rejected = lines.rejected
        return rest, out

    def _outside(self, charset: Charset) -> dict[int, str]:
        train = self.sets["train"]
        bad = {i: lacking for i, text in enumerate(train.texts) if (lacking := charset.missing([text]))}
        if bad and self.unknown == "error":
            lacking = charset.missing(train.texts)
            raise HwrError(
                f"the charset lacks {code_points(dict(lacking))} of the training transcripts (first: "
                f"{train.names[next(iter(bad))]}); add to the charset, or leave such lines out with charset.unknown=skip"
            )
        return {i: f"the charset lacks {code_points(lacking)}" for i, lacking in bad.items()}

    def _reject(self, reasons: Mapping[int, str]) -> None:
        """Takes lines out of training."""
        if not reasons:
            return
        train = self.sets["train"]
        for i, reason in reasons.items():
            self.rejected.append(Rejected(train.names[i], reason, train.texts[i], train.writers[i]))
        if len(reasons) == len(train):
            raise HwrError(f"none of {len(train)} training lines can be used; the first: {self.rejected[-1]}")
        self.sets["train"] = train.subset(np.array([i for i in range(len(train)) if i not in reasons]))


def frames_needed(labels: Sequence[int] | np.ndarray) -> int:
    """Frames that CTC needs: one a character, and one between equal neighbours."""
    labels = np.asarray(labels)
    return int(len(labels) + (labels[1:] == labels[:-1]).sum())


def _group(item: LineItem) -> str | None:
    return item.writer if item.writer is not None else item.text_id
