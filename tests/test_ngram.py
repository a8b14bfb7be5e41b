"""The n-gram model, against a dictionary version written from the formulas."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from hwr.decoding import CharNGram
from hwr.errors import HwrError
from hwr.text import Charset

LINES = [
    "le chat dort",
    "le chien dort",
    "la chatte mange le rat",
    "un rat mange",
    "le loup y est",
    "aa",
    "",
    "la la la",
    "elle dort la nuit",
    "été",
]
CHARSET = Charset("".join(sorted(set("".join(LINES)))) + "z")  # z never occurs


def naive(lines: list[str], alphabet: str, order: int):
    """Interpolated modified Kneser-Ney from Chen and Goodman 1998: p(symbol, history), "^" begins and "$" ends."""
    raw: Counter[str] = Counter()
    for line in filter(None, lines):
        text = f"^{line}$"
        raw.update(text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1))
    before = defaultdict(set)
    for gram in raw:
        before[gram[1:]].add(gram[0])
    counts = {g: c if len(g) == order or g[0] == "^" else len(before[g]) for g, c in raw.items()}
    counts.pop("^")
    discounts = {}
    for n in range(1, order + 1):
        of = Counter(c for g, c in counts.items() if len(g) == n)
        fixed = {1: 0.5, 2: 1.0, 3: 1.5}
        discounts[n] = {0: 0.0, **fixed}
        if all(of[k] for k in (1, 2, 3, 4)):
            y = of[1] / (of[1] + 2 * of[2])
            for k in (1, 2, 3):
                d = k - (k + 1) * y * of[k + 1] / of[k]
                discounts[n][k] = d if 0 < d < k else fixed[k]

    def p(symbol: str, history: str) -> float:
        history = history[len(history) - (order - 1) :] if len(history) >= order else history
        following = {s: counts[history + s] for s in (*alphabet, "$") if history + s in counts}
        lower = p(symbol, history[1:]) if history else 1 / (len(alphabet) + 1)
        if not following:
            return lower
        d, total = discounts[len(history) + 1], sum(following.values())
        rest = sum(d[min(c, 3)] for c in following.values()) / total
        c = following.get(symbol, 0)
        return (c - d[min(c, 3)]) / total + rest * lower

    return p


@pytest.fixture(scope="module")
def model() -> CharNGram:
    return CharNGram.train(LINES, CHARSET, order=4)


def state_of(model: CharNGram, text: str) -> int:
    state = model.start
    for symbol in model.charset.encode(text):
        state = model.next(state, symbol)
    return state


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_equals_the_dictionary_version(order: int):
    model, p = CharNGram.train(LINES, CHARSET, order), naive(LINES, CHARSET.characters, order)
    histories = ["", "l", "le", "le ch", "zz", "chz", "z l", "dort", "la la la", "mange le r", "tt"]
    for history in histories:
        row = model.log_probs(state_of(model, history))
        expected = [p(symbol, "^" + history) for symbol in ("$", *CHARSET.characters)]
        np.testing.assert_allclose(np.exp(row), expected, rtol=1e-10)


def test_estimated_discounts_equal_the_dictionary_version():
    generator = random.Random(0)
    lines = ["".join(generator.choices("abcdefgh", weights=range(1, 9), k=12)) for _ in range(150)]
    charset = Charset("abcdefgh")
    model, p = CharNGram.train(lines, charset, 4), naive(lines, "abcdefgh", 4)
    for history in ("", "a", "hg", "habc", "aaaa", lines[0][:7]):
        expected = [p(symbol, "^" + history) for symbol in "$abcdefgh"]
        np.testing.assert_allclose(np.exp(model.log_probs(state_of(model, history))), expected, rtol=1e-10)


def test_sums_to_one_for_every_history(model: CharNGram):
    states = range(model._contexts)
    for state in states:
        row = model.log_probs(state)
        assert row.shape == (CHARSET.num_classes,)
        assert np.exp(row).sum() == pytest.approx(1, abs=1e-12)
        assert np.isfinite(row).all()


def test_single_probabilities_are_those_of_the_row(model: CharNGram):
    generator = random.Random(0)
    for _ in range(50):
        state = state_of(model, "".join(generator.choices(CHARSET.characters, k=6)).strip() or "l")
        row = model.log_probs(state)
        for symbol in range(CHARSET.num_classes):
            assert model.log_prob(state, symbol) == pytest.approx(row[symbol], abs=1e-12)


def test_score_and_perplexity(model: CharNGram):
    p = naive(LINES, CHARSET.characters, 4)
    text = "le rat"
    expected = sum(math.log(p(s, "^" + text[:i])) for i, s in enumerate(text + "$"))
    assert model.score(text) == (pytest.approx(expected), 7)
    assert model.score("l☃e rat") == (pytest.approx(expected), 7)  # unknown characters are left out
    assert model.perplexity([text]) == pytest.approx(math.exp(-expected / 7))
    assert model.perplexity([]) == math.inf
    assert model.score("")[1] == 1
    assert model.perplexity(LINES) < CharNGram.train(LINES, CHARSET, 1).perplexity(LINES) < CHARSET.num_classes


def test_lines_begin_and_end(model: CharNGram):
    start = np.exp(model.log_probs(model.start))
    assert start[CHARSET.encode("l")[0]] > 0.3
    assert np.exp(model.log_prob(state_of(model, "le chat dort"), 0)) > 0.5
    assert start[0] < 0.1


def test_texts_in_another_form_train_the_same():
    nfd = CharNGram.train(["e\u0301te\u0301", " le  chat"], Charset("achlté e"))
    nfc = CharNGram.train(["été", "le chat"], Charset("achlté e"))
    assert nfd.score("été chat") == nfc.score("été chat")


def test_nothing_to_train_on():
    with pytest.raises(HwrError, match="no text"):
        CharNGram.train(["", "☃"], CHARSET)
    with pytest.raises(HwrError, match="order"):
        CharNGram.train(LINES, CHARSET, 0)


def test_save_and_load(model: CharNGram, tmp_path: Path):
    path = tmp_path / "sub" / "model.npz"
    model.save(path)
    again = CharNGram.load(path)
    assert (again.charset, again.order, again.start) == (model.charset, model.order, model.start)
    for state in range(model._contexts):
        np.testing.assert_array_equal(again.log_probs(state), model.log_probs(state))


def test_short_lines_lower_the_order(tmp_path: Path):
    model = CharNGram.train(["a"], Charset("ab"), order=6)
    assert model.order == 3
    model.save(tmp_path / "m.npz")
    assert CharNGram.load(tmp_path / "m.npz").score("ab") == model.score("ab")


def test_damaged_files_are_named(model: CharNGram, tmp_path: Path):
    good, path = tmp_path / "good.npz", tmp_path / "bad.npz"
    model.save(good)
    content = good.read_bytes()
    arrays = dict(np.load(good))
    cases: list[bytes | dict] = [b"", b"nonsense", content[: len(content) // 2], json.dumps({}).encode()]
    cases += [{k: v for k, v in arrays.items() if k != "counts2"}]
    cases += [{**arrays, "keys2": np.array([10**6])}]  # continues what is not there
    cases += [{**arrays, "keys3": arrays["keys3"][::-1]}, {**arrays, "counts3": arrays["counts3"][:-1]}]
    cases += [{**arrays, "charset": np.array("ab")}, {**arrays, "format": np.array(99)}]
    more = CHARSET.num_classes - np.cumsum(arrays["keys2"])[-1] % (CHARSET.num_classes + 1)  # a line that begins within
    keys, counts = np.append(arrays["keys2"], more), np.append(arrays["counts2"], 1)
    cases += [{**arrays, "keys2": keys, "counts2": counts}]
    cases += [{**arrays, "charset": np.array([{}], dtype=object)}]  # a pickle is not opened
    for case in cases:
        if isinstance(case, bytes):
            path.write_bytes(case)
        else:
            np.savez(path, **case)
        with pytest.raises(HwrError, match=r"bad\.npz"):
            CharNGram.load(path)
    np.save(path.with_suffix(".npy"), np.arange(3))
    with pytest.raises(HwrError, match="train it again"):
        CharNGram.load(path.with_suffix(".npy"))
    with pytest.raises(HwrError, match="nowhere"):
        CharNGram.load(tmp_path / "nowhere")
