"""Writing what was read into a page's own XML, with everything else kept: comments, namespaces, geometry, order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from xml.dom.minidom import Element, Node
from xml.parsers import expat

from hwr.data.lines.page_xml import line_id
from hwr.data.lines.safe_xml import parse_document
from hwr.errors import HwrError
from hwr.files import write_bytes

_MARKS = {space: chr(0xFDD0 + i) for i, space in enumerate(b"\t\n\r")}  # which are no characters (Unicode 23.7)


def write_back(xml: str | Path, out: str | Path, readings: Mapping[str, tuple[str, float]]) -> None:
    """Writes the page with the readings of its lines; lines without a reading stay as they are.

    ALTO: the words of a reading go into the ``String`` elements of the line if there are as many, else all of it goes
    into the first, which takes the line's box; each gets the confidence of the line as ``WC``. A hyphen at the line's
    end stays a ``HYP`` if it is read. PAGE: the ``Unicode`` and ``conf`` of the line's ``TextEquiv`` (the one of the
    lowest index; versions of higher ones stay). What would contradict the new text is removed or follows: glyphs,
    alternatives of words in ALTO, and the text of words and of the regions around the line.

    Args:
        xml: An ALTO or PAGE file.
        out: Where to write; may be the same.
        readings: Text and confidence (0 to 1) of lines by their ids, as :func:`hwr.data.lines.pages.line_crops` has
            them.

    Raises:
        HwrError: If the file is neither, or lacks a line that was read, or a text holds what XML cannot.
    """
    document = parse_document(xml)
    root = document.documentElement
    writers: dict[str, Callable[[Element, str, str], None]] = {"alto": _write_alto, "PcGts": _write_page}
    if root is None or root.localName not in writers:
        raise HwrError(f"{xml}: neither ALTO nor PAGE XML: its root element is {root.localName if root else 'missing'}")
    attribute = "ID" if root.localName == "alto" else "id"
    lines: dict[str, Element] = {}
    for number, line in enumerate(root.getElementsByTagNameNS("*", "TextLine"), start=1):
        lines.setdefault(line_id(line.getAttribute(attribute), number), line)
    missing = [name for name in readings if name not in lines]
    if missing:
        raise HwrError(f"{xml}: no line {missing[0]!r} ({len(missing)} of {len(readings)} readings have none)")
    for name, (text, confidence) in readings.items():
        writers[root.localName](lines[name], text, _confidence(confidence))
    if root.localName == "PcGts":
        _write_regions({name: lines[name] for name in readings}.values())
    parts = [_serialised(node) for node in document.childNodes]
    content = "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', *parts, ""]).encode("utf-8", "surrogatepass")
    try:
        expat.ParserCreate().Parse(content, True)
    except expat.ExpatError as error:
        raise HwrError(f"{out}: a reading holds what cannot be written as XML ({error})") from None
    try:
        write_bytes(Path(out), content)
    except OSError as error:
        raise HwrError(f"{out}: cannot be written ({error.strerror})") from error


def _serialised(node: Node) -> str:
    """As XML; minidom writes line breaks and tabs in attributes plainly, and then they are read as spaces."""
    for element in [node, *node.getElementsByTagName("*")] if isinstance(node, Element) else ():
        for attribute in element.attributes.values():
            attribute.value = attribute.value.translate(_MARKS)
    text: str = node.toxml()
    for space, mark in _MARKS.items():
        text = text.replace(mark, f"&#{space};")
    return text


def _confidence(value: float) -> str:
    return f"{min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0:.4f}"


def _children(parent: Element, *names: str) -> list[Element]:
    return [node for node in parent.childNodes if isinstance(node, Element) and node.localName in names]


def _new(parent: Element, name: str, before: Element | None = None) -> Element:
    """A child in the parent's namespace, with its prefix."""
    document = parent.ownerDocument
    assert document is not None
    qualified = f"{parent.prefix}:{name}" if parent.prefix else name
    child = document.createElementNS(parent.namespaceURI, qualified)
    parent.insertBefore(child, before)
    return child


def _remove(nodes: Iterable[Element]) -> None:
    for node in nodes:
        if node.parentNode is not None:
            node.parentNode.removeChild(node)


