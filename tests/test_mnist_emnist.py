"""MNIST and EMNIST from genuine IDX files: what comes out, and what is said of files that are missing or wrong."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from conftest import write_idx
from PIL import Image

from hwr.config import compose
from hwr.data.base import CharacterDataModule
from hwr.errors import HwrError

DIGITS, UPPER, LOWER = string.digits, string.ascii_uppercase, string.ascii_lowercase
MERGED = DIGITS + UPPER + "abdefghnqrt"  # the paper's 15 folded letters are c i j k l m o p s u v w x y z
CLASSES = {
    "balanced": MERGED,
    "bymerge": MERGED,
    "byclass": DIGITS + UPPER + LOWER,
    "letters": LOWER,
    "digits": DIGITS,
    "mnist": DIGITS,
}


def make(name: str, root: Path, *overrides: str, download: bool = False) -> CharacterDataModule:
    cfg = compose(overrides=[f"data={name}", f"data.root={root}", f"data.download={download}", *overrides])
    return hydra.utils.instantiate(cfg.data, _convert_="all")


def mnist(root: Path, *overrides: str, download: bool = False) -> CharacterDataModule:
    data = make("mnist", root, "data.split.size=40", *overrides, download=download)
    data.setup()
    return data


def positions(data: CharacterDataModule, split: str, part: str) -> list[int]:
    """Where the samples of a split are in the file of a part, from their names."""
    names = data.sets[split].names
    assert all(name.startswith(f"{part} ") for name in names)
    return [int(name.split()[1]) for name in names]


def test_mnist_keeps_the_official_test_part_and_carves_validation_from_train(mnist_root, digits):
    data = mnist(mnist_root)
    images, labels = digits
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 360, "test": 100, "val": 40}
    assert data.classes == tuple(DIGITS)
    train, val = positions(data, "train", "train"), positions(data, "val", "train")
    assert sorted(train + val) == list(range(400))
    for split, where in (("train", train), ("val", val), ("test", 400 + np.array(positions(data, "test", "test")))):
        np.testing.assert_array_equal(data.sets[split].images, images[where])
        np.testing.assert_array_equal(data.sets[split].labels, labels[where])
    shares = np.bincount(labels[val], minlength=10) - np.bincount(labels[:400], minlength=10) * 40 / 400
    assert np.abs(shares).max() < 1


def test_mnist_split_is_a_function_of_its_seed_and_recorded(mnist_root, tmp_path):
    recorded = []
    for i, seed in enumerate((0, 0, 1)):
        data = mnist(mnist_root, f"data.split.seed={seed}")
        data.record(tmp_path / f"{i}.json")
        recorded.append(json.loads((tmp_path / f"{i}.json").read_text()))
        assert recorded[-1]["val"] == data.sets["val"].names
    assert recorded[0] == recorded[1]
    assert recorded[0]["sizes"] == {"train": 360, "test": 100, "val": 40}
    assert recorded[0]["val"] != recorded[2]["val"]
    assert recorded[0]["test"] == recorded[2]["test"] == [f"test {i}" for i in range(100)]


@pytest.mark.parametrize("size", [14, 32])
def test_mnist_resizes(mnist_root, digits, size):
    data = mnist(mnist_root, f"++data.preprocess.size={size}", "++data.preprocess.fit=10")
    for got, source in zip(data.sets["test"].images.numpy()[:20], digits[0][400:], strict=False):
        want = np.asarray(Image.fromarray(source).resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(got.astype(int), want.astype(int), atol=1)


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[:length])


def swap(one: str, other: str) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        (raw / one).rename(raw / "x")
        (raw / other).rename(raw / one)
        (raw / "x").rename(raw / other)

    return damage


def rewrite(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda raw: write_idx(raw / name, array)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut("train-images-idx3-ubyte", 9000), "damaged or cut short"),
        (cut("t10k-images-idx3-ubyte", 10), "damaged or cut short"),
        (cut("t10k-labels-idx1-ubyte", 0), "damaged or cut short"),
        (cut("train-labels-idx1-ubyte", 300), "damaged or cut short"),
        (swap("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"), r"\(400, 28, 28\) images and 100 labels"),
        (swap("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), "damaged or cut short"),
        (rewrite("t10k-labels-idx1-ubyte", np.zeros(99)), r"\(100, 28, 28\) images and 99 labels"),
        (rewrite("train-images-idx3-ubyte", np.zeros((400, 27, 28))), r"\(400, 27, 28\) images"),
        (rewrite("train-labels-idx1-ubyte", np.arange(400) % 11), "train: 36 labels outside the 10 classes, first 10"),
        (rewrite("t10k-labels-idx1-ubyte", np.full(100, 255)), "test: 100 labels outside the 10 classes, first 255"),
    ],
)
def test_damaged_mnist_is_refused_in_one_line(mnist_root, damage, says):
    damage(mnist_root / "MNIST" / "raw")
    with pytest.raises(HwrError, match=says) as info:
        mnist(mnist_root)
    assert "\n" not in str(info.value)
    if "outside" not in says:
        assert str(mnist_root / "MNIST" / "raw") in str(info.value)


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize(
    ("name", "missing", "source"),
    [
        ("mnist", "t10k-labels-idx1-ubyte", "yann.lecun.com"),
        ("emnist", "emnist-balanced-train-images-idx3-ubyte", "nist.gov"),
    ],
)
def test_missing_files_without_network(name, missing, source, download, mnist_root, monkeypatch):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there: no network
    monkeypatch.delenv("no_proxy", raising=False)
    (mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(HwrError) as info:
        make(name, mnist_root, download=download).setup()
    text = str(info.value)
    assert "\n" not in text
    raw = mnist_root / name.upper() / "raw"
    for part in (missing, source, str(raw), "no network" if download else "data.download=true"):
        assert part in text
    assert (mnist_root / name.upper()).exists() == (name == "mnist")  # no empty folders are left


def test_split_larger_than_the_set_names_the_key(mnist_root):
    with pytest.raises(HwrError, match=r"cannot set 5000 aside from 400 samples; give data\.split\.size"):
        make("mnist", mnist_root).setup()


def write_emnist(root: Path, subset: str, images: np.ndarray, labels: np.ndarray, part: str) -> None:
    """Upright images and labels from 0, written as EMNIST is: transposed, and letters from 1."""
    stem = root / "EMNIST" / "raw" / f"emnist-{subset}-{part}"
    write_idx(Path(f"{stem}-images-idx3-ubyte"), images.transpose(0, 2, 1))
    write_idx(Path(f"{stem}-labels-idx1-ubyte"), labels + (subset == "letters"))


@pytest.mark.parametrize("subset", CLASSES)
def test_emnist_comes_out_upright_with_its_class_names(tmp_path, digits, subset):
    n = len(CLASSES[subset])
    golden = np.zeros((28, 28), np.uint8)
    golden[4:24, 6:9] = golden[21:24, 6:18] = 255  # an L
    train, test = digits[0][: 3 * n], digits[0][-n:]
    labels = np.arange(3 * n) % n
    train[1], test[1] = golden, golden
    write_emnist(tmp_path, subset, train, labels, "train")
    write_emnist(tmp_path, subset, test, labels[:n][::-1], "test")
    data = make("emnist", tmp_path, f"data.subset={subset}", "data.split.size=0.34")
    data.setup()
    assert data.classes == tuple(CLASSES[subset])
    assert len(data.classes) == {"byclass": 62, "letters": 26, "digits": 10, "mnist": 10}.get(subset, 47)
    np.testing.assert_array_equal(data.sets["test"].images[1], golden)
    np.testing.assert_array_equal(data.sets["test"].images, test)
    np.testing.assert_array_equal(data.sets["test"].labels, labels[:n][::-1])
    for split in ("train", "val"):
        where = positions(data, split, "train")
        np.testing.assert_array_equal(data.sets[split].images, train[where])
        np.testing.assert_array_equal(data.sets[split].labels, labels[where])


def test_emnist_resizes_after_turning_upright(tmp_path, digits):
    images, labels = digits[0][:100], digits[1][:100]
    for part in ("train", "test"):
        write_emnist(tmp_path, "digits", images, labels, part)
    data = make("emnist", tmp_path, "data.subset=digits", "data.preprocess.size=32")
    data.setup()
    want = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in images])
    np.testing.assert_allclose(data.sets["test"].images.int(), want.astype(int), atol=1)
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert batch.images.shape == (100, 1, 32, 32)
    assert batch.images.dtype == torch.float32


def test_letters_labelled_from_zero_are_refused(tmp_path, digits):
    labels = np.arange(52) % 26
    for part in ("train", "test"):
        write_emnist(tmp_path, "letters", digits[0][:52], labels, part)
    write_idx(tmp_path / "EMNIST" / "raw" / "emnist-letters-train-labels-idx1-ubyte", labels)
    with pytest.raises(HwrError, match="train-labels-idx1-ubyte: a label 0, but letters start at 1"):
        make("emnist", tmp_path, "data.subset=letters").setup()


def test_unknown_subset_names_the_six(tmp_path):
    with pytest.raises(hydra.errors.InstantiationException) as info:
        make("emnist", tmp_path, "data.subset=letter")
    assert isinstance(info.value.__cause__, HwrError)
    assert all(subset in str(info.value.__cause__) for subset in CLASSES)
