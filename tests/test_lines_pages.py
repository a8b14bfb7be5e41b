"""Lines of page images with ALTO and PAGE XML: every way to say where a line is, what it says, and to get it wrong."""

from __future__ import annotations

import os
import pickle
import re
import threading
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from line_fixtures import PageLine, alto, page_image, page_xml, save
from PIL import Image

from hwr.data.lines import Lines, check_disjoint
from hwr.data.lines.page_xml import page_text, read_page
from hwr.data.lines.pages import find_image, line_crops, read_pages, read_splits
from hwr.data.lines.polygons import cut, cut_straight
from hwr.data.lines.write_back import write_back
from hwr.errors import HwrError

HYP_LINE = (
    '<String CONTENT="la" WC="0.1"/><SP WIDTH="5"/>'
    '<String CONTENT="recon" SUBS_TYPE="HypPart1" SUBS_CONTENT="reconnaissance"/><HYP CONTENT="{}"/>'
)


def make(folder: Path, content: str, image: str | None = "page.png", name: str = "page.xml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
    if image:
        save(folder / image, page_image())
    return folder / name


def only(lines: Lines) -> np.ndarray:
    assert [str(bad) for bad in lines.rejected] == []
    (item,) = lines.items
    return item.read()


def why(lines: list) -> dict[str, str]:
    return {line.id: str(crop) for line, crop in lines if isinstance(crop, HwrError)}


BOX = page_image()[30:61, 20:181]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_alto_versions(tmp_path, version):
    lines = read_pages(make(tmp_path, alto([PageLine("Où ça ?")], version)))
    assert [(item.name, item.text, item.text_id) for item in lines.items] == [("page.xml#l0", "Où ça ?", "page")]
    np.testing.assert_array_equal(only(lines), BOX)


@pytest.mark.parametrize("version", ["2013-07-15", "2016-07-15", "2017-07-15", "2018-07-15", "2019-07-15"])
@pytest.mark.parametrize("prefix", ["", "pc:"])
def test_page_versions(tmp_path, version, prefix):
    lines = read_pages(make(tmp_path, page_xml([PageLine("Où < ça ?")], version, prefix=prefix)))
    assert lines.items[0].text == "Où < ça ?"
    np.testing.assert_array_equal(only(lines), BOX)


def test_outside_the_polygon_is_paper(tmp_path):
    image = np.full((300, 200), 200, np.uint8)
    image[::7] = 30
    make(tmp_path, alto([PageLine(polygon="20,30 180,30 100,90", box=None)]), None)
    save(tmp_path / "page.png", image)
    crop = only(read_pages(tmp_path))
    assert crop.shape == (61, 161)
    rows, columns = np.indices(crop.shape)
    inside = (columns >= rows * 80 / 60 + 1) & (160 - columns >= rows * 80 / 60 + 1)
    outside = (columns < rows * 80 / 60 - 1) | (160 - columns < rows * 80 / 60 - 1)
    np.testing.assert_array_equal(crop[inside], image[30:91, 20:181][inside])
    assert (crop[outside] == 200).all()
    assert outside.mean() > 0.4


def test_an_outline_that_crosses_itself_has_no_holes():
    image = page_image()
    winding = [(20, 30), (180, 30), (180, 60), (60, 60), (60, 40), (140, 40), (140, 60), (20, 60)]  # the middle twice
    np.testing.assert_array_equal(cut(image, winding), BOX)


def test_box_alone_baseline_alone_and_degenerate_polygons(tmp_path):
    lines = [
        PageLine(polygon=None, baseline=None),
        PageLine(polygon="20,30 180,30", baseline=None),  # two points
        PageLine(polygon="20,30 20,30 20,30", baseline=None),  # no area
        PageLine(polygon=None, baseline="20,52 180,52", box=None),
        PageLine(polygon=None, baseline="20,92 180,92", box=None),
        PageLine(polygon=None, baseline="52", box=(20, 30, 161, 31)),  # ALTO 2: one number
    ]
    found = read_pages(make(tmp_path, alto(lines, 3)))
    assert len(found) == 6
    for i in (0, 1, 2, 5):
        np.testing.assert_array_equal(found.items[i].read(), BOX)
    assert found.items[5].image.baseline == ((20, 52), (181, 52))
    # The median distance of the baselines is 40: 30 above and 12 below.
    np.testing.assert_array_equal(found.items[3].read(), page_image()[22:65, 20:181])
    np.testing.assert_array_equal(found.items[4].read(), page_image()[62:105, 20:181])


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("offset", [0, 5, 30])
def test_baselines_alone_of_two_columns_and_of_a_page_on_its_side(tmp_path, down, offset):
    """The distance to the next line is that across the line and in its own column."""
    lines = [(100, 500 + 60 * i, 380, 500 + 60 * i) for i in range(4)]
    lines += [(420, 500 + offset + 60 * i, 700, 500 + offset + 60 * i) for i in range(4)]
    if down:  # turned by 90 degrees
        lines = [(900 - y, x, 900 - v, u) for x, y, u, v in lines]
    given = [PageLine(polygon=None, baseline=f"{x},{y} {u},{v}", box=None) for x, y, u, v in lines]
    make(tmp_path, page_xml(given, size=(900, 900)), None)
    save(tmp_path / "page.png", page_image(900, 900))
    for item in read_pages(tmp_path).items:
        assert sorted(item.read().shape) == [64, 281]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_size_of_a_page_that_is_turned_by_its_tag(tmp_path, suffix):
    page = np.ascontiguousarray(np.rot90(page_image()))  # stored on its side, 200 high and 300 wide
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(page).save(tmp_path / f"page.{suffix}", exif=exif, quality=100)
    (tmp_path / "page.xml").write_text(page_xml([PageLine("a")], image=f"page.{suffix}"))
    crop = only(read_pages(tmp_path))
    assert np.abs(crop.astype(int) - BOX).mean() < 3


def test_older_ways_to_say_where_a_line_is_and_what_it_says(tmp_path):
    """Points as elements, an empty version before the one that counts, plain text, glyphs; a bow tie."""
    content = page_xml([PageLine(str(i)) for i in range(4)])
    equiv = "<TextEquiv{}><{}>{}</{}></TextEquiv>"
    texts = [
        equiv.format(' index="0"', "Unicode", "", "Unicode") + equiv.format(' index="1"', "Unicode", "un", "Unicode"),
        equiv.format("", "PlainText", "deux", "PlainText"),
        "<Word>" + "".join(f"<Glyph>{equiv.format('', 'Unicode', c, 'Unicode')}</Glyph>" for c in "ab") + "</Word>",
    ]
    root = ET.fromstring(content)
    space = root.tag.partition("}")[0] + "}"
    for line, text in zip(root.iter(f"{space}TextLine"), [*texts, None], strict=True):
        coords = line.find(f"{space}Coords")
        if text is None:
            coords.set("points", "20,30 180,60 180,30 20,60")
            continue
        line.remove(line.find(f"{space}TextEquiv"))
        line.extend(ET.fromstring(f'<x xmlns="{space[1:-1]}">{text}</x>'))
        for point in coords.attrib.pop("points").split():
            ET.SubElement(coords, f"{space}Point", dict(zip("xy", point.split(","), strict=True)))
    found = read_pages(make(tmp_path, ET.tostring(root, encoding="unicode")))
    assert [item.text for item in found.items] == ["un", "deux", "ab", "3"]
    for item in found.items[:3]:
        np.testing.assert_array_equal(item.read(), BOX)
    assert found.items[3].read().shape == BOX.shape


@pytest.mark.parametrize(
    ("unit", "size", "line"),
    [
        ("mm10", (169.33, 254.0), "16.933,25.4 152.4,25.4 152.4,50.8 16.933,50.8"),  # 300 dpi
        ("inch1200", (800, 1200), "80,120 720,120 720,240 80,240"),
        ("pixel", (400, 600), "40,60 360,60 360,120 40,120"),  # the image was halved
    ],
)
def test_units_are_scaled_by_the_size_of_the_page(tmp_path, unit, size, line):
    found = read_pages(make(tmp_path, alto([PageLine(polygon=line, baseline=line, box=None)], unit=unit, size=size)))
    np.testing.assert_allclose(found.items[0].image.baseline, [(20, 30), (180, 30), (180, 60), (20, 60)], atol=0.01)
    crop = only(found)
    assert abs(crop.shape[0] - 31) <= 2
    assert abs(crop.shape[1] - 161) <= 2
    np.testing.assert_array_equal(crop[:30, :160], page_image()[30:60, 20:180])


def test_a_page_without_a_scale_or_of_another_shape_is_rejected(tmp_path):
    unknown = "furlong"
    cases = {
        "scale.xml": (alto([PageLine()], unit="mm10", size=None), "no scale"),
        "shape.xml": (alto([PageLine()], size=(300, 200)), "not the same shape"),
        "unit.xml": (alto([PageLine()], unit=unknown), "'furlong' is none of"),
    }
    for name, (content, _) in cases.items():
        make(tmp_path, content, name=name)
    make(tmp_path, alto([PageLine("sans taille")], size=None), name="ok.xml")  # in pixels no size is needed
    found = read_pages(tmp_path)
    assert [item.text for item in found.items] == ["sans taille"]
    messages = {bad.name.partition("#")[0]: bad.reason for bad in found.rejected}
    assert all(part in messages[name] for name, (_, part) in cases.items())
    assert {bad.text for bad in found.rejected if "#" in bad.name} == {"un mot"}


def test_a_turned_photograph_is_measured_as_it_is_read(tmp_path):
    make(tmp_path, alto([PageLine()]), None, "page.xml")
    upright = page_image()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "page.png", exif=exif)
    np.testing.assert_array_equal(only(read_pages(tmp_path)), BOX)


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ('<String CONTENT="un"/><SP/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT="un"/><String CONTENT="mot"/>', "un mot"),  # no SP anywhere
        ('<String CONTENT="l\'"/><String CONTENT="eau"/><SP/><String CONTENT="va"/>', "l'eau va"),
        (HYP_LINE.format("-"), "la recon-"),
        (HYP_LINE.format("\u00ad"), "la recon-"),
        (HYP_LINE.format("="), "la recon="),
        ('<String CONTENT="recon-" SUBS_CONTENT="reconnaissance"/><HYP CONTENT="-"/>', "recon-"),  # said twice
        ('<String CONTENT="naissance" SUBS_TYPE="HypPart2" SUBS_CONTENT="reconnaissance"/>', "naissance"),
        ('<String CONTENT="une phrase entière"><ALTERNATIVE>autre</ALTERNATIVE></String>', "une phrase entière"),
        ('<String CONTENT="&amp;c. &lt;x&gt; &#233;"/>', "&c. <x> é"),
    ],
)
def test_alto_words_spaces_and_hyphens(tmp_path, inner, text):
    assert [i.text for i in read_pages(make(tmp_path, alto([PageLine(inner=inner)], 2))).items] == [text]


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (
            "<TextEquiv index='1'><Unicode>b</Unicode></TextEquiv>"
            "<TextEquiv index='0'><Unicode>a</Unicode></TextEquiv>",
            "a",
        ),
        ("<TextEquiv><PlainText>x</PlainText><Unicode>a\nb</Unicode></TextEquiv>", "a b"),
        (
            "<Word id='w1'><Coords points='0,0 1,1'/><TextEquiv><Unicode>deux</Unicode></TextEquiv></Word>"
            "<Word id='w2'><TextEquiv><Unicode>mots</Unicode></TextEquiv></Word>",
            "deux mots",
        ),
        (
            "<Word id='w1'><TextEquiv><Unicode>MOT</Unicode></TextEquiv></Word>"
            "<TextEquiv><Unicode>la ligne</Unicode></TextEquiv>",
            "la ligne",
        ),
    ],
)
def test_page_text(tmp_path, inner, text):
    assert [i.text for i in read_pages(make(tmp_path, page_xml([PageLine(inner=inner)]))).items] == [text]


