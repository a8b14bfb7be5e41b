"""The order in which training items are read from shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from hwr.data.order import Order

LANES = 4  # windows that one reader has open
AHEAD = LANES + 1  # shards that it may read ahead: windows end together, and each begins where another ended
SPREAD = 1.15  # how much wider the lines of one group may be, where there are enough of them
ENOUGH = 4  # batches of a group of shards


class Planned(list[int]):
    """The positions of a batch.

    Attributes:
        soon: Numbers of the shards that its reader opens next.
    """

    def __init__(self, positions: Iterable[int], soon: Sequence[int]) -> None:
        super().__init__(positions)
        self.soon = soon


class Group(NamedTuple):
    """Shards whose items may be in one batch.

    Attributes:
        shards: Their numbers, int (S,).
        batches: How many their items make in an epoch, over all processes.
    """

    shards: np.ndarray
    batches: int


class Window(NamedTuple):
    """Items that are shuffled together.

    Attributes:
        shards: Numbers of the shards that hold them, int (S,).
        taken: Which of the items of these shards they are.
        batches: How many they make.
        place: Of the window among all, from 0 to 1.
        seed: Of the order of its items.
    """

    shards: np.ndarray
    taken: slice
    batches: int
    place: float
    seed: int


class ShardOrder(Order):
    """Lists the positions of each training batch, for this process when there are several.

    Every item comes exactly once in an epoch over all processes, and all have equally many batches, none of them empty.
    The shards, in an order that is new in every epoch, are one long row of items, of which each process has an equal
    stretch. It cuts its stretch into windows of about a shard; the items of a window are shuffled, and the batches of a
    few windows come in turn. So a process reads few shards at a time, and each about once in an epoch. The worker
    processes of a loader get batches in turn, and each has windows of its own.

    The order is a function of seed, epoch and the number of processes and workers, and takes memory for shards, not for
    items.

    Args:
        positions: int (N_i,) of the items of each shard.
        counts: int (S,), N_i.
        widths: int (S,), of the widest line of each shard in pixels; all alike for characters.
        size: Most items of a batch over all processes, for items as wide as this.
        seed: Of the order.
        rank: Of this process.
        world: Number of processes; there are at least as many items.
        workers: Of the loader of each process; 0 means that it reads by itself.
    """

    def __init__(
        self,
        positions: Callable[[int], np.ndarray],
        counts: np.ndarray,
        widths: np.ndarray,
        size: Callable[[int], int],
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.positions, self.counts = positions, counts
        self.seed, self.rank, self.world, self.readers = seed, rank, world, max(1, workers)
        self.groups = [self._group(shards, widths, size) for shards in self._alike(widths, size)]

    def _alike(self, widths: np.ndarray, size: Callable[[int], int]) -> list[np.ndarray]:
        """The numbers of the shards of each group: of similar width, with items for some batches."""
        found: list[list[int]] = []
        items = 0
        for shard in np.argsort(widths, kind="stable").tolist():
            wider = found and widths[shard] > SPREAD * widths[found[-1][0]]
            if not found or (wider and items >= ENOUGH * self._most(size, widths[shard])):
                found.append([])
                items = 0
            found[-1].append(shard)
            items += int(self.counts[shard])
        if len(found) > 1 and items < self.world:
            found[-2:] = [found[-2] + found[-1]]
        return [np.array(shards) for shards in found]

    def _group(self, shards: np.ndarray, widths: np.ndarray, size: Callable[[int], int]) -> Group:
        items = int(self.counts[shards].sum())
        return Group(shards, min(-(-items // self._most(size, widths[shards].max())), items // self.world))

    def _most(self, size: Callable[[int], int], width: int) -> int:
        """Items of a batch of lines of this width: one for each process at least."""
        return max(self.world, size(int(width)))

    def __len__(self) -> int:
        return sum(group.batches for group in self.groups)

    def facts(self) -> dict[str, int]:
        """See :meth:`Order.facts`."""
        return {**super().facts(), "data.workers": self.readers}

    def batches(self) -> Iterator[Sequence[int]]:
        """See :meth:`Order.batches`."""
        rng = np.random.default_rng((self.seed, self.epoch))
        windows = sorted((w for group in self.groups for w in self._windows(group, rng)), key=lambda w: w.place)
        cuts = np.arange(self.readers + 1) * len(windows) // self.readers
        queues = [deque(windows[a:b]) for a, b in pairwise(cuts)]
        lanes = deque(self._lane(queues, i % self.readers) for i in range(LANES * self.readers))
        while lanes:
            lane = lanes.popleft()
            if (batch := next(lane, None)) is not None:
                yield batch
                lanes.append(lane)

    def _windows(self, group: Group, rng: np.random.Generator) -> Iterator[Window]:
        """Cuts this process's stretch of the items of a group; all processes have equally many windows and batches."""
        shards = rng.permutation(group.shards)
        ends = np.cumsum(self.counts[shards])
        low, high = (int(ends[-1]) * rank // self.world for rank in (self.rank, self.rank + 1))
        number = min(max(1, round(len(shards) / self.world)), group.batches)
        cuts = np.arange(number + 1) * group.batches // number  # batches before each window
        places = low + cuts * (high - low) // group.batches
        order = np.sort(rng.random(number)).tolist()  # neighbours share a shard, so they come one after the other
        for i in range(number):
            first, last = np.searchsorted(ends, (places[i], places[i + 1] - 1), side="right")
            skipped = int(places[i] - ends[first] + self.counts[shards[first]])
            taken = slice(skipped, skipped + int(places[i + 1] - places[i]))
            yield Window(
                shards[first : last + 1], taken, int(cuts[i + 1] - cuts[i]), order[i], int(rng.integers(2**62))
            )

    def _lane(self, queues: Sequence[deque[Window]], reader: int) -> Iterator[Sequence[int]]:
        """The batches of one window of a reader after the other; when it has none left, of those of others."""
        while queue := queues[reader] or max(queues, key=len):
            window = queue.popleft()
            items = np.concatenate([self.positions(int(shard)) for shard in window.shards])[window.taken]
            shuffled = np.random.default_rng(window.seed).permutation(items)
            for part in np.array_split(shuffled, window.batches):
                yield Planned(part.tolist(), _soon(queues[reader]))


def _soon(queue: deque[Window]) -> list[int]:
    """The shards of the windows that come next, without more than may be read ahead."""
    shards = dict.fromkeys(shard for window in islice(queue, LANES) for shard in window.shards.tolist())
    return list(shards)[:AHEAD]
