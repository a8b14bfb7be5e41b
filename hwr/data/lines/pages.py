"""Lines of page images with ALTO or PAGE XML, cut out along their outlines.

Formats: see :mod:`hwr.data.lines.page_xml`. The image is the one the XML names (beside the XML, or in the folder above,
as in ``page/`` of PAGE exports), else one of the XML's own name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
from PIL import Image

from hwr.data.layout import SPLITS, files_below, split_folders
from hwr.data.lines import polygons
from hwr.data.lines.items import NOTHING, Grey, LineImage, Lines, Stamp, check_disjoint
from hwr.data.lines.page_xml import NoPageError, Point, XmlLine, XmlPage, read_page
from hwr.errors import HwrError
from hwr.images import IMAGE_SUFFIXES, read_grey

log = logging.getLogger(__name__)
WRITTEN = ".hwr.xml"  # how hwr.predict names a page that it read, beside its original
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True, slots=True)
class PageCrop(LineImage):
    """A line on a page.

    Attributes:
        outline: Corners (x, y), pixels of the page image.
        baseline: Points (x, y), or empty.
        straighten: Lay the line straight along its baseline, where it has one.
    """

    outline: tuple[Point, ...]
    baseline: tuple[Point, ...] = ()
    straighten: bool = False

    def read(self) -> Grey:
        """The line, uint8 (H, W), the colour of the paper outside its outline.

        The last two pages are kept, so read lines in the order of their pages.
        """
        page = _page(self.stamp)
        try:
            if self.straighten and len(self.baseline) > 1:
                return polygons.cut_straight(page, self.outline, self.baseline)
            return polygons.cut(page, self.outline)
        except HwrError as error:
            raise HwrError(f"{self.stamp.path}: {error}") from None

    @property
    def picture(self) -> Hashable:
        """The page, which several XML files may describe."""
        return self.stamp


@lru_cache(maxsize=2)
def _page(stamp: Stamp) -> Grey:
    page = read_grey(stamp.path)
    page.flags.writeable = False
    return page


def read_splits(path: str | Path, straighten: bool = False, writer_pattern: str | None = None) -> dict[str, Lines]:
    """Reads a folder with ``train/``, ``val/`` and ``test/`` or some of them, else :func:`read_pages` as ``train``.

    Raises:
        HwrError: If a split has no usable line, or two splits share a writer, a page image or a page (of one name and
            with the same lines).
    """
    path = Path(path).expanduser()
    inside = any((path / name).is_dir() for name in SPLITS)
    found = split_folders(path, filter(_is_page, _xml_files(path))) if inside else []
    if not found:
        return {"train": read_pages(path, straighten, writer_pattern)}
    splits = {name: read_pages(path / name, straighten, writer_pattern) for name in found}
    _tell_apart(splits)
    check_disjoint(splits, where=path)
    return splits


def read_pages(path: str | Path, straighten: bool = False, writer_pattern: str | None = None) -> Lines:
    r"""Reads the lines of one XML file, or of all below a folder.

    Names are ``folder/page.xml#id of the line``; ``text_id`` is the page. What :mod:`hwr.predict` wrote beside its
    originals (``.hwr.xml``) is no transcript, and passed over unless it is ``path`` itself.

    Args:
        path: An ALTO or PAGE file, or a folder of them.
        straighten: Lay each line straight along its baseline.
        writer_pattern: Regular expression that finds the writer in an XML's path below ``path``, as its first group
            (``_(\d+)`` finds 0219 in ``wikitexte_0219_1.xml``).

    Raises:
        HwrError: If there is no such file, or no line can be used.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise HwrError(f"data.path={path}: no such file or folder")
    files = _xml_files(path) if path.is_dir() else [path]
    if not files:
        raise HwrError(f"{path}: no .xml in it (but {WRITTEN}); pages need ALTO or PAGE XML beside their images")
    try:
        pattern = re.compile(writer_pattern) if writer_pattern else None
    except re.error as error:
        raise HwrError(f"writer_pattern={writer_pattern!r} is no regular expression ({error})") from None
    lines, described, others = Lines(), dict[Stamp, list[str]](), list[NoPageError]()
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        found = pattern.search(name) if pattern else None
        writer = found.group(found.re.groups and 1) if found else None
        try:
            crops = line_crops(file, straighten)
        except NoPageError as error:  # the METS of an export, say
            others.append(error)
            continue
        except HwrError as error:
            lines.reject(name, str(error))
            continue
        if not crops:
            lines.reject(name, f"{file}: {NOTHING[1]}")
        for stamp in {crop.stamp for _, crop in crops if isinstance(crop, PageCrop)}:
            described.setdefault(stamp, []).append(name)
        for line, crop in crops:
            label = f"{name}#{line.id}"
            if isinstance(crop, HwrError):
                lines.reject(label, str(crop), line.text, writer)
            else:
                lines.add(label, line.text, crop, writer, PurePosixPath(name).with_suffix("").as_posix())
    if twice := [names for names in described.values() if len(names) > 1]:
        log.warning(
            "%s: %d pages have several XML files, whose lines all count, such as %s; leave out what is there twice",
            path, len(twice), " and ".join(twice[0]),
        )  # fmt: skip
    if others and len(others) == len(files):
        raise others[0]
    if others:
        log.warning("%s: passed over %d XML files that describe no page, such as %s", path, len(others), others[0])
    return lines.checked(path)


