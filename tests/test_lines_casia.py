"""CASIA-HWDB: characters and lines in their binary files, whole, cut off and damaged."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from line_fixtures import dgrl, gnt, line_image

from hwr.data.lines import Lines, fingerprint
from hwr.data.lines.casia import read_dgrl, read_gnt, read_splits
from hwr.errors import HwrError

CHARACTERS = [(c.encode("gb18030"), line_image(20 + i, 15 + 2 * i, i)) for i, c in enumerate("啊A5。齄")]
LINES = [
    ([c.encode("gb18030") for c in text], line_image(30 + i, 200 + i, i))
    for i, text in enumerate(["我们3个人。", "GB码", "第三行"])
]
CROSSED_OUT = b"\xff\xff"


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def check(lines: Lines, images: list[np.ndarray]) -> None:
    assert len(lines) == len(images)
    for item, image in zip(lines.items, images, strict=True):
        np.testing.assert_array_equal(item.read(), image)
        assert item.read().dtype == np.uint8


def test_characters_of_a_gnt_file(tmp_path):
    lines = read_gnt(put(tmp_path / "1001-c.gnt", gnt(CHARACTERS)))
    assert "".join(item.text for item in lines.items) == "啊A5。齄"
    assert [item.name for item in lines.items] == [f"1001-c.gnt#{i}" for i in range(5)]
    assert {item.writer for item in lines.items} == {"1001"}
    assert lines.rejected == []
    check(lines, [image for _, image in CHARACTERS])


def test_lines_of_a_dgrl_file(tmp_path):
    lines = read_dgrl(put(tmp_path / "501-P16.dgrl", dgrl(LINES)))
    assert [item.text for item in lines.items] == ["我们3个人。", "GB码", "第三行"]
    assert {(item.writer, item.text_id) for item in lines.items} == {("501", "P16")}
    assert lines.items[2].name == "501-P16.dgrl#2"
    check(lines, [image for _, image in LINES])
    assert pickle.loads(pickle.dumps(lines)) == lines
    assert len({item.image for item in lines.items}) == 3
    assert fingerprint(lines.items[:1]) != fingerprint(lines.items[1:2])


@pytest.mark.parametrize("illustration", [b"\0", b"x" * 500 + b"\0"])
def test_headers_of_any_length_and_codes_of_four_bytes(tmp_path, illustration):
    rare = "𠀀".encode("gb18030")
    assert len(rare) == 4
    content = dgrl([([rare, "字".encode("gb18030"), b"a"], line_image())], 4, illustration=illustration)
    lines = read_dgrl(put(tmp_path / "1-P1.dgrl", content))
    assert [item.text for item in lines.items] == ["𠀀字a"]
    check(lines, [line_image()])
    lines = read_dgrl(put(tmp_path / "2-P1.dgrl", dgrl([([b"a", b"b"], line_image())], 1)))
    assert [item.text for item in lines.items] == ["ab"]


@pytest.mark.parametrize("left", [1, 5, 9, 10, 11, 200])
def test_a_gnt_file_that_breaks_off(tmp_path, left):
    whole = gnt(CHARACTERS)
    kept = gnt(CHARACTERS[:3])
    lines = read_gnt(put(tmp_path / "1-c.gnt", whole[: len(kept) + left]))
    check(lines, [image for _, image in CHARACTERS[:3]])
    (bad,) = lines.rejected
    assert bad.name == "1-c.gnt#3"
    assert f"byte {len(kept)}: the file breaks off: {len(kept) + left} bytes" in bad.reason


def test_a_gnt_file_that_makes_no_sense_from_somewhere_on(tmp_path):
    damaged = bytearray(gnt(CHARACTERS))
    start = len(gnt(CHARACTERS[:2]))
    damaged[start : start + 4] = struct.pack("<I", 12345)
    lines = read_gnt(put(tmp_path / "1-c.gnt", bytes(damaged)))
    check(lines, [image for _, image in CHARACTERS[:2]])
    assert "12345 bytes with 19 x 22 pixels; the rest" in lines.rejected[0].reason
    with pytest.raises(HwrError, match="none of 1 lines can be used; the first: 2-c"):
        read_gnt(put(tmp_path / "2-c.gnt", b"text" * 20))


@pytest.mark.parametrize("left", [3, 4 + 2, 4 + 6, 4 + 6 + 8, 4 + 6 + 16, 4 + 6 + 16 + 100])
def test_a_dgrl_file_that_breaks_off(tmp_path, left):
    whole = dgrl(LINES)
    second = len(LINES[1][0]) * 2 + 20 + LINES[1][1].size
    start = len(whole) - second - len(LINES[2][0]) * 2 - 20 - LINES[2][1].size
    lines = read_dgrl(put(tmp_path / "1-P1.dgrl", whole[: start + left]))
    check(lines, [LINES[0][1]])
    assert [bad.name for bad in lines.rejected] == ["1-P1.dgrl#1", "1-P1.dgrl#2"]
    assert f"line 2 of 3: the file breaks off: {start + left} bytes" in lines.rejected[0].reason
    assert "line 3 of 3" in lines.rejected[1].reason
    # Codes that are there count as wrong in an evaluation.
    assert lines.rejected[0].text == ("GB码" if left >= 10 else "")
    assert lines.rejected[1].text == ""


def test_codes_that_are_no_characters_reject_their_line_alone(tmp_path):
    odd = [
        LINES[0],
        ([b"\xb0\xa1", CROSSED_OUT, b"a"], line_image()),
        ([b"\xb0\xa1", b"\0\0"], line_image()),
        ([b"ab"], line_image()),  # two characters in one place
        ([], line_image()),
        ([b"a"], np.zeros((0, 40), np.uint8)),
        ([b"\x07"], line_image()),
        LINES[2],
    ]
    lines = read_dgrl(put(tmp_path / "1-P1.dgrl", dgrl(odd)))
    assert [item.text for item in lines.items] == ["我们3个人。", "第三行"]
    check(lines, [LINES[0][1], LINES[2][1]])
    parts = ["ff ff", "code 00 00", "code 61 62", "empty", "40 x 0 pixels", "U+0007"]
    assert len(lines.rejected) == len(parts)
    for bad, part in zip(lines.rejected, parts, strict=True):
        assert part in bad.reason
    assert lines.rejected[0].text == "啊a"
    characters = [CHARACTERS[0], (CROSSED_OUT, line_image()), CHARACTERS[1], (b"x", np.zeros((0, 3), np.uint8))]
    lines = read_gnt(put(tmp_path / "1-c.gnt", gnt([*characters, CHARACTERS[2]])))
    assert [item.text for item in lines.items] == ["啊", "A", "5"]
    assert len(lines.rejected) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dgrl(LINES, kind=b"DGR"), "not a DGRL file: its format code is b'DGR'"),
        (dgrl(LINES, bits=1), "1 bits a pixel"),
        (dgrl(LINES, code_length=3), "3 bytes a code"),
        (b"", "empty"),
        (b"\x40\0\0", "breaks off"),
        (dgrl(LINES)[:60], "breaks off"),
        (b"\x10\0\0\0" + dgrl(LINES)[4:], "not a DGRL file"),
        (b"\xff\xff\xff\xff" + dgrl(LINES)[4:], "breaks off"),
        (dgrl([])[:-4] + b"\xff\xff\xff\x7f", "damaged: 2147483647 lines"),
        (dgrl([])[:-4] + struct.pack("<II", 1, 0xFFFFFFFF) + bytes(50), "breaks off"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    with pytest.raises(HwrError, match=message):
        read_dgrl(put(tmp_path / "x-y.dgrl", content))
    put(tmp_path / "1-P1.dgrl", dgrl(LINES))
    lines = read_dgrl(tmp_path)  # beside a good one it is only rejected
    assert len(lines) == 3
    assert len(lines.rejected) == 1


def test_folders_and_the_official_split(tmp_path):
    for folder, names in {
        "HWDB2.0Train": ["001-P16", "002-P16"],
        "HWDB2.1Train": ["301-P16"],
        "HWDB2.0Test": ["003-P16"],
    }.items():
        for name in names:
            put(tmp_path / folder / f"{name}.dgrl", dgrl(LINES))
    splits = read_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 9, "test": 3}
    assert len({item.name for part in splits.values() for item in part.items}) == 12
    assert {item.writer for item in splits["train"].items} == {"001", "002", "301"}
    assert splits["test"].items[0].name == "HWDB2.0Test/003-P16.dgrl#0"
    put(tmp_path / "HWDB2.0Test" / "001-P17.dgrl", dgrl(LINES))
    with pytest.raises(HwrError, match="the writer '001' is in "):
        read_splits(tmp_path)
    put(tmp_path / "g" / "HWDB1.1trn_gnt" / "1001-c.gnt", gnt(CHARACTERS))
    put(tmp_path / "g" / "HWDB1.1tst_gnt" / "1241-c.gnt", gnt(CHARACTERS))
    assert {name: len(part) for name, part in read_splits(tmp_path / "g", read_gnt).items()} == {"train": 5, "test": 5}
    assert list(read_splits(tmp_path / "g" / "HWDB1.1trn_gnt", read_gnt)) == ["train"]
    with pytest.raises(HwrError, match=r"no \.dgrl file in it"):
        read_splits(tmp_path / "g")
    with pytest.raises(HwrError, match="no such folder"):
        read_splits(tmp_path / "nowhere")
    with pytest.raises(HwrError, match="no image"):
        read_gnt(tmp_path / "nowhere.gnt")


def test_releases_in_folders_of_their_own(tmp_path, caplog):
    for name in ("HWDB2.0/Train/001-P16", "HWDB2.0/Test/003-P16", "HWDB2.1/Train/301-P16", "contest_data/9-P16"):
        put(tmp_path / f"{name}.dgrl", dgrl(LINES))
    splits = read_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 6, "test": 3}
    assert splits["test"].items[0].name == "HWDB2.0/Test/003-P16.dgrl#0"
    assert "not read: contest_data; its name says neither train nor test" in caplog.text


def test_a_file_without_a_hyphen_names_no_writer(tmp_path):
    lines = read_dgrl(put(tmp_path / "page.dgrl", dgrl(LINES)))
    assert {(item.writer, item.text_id) for item in lines.items} == {(None, None)}


def test_a_file_that_changes_after_it_was_listed(tmp_path):
    path = put(tmp_path / "1-P1.dgrl", dgrl(LINES))
    lines = read_dgrl(path)
    path.write_bytes(dgrl(LINES)[:-10])
    np.testing.assert_array_equal(lines.items[0].read(), LINES[0][1])
    with pytest.raises(HwrError, match="has become shorter"):
        lines.items[2].read()
    path.unlink()
    with pytest.raises(HwrError, match="cannot be read"):
        lines.items[0].read()
