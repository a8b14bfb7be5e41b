"""Error rates of reading: edits, alignments, character and word error rates with intervals.

The profile, to be stated with any figure: both sides go through :func:`hwr.text.normalise` (NFC, each run of white
space one space, none at the ends); case and punctuation count. CER is all edits over all reference characters of the
whole set, spaces included, WER the same over words, so both can exceed 1. A line with an empty reference adds its
insertions. An edit is one substitution, insertion or deletion (Levenshtein 1966).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from hwr.text.charset import normalise

Metric = Literal["cer", "wer"]
_WORD = re.compile(r"[^\W_]+|[^\s]")


class Operation(NamedTuple):
    """One step from a reference to a hypothesis.

    Attributes:
        kind: What happened.
        reference: The character or word in the reference; empty for an insertion.
        hypothesis: The one in the hypothesis; empty for a deletion.
    """

    kind: Literal["equal", "substitute", "insert", "delete"]
    reference: str
    hypothesis: str


class Confusion(NamedTuple):
    """A kind of mistake and how often it happened; an empty side is an insertion or a deletion."""

    reference: str
    hypothesis: str
    times: int


def words(text: str, separate_punctuation: bool = False) -> list[str]:
    """Splits a text into the words that WER counts.

    Args:
        text: A line, normalised here.
        separate_punctuation: False splits at white space alone ("l'eau," is one word). True makes every run of letters
            and digits a word and every other character one of its own ("l", "'", "eau", ","). Marks that combine with a
            letter without a composed form count as other characters.
    """
    text = normalise(text)
    return _WORD.findall(text) if separate_punctuation else text.split()


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """The least number of edits between two strings or two lists of words, as given (not normalised)."""
    return Levenshtein.distance(reference, hypothesis)


def alignment(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """One shortest list of operations that turns the reference into the hypothesis, equal parts included, in order.

    Args:
        reference: A string or a list of words, as given (not normalised).
        hypothesis: Likewise.
    """
    steps: list[Operation] = []
    for code in Levenshtein.opcodes(reference, hypothesis):
        left, right = reference[code.src_start : code.src_end], hypothesis[code.dest_start : code.dest_end]
        if code.tag == "delete":
            steps += [Operation("delete", r, "") for r in left]
        elif code.tag == "insert":
            steps += [Operation("insert", "", h) for h in right]
        else:
            kind: Literal["equal", "substitute"] = "equal" if code.tag == "equal" else "substitute"
            steps += [Operation(kind, r, h) for r, h in zip(left, right, strict=True)]
    return steps


def confusions(pairs: Iterable[tuple[str, str]], most: int | None = None) -> list[Confusion]:
    """Counts the mistakes of many lines, most frequent first.

    Args:
        pairs: (reference, hypothesis) of each line, normalised here.
        most: How many to return; None for all.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for reference, hypothesis in pairs:
        steps = alignment(normalise(reference), normalise(hypothesis))
        counts.update((s.reference, s.hypothesis) for s in steps if s.kind != "equal")
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # ties by character: same list on every run
    return [Confusion(*pair, count) for pair, count in ranked[:most]]


def _rate(edits: float, length: float) -> float:
    if length:
        return float(edits / length)
    return float("inf") if edits else 0.0


@dataclass
class ErrorRate:
    """Adds up edits and lengths of lines, by group (a writer).

    Lines without a group count one by one, as if each had a writer of its own. Plain data inside: it can be pickled to
    another process and merged there with ``+``; each line must have been added in one process only.

    Args:
        separate_punctuation: How WER splits words, see :func:`words`.
    """

    separate_punctuation: bool = False
    groups: dict[str, np.ndarray] = field(default_factory=dict)  # int64 (5,): see _COLUMNS
    alone: list[np.ndarray] = field(default_factory=list)

    _COLUMNS = ("character edits", "reference characters", "word edits", "reference words", "lines")

    def add(self, reference: str, hypothesis: str, group: str | None = None) -> int:
        """Counts one line.

        Returns:
            Its character edits.
        """
        reference, hypothesis = normalise(reference), normalise(hypothesis)
        left, right = (words(text, self.separate_punctuation) for text in (reference, hypothesis))
        edits = distance(reference, hypothesis)
        counts = np.array([edits, len(reference), distance(left, right), len(left), 1])
        if group is None:
            self.alone.append(counts)
        else:
            self.groups[group] = self.groups.get(group, 0) + counts
        return edits

    def __add__(self, other: ErrorRate) -> ErrorRate:
        """Both together, for merging processes.

        Raises:
            ValueError: If they split words differently.
        """
        if self.separate_punctuation != other.separate_punctuation:
            raise ValueError("error rates that split words differently cannot be added")
        groups = dict(self.groups)
        for name, counts in other.groups.items():
            groups[name] = groups.get(name, 0) + counts
        return ErrorRate(self.separate_punctuation, groups, self.alone + other.alone)

    def _table(self) -> np.ndarray:
        rows = [self.groups[name] for name in sorted(self.groups)] + sorted(self.alone, key=tuple)
        return np.array(rows, dtype=np.int64).reshape(-1, len(self._COLUMNS))  # (G, 5), however it was added

    @property
    def lines(self) -> int:
        """Number of lines added."""
        return int(self._table()[:, 4].sum())

    @property
    def characters(self) -> int:
        """Number of reference characters."""
        return int(self._table()[:, 1].sum())

    @property
    def cer(self) -> float:
        """Character edits over reference characters; inf where there are edits but no reference, 0 without lines."""
        return _rate(*self._table()[:, :2].sum(0))

    @property
    def wer(self) -> float:
        """Word edits over reference words, likewise."""
        return _rate(*self._table()[:, 2:4].sum(0))

    def by_group(self, metric: Metric = "cer") -> dict[str, float]:
        """The rate of each named group, worst first."""
        column = 0 if metric == "cer" else 2
        rates = {name: _rate(*counts[column : column + 2]) for name, counts in self.groups.items()}
        return dict(sorted(rates.items(), key=lambda item: (-item[1], item[0])))

    def interval(
        self, metric: Metric = "cer", level: float = 0.95, samples: int = 2000, seed: int = 0
    ) -> tuple[float, float] | None:
        """Percentile bootstrap interval (Efron 1979) of the rate, drawing whole groups with replacement.

        Lines of one writer go wrong together, so writers are drawn, not lines; lines without a group are drawn singly.

        Args:
            metric: ``cer`` or ``wer``.
            level: Share of the samples that the interval holds.
            samples: Number of resamplings.
            seed: Of the resampling.

        Returns:
            (low, high), or None with fewer than two groups, where there is nothing to draw from.
        """
        table = self._table()
        if len(table) < 2:
            return None
        column = 0 if metric == "cer" else 2
        rng = np.random.default_rng(seed)
        edits, lengths = np.zeros(samples), np.zeros(samples)
        for start in range(0, samples, 100):  # (100, G) at a time: G may be every line of a large set
            part = slice(start, min(start + 100, samples))
            draws = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), part.stop - part.start)
            edits[part], lengths[part] = draws @ table[:, column], draws @ table[:, column + 1]
        some = lengths > 0
        if not some.any():
            return None
        low, high = np.quantile(edits[some] / lengths[some], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
