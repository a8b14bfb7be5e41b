"""Prefix beam search for CTC (Graves 2012, section 7.5.3; Hannun 2014) with a constraint and a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from hwr.decoding.alignment import best_path, checked, hypotheses
from hwr.decoding.constraints import Automaton, Constraint
from hwr.decoding.hypothesis import Hypothesis
from hwr.errors import HwrError
from hwr.text import Charset

_FLOOR = -600.0  # nats below the best class of a frame, where the double's exponent still has room


class LanguageModel(Protocol):
    """Says how probable each next character is; states are hashable."""

    charset: Charset
    start: Any

    def log_probs(self, state: Any) -> np.ndarray:
        """Natural logarithms (C,) of each character at its index, and of the end of the line at index 0."""
        ...

    def next(self, state: Any, symbol: int) -> Any:
        """The state after one more character."""
        ...


class _Prefix:
    """A node in the tree of prefixes: the text so far, and the mass of the paths that spell it.

    ``blank`` and ``char`` are the masses of paths that end in a blank and in the last character; ``new_*`` are those
    of the frame being worked on, valid if ``frame`` is its number. Language model factors are in the masses.
    """

    __slots__ = (
        "blank",
        "char",
        "children",
        "factors",
        "frame",
        "last",
        "lm",
        "new_blank",
        "new_char",
        "parent",
        "state",
    )

    def __init__(self, parent: _Prefix | None, last: int, state: int) -> None:
        self.parent, self.last, self.state = parent, last, state
        self.children: dict[int, _Prefix] = {}
        self.blank = self.char = self.new_blank = self.new_char = 0.0
        self.frame = -1
        self.lm: Any = None
        self.factors: memoryview | None = None

    def labels(self) -> list[int]:
        labels, node = [], self
        while node.parent is not None:
            labels.append(node.last)
            node = node.parent
        return labels[::-1]


class BeamDecoder:
    """Finds the text with the greatest ``log p_ctc(text) + weight * log p_lm(text) + bonus * len(text)``.

    ``p_ctc`` sums over all paths of the text, ``p_lm`` includes the end of the line. The masses are kept as plain
    probabilities, scaled in each frame so that the greatest is 1: products are cheaper than sums of logarithms. With an
    infinite cutoff and a beam wider than the number of prefixes the search is exact.

    With a constraint the answer is always a text of its language: in every frame, a prefix that could no longer be
    completed in the frames left is dropped, and one that must go on now is continued by every allowed character,
    however improbable. Only where no text of the language fits into the frames the answer is empty, with confidence 0.

    Args:
        charset: Names the classes.
        beam: Number of prefixes kept after each frame.
        constraint: Which texts may be read; all if None.
        model: A language model over the same charset.
        weight: Of the language model; tune it on validation data.
        bonus: In nats for each character, against the language model's liking for short texts; tune it likewise.
            Without a model it is left aside.
        cutoff: A prefix is not continued by a character where that is this many nats less probable than the best
                prefix with the best class of the frame.

    Raises:
        HwrError: If beam or cutoff is not positive, the model has another charset, or the constraint allows nothing.
    """

    def __init__(
        self,
        charset: Charset,
        beam: int = 10,
        constraint: Constraint | None = None,
        model: LanguageModel | None = None,
        weight: float = 0.5,
        bonus: float = 0.0,
        cutoff: float = 8.0,
    ) -> None:
        if beam < 1 or cutoff <= 0:
            raise HwrError(f"decoder: beam must be at least 1 and cutoff above 0, not {beam} and {cutoff}")
        if model is not None and model.charset != charset:
            raise HwrError("decoder: the language model has another charset than the network; train it for this one")
        self.charset, self.beam, self.cutoff = charset, beam, cutoff
        self.model, self.weight, self.bonus = model, weight, bonus
        self._automaton: Automaton | None = constraint.automaton(charset) if constraint is not None else None
        self._least = math.exp(-cutoff)  # relative to the best prefix, whose mass is 1
        self._factors: dict[Any, memoryview] = {}

    def __call__(self, log_probs: Tensor, lengths: Tensor | Sequence[int]) -> list[Hypothesis]:
        """Decodes a batch, line by line.

        Args:
            log_probs: (B, T, C) log_softmax over C, any float type and device.
            lengths: (B,) frames that count in each line.
        """
        log_probs, frames = checked(log_probs, lengths, self.charset)
        found = [self.search(line[:length]) for line, length in zip(log_probs.numpy(), frames.tolist(), strict=True)]
        labels = [candidates[0][0] if candidates else [] for candidates in found]
        readings = hypotheses(log_probs, frames, best_path(log_probs.numpy(), frames, labels), self.charset)
        nothing = Hypothesis("", 0.0, (), ())
        return [reading if candidates else nothing for reading, candidates in zip(readings, found, strict=True)]

    def search(self, log_probs: np.ndarray) -> list[tuple[list[int], float]]:
        """Decodes one line.

        Args:
            log_probs: (T, C).

        Returns:
            At most ``beam`` (indices, score), best first; the score is that of the class's first line, over the paths
            that the search went. Empty if the constraint has no text that fits into T frames.
        """
        root = _Prefix(None, 0, self._automaton.start if self._automaton else 0)
        root.blank = 1.0
        if self._automaton and self._automaton.need[root.state] > len(log_probs):
            return []
        if self.model:
            root.lm = self.model.start
            root.factors = self._factors_after(root.lm)
        beam, scale = [root], 0.0
        peaks = log_probs.max(1, initial=-np.inf).astype(np.float64)
        chances = np.exp(np.maximum(log_probs - peaks[:, None], _FLOOR))  # (T, C), the best class of a frame is 1
        kept = log_probs > peaks[:, None] - self.cutoff
        kept[:, 0] = False
        rows, columns = np.nonzero(kept)
        bounds = np.searchsorted(rows, np.arange(len(log_probs) + 1)).tolist()
        indices, values, blanks = columns.tolist(), chances[rows, columns].tolist(), chances[:, 0].tolist()
        urgent = self._automaton.longest_need + 2 if self._automaton else 0

        for t, blank in enumerate(blanks):
            here = slice(bounds[t], bounds[t + 1])
            frame = dict(sorted(zip(indices[here], values[here], strict=True), key=itemgetter(1), reverse=True))
            left = len(blanks) - t  # frames from this one on
            scale += peaks[t]
            if not frame and left > urgent:  # blank alone, so its chance is 1: the order of the beam stays
                for node in beam:
                    node.blank, node.char = node.blank + node.char, 0.0
                continue
            reached = self._extend(beam, t, blank, frame, chances[t] if left <= urgent else None, left)
            reached.sort(key=itemgetter(0), reverse=True)
            best = reached[0][0]
            scale += math.log(best)
            beam = []
            for mass, node, index in reached[: self.beam]:
                if index:
                    beam.append(self._continued(node, index, mass / best))
                else:
                    node.blank, node.char = node.new_blank / best, node.new_char / best
                    beam.append(node)

        ends = [node.factors[0] if node.factors else 1.0 for node in beam]
        masses = [(node.blank + node.char) * end for node, end in zip(beam, ends, strict=True)]
        ranked = sorted(
            ((m, n) for m, n in zip(masses, beam, strict=True) if m), key=lambda pair: pair[0], reverse=True
        )
        return [(node.labels(), scale + math.log(mass)) for mass, node in ranked]

    def _extend(
        self, beam: list[_Prefix], t: int, blank: float, frame: dict[int, float], row: np.ndarray | None, left: int
    ) -> list[tuple[float, _Prefix, int]]:
        """Spreads the mass of the beam over what this frame may add.

        Args:
            beam: The prefixes so far.
            t: The frame's number.
            blank: Chance of the blank.
            frame: Chances of the characters to try, greatest first.
            row: Chances of all classes (C,), if the end is so near that prefixes may have to hurry to be completed.
            left: Frames from this one on.

        Returns:
            (mass, prefix, index): the prefix continued by the character at this index, or as it is if the index is 0,
            with its masses in ``new_blank`` and ``new_char``. Without those that cannot be completed, and some too
            small to stay in the beam.
        """
        automaton, hurry = self._automaton, row is not None
        for node in beam:
            repeat = float(row[node.last]) if row is not None else frame.get(node.last, 0.0)
            node.frame, node.new_blank, node.new_char = t, (node.blank + node.char) * blank, node.char * repeat
        # A prefix outside the beam is reached from one prefix only: what is below as many as fit now can never stay.
        floor = min(node.new_blank + node.new_char for node in beam) if len(beam) >= self.beam and not hurry else 0.0

        reached = []
        for node in beam:
            last, both, factors, children = node.last, node.blank + node.char, node.factors, node.children
            tried, least = frame, self._least
            edges = automaton.edges[node.state] if automaton else None
            if automaton and row is not None and automaton.need[node.state] >= left:
                tried, least = {index: float(row[index]) for index in automaton.edges[node.state]}, -1.0
            for index, chance in tried.items():
                mass = both * chance
                if mass <= least:
                    break
                if edges is not None and index not in edges:
                    continue
                if index == last:
                    mass = node.blank * chance
                if factors is not None:
                    mass *= factors[index]
                child = children.get(index)
                if child is not None and child.frame == t:
                    child.new_char += mass
                elif mass > floor:
                    reached.append((mass, node, index))

        if automaton and hurry:
            for node in beam:
                need = automaton.need[node.state]
                if need >= left:
                    node.new_blank = 0.0
                if need + (automaton.only[node.state] == node.last) >= left:
                    node.new_char = 0.0
            for place, (_, node, index) in reversed(list(enumerate(reached))):
                state = automaton.edges[node.state][index]
                if automaton.need[state] + (automaton.only[state] == index) >= left:
                    del reached[place]
        reached += [(mass, node, 0) for node in beam if (mass := node.new_blank + node.new_char)]
        return reached

    def _continued(self, node: _Prefix, index: int, mass: float) -> _Prefix:
        """The prefix with one more character, new in the beam."""
        child = node.children.get(index)
        if child is None:
            child = _Prefix(node, index, self._automaton.edges[node.state][index] if self._automaton else 0)
            node.children[index] = child
            if self.model:
                child.lm = self.model.next(node.lm, index)
                child.factors = self._factors_after(child.lm)
        child.blank, child.char = 0.0, mass
        return child

    def _factors_after(self, state: Any) -> memoryview:
        """What a prefix's mass is multiplied by for each next character, and at 0 for the end; doubles (C,)."""
        assert self.model is not None
        factors = self._factors.get(state)
        if factors is None:
            if len(self._factors) * self.charset.num_classes > 4_000_000:  # 32 MB
                self._factors.clear()
            terms = self.weight * self.model.log_probs(state) + self.bonus
            terms[0] -= self.bonus
            factors = self._factors[state] = np.exp(terms.clip(-100, 100)).data
        return factors