@pytest.mark.parametrize("kind", ["alto", "page"])
def test_every_bad_line_is_rejected_alone(tmp_path, kind):
    lines = [
        PageLine("bonne"),
        PageLine("sans coordonnées", polygon=None, baseline=None, box=None),
        PageLine("dehors", polygon="220,30 380,30 380,60 220,60"),
        PageLine("à moitié dehors", polygon="120,30 280,30 280,60 120,60"),
        PageLine("un peu dehors", polygon="-3,30 180,30 180,60 -3,60"),
        PageLine(""),
        PageLine(" \u00a0 "),
        PageLine("impaire", polygon="20,30 180,30 180"),
        PageLine("pas un nombre", polygon="20,30 180,x 20,60"),
        PageLine("infini", polygon="20,30 1e300,30 20,60"),
        PageLine("double", id="l0"),
        PageLine("dernière", id=""),
    ]
    found = read_pages(make(tmp_path, alto(lines) if kind == "alto" else page_xml(lines)))
    assert [(i.name, i.text) for i in found.items] == [
        ("page.xml#l0", "bonne"),
        ("page.xml#l4", "un peu dehors"),
        ("page.xml#line_12", "dernière"),
    ]
    assert found.items[1].read().shape == (31, 181)
    messages = [str(bad) for bad in found.rejected]
    parts = [
        "no coordinates",
        "(220, 30) to (380, 60) is outside the page of 200 x 300",
        "is outside the page",
        "empty",
        "empty",
        "odd number",
        "'x' is no coordinate",
        "no coordinate",
        "name already",
    ]
    for message, part in zip(messages, parts, strict=True):
        assert part in message, message
    assert found.rejected[0].text == "sans coordonnées"