def _xml_files(path: Path) -> list[Path]:
    return [file for file in files_below(path, ".xml") if not file.name.endswith(WRITTEN)]


def _is_page(xml: Path) -> bool:
    try:
        read_page(xml)
    except NoPageError:
        return False
    except HwrError:  # a damaged one
        pass
    return True


def _tell_apart(splits: Mapping[str, Lines]) -> None:
    """Pages of one name in two splits are two pages, unless most of what the shorter one says is in the other."""
    pages: dict[str, dict[str, set[str]]] = {}
    for split, lines in splits.items():
        for item in lines.items:
            pages.setdefault(str(item.text_id), {}).setdefault(split, set()).add(item.text)
    same = {
        name
        for name, texts in pages.items()
        for one, other in combinations(texts.values(), 2)
        if 2 * len(one & other) > min(len(one), len(other))
    }
    for split, lines in splits.items():
        items = lines.items
        lines.items = [i if i.text_id in same else replace(i, text_id=f"{split}/{i.text_id}") for i in items]


def line_crops(
    xml: str | Path, straighten: bool = False, image: str | Path | None = None
) -> list[tuple[XmlLine, PageCrop | HwrError]]:
    """The lines of one page, with or without a transcript, for reading them: each with its crop, or what is wrong.

    Args:
        xml: An ALTO or PAGE file.
        straighten: Lay each line straight along its baseline.
        image: The page's image where it is not where the XML says.

    Raises:
        HwrError: If the XML cannot be read.
    """
    xml = Path(xml)
    page = read_page(xml)
    try:
        stamp = Stamp.of(Path(image) if image is not None else find_image(xml, page.image))
        size = image_size(Path(stamp.path))
        scale = _scale(page, size)
    except HwrError as error:
        return [(line, error) for line in page.lines]
    spacing = _spacing(page, scale, size)
    crops: list[tuple[XmlLine, PageCrop | HwrError]] = []
    for line in page.lines:
        try:
            outline = _outline(line, scale, spacing)
            _check_inside(outline, size)
            crops.append((line, PageCrop(stamp, outline, _scaled(line.baseline, scale), straighten)))
        except HwrError as error:
            crops.append((line, error))
    return crops


