"""Character sets and error rates, against plain references."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import unicodedata
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hwr.errors import HwrError
from hwr.text import (
    Charset,
    Confusion,
    ErrorRate,
    Operation,
    alignment,
    code_points,
    confusions,
    distance,
    normalise,
    words,
)

NFD = unicodedata.normalize("NFD", "été à Nîmes")


def test_text_needs_no_torch():
    code = "import sys, hwr.text; sys.exit(bool({'torch', 'lightning', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_normalise_composes_and_joins_white_space():
    assert normalise(f"  {NFD}\t\u00a0x\u2009y\n") == "été à Nîmes x y"
    assert normalise(" \t ") == ""


def test_charset_of_texts_is_sorted_and_nfc_with_blank_zero():
    charset = Charset.of(["bca é", NFD, ""])
    assert charset.characters == " Nabcemstàéî"
    assert charset.index(" ") == 1
    assert charset.num_classes == len(charset) + 1
    assert min(charset.encode("abc é")) == 1  # 0 is the blank
    assert "é" in charset
    assert "z" not in charset
    assert charset.index("z") is None


def test_encode_decode_round_trip():
    charset = Charset.named("ascii", "french")
    generator = random.Random(1)
    for _ in range(200):
        text = normalise("".join(generator.choices(charset.characters, k=generator.randrange(30))))
        assert charset.decode(charset.encode(text)) == text
        assert charset.decode(charset.encode(unicodedata.normalize("NFD", text))) == text
    assert charset.decode([0, *charset.encode("a"), 0]) == "a"
    assert charset.encode("") == []
    assert charset.encode(" a  b\t") == charset.encode("a b")


def test_combining_sequence_without_a_composed_form_stays_apart():
    text = "n\u0306e\u0301"  # n with breve has no code point of its own
    charset = Charset.of([text])
    assert charset.characters == "n\u00e9\u0306"
    assert charset.decode(charset.encode(text)) == "n\u0306\u00e9"


def test_right_to_left_text_keeps_logical_order():
    text = "\u05e9\u05dc\u05d5\u05dd 12"
    charset = Charset.of([text])
    assert charset.decode(charset.encode(text)) == text


def test_unknown_characters_are_named_or_skipped():
    charset = Charset("ab ")
    with pytest.raises(HwrError, match=r"U\+00E9.*U\+2603.*charset.unknown=skip"):
        charset.encode("abé☃")
    assert charset.encode("a ☃ é b", skip_unknown=True) == charset.encode("a b")
    assert Charset("ae\u0301").encode("e☃\u0301a", skip_unknown=True) == [1]  # what is left composes to é: unknown too
    counts = charset.missing(["aé", "ééz", "ab"])
    assert counts == {"é": 3, "z": 1}
    assert code_points(counts) == "é (U+00E9) x 3, z (U+007A) x 1"
    assert code_points("\u0301\u200b ") == "U+0301, U+200B, U+0020"
    assert code_points("abcd", most=2) == "a (U+0061), b (U+0062) and 2 more"


def test_named_blocks():
    assert Charset.named("digits").characters == "0123456789"
    assert Charset.named("digits", "latin") == Charset.named("latin", "digits")
    assert len(Charset.named("latin")) == 52
    assert len(Charset.named("ascii")) == 95
    assert not Charset.named("ascii", "french").missing(["L’œuvre « Çà et là », dès Noël — à 5 €…"])
    assert " " not in Charset.named("latin")
    assert " " in Charset.named("latin", "space")
    with pytest.raises(HwrError, match=r"klingon.*digits, latin"):
        Charset.named("klingon")


def test_charset_survives_as_a_string():
    charset = Charset("中a 国")
    assert Charset(charset.characters) == charset
    assert hash(Charset("中a 国")) == hash(charset)
    assert charset != Charset("a中 国")
    assert pickle.loads(pickle.dumps(charset)).encode("国") == [4]


@pytest.mark.parametrize("characters", ["", "aa", "a\t", "\u00a0", "\n", "\u0344", "\ud800"])
def test_charset_refuses(characters: str):
    with pytest.raises(HwrError):
        Charset(characters)


def test_charset_of_nothing_is_refused():
    with pytest.raises(HwrError, match="empty"):
        Charset.of(["", " "])


def test_charset_from_file(tmp_path: Path):
    path = tmp_path / "chars.txt"
    path.write_bytes("\ufeff国\r\ne\u0301\n\n \n中".encode())
    assert Charset.from_file(path).characters == "国é 中"  # the file's order, not sorted
    for content, message in (
        ("a\nbc\n", "line 2: 2 characters"),
        ("a\nb\na\n", r"line 3: a \(U\+0061\) is on line 1"),
        ("a\n\t\n", r"chars.txt: .*U\+0009"),
        ("", "chars.txt"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(HwrError, match=message):
            Charset.from_file(path)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(HwrError, match="UTF-8"):
        Charset.from_file(path)
    with pytest.raises(HwrError, match=r"nowhere"):
        Charset.from_file(tmp_path / "nowhere")


def naive_distance(a: str | list[str], b: str | list[str]) -> int:
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, table[0] = table[0], i
        for j, y in enumerate(b, start=1):
            previous, table[j] = table[j], min(table[j] + 1, table[j - 1] + 1, previous + (x != y))
    return table[-1]


def random_pairs(n: int, most: int, alphabet: str = "abcé ") -> list[tuple[str, str]]:
    generator = random.Random(0)
    return [tuple("".join(generator.choices(alphabet, k=generator.randrange(most))) for _ in "ab") for _ in range(n)]


def test_distance_and_alignment_against_the_plain_table():
    pairs = random_pairs(300, 20) + random_pairs(3, 400) + [("", ""), ("", "ab"), ("ab", "")]
    pairs += list(product(("", "a", "ab", "ba", "aab"), repeat=2))
    for reference, hypothesis in pairs:
        for a, b in ((reference, hypothesis), (reference.split(), hypothesis.split())):
            expected = naive_distance(a, b)
            assert distance(a, b) == expected
            steps = alignment(a, b)
            assert sum(step.kind != "equal" for step in steps) == expected
            assert [s.reference for s in steps if s.kind != "insert"] == list(a)
            assert [s.hypothesis for s in steps if s.kind != "delete"] == list(b)
            assert all((s.reference == s.hypothesis) == (s.kind == "equal") for s in steps)


def test_alignment_of_one_case():
    assert alignment("cats", "bat") == [
        Operation("substitute", "c", "b"),
        Operation("equal", "a", "a"),
        Operation("equal", "t", "t"),
        Operation("delete", "s", ""),
    ]


def test_confusions_count_and_rank():
    pairs = [("o o", "0 0"), ("o", "0"), ("nn", "n"), ("a", "ab"), (NFD, "été à Nîmes")]
    assert confusions(pairs) == [Confusion("o", "0", 3), Confusion("", "b", 1), Confusion("n", "", 1)]
    assert confusions(pairs, most=1) == [Confusion("o", "0", 3)]


def test_words():
    assert words("  L'eau, ici_même\u00a0! 3,5") == ["L'eau,", "ici_même", "!", "3,5"]
    split = words("L'eau, ici_même ! 3,5", separate_punctuation=True)
    assert split == ["L", "'", "eau", ",", "ici", "_", "même", "!", "3", ",", "5"]
    assert words("") == []


def test_rates_are_sums_over_the_set():
    rate = ErrorRate()
    assert rate.add("abcd efgh", "abcd efgh", "w1") == 0
    assert rate.add("x", "y z", "w2") == 3
    assert rate.add(NFD, "été  à Nîmes ", "w1") == 0  # normalisation is no error
    assert rate.cer == 3 / (9 + 1 + 11)
    assert rate.wer == 2 / (2 + 1 + 3)
    assert (rate.lines, rate.characters) == (3, 21)
    assert rate.by_group() == {"w2": 3.0, "w1": 0.0}
    assert list(rate.by_group("wer")) == ["w2", "w1"]


def test_empty_references_count_their_insertions():
    rate = ErrorRate()
    rate.add("", "abc")
    assert rate.cer == float("inf")
    rate.add("abcdef", "abcdef")
    assert rate.cer == 0.5
    assert ErrorRate().cer == 0.0
    only_blank = ErrorRate()
    only_blank.add("", "")
    assert only_blank.cer == 0.0


def test_separated_punctuation_changes_wer_only():
    plain, separate = ErrorRate(), ErrorRate(separate_punctuation=True)
    for rate in (plain, separate):
        rate.add("Bonjour, toi", "Bonjour toi")
    assert plain.cer == separate.cer
    assert (plain.wer, separate.wer) == (1 / 2, 1 / 3)
    with pytest.raises(ValueError, match="differently"):
        plain + separate


def test_merged_processes_are_one_process():
    pairs, whole = random_pairs(60, 15), ErrorRate()
    parts = [ErrorRate() for _ in range(3)]
    for number, (a, b) in enumerate(pairs):
        group = f"w{number % 7}" if number % 4 else None
        whole.add(a, b, group)
        parts[number % 3].add(a, b, group)
    merged = pickle.loads(pickle.dumps(parts[2])) + parts[0] + parts[1]
    assert (merged.cer, merged.wer, merged.lines) == (whole.cer, whole.wer, 60)
    assert merged.by_group() == whole.by_group()
    assert merged.interval(seed=3) == whole.interval(seed=3)
    assert parts[0].lines == 20  # adding leaves the parts alone


def test_interval_is_over_writers():
    rate, generator = ErrorRate(), np.random.default_rng(0)
    chances = generator.uniform(0, 0.3, 12)
    for writer, chance in enumerate(chances):
        for _ in range(20):
            wrong = generator.random(30) < chance
            rate.add("a" * 30, "".join("b" if w else "a" for w in wrong), f"w{writer}")
    interval = rate.interval()
    assert interval is not None
    low, high = interval
    assert low < rate.cer < high
    assert interval == rate.interval()
    assert interval != rate.interval(seed=1)
    # the standard error of a mean over 12 writers, not over 240 lines
    spread = np.std(list(rate.by_group().values()), ddof=1) / 12**0.5
    assert (high - low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.25)
    narrow = rate.interval(level=0.5)
    assert narrow is not None
    assert low < narrow[0] < narrow[1] < high


def test_interval_where_there_is_little_to_draw():
    rate = ErrorRate()
    assert rate.interval() is None
    rate.add("abc", "abd", "w")
    rate.add("abc", "abc", "w")
    assert rate.interval() is None  # one writer says nothing about others
    rate.add("abc", "abd")
    rate.add("abc", "abd")
    assert rate.interval("wer") is not None
    same = ErrorRate()
    for writer in "abc":
        same.add("abcd efgh", "abcd efxy", writer)
    assert same.interval("cer") == pytest.approx((2 / 9, 2 / 9))
    assert same.interval("wer") == pytest.approx((1 / 2, 1 / 2))
    empty = ErrorRate()
    empty.add("", "x")
    empty.add("", "y")
    assert empty.interval() is None
