"""The IAM Handwriting Database: tables and XML as they are distributed, and the published splits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from line_fixtures import IAM_ROWS, IAM_WORDS, iam_image, iam_xml, line_image, write_iam

from hwr.data.lines import Lines, iam
from hwr.errors import HwrError

TEXTS = {
    "a01-000u-00": "A MOVE to stop Mr. Gaitskell from",
    "a01-000u-01": "nominating any more Labour life Peers",
    "a01-000x-00": "A MOVE to stop Mr. Gaitskell from",
    "b02-013-00": '1961 was " better " , he said .',
    "c03-003a-04": "1961",
}


def texts(lines: Lines) -> dict[str, str]:
    return {item.name: item.text for item in lines.items}


def reasons(lines: Lines) -> dict[str, str]:
    return {bad.name: bad.reason for bad in lines.rejected}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_iam(tmp_path / "iam")


def test_lines_txt_gives_texts_writers_and_images(root):
    lines = iam.read(root)
    assert texts(lines) == TEXTS
    assert [item.writer for item in lines.items] == ["000", "000", "001", "021", "152"]
    assert [item.text_id for item in lines.items] == ["a01-000", "a01-000", "a01-000", "b02-013", "c03-003"]
    assert lines.rejected == []
    for seed, item in enumerate(lines.items):
        np.testing.assert_array_equal(item.read(), line_image(seed=seed))


def test_tables_beside_the_folders_and_images_in_one_folder(root):
    for table in ("lines.txt", "forms.txt"):
        (root / "ascii" / table).rename(root / table)
    (root / "ascii").rmdir()
    for image in list((root / "lines").rglob("*.png")):
        image.rename(root / "lines" / image.name)
    lines = iam.read(root)
    assert texts(lines) == TEXTS
    assert lines.items[0].writer == "000"


def test_lines_marked_err_are_kept_unless_told_otherwise(root, caplog):
    lines = iam.read(root, segmentation="ok")
    assert "a01-000u-01" not in texts(lines)
    assert len(lines) == 4
    assert not lines.rejected  # which an evaluation would count as wrong
    assert "1 lines marked err are left out (data.segmentation=ok)" in caplog.text


def test_words_txt(root):
    (root / "ascii" / "words.txt").write_text(IAM_WORDS)
    for seed, name in enumerate(("a01-000u-00-00", "a01-000u-00-01", "a01-000u-00-02")):
        iam_image(root, name, seed, "words")
    lines = iam.read(root, "words")
    assert texts(lines) == {"a01-000u-00-00": "A", "a01-000u-00-01": "MOVE", "a01-000u-00-02": "1961"}
    assert {item.writer for item in lines.items} == {"000"}
    np.testing.assert_array_equal(lines.items[1].read(), line_image(seed=1))


@pytest.mark.parametrize(
    "row",
    [
        "a01-000u-00 maybe 154 19 408 746 1661 89 A|MOVE",
        "a01-000u-00 ok 154 19 408 746 1661 A|MOVE",
        "a01-000u-00 ok 154 19 408 746 1661 89",
        "a01-000u-00",
        "readme ok 154 19 408 746 1661 89 A|MOVE",
        "a01-000u-00 ok 154 19 408 746 1661 89 |",
        "a01-000u-99 ok 154 19 408 746 1661 89 A|MOVE",
    ],
)
def test_a_bad_row_is_rejected_alone(root, row):
    table = root / "ascii" / "lines.txt"
    table.write_text(table.read_text().replace(IAM_ROWS["a01-000u-00"], row))
    lines = iam.read(root)
    assert set(texts(lines)) == set(TEXTS) - {"a01-000u-00"}
    (bad,) = lines.rejected
    assert bad.name == row.split()[0]
    number = next(i for i, line in enumerate(table.read_text().splitlines(), 1) if line == row)
    expected = {"89 |": "empty", "99": "no image"}
    part = next((p for mark, p in expected.items() if mark in row), f"line {number}: not like 'a01-000u-00 ok 154")
    assert part in bad.reason


def test_a_broken_image_is_rejected_alone(root):
    (root / "lines" / "b02" / "b02-013" / "b02-013-00.png").write_bytes(b"")  # as r06-022-03-05.png is
    lines = iam.read(root)
    assert reasons(lines).keys() == {"b02-013-00"}
    assert "empty (0 bytes)" in reasons(lines)["b02-013-00"]


def write_xml(root: Path) -> None:
    (root / "xml").mkdir()
    natural = TEXTS | {"b02-013-00": '1961 was "better", he & they said.'}
    for form, writer in (("a01-000u", "000"), ("a01-000x", "001"), ("b02-013", "021"), ("c03-003a", "152")):
        lines = {name: text for name, text in natural.items() if iam.form_of(name) == form}
        (root / "xml" / f"{form}.xml").write_text(iam_xml(form, writer, lines), encoding="latin-1")


def test_xml_has_the_spacing_of_the_text_and_the_writers(root):
    write_xml(root)
    for table in ("lines.txt", "forms.txt"):
        (root / "ascii" / table).unlink()
    lines = iam.read(root)
    assert texts(lines) == TEXTS | {"b02-013-00": '1961 was "better", he & they said.'}
    assert [item.writer for item in lines.items] == ["000", "000", "001", "021", "152"]
    (root / "xml" / "a01-000x.xml").write_text("<form")
    (root / "xml" / "b02-013.xml").write_text('<!DOCTYPE form [<!ENTITY x "y">]><form>&x;</form>')
    lines = iam.read(root)
    assert set(texts(lines)) == {"a01-000u-00", "a01-000u-01", "c03-003a-04"}
    assert "not well-formed" in reasons(lines)["a01-000x"]
    assert "entities" in reasons(lines)["b02-013"]


def test_which_transcripts(root):
    write_xml(root)
    assert texts(iam.read(root))["b02-013-00"] == TEXTS["b02-013-00"]
    assert texts(iam.read(root, transcripts="xml"))["b02-013-00"] == '1961 was "better", he & they said.'
    (root / "ascii" / "forms.txt").unlink()
    assert [item.writer for item in iam.read(root).items] == ["000", "000", "001", "021", "152"]  # from the XML
    for seed, item in enumerate(iam.read(root, transcripts="xml").items):
        np.testing.assert_array_equal(item.read(), line_image(seed=seed))


def test_words_of_the_xml(root):
    write_xml(root)
    for i in range(7):
        iam_image(root, f"a01-000u-00-{i:02}", i, "words")
    lines = iam.read(root, "words", "xml")
    assert " ".join(texts(lines).values()) == TEXTS["a01-000u-00"]
    assert lines.items[0].name == "a01-000u-00-00"


def test_missing_files_are_named(root, tmp_path):
    with pytest.raises(HwrError, match=r"no folder words/ .*words\.tgz"):
        iam.read(root, "words")
    with pytest.raises(HwrError, match=r"no xml/ with the transcripts"):
        iam.read(root, transcripts="xml")
    (root / "ascii" / "lines.txt").unlink()
    with pytest.raises(HwrError, match=r"no ascii/lines\.txt nor xml/"):
        iam.read(root)


# Splits


def write_lists(folder: Path, **ids: str) -> Path:
    folder.mkdir()
    for name, content in ids.items():
        (folder / name.replace("__", ".")).write_text("\n".join(content.split()) + "\n")
    return folder


def test_large_writer_independent_split(root, tmp_path, caplog):
    folder = write_lists(
        tmp_path / "lists",
        trainset__txt="a01-000u-00 a01-000u-01",
        validationset1__txt="a01-000x-00",
        validationset2__txt="b02-013-00",
        testset__txt="c03-003a-04",
    )
    scheme, lists = iam.find_lists(folder)
    assert scheme.startswith("large writer independent")
    with caplog.at_level(logging.INFO):
        splits = iam.read_splits(iam.read(root), lists, scheme=scheme)
    assert {name: list(texts(part)) for name, part in splits.items()} == {
        "train": ["a01-000u-00", "a01-000u-01"],
        "val": ["a01-000x-00", "b02-013-00"],
        "test": ["c03-003a-04"],
    }
    assert (
        "train 2 lines of 1 writers, val 2 lines of 2 writers, test 1 lines of 1 writers; 0 lines in no split"
        in caplog.text
    )
    assert "large writer independent" in caplog.text
    with pytest.raises(HwrError, match="the text 'a01-000' is in train"):
        iam.read_splits(iam.read(root), lists, by=("text",))


@pytest.mark.parametrize(
    "names", [("tr.lst", "va.lst", "te.lst"), ("train.uttlist", "validation.uttlist", "test.uttlist")]
)
def test_aachen_split_of_forms(root, tmp_path, names, caplog):
    ids = ("# forms\na01-000u", "b02-013.png", "c03-003a")
    (tmp_path / "lists").mkdir()
    for name, content in zip(names, ids, strict=True):
        (tmp_path / "lists" / name).write_text(content + "\n")
    scheme, lists = iam.find_lists(tmp_path / "lists")
    assert scheme.startswith("Aachen")
    with caplog.at_level(logging.INFO):
        splits = iam.read_splits(iam.read(root), lists)
    assert [list(texts(part)) for part in splits.values()] == [
        ["a01-000u-00", "a01-000u-01"],
        ["b02-013-00"],
        ["c03-003a-04"],
    ]
    assert "1 lines in no split" in caplog.text


def test_rejected_lines_stay_in_their_split_and_unknown_ids_are_named(root, tmp_path):
    (root / "lines" / "c03" / "c03-003a" / "c03-003a-04.png").unlink()
    folder = write_lists(tmp_path / "lists", tr__txt="a01-000u", va__txt="a01-000x", te__txt="b02-013 c03-003a z99-999")
    splits = iam.read_splits(iam.read(root), iam.find_lists(folder)[1])
    assert [(bad.name, bad.text) for bad in splits["test"].rejected] == [("c03-003a-04", "1961"), ("z99-999", "")]
    assert "not among the transcripts" in reasons(splits["test"])["z99-999"]
    assert splits["train"].rejected == []


def test_what_is_wrong_with_lists(root, tmp_path):
    lines = iam.read(root)
    cases = {
        "twice": ({"tr": "a01-000u", "va": "b02-013", "te": "a01-000u"}, "a01-000u is in train and in test"),
        "form": ({"tr": "a01-000u", "va": "b02-013", "te": "a01-000u-01"}, "a01-000u-01 is in test and, by its form"),
        "empty": ({"tr": "a01-000u", "va": "z99-999", "te": "b02-013"}, "the id list of val: none of 1 lines"),
        "nothing": ({"tr": "a01-000u", "va": "", "te": "b02-013"}, "the id list of val: no lines"),
    }
    for name, (ids, message) in cases.items():
        folder = write_lists(tmp_path / name, **{f"{split}__txt": content for split, content in ids.items()})
        with pytest.raises(HwrError, match=message):
            iam.read_splits(lines, iam.find_lists(folder)[1])
    with pytest.raises(HwrError, match="no complete set of id lists"):
        iam.find_lists(write_lists(tmp_path / "part", tr__txt="a", va__txt="b"))
    with pytest.raises(HwrError, match="cannot be read"):
        iam.read_splits(lines, {"train": [tmp_path / "gone.txt"]})


def test_a_writer_in_two_splits_is_an_error(root, tmp_path, caplog):
    forms = root / "ascii" / "forms.txt"
    forms.write_text(forms.read_text().replace("b02-013 021", "b02-013 000"))
    folder = write_lists(tmp_path / "lists", tr__txt="a01-000u", va__txt="b02-013", te__txt="c03-003a")
    lists = iam.find_lists(folder)[1]
    with pytest.raises(HwrError, match="the writer '000' is in train"):
        iam.read_splits(iam.read(root), lists)
    assert len(iam.read_splits(iam.read(root), lists, by=("image",))) == 3
    assert "names the writers" not in caplog.text
    forms.unlink()
    iam.read_splits(iam.read(root), lists)
    assert "nothing shows that the splits share none" in caplog.text
