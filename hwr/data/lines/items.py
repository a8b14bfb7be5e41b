"""One line of handwriting: its text, and where its pixels are without having read them.

Every reader gives :class:`Lines`: the items it can use, and what it rejected, one by one, with the reason. A rejected
line keeps its transcript where it has one, because an evaluation counts it as wrong from end to end.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwr.errors import HwrError
from hwr.images import read_grey
from hwr.text import code_points, normalise

Grey = npt.NDArray[np.uint8]
Trait = Literal["writer", "text", "image"]
NOTHING = ("the transcript is empty", "no TextLine in it")  # reasons to reject what says nothing


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when it was listed: where one of these differs, the pixels may differ.

    Attributes:
        path: Absolute, and what links lead to: a file under two names is one.
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Looks at the file without opening it.

        Raises:
            HwrError: If there is none, or nothing in it.
        """
        try:
            status = path.stat()
            if not path.is_file():
                raise HwrError(f"{path} is not a file")
        except (OSError, ValueError) as error:
            raise HwrError(f"no image {path} ({getattr(error, 'strerror', None) or error})") from None
        if status.st_size == 0:
            raise HwrError(f"{path} is empty (0 bytes)")
        return cls(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class LineImage:
    """How to get a line's pixels; readers of other formats derive from it. Equal ones give equal pixels.

    Attributes:
        stamp: The file that holds them.
    """

    stamp: Stamp

    def read(self) -> Grey:
        """The pixels, uint8 (H, W), as stored.

        Raises:
            HwrError: If they cannot be read.
        """
        return read_grey(self.stamp.path)

    @property
    def picture(self) -> Hashable:
        """What must not be in two splits; here the pixels themselves."""
        return self


@dataclass(frozen=True, slots=True)
class LineItem:
    """One line (or character) that can be used. Small, picklable, and equal where the source is.

    Attributes:
        name: Unique in its data set, for reports.
        text: After :func:`hwr.text.normalise`, never empty, in logical order (see :func:`right_to_left`).
        image: Where the pixels are.
        writer: Whose hand, where known.
        text_id: Which text it is from, where known: the page or the form, not what it says.
    """

    name: str
    text: str
    image: LineImage
    writer: str | None = None
    text_id: str | None = None

    def read(self) -> Grey:
        """The grey levels, uint8 (H, W), 0 = black, as stored.

        Raises:
            HwrError: If they cannot be read; the message names the file.
        """
        return self.image.read()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that cannot be used.

    Attributes:
        name: The line's, or the file's where the lines are not known.
        reason: What is wrong and where.
        text: Its transcript, where there is one: what an evaluation has to count as wrong.
        writer: Whose hand, where known.
    """

    name: str
    reason: str
    text: str = ""
    writer: str | None = None

    @property
    def judged(self) -> bool:
        """Whether an evaluation counts it as wrong: not where there was nothing to be read."""
        return bool(self.text) or not self.reason.endswith(NOTHING)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Lines:
    """What a reader found, in the order of the source."""

    items: list[LineItem] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    _names: set[str] = field(default_factory=set, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.items)

    def add(
        self,
        name: str,
        text: str,
        image: LineImage | Path,
        writer: str | None = None,
        text_id: str | None = None,
    ) -> None:
        """Adds one line, or rejects it: an unusable text, a name seen before, or an image that says so by HwrError.

        Args:
            name: Unique here.
            text: As stored; normalised here.
            image: Its pixels, or the file that holds nothing else.
            writer: See :class:`LineItem`.
            text_id: See :class:`LineItem`.
        """
        text = normalise(text)
        try:
            check_text(text)
            if name in self._names:
                raise HwrError("there is a line of this name already")
            found = LineImage(Stamp.of(image)) if isinstance(image, Path) else image
        except HwrError as error:
            self.reject(name, str(error), text, writer)
        else:
            self._names.add(name)
            self.items.append(LineItem(name, text, found, writer, text_id))

    def reject(self, name: str, reason: str, text: str = "", writer: str | None = None) -> None:
        """Notes a line that cannot be used; bytes that were no UTF-8 become ?, so that it can be printed."""
        text = normalise(text)
        self.rejected.append(Rejected(_printable(name), reason, _printable(text), writer and _printable(writer)))

    def extend(self, other: Lines) -> None:
        """Takes over what another reader found."""
        for item in other.items:
            self.add(item.name, item.text, item.image, item.writer, item.text_id)
        self.rejected += other.rejected

    def checked(self, where: str | Path) -> Lines:
        """These lines.

        Raises:
            HwrError: If not one can be used.
        """
        if self.items:
            return self
        if not self.rejected:
            raise HwrError(f"{where}: no lines in it")
        raise HwrError(f"{where}: none of {len(self.rejected)} lines can be used; the first: {self.rejected[0]}")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def check_text(text: str) -> None:
    """Refuses a transcript that nothing can be learnt from.

    Args:
        text: After :func:`hwr.text.normalise`.

    Raises:
        HwrError: If it is empty, holds control characters, or bytes that were not in the file's encoding.
    """
    if not text:
        raise HwrError(NOTHING[0])
    if any("\udc80" <= c <= "\udcff" for c in text):  # how surrogateescape marks undecodable bytes
        raise HwrError("the transcript is not UTF-8")
    control = [c for c in text if unicodedata.category(c) in ("Cc", "Cs")]
    if control:
        raise HwrError(f"the transcript holds control characters: {code_points(dict(Counter(control)))}")


def right_to_left(text: str) -> bool:
    """Whether a text is mostly written from right to left, by the bidirectional class of its letters (Unicode UAX 9).

    Transcripts stay in logical order; whoever trains on such lines mirrors the images, or leaves the lines out.
    """
    classes = Counter(unicodedata.bidirectional(c) for c in text)
    return classes["R"] + classes["AL"] > classes["L"]


def check_disjoint(
    splits: Mapping[str, Lines], by: Collection[Trait] = ("writer", "text", "image"), where: str | Path = ""
) -> None:
    """Checks that no writer, text or image is in two splits. What is not known cannot clash.

    Args:
        splits: Lines of each split.
        by: What may not be shared. The published splits of IAM and CASIA share texts, not writers.
        where: Named in the message.

    Raises:
        HwrError: If something is shared; the message says what and by which splits.
    """
    traits: dict[Trait, Callable[[LineItem], Hashable]] = {
        "writer": lambda item: item.writer,
        "text": lambda item: item.text_id,
        "image": lambda item: item.image.picture,
    }
    for trait in by:
        home: dict[Hashable, tuple[str, str]] = {}
        for split, lines in splits.items():
            for item in lines.items:
                what = traits[trait](item)
                first, name = home.setdefault(what, (split, item.name))
                if what is not None and first != split:
                    shown = f"the {trait} {what!r}" if isinstance(what, str) else f"the image of {name}"
                    prefix = f"{where}: " if str(where) else ""
                    raise HwrError(
                        f"{prefix}{shown} is in {first} ({name}) and in {split} ({item.name}); "
                        f"all of a {trait} belongs in one split"
                    )


def fingerprint(items: Iterable[LineItem], *settings: object) -> str:
    """A key for a cache of these items' pixels and texts, prepared with these settings: 32 hexadecimal digits.

    Args:
        items: In the order of the cache; their files' names, sizes and times of change count.
        settings: Anything whose ``repr`` tells it apart and is the same in every process.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for item in items:
        digest.update(repr(item).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
