"""Training items that stay in their shards until a batch needs them, and splits that are read whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hwr.data.batches import Batch, CharacterSet
from hwr.data.lines.batches import LineBatch, LineSet, collate
from hwr.data.lines.items import Rejected
from hwr.data.lines.lost import infeasible
from hwr.data.shards.format import Block, Index, Shard, read_shard
from hwr.data.shards.order import AHEAD, LANES
from hwr.errors import HwrError
from hwr.networks.base import LineNetwork
from hwr.text import Charset

HELD = 2 * LANES + 1 + AHEAD  # shards in memory: a window of each lane may begin in one and end in the next
MEND = "run the hwr.pack command that wrote it again, or copy it again"


class Stream:
    """Items of shards by position; the shards read last stay in memory, and a few are read before they are needed.

    Args:
        index: Where the shards are.
        shards: Which of them.

    Attributes:
        ends: int (S,), the position after the last item of each shard.
        widths: int (S,), of the widest line of each shard; 0 for characters.
        gone: Sorted positions that are left out.
    """

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        self.index, self.shards = index, shards
        self.ends = np.cumsum([shard.items for shard in shards])
        self.widths = np.array([shard.width for shard in shards])
        self.gone = np.zeros(0, np.int64)
        self._held: OrderedDict[int, Future[Block]] = OrderedDict()
        self._thread: Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A worker process reads for itself."""
        return {**self.__dict__, "_held": OrderedDict(), "_thread": None}

    def __len__(self) -> int:
        return int(self.ends[-1]) - len(self.gone)

    def positions(self, shard: int) -> np.ndarray:
        """Positions int (N,) of the items of a shard that are not left out."""
        every = np.arange(self.ends[shard] - self.shards[shard].items, self.ends[shard])
        return every if not len(self.gone) else np.setdiff1d(every, self.gone, assume_unique=True)

    def counts(self) -> np.ndarray:
        """Items int (S,) of each shard that are not left out."""
        left_out = np.bincount(np.searchsorted(self.ends, self.gone, side="right"), minlength=len(self.shards))
        return np.array([shard.items for shard in self.shards]) - left_out

    def block(self, shard: int) -> Block:
        """The items of a shard, read and checked if need be."""
        found = self._held.pop(shard, None)
        if found is None or not (found.done() or self._reading()):  # a thread does not live on in a process that forks
            found = Future()
            self._read({shard: found})
        try:
            block = found.result()
        except HwrError as error:
            raise HwrError(f"{error}; {MEND}, or train without it: data.bad_shards=skip") from None
        self._hold({shard: found})
        return block

    def expect(self, shards: Sequence[int]) -> None:
        """Begins to read shards in a thread, which ends when it is done, or with the process; only one at a time.

        What cannot be read is told when it is needed.
        """
        self._hold({shard: self._held[shard] for shard in shards if shard in self._held})
        new: dict[int, Future[Block]] = {shard: Future() for shard in shards if shard not in self._held}
        if new and not self._reading():
            self._hold(new)
            self._thread = Thread(target=self._read, args=(new,), name="reads ahead", daemon=True)
            self._thread.start()

    def _reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _read(self, wanted: Mapping[int, Future[Block]]) -> None:
        for shard, future in wanted.items():
            try:
                future.set_result(read_shard(self.shards[shard]))
            except BaseException as error:  # whatever it is, it is raised where the shard is needed
                future.set_exception(error)

    def _hold(self, blocks: Mapping[int, Future[Block]]) -> None:
        """Keeps these longest."""
        for shard, block in blocks.items():
            self._held[shard] = block
            self._held.move_to_end(shard)
        while len(self._held) > HELD:
            self._held.popitem(last=False)

    def find(self, positions: Sequence[int]) -> Iterator[tuple[np.ndarray, Block, np.ndarray]]:
        """For each shard that holds some: which of the positions these are, its block, and where they are in it.

        The shards that come next are read meanwhile.
        """
        self.expect(getattr(positions, "soon", ()))
        wanted = np.asarray(positions)
        numbers = np.searchsorted(self.ends, wanted, side="right")
        for number in np.unique(numbers).tolist():
            which = np.flatnonzero(numbers == number)
            yield which, self.block(number), wanted[which] - self.ends[number] + self.shards[number].items


