"""The characters a model can read, and the one form in which text is compared.

Space is a character like any other: a charset has it or not. A charset made from texts has it when a text has one; the
blocks ``space`` and ``ascii`` bring it. No other white space exists here, because :func:`normalise` leaves none.

Right-to-left and mixed text is kept in logical order, the order in which it is typed and stored in Unicode files; a
reader of such lines mirrors its images (or its frames), never the text.
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hwr.errors import HwrError

_FRENCH_LETTERS = "àâæçèéêëîïôœùûüÿ"
BLOCKS = {
    "digits": string.digits,
    "latin": string.ascii_letters,
    "space": " ",
    "punctuation": string.punctuation + "’‘“”«»…–—",
    "ascii": string.printable[:95],
    "french": _FRENCH_LETTERS + _FRENCH_LETTERS.upper() + "’«»…–—€°",
}


def normalise(text: str) -> str:
    """The form in which text is encoded and compared: NFC, each run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def code_points(characters: Iterable[str], most: int = 12) -> str:
    """Names characters for a message: ``é (U+00E9), U+0301``; combining and invisible ones by number alone.

    Args:
        characters: Single characters; a mapping to counts also gives ``é (U+00E9) x 3``.
        most: How many to name before "and N more".
    """
    counts = characters if isinstance(characters, dict) else None
    names = []
    for character in characters:
        shown = character.isprintable() and not character.isspace() and not unicodedata.combining(character)
        name = f"{character} (U+{ord(character):04X})" if shown else f"U+{ord(character):04X}"
        names.append(f"{name} x {counts[character]}" if counts is not None else name)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True)
class Charset:
    """An ordered list of characters; index 0 is the CTC blank, character ``i`` has index ``i + 1``.

    ``characters`` as one string is what is stored beside the weights, and ``Charset(string)`` brings it back. Each is
    one code point in NFC. A combining sequence that Unicode has no single code point for (n with a breve, say) is read
    as its code points one after the other.

    Attributes:
        characters: In the order of their indices.
    """

    characters: str
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.characters:
            raise HwrError("a charset needs at least one character")
        twice = [c for c, n in Counter(self.characters).items() if n > 1]
        if twice:
            raise HwrError(f"a charset names each character once, not {code_points(twice)}")
        bad = [
            c for c in self.characters.replace(" ", "") if normalise(c) != c or unicodedata.category(c) in ("Cc", "Cs")
        ]
        if bad:
            raise HwrError(
                f"no characters of a charset: {code_points(bad)}; it takes NFC and no white space but U+0020"
            )
        object.__setattr__(self, "_index", {c: i for i, c in enumerate(self.characters, start=1)})

    @classmethod
    def of(cls, texts: Iterable[str]) -> Charset:
        """The characters of the texts, after :func:`normalise`, in the order of their code points.

        Raises:
            HwrError: If there are none, or control characters among them.
        """
        characters = sorted({c for text in texts for c in normalise(text)})
        if not characters:
            raise HwrError("no characters to make a charset of: all transcripts are empty")
        return cls("".join(characters))

    @classmethod
    def named(cls, *blocks: str) -> Charset:
        """The union of blocks, in the order of code points: ``Charset.named("ascii", "french")``.

        Args:
            blocks: Of ``digits``, ``latin`` (A-Z a-z), ``space``, ``punctuation`` (ASCII and typographic), ``ascii``
                (all 95 printable ones, with space), ``french`` (what French adds to ASCII: accented letters,
                ligatures, quotation marks, apostrophe, dashes, euro, degree).

        Raises:
            HwrError: If a block is unknown.
        """
        for name in blocks:
            if name not in BLOCKS:
                raise HwrError(f"no charset block {name!r}; there are {', '.join(BLOCKS)}")
        return cls("".join(sorted({c for name in blocks for c in BLOCKS[name]})))

    @classmethod
    def from_file(cls, path: str | Path) -> Charset:
        """Reads one character a line, UTF-8, in the file's order; empty lines are skipped, a lone space is the space.

        Raises:
            HwrError: If the file cannot be read, is not UTF-8, or a line has several characters or one seen before.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise HwrError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8, one character a line") from error
        except OSError as error:
            raise HwrError(f"{path}: cannot read the charset: {error.strerror}") from error
        seen: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            character = unicodedata.normalize("NFC", line.removesuffix("\r"))
            if not character:
                continue
            if len(character) > 1:
                raise HwrError(f"{path}, line {number}: {len(character)} characters; write one character a line")
            if character in seen:
                raise HwrError(
                    f"{path}, line {number}: {code_points(character)} is on line {seen[character]} already; remove one"
                )
            seen[character] = number
        try:
            return cls("".join(seen))
        except HwrError as error:
            raise HwrError(f"{path}: {error}") from error

    def __len__(self) -> int:
        """The number of characters, without the blank."""
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self._index

    @property
    def num_classes(self) -> int:
        """What a network's last layer gives: the characters and the blank."""
        return len(self.characters) + 1

    def index(self, character: str) -> int | None:
        """The index of one character, from 1, or None."""
        return self._index.get(character)

    def encode(self, text: str, skip_unknown: bool = False) -> list[int]:
        """Indices of a text's characters, after :func:`normalise`.

        Args:
            text: In any normalisation form.
            skip_unknown: Leave out what the charset lacks instead of raising.

        Raises:
            HwrError: If the charset lacks a character; the message names code points.
        """
        text = normalise(text)
        lacking = {c for c in text if c not in self._index}
        if not lacking:
            return [self._index[c] for c in text]
        if skip_unknown:
            return self.encode("".join(c for c in text if c not in lacking), skip_unknown)
        raise HwrError(
            f"the charset lacks {code_points(sorted(lacking))} of {text!r}; "
            "add to the charset, or leave such characters out with charset.unknown=skip"
        )

    def decode(self, indices: Iterable[int]) -> str:
        """The characters at these indices, blanks left out; one character per index, so not composed any further."""
        return "".join(self._table[i] for i in indices)

    @cached_property
    def _table(self) -> list[str]:
        return ["", *self.characters]

    def missing(self, texts: Iterable[str]) -> Counter[str]:
        """How often each character that the charset lacks occurs in the texts; :func:`code_points` prints it."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(normalise(text))
        return Counter({c: n for c, n in counts.most_common() if c not in self._index})


def make_charset(texts: Iterable[str], blocks: Sequence[str] | None = None, file: str | None = None) -> Charset:
    """The charset that a configuration asks for.

    Args:
        texts: The training transcripts, from which it is made where nothing else is asked for.
        blocks: Names for :meth:`Charset.named`.
        file: For :meth:`Charset.from_file`.

    Raises:
        HwrError: If both are given, or what they name is wrong.
    """
    if blocks and file:
        raise HwrError("charset.blocks and charset.file cannot both be given; keep one")
    if file:
        return Charset.from_file(Path(file).expanduser())
    return Charset.named(*blocks) if blocks else Charset.of(texts)