def _write_alto(line: Element, text: str, confidence: str) -> None:
    strings = _children(line, "String") or [_new_string(line)]
    hyphen = _hyphen(line, strings[-1], text)
    words = text.removesuffix(hyphen).split()
    spaces = len(_children(line, "SP"))
    if len(words) == len(strings) and spaces in (0, len(words) - 1):
        texts = words
    else:
        _remove([*strings[1:], *_children(line, "SP")])
        strings, texts = strings[:1], [text.removesuffix(hyphen)]
        for side in ("HPOS", "VPOS", "WIDTH", "HEIGHT"):
            if line.hasAttribute(side):
                strings[0].setAttribute(side, line.getAttribute(side))
        _remove(_children(strings[0], "Shape"))
    for string, content in zip(strings, texts, strict=True):
        if string.getAttribute("CONTENT") != content:
            _drop(string, "CC", "SUBS_TYPE", "SUBS_CONTENT")
            _remove(_children(string, "ALTERNATIVE", "Glyph"))
        string.setAttribute("CONTENT", content)
        string.setAttribute("WC", confidence)


def _hyphen(line: Element, last: Element, text: str) -> str:
    """The hyphen of the line's ``HYP`` if it is read; else the ``HYP`` goes, and what says that a word is divided."""
    hyphens = _children(line, "HYP")
    mark = hyphens[0].getAttribute("CONTENT").replace("\u00ad", "-") or "-" if hyphens else ""
    divided = text.endswith(mark) and not (" " + text.removesuffix(mark))[-1].isspace()  # not a dash of its own
    if hyphens and divided and not last.getAttribute("CONTENT").endswith(mark):
        return mark
    if hyphens:
        _remove(hyphens)
        _drop(last, "SUBS_TYPE", "SUBS_CONTENT")
    return ""


def _drop(element: Element, *names: str) -> None:
    for name in names:
        if element.hasAttribute(name):
            element.removeAttribute(name)


def _new_string(line: Element) -> Element:
    string = _new(line, "String")
    for side in ("HPOS", "VPOS", "WIDTH", "HEIGHT"):
        if line.hasAttribute(side):
            string.setAttribute(side, line.getAttribute(side))
    return string


def _write_page(line: Element, text: str, confidence: str) -> None:
    words = _children(line, "Word")
    contents = text.split()
    for i, word in enumerate(words):
        if len(words) == len(contents):
            _set_text(word, contents[i], confidence)
        else:
            _remove(_children(word, "TextEquiv"))
        for glyph in _children(word, "Glyph"):
            _remove(_children(glyph, "TextEquiv"))
    _set_text(line, text, confidence)


def _equivalent(parent: Element) -> Element | None:
    """The ``TextEquiv`` that counts: of the lowest index, else the first."""
    versions = _children(parent, "TextEquiv")

    def index(version: Element) -> float:
        return float(version.getAttribute("index")) if version.getAttribute("index").isdecimal() else math.inf

    return min(versions, key=index, default=None)


def _set_text(parent: Element, text: str, confidence: str | None) -> None:
    equivalent = _equivalent(parent)
    if equivalent is None:  # its place among the children is fixed by the schema
        later = _children(parent, "TextStyle", "UserDefined", "Labels")
        equivalent = _new(parent, "TextEquiv", later[0] if later else None)
    if confidence is not None:
        equivalent.setAttribute("conf", confidence)
    else:
        _drop(equivalent, "conf")
    _remove(_children(equivalent, "PlainText"))
    unicode = _children(equivalent, "Unicode")
    element = unicode[0] if unicode else _new(equivalent, "Unicode")
    for node in list(element.childNodes):
        element.removeChild(node)
    document = parent.ownerDocument
    assert document is not None
    element.appendChild(document.createTextNode(text))


def _write_regions(lines: Iterable[Element]) -> None:
    """Lets the text of a region that has one, and of regions around it, follow its lines."""
    regions: dict[int, Element] = {}
    for line in lines:
        region = line.parentNode
        while isinstance(region, Element):
            regions[id(region)] = region
            region = region.parentNode
    for region in regions.values():
        if _children(region, "TextEquiv"):
            texts = map(_text, region.getElementsByTagNameNS("*", "TextLine"))
            _set_text(region, "\n".join(texts), None)


def _text(line: Element) -> str:
    equivalent = _equivalent(line)
    unicode = _children(equivalent, "Unicode") if equivalent is not None else []
    return "".join(node.data for node in unicode[0].childNodes if hasattr(node, "data")) if unicode else ""
