"""Your own characters: every layout on disk that `data=folder` reads, and what it says of those it cannot."""

from __future__ import annotations

import csv
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr import parts
from hwr.config import compose
from hwr.data.folder import Folder
from hwr.data.splits import stratified
from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess

PREPROCESS = CharacterPreprocess()
E_ACUTE = "\u00e9"


def folder(path: Path, size: float = 0.2) -> Folder:
    data = Folder(str(path), preprocess=PREPROCESS, split=partial(stratified, size=size))
    data.setup()
    return data


def read(data: Folder) -> dict[str, list[tuple[str, str]]]:
    """(file name, class) of each sample of each split; every image is checked against its file on the way."""
    out = {}
    for name, part in data.sets.items():
        for image, file in zip(part.images.numpy(), part.names, strict=True):
            np.testing.assert_array_equal(image, PREPROCESS(np.asarray(Image.open(file))))
        labels = [data.classes[i] for i in part.labels]
        out[name] = list(zip([Path(file).name for file in part.names], labels, strict=True))
    return out


@pytest.fixture
def save(digits):
    """Saves a digit as dark ink on white paper: ``save(path, digit, which)``."""
    images, labels = digits

    def write(path: Path, digit: int, which: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - images[np.flatnonzero(labels == digit)[which]]).save(path)
        return path

    return write


@pytest.fixture
def by_class(tmp_path, save) -> Callable[..., Path]:
    """Makes one folder a class: ``by_class("train", 5, "0", "1")`` has five images each of 0 and 1."""

    def make(where: str = "", each: int = 10, *names: str, offset: int = 0) -> Path:
        for digit, name in enumerate(names or ("0", "1", "2")):
            for i in range(each):
                save(tmp_path / "set" / where / name / f"{where}{digit}-{i}.png", digit, offset + i)
        return tmp_path / "set"

    return make


@pytest.fixture
def table(tmp_path, save) -> Callable[..., Path]:
    """Makes a table with the images it names: rows of image, label and further columns."""

    def make(
        rows: Sequence[Sequence[str]],
        name: str = "labels.csv",
        header: Sequence[str] = ("image", "label"),
        delimiter: str = ",",
        encoding: str = "utf-8",
        lineterminator: str = "\n",
    ) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(exist_ok=True)
        for i, row in enumerate(rows):
            save(path.parent / row[0], i % 3, i // 3)
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=delimiter, lineterminator=lineterminator).writerows([header, *rows])
        return path

    return make


def rows_of(n: int, labels: Sequence[str] = ("a", "b", "c")) -> list[tuple[str, str]]:
    return [(f"images/{i}.png", labels[i % 3]) for i in range(n)]


def test_splits_that_are_not_read_are_told(by_class, table, caplog):
    by_class("train"), by_class("valid", offset=20)
    data = folder(by_class("test", offset=40))
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 24, "test": 30, "val": 6}
    assert "not read: valid; read are train, test" in caplog.text
    table(rows_of(30), "train.csv")
    table(rows_of(30), "train.tsv", delimiter="\t")
    with pytest.raises(HwrError, match=r"train\.csv and train\.tsv: two tables of one split; keep one"):
        folder(data.path)


def test_class_folders(by_class):
    data = folder(by_class())
    got = read(data)
    assert data.classes == ("0", "1", "2")
    # 30 images: a fifth is test, a fifth of the other 24 is validation
    assert {name: len(part) for name, part in got.items()} == {"train": 19, "test": 6, "val": 5}
    everything = [sample for part in got.values() for sample in part]
    assert sorted(everything) == sorted((f"{d}-{i}.png", str(d)) for d in range(3) for i in range(10))
    for part in got.values():
        assert {label for _, label in part} == {"0", "1", "2"}


def test_carved_splits_are_the_same_every_time(by_class):
    path = by_class()
    assert read(folder(path)) == read(folder(path))