def test_the_image_is_found_by_name_else_by_stem(tmp_path):
    cases = {
        "plain": ("page.png", "page.png"),
        "folder": ("scans/p1.png", "scans/p1.png"),
        "windows": ("C:\\scans\\p1.png", "p1.png"),
        "address": ("file:///elsewhere/p1.png", "p1.png"),
        "escaped": ("my%20page%281%29.png", "my page(1).png"),
        "stem": ("gone.tif", "page.PNG"),
        "unnamed": ("", "page.jpg"),
    }
    for name, (named, image) in cases.items():
        make(tmp_path / name, alto([PageLine(name)], image=named), image)
    make(tmp_path / "above" / "page", page_xml([PageLine("above")], image="p1.png"), None)
    save(tmp_path / "above" / "p1.png", page_image())
    make(tmp_path / "workspace" / "SEG", page_xml([PageLine("workspace")], image="IMG/p2.png"), None)
    save(tmp_path / "workspace" / "IMG" / "p2.png", page_image())
    absolute = save(tmp_path / "far" / "away" / "p3.png", page_image())
    make(tmp_path / "absolute", alto([PageLine("absolute")], image=str(absolute)), None)
    found = read_pages(tmp_path)
    assert sorted(item.text for item in found.items) == sorted([*cases, "above", "workspace", "absolute"])
    assert all(item.read().shape == BOX.shape for item in found.items)


