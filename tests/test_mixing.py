"""Epochs that hold other samples than each training sample once, and learning from a teacher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from hwr import bundle
from hwr.data.batches import BatchOrder, CharacterSet
from hwr.data.lines.batches import LineSet, WidthOrder
from hwr.data.mixing import Draw, JoinedLines, check_share, class_weights, joined_characters, rarity
from hwr.errors import HwrError
from hwr.systems.distillation import Distillation
from hwr.text import Charset


def lines(n: int, seed: int, height: int = 8) -> LineSet:
    rng = np.random.default_rng(seed)
    widths = rng.integers(5, 60, n)
    pixels = rng.integers(0, 256, int(widths.sum()) * height).astype(np.uint8)
    texts = ["".join(rng.choice(list("abc"), 3)) for _ in range(n)]
    part = LineSet(pixels, height, widths, texts, [f"{seed}-{i}" for i in range(n)], [None] * n)
    part.encode(Charset("abc"))
    return part


def test_an_epoch_has_its_share_of_other_samples() -> None:
    draw = Draw(60, others=1000, share=0.25, seed=3)
    assert len(draw) == 80
    for epoch in range(3):
        found = draw(epoch)
        assert sorted(found[:60]) == list(range(60))  # each of its own once
        assert len(set(found[60:])) == 20
        assert all(60 <= i < 1060 for i in found[60:])
        np.testing.assert_array_equal(found, Draw(60, others=1000, share=0.25, seed=3)(epoch))
    assert set(draw(0)[60:]) != set(draw(1)[60:])


def test_few_other_samples_come_again() -> None:
    counts = Counter(Draw(30, others=4, share=0.25)(0)[30:].tolist())
    assert sorted(counts.values()) == [2, 2, 3, 3]


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_shares_that_leave_no_room(share: float) -> None:
    with pytest.raises(HwrError, match=rf"replay={share}: a share of the epoch is needed"):
        check_share(share)


def test_balanced_classes_come_equally_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    draw = Draw(1000, class_weights(labels), seed=1)
    counts = torch.bincount(labels[torch.cat([torch.from_numpy(draw(epoch)) for epoch in range(10)])])
    assert ((counts - 10_000 / 3).abs() < 200).all()


def test_rare_characters_come_oftener() -> None:
    texts = ["aaaa"] * 99 + ["aaaz"]
    weights = rarity(texts)
    assert weights[-1] > 4 * weights[0]
    drawn = Counter(np.concatenate([Draw(100, weights)(epoch) for epoch in range(20)]).tolist())
    assert drawn[99] > 3 * 20


@pytest.mark.parametrize("world", [1, 2])
def test_batches_follow_the_draw(world: int) -> None:
    draw = Draw(50, others=100, share=0.5, seed=2)
    orders = [BatchOrder(len(draw), 10, True, 0, rank, world, draw) for rank in range(world)]
    for order in orders:
        order.set_epoch(4)
    assert sorted(i for order in orders for batch in order for i in batch) == sorted(draw(4))
    widths = np.random.default_rng(0).integers(10, 90, 150)
    widest = [WidthOrder(widths, 300, True, 0, rank, world, draw=draw) for rank in range(world)]
    for order in widest:
        order.set_epoch(4)
    batches = [batch for order in widest for batch in order]
    assert sorted(i for batch in batches for i in batch) == sorted(draw(4))
    assert max(len(batch) * widths[batch].max() for batch in batches) < 1.5 * 300


def test_joined_sets_give_the_samples_of_both() -> None:
    one, other = lines(5, 1), lines(7, 2)
    joined = JoinedLines(one, other)
    assert len(joined) == 12
    np.testing.assert_array_equal(joined.widths, [*one.widths, *other.widths])
    batch = joined[[3, 9, 5]]
    for row, (part, i) in enumerate([(one, 3), (other, 4), (other, 0)]):
        np.testing.assert_array_equal(batch.images[row, :, : part.widths[i]], part.image(i))
    assert batch.targets.tolist() == [*one.labels[3], *other.labels[4], *other.labels[0]]
    sets = [CharacterSet(torch.full((2, 4, 4), k, dtype=torch.uint8), torch.tensor([k, k]), ["x", "y"]) for k in (1, 2)]
    assert joined_characters(*sets)[[1, 2]].labels.tolist() == [1, 2]


def test_distillation_is_the_divergence_of_hinton() -> None:
    teacher = bundle.load("mnist")
    student = replace(teacher, classes=("x", *reversed(teacher.classes)), weights={})
    distillation = Distillation(teacher, student, weight=0.3, temperature=4.0)
    torch.manual_seed(0)
    (images,) = teacher.example(6)
    logits = torch.randn(6, 11, requires_grad=True)
    loss = distillation.characters(torch.tensor(2.0), logits, images)
    with torch.no_grad():
        said = teacher.build().eval()(images)
    expected = kl_div(
        (logits[:, 1:].flip(1) / 4).log_softmax(1), (said / 4).log_softmax(1), reduction="batchmean", log_target=True
    )
    assert loss.item() == pytest.approx(0.7 * 2 + 0.3 * 16 * expected.item(), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 0].any()  # nothing is said of a class that the teacher does not know


def test_lines_are_distilled_frame_by_frame() -> None:
    teacher = bundle.load("copiste")
    distillation = Distillation(teacher, replace(teacher, weights={}), weight=1.0, temperature=1.0)
    images, widths = torch.rand(2, 1, 64, 200), torch.tensor([200, 120])
    network = teacher.build().eval()
    with torch.no_grad():
        logits, frames, _ = network(images, widths)
    labels = torch.tensor(10)
    assert distillation.lines(torch.tensor(5.0), logits, images, widths, labels).item() == pytest.approx(0, abs=1e-5)
    beyond = logits.clone()
    beyond[1, int(frames[1]) :] += 3 * torch.randn_like(beyond[1, int(frames[1]) :])
    assert distillation.lines(torch.tensor(5.0), beyond, images, widths, labels).item() == pytest.approx(0, abs=1e-5)
    moved = logits.roll(1, 2)
    assert distillation.lines(torch.tensor(5.0), moved, images, widths, labels).item() > 1


def test_teachers_that_do_not_fit() -> None:
    digits, line = bundle.load("mnist"), bundle.load("copiste")
    with pytest.raises(HwrError, match=r"distill\.teacher reads lines, and this model reads characters"):
        Distillation(line, digits)
    other = replace(digits, preprocess=replace(digits.preprocess, size=32))
    with pytest.raises(HwrError, match=r"sees other images .*size 28, here 32"):
        Distillation(digits, other)
    with pytest.raises(HwrError, match="fewer than two classes in common"):
        Distillation(digits, replace(digits, classes=("a", "b", "c"), weights={}))
    with pytest.raises(HwrError, match=r"distill\.weight"):
        Distillation(digits, digits, weight=0)