@pytest.mark.parametrize("given", [("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_given_splits_are_kept(by_class, given):
    for offset, name in enumerate(given):
        path = by_class(name, 5, offset=5 * offset)
    got = read(folder(path))
    assert set(got) == {"train", "val", "test"}
    for name in given[1:]:
        assert sorted(got[name]) == sorted((f"{name}{d}-{i}.png", str(d)) for d in range(3) for i in range(5))
    for name in set(got) - set(given):
        assert all(file.startswith("train") for file, _ in got[name])
    assert sum(map(len, got.values())) == 15 * len(given)


def test_a_test_split_alone_can_judge_a_model_but_not_train_one(by_class):
    data = folder(path := by_class("test", 3, "b", "c"))
    assert {name: len(part) for name, part in data.sets.items()} == {"test": 6}
    assert not data.apart
    data.as_classes(("a", "b", "c"))
    assert data.sets["test"].labels.tolist() == [1] * 3 + [2] * 3
    with pytest.raises(HwrError, match="data: there is no training split, only test"):
        parts.datamodule(compose("train", ["experiment=folder_cnn", f"data.path={path}"]))


def test_classes_that_are_called_like_splits_are_classes(by_class):
    data = folder(by_class("", 10, "test", "val", "other"))
    assert data.classes == ("other", "test", "val")
    assert data.apart == {"test": 30, "val": 24}
    shutil.rmtree(data.path / "other")
    assert folder(data.path).classes == ("test", "val")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"name": "anything.csv"},
        {"name": "labels.tsv", "delimiter": "\t"},
        {"delimiter": ";"},
        {"encoding": "utf-8-sig"},
        {"lineterminator": "\r\n"},
        {"header": ("label", "image")},
        {"header": ("Label", " IMAGE")},
    ],
    ids=str,
)
def test_tables(table, form):
    labels = ("a", ",", '"')
    rows = rows_of(30, labels)
    path = table(rows, **form)
    if "header" in form:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([form["header"], *((label, image) for image, label in rows)])
    data = folder(path if "name" in form else path.parent)
    assert data.classes == tuple(sorted(labels))
    got = read(data)
    assert sorted(chain(*got.values())) == sorted((Path(image).name, label) for image, label in rows)
    assert {name: len(part) for name, part in got.items()} == {"train": 19, "test": 6, "val": 5}


def test_tables_by_split(table):
    for name in ("train", "val", "test"):
        path = table([(f"{name}{i}.png", "abc"[i % 3]) for i in range(6)], f"{name}.csv")
    got = read(folder(path.parent))
    assert got == {name: [(f"{name}{i}.png", "abc"[i % 3]) for i in range(6)] for name in ("train", "val", "test")}


def test_quoted_fields_may_hold_commas_and_line_breaks(table):
    rows = [
        (f"a,b \u2028{i}.png", "abc"[i % 3], note) for i, note in enumerate(["two\nlines", 'a "word"', "1,2\r\n3"] * 5)
    ]
    data = folder(table(rows, header=("image", "label", "note")))
    assert sorted(chain(*read(data).values())) == sorted(row[:2] for row in rows)


def test_an_open_quotation_mark_does_not_swallow_the_rest(table):
    path = table(rows_of(9))
    path.write_text(path.read_text().replace("images/3.png,a", 'images/3.png,"'))
    with pytest.raises(HwrError, match=r"labels\.csv, line \d+: .*quotation mark"):
        folder(path)


@pytest.mark.parametrize("split", ["carved", "given"])
def test_no_writer_is_in_two_splits(table, split):
    rows = [(f"{i}.png", "abc"[i % 3], f"writer {i // 9}") for i in range(90)]
    header = ("image", "label", "writer")
    path = table(rows[:81] if split == "given" else rows, "train.csv", header)
    if split == "given":
        table(rows[81:], "test.csv", header)
    data = folder(path.parent)
    writers = {name: set(part.writers) for name, part in data.sets.items()}
    assert sorted(chain(*writers.values())) == sorted(f"writer {i}" for i in range(10))  # each in one
    for part in data.sets.values():
        for file, writer in zip(part.names, part.writers, strict=True):
            assert writer == f"writer {int(Path(file).stem) // 9}"
    assert len(writers["test"]) == (1 if split == "given" else 2)


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_composed_and_decomposed_names_are_one_class(by_class, table, layout):
    decomposed = unicodedata.normalize("NFD", E_ACUTE)
    if layout == "folders":
        path = by_class("", 5, decomposed, "b", E_ACUTE)
    else:
        path = table(rows_of(15, (decomposed, "b", E_ACUTE)))
    data = folder(path)
    assert data.classes == ("b", E_ACUTE)
    assert sum(int((part.labels == 1).sum()) for part in data.sets.values()) == 10


