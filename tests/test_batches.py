"""Which samples are in a batch, over epochs, processes and splits."""

from __future__ import annotations

from functools import partial

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from hwr.data.batches import BatchOrder, CharacterSet
from hwr.data.digits import Digits
from hwr.data.splits import last, stratified
from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess

SIZES = [(3, 3), (4, 3), (5, 3), (7, 7), (10, 4), (100, 32), (1003, 64), (1003, 512)]  # samples, batch size


def order(n: int, size: int, train: bool, seed: int = 0, rank: int = 0, world: int = 1, epoch: int = 0) -> list:
    batches = BatchOrder(n, size, train, seed, rank, world)
    batches.set_epoch(epoch)
    found = [list(batch) for batch in batches]
    assert len(found) == len(batches)
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_evaluation_sees_each_sample_once_in_equally_many_batches(n, size, world):
    ranks = [order(n, size, False, rank=rank, world=world) for rank in range(world)]
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(n))
    assert len({len(batches) for batches in ranks}) == 1
    lengths = [len(batch) for batches in ranks for batch in batches]
    assert min(lengths) >= 1
    assert max(lengths) <= -(-size // world) + 1


def test_evaluation_batches_are_no_larger_than_asked_for_on_one_device():
    for n, size in SIZES:
        assert max(map(len, order(n, size, False))) <= size


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_training_batches_of_all_processes_are_those_of_one(n, size, world):
    alone = order(n, size, True, seed=5, epoch=2)
    ranks = [order(n, size, True, 5, rank, world, 2) for rank in range(world)]
    together = [sorted(i for part in parts for i in part) for parts in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in alone]
    assert all(len(batch) == min(size, n) for batch in alone)
    drawn = [i for batch in alone for i in batch]
    assert len(set(drawn)) == len(drawn) == n // size * size
    assert all(batch for batches in ranks for batch in batches)


def test_training_order_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): order(100, 10, True, seed, epoch=epoch) for seed in range(3) for epoch in range(3)}
    assert len({str(o) for o in orders.values()}) == 9
    for (seed, epoch), found in orders.items():
        assert order(100, 10, True, seed, epoch=epoch) == found
        assert [i for batch in found for i in batch] != list(range(100))
    resumed = BatchOrder(100, 10, True, seed=1)
    for epoch in range(3):
        resumed.set_epoch(epoch)
        assert list(resumed) == orders[1, epoch]


def test_every_sample_is_trained_on_sooner_or_later():
    seen = {i for epoch in range(20) for batch in order(13, 5, True, epoch=epoch) for i in batch}
    assert seen == set(range(13))


def test_a_batch_and_a_subset_hold_the_samples_at_their_positions():
    images = torch.arange(20, dtype=torch.uint8)[:, None, None].expand(20, 2, 2)
    writers = np.array([f"w{i}" for i in range(20)])
    full = CharacterSet(images, torch.arange(20) * 2, [f"n{i}" for i in range(20)], writers)
    batch = full[[7, 3]]
    assert batch.images[:, 0, 0].tolist() == [7, 3]
    assert batch.labels.tolist() == [14, 6]
    assert batch.ids.tolist() == [7, 3]
    part = full.subset(np.array([4, 9, 2]))
    assert part.images[:, 0, 0].tolist() == [4, 9, 2]
    assert part.labels.tolist() == [8, 18, 4]
    assert part.names == ["n4", "n9", "n2"]
    assert part.writers is not None
    assert part.writers.tolist() == ["w4", "w9", "w2"]
    assert part[[1]].ids.tolist() == [1]


