"""``hwr.predict`` with a model of lines: images of lines, whole pages, and decoders."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from line_fixtures import PageLine, alto, page_xml, save
from line_model import LEFT, WIDE, texts, written
from PIL import Image

from hwr.data.lines.page_xml import read_page
from hwr.decoding import CharNGram
from hwr.text import Charset

Run = Callable[..., subprocess.CompletedProcess[str]]


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert all(line.startswith("hwr.predict: error: ") for line in lines), done.stderr
    return lines


@pytest.fixture
def scans(tmp_path: Path) -> dict[str, str]:
    """Twelve lines by their paths, as typed, and what they say."""
    return {
        str(save(tmp_path / "scans" / f"{i:02}.png", written(text, 60, seed=i)).relative_to(tmp_path)): text
        for i, text in enumerate(texts(12, seed=21))
    }


# ---- images


def test_formats_agree(call: Run, line_run: Path, scans: dict[str, str], tmp_path: Path) -> None:
    arguments = [f"model={line_run}", "images=scans"]
    done = call("predict", *arguments, "format=json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["image"] for row in rows] == list(scans)
    assert sum(row["text"] == text for row, text in zip(rows, scans.values(), strict=True)) >= 10
    for row in rows:
        assert "".join(c["character"] for c in row["characters"]) == row["text"]
        width = Image.open(tmp_path / row["image"]).size[0]
        edges = [x for c in row["characters"] for x in c["x"]]
        assert edges == sorted(edges)
        assert 0 <= edges[0] < edges[-1] <= width
        assert all(0 <= c["confidence"] <= 1 for c in row["characters"])
    done = call("predict", *arguments, "format=csv", "output=out.csv")
    assert (done.returncode, done.stdout) == (0, "")
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert [list(row) for row in table] == [["image", "text", "confidence"]] * 12
    assert [(r["image"], r["text"], float(r["confidence"])) for r in table] == [
        (r["image"], r["text"], r["confidence"]) for r in rows
    ]
    text = call("predict", *arguments, "columns=500").stdout
    for row in rows:
        assert row["text"] in text
        assert f"{row['confidence']:.1%}" in text


def test_saves_what_the_model_saw_and_warns_of_blank_paper(
    call: Run, line_run: Path, scans: dict[str, str], tmp_path: Path
) -> None:
    save(tmp_path / "scans" / "blank.png", np.full((40, 200), 230, np.uint8))
    done = call("predict", f"model={line_run}", "images=scans", "save_seen=seen", "format=json")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("hwr.predict: warning: scans/blank.png: no ink found")
    for path in scans:
        seen = np.asarray(Image.open(tmp_path / "seen" / Path(path).name))
        assert seen.shape[0] == 32
        assert seen.max() > 200  # light ink on black
        assert np.median(seen) < 30


def test_goes_on_after_a_bad_image(call: Run, line_run: Path, scans: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "scans" / "05b.png").write_bytes(b"\x89PNG\r\n\x1a\n, cut off")
    done = call("predict", f"model={line_run}", "images=scans", "format=json")
    bad, summary = errors(done)
    assert "05b.png" in bad
    assert "1 of 13 images" in summary
    assert [row["image"] for row in json.loads(done.stdout)] == list(scans)


# ---- decoders


def test_where_nothing_can_be_read_nothing_is_written(call: Run, line_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (alone,) = errors(call("predict", f"model={line_run}", "images=a.png", "output=read.csv", "format=csv"))
    assert "a.png: not an image in a known format" in alone
    (tmp_path / "b.png").write_bytes(b"")
    *each, summary = errors(call("predict", f"model={line_run}", "images=*.png", "output=read.csv", "format=csv"))
    assert len(each) == 2
    assert summary.endswith("none of 2 images could be read")
    assert not (tmp_path / "read.csv").exists()


def test_a_regular_expression_is_obeyed(call: Run, line_run: Path, scans: dict[str, str]) -> None:
    for pattern in (r"\d{1,2}/\d{1,2}/\d{2}", r"[0-9]{4}|[^/]{3,7}"):
        arguments = ["decoder=beam", f"decoder.regex={pattern}", "format=json"]
        done = call("predict", f"model={line_run}", "images=scans", *arguments)
        assert done.returncode == 0, done.stderr
        assert all(re.fullmatch(pattern, row["text"]) for row in json.loads(done.stdout))


def test_a_lexicon_is_obeyed(call: Run, line_run: Path, scans: dict[str, str], tmp_path: Path) -> None:
    words = sorted({word for text in scans.values() for word in text.split()})[::2]
    (tmp_path / "words, of mine.txt").write_text("\n".join(words), encoding="utf-8")
    arguments = ["decoder=beam", "decoder.lexicon=words, of mine.txt", "decoder.width=20", "format=json"]
    done = call("predict", f"model={line_run}", "images=scans", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {word for row in rows for word in row["text"].split()} <= set(words)
    assert any(row["text"] == text for row, text in zip(rows, scans.values(), strict=True))


def test_a_language_model_is_followed(call: Run, line_run: Path, scans: dict[str, str], tmp_path: Path) -> None:
    characters = json.loads((line_run / "bundle" / "bundle.json").read_text(encoding="utf-8"))["charset"]
    CharNGram.train(["7 7"] * 50, Charset(characters)).save(tmp_path / "sevens.npz")
    heavy = ["decoder=beam", "decoder.lm=sevens.npz", "decoder.lm_weight=30", "format=json"]
    done = call("predict", f"model={line_run}", "images=scans", *heavy)
    assert done.returncode == 0, done.stderr
    assert {c for row in json.loads(done.stdout) for c in row["text"]} <= set("7 ")
    done = call("predict", f"model={line_run}", "images=scans", *heavy, "decoder.lm_weight=0")
    plain = call("predict", f"model={line_run}", "images=scans", "decoder=beam", "format=json")
    assert done.stdout == plain.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["decoder.lexicon=gone.txt"], "gone.txt"),
        (["decoder.lexicon=latin1.txt"], "latin1.txt: not UTF-8"),
        (["decoder.lexicon=empty.txt"], "empty.txt: the lexicon has no words"),
        (["decoder.lexicon=other.txt"], "other.txt"),
        (["decoder.lexicon=spaced.txt"], "separators"),
        (["decoder.regex=(1"], "'(1'"),
        ([r"decoder.regex=(?i)\d"], "flags"),
        (["decoder.regex=x+"], "'x+'"),
        (["decoder.regex=1", "decoder.lexicon=spaced.txt"], "cannot both"),
        (["decoder.lm=gone.npz"], "gone.npz"),
        (["decoder.lm=empty.txt"], "no n-gram model"),
        (["decoder.lm=greek.npz"], "greek.npz: an n-gram model of another charset"),
        (["decoder.lm_weight=much"], "a number"),
        (["decoder.lm_weight=inf"], "a number"),
        (["decoder.lm_weight=-1"], "at least 0"),
        (["decoder.width=0"], "decoder.width=0"),
        (["decoder.width=wide"], "decoder.width=wide: a whole number"),
        (["decoder.widht=3"], "did you mean decoder.width?"),
    ],
)
def test_decoder_mistakes(settings: list[str], words: str, call: Run, line_run: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", written("1914"))
    (tmp_path / "latin1.txt").write_bytes("été".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "other.txt").write_text("word\n")
    (tmp_path / "spaced.txt").write_text("12 34\n")
    CharNGram.train(["αβγ"], Charset("αβγ")).save(tmp_path / "greek.npz")
    (line,) = errors(call("predict", f"model={line_run}", "images=a.png", "decoder=beam", *settings))
    assert words in line


def test_an_unknown_decoder_is_named_with_the_known_ones(call: Run) -> None:
    (line,) = errors(call("predict", "images=a.png", "decoder=beem"))
    assert "did you mean beam?" in line
    (line,) = errors(call("predict", "images=a.png", "decoder.regex=1"))
    assert "decoder.regex is a key of decoder=beam; add that as well" in line


def test_what_is_for_lines_is_refused_for_characters(call: Run, tmp_path: Path) -> None:
    save(tmp_path / "a.png", written("7"))
    (tmp_path / "a.xml").write_text(alto([PageLine()]), encoding="utf-8")
    (line,) = errors(call("predict", "images=a.png", "decoder=beam"))
    assert "single characters" in line
    (line,) = errors(call("predict", "pages=a.xml"))
    assert "single characters" in line


# ---- pages

TOP, STEP = 30, 70


def page(folder: Path, name: str, lines: list[str], kind: str = "alto", **changes: str) -> Path:
    """An image of a page, and its XML, whose transcripts are wrong."""
    sheet = np.full((TOP + STEP * len(lines), 400), 225, np.uint8)
    xml_lines = []
    for i, text in enumerate(lines):
        image, top = written(text, seed=i), TOP + STEP * i
        sheet[top : top + 40, 20 : 20 + image.shape[1]] = image
        right, bottom = 20 + image.shape[1] - 1, top + 39
        box = (20, top, image.shape[1], 40)
        shape = f"20,{top} {right},{top} {right},{bottom} 20,{bottom}"
        xml_lines.append(PageLine("stale words", shape, f"20,{top + 30} {right},{top + 30}", box))
    save(folder / f"{name}.png", sheet)
    make = alto if kind == "alto" else page_xml
    content = make(xml_lines, size=(400, sheet.shape[0]), image=f"{name}.png")
    for old, new in changes.items():
        content = content.replace(old, new)
    (folder / f"{name}.xml").write_text(content, encoding="utf-8")
    return folder / f"{name}.xml"


@pytest.mark.parametrize("kind", ["alto", "page"])
def test_a_page_is_read_into_a_copy_of_its_xml(call: Run, line_run: Path, tmp_path: Path, kind: str) -> None:
    lines = texts(8, seed=31)
    xml = page(tmp_path, "sheet", lines, kind)
    original = xml.read_bytes()
    done = call("predict", f"model={line_run}", "pages=sheet.xml")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found = re.fullmatch(r"sheet.xml: 8 lines, mean confidence ([\d.]+)% -> sheet.hwr.xml", line)
    assert found
    assert xml.read_bytes() == original
    before, after = read_page(xml), read_page(tmp_path / "sheet.hwr.xml")
    assert (before.image, before.size) == (after.image, after.size)
    assert [(a.id, a.polygon, a.baseline) for a in after.lines] == [(b.id, b.polygon, b.baseline) for b in before.lines]
    assert sum(a.text == text for a, text in zip(after.lines, lines, strict=True)) >= 7
    content = (tmp_path / "sheet.hwr.xml").read_text(encoding="utf-8")
    per_line = r'<String [^>]*WC="([\d.]+)"' if kind == "alto" else r'<TextEquiv conf="([\d.]+)"'
    confidences = [float(value) for value in re.findall(per_line, content)]
    assert len(confidences) >= 8
    assert 0 < min(confidences) <= max(confidences) <= 1
    if kind == "page":
        assert 100 * np.mean(confidences) == pytest.approx(float(found[1]), abs=0.06)
    # the same lines as images
    for i, text in enumerate(lines):
        save(tmp_path / "cut" / f"{i}.png", written(text, seed=i))
    rows = json.loads(call("predict", f"model={line_run}", "images=cut", "format=json").stdout)
    assert [row["text"] for row in rows] == [line.text for line in after.lines]


def test_folders_patterns_and_output(call: Run, line_run: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        page(tmp_path / "in" / folder, "sheet", texts(2, seed=40))
    assert call("predict", f"model={line_run}", "pages=in/*/*.xml", "output=out").returncode == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sheet.xml", "sheet_2.xml"]
    assert call("predict", f"model={line_run}", "pages=in/a").returncode == 0
    done = call("predict", f"model={line_run}", "pages=in/a")  # what was written is not read again
    assert done.returncode == 0
    assert sorted(p.name for p in (tmp_path / "in" / "a").iterdir()) == ["sheet.hwr.xml", "sheet.png", "sheet.xml"]
    done = call("predict", f"model={line_run}", "pages=[in/a/sheet.xml,in/b/sheet.xml]", "decoder=beam", "output=beam")
    assert len(done.stdout.splitlines()) == 2
    done = call("predict", f"model={line_run}", "pages=in/a/sheet.xml", "output=one.xml")
    assert (tmp_path / "one.xml").is_file()


def test_lines_and_pages_that_cannot_be_read_leave_the_others(call: Run, line_run: Path, tmp_path: Path) -> None:
    lines = texts(3, seed=50)
    folder = tmp_path / "in"
    page(folder, "good", lines)
    page(folder, "part", lines, **{f"{TOP + STEP} ": "x "})
    page(folder, "gone", lines)
    (folder / "gone.png").unlink()
    page(folder, "broken", lines)
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "bare.xml").write_text(alto([]), encoding="utf-8")
    (folder / "cut.xml").write_text("<alto><Layout>", encoding="utf-8")
    (folder / "mets.xml").write_text("<mets/>", encoding="utf-8")
    done = call("predict", f"model={line_run}", "pages=in")
    *problems, summary = errors(done)
    assert "could not be read or written; the others were" in summary
    for name, words in {
        "bare.xml": "no TextLine",
        "cut.xml": "not well-formed",
        "mets.xml": "neither ALTO nor PAGE",
        "gone.xml": "no image",
        "broken.xml": "broken.png",
        "part.xml, line l1": "coordinate",
    }.items():
        (line,) = [line for line in problems if f"in/{name}" in line]
        assert words in line, line
    assert len(problems) == 6
    told = [line.split(", mean")[0] for line in done.stdout.splitlines()]
    assert told == ["in/good.xml: 3 lines", "in/part.xml: 2 lines"]
    assert sorted(p.name for p in folder.glob("*.hwr.xml")) == ["good.hwr.xml", "part.hwr.xml"]
    good, part = (read_page(folder / f"{name}.hwr.xml").lines for name in ("good", "part"))
    assert part[1].text == "stale words"
    assert (part[0].text, part[2].text) == (good[0].text, good[2].text)


def test_a_table_of_paths_with_brackets(call: Run, line_run: Path, tmp_path: Path) -> None:
    names = ["[scan]/a[b]c.png", "x[/]y.png", "[red]z.png"]
    for name in names:
        save(tmp_path / "in" / name, written("12 34", 60))
    done = call("predict", f"model={line_run}", "images=[" + ",".join(f"'in/{name}'" for name in names) + "]")
    assert done.returncode == 0, done.stderr
    assert [f"in/{name}" in done.stdout for name in names] == [True] * 3


def test_where_to_write_is_looked_at_before_reading(call: Run, line_run: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", written("12 34", 60))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    page(tmp_path / "in", "gone", ["1914"])
    (tmp_path / "in" / "gone.png").unlink()
    for settings, words in (
        (["images=a.png", "output=folder"], "output=folder: a folder; the name of a file is needed"),
        (["images=a.png", "output="], "output=: the name of a file is needed"),
        (["images=a.png", "output=file/x.csv"], "file/x.csv: a file stands where a folder is needed"),
    ):
        (line,) = errors(call("predict", f"model={line_run}", *settings))
        assert words in line
    *_, summary = errors(call("predict", f"model={line_run}", "pages=in/gone.xml"))
    assert "1 pages or lines could not be read or written; so nothing was written" in summary
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "file", "folder", "in"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "images must be given"),
        (["pages=sheet.xml", "images=sheet.png"], "cannot both"),
        (["pages=nothing"], "pages=nothing: no .xml"),
        (["pages=empty"], "pages=empty: no .xml"),
        (["pages=sheet.xml", "output=sheet.xml"], "never overwritten"),
        (["pages=sheet.xml", "output=."], "never overwritten"),
        (["pages=sheet.xml", "format=json"], "format"),
        (["pages=sheet.xml", "save_seen=seen"], "save_seen"),
        (["pages=[sheet.xml,other.xml]", "output=one.xml"], "name a folder"),
    ],
)
def test_page_mistakes(settings: list[str], words: str, call: Run, line_run: Path, tmp_path: Path) -> None:
    original = page(tmp_path, "sheet", ["1914"]).read_bytes()
    page(tmp_path, "other", ["1915"])
    (tmp_path / "empty").mkdir()
    (line,) = errors(call("predict", f"model={line_run}", *settings))
    assert words in line
    assert (tmp_path / "sheet.xml").read_bytes() == original


def test_slanting_lines_are_straightened_on_demand(call: Run, line_run: Path, tmp_path: Path) -> None:
    text, angle = "12 34", 14.0
    image = written(text)
    sheet = np.full((200, 300), 225, np.uint8)
    sheet[80:120, 60 : 60 + image.shape[1]] = image
    matrix = cv2.getRotationMatrix2D((150, 100), -angle, 1)
    sheet = cv2.warpAffine(sheet, matrix, (300, 200), borderValue=225)
    corners = np.array([[60, 80], [60 + image.shape[1] - 1, 80], [60 + image.shape[1] - 1, 119], [60, 119]], float)
    turned = corners @ matrix[:, :2].T + matrix[:, 2]
    base = np.array([[60.0 + LEFT, 110], [60 + LEFT + 5 * WIDE, 110]]) @ matrix[:, :2].T + matrix[:, 2]
    points = [" ".join(f"{x:.1f},{y:.1f}" for x, y in part) for part in (turned, base)]
    save(tmp_path / "page.png", sheet)
    line = PageLine("stale", points[0], points[1], None)
    (tmp_path / "page.xml").write_text(alto([line], size=(300, 200)), encoding="utf-8")
    assert call("predict", f"model={line_run}", "pages=page.xml", "straighten=true").returncode == 0
    assert read_page(tmp_path / "page.hwr.xml").lines[0].text == text


def test_a_run_can_be_copied_anywhere(call: Run, line_run: Path, tmp_path: Path, scans: dict[str, str]) -> None:
    awkward = tmp_path / "a bundle (1), x=2 [it's ok]"
    shutil.copytree(line_run / "bundle", awkward)
    done = call("predict", f"model={awkward}", "images=scans", "format=csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == call("predict", f"model={line_run}", "images=scans", "format=csv").stdout
