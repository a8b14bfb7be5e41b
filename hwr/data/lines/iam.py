"""Lines and words of the IAM Handwriting Database, from the folders as they unpack.

Formats: the comments at the head of ``ascii/lines.txt``, ``words.txt`` and ``forms.txt``, and the XML of a form
(Marti and Bunke, The IAM-database, IJDAR 5, 2002; https://fki.tic.heia-fr.ch/databases/iam-handwriting-database).

    ascii/lines.txt  ascii/words.txt  ascii/forms.txt        (or beside the folders)
    xml/a01-000u.xml
    lines/a01/a01-000u/a01-000u-00.png
    words/a01/a01-000u/a01-000u-00-00.png
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hwr.data.lines.items import Lines, Trait, check_disjoint
from hwr.data.lines.safe_xml import parse
from hwr.errors import HwrError
from hwr.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)
Level = Literal["lines", "words"]
_FORM = re.compile(r"[a-z]\d\d-\d+[a-z]*")  # a01-000u: the text a01-000, copied by one writer

# Splits by the names of their id lists.
SCHEMES: dict[str, dict[str, tuple[str, ...]]] = {
    "large writer independent text line recognition task": {
        "train": ("trainset",),
        "val": ("validationset1", "validationset2"),
        "test": ("testset",),
    },
    "Aachen (tr, va, te)": {"train": ("tr",), "val": ("va",), "test": ("te",)},
    "Aachen (train, validation, test)": {"train": ("train",), "val": ("validation",), "test": ("test",)},
    "Aachen (train, valid, test)": {"train": ("train",), "val": ("valid",), "test": ("test",)},
    "train, val, test": {"train": ("train",), "val": ("val",), "test": ("test",)},
}
_LIST_SUFFIXES = (".txt", ".lst", ".uttlist", "")


class _Row(NamedTuple):
    name: str
    text: str
    segmented: bool
    problem: str = ""


def read(
    root: str | Path,
    level: Level = "lines",
    transcripts: Literal["auto", "ascii", "xml"] = "auto",
    segmentation: Literal["all", "ok"] = "all",
) -> Lines:
    """Reads all lines, or all words.

    Args:
        root: The folder that holds ``lines/`` or ``words/``.
        level: Which of both.
        transcripts: ``ascii`` takes ``lines.txt``, where each ``|`` (between words, and before punctuation) becomes a
            space; ``xml`` takes the forms, whose lines have the spacing of the text itself; ``auto`` prefers ``ascii``.
        segmentation: ``ok`` leaves out what is marked ``err``: the segmentation into words may be wrong there; the
            image of the line is right all the same, and published results include it.

    Raises:
        HwrError: If files are missing or nothing can be used.
    """
    root = Path(root).expanduser()
    table = next((p for p in (root / "ascii" / f"{level}.txt", root / f"{level}.txt") if p.is_file()), None)
    forms = sorted((root / "xml").rglob("*.xml")) if (root / "xml").is_dir() else []
    if not (root / level).is_dir():
        raise HwrError(f"{root}: no folder {level}/ with the images; unpack {level}.tgz there")
    if (table is None or transcripts == "xml") and (not forms or transcripts == "ascii"):
        needed = {"auto": f"ascii/{level}.txt nor xml/", "ascii": f"ascii/{level}.txt", "xml": "xml/"}[transcripts]
        raise HwrError(f"{root}: no {needed} with the transcripts; unpack ascii.tgz or xml.tgz there")
    lines = Lines()
    writers = _writers(root)
    if table is not None and transcripts != "xml":
        rows: Iterable[_Row] = _table_rows(table, level)
        if not writers:
            for _ in _xml_rows(forms, level, writers, Lines()):
                pass
    else:
        rows = _xml_rows(forms, level, writers, lines)
    marked = 0
    for row in rows:
        form = form_of(row.name)
        if row.problem:
            lines.reject(row.name, row.problem)
        elif segmentation == "ok" and not row.segmented:
            marked += 1
        else:
            image = _image(root / level, row.name, form)
            lines.add(row.name, row.text, image, writers.get(form), form.rstrip(_ABC))
    if marked:
        log.warning("%s: %d %s marked err are left out (data.segmentation=ok)", root, marked, level)
    return lines.checked(root)


_ABC = "abcdefghijklmnopqrstuvwxyz"


def form_of(name: str) -> str:
    """The form of a line or word: ``a01-000u`` for ``a01-000u-00-03``."""
    return "-".join(name.split("-")[:2])


def _image(folder: Path, name: str, form: str) -> Path:
    deep = folder / form.split("-")[0] / form / f"{name}.png"
    others = (p.with_suffix(s) for p in (deep, folder / f"{name}.png") for s in (".png", *sorted(IMAGE_SUFFIXES)))
    return deep if deep.is_file() else next((p for p in others if p.is_file()), deep)


def _data_rows(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise HwrError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _table_rows(path: Path, level: Level) -> Iterator[_Row]:
    """Rows of the table of lines or words.

    ``lines.txt`` has: id, ok or err, grey level, components, x, y, w, h, text; ``words.txt``: id, ok or err, grey
    level, x, y, w, h, grammatical tag, text. The numbers are not used and may be more than they should be, as where a
    space has slipped into the grey level.
    """
    least = 6 if level == "lines" else 5
    for number, line in _data_rows(path):
        name, *fields = line.split()
        segmented, *rest = fields or [""]
        numbers = next((i for i, field in enumerate(rest) if not re.fullmatch(r"-?\d+", field)), len(rest) - 1)
        text = rest[numbers:] if level == "lines" else rest[numbers + 1 :]
        if not _FORM.fullmatch(form_of(name)) or segmented not in ("ok", "er", "err") or numbers < least or not text:
            yield _Row(name, "", True, f"{path}, line {number}: not like 'a01-000u-00 ok 154 ...': {line[:60]!r}")
        else:
            yield _Row(name, " ".join(text).replace("|", " "), segmented == "ok")


def _xml_rows(paths: Sequence[Path], level: Level, writers: dict[str, str], lines: Lines) -> Iterator[_Row]:
    """Lines or words of the forms' XML; notes their writers on the way, and rejects a form that cannot be read."""
    for path in paths:
        try:
            form = parse(path)
        except HwrError as error:
            lines.reject(path.stem, str(error))
            continue
        if form.get("writer-id"):
            writers.setdefault(form.get("id", path.stem), form.get("writer-id", ""))
        for line in form.iterfind("./handwritten-part/line"):
            segmented = line.get("segmentation", "ok") == "ok"
            for element in [line] if level == "lines" else line.iterfind("./word"):
                name = element.get("id", "")
                if _FORM.fullmatch(form_of(name)):
                    # The text is escaped twice in the original files: &amp;quot;
                    yield _Row(name, html.unescape(element.get("text", "")), segmented)
                else:
                    yield _Row(name or path.stem, "", segmented, f"{path}: a {element.tag} with the id {name!r}")


