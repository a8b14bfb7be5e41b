"""Lines that a model has read, learnt from beside those that a person has transcribed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from conftest import Run
from line_fixtures import line_image, save, write_table
from line_model import SETTINGS, texts, write_split

from hwr.config import compose
from hwr.data.lines import Lines
from hwr.data.lines.pseudo import read_pseudo_labels
from hwr.data.lines.tsv import read_splits
from hwr.errors import HwrError
from hwr.experiment import fit


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
        found = read_pseudo_labels(table, 0.5, splits)
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
        read_pseudo_labels(write_table(tmp_path / "t.tsv", [["1.png", "mot"]]), 0.5, splits)
    with pytest.raises(HwrError, match=r"no line of it can be used: 1 read with confidence below 0\.5"):
        read_pseudo_labels(readings(tmp_path / "new" / "read.csv", ("0.png", "mot", 0.3)), 0.5, splits)
    with pytest.raises(HwrError, match="cannot be read"):
        read_pseudo_labels(tmp_path / "nowhere.csv", 0.5, splits)


def test_settings_that_do_not_go_together(call: Run, tmp_path: Path) -> None:
    table = readings(tmp_path / "read.csv", ("0.png", "mot", 0.9))
    settings = ["experiment=tsv_crnn", f"data.path={tmp_path}", f"data.pseudo_labels={table}"]
    for more, words in (("data.labels=5", "do not go together"), ("data.pseudo_confidence=50", "between 0 and 1")):
        done = call("train", *settings, more)
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


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