class Recorder(lightning.LightningModule):
    """Writes down which samples came."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[int]]] = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(f"train {self.current_epoch}", []).append(batch.ids.tolist())
        self.levels = (float(batch.images.min()), float(batch.images.max()), batch.images.shape[1:])
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx):
        self.seen.setdefault(f"val {self.current_epoch}", []).append(batch.ids.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("overfit", [False, True])
def test_lightning_reads_these_batches_in_this_order(overfit):
    standard = CharacterPreprocess(mean=0.25, std=0.5)
    data = Digits(standard, partial(stratified, size=100), batch_size=64, eval_batch_size=40, seed=9)
    recorder = Recorder()
    limit = {"overfit_batches": 1} if overfit else {"limit_train_batches": 3}
    lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, **limit,
    ).fit(recorder, datamodule=data)  # fmt: skip
    n = len(data.sets["train"])
    for epoch in range(3):
        if overfit:  # the same batch in every epoch
            assert recorder.seen[f"train {epoch}"] == order(n, 64, True, 9)[:1]
        else:
            assert recorder.seen[f"train {epoch}"] == order(n, 64, True, 9, epoch=epoch)[:3]
            assert recorder.seen[f"val {epoch}"] == order(100, 40, False)
    assert recorder.levels == (-0.5, 1.5, (1, 28, 28))  # 0 and 255 standardised


def test_a_loader_for_fewer_samples_than_devices_says_so():
    data = Digits(CharacterPreprocess(), partial(stratified, size=100))
    data.sets = {"test": CharacterSet(torch.zeros(0, 28, 28), torch.zeros(0), [])}
    with pytest.raises(HwrError, match=r"cannot share 0 samples \(test\)"):
        data.test_dataloader()


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"eval_batch_size": -1}])
def test_batch_sizes_are_at_least_one(settings):
    with pytest.raises(HwrError, match=r"data\.batch_size and data\.eval_batch_size must be at least 1"):
        Digits(CharacterPreprocess(), partial(stratified, size=0.1), **settings)


@pytest.mark.parametrize("size", [0.1, 0.25, 0.5, 7, 100, 250])
@pytest.mark.parametrize("counts", [(100, 100, 100), (290, 7, 3), (1, 2, 297), (33, 67, 200)])
def test_stratified_keeps_the_shares(counts, size):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), counts))
    chosen = stratified(labels, size=size, seed=3)
    wanted = round(300 * size) if size < 1 else size
    took = np.bincount(labels[chosen], minlength=3)
    exact = np.array(counts) * wanted / 300
    lower = np.minimum(np.floor(exact), np.array(counts) - 1)  # every class keeps a training sample
    assert (took >= lower).all()
    assert (took <= np.ceil(exact)).all()
    assert (took < counts).all()
    assert wanted - (np.ceil(exact) >= counts).sum() <= len(chosen) <= wanted
    assert (np.diff(chosen) > 0).all()


def test_stratified_gives_spare_places_to_the_largest_remainders():
    labels = np.repeat(np.arange(3), (19, 17, 14))  # a tenth is 1.9, 1.7 and 1.4 of 5
    assert np.bincount(labels[stratified(labels, size=0.1)]).tolist() == [2, 2, 1]


@pytest.mark.parametrize("writers", [None, np.repeat(np.arange(30), 10)])
def test_the_draw_is_a_function_of_the_seed(writers):
    labels = np.arange(300) % 10
    draws = [stratified(labels, writers, size=0.2, seed=seed).tolist() for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({str(draw) for draw in draws}) == 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [0.01, 0.2, 0.5, 0.9, 0.98, 40])
def test_whole_writers_are_set_aside(size, seed):
    rng = np.random.default_rng(seed)
    writers = rng.permutation(np.repeat([f"w{i}" for i in range(20)], rng.integers(1, 30, 20)))
    labels = rng.integers(0, 5, len(writers))
    chosen = stratified(labels, writers, size=size, seed=seed)
    inside, outside = set(writers[chosen]), set(np.delete(writers, chosen))
    assert inside
    assert outside
    assert not inside & outside
    wanted = len(writers) * size if size < 1 else size
    assert abs(len(chosen) - wanted) <= 30  # no writer has more


@pytest.mark.parametrize(
    ("labels", "writers", "size", "says"),
    [
        (np.zeros(10), None, 10, "cannot set 10 aside from 10"),
        (np.zeros(10), None, 0.01, "cannot set 0.01 aside from 10"),
        (np.zeros(10), None, -1, "cannot set -1 aside"),
        (np.arange(10), None, 0.2, "every class has a single sample"),
        (np.zeros(10), np.zeros(10), 0.2, "all samples are by one writer"),
    ],
)
def test_sets_that_cannot_be_split(labels, writers, size, says):
    with pytest.raises(HwrError, match=says):
        stratified(labels, writers, size=size)


def test_last_takes_the_end_of_the_file():
    assert last(np.zeros(60), size=5).tolist() == [55, 56, 57, 58, 59]
    for size in (60, 0, 0.1):
        with pytest.raises(HwrError, match=f"cannot set the last {size} of 60"):
            last(np.zeros(60), size=size)