def _writers(root: Path) -> dict[str, str]:
    """Writer of each form, from ``forms.txt`` (form, writer, and numbers that are not used here)."""
    path = next((p for p in (root / "ascii" / "forms.txt", root / "forms.txt") if p.is_file()), None)
    if path is None:
        return {}
    rows = (line.split() for _, line in _data_rows(path))
    return {fields[0]: fields[1] for fields in rows if len(fields) > 1}


def find_lists(folder: str | Path) -> tuple[str, dict[str, list[Path]]]:
    """Finds the id lists of a known split by their names.

    Returns:
        The name of the split, and the files of ``train``, ``val`` and ``test``.

    Raises:
        HwrError: If no scheme is complete there.
    """
    folder = Path(folder).expanduser()
    for scheme, splits in SCHEMES.items():
        found = {
            split: [p for name in names for p in [_list(folder, name)] if p is not None]
            for split, names in splits.items()
        }
        if all(len(found[split]) == len(names) for split, names in splits.items()):
            return scheme, found
    known = "; ".join(", ".join(name for names in splits.values() for name in names) for splits in SCHEMES.values())
    raise HwrError(
        f"{folder}: no complete set of id lists; there should be files called {known} (.txt, .lst, .uttlist); "
        "without lists, data.lists=null sets lines apart by writer"
    )


def _list(folder: Path, name: str) -> Path | None:
    return next((folder / f"{name}{s}" for s in _LIST_SUFFIXES if (folder / f"{name}{s}").is_file()), None)


def read_splits(
    lines: Lines, lists: Mapping[str, Sequence[Path]], by: Collection[Trait] = ("writer", "image"), scheme: str = ""
) -> dict[str, Lines]:
    """Deals lines out by id lists, and logs how many went where.

    Args:
        lines: From :func:`read`.
        lists: Files of each split, see :func:`find_lists`; each id is of a form, a line or a word.
        by: What two splits may not share. Texts are shared by the published splits, where several writers copied each.
        scheme: What to call the split in the log.

    Raises:
        HwrError: If a list cannot be read, an id is in two splits, a split stays empty, or writers are shared.
    """
    home: dict[str, str] = {}
    for split, paths in lists.items():
        for path in paths:
            for number, row in _data_rows(path):
                name = Path(row.split()[0]).name.removesuffix(".png")
                if home.setdefault(name, split) != split:
                    raise HwrError(f"{path}, line {number}: {name} is in {home[name]} and in {split}; remove one")
    out = {split: Lines() for split in lists}
    unseen, left = set(home), 0
    for item in lines.items:
        ids = _listed(item.name, home)
        unseen -= ids
        splits = sorted({home[i] for i in ids})
        if len(splits) > 1:
            raise HwrError(f"{item.name} is in {splits[0]} and, by its form or line, in {splits[1]}; remove one")
        if splits:
            out[splits[0]].items.append(item)
        left += not splits
    for rejected in lines.rejected:
        ids = _listed(rejected.name, home)
        unseen -= ids
        if ids:
            out[home[min(ids)]].rejected.append(rejected)
    for name in sorted(unseen):
        out[home[name]].reject(name, "in the id list, but not among the transcripts")
    for split, part in out.items():
        part.checked(f"the id list of {split}")
    check_disjoint(out, by)
    hands = {split: len({item.writer for item in part.items} - {None}) for split, part in out.items()}
    counts = ", ".join(
        f"{split} {len(part)} lines of {hands[split] or 'unknown'} writers" for split, part in out.items()
    )
    log.info("IAM, %s: %s; %d lines in no split", scheme or "id lists", counts, left)
    if "writer" in by and not any(hands.values()):
        log.warning("IAM: neither forms.txt nor XML names the writers, so nothing shows that the splits share none")
    return out


def _listed(name: str, home: Mapping[str, str]) -> set[str]:
    """Which ids of the lists cover a line or word: its own, its line's, its form's."""
    parts = name.split("-")
    return {i for n in range(2, len(parts) + 1) if (i := "-".join(parts[:n])) in home}
