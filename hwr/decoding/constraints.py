"""Which texts may be read: words of a list, or a regular expression, both as one deterministic automaton."""

from __future__ import annotations

import importlib
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from hwr.errors import HwrError
from hwr.text import Charset, code_points, normalise

log = logging.getLogger(__name__)
_parser: Any = importlib.import_module("re._parser")  # the parse tree of Python's own regular expressions
_MOST_STATES = 20_000


class Automaton:
    """A deterministic automaton over the indices of a charset, from which no state is a dead end.

    Attributes:
        start: The state before the first character.
        edges: For each state {index: next state}; states from which no text can be completed are cut off.
        need: For each state the fewest CTC frames that complete a text, after a blank; 0 where it is complete.
        only: For each state the one index that reaches completion in ``need`` frames, or 0 if there are several. Right
            after a frame of that same index a blank must come between, so that ``need + 1`` frames are needed.

    Args:
        start: See above.
        edges: See above.
        accepting: States in which the text is complete.

    Raises:
        HwrError: If no text leads to an accepting state.
    """

    def __init__(self, start: int, edges: Sequence[dict[int, int]], accepting: Iterable[int]) -> None:
        size, unknown = len(edges), 2 * len(edges) + 1  # a way out visits no state twice
        self.start, self.need, self.only = start, [unknown] * size, [0] * size
        arriving: list[list[tuple[int, int]]] = [[] for _ in range(size)]  # for each state (from, index)
        for state, row in enumerate(edges):
            for index, target in row.items():
                arriving[target].append((state, index))
        layers: list[list[int]] = [sorted(set(accepting))]  # layers[n]: the states whose need is n
        for state in layers[0]:
            self.need[state] = 0
        while layers[-1] or (len(layers) > 1 and layers[-2]):
            need = len(layers)
            first: dict[int, set[int]] = {}  # the characters that a shortest completion can begin with
            for target in layers[-1]:
                for state, index in arriving[target]:
                    if self.need[state] == unknown and self.only[target] != index:
                        first.setdefault(state, set()).add(index)
            for target in layers[-2] if need > 1 else []:
                for state, index in arriving[target]:
                    if self.need[state] == unknown and self.only[target] == index:
                        first.setdefault(state, set()).add(index)
            for state, indices in first.items():
                self.need[state] = need
                self.only[state] = indices.pop() if len(indices) == 1 else 0
            layers.append(list(first))
        if self.need[start] == unknown:
            raise HwrError("the constraint allows no text at all over this charset")
        alive = [n != unknown for n in self.need]
        self.edges = [{i: s for i, s in row.items() if alive[s]} for row in edges]
        self.longest_need = max(n for n in self.need if n != unknown)

    def accepts(self, indices: Iterable[int]) -> bool:
        """Whether these indices spell a complete text of the language."""
        state: int | None = self.start
        for index in indices:
            state = self.edges[state].get(index) if state is not None else None
        return state is not None and self.need[state] == 0


class Constraint(Protocol):
    """Says which texts may be read."""

    def automaton(self, charset: Charset) -> Automaton:
        """The language over a charset's indices.

        Raises:
            HwrError: If no text of it can be written with this charset.
        """
        ...


class Lexicon:
    """Texts made of words of a list.

    Args:
        words: The words, in any normalisation form.
        separators: Characters that stand between words, any number of them, also at both ends; a word may not contain
            one. With "" the whole text is exactly one entry of the list, which may then contain spaces.

    Raises:
        HwrError: If the list is empty or a word contains a separator.
    """

    def __init__(self, words: Iterable[str], separators: str = " ") -> None:
        self.words = sorted({normalise(word) for word in words} - {""})
        self.separators = separators
        if not self.words:
            raise HwrError("the lexicon has no words")
        for word in self.words:
            if set(word) & set(separators):
                raise HwrError(
                    f"the word {word!r} of the lexicon contains a separator of {separators!r}; "
                    "with separators='' an entry is a whole text"
                )

    def automaton(self, charset: Charset) -> Automaton:
        """A trie whose word ends lead back to its root by a separator; words the charset cannot write are left out."""
        edges: list[dict[int, int]] = [{}]
        ends: set[int] = set()
        unwritable = []
        for word in self.words:
            lacking = [c for c in word if c not in charset]
            if lacking:
                unwritable.append((word, lacking))
                continue
            state = 0
            for index in charset.encode(word):
                if index not in edges[state]:
                    edges[state][index] = len(edges)
                    edges.append({})
                state = edges[state][index]
            ends.add(state)
        if unwritable:
            word, lacking = unwritable[0]
            text = (
                f"{len(unwritable)} of {len(self.words)} words of the lexicon have characters that the charset lacks, "
                f"such as {word!r} with {code_points(lacking)}"
            )
            if not ends:
                raise HwrError(f"{text}; the model cannot read any of them")
            log.warning("%s: they will never be read", text)
        if self.separators:
            for index in filter(None, map(charset.index, self.separators)):
                for state in (0, *ends):
                    edges[state][index] = 0
            ends.add(0)
        return Automaton(0, edges, ends)


