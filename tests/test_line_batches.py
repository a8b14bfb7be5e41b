"""Batches of lines, their cache and their augmentation."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from line_fixtures import line_image, save, write_table

from hwr.data.lines.augment import LineAugment, _affine_grid, _highest, _upsampled
from hwr.data.lines.batches import LineSet, WidthOrder, collate
from hwr.data.lines.cache import prepare
from hwr.data.lines.items import Lines
from hwr.data.lines.tsv import read_table
from hwr.data.module import FixedBatches
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess
from hwr.text import Charset

RNG = np.random.default_rng(0)
WIDTHS = RNG.integers(30, 1500, 300)
PREPARE = LinePreprocess(height=16)


def line_set(widths: np.ndarray = WIDTHS[:20], height: int = 8) -> LineSet:
    pixels = np.random.default_rng(1).integers(0, 256, int(widths.sum()) * height).astype(np.uint8)
    texts = [f"a{i}é" for i in range(len(widths))]
    lines = LineSet(pixels, height, widths, texts, [f"n{i}" for i in range(len(widths))], [None] * len(widths))
    lines.encode(Charset.of(texts))
    return lines


# Sets and batches


def test_collate_pads_with_paper_on_the_right():
    images = [np.full((4, w), 9, np.uint8) for w in (3, 5, 1)]
    batch = collate(images, [np.array([1, 2]), np.array([], np.int64), np.array([3])], [7, 8, 9])
    assert batch.images.shape == (3, 4, 5)
    assert batch.images.dtype == torch.uint8
    assert batch.images.sum((1, 2)).tolist() == [9 * 4 * 3, 9 * 4 * 5, 9 * 4]
    assert not batch.images[0, :, 3:].any()
    assert batch.widths.tolist() == [3, 5, 1]
    assert batch.targets.tolist() == [1, 2, 3]
    assert batch.lengths.tolist() == [2, 0, 1]
    assert batch.ids.tolist() == [7, 8, 9]


def test_a_batch_holds_the_lines_asked_for():
    lines = line_set()
    ends = np.cumsum(lines.widths) * 8
    for position in (0, 7, 19):
        start = ends[position] - 8 * lines.widths[position]
        np.testing.assert_array_equal(lines.image(position).ravel(), lines.pixels[start : ends[position]])
    batch = lines[[7, 0]]
    for row, position in enumerate((7, 0)):
        width = int(batch.widths[row])
        np.testing.assert_array_equal(batch.images[row, :, :width].numpy(), lines.image(position))
    charset = Charset.of(lines.texts)
    spelt = [charset.decode(part.tolist()) for part in torch.split(batch.targets, batch.lengths.tolist())]
    assert spelt == ["a7é", "a0é"]


def test_subset_shares_the_pixels():
    lines = line_set()
    part = lines.subset(np.array([5, 2]))
    assert part.pixels is lines.pixels
    np.testing.assert_array_equal(part.image(0), lines.image(5))
    np.testing.assert_array_equal(part.subset(np.array([1])).image(0), lines.image(2))
    assert (part.texts, part.names) == (["a5é", "a2é"], ["n5", "n2"])
    assert part.labels[1].tolist() == lines.labels[2].tolist()
    assert len(lines.subset(np.zeros(0, np.int64))) == 0


def test_characters_outside_the_charset_stay_in_the_text():
    lines = line_set()
    lines.encode(Charset("a0"))
    assert lines.labels[0].tolist() == [1, 2]
    assert lines.texts[0] == "a0é"


def test_fixed_batches():
    lines = line_set()
    fixed = FixedBatches(lines, [[3, 4], [5]])
    assert len(fixed) == 2
    assert fixed[1].ids.tolist() == [5]
    assert torch.equal(fixed[0].images, lines[[3, 4]].images)


# Order


def batches(world: int = 1, epoch: int = 0, widths: np.ndarray = WIDTHS, **kwargs: object) -> list[list[list[int]]]:
    """For each rank its batches."""
    settings = {"columns": 4000, "shuffle": True, "seed": 3, **kwargs}
    orders = [WidthOrder(widths, rank=rank, world=world, **settings) for rank in range(world)]
    for order in orders:
        order.set_epoch(epoch)
    found = [[list(batch) for batch in order] for order in orders]
    assert [len(order) for order in orders] == [len(part) for part in found]
    return found


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [8, 9, 57, 300])
def test_every_line_once_over_all_processes(world, shuffle, count):
    found = batches(world, shuffle=shuffle, widths=WIDTHS[:count])
    assert sorted(i for rank in found for batch in rank for i in batch) == list(range(count))
    assert len({len(rank) for rank in found}) == 1  # as many for each, or they wait for one another for ever
    assert all(batch for rank in found for batch in rank)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("columns", [100, 1000, 4000, 50_000])
def test_no_batch_has_more_columns_than_allowed(shuffle, columns):
    for epoch in range(4):
        (found,) = batches(columns=columns, shuffle=shuffle, epoch=epoch)
        for batch in found:
            assert len(batch) == 1 or len(batch) * WIDTHS[batch].max() <= columns
    full = [len(batch) * WIDTHS[batch].max() for batch in found]
    if columns == 50_000:
        assert np.mean(full) > 0.6 * columns


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_the_columns_are_those_of_all_processes(world, shuffle):
    for epoch in range(4):
        for shares in zip(*batches(world, epoch, columns=6000, shuffle=shuffle), strict=True):
            whole = [i for share in shares for i in share]
            assert len(whole) <= world or len(whole) * WIDTHS[whole].max() <= 6000


def test_lines_of_a_batch_are_of_similar_width():
    (found,) = batches(columns=8000)
    padded = sum(len(batch) * WIDTHS[batch].max() for batch in found)
    assert padded < 1.15 * WIDTHS.sum()


def test_the_order_is_a_function_of_seed_and_epoch():
    assert batches() == batches()
    assert batches(epoch=5) == batches(epoch=5)
    assert batches(epoch=5) != batches(epoch=4)
    assert batches(seed=4) != batches(seed=3)
    first, second = ({frozenset(batch) for batch in batches(epoch=epoch)[0]} for epoch in (0, 1))
    assert len(first & second) < 0.2 * len(first)  # other batches, not only another order
    assert len(batches(epoch=0)[0]) == len(batches(epoch=1)[0])  # what the learning rate schedule counts on
    ranks, alone = batches(2), batches(1)[0]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in alone]


def test_evaluation_starts_with_the_widest():
    (found,) = batches(shuffle=False)
    widths = [WIDTHS[batch].max() for batch in found]
    assert widths == sorted(widths, reverse=True)
    assert batches(shuffle=False, epoch=3) == [found]


# Cache


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [[f"{i}.png", f"mot {i}"] for i in range(6)]
    path = write_table(tmp_path / "t.tsv", rows)
    (tmp_path / "4.png").write_bytes(b"no image")
    return path


def check(found: LineSet, path: Path) -> None:
    """The lines of the table, prepared."""
    assert found.texts == ["mot 0", "mot 1", "mot 2", "mot 3", "mot 5"]
    assert [line.name for line in found.lost] == ["4.png"]
    assert "not an image" in found.lost[0].reason
    assert found.lost[0].text == "mot 4"
    for i, number in enumerate([0, 1, 2, 3, 5]):
        np.testing.assert_array_equal(found.image(i), PREPARE(line_image(seed=number)))


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_the_second_start_reads_no_image(table, tmp_path):
    lines = read_table(table)
    check(prepare(lines, PREPARE, None, "train"), table)
    check(prepare(lines, PREPARE, tmp_path / "deep" / "cache", "train"), table)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    again = prepare(lines, PREPARE, tmp_path / "deep" / "cache", "train")
    check(again, table)
    assert isinstance(again.pixels, np.memmap)
    assert len(folders(tmp_path / "deep" / "cache")) == 1


def test_the_key_changes_with_image_text_and_preprocessing(table, tmp_path):
    cache = tmp_path / "cache"
    prepare(read_table(table), PREPARE, cache, "train")
    prepare(read_table(table), PREPARE, cache, "val")  # the name of the split says nothing
    assert len(folders(cache)) == 1
    prepare(read_table(table), replace(PREPARE, median=3), cache, "train")
    assert len(folders(cache)) == 2
    save(tmp_path / "3.png", line_image(width=70))
    assert prepare(read_table(table), PREPARE, cache, "train").widths[3] == 35
    assert len(folders(cache)) == 3
    table.write_text(table.read_text().replace("mot 2", "mot zwei"))
    assert prepare(read_table(table), PREPARE, cache, "train").texts[2] == "mot zwei"
    assert len(folders(cache)) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "pixels.bin").write_bytes((folder / "pixels.bin").read_bytes()[:-5]),
        lambda folder: (folder / "pixels.bin").write_bytes(b""),
        lambda folder: (folder / "pixels.bin").unlink(),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text('{"widths": [1, 2'),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_text('{"widths": [], "problems": {}}'),
        lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe\0"),
        lambda folder: (shutil.rmtree(folder), folder.write_text("a file")),
    ],
)
def test_a_damaged_cache_is_made_again(table, tmp_path, caplog, damage):
    cache = tmp_path / "cache"
    lines = read_table(table)
    prepare(lines, PREPARE, cache, "train")
    (name,) = folders(cache)
    damage(cache / name)
    check(prepare(lines, PREPARE, cache, "train"), table)
    assert f"{cache / name}: damaged prepared lines" in caplog.text
    caplog.clear()
    check(prepare(lines, PREPARE, cache, "train"), table)
    assert not caplog.records
    assert folders(cache) == [name]


def test_without_a_writable_cache_lines_are_kept_in_memory(table, tmp_path, caplog):
    lines = read_table(table)
    check(prepare(lines, PREPARE, table / "cache", "train"), table)  # a folder below a file
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "kept in memory" in record.message


def test_a_full_disk(table, tmp_path, caplog):
    lines = read_table(table)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # a write beyond fails, as on a full disk
    try:
        found = prepare(lines, PREPARE, tmp_path / "cache", "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(found, table)
    assert "kept in memory" in caplog.text
    assert folders(tmp_path / "cache") == []  # nothing half-written stays


def test_processes_that_prepare_the_same_at_once(table, tmp_path):
    lines = read_table(table)
    for attempt in range(5):
        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(prepare, lines, PREPARE, tmp_path / f"c{attempt}", "train") for _ in range(6)]
        for job in jobs:
            check(job.result(), table)
        assert len(folders(tmp_path / f"c{attempt}")) == 1


def test_a_split_without_a_readable_line(tmp_path):
    table = write_table(tmp_path / "t.tsv", [["1.png", "a"]])
    (tmp_path / "1.png").write_bytes(b"no image")
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        found = prepare(read_table(table), PREPARE, cache, "val")
        assert (len(found), len(found.lost)) == (0, 1)
    assert len(prepare(Lines(), PREPARE, tmp_path / "cache", "val")) == 0


def test_the_index_is_small_and_plain(table, tmp_path):
    prepare(read_table(table), PREPARE, tmp_path / "cache", "train")
    (name,) = folders(tmp_path / "cache")
    index = json.loads((tmp_path / "cache" / name / "index.json").read_text())
    assert index["widths"] == [60] * 5
    assert list(index["problems"]) == ["4"]


# Augmentation

STRONG = {
    "shear": 12,
    "rotation": 1,
    "narrow": 0.7,
    "tall": 1.2,
    "shift": 4,
    "jitter": 20,
    "elastic": 1.5,
    "stroke": 0.5,
    "contrast": 0.4,
    "brightness": 0.2,
    "noise": 0.1,
    "blur": 0.5,
    "masks": 8,
}


def written(widths: tuple[int, ...] = (200, 130, 60), height: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float (B, 1, H, W) with ink up to both ends of each line, and their widths."""
    images = torch.zeros(len(widths), 1, height, max(widths))
    for i, width in enumerate(widths):
        images[i, 0, height // 3 : 2 * height // 3, :width:6] = 0.9
        images[i, 0, height // 3 : 2 * height // 3, width - 1] = 0.9
        images[i, 0, height // 2, :width] = 0.7
    return images, torch.tensor(widths)


def test_off_is_the_identity():
    images, widths = written()
    found, found_widths = LineAugment()(images, widths)
    assert torch.equal(found, images)
    assert torch.equal(found_widths, widths)


@pytest.mark.parametrize("seed", range(5))
def test_everything_at_once_keeps_the_contract(seed):
    torch.manual_seed(seed)
    images, widths = written()
    before = images.clone()
    found, found_widths = LineAugment(**STRONG)(images, widths)
    assert torch.equal(images, before)
    assert found.shape == (3, 1, 32, 220)
    assert found.dtype == torch.float32
    assert found_widths.tolist() == [220, 150, 80]
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for image, width in zip(found, found_widths.tolist(), strict=True):
        assert not image[..., width:].any()
        assert image[..., :width].sum() > 0
    torch.manual_seed(seed)
    assert torch.equal(LineAugment(**STRONG)(images, widths)[0], found)
    assert not torch.equal(LineAugment(**STRONG)(images, widths)[0], found)


@pytest.mark.parametrize("option", STRONG)
def test_each_option_alone_changes_the_picture(option):
    torch.manual_seed(1)
    images, widths = written()
    found, found_widths = LineAugment(**{option: STRONG[option]})(images, widths)
    assert not torch.equal(found[..., :200], images)
    if option != "jitter":
        assert torch.equal(found_widths, widths)
        for image, width in zip(found, widths.tolist(), strict=True):
            assert not image[..., width:].any()


@pytest.mark.parametrize("seed", range(8))
def test_no_ink_is_cut_off_at_the_sides(seed):
    torch.manual_seed(seed)
    images, widths = written((200, 150))
    narrow, _ = LineAugment(narrow=0.6)(images, widths)
    shifted, shifted_widths = LineAugment(jitter=24)(images, widths)
    both, _ = LineAugment(narrow=0.6, jitter=24)(images, widths)
    ink = images.sum((1, 2, 3))
    assert torch.allclose(shifted.sum((1, 2, 3)), ink, rtol=0.03)
    for found in (narrow, both):
        assert bool((found.sum((1, 2, 3)) < 1.03 * ink).all())
        assert bool((found.sum((1, 2, 3)) > 0.58 * ink).all())
    for i, width in enumerate(shifted_widths.tolist()):
        columns = shifted[i, 0].sum(0).nonzero().flatten()
        span = int(columns[-1] - columns[0]) + 1
        assert abs(span - int(widths[i])) <= 2  # from the first stroke to the last, wherever it went
        assert columns[-1] < width
    last = narrow[0, 0, 12:20].amax(0).nonzero().flatten()[-1]  # where the last stroke went, between 0.6 and 1
    assert 0.58 * 199 < float(last) < 201


def test_two_views_lie_in_the_same_place():
    """What differs is ink alone, so that frame by frame both views show the same characters."""
    images, widths = written((200, 150))
    torch.manual_seed(3)
    geometry = {"shear": 10, "narrow": 0.7, "elastic": 1.5, "jitter": 20}
    found, found_widths = LineAugment(**geometry, views=2)(images, widths)
    assert found_widths.tolist() == [220, 170] * 2
    assert torch.equal(found[:2], found[2:])
    found, _ = LineAugment(masks=10, noise=0.1, views=2)(images, widths)
    assert not torch.equal(found[0], found[2])
    with pytest.raises(HwrError, match=r"augment\.views must be 1 or 2, not 3"):
        LineAugment(views=3)


def test_lines_are_changed_each_in_its_own_way():
    torch.manual_seed(0)
    images, widths = written((200, 200, 200))
    found, _ = LineAugment(shear=10)(images, widths)
    assert not torch.equal(found[0], found[1])
    found, _ = LineAugment(stroke=0.3)(torch.cat([images] * 20), torch.cat([widths] * 20))
    ink = found.sum((1, 2, 3))
    base = images[0].sum()
    thicker, thinner = (ink > 1.05 * base).float().mean(), (ink < 0.95 * base).float().mean()
    assert 0.15 < thicker < 0.45
    assert 0.15 < thinner < 0.45


def test_shift_and_shear_go_both_ways_by_as_much_as_they_may():
    torch.manual_seed(0)
    image = torch.zeros(400, 1, 32, 64)
    image[:, :, 16, 20:44] = 1
    widths = torch.full((400,), 64)
    rows = torch.arange(32.0).view(1, 1, 32, 1)
    shifted, _ = LineAugment(shift=5)(image, widths)
    moved = (shifted * rows).sum((1, 2, 3)) / shifted.sum((1, 2, 3)) - 16
    assert float(moved.min()) == pytest.approx(-5, abs=0.2)
    assert float(moved.max()) == pytest.approx(5, abs=0.2)
    assert abs(float(moved.mean())) < 0.5


@pytest.mark.parametrize("setting", [{"narrow": 1.2}, {"narrow": 0}, {"tall": 0.9}, {"jitter": -1}, {"jitter": 2.5}])
def test_augmentation_that_makes_no_sense(setting):
    (name,) = setting
    with pytest.raises(HwrError, match=rf"augment\.{name} must be"):
        LineAugment(**setting)


def test_the_grid_of_a_warp_is_torchs() -> None:
    theta, knots = torch.randn(3, 2, 3), torch.randn(3, 2, 4, 5)
    theirs = torch.nn.functional.affine_grid(theta, [3, 1, 5, 7], align_corners=False)
    torch.testing.assert_close(_affine_grid(theta, 5, 7).permute(0, 2, 3, 1), theirs)
    field = torch.nn.functional.interpolate(knots, (9, 13), mode="bilinear", align_corners=True)
    torch.testing.assert_close(_upsampled(knots, 9, 13), field)


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (6, 1)])
def test_strokes_grow_as_pooling_has_it(size: tuple[int, int]) -> None:
    images = torch.randn(3, 1, *size)
    assert torch.equal(_highest(images), torch.nn.functional.max_pool2d(images, 3, 1, 1))
