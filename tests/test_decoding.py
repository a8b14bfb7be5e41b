"""Decoders against enumeration of all paths, and against a beam search without any of the shortcuts."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby, product

import numpy as np
import pytest
import torch
from torch.nn.functional import ctc_loss

from hwr.bundle import Bundle
from hwr.decoders import beam
from hwr.decoding import Automaton, BeamDecoder, CharNGram, GreedyDecoder, Hypothesis, Lexicon, Regex, best_path
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess
from hwr.text import Charset

AB = Charset("ab ")
WIDE = {"beam": 100_000, "cutoff": math.inf}
NOTHING = Hypothesis("", 0.0, (), ())


def random_log_probs(steps: int, classes: int, seed: int = 0, sharpness: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(steps, classes, generator=generator, dtype=torch.float64)).log_softmax(-1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label)


def all_paths(
    log_probs: torch.Tensor,
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], tuple[float, tuple[int, ...]]]]:
    """For every text the sum over its paths, and its best path."""
    chances = log_probs.exp().tolist()
    total: dict[tuple[int, ...], float] = defaultdict(float)
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for path in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        chance, text = math.prod(frame[c] for frame, c in zip(chances, path, strict=True)), collapse(path)
        total[text] += chance
        best[text] = max(best.get(text, (-1.0, path)), (chance, path))
    return total, best


def one(decoder: GreedyDecoder | BeamDecoder, log_probs: torch.Tensor) -> Hypothesis:
    (hypothesis,) = decoder(log_probs[None], [len(log_probs)])
    return hypothesis


def runs(path: tuple[int, ...]) -> list[tuple[int, int]]:
    spans, at = [], 0
    for label, frames in groupby(path):
        length = len(list(frames))
        spans += [(at, at + length)] if label else []
        at += length
    return spans


def check_against_paths(hypothesis: Hypothesis, log_probs: torch.Tensor, text: tuple[int, ...]) -> None:
    total, best = all_paths(log_probs)
    assert hypothesis.text == AB.decode(text)
    assert hypothesis.confidence == pytest.approx(total[text] ** (1 / max(1, len(text))), rel=1e-6)
    assert list(hypothesis.spans) == runs(best[text][1])
    chances = log_probs.exp()
    peaks = [float(chances[a:b, label].max()) for (a, b), label in zip(hypothesis.spans, text, strict=True)]
    assert hypothesis.char_confidences == pytest.approx(peaks)


# ---- greedy ----


@pytest.mark.parametrize("seed", range(12))
def test_greedy_is_the_best_path(seed: int):
    log_probs = random_log_probs(5, 4, seed)
    _, best = all_paths(log_probs)
    check_against_paths(one(GreedyDecoder(AB), log_probs), log_probs, max(best, key=lambda text: best[text][0]))


def peaked(path: list[int], classes: int = 4) -> torch.Tensor:
    logits = torch.zeros(len(path), classes)
    logits[range(len(path)), path] = 5.0
    return logits.log_softmax(-1)


def test_greedy_merges_repeats_and_keeps_doubles_apart():
    hypothesis = one(GreedyDecoder(AB), peaked([0, 1, 1, 0, 1, 2, 2, 0]))
    assert hypothesis.text == "aab"
    assert hypothesis.spans == ((1, 3), (4, 5), (5, 7))
    assert hypothesis.x_spans(4.0) == [(4, 12), (16, 20), (20, 28)]
    assert hypothesis.x_spans(4.0, width=22) == [(4, 12), (16, 20), (20, 22)]


# ---- both decoders ----

DECODERS: list[Callable[[], GreedyDecoder | BeamDecoder]] = [
    lambda: GreedyDecoder(AB),
    lambda: BeamDecoder(AB),
    lambda: BeamDecoder(AB, beam=3, constraint=Regex("[ab ]*"), model=CharNGram.train(["ab ba", "aab"], AB)),
    lambda: BeamDecoder(AB, constraint=Lexicon(["a", "ab", "bb"])),
]


@pytest.mark.parametrize("make", DECODERS)
def test_batch_answers_as_singles_whatever_the_padding(make: Callable[[], GreedyDecoder | BeamDecoder]):
    decoder, lengths = make(), [7, 0, 30, 1, 12, 30]
    lines = [random_log_probs(n, 4, seed) for seed, n in enumerate(lengths)]
    batch = random_log_probs(6 * 33, 4, 99).reshape(6, 33, 4)  # garbage behind each line
    for row, line in zip(batch, lines, strict=True):
        row[: len(line)] = line
    together = decoder(batch, torch.tensor(lengths))
    for line, hypothesis in zip(lines, together, strict=True):
        alone = one(decoder, line)
        assert (hypothesis.text, hypothesis.spans) == (alone.text, alone.spans)
        assert hypothesis.confidence == pytest.approx(alone.confidence)
        assert hypothesis.char_confidences == pytest.approx(alone.char_confidences)


@pytest.mark.parametrize("make", DECODERS)
def test_shape_of_an_answer(make: Callable[[], GreedyDecoder | BeamDecoder]):
    for seed in range(20):
        steps = seed * 3
        hypothesis = one(make(), random_log_probs(steps, 4, seed, sharpness=3))
        assert len(hypothesis.text) == len(hypothesis.spans) == len(hypothesis.char_confidences)
        flat = [x for span in hypothesis.spans for x in span]
        assert flat == sorted(flat)
        assert all(a < b for a, b in hypothesis.spans)
        assert not flat or (flat[0] >= 0 and flat[-1] <= steps)
        assert all(0 <= c <= 1 for c in (hypothesis.confidence, *hypothesis.char_confidences))


@pytest.mark.parametrize("make", DECODERS)
def test_few_or_no_frames(make: Callable[[], GreedyDecoder | BeamDecoder]):
    decoder = make()
    assert decoder(torch.zeros(0, 5, 4), []) == []
    assert decoder(torch.zeros(2, 0, 4), [0, 0]) == [NOTHING, NOTHING]
    assert decoder(torch.full((1, 3, 4), -2.0), [0]) == [NOTHING]
    single = one(decoder, peaked([1]))
    assert (single.text, single.spans) == ("a", ((0, 1),))


@pytest.mark.parametrize("make", DECODERS)
def test_blank_line_is_a_sure_empty_text(make: Callable[[], GreedyDecoder | BeamDecoder]):
    log_probs = peaked([0] * 40)
    hypothesis = one(make(), log_probs)
    assert (hypothesis.text, hypothesis.spans) == ("", ())
    assert hypothesis.confidence == pytest.approx(float(log_probs[:, 0].sum().exp()), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("make", DECODERS)
def test_any_float_type_and_impossible_classes(make: Callable[[], GreedyDecoder | BeamDecoder], dtype: torch.dtype):
    log_probs = torch.tensor([[-math.inf, 0.0, -math.inf, -math.inf]] * 2 + [[0.0] + [-math.inf] * 3]).to(dtype)
    hypothesis = one(make(), log_probs)
    assert (hypothesis.text, hypothesis.spans) == ("a", ((0, 2),))
    assert hypothesis.confidence == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("make", DECODERS)
def test_what_cannot_be_log_probabilities_is_refused(make: Callable[[], GreedyDecoder | BeamDecoder]):
    decoder, good = make(), peaked([1, 2, 0])[None]
    for bad, lengths in ((good.exp(), [3]), (good * torch.nan, [3]), (good[:, :, :3], [3]), (good[0], [3])):
        with pytest.raises(ValueError, match="log-probabilities"):
            decoder(bad, lengths)
    for lengths in ([4], [-1], [3, 3]):
        with pytest.raises(ValueError, match="lengths"):
            decoder(good, lengths)


# ---- forced alignment ----


@pytest.mark.parametrize("seed", range(3))
def test_best_path_of_every_text(seed: int):
    log_probs = random_log_probs(5, 3, seed)
    _, best = all_paths(log_probs)
    texts = list(best)
    batch = log_probs.expand(len(texts), -1, -1).numpy()
    paths = best_path(batch, np.full(len(texts), 5), texts)
    assert {text: tuple(path) for text, path in zip(texts, paths.tolist(), strict=True)} == {
        t: p for t, (_, p) in best.items()
    }


def test_text_that_does_not_fit_has_no_path():
    batch = random_log_probs(3, 4).expand(3, -1, -1).numpy()
    paths = best_path(batch, np.array([3, 2, 3]), [[1, 1], [1, 1], [1, 2, 3, 1]])
    assert paths.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


# ---- beam search ----


def model_for(charset: Charset) -> CharNGram:
    return CharNGram.train(["ab a", "abba", "b ab", "aab", "ba"], charset, order=3)


@pytest.mark.parametrize("seed", range(6))
def test_wide_beam_finds_every_text_with_its_probability(seed: int):
    log_probs = random_log_probs(6, 4, seed)
    total, _ = all_paths(log_probs)
    found = BeamDecoder(AB, **WIDE).search(log_probs.numpy())
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert {tuple(labels): score for labels, score in found} == pytest.approx(
        {t: math.log(p) for t, p in total.items()}
    )
    for labels, score in found[:50]:
        loss = ctc_loss(log_probs[:, None], torch.tensor([labels or [1]]), [6], [len(labels)], reduction="sum")
        assert score == pytest.approx(-float(loss))
    check_against_paths(one(BeamDecoder(AB, **WIDE), log_probs), log_probs, max(total, key=lambda text: total[text]))


@pytest.mark.parametrize(("weight", "bonus"), [(0.7, 0.0), (0.0, 1.5), (1.3, -0.5)])
def test_wide_beam_with_a_language_model(weight: float, bonus: float):
    model = model_for(AB)
    for seed in range(4):
        log_probs = random_log_probs(5, 4, seed, sharpness=1.0)
        total, _ = all_paths(log_probs)
        expected = {}
        for text, chance in total.items():
            state, score = model.start, math.log(chance) + bonus * len(text)
            for symbol in text:
                score += weight * model.log_prob(state, symbol)
                state = model.next(state, symbol)
            expected[text] = score + weight * model.log_prob(state, 0)
        decoder = BeamDecoder(AB, model=model, weight=weight, bonus=bonus, **WIDE)
        found = {tuple(labels): score for labels, score in decoder.search(log_probs.numpy())}
        assert found == pytest.approx(expected)
        text = max(expected, key=lambda t: expected[t])
        check_against_paths(one(decoder, log_probs), log_probs, text)  # confidence is the network's alone


CONSTRAINTS = [
    Regex("a*b"),
    Regex("(ab|ba| )+"),
    Regex("a{2}b?|b b"),
    Regex("aaa|b{4}"),
    Lexicon(["ab", "b", "aab"]),
    Lexicon(["a b", "bb", "abab"], separators=""),
    Lexicon(["aa", "bab"], separators=""),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_wide_beam_with_a_constraint(constraint: Regex | Lexicon):
    automaton = constraint.automaton(AB)
    for seed, steps in enumerate((6, 5, 3, 1)):
        log_probs = random_log_probs(steps, 4, seed)
        expected = {t: math.log(p) for t, p in all_paths(log_probs)[0].items() if automaton.accepts(t)}
        decoder = BeamDecoder(AB, constraint=constraint, **WIDE)
        assert {tuple(labels): s for labels, s in decoder.search(log_probs.numpy())} == pytest.approx(expected)
        if expected:
            check_against_paths(one(decoder, log_probs), log_probs, max(expected, key=lambda t: expected[t]))
        else:
            assert one(decoder, log_probs) == NOTHING


def naive_search(
    log_probs: np.ndarray,
    beam: int,
    step: Callable[[tuple[int, ...], int], float],
    end: Callable[[tuple[int, ...]], float],
) -> list[tuple[list[int], float]]:
    """Prefix beam search straight from Hannun 2014, in dictionaries and without any shortcut."""
    prefixes = {(): (1.0, 0.0)}
    for frame in np.exp(log_probs.astype(float)):
        new: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (blank, char) in prefixes.items():
            new[prefix][0] += (blank + char) * frame[0]
            for index in range(1, len(frame)):
                if prefix and index == prefix[-1]:
                    new[prefix][1] += char * frame[index]
                    new[(*prefix, index)][1] += blank * frame[index] * step(prefix, index)
                else:
                    new[(*prefix, index)][1] += (blank + char) * frame[index] * step(prefix, index)
        ranked = sorted(new.items(), key=lambda item: -sum(item[1]))[:beam]
        prefixes = {prefix: (blank, char) for prefix, (blank, char) in ranked if blank + char}
    scores = [(list(p), math.log((b + c) * end(p))) for p, (b, c) in prefixes.items()]
    return sorted(scores, key=lambda pair: -pair[1])


@pytest.mark.parametrize("beam", [1, 2, 5, 20])
@pytest.mark.parametrize("with_model", [False, True])
def test_narrow_beam_equals_the_search_without_shortcuts(beam: int, with_model: bool):
    charset = Charset("abcd ")
    model = model_for(charset)

    def state(prefix: tuple[int, ...]) -> int:
        at = model.start
        for symbol in prefix:
            at = model.next(at, symbol)
        return at

    def step(prefix: tuple[int, ...], index: int) -> float:
        return math.exp(0.8 * model.log_prob(state(prefix), index) + 0.9) if with_model else 1.0

    def end(prefix: tuple[int, ...]) -> float:
        return math.exp(0.8 * model.log_prob(state(prefix), 0)) if with_model else 1.0

    kwargs = {"model": model, "weight": 0.8, "bonus": 0.9} if with_model else {}
    decoder = BeamDecoder(charset, beam=beam, cutoff=math.inf, **kwargs)
    for seed in range(4):
        log_probs = random_log_probs(14, 6, seed, sharpness=2.5).numpy()
        found, expected = decoder.search(log_probs), naive_search(log_probs, beam, step, end)
        assert [labels for labels, _ in found] == [labels for labels, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_cutoff_changes_little_on_peaked_frames():
    for seed in range(5):
        log_probs = random_log_probs(120, 6, seed, sharpness=1.0)
        log_probs[:, 0] += 7.0  # mostly blank, as networks are: the frames of nothing but blank are skipped
        log_probs[torch.arange(3, 120, 9)] = random_log_probs(14, 6, 50 + seed, sharpness=4.0)[: len(range(3, 120, 9))]
        log_probs = log_probs.log_softmax(-1)
        charset = Charset("abcd ")
        exact, fast = (BeamDecoder(charset, cutoff=cutoff).search(log_probs.numpy())[0] for cutoff in (math.inf, 6.0))
        assert fast[0] == exact[0]
        assert fast[1] == pytest.approx(exact[1], abs=0.2)


def test_beam_adds_up_paths_where_greedy_takes_one():
    log_probs = (
        torch.tensor([[0.6, 0.4, 1e-9, 1e-9]] * 2).log_softmax(-1).new_tensor([[0.6, 0.4, 1e-9, 1e-9]] * 2).log()
    )
    assert one(GreedyDecoder(AB), log_probs).text == ""  # 0.36 for two blanks, 0.64 for the three paths of "a"
    assert one(BeamDecoder(AB), log_probs).text == "a"


def test_language_model_decides_what_the_image_leaves_open():
    model = CharNGram.train(["ab"] * 20 + ["ba"], AB)
    logits = torch.tensor([[0.0, 9, 0, 0], [9, 0, 0, 0], [0, 5, 4.5, 0]]).log_softmax(-1)
    assert one(BeamDecoder(AB), logits).text == "aa"
    assert one(BeamDecoder(AB, model=model, weight=1.0), logits).text == "ab"


def test_long_lines_do_not_underflow():
    log_probs = random_log_probs(6000, 4, 1, sharpness=0.3)
    labels, score = BeamDecoder(AB, model=model_for(AB), weight=3.0).search(log_probs.numpy())[0]
    assert -math.inf < score < -1000
    assert len(labels) > 10


def test_decoder_refuses_what_does_not_fit():
    with pytest.raises(HwrError, match="charset"):
        BeamDecoder(AB, model=model_for(Charset("ab c")))
    with pytest.raises(HwrError, match="beam"):
        BeamDecoder(AB, beam=0)
    with pytest.raises(HwrError, match="cutoff"):
        BeamDecoder(AB, cutoff=0)


# ---- constraints ----

PATTERNS = [
    *(
        "",
        "a",
        "a|b",
        "ab*",
        "(a|b)+",
        "a?b?a?",
        "a{2}",
        "a{1,3}b",
        "a{2,}",
        "[ab]{3}",
        "[^a]b",
        ".a",
        "(?:ab)+|b",
        "x|a",
    ),
    *(
        "(a*)*b",
        r"\w\s\w",
        r"\W*a\S",
        "^ab?$",
        r"\Aa\Z",
        "(a|ab)(b|)",
        "a*?b",
        "[a-b ]+",
        "(|a)b",
        r"[\sb]+",
        r"[^\sb]+",
    ),
    *("a[^b]*", r"[^\S]?a", r"\D\d*", "a|", "(?u)a"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regex_accepts_what_python_matches(pattern: str):
    automaton = Regex(pattern).automaton(AB)
    for text in ("".join(t) for n in range(6) for t in product("ab ", repeat=n)):
        indices = [AB.characters.index(c) + 1 for c in text]
        assert automaton.accepts(indices) == (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize(
    "pattern", ["(a", "a(?=b)", r"(a)\1", "a$b", r"a\bb", "(?i)a", "(?i:a)", "a++", "(?>a)b", "(?!a)b", "(a{90}){900}"]
)
def test_regex_refuses(pattern: str):
    with pytest.raises(HwrError, match=re.escape(repr(pattern))):
        Regex(pattern).automaton(AB)


def test_constraint_that_allows_nothing_is_refused():
    with pytest.raises(HwrError, match="no text"):
        BeamDecoder(AB, constraint=Regex("z+"))
    with pytest.raises(HwrError, match=r"2 of 2 words.*U\+007A"):
        BeamDecoder(AB, constraint=Lexicon(["zz", "za"]))


def test_lexicon_language(caplog: pytest.LogCaptureFixture):
    words = ["ab", "b", "e\u0301", "aa", ""]
    automaton, whole = Lexicon(words).automaton(AB), Lexicon(words, separators="").automaton(AB)
    assert "1 of 4 words" in caplog.text
    assert "U+00E9" in caplog.text
    for text in ("".join(t) for n in range(6) for t in product("ab ", repeat=n)):
        indices = [AB.characters.index(c) + 1 for c in text]
        assert automaton.accepts(indices) == all(word in {"ab", "b", "aa"} for word in text.split(" ") if word), text
        assert whole.accepts(indices) == (text in {"ab", "b", "aa"})
    assert Lexicon(["e\u0301"]).automaton(Charset("é")).accepts([1])
    with pytest.raises(HwrError, match="separator"):
        Lexicon(["New York"])
    with pytest.raises(HwrError, match="no words"):
        Lexicon(["", " "])


def test_fewest_frames_to_a_complete_text():
    generator = random.Random(0)
    for _ in range(60):
        size = generator.randrange(1, 6)
        edges = [{i: generator.randrange(size) for i in (1, 2) if generator.random() < 0.6} for _ in range(size)]
        accepting = {s for s in range(size) if generator.random() < 0.3} or {size - 1}
        best: dict[tuple[int, int], int] = {(s, last): 0 for s in accepting for last in (0, 1, 2)}
        for _ in range(4 * size):  # Bellman and Ford over (state, last frame's class)
            for state, row in enumerate(edges):
                for last in (0, 1, 2):
                    ways = [1 + (i == last) + best.get((s, i), 99) for i, s in row.items()]
                    best[state, last] = min([best.get((state, last), 99), *ways])
        if best[0, 0] >= 99:
            with pytest.raises(HwrError):
                Automaton(0, edges, accepting)
            continue
        automaton = Automaton(0, edges, accepting)
        for state in range(size):
            for last in (0, 1, 2):
                if best[state, last] < 99:
                    need = automaton.need[state] + (last != 0 and automaton.only[state] == last)
                    assert need == best[state, last]
        assert all(best[s, 0] < 99 for row in automaton.edges for s in row.values())


LANGUAGES = [
    (Regex(r"\d{5}"), r"\d{5}"),
    (Regex(r"1{6}|2{6}"), r"1{6}|2{6}"),
    (Regex(r"(0[1-9]|[12]\d|3[01])/(0[1-9]|1[0-2])/(19|20)\d\d"), r"[0-3]\d/[01]\d/(19|20)\d\d"),
    (Regex(r"\d{1,3}( \d{3})*,\d\d"), r"\d{1,3}( \d{3})*,\d\d"),
    (Lexicon(["112233445566", "111111", "98"], separators=""), "112233445566|111111|98"),
    (Lexicon(["12", "3344", "55,55"]), r" *((12|3344|55,55)( +|$))*"),
]


@pytest.mark.parametrize(("constraint", "pattern"), LANGUAGES)
@pytest.mark.parametrize("sharpness", [1.0, 30.0, 900.0])
def test_narrow_beam_never_leaves_the_language(constraint: Regex | Lexicon, pattern: str, sharpness: float):
    charset = Charset("0123456789/, z")
    model = CharNGram.train(["zzz", "1 z"], charset, order=2)
    need = constraint.automaton(charset).need[0]
    for seed in range(8):
        for steps in {need, need + 1, need + seed, 40}:
            log_probs = random_log_probs(steps, charset.num_classes, seed, sharpness)
            for decoder in (
                BeamDecoder(charset, beam=1 + seed % 3, constraint=constraint, cutoff=2.0),
                BeamDecoder(charset, beam=2, constraint=constraint, model=model, weight=2.0),
            ):
                hypothesis = one(decoder, log_probs)
                assert re.fullmatch(pattern, hypothesis.text)
                assert len(hypothesis.text) == len(hypothesis.spans)
        if need:
            decoder = BeamDecoder(charset, constraint=constraint)
            assert one(decoder, random_log_probs(need - 1, charset.num_classes, seed)) == NOTHING


def test_repeats_are_squeezed_into_the_last_frames():
    log_probs = peaked([0, 0, 0, 2, 2])  # "aaa" needs exactly five frames: a, blank, a, blank, a
    hypothesis = one(BeamDecoder(AB, beam=1, constraint=Regex("aaa")), log_probs)
    assert (hypothesis.text, hypothesis.spans) == ("aaa", ((0, 1), (2, 3), (4, 5)))


def test_impossible_characters_still_spell_the_language():
    log_probs = torch.tensor([[0.0, -math.inf, -math.inf, -math.inf]] * 4)
    hypothesis = one(BeamDecoder(AB, constraint=Regex("a[ab]")), log_probs)
    assert re.fullmatch("a[ab]", hypothesis.text)
    assert (hypothesis.confidence, hypothesis.char_confidences) == (0.0, (0.0, 0.0))


def test_what_is_allowed_counts_however_sure_the_network_is_of_what_is_not() -> None:
    """An amount whose 0 looks like an O: the right one is 11 nats more probable than one without it."""
    charset = Charset("0125O.")
    frames = []
    for character in "1O5.20":
        row = np.full(7, -20.0)
        row[charset.encode(character)[0]] = 0.0
        if character == "O":
            row[charset.encode("0")[0]] = -9.0
        blank = np.full(7, -20.0)
        blank[0] = 0.0
        frames += [row, blank]
    log_probs = torch.tensor(np.array(frames)).log_softmax(1)[None]
    model = Bundle({}, tuple(charset.characters), LinePreprocess())
    decoder = beam(model, regex=r"\d{1,3}\.\d\d")
    assert decoder(log_probs, [len(frames)])[0].text == "105.20"


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 3000 + "a" + ")" * 3000])
def test_expressions_beyond_what_can_be_parsed(pattern: str) -> None:
    with pytest.raises(HwrError, match="regular expression"):
        Regex(pattern)


@pytest.mark.parametrize("setting", [{"bonus": 3.0}, {"lm_weight": 0.7}])
def test_weights_of_a_language_model_that_is_not_there(setting: dict[str, float]) -> None:
    with pytest.raises(HwrError, match=f"decoder.{next(iter(setting))}: there is no n-gram model"):
        beam(Bundle({}, tuple("ab"), LinePreprocess()), **setting)
