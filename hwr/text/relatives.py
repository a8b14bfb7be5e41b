"""Which of the characters that a model knows looks most like one that it does not know."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

ALIKE = (
    "'’‘‛‚`´′ʼ",
    '"“”„«»″',
    "-‐‑‒–—−_",
    "oøœ°",
    "OØŒ",
    "aæα",
    "AÆ",
    "lł|",
    "LŁ£",
    "dđð",
    "DĐÐ",
    "bþß",
    "iı",
    "c¢",
    "E€",
    "S$§",
    "x×",
    ".·•",
    "([{<",
    ")]}>",
    "/\\",
    "!¡",
    "?¿",
    "~≈",
    ";,",
    ":;",
)


def nearest(character: str, known: Sequence[str]) -> str | None:
    """The known character that looks most like a new one.

    In this order: the same letter without or with other diacritics (or in another form, such as a superscript), by
    Unicode's compatibility decomposition; the other case of it; one of a table of look-alikes, such as quotation marks
    and dashes. Among equals the first known one.

    Args:
        character: Not among the known ones.
        known: Single characters.

    Returns:
        None if there is none.
    """
    bare = base(character)
    if bare in known:
        return bare
    tests: tuple[Callable[[str], bool], ...] = (
        lambda other: base(other) == bare,
        lambda other: base(other).casefold() == bare.casefold(),
        lambda other: any(bare in group and other in group for group in ALIKE),
    )
    return next((other for test in tests for other in known if test(other)), None)


def base(character: str) -> str:
    """The character without diacritics, and as one where it stands for several alike: ``é`` is e, ``…`` is a stop."""
    parts = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    return parts[0] if len(set(parts)) == 1 else character
