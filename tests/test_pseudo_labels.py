"""Lines and characters that a model has read, learnt from beside those that a person has labelled."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from line_fixtures import line_image, save, write_table
from line_model import SETTINGS, texts, write_split

from hwr import parts
from hwr.config import compose
from hwr.data.lines import Lines
from hwr.data.lines.tsv import read_splits
from hwr.data.pseudo import read_pseudo_lines
from hwr.errors import HwrError
from hwr.experiment import fit
from hwr.images import read_grey
from hwr.preprocess import CharacterPreprocess


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Lines]:
    """A few lines with transcripts, and images without: new/0.png to new/3.png."""
    for name, seed in (("train", 0), ("val", 100)):
        write_table(tmp_path / "own" / f"{name}.tsv", [[f"{name}{i}.png", f"mot {i}"] for i in range(3)])
        for i in range(3):
            save(tmp_path / "own" / f"{name}{i}.png", line_image(seed=seed + i))
    for i in range(4):
        save(tmp_path / "new" / f"{i}.png", line_image(seed=200 + i))
    return read_splits(tmp_path / "own")


def readings(path: Path, *rows: tuple[str, str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("image,text,confidence\n" + "".join(f'{a},"{b}",{c}\n' for a, b, c in rows), encoding="utf-8")
    return path


def test_unsure_lines_and_those_that_have_a_transcript_are_left_out(
    tmp_path: Path, splits: dict[str, Lines], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are found beside the table and from where hwr.predict ran; what cannot be used is named, row by row."""
    monkeypatch.chdir(tmp_path)
    table = readings(
        tmp_path / "new" / "read.csv",
        ("0.png", "sûr", 0.9), ("1.png", "douteux", 0.49), ("new/2.png", "assez, sûr", 0.5), ("3.png", "", 0.8),
        ("missing.png", "rien", 0.9), ("1.png", "un", "high"), ("own/train1.png", "met 1", 0.99),
        (str(tmp_path / "own" / "val2.png"), "mot 2", 1),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        found = read_pseudo_lines(table, 0.5, splits)
    assert [(item.name, item.text) for item in found.items] == [
        (str(tmp_path / "new" / "0.png"), "sûr"),
        ("new/2.png", "assez, sûr"),
    ]
    assert "2 lines of" in caplog.text
    assert "1 read with confidence below 0.5, 2 that have a transcript" in caplog.text
    reasons = [str(line) for line in found.rejected]
    assert len(reasons) == 3
    for reason, words in zip(reasons, ("transcript is empty", "no image", "line 7: confidence 'high'"), strict=True):
        assert words in reason


def test_bad_tables_in_one_line(tmp_path: Path, splits: dict[str, Lines]) -> None:
    with pytest.raises(HwrError, match="a header with the columns image and text and confidence"):
        read_pseudo_lines(write_table(tmp_path / "t.tsv", [["1.png", "mot"]]), 0.5, splits)
    with pytest.raises(HwrError, match=r"no line of it can be used: 1 read with confidence below 0\.5"):
        read_pseudo_lines(readings(tmp_path / "new" / "read.csv", ("0.png", "mot", 0.3)), 0.5, splits)
    with pytest.raises(HwrError, match="cannot be read"):
        read_pseudo_lines(tmp_path / "nowhere.csv", 0.5, splits)


def test_a_confidence_is_between_0_and_1(call: Run, tmp_path: Path) -> None:
    for settings in (["experiment=tsv_crnn", f"data.path={tmp_path}"], []):
        done = call("train", *settings, "data.pseudo_labels=read.csv", "data.pseudo_confidence=50")
        assert done.returncode == 1
        assert "between 0 and 1" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_labels_are_drawn_from_what_a_person_has_labelled(tmp_path: Path, splits: dict[str, Lines]) -> None:
    """The same as without readings, which all come on top."""
    table = readings(tmp_path / "new" / "read.csv", ("0.png", "un", 0.9), ("1.png", "deux", 0.9))
    write_table(tmp_path / "own" / "test.tsv", [["val0.png", "mot 0"]])
    (tmp_path / "own" / "val.tsv").rename(tmp_path / "own" / "val.txt")
    write_table(tmp_path / "own" / "val.tsv", [["val1.png", "mot 1"]])
    settings = ["experiment=tsv_crnn", f"data.path={tmp_path / 'own'}", "data.cache=null", "data.labels=2"]
    names = []
    for more in ([], [f"data.pseudo_labels={table}"]):
        data = parts.datamodule(compose("train", [*settings, *more]))
        data.setup()
        names.append(data.sets["train"].names)
    assert len(names[0]) == 2
    assert names[1] == [*names[0], *(str(tmp_path / "new" / f"{i}.png") for i in range(2))]


# ---- characters


@pytest.fixture
def characters(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """Eight labelled digits of each class, 400 to validate with, 100 to test, and 600 in ``new`` without labels."""
    rows: dict[str, list[str]] = {name: [] for name in ("train", "val", "test")}
    counts = Counter[int]()
    for i, (image, label) in enumerate(zip(*(part[:1180].tolist() for part in digits), strict=True)):
        counts[label] += 1
        split = "train" if counts[label] <= 8 else "val" if i < 480 else "test" if i < 580 else "new"
        where = tmp_path / ("new" if split == "new" else "own") / f"{i:04}.png"
        save(where, 255 - np.array(image, np.uint8))
        if split != "new":
            rows[split].append(f"{where.name},{label}")
    for name, lines in rows.items():
        (tmp_path / "own" / f"{name}.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    return tmp_path / "own"


def test_characters_that_cannot_be_learnt_from_are_left_out(
    tmp_path: Path, characters: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    first, second, third, *_ = sorted(path.name for path in (tmp_path / "new").glob("0*.png"))
    table = tmp_path / "new" / "read.csv"
    table.write_text(
        "image,label,confidence,label1,probability1\n"
        f"{first},7,0.99,7,0.99\nnew/{second},3,0.95,3,0.95\n{third},3,0.94,3,0.94\n{first},7,0.99,7,0.99\n"
        f"{characters / '0000.png'},0,1,0,1\n../own/0200.png,0,1,0,1\n{third},x,1,x,1\n"
        "broken.png,1,1,1,1\nmissing.png,1,1,1,1\n"
    )
    settings = ["experiment=folder_cnn", f"data.path={characters}", f"data.pseudo_labels={table}", "data.labels=70"]
    data = parts.datamodule(compose("train", settings))
    with caplog.at_level(logging.WARNING):
        data.setup()
    train = data.sets["train"]
    assert len(train) == 72
    assert list(train.names[70:]) == [str(tmp_path / "new" / first), str(tmp_path / "new" / second)]
    assert [data.classes[i] for i in train.labels[70:]] == ["7", "3"]
    expected = CharacterPreprocess()(read_grey(tmp_path / "new" / first))
    np.testing.assert_array_equal(train.images[70].numpy(), expected)
    assert "2 characters of" in caplog.text
    left = "1 read with confidence below 0.95, 3 that have a label or come twice, 1 of other classes, 2 unusable: "
    assert left in caplog.text
    assert data.labelled().tolist() == list(range(70))
    with pytest.raises(HwrError, match="no character of it can be used: 4 read with confidence below 1"):
        parts.datamodule(compose("train", [*settings, "data.pseudo_confidence=1", "data.only=[5,6]"])).setup()


def test_characters_that_a_model_reads_teach_another(call: Run, tmp_path: Path, characters: Path) -> None:
    """hwr.predict reads a folder, hwr.train learns from it: eighty labels and what they teach to read."""
    quick = ["network=lenet_16_32", "augment=light", "data.batch_size=15", "trainer.precision=32-true", "test=false"]
    settings = ["experiment=folder_cnn", f"data.path={characters}", "callbacks.gallery=null", *quick]
    alone = fit(compose("train", [*settings, "trainer.max_epochs=25"], tmp_path / "alone"))
    done = call("predict", f"model={tmp_path / 'alone'}", "images=new", "format=csv", "output=read.csv")
    assert done.returncode == 0, done.stderr
    more = [f"data.pseudo_labels={tmp_path / 'read.csv'}", "data.pseudo_confidence=0.8", "trainer.max_epochs=10"]
    helped = fit(compose("train", [*settings, *more], tmp_path / "helped"))
    sizes = json.loads((tmp_path / "helped" / "splits.json").read_text())["sizes"]
    assert sizes["pseudo_labels"] == sizes["train"] - 80
    assert sizes["pseudo_labels"] > 100
    assert alone.metrics["val/accuracy"] > 0.6
    assert 1 - helped.metrics["val/accuracy"] < 0.8 * (1 - alone.metrics["val/accuracy"])


# ---- lines


def test_what_a_model_reads_teaches_another(call: Run, line_run: Path, tmp_path: Path) -> None:
    """hwr.predict reads a folder, hwr.train learns from it: twelve transcripts alone teach next to nothing."""
    own, new = tmp_path / "own", tmp_path / "new"
    write_split(own, "train", texts(12, 7), 7000)
    write_split(own, "val", texts(30, 8), 8000)
    write_split(own, "test", texts(10, 6), 6000)
    write_split(new, "train", texts(220, 9), 9000)
    (new / "train.tsv").unlink()
    done = call("predict", f"model='{line_run}'", "images=new", "format=csv", "output=read/read.csv")
    assert done.returncode == 0, done.stderr
    settings = [*SETTINGS, f"data.path={own}", "test=false"]
    alone = fit(compose("train", settings, run_dir=tmp_path / "alone"))
    more = f"data.pseudo_labels={tmp_path / 'read' / 'read.csv'}"
    helped = fit(compose("train", [*settings, more], run_dir=tmp_path / "helped"))
    train = helped.datamodule.sets["train"]
    assert len(train) > 200
    assert len(helped.datamodule.transcripts) == 12  # what an n-gram model learns from
    sizes = json.loads((tmp_path / "helped" / "splits.json").read_text())["sizes"]
    assert sizes["pseudo_labels"] == sizes["train"] - 12
    assert alone.metrics["val/cer"] > 0.5
    assert helped.metrics["val/cer"] < 0.2