def test_a_wrong_image_name_and_a_broken_image_reject_the_page_and_not_the_others(tmp_path, caplog):
    make(tmp_path, alto([PageLine("a"), PageLine("b")], image="gone.png"), None, "wrong.xml")
    make(tmp_path, alto([PageLine("c")], image="broken.png"), None, "broken.xml")
    (tmp_path / "broken.png").write_bytes(b"GIF89a, no")
    make(tmp_path, "<mets/>", None, "mets.xml")
    make(tmp_path, "<alto><Layout>", None, "cut.xml")
    make(tmp_path, alto([]), None, "bare.xml")
    make(tmp_path, alto([PageLine("d")]))
    with caplog.at_level("WARNING"):
        found = read_pages(tmp_path)
    assert [item.text for item in found.items] == ["d"]
    assert "passed over 1 XML files that describe no page, such as" in caplog.text  # the METS of an export
    with pytest.raises(HwrError, match="neither ALTO nor PAGE XML: its root element is mets"):
        read_pages(tmp_path / "mets.xml")
    reasons = {bad.name: (bad.reason, bad.text) for bad in found.rejected}
    assert len(reasons) == 5
    assert reasons["wrong.xml#l1"][1] == "b"
    assert "it names gone.png, and there is none called wrong.jpg" in reasons["wrong.xml#l1"][0]
    assert "not an image" in reasons["broken.xml#l0"][0]
    assert "not well-formed" in reasons["cut.xml"][0]
    assert "no TextLine" in reasons["bare.xml"][0]
    with pytest.raises(HwrError, match="none of 2 lines can be used"):
        read_pages(tmp_path / "wrong.xml")


def test_external_entities_are_never_resolved(tmp_path):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP SECRET")
    line = PageLine(inner='<String CONTENT="mot"/>&x;')
    bomb = '<!ENTITY a "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1 if i else str()};" * 10}">' for i in range(9))
    doctypes = {
        "file": f'<!DOCTYPE alto [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        "address": f'<!DOCTYPE alto [<!ENTITY x SYSTEM "{address}/x">]>',
        "parameter": f'<!DOCTYPE alto [<!ENTITY % p SYSTEM "{address}/p.dtd"> %p;]>',
        "bomb": f'<!DOCTYPE alto [{bomb}<!ENTITY x "&a8;">]>',
        "internal": '<!DOCTYPE alto [<!ENTITY x "harmless">]>',
        "undeclared": f'<!DOCTYPE alto SYSTEM "{address}/alto.dtd">',
    }
    try:
        for name, doctype in doctypes.items():
            xml = make(tmp_path, alto([line], doctype=doctype), name=f"{name}.xml")
            for attempt in (read_pages, read_page, lambda p: write_back(p, tmp_path / "out.xml", {})):
                with pytest.raises(HwrError, match="entities of its own") as error:
                    attempt(xml)
                assert "TOP SECRET" not in str(error.value)
        # A document type alone is harmless and is not fetched.
        plain = make(tmp_path, alto([PageLine()], doctype=doctypes["undeclared"]), name="plain.xml")
        assert len(read_pages(plain)) == 1
        write_back(plain, tmp_path / "out.xml", {"l0": ("lu", 0.5)})
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []
    assert not list(tmp_path.glob("*.tmp"))


# Straightening


def wavy_page(angle: float, wave: float) -> tuple[np.ndarray, list[tuple[float, float]], list[tuple[float, float]]]:
    """A page with one dark stroke along a baseline, the baseline, and an outline 20 above and 10 below it."""
    image = np.full((900, 900), 220, np.uint8)
    u = np.linspace(0, 400, 41)
    d = wave * np.sin(u / 400 * 2 * np.pi)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    points = np.stack([400 + u * c - d * s, 430 + u * s + d * c], 1)
    cv2.polylines(image, [np.rint(points * 16).astype(np.int32)], False, 20, 3, cv2.LINE_AA, 4)
    normal = np.array([-s, c])
    outline = np.concatenate([points - 20 * normal, (points + 10 * normal)[::-1]])
    return image, [tuple(p) for p in points], [tuple(p) for p in outline]


