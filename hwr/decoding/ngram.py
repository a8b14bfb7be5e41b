"""A character n-gram language model: interpolated modified Kneser-Ney (Chen and Goodman 1998), in numpy arrays."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hwr.errors import HwrError
from hwr.files import write_bytes
from hwr.text import Charset

_FORMAT = 1
_END = 0  # the blank's index stands for the end of a line, the number of classes (never predicted) for its beginning


class CharNGram:
    """Probability of each next character, given those before it in the line.

    The n-grams form a trie with one level per length. Level k is an ascending int64 array of keys, ``place of the first
    k - 1 symbols in level k - 1 * (C + 1) + last symbol``; a node's number counts through the levels, the root is 0.
    A state is the node of the longest known context, at most ``order - 1`` symbols. Symbols are indices of the charset.

    Args:
        charset: Whose characters are predicted; it must be the network's.
        keys: The keys of each level, from level 1.
        counts: For each key its count in the text (longest n-grams, and those at the beginning of a line), or else the
            number of different symbols seen before it.

    Raises:
        ValueError: If keys and counts are no trie.
    """

    def __init__(self, charset: Charset, keys: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> None:
        self.charset, self.order = charset, len(keys)
        self._keys, self._counts = list(keys), list(counts)
        classes, base = charset.num_classes, charset.num_classes + 1
        sizes = [1, *map(len, keys)]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self._contexts = offsets[self.order]  # nodes below this number are contexts
        total = offsets[-1]
        self._symbols = np.zeros(total, dtype=np.int32)
        self._chance = np.zeros(total)  # of the last symbol after the others
        self._shorter = np.zeros(total, dtype=np.int64)  # the node without the first symbol
        self._first = np.zeros(self._contexts + 1, dtype=np.int64)  # children of node n: first[n] to first[n + 1]
        self._rest = np.ones(self._contexts)  # weight of the shorter context
        for level, (key, count) in enumerate(zip(keys, counts, strict=True), start=1):
            parent, symbol = key // base, key % base
            here = slice(offsets[level], offsets[level + 1])
            if len(key) != len(count) or not len(key) or (np.diff(key) <= 0).any() or key[0] < 0 or (count < 0).any():
                raise ValueError(f"level {level} is no sorted list of n-grams")
            if parent[-1] >= sizes[level - 1] or (level > 1 and symbol.max() >= classes):
                raise ValueError(f"level {level} continues n-grams that do not exist")
            above = offsets[level - 1]
            self._symbols[here] = symbol
            self._first[above : above + sizes[level - 1]] = here.start + np.searchsorted(
                parent, np.arange(sizes[level - 1])
            )
            if level == 1:
                count = np.where(symbol == classes, 0, count)  # the beginning of a line is never predicted
                lower = np.full(len(key), 1 / classes)
            else:
                wanted = (self._shorter[above + parent] - offsets[level - 2]) * base + symbol
                place = np.searchsorted(keys[level - 2], wanted)
                if (keys[level - 2][np.minimum(place, sizes[level - 1] - 1)] != wanted).any():
                    raise ValueError(f"level {level} has n-grams whose end is in no shorter one")
                self._shorter[here] = above + place
                lower = self._chance[self._shorter[here]]
            taken = np.concatenate([[0.0], _discounts(count)])[np.minimum(count, 3)]
            sums = np.maximum(np.bincount(parent, count, sizes[level - 1]), 1e-300)
            rest = np.bincount(parent, taken, sizes[level - 1]) / sums
            rest[np.bincount(parent, minlength=sizes[level - 1]) == 0] = 1
            self._rest[above : above + sizes[level - 1]] = rest
            self._chance[here] = (count - taken) / sums[parent] + rest[parent] * lower
            if level == 1:
                self._chance[here][symbol == classes] = 0
        self._first[self._contexts] = total
        self._base_row = np.full(classes, self._rest[0] / classes)
        known = self._symbols[1 : 1 + sizes[1]] < classes
        self._base_row[self._symbols[1 : 1 + sizes[1]][known]] = self._chance[1 : 1 + sizes[1]][known]
        self.start = self.next(0, classes)

    @classmethod
    def train(cls, lines: Iterable[str], charset: Charset, order: int = 6) -> CharNGram:
        """Counts the n-grams of lines of text.

        Args:
            lines: As the network should read them; characters that the charset lacks are left out, empty lines too.
            charset: The network's.
            order: Length of the longest n-gram.

        Raises:
            HwrError: If there is no text.
        """
        if order < 1:
            raise HwrError(f"an n-gram model needs an order of at least 1, not {order}")
        classes = charset.num_classes
        texts = [text for text in (charset.encode(line, skip_unknown=True) for line in lines) if text]
        if not texts:
            raise HwrError("no text to train the n-gram model on: all lines are empty or of other characters")
        tokens = np.array([t for text in texts for t in (classes, *text, _END)], dtype=np.int64)
        place = np.arange(len(tokens))
        since = place - np.maximum.accumulate(np.where(tokens == classes, place, 0))  # symbols before it in its line
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        node = np.zeros(len(tokens), dtype=np.int64)  # place in its level of the n-gram that ends here
        for length in range(1, order + 1):
            ends = np.flatnonzero(since >= length - 1)
            if not len(ends):
                break
            parent = node[ends - 1] if length > 1 else np.zeros(len(ends), dtype=np.int64)
            key, inverse = np.unique(parent * (classes + 1) + tokens[ends], return_inverse=True)
            if length > 1:  # what was counted one level up becomes the number of different symbols before it
                shorter = np.zeros(len(key), dtype=np.int64)
                shorter[inverse] = node[ends]
                before = np.bincount(shorter, minlength=len(keys[-1]))
                counts[-1] = np.where(before > 0, before, counts[-1])  # nothing comes before the beginning of a line
            keys.append(key)
            counts.append(np.bincount(inverse))
            node = np.zeros(len(tokens), dtype=np.int64)
            node[ends] = inverse
        return cls(charset, keys, counts)

    def _child(self, state: int, symbol: int) -> int:
        """The node that continues a context by a symbol, or -1."""
        begin, end = int(self._first[state]), int(self._first[state + 1])
        child = begin + int(self._symbols[begin:end].searchsorted(symbol))
        return child if child < end and self._symbols[child] == symbol else -1

    def next(self, state: int, symbol: int) -> int:
        """The state after one more character.

        Args:
            state: ``start``, or what this method gave.
            symbol: Index of the character in the charset.
        """
        while (child := self._child(state, symbol)) < 0:
            if state == 0:
                return 0
            state = int(self._shorter[state])
        return child if child < self._contexts else int(self._shorter[child])

    def log_probs(self, state: int) -> np.ndarray:
        """Natural logarithms (C,) of the probability of each character at its index, of the end of the line at 0."""
        chain = []
        while state:
            chain.append(state)
            state = int(self._shorter[state])
        row = self._base_row.copy()
        for context in reversed(chain):
            children = slice(self._first[context], self._first[context + 1])
            row *= self._rest[context]
            row[self._symbols[children]] = self._chance[children]
        logarithms: np.ndarray = np.log(row)
        return logarithms

    def log_prob(self, state: int, symbol: int) -> float:
        """The one entry of :meth:`log_probs`, faster."""
        weight = 1.0
        while (child := self._child(state, symbol)) < 0:
            weight *= float(self._rest[state])
            if state == 0:
                return math.log(weight / self.charset.num_classes)
            state = int(self._shorter[state])
        return math.log(weight * float(self._chance[child]))

    def score(self, text: str) -> tuple[float, int]:
        """The natural log-probability of a line with its end, and the number of symbols that makes.

        Characters that the charset lacks are left out.
        """
        state, total = self.start, 0.0
        symbols = [*self.charset.encode(text, skip_unknown=True), _END]
        for symbol in symbols:
            total += self.log_prob(state, symbol)
            state = self.next(state, symbol)
        return total, len(symbols)

    def perplexity(self, lines: Iterable[str]) -> float:
        """The mean number of equally likely symbols to choose from, ends of lines included; inf without lines."""
        totals = [self.score(line) for line in lines]
        symbols = sum(n for _, n in totals)
        return math.exp(-sum(t for t, _ in totals) / symbols) if symbols else math.inf

    def save(self, path: str | Path) -> None:
        """Writes charset and counts as compressed arrays (.npz, no pickle)."""
        arrays = {"format": np.array(_FORMAT), "charset": np.array(self.charset.characters)}
        for level, (key, count) in enumerate(zip(self._keys, self._counts, strict=True), start=1):
            steps = np.diff(key, prepend=0)
            arrays[f"keys{level}"] = steps.astype(np.uint32 if steps.max() < 2**32 else np.int64)
            arrays[f"counts{level}"] = count.astype(np.uint32)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy types **kwds as its own option too
        write_bytes(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> CharNGram:
        """Reads what :meth:`save` wrote.

        Raises:
            HwrError: If the file cannot be read or is none of ours.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise HwrError(f"{path}: n-gram model of format {arrays['format']}, this hwr reads {_FORMAT}")
                levels = range(1, sum(name.startswith("keys") for name in arrays) + 1)
                keys = [np.cumsum(arrays[f"keys{n}"].astype(np.int64)) for n in levels]
                counts = [arrays[f"counts{n}"].astype(np.int64) for n in levels]
                return cls(Charset(str(arrays["charset"])), keys, counts)
        except OSError as error:
            raise HwrError(f"{path}: cannot read the n-gram model: {error.strerror or error}") from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise HwrError(f"{path}: no n-gram model, or a damaged one ({error}); train it again") from error


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 1, 2 and 3 or more (Chen and Goodman 1998, eq. 26); fixed where text is scarce."""
    n1, n2, n3, n4 = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    fixed = np.array([0.5, 1.0, 1.5])
    if not (n1 and n2 and n3 and n4):
        return fixed
    y = n1 / (n1 + 2 * n2)
    estimated = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.where((estimated > 0) & (estimated < [1, 2, 3]), estimated, fixed)
