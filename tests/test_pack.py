"""Writing data sets as shards: what lies in them, going on after a kill, mending, what is refused."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from line_fixtures import line_image, save

from hwr.config import compose
from hwr.data.base import CharacterDataModule
from hwr.data.lines.datamodules import TSV
from hwr.data.shards.format import INDEX, read_index, read_shard
from hwr.data.shards.writer import pack
from hwr.errors import HwrError
from hwr.parts import datamodule

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "shard_mb=0.05"  # 63 digits


@pytest.fixture(scope="module")
def digits_data() -> CharacterDataModule:
    return datamodule(compose())


def lines_data(folder: Path) -> TSV:
    """Lines of many widths, by several hands; one of validation cannot be read."""
    for split, n in {"train": 60, "val": 8, "test": 8}.items():
        rows = []
        for i in range(n):
            name = f"{split}{i}.png"
            save(folder / name, line_image(width=80 + 11 * i, seed=i))
            rows.append(f"{name}\tligne «{i}» de {split}\t{split}-w{i % 3}\n")
        (folder / f"{split}.tsv").write_text("image\ttext\twriter\n" + "".join(rows), encoding="utf-8")
    (folder / "val3.png").write_bytes(b"not an image")
    overrides = ["experiment=tsv_crnn", f"data.path={folder}", "data.preprocess.height=32", "data.cache=null"]
    return datamodule(compose(overrides=overrides))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_characters_in_shards_are_those_of_the_data_set(
    digits_data: CharacterDataModule, call: Run, tmp_path: Path
) -> None:
    done = call("pack", f"out={tmp_path / 'shards'}", SMALL)
    assert done.returncode == 0, done.stderr
    assert "data=shards" in done.stdout
    index = read_index(str(tmp_path / "shards"), "characters")
    assert index.classes == list("0123456789")
    assert index.about["counts"] == digits_data.class_counts().tolist()
    for split, part in digits_data.sets.items():
        blocks = [read_shard(shard) for shard in index.of(split)]
        names = [name for block in blocks for name in block.facts["names"]]
        images, labels = (np.concatenate([block.arrays[key] for block in blocks]) for key in ("images", "labels"))
        place = [names.index(name) for name in part.names]
        assert sorted(place) == list(range(len(part)))
        assert torch.equal(torch.from_numpy(images)[place], part.images)
        assert torch.equal(torch.from_numpy(labels)[place], part.labels)
    assert len(index.of("train")) == 21


def test_any_webdataset_reader_reads_them(digits_data: CharacterDataModule, tmp_path: Path) -> None:
    pack(digits_data, tmp_path, 0.05)
    urls = [str(tmp_path / shard.file) for shard in read_index(str(tmp_path), "characters").of("val")]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert np.array_equal(np.concatenate([s["images.npy"] for s in samples]), digits_data.sets["val"].images.numpy())
    assert [name for s in samples for name in s["json"]["names"]] == list(digits_data.sets["val"].names)


def test_lines_in_shards_are_those_of_the_data_set(tmp_path: Path) -> None:
    data = lines_data(tmp_path / "lines")
    pack(data, tmp_path / "shards", 0.1)
    index = read_index(str(tmp_path / "shards"), "lines")
    assert index.classes == list(data.classes)
    (lost,) = index.about["lost"]["val"]
    assert lost[2:] == ["ligne «3» de val", "val-w0"]
    for split, part in data.sets.items():
        found = {}
        for shard in index.of(split):
            block = read_shard(shard)
            widths, pixels = block.arrays["widths"], block.arrays["pixels"]
            assert shard.width == widths.max()
            starts = np.cumsum(32 * widths) - 32 * widths
            for i, name in enumerate(block.facts["names"]):
                image = pixels[starts[i] : starts[i] + 32 * widths[i]].reshape(32, -1)
                found[name] = (block.facts["texts"][i], block.facts["writers"][i], image)
        assert len(found) == len(part)
        for i, name in enumerate(part.names):
            text, writer, image = found[name]
            assert (text, writer) == (part.texts[i], part.writers[i])
            assert np.array_equal(image, part.image(i))
    spans = [read_shard(shard).arrays["widths"] for shard in index.of("train")]
    assert len(spans) > 5
    assert np.mean([span.max() / span.min() for span in spans]) < 1.5  # lines of a shard are about as wide


def test_a_killed_pack_goes_on_and_ends_as_an_unbroken_one(
    digits_data: CharacterDataModule, call: Run, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    line = ["-m", "hwr.pack", f"out={out}", "shard_mb=0.05"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, *line], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 200
    while not (out / "train-000003.tar").exists() and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / INDEX).exists()
    with pytest.raises(HwrError, match="broken off: run the same"):
        read_index(str(out), "characters")
    journal = out / f"{INDEX}.part"
    journal.write_text(journal.read_text() + '{"file": "train-0')  # as a power cut leaves it
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 3 <= len(before) < 27
    for folder in (out, whole):
        done = call("pack", f"out={folder}", "shard_mb=0.05")
        assert done.returncode == 0, done.stderr
    assert files(out) == files(whole)
    assert sum(path.stat().st_mtime_ns == then for path, then in before.items()) >= len(before) - 1


def test_the_same_command_mends_what_was_damaged(digits_data: CharacterDataModule, tmp_path: Path) -> None:
    pack(digits_data, tmp_path, 0.05)
    good = files(tmp_path)
    (tmp_path / "train-000001.tar").unlink()
    damaged = tmp_path / "train-000004.tar"
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"xyz")
    kept = (tmp_path / "train-000002.tar").stat().st_mtime_ns
    pack(digits_data, tmp_path, 0.05)
    assert files(tmp_path) == good
    assert (tmp_path / "train-000002.tar").stat().st_mtime_ns == kept


def test_a_full_disk_ends_packing_with_one_line_and_the_same_command_goes_on(
    digits_data: CharacterDataModule, tmp_path: Path
) -> None:
    pack(digits_data, tmp_path / "whole", 0.05)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))  # a write beyond fails, as on a full disk
    try:
        with pytest.raises(HwrError, match=r"train-000000\.tar: .*the same command goes on"):
            pack(digits_data, tmp_path / "out", 0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{INDEX}.part"]
    pack(digits_data, tmp_path / "out", 0.05)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_cannot_be_packed_is_told_in_one_line(digits_data: CharacterDataModule, call: Run, tmp_path: Path) -> None:
    pack(digits_data, tmp_path / "shards", 0.05, {"of": "other settings"})
    for arguments, says in {
        (): "out must be given",
        ("out=o", "shard_mb=0"): "shard_mb=0: a number above 0",
        ("out=o", "shard_mb=many"): "shard_mb=many: a number is needed",
        ("out=o", "data.turned=true"): "data.turned=true: shards hold characters as they are",
        (f"out={tmp_path / 'shards'}",): "holds shards of other data or settings; choose another folder",
        ("out=o", "data=shards", f"data.path={tmp_path / 'shards'}"): "these are shards already",
    }.items():
        done = call("pack", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert done.stderr.startswith("hwr.pack: error: ")
        assert says in done.stderr
    assert not (tmp_path / "o").exists()


def test_endless_lines_are_packed_as_the_first_epoch_has_them(tmp_path: Path) -> None:
    sizes = ["data.train_lines=12", "data.val_lines=3", "data.test_lines=3"]
    data = datamodule(compose(overrides=["experiment=digit_strings_crnn", *sizes]))
    pack(data, tmp_path, 0.02)
    index = read_index(str(tmp_path), "lines")
    assert index.about["preprocess"]["height"] == 32
    texts = [text for shard in index.of("train") for text in read_shard(shard).facts["texts"]]
    assert sorted(texts) == sorted(data.sets["train"].texts)
    assert json.loads((tmp_path / INDEX).read_text().splitlines()[0])["kind"] == "lines"


def test_the_order_of_training_items_is_mixed(tmp_path: Path) -> None:
    """A folder comes class by class, and a batch of one class teaches nothing."""
    data = datamodule(compose())
    data.restrict(np.argsort(data.sets["train"].labels.numpy(), kind="stable"))
    pack(data, tmp_path, 0.1)
    index = read_index(str(tmp_path), "characters")
    for shard in index.of("train"):
        assert len(set(read_shard(shard).arrays["labels"].tolist())) > 7
