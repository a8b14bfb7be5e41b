"""Generators of tiny line data sets in the genuine on-disk formats, for the tests of hwr.data.lines."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

PAPER, INK = 231, 40


def line_image(height: int = 32, width: int = 120, seed: int = 0) -> np.ndarray:
    """Grey levels, uint8 (H, W): a wavy dark stroke on light paper that has its seed's own shape."""
    rng = np.random.default_rng(seed)
    x = np.arange(width)
    y = height / 2 + height / 4 * np.sin(x / rng.uniform(3, 9) + rng.uniform(0, 6))
    image = np.full((height, width), PAPER, np.uint8)
    for shift in (0, 1, 2):
        image[np.clip(np.rint(y).astype(int) + shift, 0, height - 1), x] = INK
    return image


def save(path: Path, image: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(line_image() if image is None else image).save(path)
    return path


# Tables


def write_table(
    path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("image", "text"), separator: str = "\t"
) -> Path:
    """A table, with the images that it names unless their name holds ``missing``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(separator.join(row) + "\n" for row in [header, *rows]).encode("utf-8"))
    for i, row in enumerate(rows):
        if row and row[0].endswith(".png") and "missing" not in row[0]:
            save(path.parent / row[0], line_image(seed=i))
    return path


# Pages


@dataclass
class PageLine:
    """A line of a page: coordinates as text in the XML's unit, transcript as its inner XML or as text."""

    text: str = "un mot"
    polygon: str | None = "20,30 180,30 180,60 20,60"
    baseline: str | None = "20,52 180,52"
    box: tuple[float, float, float, float] | None = (20, 30, 161, 31)
    id: str | None = None
    inner: str | None = None


def page_image(width: int = 200, height: int = 300, seed: int = 0) -> np.ndarray:
    """Noise without structure, so that each crop of it is told from any other."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


_ALTO_HEADS = {
    2: '<alto xmlns="http://www.loc.gov/standards/alto/ns-v2#" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v2# http://www.loc.gov/standards/alto/alto-v2.0.xsd">',
    3: '<alto xmlns="http://www.loc.gov/standards/alto/ns-v3#" xmlns:xlink="http://www.w3.org/1999/xlink">',
    4: '<alto xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns="http://www.loc.gov/standards/alto/ns-v4#">',
}


def alto(
    lines: Sequence[PageLine],
    version: int = 4,
    unit: str = "pixel",
    size: tuple[float, float] | None = (200, 300),
    image: str = "page.png",
    doctype: str = "",
) -> str:
    """An ALTO file; versions 2 and 3 have their polygons as ``x,y x,y``, version 4 as ``x y x y``."""
    body = ""
    for i, line in enumerate(lines):
        attributes = f"ID={quoteattr(line.id or f'l{i}')}" if line.id != "" else ""
        if line.baseline is not None:
            attributes += f' BASELINE="{line.baseline.replace(",", " ") if version == 4 else line.baseline}"'
        if line.box is not None:
            attributes += ' HPOS="{}" VPOS="{}" WIDTH="{}" HEIGHT="{}"'.format(*line.box)
        shape = ""
        if line.polygon is not None:
            points = line.polygon.replace(",", " ") if version == 4 else line.polygon
            shape = f'<Shape><Polygon POINTS="{points}"/></Shape>'
        inner = line.inner
        if inner is None:
            inner = f'<String ID="s{i}" CONTENT={quoteattr(line.text)} HPOS="20" VPOS="30" WIDTH="161" HEIGHT="31"/>'
        body += f"\n          <TextLine {attributes}>{shape}\n            {inner}\n          </TextLine>"
    extent = f'WIDTH="{size[0]}" HEIGHT="{size[1]}"' if size else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
{doctype}<!-- made by hand -->
{_ALTO_HEADS[version]}
  <Description>
    <MeasurementUnit>{unit}</MeasurementUnit>
    <sourceImageInformation><fileName>{escape(image)}</fileName></sourceImageInformation>
  </Description>
  <Layout>
    <Page ID="p1" PHYSICAL_IMG_NR="1" {extent}>
      <PrintSpace HPOS="0" VPOS="0" WIDTH="{size[0] if size else 0}" HEIGHT="{size[1] if size else 0}">
        <ComposedBlock ID="c1"><TextBlock ID="b1"><!-- kept -->{body}
        </TextBlock></ComposedBlock>
      </PrintSpace>
    </Page>
  </Layout>
</alto>
"""


def page_xml(
    lines: Sequence[PageLine],
    version: str = "2019-07-15",
    size: tuple[int, int] = (200, 300),
    image: str = "page.png",
    prefix: str = "",
    region_text: str | None = None,
) -> str:
    """A PAGE file, with the namespace prefix ``prefix`` (``pc:``) on every element."""
    p = prefix
    body = ""
    for i, line in enumerate(lines):
        coords = f'<{p}Coords points="{line.polygon}"/>' if line.polygon is not None else ""
        base = f'<{p}Baseline points="{line.baseline}"/>' if line.baseline is not None else ""
        inner = line.inner
        if inner is None:
            inner = f'<{p}TextEquiv conf="0.5"><{p}Unicode>{escape(line.text)}</{p}Unicode></{p}TextEquiv>'
        name = f"id={quoteattr(line.id or f'l{i}')}" if line.id != "" else ""
        body += f"""
      <{p}TextLine {name} custom="readingOrder {{index:{i};}}">{coords}{base}{inner}</{p}TextLine>"""
    region = f"<{p}TextEquiv><{p}Unicode>{region_text}</{p}Unicode></{p}TextEquiv>" if region_text is not None else ""
    space = f"http://schema.primaresearch.org/PAGE/gts/pagecontent/{version}"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<{p}PcGts xmlns{":" + p[:-1] if p else ""}="{space}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="{space} {space}/pagecontent.xsd">
  <{p}Metadata><{p}Creator>hand</{p}Creator><{p}Created>2020-01-01T00:00:00</{p}Created></{p}Metadata>
  <{p}Page imageFilename={quoteattr(image)} imageWidth="{size[0]}" imageHeight="{size[1]}">
    <{p}TextRegion id="r1" type="paragraph"><{p}Coords points="0,0 199,0 199,299 0,299"/>{body}{region}
      <!-- kept --></{p}TextRegion>
  </{p}Page>
</{p}PcGts>
"""


# IAM

IAM_HEAD = """#--- lines.txt ---------------------------------------------------------------#
#
# iam database line information
#
# format: a01-000u-00 ok 154 19 408 746 1663 91 A|MOVE|to|stop|Mr.|Gaitskell|from
#
#     a01-000u-00  -> line id for form a01-000u
#     ok           -> result of word segmentation
#                         ok: line is correctly segmented
#                         err: segmentation of line has one or more errors
#
"""
IAM_ROWS = {
    "a01-000u-00": "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to|stop|Mr.|Gaitskell|from",
    "a01-000u-01": "a01-000u-01 err 156 19 395 932 1850 105 nominating|any|more|Labour|life|Peers",
    "a01-000x-00": "a01-000x-00 ok 182 13 405 749 1583 78 A|MOVE|to|stop|Mr.|Gaitskell|from",
    "b02-013-00": 'b02-013-00 ok 1 79 17 356 723 1640 97 1961|was|"|better|"|,|he|said|.',
    "c03-003a-04": "c03-003a-04 ok 190 3 340 1300 150 70 1961",
}
IAM_WRITERS = {"a01-000u": "000", "a01-000x": "001", "b02-013": "021", "c03-003a": "152"}
IAM_WORDS = """#--- words.txt ---------------------------------------------------------------#
#
# format: a01-000u-00-00 ok 154 1 408 768 27 51 AT A
#
a01-000u-00-00 ok 154 408 768 27 51 AT A
a01-000u-00-01 err 154 507 766 213 48 NN MOVE
a01-000u-00-02 ok 154 -1 -1 -1 -1 CD 1961
"""


def iam_image(root: Path, name: str, seed: int, level: str = "lines") -> Path:
    form = "-".join(name.split("-")[:2])
    return save(root / level / form.split("-")[0] / form / f"{name}.png", line_image(seed=seed))


def write_iam(root: Path, rows: Mapping[str, str] = IAM_ROWS) -> Path:
    """``ascii/lines.txt``, ``ascii/forms.txt`` and the images of the lines."""
    (root / "ascii").mkdir(parents=True)
    (root / "ascii" / "lines.txt").write_text(IAM_HEAD + "".join(f"{row}\n" for row in rows.values()))
    forms = "# format: a01-000u 000 2 prt 7 5 52 36\n#\n"
    forms += "".join(f"{form} {writer} 2 prt 7 5 52 36\n" for form, writer in IAM_WRITERS.items())
    (root / "ascii" / "forms.txt").write_text(forms)
    for seed, name in enumerate(rows):
        iam_image(root, name, seed)
    return root


def iam_xml(form: str, writer: str, lines: Mapping[str, str]) -> str:
    """The XML of a form, with the double escaping of the original files."""
    body = ""
    for name, text in lines.items():
        shown = escape(escape(text, {'"': "&quot;"}))
        words = "".join(
            f'<word id="{name}-{i:02}" tag="NN" text="{escape(escape(word))}"><cmp x="408" y="768" width="27" '
            f'height="51"/></word>'
            for i, word in enumerate(text.replace('"', "").split())
        )
        body += (
            f'<line asx="400" asy="744" dsx="400" dsy="840" id="{name}" lbx="400" lby="820" segmentation="ok" '
            f'text="{shown}" threshold="154" ubx="400" uby="770">{words}</line>\n'
        )
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE form SYSTEM "http://www.iam.unibe.ch/~zimmerma/iamdb/form.dtd">
<form created="2001-02-03 04:05:06" height="3542" id="{form}" last-modified="2001-02-03 04:05:06" \
modified-by="zimmi" short-sentence-count="0" version="3.0" width="2479" writer-id="{writer}">
<machine-printed-part><machine-print-line text="A MOVE to stop"/></machine-printed-part>
<handwritten-part>
{body}</handwritten-part>
</form>
"""


# CASIA


def gnt(characters: Sequence[tuple[bytes, np.ndarray]]) -> bytes:
    """HWDB1.x: records of code and image, uint8 (H, W), 255 = background."""
    out = b""
    for code, image in characters:
        height, width = image.shape
        out += struct.pack("<I2sHH", 10 + image.size, code.ljust(2, b"\0"), width, height) + image.tobytes()
    return out


def dgrl(
    lines: Sequence[tuple[Sequence[bytes], np.ndarray]],
    code_length: int = 2,
    bits: int = 8,
    illustration: bytes = b"handwritten Chinese text page, CASIA-HWDB2\0",
    kind: bytes = b"DGRL",
) -> bytes:
    """HWDB2.x: one page of lines, each with its codes and image."""
    head = kind.ljust(8, b"\0") + illustration + b"GB".ljust(20, b"\0") + struct.pack("<HH", code_length, bits)
    out = struct.pack("<I", 4 + len(head)) + head + struct.pack("<III", 3000, 2000, len(lines))
    for i, (codes, image) in enumerate(lines):
        out += struct.pack("<I", len(codes)) + b"".join(code.ljust(code_length, b"\0") for code in codes)
        out += struct.pack("<IIII", 100 * i, 50, *image.shape) + image.tobytes()
    return out
