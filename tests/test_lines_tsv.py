"""Tables and pairs of line images and transcripts, and what is common to all readers of lines."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from line_fixtures import line_image, save, write_table

from hwr.data.lines import LineImage, Lines, Rejected, Stamp, check_disjoint, fingerprint, right_to_left
from hwr.data.lines.tsv import read_pairs, read_splits, read_table
from hwr.errors import HwrError

TAB = "\t"


def texts(lines: Lines) -> dict[str, str]:
    return {item.name: item.text for item in lines.items}


def reasons(lines: Lines) -> dict[str, str]:
    return {bad.name: bad.reason for bad in lines.rejected}


def test_a_table_gives_texts_writers_and_pixels(tmp_path):
    rows = [["a/1.png", "Bonjour", "w1"], ["a/2.png", "le monde", "w2"]]
    lines = read_table(write_table(tmp_path / "lines.tsv", rows, ("image", "text", "writer")))
    assert texts(lines) == {"a/1.png": "Bonjour", "a/2.png": "le monde"}
    assert [item.writer for item in lines.items] == ["w1", "w2"]
    assert lines.rejected == []
    for i, item in enumerate(lines.items):
        np.testing.assert_array_equal(item.read(), line_image(seed=i))
        assert item.read().dtype == np.uint8


def test_columns_in_any_order_others_passed_over(tmp_path):
    write_table(tmp_path / "t.tsv", [["x", "mot", "1.png"]], ("note", " Text", "IMAGE"))
    save(tmp_path / "1.png")
    lines = read_table(tmp_path / "t.tsv")
    assert texts(lines) == {"1.png": "mot"}
    assert lines.items[0].writer is None


def test_a_table_made_on_windows_names_its_images(tmp_path):
    lines = read_table(write_table(tmp_path / "t.tsv", [["a/1.png", "mot"]]))
    (tmp_path / "t.tsv").write_text("image\ttext\na\\1.png\tmot\n")
    (found,) = read_table(tmp_path / "t.tsv").items
    np.testing.assert_array_equal(found.read(), lines.items[0].read())


def test_quotes_in_tsv_are_quotes(tmp_path):
    rows = [["1.png", '"Quoi ?" dit-il'], ["2.png", 'un "mot'], ["3.png", '"']]
    assert list(texts(read_table(write_table(tmp_path / "t.tsv", rows))).values()) == [row[1] for row in rows]


def test_names_longer_than_a_file_can_have_are_no_images(tmp_path):
    names = ["n" * 300, "n\\" + "n" * 300]
    lines = read_table(write_table(tmp_path / "t.tsv", [["1.png", "bon"], *([name, "texte"] for name in names)]))
    assert [item.text for item in lines.items] == ["bon"]
    assert [lost.name for lost in lines.rejected] == names


def test_every_bad_row_is_rejected_alone_with_its_line_and_its_text(tmp_path):
    rows = [
        ["1.png", "bon"],
        ["2.png", "un tab", "ici"],
        ["3.png", "   "],
        ["missing.png", "sans image"],
        ["", "sans nom"],
        ["7.png"],
        ["1.png", "encore"],
        ["9.png", "cloche \x07"],
        ["10.png", "bon aussi"],
    ]
    path = write_table(tmp_path / "t.tsv", rows)
    (tmp_path / "11.png").write_bytes(b"")
    with path.open("ab") as file:
        file.write("11.png\tfichier vide\n12.png\tlat\xedn\n".encode("latin-1"))
        file.write(b"\n13.png\tapr\xc3\xa8s une ligne vide\n")
    save(tmp_path / "12.png")
    save(tmp_path / "13.png")
    lines = read_table(path)
    assert texts(lines) == {"1.png": "bon", "10.png": "bon aussi", "13.png": "après une ligne vide"}
    assert len(lines.rejected) == 9
    found = [str(bad) for bad in lines.rejected]
    expected = [
        ("2.png", "line 3", "3 fields where the header has 2", "tab"),
        ("3.png", "transcript is empty"),
        ("missing.png", "no image", "No such file"),
        ("line 6", "no image is named"),
        ("7.png", "line 7", "1 fields"),
        ("1.png", "name already"),
        ("9.png", "U+0007"),
        ("11.png", "empty (0 bytes)"),
        ("12.png", "line 12", "not UTF-8"),
    ]
    for message, parts in zip(found, expected, strict=True):
        assert all(part in message for part in parts), message
    kept = {bad.name: bad.text for bad in lines.rejected}  # what an evaluation counts as wrong
    assert kept["missing.png"] == "sans image"
    assert kept["11.png"] == "fichier vide"
    assert kept["12.png"] == "lat?n"  # printable
    assert kept["2.png"] == "un tab ici"


def test_an_empty_writer_is_rejected(tmp_path):
    rows = [["1.png", "a", "w"], ["2.png", "b", ""]]
    lines = read_table(write_table(tmp_path / "t.tsv", rows, ("image", "text", "writer")))
    assert list(texts(lines)) == ["1.png"]
    assert "writer is empty" in reasons(lines)["2.png"]


def test_all_rejected_is_an_error_that_shows_the_first(tmp_path):
    path = write_table(tmp_path / "t.tsv", [["missing1.png", "a"], ["missing2.png", "b"]])
    with pytest.raises(HwrError, match=r"none of 2 lines can be used; the first: missing1\.png: no image"):
        read_table(path)
    with pytest.raises(HwrError, match="no lines in it"):
        read_table(write_table(tmp_path / "u.tsv", []))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1.png\tmot\n", "line 1: a header with the columns image and text is needed"),
        (b"", "found: nothing"),
        ("image\ttext\n1.png\tmot\n".encode("utf-16"), "UTF-16"),
        (b"image,text\n", "found: image,text"),  # commas in a .tsv
    ],
)
def test_a_table_without_header_says_what_is_needed(tmp_path, content, message):
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(HwrError, match=message):
        read_table(tmp_path / "t.tsv")


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"\xef\xbb\xbfimage\ttext\r\n1.png\tmot\r\n\r\n \t \r\n")
    save(tmp_path / "1.png")
    lines = read_table(tmp_path / "t.tsv")
    assert texts(lines) == {"1.png": "mot"}
    assert lines.rejected == []  # empty lines are not rows


@pytest.mark.parametrize("separator", [",", ";"])
def test_csv_is_quoted_and_a_bad_row_costs_only_itself(tmp_path, separator):
    rows = [
        ["1.png", f'"un{separator} deux ""trois"""'],
        ["2.png", '"un\ttab, "'],
        ["3.png", '"jamais fermé'],
        ["4.png", "simple"],
        ["5.png", '"quatre" cinq'],
        ["6.png", '"fin"'],
    ]
    lines = read_table(write_table(tmp_path / "t.csv", rows, separator=separator))
    assert texts(lines) == {
        "1.png": f'un{separator} deux "trois"',
        "2.png": "un tab,",
        "4.png": "simple",
        "6.png": "fin",
    }
    assert [(bad.name, bad.text) for bad in lines.rejected] == [("3.png", '"jamais fermé'), ("5.png", '"quatre" cinq')]
    assert "line 4: unexpected end of data; a text stands on one line" in lines.rejected[0].reason


