"""Parsing XML from strangers: no entity is ever declared or resolved, no file or address is ever fetched.

ALTO, PAGE and IAM files need no entities beyond XML's own five, so a file that declares one is refused before anything
of it is expanded: that leaves neither external entities nor entity bombs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.dom import minidom
from xml.etree import ElementTree
from xml.parsers import expat

from hwr.errors import HwrError

_MAX_DEPTH = 100  # what walks a document calls itself for each level


def parse(path: str | Path) -> ElementTree.Element:
    """The root element.

    Raises:
        HwrError: If the file cannot be read, is no well-formed XML, or declares entities.
    """
    content = _checked(Path(path))
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # of namespaces, which only now are looked at
        raise HwrError(f"{path}: not well-formed XML ({error})") from None


def parse_document(path: str | Path) -> minidom.Document:
    """Everything there is, with comments, namespace prefixes and processing instructions; slower than :func:`parse`.

    Raises:
        HwrError: See :func:`parse`.
    """
    content = _checked(Path(path))
    try:
        return minidom.parseString(content)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise HwrError(f"{path}: not well-formed XML ({error})") from None


def local(tag: object) -> str:
    """An element's name without its namespace; empty for a comment."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _checked(path: Path) -> bytes:
    def refuse(*_: object) -> NoReturn:
        raise HwrError(
            f"{path}: declares or uses XML entities of its own; refused, because they can fetch files or grow"
        )

    depth = 0

    def start(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise HwrError(f"{path}: more than {_MAX_DEPTH} elements inside one another; no page is like this")

    def end(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        content = path.read_bytes()
        parser.Parse(content, True)
    except OSError as error:
        raise HwrError(f"{path}: cannot be read ({error.strerror})") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise HwrError(f"{path}: not well-formed XML ({error})") from None
    return content