class Regex:
    """Texts that match a regular expression as a whole: amounts, dates, postal codes.

    Args:
        pattern: In Python's syntax: characters, classes, groups, alternatives, repeats. Flags, look-around,
            back-references, possessive repeats and anchors inside are refused; lazy and greedy repeats mean the same.

    Raises:
        HwrError: If the pattern is wrong or has something refused.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = unicodedata.normalize("NFC", pattern)
        try:
            parsed = _parser.parse(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise HwrError(f"regular expression {pattern[:200]!r}: {error}") from error
        if parsed.state.flags & ~re.UNICODE.value:
            raise HwrError(f"regular expression {pattern!r}: flags such as (?i) are not supported; write [aA]")
        items = list(parsed)
        if items and str(items[0][0]) == "AT" and str(items[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            items = items[1:]
        if items and str(items[-1][0]) == "AT" and str(items[-1][1]) in ("AT_END", "AT_END_STRING"):
            items = items[:-1]
        self._free: list[list[int]] = [[]]  # for each state the states reached without a character; state 0 is the end
        self._leaf: list[tuple[Any, int] | None] = [None]  # for each state (parsed character or class, next state)
        self._start = self._sequence(items, 0)

    def _state(self, free: list[int], leaf: tuple[Any, int] | None = None) -> int:
        if len(self._free) >= _MOST_STATES:
            raise HwrError(f"regular expression {self.pattern!r}: too large; use smaller repeat counts")
        self._free.append(free)
        self._leaf.append(leaf)
        return len(self._free) - 1

    def _sequence(self, items: Iterable[Any], target: int) -> int:
        """Builds states that match the items and then go on to ``target`` (Thompson 1968); returns the first."""
        for item in reversed(list(items)):
            kind, value = str(item[0]), item[1]
            if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                target = self._state([], (item, target))
            elif kind == "BRANCH":
                target = self._state([self._sequence(part, target) for part in value[1]])
            elif kind == "SUBPATTERN" and not value[1] and not value[2]:
                target = self._sequence(value[3], target)
            elif kind in ("MAX_REPEAT", "MIN_REPEAT"):
                least, most, part = value
                entry = target
                if most is _parser.MAXREPEAT:
                    entry = self._state([target])
                    self._free[entry].append(self._sequence(part, entry))
                else:
                    for _ in range(most - least):
                        entry = self._state([self._sequence(part, entry), target])
                for _ in range(least):
                    entry = self._sequence(part, entry)
                target = entry
            else:
                what = {"AT": "an anchor inside", "GROUPREF": "a back-reference", "SUBPATTERN": "a flag"}.get(
                    kind, kind
                )
                raise HwrError(
                    f"regular expression {self.pattern!r}: {what.lower()} is not supported; use characters, classes, "
                    "groups, | and repeats"
                )
        return target

    def automaton(self, charset: Charset) -> Automaton:
        """Sets of states become one (Rabin and Scott 1959), at most 20,000 of them."""
        known: dict[str, list[int]] = {}

        def matching(item: Any) -> list[int]:
            if str(item) not in known:
                known[str(item)] = [i for i, c in enumerate(charset.characters, start=1) if _matches(item, c)]
            return known[str(item)]

        def closure(states: Iterable[int]) -> frozenset[int]:
            reached, todo = set(states), list(states)
            while todo:
                new = [s for s in self._free[todo.pop()] if s not in reached]
                reached.update(new)
                todo += new
            return frozenset(s for s in reached if s == 0 or self._leaf[s])

        sets = [closure([self._start])]
        numbers, edges = {sets[0]: 0}, []
        for current in sets:  # grows while we go
            targets: dict[int, set[int]] = {}
            for leaf in filter(None, (self._leaf[s] for s in current)):
                for index in matching(leaf[0]):
                    targets.setdefault(index, set()).add(leaf[1])
            row = {}
            for index, states in targets.items():
                reached = closure(states)
                if reached not in numbers:
                    numbers[reached] = len(sets)
                    sets.append(reached)
                row[index] = numbers[reached]
            edges.append(row)
            if len(sets) > _MOST_STATES:
                raise HwrError(f"regular expression {self.pattern!r}: too many states; use smaller repeat counts")
        try:
            return Automaton(0, edges, [n for n, states in enumerate(sets) if 0 in states])
        except HwrError as error:
            raise HwrError(f"regular expression {self.pattern!r}: {error}") from error


_CATEGORIES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}


def _matches(item: Any, character: str) -> bool:
    """Whether one parsed character, class or dot matches a character, as in :mod:`re`."""
    kind, value, code = str(item[0]), item[1], ord(character)
    if kind == "ANY":
        return character != "\n"
    if kind == "LITERAL":
        return bool(value == code)
    if kind == "NOT_LITERAL":
        return bool(value != code)
    if kind == "RANGE":
        return bool(value[0] <= code <= value[1])
    if kind == "CATEGORY":
        negated, name = "_NOT_" in str(value), str(value).rsplit("_", 1)[1]
        return (re.match(_CATEGORIES[name], character) is None) == negated
    negated = str(value[0][0]) == "NEGATE"  # IN
    return any(_matches(part, character) for part in value[negated:]) != negated
