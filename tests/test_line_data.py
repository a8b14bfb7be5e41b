"""Line datamodules: splits, charset, feasibility, bad input of all kinds, every format."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from line_fixtures import (
    PageLine,
    alto,
    dgrl,
    gnt,
    iam_xml,
    line_image,
    page_image,
    page_xml,
    save,
    write_iam,
    write_table,
)
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from hwr import parts
from hwr.config import compose
from hwr.data.casia_characters import CASIACharacters
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.cache import prepare
from hwr.data.lines.datamodules import CASIA, IAM, TSV, Pages
from hwr.data.lines.items import LineImage, Lines, Stamp, check_disjoint
from hwr.data.lines.lost import frames_needed
from hwr.data.lines.pages import read_pages
from hwr.data.lines.tsv import read_table
from hwr.data.splits import last, stratified
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess
from hwr.networks.base import LineNetwork
from hwr.preprocess import CharacterPreprocess
from hwr.text import Charset, make_charset

PREPARE = LinePreprocess(height=32)
WORDS = ["un mot", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze"]


class Frames(LineNetwork):
    """A network of which only the number of frames counts: one for every 8 pixels begun."""

    stride = 8


def settings(size: float = 0.25, **more: Any) -> dict[str, Any]:
    return {"preprocess": PREPARE, "split": functools.partial(stratified, size=size), **more}


def tsv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("image", "text"), **more: Any) -> TSV:
    """Set up on one table."""
    data = TSV(str(write_table(path / "t.tsv", rows, header)), **settings(**more))
    data.setup()
    data.check_feasible(Frames())
    return data


def good(count: int = 8) -> list[list[str]]:
    return [[f"{i}.png", WORDS[i]] for i in range(count)]


def everything(data: LineDataModule) -> list[str]:
    """Names of all lines, in whatever split, and of the lost ones."""
    return sorted(name for part in data.sets.values() for name in [*part.names, *(line.name for line in part.lost)])


# Bad input: it is named, counted, and the rest trains


@pytest.mark.parametrize(
    ("row", "prepare_image", "reason"),
    [
        (["bad.png", ""], None, "the transcript is empty"),
        (["bad.png", " \u00a0 "], None, "the transcript is empty"),
        (["bad.png", "a" * 16], None, "120 px wide: 15 frames, but its 16 characters need 31"),
        (["bad.png", "abcdefghijklmnop"], None, "120 px wide: 15 frames, but its 16 characters need 16"),
        (["missing.png", "texte"], None, "no image"),
        (["bad.png", "un\tmot"], None, "3 fields where the header has 2: a tab"),
        (["bad.png", "un\x07mot"], None, "control characters: U+0007"),
        (["bad.png", "mot"], lambda p: save(p, np.full((32, 1), 90, np.uint8)), "1 px wide: 1 frames, but its 3"),
        (["bad.png", "mot"], lambda p: save(p, line_image(32, 20_000)), "20000 x 32 pixels: at height 32 20000"),
        (["bad.png", "mot"], lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
        (["bad.png", "mot"], lambda p: p.write_bytes(p.read_bytes()[:60]), "damaged or cut off"),
        (["bad.png", "mot"], lambda p: p.write_text("<html>"), "not an image in a known format"),
    ],
)
def test_a_bad_line_is_left_out_and_the_rest_trains(tmp_path, caplog, row, prepare_image, reason):
    write_table(tmp_path / "t.tsv", [*good(), row])
    if prepare_image:
        prepare_image(tmp_path / row[0])
    write_table(tmp_path / "val.tsv", [["v.png", "un"]])
    (tmp_path / "t.tsv").rename(tmp_path / "train.tsv")
    write_table(tmp_path / "test.tsv", [["w.png", "un"]])
    save(tmp_path / "v.png", line_image(seed=50))
    save(tmp_path / "w.png", line_image(seed=51))
    data = TSV(str(tmp_path), **settings())
    data.setup()
    data.check_feasible(Frames())
    (bad,) = data.sets["train"].lost
    assert bad.name == row[0]
    assert reason in bad.reason
    assert len(data.sets["train"]) == 8
    assert sorted(i for batch in data.loader("train") for i in batch.ids.tolist()) == list(range(8))
    (line,) = [r for r in caplog.records if "left out of training" in r.message]
    assert "train: lines left out of training: 1: " in line.message
    assert reason in line.message
    data.record(tmp_path / "splits.json")
    record = json.loads((tmp_path / "splits.json").read_text())
    assert record["sizes"] == {"train": 8, "val": 1, "test": 1}
    assert record["rejected"] == {"train": [str(bad)]}
    assert record["val"] == ["v.png"]


def test_the_log_names_three_and_counts_the_others(tmp_path, caplog):
    write_table(tmp_path / "train.tsv", [*good(6), *([f"missing{i}.png", "x"] for i in range(5))])
    for name in ("val", "test"):
        write_table(tmp_path / f"{name}.tsv", [[f"{name}.png", "un"]])
    data = TSV(str(tmp_path), **settings())
    data.setup()
    (line,) = [r.message for r in caplog.records if "left out" in r.message]
    assert "left out of training: 5:" in line
    assert [f"missing{i}.png" in line for i in range(5)] == [True] * 3 + [False] * 2
    assert "and 2 more" in line
    assert len(everything(data)) == 13


def test_a_split_that_is_set_apart_has_its_share_of_what_cannot_be_used(tmp_path):
    data = tsv(tmp_path, [*good(12), *([f"missing{i}.png", "perdu"] for i in range(12))])
    assert len(everything(data)) == 24
    lost = {name: [line.text for line in part.lost] for name, part in data.sets.items()}
    assert {name: len(texts) for name, texts in lost.items()} == {"train": 7, "val": 2, "test": 3}
    assert data.apart == {"test": 12, "val": 9}
    again = TSV(str(tmp_path / "t.tsv"), **settings())
    again.setup()
    assert all(again.sets[name].lost == part.lost for name, part in data.sets.items())


def test_a_number_of_lines_set_apart_takes_its_share_of_what_cannot_be_used(tmp_path):
    data = tsv(tmp_path, [*good(12), *([f"missing{i}.png", "perdu"] for i in range(6))], size=3)
    assert {name: (len(part), len(part.lost)) for name, part in data.sets.items()} == {
        "train": (6, 3), "val": (3, 1), "test": (3, 2),
    }  # fmt: skip


def test_lost_lines_stay_with_their_writers(tmp_path):
    header = ("image", "text", "writer")
    rows = [[image, text, f"w{i % 6}"] for i, (image, text) in enumerate(good(12))]
    missing = [[f"missing{i}.png", "perdu", f"w{i % 8}"] for i in range(32)]  # two writers have no other lines
    data = tsv(tmp_path, [*rows, *missing], header, size=0.2)
    found = {name: {*part.writers, *(line.writer for line in part.lost)} for name, part in data.sets.items()}
    assert sum(len(part.lost) for part in data.sets.values()) == 32
    assert sum(map(len, found.values())) == 8
    assert {"w6", "w7"} <= found["train"]


def test_a_test_split_alone_can_judge_a_model_but_not_train_one(tmp_path):
    write_table(tmp_path / "test.tsv", good())
    data = TSV(str(tmp_path), **settings())
    data.setup()
    data.as_classes("".join(sorted(set("".join(WORDS)))))
    data.check_feasible(Frames())
    assert {name: len(part) for name, part in data.sets.items()} == {"test": 8}
    assert next(iter(data.loader("test"))).targets.numel() == sum(map(len, WORDS[:8]))
    with pytest.raises(HwrError, match="data: there is no training split, only test"):
        parts.datamodule(compose("train", ["experiment=tsv_crnn", f"data.path={tmp_path}"]))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("text", ["un", "u" * 16])
def test_a_split_without_a_line_that_can_be_used_is_an_error_before_training(tmp_path, split, text):
    for name in ("train", "val", "test"):
        write_table(tmp_path / name / "x.tsv", good(2))
        rows = [[f"{name}/{i}.png", text if name == split else WORDS[i]] for i in range(2)]
        write_table(tmp_path / f"{name}.tsv", rows)
    if text == "un":
        for i in range(2):
            (tmp_path / split / f"{i}.png").write_bytes(b"no image")
    data = TSV(str(tmp_path), **settings())
    with pytest.raises(HwrError, match=f"^{split}: none of 2 lines can be used; the first: {split}/0.png"):
        data.setup() if text == "un" else (data.setup(), data.check_feasible(Frames()))


def test_evaluation_drops_nothing(tmp_path):
    write_table(tmp_path / "train.tsv", good())
    rows = [
        ["v0.png", "un"],
        ["missing.png", "deux"],
        ["v2.png", "a" * 16],
        ["v3.png", "six"],
        ["v4.png", ""],
    ]
    for name in ("val", "test"):
        write_table(tmp_path / name / "x.tsv", [])
        table = [[f"{name}/{image}", text] for image, text in rows]
        write_table(tmp_path / f"{name}.tsv", table)
        for i in (0, 2, 3):
            save(tmp_path / name / f"v{i}.png", line_image(seed=90 + i + 5 * (name == "val")))
        (tmp_path / name / "v3.png").write_bytes(b"x")
    data = TSV(str(tmp_path), **settings())
    data.setup()
    data.check_feasible(Frames())
    for name in ("val", "test"):
        part = data.sets[name]
        assert part.texts == ["un"]
        assert sorted(line.text for line in part.lost) == ["", "a" * 16, "deux", "six"]
        (batch,) = data.loader(name)
        assert batch.ids.tolist() == [0]


def test_when_no_line_can_be_used(tmp_path):
    with pytest.raises(HwrError, match="none of 2 lines can be used; the first: missing1"):
        tsv(tmp_path, [["missing1.png", "a"], ["missing2.png", "b"]])
    rows = good()
    write_table(tmp_path / "train.tsv", rows)
    for name in ("val", "test"):
        write_table(tmp_path / f"{name}.tsv", [[f"{name}.png", "un"]])
        save(tmp_path / f"{name}.png", line_image(seed=70 + len(name)))
    for image, _ in rows:
        (tmp_path / image).write_bytes(b"x")
    with pytest.raises(HwrError, match=r"none of 8 training lines can be used; the first: 0\.png: .*not an image"):
        TSV(str(tmp_path), **settings()).setup()
    for i in range(8):
        save(tmp_path / f"{i}.png", line_image(32, 8 + i))
    data = TSV(str(tmp_path), **settings())
    data.setup()
    with pytest.raises(HwrError, match=r"none of 8 training lines can be used; the first: 0\.png: 8 px wide"):
        data.check_feasible(Frames())


def test_nfc_and_nfd_are_one(tmp_path):
    texts = ["été", "été", "naïf", "Noël", "çà", "où", "île", "âge"]
    rows = [[f"{i}.png", unicodedata.normalize("NFD" if i % 2 else "NFC", t)] for i, t in enumerate(texts)]
    data = tsv(tmp_path, rows)
    found = [text for part in data.sets.values() for text in part.texts]
    assert sorted(found) == sorted(texts)
    assert "é" in data.classes
    assert not any(unicodedata.combining(c) for c in data.classes)


def test_right_to_left_stays_in_logical_order_and_is_told(tmp_path, caplog):
    data = tsv(tmp_path, [*good(6), ["6.png", "שלום"], ["7.png", "سلام"]], size=1)
    texts = [text for part in data.sets.values() for text in part.texts]
    assert {"שלום", "سلام"} <= set(texts)
    train = data.sets["train"]
    for label, text in zip(train.labels, train.texts, strict=True):
        assert "".join(data.classes[i - 1] for i in label) == text
    count = sum(text in ("שלום", "سلام") for text in train.texts)
    assert f"{count} training lines are written from right to left" in caplog.text


def test_frames_needed():
    for text in ("a", "ab", "aab", "111", "abba", ""):
        labels = [ord(c) for c in text]
        with_blanks = sum(1 for _ in labels) + sum(a == b for a, b in itertools.pairwise(labels))
        assert frames_needed(labels) == with_blanks
    # As the loss itself sees it: finite exactly from there on.
    labels = torch.tensor([[1, 1, 2, 2, 2]])
    for frames in range(5, 11):
        loss = torch.nn.functional.ctc_loss(
            torch.zeros(frames, 1, 3).log_softmax(2), labels, torch.tensor([frames]), torch.tensor([5])
        )
        assert bool(loss.isfinite()) == (frames >= frames_needed(labels[0].numpy()))


# Charset


def test_the_charset_is_that_of_training(tmp_path, caplog):
    write_table(tmp_path / "train.tsv", [["1.png", "abba"], ["2.png", "cab"]])
    for name, text in (("val", "axb"), ("test", "aé")):
        write_table(tmp_path / f"{name}.tsv", [[f"{name}.png", text]])
        save(tmp_path / f"{name}.png", line_image(seed=5 + len(name)))
    data = TSV(str(tmp_path), **settings())
    data.setup()
    assert data.classes == ("a", "b", "c")
    assert data.sets["val"].labels[0].tolist() == [1, 2]
    assert data.sets["val"].texts == ["axb"]  # what it is judged against
    data.warn_of_unknown()
    assert "val: the charset lacks x (U+0078) x 1, which count as errors" in caplog.text
    assert "test: the charset lacks é (U+00E9) x 1" in caplog.text
    data.as_classes("cba")
    assert data.sets["train"].labels[1].tolist() == [1, 3, 2]
    assert data.classes == ("c", "b", "a")


def test_characters_outside_a_named_charset(tmp_path):
    rows = [*good(6), ["6.png", "prix 5 €"], ["7.png", "ça"]]
    (tmp_path / "chars.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz "), encoding="utf-8")
    charset = functools.partial(make_charset, file=str(tmp_path / "chars.txt"))
    for name in ("val", "test"):
        write_table(tmp_path / f"{name}.tsv", [[f"{name}.png", "un"]])
        save(tmp_path / f"{name}.png", line_image(seed=50 + len(name)))
    write_table(tmp_path / "train.tsv", rows)
    with pytest.raises(
        HwrError, match=r"lacks 5 \(U\+0035\) x 1, € \(U\+20AC\) x 1, ç \(U\+00E7\) x 1 .*6\.png.*=skip"
    ):
        TSV(str(tmp_path), **settings(charset=charset)).setup()
    data = TSV(str(tmp_path), **settings(charset=charset, unknown="skip"))
    data.setup()
    assert len(data.classes) == 27
    assert [line.name for line in data.sets["train"].lost] == ["6.png", "7.png"]
    assert "ç (U+00E7)" in data.sets["train"].lost[1].reason
    with pytest.raises(HwrError, match=r"charset\.unknown must be error or skip, not 'drop'"):
        TSV(str(tmp_path), **settings(unknown="drop"))
    with pytest.raises(HwrError, match=r"none of 8 training lines can be used"):
        TSV(str(tmp_path), **settings(charset=lambda _: Charset("Z"), unknown="skip")).setup()


# Splits


def writers_of(data: LineDataModule) -> dict[str, set[str | None]]:
    return {name: set(part.writers) for name, part in data.sets.items()}


@pytest.mark.parametrize("seed", range(4))
def test_no_writer_on_both_sides(tmp_path, seed):
    rows = [[f"{i}.png", "mot", f"w{i % 6}"] for i in range(24)]
    write_table(tmp_path / "t.tsv", rows, ("image", "text", "writer"))
    data = TSV(str(tmp_path / "t.tsv"), preprocess=PREPARE, split=functools.partial(stratified, size=0.2, seed=seed))
    data.setup()
    hands = writers_of(data)
    assert not hands["train"] & hands["val"]
    assert not hands["train"] & hands["test"]
    assert not hands["val"] & hands["test"]
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 16, "val": 4, "test": 4}
    assert len(everything(data)) == 24


class Given(LineDataModule):
    """A datamodule of given lines."""

    def __init__(self, lines: Lines, **more: Any) -> None:
        super().__init__(**settings(**more))
        self.lines = lines

    def read(self) -> dict[str, Lines]:
        return {"train": self.lines}


def lines_of(folder: Path, rows: Sequence[tuple[str | None, str | None]], images: int | None = None) -> Lines:
    """Lines of writers and texts; with ``images`` only so many different ones."""
    lines = Lines()
    found = [LineImage(Stamp.of(save(folder / f"{i}.png", line_image(seed=i)))) for i in range(images or len(rows))]
    for i, (writer, text) in enumerate(rows):
        lines.add(f"n{i}", "mot", found[i % len(found)], writer, text)
    return lines


def homes(data: LineDataModule) -> dict[str, str]:
    return {name: split for split, part in data.sets.items() for name in part.names}


@pytest.mark.parametrize("seed", range(4))
def test_without_writers_a_text_stays_whole(tmp_path, seed):
    data = Given(lines_of(tmp_path, [(None, f"page{i % 5}") for i in range(20)]))
    data.split = functools.partial(stratified, size=0.2, seed=seed)
    data.setup()
    where = homes(data)
    assert all(len({where[f"n{i}"] for i in range(page, 20, 5)}) == 1 for page in range(5))
    assert set(where.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(4))
def test_where_some_writers_are_unknown_texts_tie_lines_too(tmp_path, seed):
    rows = [("A", "p1"), (None, "p1"), ("A", "p2"), (None, "p2"), ("B", "p3"), (None, None), ("C", "p4"), (None, "p5")]
    data = Given(lines_of(tmp_path, rows * 2))
    data.split = functools.partial(stratified, size=0.25, seed=seed)
    data.setup()
    where = homes(data)
    tied = [i for i, (writer, text) in enumerate(rows * 2) if writer == "A" or text in ("p1", "p2")]
    assert len({where[f"n{i}"] for i in tied}) == 1
    for key in ("B", "C"):
        assert len({where[f"n{i}"] for i, (writer, _) in enumerate(rows * 2) if writer == key}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_same_image_is_never_on_both_sides(tmp_path, seed):
    data = Given(lines_of(tmp_path, [(None, None)] * 24, images=8))
    data.split = functools.partial(stratified, size=0.2, seed=seed)
    data.setup()
    where = homes(data)
    assert all(len({where[f"n{i}"] for i in range(image, 24, 8)}) == 1 for image in range(8))


def test_one_or_two_writers_are_told(tmp_path, caplog):
    data = Given(lines_of(tmp_path, [("A", f"p{i % 4}") for i in range(12)]))
    data.setup()
    assert "test: too few writers to set some apart" in caplog.text
    assert "val: too few writers" in caplog.text
    where = homes(data)
    assert all(len({where[f"n{i}"] for i in range(page, 12, 4)}) == 1 for page in range(4))  # then by text
    caplog.clear()
    Given(lines_of(tmp_path, [(f"{i % 3}", "p") for i in range(12)])).setup()
    assert not caplog.records


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_lines_to_split(tmp_path, count):
    with pytest.raises(HwrError, match=rf"test cannot be set apart from {count} lines: .*; or bring a test split"):
        tsv(tmp_path, good(count), size=0.1)
    if count == 2:
        with pytest.raises(HwrError, match="val cannot be set apart from 1 lines"):
            tsv(tmp_path, good(2), size=1)


def test_three_lines_can_be_one_each(tmp_path):
    data = tsv(tmp_path, good(3), size=1)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 1, "val": 1, "test": 1}
    assert len(list(data.loader("train"))) == 1


def test_the_last_lines(tmp_path):
    data = tsv(tmp_path, good(8))
    data = TSV(data.path, preprocess=PREPARE, split=functools.partial(last, size=2))
    data.setup()
    assert data.sets["test"].names == ["6.png", "7.png"]
    assert data.sets["val"].names == ["4.png", "5.png"]


@pytest.mark.parametrize(
    ("column", "train", "test", "message"),
    [
        ("writer", ["1.png", "un", "A"], ["2.png", "deux", "A"], "the writer 'A' is in train .* and in test"),
        ("writer", ["1.png", "un", "A"], ["1.png", "un", "B"], r"the image of 1\.png is in train .* and in test"),
    ],
)
def test_a_writer_or_an_image_in_two_splits(tmp_path, column, train, test, message):
    for name, row in (("train", train), ("test", test)):
        write_table(tmp_path / f"{name}.tsv", [row], ("image", "text", column))
    save(tmp_path / "1.png")
    with pytest.raises(HwrError, match=message):
        TSV(str(tmp_path), **settings()).setup()


# Loaders


def test_overfitting_repeats_the_same_batches(tmp_path):
    data = tsv(tmp_path, good(12), columns=250, size=1)
    data.trainer = Trainer(overfit_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    loader = data.loader("train")
    first, again = ([batch.ids.tolist() for batch in loader] for _ in range(2))
    assert first == again
    assert sorted(i for batch in first for i in batch) == list(range(10))


def test_more_devices_than_lines(tmp_path):
    data = tsv(tmp_path, good(8), size=1)
    data.trainer = Trainer(devices=2, strategy="ddp", accelerator="cpu", logger=False, enable_checkpointing=False)
    assert data.trainer.world_size == 2
    batches = list(data.loader("train"))
    assert all(len(batch.ids) for batch in batches)
    assert sum(len(batch.ids) for batch in batches) == 3  # of six
    with pytest.raises(HwrError, match=r"2 devices cannot share 1 lines \(val\); use fewer devices"):
        data.loader("val")


def test_wrong_settings(tmp_path):
    with pytest.raises(HwrError, match=r"data\.columns and data\.eval_columns must be at least 1"):
        TSV(str(tmp_path), **settings(columns=0))


def test_preparation_happens_once(tmp_path):
    data = tsv(tmp_path, good(8), cache=str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 3
    parts = dict(data.sets)
    data.setup("test")
    assert data.sets == parts
    for image in tmp_path.glob("*.png"):
        image.write_bytes(b"x" * image.stat().st_size)  # of another time: another key
    with pytest.raises(HwrError, match="not an image"):
        TSV(data.path, **settings(cache=str(tmp_path / "cache"))).setup()


def test_lines_that_could_not_be_read_are_tried_again(tmp_path, caplog):
    """As on a drive that was away, or files that may be read now: the cache keeps no such reason for good."""
    data = tmp_path / "data"
    write_table(data / "train.tsv", good())
    first = read_table(data / "train.tsv")
    (data / "0.png").rename(tmp_path / "away.png")
    before = prepare(first, LinePreprocess(), tmp_path / "cache", "train")
    assert (len(before), len(before.lost)) == (7, 1)
    assert len(prepare(first, LinePreprocess(), tmp_path / "cache", "train")) == 7
    (tmp_path / "away.png").rename(data / "0.png")
    with caplog.at_level("WARNING"):
        after = prepare(first, LinePreprocess(), tmp_path / "cache", "train")
    assert (len(after), after.lost) == (8, [])
    assert "lines that could not be read can be now" in caplog.text
    caplog.clear()
    assert len(prepare(first, LinePreprocess(), tmp_path / "cache", "train")) == 8
    assert not caplog.text


def test_the_example_is_a_typical_batch(tmp_path):
    data = tsv(tmp_path, good(8), columns=700)
    images, widths = data.example()
    assert images.shape == (5, 1, 32, 120)
    assert widths.tolist() == [120] * 5


# Formats


def pages(folder: Path, kind: str, count: int = 4) -> Path:
    """Pages of two lines, two pages a writer."""
    for i in range(count):
        boxes = [
            PageLine(f"mot {i}"),
            PageLine("deux", "20,80 180,80 180,110 20,110", "20,102 180,102", (20, 80, 161, 31)),
        ]
        write = {"alto": alto, "page": page_xml}[kind]
        xml = write(boxes, image=f"w{i // 2}_{i}.png")
        (folder / f"w{i // 2}_{i}.xml").write_text(xml)
        save(folder / f"w{i // 2}_{i}.png", page_image(seed=i))
    return folder


@pytest.mark.parametrize("straighten", [False, True])
@pytest.mark.parametrize("kind", ["alto", "page"])
def test_pages(tmp_path, kind, straighten):
    pages(tmp_path, kind, 8)
    data = Pages(str(tmp_path), straighten, r"^(w\d+)_", **settings())
    data.setup()
    data.check_feasible(Frames())
    assert sum(len(part) for part in data.sets.values()) == 16
    hands = writers_of(data)
    assert set.union(*hands.values()) == {"w0", "w1", "w2", "w3"}
    assert len(hands["train"] & hands["test"]) == len(hands["train"] & hands["val"]) == 0
    if not straighten:
        part = data.sets["train"]
        number = int(part.names[0].split("_")[1][0])
        crop = page_image(seed=number)[30:61, 20:181]
        np.testing.assert_array_equal(part.image(0), PREPARE(crop))


def test_pages_with_something_wrong(tmp_path):
    pages(tmp_path, "page", 6)
    xml = page_xml(
        [
            PageLine("sans", None, None, None),
            PageLine("dehors", "900,900 990,900 990,950 900,950"),
            PageLine("bon"),
        ],
        image="w9_9.png",
    )
    (tmp_path / "w9_9.xml").write_text(xml)
    save(tmp_path / "w9_9.png", page_image(seed=9))
    (tmp_path / "w9_8.xml").write_text(page_xml([PageLine("perdu")], image="elsewhere.png"))
    (tmp_path / "w9_7.xml").write_text(page_xml([PageLine("perdu")])[:400])
    data = Pages(str(tmp_path), **settings())
    data.setup()
    reasons = {line.name: line.reason for part in data.sets.values() for line in part.lost}
    assert reasons.keys() == {"w9_9.xml#l0", "w9_9.xml#l1", "w9_8.xml#l0", "w9_7.xml"}
    assert "no coordinates" in reasons["w9_9.xml#l0"]
    assert "(900, 900) to (990, 950) is outside the page of 200 x 300" in reasons["w9_9.xml#l1"]
    assert "it names elsewhere.png" in reasons["w9_8.xml#l0"]
    assert sum(len(part) for part in data.sets.values()) == 13


def test_one_page_described_by_two_files_is_in_one_split(tmp_path, caplog):
    for kind in ("alto", "page"):
        (tmp_path / kind).mkdir()
        pages(tmp_path / kind, kind, 6)
        for image in (tmp_path / kind).glob("*.png"):
            image.replace(tmp_path / image.name)
    (tmp_path / "page" / "w0_0.hwr.xml").write_bytes((tmp_path / "page" / "w0_0.xml").read_bytes())
    data = Pages(str(tmp_path), **settings())
    data.setup()
    home = {name: {Path(line.partition("#")[0]).stem for line in part.names} for name, part in data.sets.items()}
    assert {name: len(found) for name, found in home.items()} == {"train": 4, "val": 1, "test": 1}
    assert not home["train"] & (home["val"] | home["test"])
    assert not any(".hwr" in name for part in data.sets.values() for name in part.names)
    assert (
        "6 pages have several XML files, whose lines all count, such as alto/w0_0.xml and page/w0_0.xml" in caplog.text
    )
    for name, kind in {"train": "alto", "test": "page"}.items():
        (tmp_path / kind).rename(tmp_path / name)
    with pytest.raises(HwrError, match=r"the image of w0_0.xml#\w+ is in train"):
        check_disjoint({name: read_pages(tmp_path / name) for name in ("train", "test")}, ("image",))


def test_the_same_page_in_two_splits(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        pages(tmp_path / name, "alto", 1)
    with pytest.raises(HwrError, match="the text 'w0_0' is in train"):
        Pages(str(tmp_path), **settings()).setup()


def iam(root: Path) -> Path:
    """Five lines of four forms by four writers."""
    write_iam(root / "IAM")
    lists = root / "IAM" / "splits"
    lists.mkdir()
    for name, forms in {"tr": "a01-000u\nc03-003a\n", "va": "a01-000x\n", "te": "b02-013\n"}.items():
        (lists / f"{name}.lst").write_text(forms)
    return root


def test_iam(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = iam(tmp_path)
    data = IAM(str(root), lists=str(root / "IAM" / "splits"), **settings())
    data.setup()
    assert data.sets["train"].names == ["a01-000u-00", "a01-000u-01", "c03-003a-04"]
    assert data.sets["val"].texts == ["A MOVE to stop Mr. Gaitskell from"]
    assert data.sets["test"].writers == ["021"]
    assert "Aachen (tr, va, te)" in caplog.text
    ok = IAM(str(root), lists=str(root / "IAM" / "splits"), segmentation="ok", **settings())
    ok.setup()
    assert ok.sets["train"].names == ["a01-000u-00", "c03-003a-04"]
    apart = IAM(str(root), **settings())
    apart.setup()
    hands = writers_of(apart)
    assert sum(len(part) for part in apart.sets.values()) == 5
    assert not hands["train"] & (hands["val"] | hands["test"])
    with pytest.raises(HwrError, match="no complete set of id lists"):
        IAM(str(root), lists=str(root), **settings()).setup()
    with pytest.raises(HwrError, match=r"data\.level must be lines or words"):
        IAM(str(root), level="pages", **settings())
    with pytest.raises(HwrError, match=r"data\.segmentation must be all or ok"):
        IAM(str(root), segmentation="err", **settings())


def test_iam_words(tmp_path):
    root = tmp_path / "IAM"
    (root / "xml").mkdir(parents=True)
    for seed, (form, writer) in enumerate({"a01-001": "000", "a01-002": "001", "a01-003": "002"}.items()):
        (root / "xml" / f"{form}.xml").write_text(iam_xml(form, writer, {f"{form}-00": "two words"}))
        for i in range(2):
            image = line_image(seed=2 * seed + i)
            save(root / "words" / "a01" / form / f"{form}-00-{i:02}.png", image)
    data = IAM(str(tmp_path), level="words", **settings())
    data.setup()
    assert sorted(text for part in data.sets.values() for text in part.texts) == ["two"] * 3 + ["words"] * 3
    assert {len(part) for part in data.sets.values()} == {2}


def codes(text: str) -> list[bytes]:
    return [c.encode("gb18030") for c in text]


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_casia_lines(tmp_path):
    for i in range(5):
        content = dgrl(
            [(codes("我们人"), line_image(30, 200, 2 * i)), (codes("第三行"), line_image(30, 220, 2 * i + 1))]
        )
        folder = "HWDB2.0Test" if i == 4 else "HWDB2.0Train"
        put(tmp_path / "HWDB2" / folder / f"{i:03}-P16.dgrl", content[:-9] if i == 0 else content)
    data = CASIA(str(tmp_path), **settings())
    data.setup()
    data.check_feasible(Frames())
    (bad,) = data.sets["train"].lost
    assert bad.name == "HWDB2.0Train/000-P16.dgrl#1"
    assert "the file breaks off" in bad.reason
    assert bad.text == "第三行"
    hands = writers_of(data)
    assert hands["test"] == {"004"}
    assert not hands["train"] & hands["val"]
    assert sum(len(part) for part in data.sets.values()) == 9
    assert data.classes == tuple(sorted("我们人第三行"))
    with pytest.raises(HwrError, match=r"HWDB2: no such folder; unpack .* data\.root or HWR_DATA_DIR"):
        CASIA(str(tmp_path / "nowhere"), **settings()).setup()


CHARACTERS = CharacterPreprocess(size=16, fit=14)


def characters(root: Path, writers: int = 6) -> None:
    """Each writer writes five characters; the last writer tests."""
    for i in range(writers):
        folder = "HWDB1.1tst_gnt" if i == writers - 1 else "HWDB1.1trn_gnt"
        records = [(c, line_image(30, 24, 10 * i + j)) for j, c in enumerate(codes("啊阿3A。"))]
        put(root / "HWDB1" / folder / f"{1000 + i}-c.gnt", gnt(records))


def of_characters(root: Path, size: float = 0.2) -> CASIACharacters:
    data = CASIACharacters(str(root), preprocess=CHARACTERS, split=functools.partial(stratified, size=size))
    data.setup()
    return data


def test_casia_characters(tmp_path):
    characters(tmp_path)
    data = of_characters(tmp_path)
    assert data.classes == tuple(sorted("啊阿3A。"))
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 20, "val": 5, "test": 5}
    test = data.sets["test"]
    assert test.names[1] == "HWDB1/HWDB1.1tst_gnt/1005-c.gnt#1".removeprefix("HWDB1/")
    assert [data.classes[i] for i in test.labels.tolist()] == list("啊阿3A。")
    for j in range(5):
        np.testing.assert_array_equal(test.images[j].numpy(), CHARACTERS(line_image(30, 24, 50 + j)))
    train, val = (set(data.sets[name].writers.tolist()) for name in ("train", "val"))
    assert not train & val
    assert len(train | val) == 5


def test_casia_characters_of_many_writers_in_one_file(tmp_path):
    """As HWDB1.0 comes, unpacked into a folder or not."""
    for name, offset in (("1.0train-gb1", 0), ("1.0test-gb1", 50)):
        records = [(c, line_image(30, 24, offset + i)) for i, c in enumerate(codes("啊阿3A。") * 8)]
        put(tmp_path / "HWDB1" / f"{name}.gnt", gnt(records))
    data = of_characters(tmp_path)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 32, "val": 8, "test": 40}
    assert all(part.writers is None for part in data.sets.values())


def test_casia_characters_without_a_test_part(tmp_path):
    characters(tmp_path)
    (tmp_path / "HWDB1" / "HWDB1.1tst_gnt").rename(tmp_path / "aside")
    data = of_characters(tmp_path, 5)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 15, "val": 5, "test": 5}
    assert len({w for part in data.sets.values() for w in set(part.writers.tolist())}) == 5


def test_casia_characters_with_something_wrong(tmp_path, caplog):
    characters(tmp_path)
    train, test = (tmp_path / "HWDB1" / f"HWDB1.1{name}_gnt" for name in ("trn", "tst"))
    whole = (train / "1000-c.gnt").read_bytes()
    put(train / "1000-c.gnt", whole[:-7])
    put(train / "1009-c.gnt", gnt([(b"\xff\xff", line_image(30, 24)), (codes("啊")[0], line_image(30, 24))]))
    put(train / "1010-c.gnt", b"nonsense of a file")
    data = of_characters(tmp_path)
    assert sum(len(part) for part in data.sets.values()) == 30
    (line,) = [r.message for r in caplog.records if "left out" in r.message]
    assert "train: 3 records of 7 files left out: HWDB1.1trn_gnt/1000-c.gnt#4: " in line
    assert "the file breaks off" in line
    assert "ff ff" in line
    put(test / "1005-c.gnt", gnt([(codes("齄")[0], line_image(30, 24))]))
    with pytest.raises(HwrError, match=r"test has 齄 \(U\+9F44\), which the training part lacks"):
        of_characters(tmp_path)
    put(test / "1001-c.gnt", gnt([(codes("啊")[0], line_image(30, 24))]))
    with pytest.raises(HwrError, match="the writer '1001' is in train and in test"):
        of_characters(tmp_path)
    for file in train.iterdir():
        file.unlink()
    with pytest.raises(HwrError, match=r"HWDB1.1trn_gnt: no \.gnt file in it"):
        of_characters(tmp_path)
    train.rmdir()
    with pytest.raises(HwrError, match="no folder with train or trn in its name"):
        of_characters(tmp_path)


def test_a_file_names_the_charset():
    cfg = compose("train", ["experiment=casia_crnn", "charset=file", "charset.file=chars.txt"])
    assert cfg.charset.file == "chars.txt"
    assert cfg.charset.blocks is None
    with pytest.raises(MissingMandatoryValue, match=r"charset\.file"):
        _ = compose("train", ["experiment=casia_crnn", "charset=file"]).charset.file


@pytest.mark.parametrize("name", ["pages", "iam", "casia"])
def test_line_experiments_differ_in_their_data_alone(name):
    base, other = (
        OmegaConf.to_container(compose("train", [f"experiment={e}_crnn"]), resolve=False) for e in ("tsv", name)
    )
    assert isinstance(base, dict)
    assert isinstance(other, dict)
    assert {key for key in base if base[key] != other[key]} == {"name", "data"}


@pytest.mark.slow
def test_two_processes_read_every_line_once(hwr, tmp_path):
    for name, count in (("train", 12), ("val", 3), ("test", 5)):
        write_table(tmp_path / "own" / name / "x.tsv", [])
        rows = [[f"{name}/{i}.png", WORDS[i % 12]] for i in range(count)]
        for i in range(count):
            save(tmp_path / "own" / name / f"{i}.png", line_image(width=60 + 20 * i, seed=len(name) + 40 * i))
        write_table(tmp_path / "own" / f"{name}.tsv", [*rows, [f"{name}/missing.png", "perdu"]])
    quick = ["trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.gallery=null"]
    own = ["experiment=tsv_crnn", "data.path=own", "data.columns=600", "data.eval_columns=300"]
    done = hwr("train", *own, *quick, "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/lines"] == 6
    assert metrics["test/lost"] == 1
    assert metrics["test/characters"] == len("".join(WORDS[:5])) + len("perdu")