class CharacterStream(Stream, Dataset[Batch]):
    """Training characters; indexed by a list of positions, it gives a batch.

    Args:
        index: Where the shards are.
        shards: Which of them.

    Attributes:
        number: int64 (C,), the number of each class of the shards.
    """

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        super().__init__(index, shards)
        self.number = torch.arange(len(index.about["classes"]))

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        size = self.index.about["preprocess"]["size"]
        images = np.empty((len(positions), size, size), np.uint8)
        labels = np.empty(len(positions), np.int64)
        for which, block, inside in self.find(positions):
            images[which], labels[which] = block.arrays["images"][inside], block.arrays["labels"][inside]
        return Batch(torch.from_numpy(images), self.number[torch.from_numpy(labels)], torch.tensor(positions))


class LineStream(Stream, Dataset[LineBatch]):
    """Training lines; indexed by a list of positions, it gives a batch.

    Args:
        index: Where the shards are.
        shards: Which of them.

    Attributes:
        lost: Lines that cannot be learnt from.
    """

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        super().__init__(index, shards)
        self.lost = lost_lines(index, "train")
        self.charset: Charset | None = None

    @property
    def texts(self) -> list[str]:
        """All transcripts; every shard is read for them."""
        found = zip(range(len(self.shards)), self.ends, self.shards, strict=True)
        return [
            self.block(i).facts["texts"][position - end + shard.items]
            for i, end, shard in found
            for position in self.positions(i)
        ]

    def encode(self, charset: Charset) -> None:
        """Numbers characters like this charset."""
        self.charset = charset

    def leave_out(self, shard: int, network: LineNetwork) -> list[Rejected]:
        """Trains without the lines of a shard that have fewer frames than CTC needs, and lists them."""
        block, start = self.block(shard), self.ends[shard] - self.shards[shard].items
        names, texts, writers = (block.facts[name] for name in ("names", "texts", "writers"))
        short = infeasible(network, block.arrays["widths"], [[ord(c) for c in text] for text in texts])
        lost = [Rejected(names[i], why, texts[i], writers[i]) for i, why in short.items()]
        self.gone = np.union1d(self.gone, [start + i for i in short]).astype(np.int64)
        self.lost = [*self.lost, *lost]
        return lost

    def __getitem__(self, positions: Sequence[int]) -> LineBatch:
        assert self.charset is not None
        images: dict[int, np.ndarray] = {}
        labels: dict[int, np.ndarray] = {}
        for which, block, inside in self.find(positions):
            starts, height = line_starts(block), self.index.about["preprocess"]["height"]
            for place, i in zip(which.tolist(), inside.tolist(), strict=True):
                images[place] = block.arrays["pixels"][starts[i] * height : starts[i + 1] * height].reshape(height, -1)
                labels[place] = np.array(self.charset.encode(block.facts["texts"][i], skip_unknown=True), np.int64)
        row = range(len(positions))
        return collate([images[i] for i in row], [labels[i] for i in row], positions)


def line_starts(block: Block) -> np.ndarray:
    """The first column of each line of a block, and the column after the last: int64 (N + 1,)."""
    return np.concatenate([[0], np.cumsum(block.arrays["widths"])])


def lost_lines(index: Index, split: str) -> list[Rejected]:
    """The lines of a split that could not be read when it was packed."""
    return [Rejected(*values) for values in index.about["lost"][split]]


def whole_characters(index: Index, split: str) -> CharacterSet:
    """A split in memory.

    Raises:
        HwrError: If a shard is not as it was written: an evaluation drops nothing.
    """
    blocks = _blocks(index, split)
    images, labels = (torch.from_numpy(np.concatenate([b.arrays[n] for b in blocks])) for n in ("images", "labels"))
    writers = None if blocks[0].facts["writers"] is None else np.array(_joined(blocks, "writers"))
    return CharacterSet(images, labels, _joined(blocks, "names"), writers)


def whole_lines(index: Index, split: str) -> LineSet:
    """A split in memory; see :func:`whole_characters`."""
    blocks = _blocks(index, split)
    pixels, widths = (np.concatenate([np.zeros(0, t), *(b.arrays[n] for b in blocks)]) for n, t in _LINE_ARRAYS.items())
    texts, names, writers = (_joined(blocks, name) for name in ("texts", "names", "writers"))
    height = index.about["preprocess"]["height"]
    return LineSet(pixels, height, widths, texts, names, writers, lost_lines(index, split))


_LINE_ARRAYS = {"pixels": np.uint8, "widths": np.int64}


def _blocks(index: Index, split: str) -> list[Block]:
    try:
        return [read_shard(shard) for shard in index.of(split)]
    except HwrError as error:
        raise HwrError(f"{error}; {MEND} (data.bad_shards=skip is for training; an evaluation drops nothing)") from None


def _joined(blocks: Sequence[Block], name: str) -> list[str]:
    return [value for block in blocks for value in block.facts[name]]