def test_labels_of_another_model_are_matched_by_name(by_class):
    data = folder(by_class("", 5, "b", "c"))
    before = read(data)
    data.as_classes(["c", "x", "b"])
    assert read(data) == before
    assert set(data.sets["train"].labels.tolist()) == {0, 2}
    with pytest.raises(HwrError, match="1 labels outside the model's 2 classes: c"):
        folder(by_class("", 5, "b", "c")).as_classes(["a", "b"])


def test_blank_images_are_named_in_a_warning(by_class, caplog):
    path = by_class()
    Image.new("L", (28, 28), 255).save(path / "1" / "1-3.png")
    folder(path)
    assert "1-3.png" in caplog.text


def empty_class(path: Path) -> None:
    (path / "3").mkdir()


def one_class(path: Path) -> None:
    for name in ("1", "2"):
        for file in (path / name).iterdir():
            file.unlink()
        (path / name).rmdir()


def corrupt(path: Path) -> None:
    file = path / "1" / "1-3.png"
    file.write_bytes(file.read_bytes()[:100])


def unknown_in_test(path: Path) -> None:
    (path / "train").mkdir()
    for name in ("0", "1"):
        (path / name).rename(path / "train" / name)
    (path / "test").mkdir()
    (path / "2").rename(path / "test" / "2")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (empty_class, r"set/3: this class folder holds no images"),
        (one_class, "only the class '0'; at least two"),
        (corrupt, r"1-3\.png: .*mend or remove"),
        (lambda path: (path / "1" / "1-3.png").write_bytes(b""), r"1-3\.png: .*empty"),
        (lambda path: (path / "1" / "1-3.png").write_bytes(b"no image"), r"1-3\.png: not an image"),
        (unknown_in_test, r"test/2/2-0\.png: the label '2' is outside the 2 classes of the training part"),
        (lambda path: path.rename(path.parent / "gone"), r"data\.path=.*set: no such file or folder"),
    ],
)
def test_bad_folders_are_refused_in_one_line(by_class, damage, says):
    path = by_class()
    damage(path)
    with pytest.raises(HwrError, match=says) as info:
        folder(path)
    assert "\n" not in str(info.value)


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(HwrError, match="no class folders"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: the columns image and label are needed .* found: nothing"),
        (b"image,label\n", "a header but no rows"),
        (b"image,class\n0.png,a\n", "line 1: .* found: image, class"),
        (b"0.png,a\n1.png,b\n", "line 1: .* found: 0.png, a"),
        (b"image,label\n0.png,a\n1.png,\n", "line 3: the label is empty"),
        (b"image,label\n0.png,a\n1.png\n", "line 3: the label is empty"),
        (b"image,label\n,a\n", "line 2: the image is empty"),
        (b"image,label,writer\n0.png,a,w\n1.png,b,\n", "line 3: the writer is empty"),
        ("image,label\n0.png,\u00e9\n".encode("latin-1"), "not UTF-8 text .byte 18."),
        (b"image,label\n0.png,a\nnowhere.png,b\n", r"nowhere\.png: no such file"),
        (b"image,label\n0.png,a\n1.png,a\n", "only the class 'a'"),
    ],
)
def test_bad_tables_are_refused_in_one_line(table, content, says):
    path = table(rows_of(3))
    for i in range(2):
        (path.parent / "images" / f"{i}.png").rename(path.parent / f"{i}.png")
    path.write_bytes(content)
    with pytest.raises(HwrError, match=says) as info:
        folder(path)
    assert "\n" not in str(info.value)


def test_a_writer_in_two_given_splits_is_refused(table):
    header = ("image", "label", "writer")
    table([(f"a{i}.png", "abc"[i % 3], f"w{i % 2}") for i in range(6)], "train.csv", header)
    path = table([(f"b{i}.png", "abc"[i % 3], "w1") for i in range(6)], "test.csv", header)
    with pytest.raises(HwrError, match="the writer 'w1' is in train and in test"):
        folder(path.parent)
