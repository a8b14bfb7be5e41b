"""Data sets that ``hwr.pack`` has written: training items are streamed, validation and test are held in memory."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwr.data.base import CharacterDataModule
from hwr.data.batches import CharacterSet
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.batches import LineSet
from hwr.data.lines.items import Lines, Rejected
from hwr.data.lines.lost import tell_lost
from hwr.data.module import SplitDataModule
from hwr.data.order import Order
from hwr.data.shards.format import Index, Shard, read_index, read_shard, remote
from hwr.data.shards.order import ShardOrder
from hwr.data.shards.stream import MEND, CharacterStream, LineStream, Stream, whole_characters, whole_lines
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess
from hwr.networks.base import LineNetwork
from hwr.preprocess import CharacterPreprocess
from hwr.text import code_points
from hwr.threads import in_threads

log = logging.getLogger(__name__)
WHOLE = "shards are read as they are; pack what is to be trained on"


class Streamed(SplitDataModule):
    """What characters and lines in shards share.

    Args:
        path: A folder, or an address that fsspec understands (``s3://``, ``gs://``, ``https://`` ...); or a list of
            them, packed side by side with the same settings.
        preprocess: Settings that the shards must have been prepared with; ``mean`` and ``std`` may differ.
        workers: Processes that read training shards for each training process; 0: it reads them itself.
        bad_shards: What to do with a training shard that is damaged or missing: ``error``, or ``skip`` it.
        kwargs: Of :class:`CharacterDataModule` or :class:`LineDataModule`.

    Attributes:
        kind: What is in the shards: ``characters`` or ``lines``.
        preparation: What ``preprocess`` are the settings of.
    """

    kind: str
    preparation: type[CharacterPreprocess | LinePreprocess]
    preprocess: Any
    streamed = True

    def __init__(
        self,
        path: str | Sequence[str],
        preprocess: Mapping[str, Any] | None = None,
        workers: int = 0,
        bad_shards: str = "error",
        **kwargs: Any,
    ) -> None:
        self.index, self.bad_shards = read_index(path, self.kind), bad_shards
        wanted = self.preparation.from_dict({**self.index.about["preprocess"], **(preprocess or {})})
        settings: dict[str, Any] = {"preprocess": wanted, "split": _nothing, **kwargs}
        super().__init__(**settings)
        check_settings(workers, bad_shards)
        self.workers, self.several = workers, not isinstance(path, str)

    def joined(self, train: Stream, whole: Callable[[Index, str], Any]) -> dict[str, Any]:
        """Training as a stream, validation and test in memory."""
        check_prepared(self.index, self.preprocess)
        sets = {name: whole(self.index, name) for name in ("val", "test")}
        if self.several:
            tell_twice(self.index, {name: part.names for name, part in sets.items()})
        return {"train": train, **sets}

    def restrict(self, positions: Sequence[int] | np.ndarray) -> None:
        """Refuses to."""
        raise HwrError(WHOLE)

    def train_order(self, rank: int, world: int) -> ShardOrder:
        """The order of training items; see :class:`ShardOrder`."""
        train: Any = self.sets["train"]
        if len(train) < world:
            raise HwrError(f"{world} devices cannot share {len(train)} training items; use fewer devices")
        counts, widths = train.counts(), train.widths
        return ShardOrder(train.positions, counts, widths, self.most, self.seed, rank, world, self.workers)

    @abstractmethod
    def most(self, width: int) -> int:
        """Items of a training batch at most, for items as wide as this."""


class Shards(Streamed, CharacterDataModule):
    """Characters in shards, with the splits, classes and preparation that they were packed with.

    Args: See :class:`Streamed`.
    """

    kind, preparation = "characters", CharacterPreprocess

    def load(self) -> tuple[dict[str, CharacterSet], Sequence[str]]:
        """Opens the shards."""
        train = CharacterStream(self.index, usable(self.index, self.bad_shards))
        return self.joined(train, whole_characters), self.index.classes

    def setup(self, stage: str | None = None) -> None:
        """Opens the shards once."""
        if not self.sets:
            self.sets, classes = self.load()
            self.classes = tuple(classes)

    def most(self, width: int) -> int:
        """See :meth:`Streamed.most`."""
        return self.batch_size

    def order(self, name: str, rank: int, world: int) -> Order:
        """See :meth:`SplitDataModule.order`."""
        return self.train_order(rank, world) if name == "train" else super().order(name, rank, world)

    def as_classes(self, classes: Sequence[str]) -> None:
        """See :meth:`CharacterDataModule.as_classes`."""
        train: Any = self.sets["train"]
        new = [classes.index(name) if name in classes else -1 for name in self.classes]
        self.sets = {name: part for name, part in self.sets.items() if name != "train"}
        super().as_classes(classes)
        train.number = torch.tensor(new)[train.number]
        self.sets = {"train": train, **self.sets}

    def class_counts(self) -> Tensor:
        """See :meth:`CharacterDataModule.class_counts`; shards that are skipped count, too."""
        train: Any = self.sets["train"]
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        counts[train.number] = torch.tensor(self.index.about["counts"])
        return counts


class LineShards(Streamed, LineDataModule):
    """Lines in shards, with the splits and preparation that they were packed with.

    Args: See :class:`Streamed`.
    """

    kind, preparation = "lines", LinePreprocess

    def read(self) -> dict[str, Lines]:
        """Nothing: lines are read from shards."""
        return {}

    def load(self) -> dict[str, LineSet]:
        """Opens the shards."""
        return self.joined(LineStream(self.index, usable(self.index, self.bad_shards)), whole_lines)

    def most(self, width: int) -> int:
        """See :meth:`Streamed.most`."""
        return self.columns // getattr(self.augment, "views", 1) // width

    def order(self, name: str, rank: int, world: int) -> Order:
        """See :meth:`SplitDataModule.order`."""
        return self.train_order(rank, world) if name == "train" else super().order(name, rank, world)

    def setup(self, stage: str | None = None) -> None:
        """Opens the shards once, and chooses the charset."""
        if self.sets:
            return
        self.sets = self.load()
        characters = "".join(self.index.classes)
        last = characters[-1:]  # no space, unless there is nothing else; a space counts between two characters
        self.charset = self._make_charset([f"{last} {c}" if " " in characters else c for c in characters])
        if lacking := self.charset.missing(self.index.classes):
            raise HwrError(
                f"the charset lacks {code_points(dict(lacking))} of the packed transcripts; add to the charset, or "
                "leave such lines out when packing: hwr.pack with the same charset and charset.unknown=skip"
            )
        self.as_classes(self.classes)

    def check_feasible(self, network: LineNetwork) -> None:
        """See :meth:`LineDataModule.check_feasible`; of training, only shards with such lines are read."""
        train: Any = self.sets.pop("train")
        super().check_feasible(network)
        self.sets = {"train": train, **self.sets}
        lost: list[Rejected] = []
        for number, shard in enumerate(train.shards):
            widths, needed = np.array(shard.narrow).T
            if (network.output_lengths(torch.from_numpy(widths)).numpy() < needed).any():
                lost += train.leave_out(number, network)
        if not len(train):
            raise HwrError(f"none of {len(lost)} training lines can be used; the first: {lost[0]}")
        tell_lost("train", lost)


def usable(index: Index, bad_shards: str) -> list[Shard]:
    """The training shards, without bad ones if these are to be skipped: then all are read and checked first.

    In a folder, files that are missing or of another size are noticed here; what else is wrong, when a shard is read.

    Raises:
        HwrError: If a shard is bad and not to be skipped, or none is left.
    """
    shards = index.of("train")
    suspects = shards
    if bad_shards == "error":
        suspects = [s for s in shards if not remote(s.file) and _size(Path(s.file)) != s.bytes]
    found = zip(suspects, in_threads(lambda shard: read_shard(shard).json, suspects), strict=True)
    bad = {shard.file: problem for shard, problem in found if isinstance(problem, HwrError)}
    if bad and bad_shards == "error":
        raise HwrError(f"{next(iter(bad.values()))}; {MEND}, or train without it: data.bad_shards=skip")
    for shard in shards:
        if shard.file in bad:
            log.warning("%s: its %d items are left out of training", bad[shard.file], shard.items)
    if len(bad) == len(shards):
        raise HwrError(f"data.path={index.path}: none of {len(shards)} training shards can be used")
    return [shard for shard in shards if shard.file not in bad]


def check_settings(workers: int, bad_shards: str) -> None:
    """Raises :class:`HwrError` if they are none."""
    if not isinstance(workers, int) or workers < 0:
        raise HwrError(f"data.workers must be a whole number from 0, not {workers!r}")
    if bad_shards not in ("error", "skip"):
        raise HwrError(f"data.bad_shards must be error or skip, not {bad_shards!r}")


def check_prepared(index: Index, wanted: CharacterPreprocess | LinePreprocess) -> None:
    """Raises :class:`HwrError` if the images in the shards were prepared in another way than is wanted."""
    packed = type(wanted).from_dict(index.about["preprocess"]).to_dict()
    for name, value in wanted.to_dict().items():
        if value != packed[name] and name not in ("mean", "std"):
            raise HwrError(
                f"data.path={index.path}: packed with preprocess.{name}={packed[name]}, and {value} is wanted; pack "
                f"again with data.preprocess.{name}={value}, or take what they were packed with"
            )


def tell_twice(index: Index, names: Mapping[str, Sequence[str]]) -> None:
    """Says which items of validation and test, and which whole shards, are there twice.

    The names of training items lie in the shards, which are not read for this.
    """
    for split, found in names.items():
        if twice := [name for name, count in Counter(found).items() if count > 1]:
            log.warning("%s: %d names occur more than once in data.path, first %s", split, len(twice), twice[0])
    files: dict[str, str] = {}
    for shard in index.shards:
        if (first := files.setdefault(shard.sha256, shard.file)) != shard.file:
            log.warning("%s and %s hold the same %d items, which count twice", first, shard.file, shard.items)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _nothing(labels: np.ndarray, writers: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, np.int64)