def find_image(xml: Path, named: str) -> Path:
    """The image of a page.

    Args:
        xml: Its ALTO or PAGE file.
        named: What the file calls the image: a name, a path relative to the XML or to the folder above (OCR-D), or an
            address or an absolute path, of which the last part counts if there is such a file here.

    Raises:
        HwrError: If there is none.
    """
    folders, tried = (xml.parent, xml.parent.parent), list[Path]()
    named = named.replace("\\", "/").removeprefix("file://")
    for name in dict.fromkeys((named, unquote(named))):
        path = Path(name)
        inside = not path.is_absolute() and ":" not in name
        tried += [folder / path for folder in folders if inside and (folder == xml.parent or path.name != str(path))]
        tried += [xml.parent / path.name, *([path] if path.is_absolute() else [])]
    for folder in folders:
        tried += [folder / Path(name).name for name in (named, unquote(named))]
        tried += [folder / f"{xml.stem}{end}" for s in sorted(IMAGE_SUFFIXES) for end in (s, s.upper())]
    for image in tried:
        if os.path.isfile(image):  # no error, however long the name
            return image
    raise HwrError(
        f"no image for {xml}: it names {named or 'none'}, and there is none called {xml.stem}.jpg or the like"
    )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as :func:`hwr.images.read_grey` turns it, from the head of the file alone.

    Raises:
        HwrError: If it is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112) in _ROTATED
            if turned and image.format == "TIFF":  # whose size Pillow gives now turned, now not
                height, width = read_grey(path).shape
                return width, height
    except Exception as error:  # Pillow's plugins raise almost anything on damaged data
        raise HwrError(f"{path}: not an image that can be read ({error})") from error
    return (height, width) if turned else (width, height)


def _scale(page: XmlPage, size: tuple[int, int]) -> tuple[float, float]:
    """Pixels for one unit of the file, to the right and down."""
    if not all(page.size):
        if page.unit == "pixel":
            return 1.0, 1.0
        raise HwrError(f"measured in {page.unit}, but without the page's WIDTH and HEIGHT there is no scale")
    scale = size[0] / page.size[0], size[1] / page.size[1]
    if abs(scale[0] / scale[1] - 1) > 0.02:
        raise HwrError(
            f"the page is {page.size[0]:g} x {page.size[1]:g} {page.unit}, its image {size[0]} x {size[1]} pixels: "
            "not the same shape; another image, or one that was turned or cropped?"
        )
    return scale


def _scaled(points: tuple[Point, ...], scale: tuple[float, float]) -> tuple[Point, ...]:
    return tuple((x * scale[0], y * scale[1]) for x, y in points)


def _outline(line: XmlLine, scale: tuple[float, float], spacing: float) -> tuple[Point, ...]:
    """The polygon, else the box, else what is around the baseline."""
    if line.problem:
        raise HwrError(line.problem)
    polygon, baseline = _scaled(line.polygon, scale), _scaled(line.baseline, scale)
    if polygons.area(polygon) >= 1:
        return polygon
    if line.box is not None and min(line.box.width, line.box.height) > 0:
        (left, top), (right, bottom) = _scaled(
            ((line.box.left, line.box.top), (line.box.left + line.box.width, line.box.top + line.box.height)), scale
        )
        right, bottom = max(left, right - 1), max(top, bottom - 1)  # the last pixel inside
        return (left, top), (right, top), (right, bottom), (left, bottom)
    if len(baseline) > 1 and baseline[0] != baseline[-1]:
        return tuple(polygons.around(baseline, spacing))
    raise HwrError("no coordinates: neither a polygon nor a box nor a baseline with an extent")


def _check_inside(outline: tuple[Point, ...], size: tuple[int, int]) -> None:
    """Refuses an outline of whose bounding box more than a tenth is off the page; less is cut off when read."""
    corners = np.asarray(outline)
    low, high = corners.min(0), corners.max(0) + 1
    on_page = np.prod(np.clip(np.minimum(high, size) - np.maximum(low, 0), 0, None))
    if on_page < 0.9 * np.prod(high - low):
        where = f"({low[0]:.0f}, {low[1]:.0f}) to ({high[0] - 1:.0f}, {high[1] - 1:.0f})"
        raise HwrError(f"the outline {where} is outside the page of {size[0]} x {size[1]} pixels")


def _spacing(page: XmlPage, scale: tuple[float, float], size: tuple[int, int]) -> float:
    """Usual distance from line to line in pixels, for lines of which only the baseline is known."""
    baselines = [_scaled(line.baseline, scale) for line in page.lines if len(line.baseline) > 1]
    gaps = [gap for gap in polygons.gaps(baselines) if gap > size[1] / 200]
    return float(np.median(gaps)) if gaps else size[1] / 30