def test_marks_left_open_take_no_other_row_along(tmp_path):
    """Two quotations that go over several lines, in a table that was written without quoting."""
    rows = [
        ["1.png", "un"],
        ["2.png", '"et rêve'],
        ["3.png", "jour"],
        ["4.png", 'jour dort"'],
        ["5.png", '"a'],
        ["6.png", "b"],
    ]
    lines = read_table(write_table(tmp_path / "t.csv", rows, separator=","))
    assert texts(lines) == {"1.png": "un", "3.png": "jour", "4.png": 'jour dort"', "6.png": "b"}
    assert [bad.name for bad in lines.rejected] == ["2.png", "5.png"]


def test_cells_that_a_spreadsheet_has_quoted(tmp_path):
    rows = ['"Il dit ""oui"""', '"Non"', 'dit "oui"', '""""']
    lines = read_table(write_table(tmp_path / "t.tsv", [[f"{i}.png", text] for i, text in enumerate(rows)]))
    assert list(texts(lines).values()) == ['Il dit "oui"', '"Non"', 'dit "oui"', '""""']


def test_hidden_files_are_no_lines_and_links_lead_on(tmp_path):
    """What macOS and notebooks leave; folders linked into the data, and one that leads back."""
    for folder in ("a", "elsewhere", "a/.ipynb_checkpoints"):
        save(tmp_path / folder / "1.png", line_image(seed=len(folder)))
        (tmp_path / folder / "1.gt.txt").write_text(folder)
    (tmp_path / "a" / "._1.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "._1.gt.txt").write_bytes(b"\0\5\x16\7")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "back").symlink_to(tmp_path / "a")
    lines = read_pairs(tmp_path / "a")
    assert texts(lines) == {"1": "a", "linked/1": "elsewhere"}
    assert not lines.rejected


def test_one_image_under_two_names_is_one(tmp_path):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.tsv", [[f"missing/{split}.png", "a"]])
    save(tmp_path / "a.png")
    (tmp_path / "missing").mkdir()
    for split in ("train", "test"):
        (tmp_path / "missing" / f"{split}.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(HwrError, match="the image of"):
        read_splits(tmp_path)


def test_tables_and_folders_that_are_not_read_are_told(tmp_path, caplog):
    for name in ("train.tsv", "valid.tsv", "Test.tsv"):
        write_table(tmp_path / name, [[f"{name}.png", name]])
    (tmp_path / "val").mkdir()
    with caplog.at_level("WARNING"):
        assert list(read_splits(tmp_path)) == ["train"]
    assert "not read: Test.tsv, val, valid.tsv; read are train.tsv" in caplog.text
    write_table(tmp_path / "train.csv", [["a.png", "b"]], separator=",")
    with pytest.raises(HwrError, match=r"train\.tsv and train\.csv: two tables of one split; keep one"):
        read_splits(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root looks into every folder")
def test_a_folder_that_cannot_be_looked_into(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.gt.txt").write_text("a")
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(HwrError, match="locked: cannot be looked into"):
        read_splits(tmp_path)


def test_normal_forms_and_directions_of_writing(tmp_path):
    decomposed = unicodedata.normalize("NFD", "déjà vu")
    hebrew = "\u05e9\u05dc\u05d5\u05dd 12"
    rows = [["1.png", decomposed], ["2.png", "déjà\u00a0 vu"], ["3.png", hebrew]]
    lines = read_table(write_table(tmp_path / "t.tsv", rows))
    assert [item.text for item in lines.items] == ["déjà vu", "déjà vu", hebrew]  # logical order is kept
    assert [right_to_left(item.text) for item in lines.items] == [False, False, True]
    assert not right_to_left("voir \u05d0")


def test_pairs_of_images_and_transcripts(tmp_path):
    for name in ("a/1.png", "a/2.tif", "b/3.bin.png", "4.nrm.png", "orphan.png", "5.png", "5.jpg", "6.png", "7.png"):
        save(tmp_path / name)
    for name, text in {
        "a/1": "un\n",
        "a/2": "deux",
        "b/3": "trois",
        "4": "quatre",
        "5": "cinq",
        "6": "",
        "7": "deux\nlignes",
        "8": "sans",
    }.items():
        (tmp_path / f"{name}.gt.txt").write_text(text)
    lines = read_pairs(tmp_path)
    assert texts(lines) == {"4": "quatre", "a/1": "un", "a/2": "deux", "b/3": "trois"}
    expected = {
        "orphan": "no transcript orphan.gt.txt",
        "5": "several images",
        "6": "empty",
        "7": "2 lines",
        "8": "no image",
    }
    assert reasons(lines).keys() == expected.keys()
    assert all(expected[name] in reason for name, reason in reasons(lines).items())
    assert {bad.name: bad.text for bad in lines.rejected}["8"] == "sans"


def test_splits_of_tables_and_of_pairs(tmp_path):
    for split in ("train", "val", "test"):
        write_table(tmp_path / "t" / f"{split}.tsv", [[f"{split}/1.png", "a", split]], ("image", "text", "writer"))
        save(tmp_path / "p" / split / "1.png")
        (tmp_path / "p" / split / "1.gt.txt").write_text(split)
    assert {name: texts(part) for name, part in read_splits(tmp_path / "t").items()} == {
        name: {f"{name}/1.png": "a"} for name in ("train", "val", "test")
    }
    assert {name: texts(part) for name, part in read_splits(tmp_path / "p").items()} == {
        name: {"1": name} for name in ("train", "val", "test")
    }
    assert list(read_splits(tmp_path / "t" / "val.tsv")) == ["train"]
    assert list(read_splits(tmp_path / "p" / "val")) == ["train"]
    with pytest.raises(HwrError, match="no such file or folder"):
        read_splits(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HwrError, match=r"neither train\.tsv"):
        read_splits(tmp_path / "empty")


def test_the_same_writer_or_image_in_two_splits_is_an_error(tmp_path):
    write_table(tmp_path / "train.tsv", [["1.png", "a", "w1"], ["2.png", "b", "w2"]], ("image", "text", "writer"))
    write_table(tmp_path / "val.tsv", [["3.png", "c", "w2"]], ("image", "text", "writer"))
    with pytest.raises(HwrError, match=r"the writer 'w2' is in train \(2\.png\) and in val \(3\.png\)"):
        read_splits(tmp_path)
    write_table(tmp_path / "val.tsv", [["2.png", "c", "w3"]], ("image", "text", "writer"))
    with pytest.raises(HwrError, match=r"the image of 2\.png is in train"):
        read_splits(tmp_path)


def test_check_disjoint_looks_at_what_it_is_told_to(tmp_path):
    image = [LineImage(Stamp.of(save(tmp_path / f"{i}.png"))) for i in range(2)]
    splits = {"train": Lines(), "test": Lines()}
    splits["train"].add("a", "x", image[0], "w1", "P16")
    splits["test"].add("b", "x", image[1], "w2", "P16")  # what they say may be the same
    check_disjoint(splits, ("writer", "image"))
    with pytest.raises(HwrError, match="corpus: the text 'P16' is in train"):
        check_disjoint(splits, where="corpus")


def test_items_are_small_picklable_and_hashed_by_their_source(tmp_path):
    path = write_table(tmp_path / "t.tsv", [[f"{i}.png", f"mot {i}"] for i in range(100)])
    lines = read_table(path)
    again = pickle.loads(pickle.dumps(lines))
    assert again == lines
    assert {hash(item) for item in again.items} == {hash(item) for item in lines.items}
    assert len(pickle.dumps(lines.items)) / 100 < 300
    key = fingerprint(lines.items, {"height": 64})
    assert key == fingerprint(read_table(path).items, {"height": 64})
    assert key != fingerprint(lines.items, {"height": 32})
    assert key != fingerprint(lines.items[1:], {"height": 64})
    os.utime(tmp_path / "50.png", (1, 1))
    assert key != fingerprint(read_table(path).items, {"height": 64})


def test_reading_is_lazy_and_says_what_is_wrong_when_it_comes_to_it(tmp_path):
    lines = read_table(write_table(tmp_path / "t.tsv", [["1.png", "a"], ["2.png", "b"]]))
    (tmp_path / "2.png").write_bytes(b"not an image")
    (tmp_path / "1.png").unlink()
    for item, message in zip(lines.items, ("no such file", "not an image"), strict=True):
        with pytest.raises(HwrError, match=f"{item.name}: {message}"):
            item.read()


def test_very_narrow_and_very_wide_lines_are_read(tmp_path):
    path = write_table(tmp_path / "t.tsv", [["1.png", "a"], ["2.png", "b"]])
    save(tmp_path / "1.png", np.zeros((30, 1), np.uint8))
    save(tmp_path / "2.png", np.zeros((30, 20_000), np.uint8))
    assert [item.read().shape for item in read_table(path).items] == [(30, 1), (30, 20_000)]


def test_extend_keeps_names_unique(tmp_path):
    one = read_table(write_table(tmp_path / "t.tsv", [["1.png", "a"]]))
    both = Lines(rejected=[Rejected("x", "why")])
    both.extend(one)
    both.extend(one)
    assert len(both) == 1
    assert [str(bad) for bad in both.rejected] == ["x: why", "1.png: there is a line of this name already"]


def test_no_torch_nor_lightning_is_imported():
    code = (
        "import sys, hwr.data.lines.tsv, hwr.data.lines.pages, hwr.data.lines.iam, hwr.data.lines.casia, "
        "hwr.data.lines.write_back; print([m for m in ('torch', 'lightning', 'hydra') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_real_lines_of_copiste():
    root = os.environ.get("HWR_DATA_DIR")
    if not root or not (Path(root) / "copiste").is_dir():
        pytest.skip("HWR_DATA_DIR names no folder with copiste/")
    splits = read_splits(Path(root) / "copiste")
    assert {name: len(part) for name, part in splits.items()} == {"train": 4313, "val": 561, "test": 430}
    assert not any(part.rejected for part in splits.values())
    assert splits["train"].items[0].read().shape[0] == 64