@pytest.mark.parametrize(("angle", "wave"), [(0, 0), (0, 15), (12, 0), (-20, 10), (60, 8), (-85, 0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_straightened_lines_are_level(angle, wave, backwards):
    image, baseline, outline = wavy_page(angle, wave)
    backwards = backwards and abs(angle) < 45  # steep lines are given as they are read
    line = cut_straight(image, outline, baseline[::-1] if backwards else baseline)
    assert abs(line.shape[0] - 31) <= 2
    assert abs(line.shape[1] - 401) <= 3
    dark = line[:, 5:-5] < 120
    rows = np.arange(len(line))[:, None]
    heights = (rows * dark).sum(0) / dark.sum(0)
    assert np.ptp(heights) < 1.5
    assert abs(heights.mean() - 20) < 1.5  # the baseline is where it was in the outline
    if angle or wave:
        crooked = cut(image, outline)[:, 5:-5] < 120
        assert np.ptp((np.arange(len(crooked))[:, None] * crooked).sum(0) / np.maximum(crooked.sum(0), 1)) > 10


@pytest.mark.parametrize("angle", [-125, -91, -90, -89, 60, 89, 90, 91, 120])
def test_steep_lines_are_laid_as_they_are_read(angle):
    """Notes in a margin, pages on their side: whichever way they lean, what is above the baseline stays above."""
    image, baseline, outline = wavy_page(angle, 0)
    line = cut_straight(image, outline, baseline)
    dark = line[:, 5:-5] < 120
    assert abs((np.arange(len(line))[:, None] * dark).sum() / dark.sum() - 20) < 1.5


def test_straight_text_keeps_its_pixels_and_straightening_is_an_option(tmp_path):
    xml = make(tmp_path, alto([PageLine(baseline="20,52 180,52"), PageLine(baseline=None)]))
    for item in read_pages(xml, straighten=True).items:
        np.testing.assert_array_equal(item.read(), BOX)
    wavy, baseline, outline = wavy_page(15, 0)
    line = PageLine(
        polygon=" ".join(f"{x:.1f},{y:.1f}" for x, y in outline),
        baseline=" ".join(f"{x:.1f},{y:.1f}" for x, y in baseline),
    )
    xml = make(tmp_path / "w", page_xml([line], size=(900, 900)), None)
    save(tmp_path / "w" / "page.png", wavy)
    assert only(read_pages(xml)).shape[0] > 100
    assert only(read_pages(xml, straighten=True)).shape[0] < 34


def test_straightening_paints_what_is_off_the_page_with_paper():
    image, baseline, outline = wavy_page(-30, 0)
    shifted = [[(x - 450, y) for x, y in points] for points in (baseline, outline)]
    line = cut_straight(image[:, 450:], shifted[1], shifted[0])
    assert line.shape[1] < 370
    assert line.min() < 60
    assert np.median(line[:, :10]) == 220


# Splits, writers, caches


def test_splits_and_writers(tmp_path):
    for split, name in (("train", "a_01_1"), ("train", "a_02_1"), ("val", "a_03_1")):
        make(tmp_path / split, alto([PageLine(name)], image=f"{name}.png"), f"{name}.png", f"{name}.xml")
    splits = read_splits(tmp_path, writer_pattern=r"_(\d+)_")
    assert {n: [(i.text, i.writer) for i in part.items] for n, part in splits.items()} == {
        "train": [("a_01_1", "01"), ("a_02_1", "02")],
        "val": [("a_03_1", "03")],
    }
    make(tmp_path / "test", alto([PageLine("b")], image="a_01_2.png"), "a_01_2.png", "a_01_2.xml")
    with pytest.raises(HwrError, match="writer '01' is in train"):
        read_splits(tmp_path, writer_pattern=r"_(\d+)_")
    make(tmp_path / "test", alto([PageLine("b")], image="a_02_1.png"), "a_02_1.png", "a_02_1.xml")
    again = read_splits(tmp_path)["test"].items  # another page of that name: other documents number theirs alike
    assert [item.text_id for item in again] == ["test/a_01_2", "test/a_02_1"]
    make(tmp_path / "test", alto([PageLine("a_02_1")], image="a_02_1.png"), "a_02_1.png", "a_02_1.xml")
    with pytest.raises(HwrError, match="text 'a_02_1' is in train"):
        read_splits(tmp_path)
    assert list(read_splits(tmp_path / "val")) == ["train"]
    with pytest.raises(HwrError, match="no regular expression"):
        read_pages(tmp_path, writer_pattern="(")


def test_what_is_outside_the_splits_is_told(tmp_path, caplog):
    for name in ("train/a", "valid/b", "test/c"):
        make(
            tmp_path / name[:-2], alto([PageLine(name)], image=f"{name[-1]}.png"), f"{name[-1]}.png", f"{name[-1]}.xml"
        )
    make(tmp_path, "<mets/>", None, "mets.xml")
    with caplog.at_level("WARNING"):
        assert list(read_splits(tmp_path)) == ["train", "test"]
    assert "1 files outside train/, test/ are not read, such as valid/b.xml" in caplog.text
    (tmp_path / "train").rename(tmp_path / "others")
    with pytest.raises(HwrError, match=r"test/ and, outside it, others/a\.xml: put what is for training into train/"):
        read_splits(tmp_path)


def test_an_image_beside_the_page_counts_before_one_of_another_document(tmp_path):
    xml = make(tmp_path / "doc2", alto([PageLine("a")], image="0001.jpg"), None, "0001.xml")
    save(tmp_path / "0001.jpg", page_image(seed=1))
    save(tmp_path / "doc2" / "0001.png", page_image())
    assert find_image(xml, "0001.jpg") == tmp_path / "doc2" / "0001.png"
    assert find_image(xml, "../0001.jpg").resolve() == tmp_path / "0001.jpg"
    (tmp_path / "doc2" / "0001.png").unlink()
    assert find_image(xml, "0001.jpg") == tmp_path / "0001.jpg"


def test_a_word_without_a_text_leaves_no_transcript(tmp_path):
    words = "".join(f"<Word>{text}</Word>" for text in ("<TextEquiv><Unicode>un</Unicode></TextEquiv>", ""))
    assert page_text(ET.fromstring(f"<TextLine>{words}</TextLine>")) == ""


def test_a_baseline_that_leads_far_away_costs_its_line_alone():
    with pytest.raises(HwrError, match="too large to be straightened"):
        cut_straight(page_image(), [(20, 30), (180, 30), (180, 60)], [(20, 50), (100, 9e8), (180, 50)])


def test_items_are_picklable_and_differ_by_geometry_and_option(tmp_path):
    xml = make(tmp_path, alto([PageLine("a"), PageLine("a", polygon="20,31 180,31 180,60")]))
    plain, straight = read_pages(xml), read_pages(xml, straighten=True)
    assert len({i.image for part in (plain, straight) for i in part.items}) == 4
    assert pickle.loads(pickle.dumps(plain)) == plain
    check_disjoint({"train": plain, "val": straight}, ("writer",))
    first = plain.items[0].read()
    first[:] = 0  # a crop is the caller's own
    np.testing.assert_array_equal(plain.items[0].read(), BOX)


# Writing back

TWO_WORDS = (
    '<String CONTENT="vieux" HPOS="20" CC="00000" WC="0.1" SUBS_TYPE="HypPart1" SUBS_CONTENT="vieux-mot">'
    '<Glyph CONTENT="v"/></String><SP/><String CONTENT="mot" HPOS="100" STYLE="bold"/><HYP CONTENT="-"/>'
)


def texts_of(path: Path) -> dict[str, str]:
    return {line.id: line.text for line in read_page(path).lines}


def test_alto_written_back_reads_as_written_and_keeps_the_rest(tmp_path):
    lines = [
        PageLine("un"),
        PageLine(inner=TWO_WORDS),
        PageLine(inner=TWO_WORDS),
        PageLine("intacte"),
        PageLine(inner="<!-- vide -->"),
        PageLine("sans nom", id=""),
        PageLine(inner='<String CONTENT="l"/><String CONTENT="eau"/><SP/><String CONTENT="va"/>'),
    ]
    source = make(tmp_path, alto(lines, 3, doctype="<!-- avant -->\n<?keep me?>\n"))
    out = tmp_path / "sub" / "out.xml"
    readings = {
        "l0": ('lu & <"écrit">', 0.98765),
        "l1": ("neuf deux", 0.5),
        "l2": ("bien plus de mots", 1.7),
        "l4": ("apparu", float("nan")),
        "line_6": ("anonyme", 0.0),
        "l6": ("trois mots lus", 1.0),
    }
    write_back(source, out, readings)
    assert texts_of(out) == {**{k: v[0] for k, v in readings.items()}, "l3": "intacte"}
    content = out.read_text(encoding="utf-8")
    for kept in (
        "<!-- avant -->",
        "<?keep me?>",
        "<!-- made by hand -->",
        "<!-- kept -->",
        "<!-- vide -->",
        "xmlns:xlink=",
    ):
        assert kept in content
    assert content.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    space = "{http://www.loc.gov/standards/alto/ns-v3#}"
    before, after = ({e.get("ID"): e for e in ET.parse(p).iter(f"{space}TextLine")} for p in (source, out))
    assert [e.attrib for e in before.values()] == [e.attrib for e in after.values()]
    assert [e.find(f".//{space}Polygon").attrib for e in before.values()] == [
        e.find(f".//{space}Polygon").attrib for e in after.values()
    ]
    assert ET.tostring(before["l3"]) == ET.tostring(after["l3"])
    words = after["l1"].findall(f"{space}String")
    assert [dict(w.attrib) for w in words] == [
        {"CONTENT": "neuf", "HPOS": "20", "WC": "0.5000"},
        {"CONTENT": "deux", "HPOS": "100", "STYLE": "bold", "WC": "0.5000"},
    ]
    assert after["l1"].find(f"{space}HYP") is None
    assert not list(after["l1"].iter(f"{space}Glyph"))
    (whole,) = after["l2"].findall(f"{space}String")
    assert (whole.get("HPOS"), whole.get("WIDTH"), whole.get("WC")) == ("20", "161", "1.0000")
    assert after["l0"].find(f"{space}String").get("WC") == "0.9877"
    assert after["l4"].find(f"{space}String").get("WC") == "0.0000"


@pytest.mark.parametrize("prefix", ["", "pc:"])
def test_page_written_back_reads_as_written_and_keeps_the_rest(tmp_path, prefix):
    p = prefix
    words = "".join(
        f'<{p}Word id="w{i}"><{p}Coords points="0,0 9,0 9,9"/><{p}TextEquiv conf="0.1"><{p}Unicode>{t}</{p}Unicode>'
        f"</{p}TextEquiv></{p}Word>"
        for i, t in enumerate(("vieux", "mot"))
    )
    equiv = f"<{p}TextEquiv index='{{}}'><{p}PlainText>p</{p}PlainText><{p}Unicode>{{}}</{p}Unicode></{p}TextEquiv>"
    lines = [
        PageLine("un"),
        PageLine(inner=words + equiv.format(1, "autre") + equiv.format(0, "vieux mot")),
        PageLine(inner=words + equiv.format(0, "vieux mot")),
        PageLine("intacte"),
        PageLine(inner=f"<{p}TextStyle bold='true'/>"),
    ]
    source = make(tmp_path, page_xml(lines, "2013-07-15", prefix=prefix, region_text="vieux"))
    readings = {
        "l0": ("lu & <écrit>", 0.9),
        "l1": ("neuf deux", 0.5),
        "l2": ("un seul mot", 0.25),
        "l4": ("apparu", 1.0),
    }
    write_back(source, source, readings)
    assert texts_of(source) == {**{k: v[0] for k, v in readings.items()}, "l3": "intacte"}
    content = source.read_text(encoding="utf-8")
    assert "<!-- kept -->" in content
    assert content.count("PlainText>p<") == 1  # of the version that was not read
    assert f'<{p}PcGts xmlns{":pc" if p else ""}="http://schema.primaresearch.org' in content
    space = "{http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15}"
    root = ET.parse(source).getroot()
    after = {e.get("id"): e for e in root.iter(f"{space}TextLine")}
    assert after["l0"].find(f"{space}TextEquiv").get("conf") == "0.9000"
    assert [e.get("index") for e in after["l1"].findall(f"{space}TextEquiv")] == ["1", "0"]
    assert [e.findtext(f"{space}Unicode") for e in after["l1"].findall(f"{space}TextEquiv")] == ["autre", "neuf deux"]
    assert [w.findtext(f"{space}TextEquiv/{space}Unicode") for w in after["l1"].findall(f"{space}Word")] == [
        "neuf",
        "deux",
    ]
    assert [w.find(f"{space}TextEquiv") for w in after["l2"].findall(f"{space}Word")] == [None, None]
    assert [e.tag.removeprefix(space) for e in after["l4"]] == ["Coords", "Baseline", "TextEquiv", "TextStyle"]
    region = root.find(f".//{space}TextRegion/{space}TextEquiv/{space}Unicode").text
    assert region == "lu & <écrit>\nneuf deux\nun seul mot\nintacte\napparu"


def test_a_hyphen_that_is_read_stays_one(tmp_path):
    divided = '<String CONTENT="recon" SUBS_TYPE="HypPart1" SUBS_CONTENT="reconnu"/><HYP CONTENT="{}"/>'
    marks, read = ("-", "\u00ad", "-", "-", "-"), ("recon-", "recon-", "raison-", "recon", "recon -")
    source = make(tmp_path, alto([PageLine(inner=divided.format(mark)) for mark in marks]))
    write_back(source, source, {f"l{i}": (text, 0.5) for i, text in enumerate(read)})
    assert tuple(texts_of(source).values()) == read
    space = "{http://www.loc.gov/standards/alto/ns-v4#}"
    lines = list(ET.parse(source).iter(f"{space}TextLine"))
    strings = [line.find(f"{space}String") for line in lines]
    assert [string.get("CONTENT") for string in strings] == ["recon", "recon", "raison", "recon", "recon -"]
    assert [string.get("SUBS_CONTENT") for string in strings] == ["reconnu", "reconnu", None, None, None]
    assert [line.find(f"{space}HYP") is not None for line in lines] == [True, True, True, False, False]


def test_regions_in_regions_follow_and_attributes_keep_their_line_breaks(tmp_path):
    content = page_xml([PageLine("un"), PageLine("deux")], region_text="vieux")
    before, region, rest = re.fullmatch(r"(.*)(<TextRegion.*</TextRegion>)(.*)", content, re.DOTALL).groups()
    custom = "a&#10;b&#9;c&#13;d &amp;#10;"
    outer = f'<TextRegion id="outer" custom="{custom}"><Coords points="0,0 9,9"/>{region}'
    outer += "<TextEquiv><Unicode>plus vieux</Unicode></TextEquiv></TextRegion>"
    source = make(tmp_path, before + outer + rest)
    write_back(source, source, {"l0": ("lu", 0.5)})
    root = ET.parse(source).getroot()
    space = root.tag.removesuffix("PcGts")
    texts = [e.findtext(f"{space}TextEquiv/{space}Unicode") for e in root.iter(f"{space}TextRegion")]
    assert texts == ["lu\ndeux"] * 2
    assert next(root.iter(f"{space}TextRegion")).get("custom") == "a\nb\tc\rd &#10;"


def test_what_cannot_be_written_back_leaves_the_file_alone(tmp_path):
    source = make(tmp_path, alto([PageLine("un")]))
    before = source.read_bytes()
    with pytest.raises(HwrError, match="no line 'nope'"):
        write_back(source, source, {"nope": ("x", 1.0)})
    for text in ("a\x00b", "a\x0cb", "a\ud800b"):
        with pytest.raises(HwrError, match="cannot be written"):
            write_back(source, source, {"l0": (text, 1.0)})
    with pytest.raises(HwrError, match="neither ALTO nor PAGE"):
        write_back(make(tmp_path, "<x/>", name="x.xml"), source, {})
    assert source.read_bytes() == before
    source.write_bytes(before.replace(b"<Layout>", b"<pc:Layout>").replace(b"</Layout>", b"</pc:Layout>"))
    deep = alto([PageLine()]).replace("<Layout>", "<Layout>" + "<TextBlock>" * 3000 + "</TextBlock>" * 3000)
    make(tmp_path, deep, name="deep.xml")
    for attempt in (read_pages, lambda p: write_back(p, p, {})):
        with pytest.raises(HwrError, match="more than 100 elements inside"):
            attempt(tmp_path / "deep.xml")
        with pytest.raises(HwrError, match=r"not well-formed XML \(unbound prefix"):
            attempt(source)


def test_lines_without_a_transcript_are_there_to_be_read(tmp_path):
    xml = make(tmp_path, alto([PageLine(""), PageLine("b", polygon="900,30 990,30 990,60")], image="gone.png"), None)
    image = save(tmp_path / "elsewhere.png", page_image())
    assert list(why(line_crops(xml))) == ["l0", "l1"]
    found = line_crops(xml, image=image)
    np.testing.assert_array_equal(found[0][1].read(), BOX)
    assert list(why(found)) == ["l1"]


# Real pages


@pytest.fixture
def real_pages() -> Path:
    root = os.environ.get("HWR_DATA_DIR")
    if not root or not (Path(root) / "pages" / "alto").is_dir():
        pytest.skip("HWR_DATA_DIR names no folder with pages/alto/")
    return Path(root)


def test_six_real_alto_pages(real_pages, tmp_path):
    folder = real_pages / "pages" / "alto"
    lines = read_pages(folder, writer_pattern=r"_(\d+)")
    assert (len(lines), lines.rejected) == (102, [])
    assert {item.writer for item in lines.items} == {"0169", "0018", "0219", "0239", "0276"}
    assert lines.items[0].text == "Wilson Pickett est un chanteur et compositeur"
    assert lines.items[0].read().shape == (116, 1898)
    straight = read_pages(folder, straighten=True)
    for item in (*lines.items[::20], *straight.items[::20]):
        line = item.read()
        assert line.max() > 200  # paper
        assert 0.005 < (line < 160).mean() < 0.3  # ink
    xml = folder / "imp_wikitexte_0169.xml"
    written = read_page(xml).lines
    write_back(xml, tmp_path / "out.xml", {line.id: (line.text.upper(), 0.5) for line in written})
    again = read_page(tmp_path / "out.xml").lines
    assert [line.text for line in again] == [line.text.upper() for line in written]
    assert [(a.polygon, a.baseline) for a in again] == [(b.polygon, b.baseline) for b in written]


def test_real_crops_are_those_of_the_prepared_lines(real_pages):
    """The same lines were cut out by others and scaled to a height of 64 for the copiste set."""
    lines = read_pages(real_pages / "pages" / "alto" / "imp_wikitexte_0169.xml").items
    for i in (0, 4, 9):
        prepared = np.asarray(
            Image.open(real_pages / "copiste" / "train" / f"imp_wikitexte_0169-{i:02}.jpg").convert("L")
        )
        ours = cv2.resize(lines[i].read(), prepared.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.corrcoef(ours.ravel(), prepared.ravel())[0, 1] > 0.9
