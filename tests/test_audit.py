"""``hwr.audit``: wrong labels are found, told, corrected, and learnt without."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_idx
from drawings import drawn, texts
from line_model import SETTINGS, write_split
from line_model import texts as line_texts
from omegaconf import DictConfig
from PIL import Image

from hwr import HwrError, audit, experiment, figures, parts
from hwr.config import compose
from hwr.data import corrections
from hwr.data.batches import CharacterSet
from hwr.data.corrections import REMOVE
from hwr.decoding import Hypothesis
from hwr.suspects import Characters, Items, Lines, Suspect, doubt, loss, places
from hwr.text import Charset

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["trainer.accelerator=cpu", "trainer.precision=32-true", "callbacks.gallery=null"]
DIGITS = [
    "experiment=mnist_fast",
    "data.split.size=60",
    "data.batch_size=32",
    "trainer.max_epochs=4",
    "folds=3",
    *QUICK,
]


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def fill(table: Path, corrected: dict[str, str]) -> Path:
    """Writes into the column ``corrected``, and leaves the rest as it is."""
    rows = rows_of(table)
    assert set(corrected) <= {row["image"] for row in rows}
    cells = [[*list(row.values())[:-1], corrected.get(row["image"], row["corrected"])] for row in rows]
    corrections.write(table, list(rows[0]), cells)
    return table


def the_error(done: subprocess.CompletedProcess[str], command: str = "audit") -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"hwr.{command}: error: ")
    assert "Traceback" not in done.stdout + done.stderr
    return line


@dataclass
class Audit:
    """An audit that was run, and the errors that had been planted: right labels by name."""

    settings: list[str]
    folder: Path
    planted: dict[str, str]

    def config(self, *more: str, run_dir: Path | None = None) -> DictConfig:
        return compose("audit", [*self.settings, *more], run_dir=run_dir or self.folder)

    def copy(self, folder: Path) -> Audit:
        shutil.copytree(self.folder, folder)
        return Audit(self.settings, folder, self.planted)

    @property
    def table(self) -> Path:
        return self.folder / "audit.tsv"

    def found(self, share: float) -> float:
        names = [row["image"] for row in rows_of(self.table)]
        return len(set(names[: round(share * len(names))]) & set(self.planted)) / len(self.planted)


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Audit:
    """An audit of 600 digits less 60 of validation, of which 5 % had got another label."""
    root = tmp_path_factory.mktemp("planted")
    images, labels = digits
    rng = np.random.default_rng(4)
    wrong, planted = labels[:600].copy(), rng.permutation(600)[:30]
    wrong[planted] = (wrong[planted] + rng.integers(1, 10, 30)) % 10
    for prefix, part, given in (("train", images[:600], wrong), ("t10k", images[600:700], labels[600:700])):
        write_idx(root / f"MNIST/raw/{prefix}-images-idx3-ubyte", part)
        write_idx(root / f"MNIST/raw/{prefix}-labels-idx1-ubyte", given)
    one = Audit([*DIGITS, f"data.root={root}"], root / "audit", {f"train {i}": str(labels[i]) for i in planted})
    audit.run(one.config())
    names = {row["image"] for row in rows_of(one.table)}
    one.planted = {name: label for name, label in one.planted.items() if name in names}  # the others are in validation
    assert len(one.planted) >= 20
    return one


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, line_run: Path) -> Audit:
    """An audit of 100 lines, of which 3 had got the text of another, 2 a character more or less."""
    folder = tmp_path_factory.mktemp("planted lines")
    right = line_texts(100, seed=31)
    write_split(folder, "train", right, 40)
    write_split(folder, "val", line_texts(12, seed=32), 500)
    write_split(folder, "test", line_texts(12, seed=33), 600)
    wrong = dict(enumerate([*right[95:98], right[3] + "7", right[4][:-1]]))
    assert all(wrong[i] != right[i] for i in wrong)
    rows = [f"train{i}.png\t{wrong.get(i, text)}\ttrain-w{i % 3}" for i, text in enumerate(right)]
    (folder / "train.tsv").write_text("\n".join(["image\ttext\twriter", *rows]) + "\n", encoding="utf-8")
    more = [f"data.path={folder}", f"init_from={line_run}", "folds=2", "trainer.max_epochs=3", "optimizer.lr=1e-3"]
    one = Audit([*SETTINGS, *more], folder / "audit", {f"train{i}.png": right[i] for i in wrong})
    audit.run(one.config())
    return one


# ---- folds


def test_folds_are_fair_and_keep_equal_items_together() -> None:
    strata = list("aaaaaaaaaaaabbbbbbccc")
    keys = [f"image {i}" for i in range(21)]
    keys[5] = keys[13] = keys[0]  # the same image three times, once with another label
    folds = audit.deal(keys, strata, 3, seed=1)
    assert sorted(np.concatenate(folds).tolist()) == list(range(21))
    home = {i: number for number, fold in enumerate(folds) for i in fold.tolist()}
    assert home[0] == home[5] == home[13]
    for letter in "abc":
        own = Counter(home[i] for i in range(21) if strata[i] == letter and i not in (5, 13))
        assert max(own.values()) - min(own.values()) <= 1
    again, other = audit.deal(keys, strata, 3, seed=1), audit.deal(keys, strata, 3, seed=2)
    assert [f.tolist() for f in again] == [f.tolist() for f in folds] != [f.tolist() for f in other]


def test_too_few_items_for_the_folds() -> None:
    with pytest.raises(HwrError, match="only 2 different"):
        audit.deal(["a", "a", "b"], ["x", "x", "y"], 3, seed=1)


# ---- scores


@pytest.mark.parametrize(
    ("text", "read", "pairs"),
    [
        ("le chat dort", "le chat dort", []),
        ("le chat dort", "le chut dort", [("a", "u")]),
        ("le chat dort", "la chat dart", [("e", "a"), ("o", "a")]),
        ("le chat dort", "le dort", [("chat ", "")]),
        ("le dort", "le chat dort", [("", "chat ")]),
        ("un", "autre chose", None),
        ("", "a", [("", "a")]),
    ],
)
def test_places(text: str, read: str, pairs: list[tuple[str, str]] | None) -> None:
    found = places(text, read)
    if pairs is not None:
        assert [(text[a:b], read[c:d]) for a, b, c, d in found] == pairs
    for a, b, c, d in reversed(found):
        text = text[:a] + read[c:d] + text[b:]
    assert text == read


def test_doubt_is_that_of_the_worst_place() -> None:
    """A sure reading against the label counts, a hesitant one does not; what does not fit is infinite."""
    charset = Charset("abc ")
    sure, unsure = torch.tensor([0.01, 0.95, 0.02, 0.01, 0.01]), torch.tensor([0.05, 0.48, 0.42, 0.03, 0.02])
    blank, space = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01]), torch.tensor([0.01, 0.01, 0.01, 0.01, 0.96])

    def score(text: str, first: torch.Tensor) -> float:
        """Of a line that reads ``a a``."""
        log_probs = torch.stack([first, blank, space, sure, blank]).log()
        reading = Hypothesis("a a", 0.9, (float(first[1]), 0.96, 0.95), ((0, 1), (2, 3), (3, 4)))
        return doubt(log_probs, text, reading, charset)

    assert score("a a", sure) == 0
    log_probs = torch.stack([sure, blank, space, sure, blank]).log()
    better, worse = loss(log_probs, [charset.encode("a a"), charset.encode("b a")]).tolist()
    assert score("b a", sure) == pytest.approx((worse - better) * 0.95**2, rel=1e-4)
    assert score("b a", sure) > 10 * score("b a", unsure) > 0
    assert score("b b b b", sure) == float("inf")
    assert score("a", sure) > 1
    assert score("a a a", sure) > 1


# ---- what an audit finds


def test_planted_labels_of_characters_are_found(characters: Audit) -> None:
    assert characters.found(0.1) >= 0.8
    rows = rows_of(characters.table)
    assert len(rows) == 540
    assert list(rows[0]) == list(audit.COLUMNS)
    assert [int(row["rank"]) for row in rows] == list(range(1, 541))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert not any(row["corrected"] for row in rows)
    with Image.open(characters.folder / "audit.png") as picture:
        assert picture.width == 1000


def test_no_model_judges_what_it_has_seen(characters: Audit) -> None:
    judged = []
    for fold in characters.folder.glob("fold*"):
        learnt = set(json.loads((fold / "splits.json").read_text())["train"])
        own = {row[0] for row in json.loads((fold / "scores.json").read_text())}
        assert not own & learnt
        assert len(own | learnt) == 540
        judged += sorted(own)
    assert len(judged) == len(set(judged)) == 540


def test_scores_are_the_loss_of_the_label(characters: Audit) -> None:
    for row in rows_of(characters.table):
        if row["label"] == row["read"]:
            assert float(row["score"]) == pytest.approx(-np.log(float(row["sure"])), abs=2e-3)
        else:
            assert float(row["score"]) >= -np.log(float(row["sure"])) - 2e-3


def test_planted_texts_of_lines_are_found(lines: Audit) -> None:
    assert lines.found(0.1) >= 0.8
    assert len(rows_of(lines.table)) == 100
    with Image.open(lines.folder / "audit.png") as picture:
        assert picture.width == 1000


@pytest.mark.slow
def test_texts_that_do_not_fit_come_first(lines: Audit, tmp_path: Path) -> None:
    """A text of more characters than frames is listed, though nothing can be learnt from it."""
    table = Path(lines.settings[-5].removeprefix("data.path=")) / "train.tsv"
    path = Path(shutil.copytree(table.parent, tmp_path / "long", ignore=shutil.ignore_patterns("audit")))
    rows = (path / "train.tsv").read_text(encoding="utf-8").splitlines()
    rows[10] = rows[10].split("\t")[0] + "\t" + "1234567890" * 20 + "\ttrain-w0"
    (path / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    one = Audit([*lines.settings, f"data.path={path}", "trainer.max_epochs=1"], tmp_path / "audit", {})
    audit.run(one.config())
    first = rows_of(one.table)[0]
    assert (first["image"], first["score"]) == ("train9.png", "inf")
    assert first["read"]


# ---- going on


def test_finished_folds_are_not_trained_again(
    characters: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = characters.copy(tmp_path / "copy")
    before = one.table.read_bytes()
    one.table.unlink()
    monkeypatch.setattr(experiment, "fit", None)
    audit.run(one.config())
    assert one.table.read_bytes() == before


def test_an_audit_goes_on_where_it_was_broken_off(
    characters: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second fold, after its last epoch: the first is not trained again, nor is that epoch."""
    epochs: list[tuple[str, float]] = []

    class Killed(BaseException):
        pass

    def judge(self: Characters, *args: object) -> object:
        if len(epochs) == 2 and not judged:
            judged.append(1)
            raise Killed
        return score(self, *args)

    def learn(cfg: DictConfig, *args: object) -> experiment.Result:
        result = fit(cfg, *args)
        epochs.append((str(cfg.ckpt_path), result.metrics["epochs"]))
        return result

    score, fit, judged = Characters.score, experiment.fit, []
    monkeypatch.setattr(Characters, "score", judge)
    monkeypatch.setattr(experiment, "fit", learn)
    one = Audit(characters.settings, tmp_path / "audit", characters.planted)
    with pytest.raises(Killed):
        audit.run(one.config())
    assert not one.table.exists()
    audit.run(one.config())
    assert [ckpt for ckpt, _ in epochs] == ["None", "None", "last", "None"]
    assert {n for _, n in epochs} == {4.0}
    assert one.table.read_bytes() == characters.table.read_bytes()


@pytest.mark.slow
def test_other_settings_are_another_audit(characters: Audit, tmp_path: Path) -> None:
    one = characters.copy(tmp_path / "copy")
    audit.run(one.config("trainer.max_epochs=1"))
    assert one.table.read_bytes() != characters.table.read_bytes()
    assert len(list(one.folder.glob("fold*"))) == 6


# ---- corrections


def test_corrections_of_characters_reach_training(characters: Audit, tmp_path: Path) -> None:
    one = characters.copy(tmp_path / "copy")
    removed, *rest = one.planted
    fill(one.table, {removed: REMOVE} | {name: one.planted[name] for name in rest})
    plain = Characters(parts.datamodule(one.config()))
    data = parts.datamodule(one.config(f"data.corrections='{one.table}'"))
    corrected = Characters(data)
    right = {**dict(zip(plain.names, plain.labels, strict=True)), **one.planted}
    del right[removed]
    assert dict(zip(corrected.names, corrected.labels, strict=True)) == right
    assert len(data.sets["val"]) == 60


def test_an_audit_of_corrected_labels_remembers_them(characters: Audit, tmp_path: Path) -> None:
    """Its own table holds all corrections there are: those applied, and what was filled in after an earlier call."""
    one = characters.copy(tmp_path / "first")
    removed, other, *rest = one.planted
    fill(one.table, {removed: REMOVE} | {name: one.planted[name] for name in rest})
    two = Audit([*one.settings, f"data.corrections='{one.table}'", "trainer.max_epochs=1"], tmp_path / "second", {})
    audit.run(two.config())
    rows = {row["image"]: row for row in rows_of(two.table)}
    assert all(rows[name]["label"] == rows[name]["corrected"] == one.planted[name] for name in rest)
    assert [*rows.values()][-1]["image"] == removed
    assert (rows[removed]["corrected"], rows[removed]["rank"]) == (REMOVE, "")
    assert not rows[other]["corrected"]
    fill(two.table, {other: one.planted[other]})
    before = two.table.read_bytes()
    audit.run(two.config())  # once more: what was filled in is kept
    assert two.table.read_bytes() == before
    data = Characters(parts.datamodule(one.config(f"data.corrections='{two.table}'")))
    assert (
        dict(zip(data.names, data.labels, strict=True)).items() >= {n: one.planted[n] for n in (other, *rest)}.items()
    )


def test_corrections_of_lines_reach_training(
    lines: Audit, tmp_path: Path, call: Run, caplog: pytest.LogCaptureFixture
) -> None:
    one = lines.copy(tmp_path / "copy")
    removed, *rest = one.planted
    fill(one.table, {removed: REMOVE, rest[0]: f"  {one.planted[rest[0]]} é "})
    data = parts.datamodule(one.config("init_from=null", f"data.corrections='{one.table}'"))
    items = Lines(data)
    found = dict(zip(items.names, items.labels, strict=True))
    assert removed not in found
    assert found[rest[0]] == f"{one.planted[rest[0]]} é"
    assert "é" in data.classes
    assert [line.name for line in data.sets["train"].lost] == [removed]
    assert "removed by" in data.sets["train"].lost[0].reason
    settings = [s for s in one.settings if s != "folds=2" and not s.startswith("init_from")]
    done = call("train", *settings, "trainer.max_epochs=1", "test=false", f"data.corrections={one.table}")
    assert done.returncode == 0, done.stderr
    assert f"{one.table}: 1 training labels corrected, 1 items left out of training" in caplog.text
    (splits,) = tmp_path.glob("outputs/*/*/splits.json")
    assert json.loads(splits.read_text())["sizes"]["train"] == 99


@pytest.mark.parametrize(
    "saved", ["as it is", "byte order mark", "CRLF", "all quoted", "semicolons", "commas", "UTF-16"]
)
def test_what_spreadsheets_make_of_a_table(saved: str, tmp_path: Path) -> None:
    cells = [
        ("a\tb.png", 'il a dit "oui"', 'il a dit "non"'),
        ("é, b.png", "1;2", "été\N{NO-BREAK SPACE}; 1914, œuvre"),
        ("plain.png", '"', REMOVE),
        ("empty.png", "kept", ""),
        ("日本.png", "a", '"quoted"'),
    ]
    path = tmp_path / "audit.tsv"
    header = ("rank", "image", "label", "corrected", "my notes")
    corrections.write(path, header, [(i, a, b, c, "") for i, (a, b, c) in enumerate(cells)])
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines(keepends=True), delimiter="\t"))
    encoding, delimiter, quoting, end = "utf-8", "\t", csv.QUOTE_MINIMAL, "\n"
    if saved == "byte order mark":
        encoding = "utf-8-sig"
    elif saved == "UTF-16":
        encoding, end = "utf-16", "\r\n"
    elif saved == "CRLF":
        end = "\r\n"
    elif saved == "all quoted":
        quoting = csv.QUOTE_ALL
    elif saved in ("semicolons", "commas"):
        delimiter = ";" if saved == "semicolons" else ","
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    read = {one.name: one.label for one in corrections.read(path)}
    assert read == {name: label for name, _, label in cells if label}


DIGIT_SETS = {
    "train": CharacterSet(torch.zeros(2, 8, 8), torch.tensor([0, 1]), ["train 0", "train 1"]),
    "val": CharacterSet(torch.zeros(1, 8, 8), torch.tensor([2]), ["train 2"]),
    "test": CharacterSet(torch.zeros(1, 8, 8), torch.tensor([3]), ["test 5"]),
}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("image\tcorrected\nnobody\t3\n", ["audit.tsv, line 2", "'nobody'", "'train 0'"]),
        ("image\tcorrected\n\ntrain 0\t\ntrain 1\t12\n", ["audit.tsv, line 4", "'12'", "10 classes"]),
        ("image\tcorrected\ntest 5\t3\n", ["test 5 is in test", "only training items"]),
        ("image\tcorrected\ntrain 2\t3\n", ["train 2 is in val"]),
        ("image\tcorrected\ntrain 0\t3\ntrain 0\t4\n", ["line 3", "line 2", "keep one"]),
        ("image\tcorrected\ntrain 0\t3\t4\n", ["line 2", "more fields"]),
        ('image\tcorrected\ntrain 0\t"3" or so\n', ["line 2", "quoted as a whole"]),
        (" Image\tCorrected\nnobody\t3\n", ["audit.tsv, line 2", "'nobody'"]),
        ("i\0m\0a\0g\0e\0", ["save the table as UTF-8"]),
        ("image\tlabel\ntrain 0\t3\n", ["line 1", "corrected"]),
        ("", ["line 1", "nothing"]),
    ],
)
def test_mistakes_in_a_table(table: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "audit.tsv"
    path.write_text(table, encoding="utf-8")
    with pytest.raises(HwrError) as caught:
        corrections.correct_characters(DIGIT_SETS, list("0123456789"), str(path))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("word", ["<remove>", "<Remove>"])
def test_corrections_do_not_change_which_labels_are_drawn(word: str, line_run: Path, tmp_path: Path) -> None:
    """What an audit of a few labels has found is corrected in the next training with as few."""
    for seed, (split, n) in enumerate({"train": 20, "val": 6, "test": 6}.items()):
        write_split(tmp_path / "lines", split, line_texts(n, 70 + seed), 9100 + 100 * seed)
    lines = [*SETTINGS, f"data.path={tmp_path / 'lines'}", "data.labels=8", "data.labels_seed=3"]
    characters = ["experiment=digits_cnn", "data.labels=12"]
    for settings, right in ((lines, "12 34"), (characters, "7")):
        part = parts.datamodule(compose("train", settings)).sets["train"]
        drawn = list(part.names)
        table = tmp_path / "table.tsv"
        corrections.write(table, ("image", "corrected"), [(drawn[0], word), (drawn[1], right)])
        corrected = parts.datamodule(compose("train", [*settings, f"data.corrections='{table}'"])).sets["train"]
        assert list(corrected.names) == drawn[1:]
        found = corrected.texts[0] if settings is lines else str(int(corrected.labels[0]))
        assert found == right


def test_rows_of_one_name_say_the_same(tmp_path: Path) -> None:
    """An image that is listed twice is corrected twice."""
    train = CharacterSet(torch.zeros(3, 8, 8), torch.tensor([0, 1, 2]), ["a", "a", "b"])
    corrections.write(tmp_path / "a.tsv", ("image", "corrected"), [("a", "7"), ("b", ""), ("a", "7")])
    part = corrections.correct_characters({"train": train}, list("0123456789"), str(tmp_path / "a.tsv"))
    assert part.labels.tolist() == [7, 7, 2]
    assert train.labels.tolist() == [0, 1, 2]


def test_a_text_that_is_none(lines: Audit, tmp_path: Path) -> None:
    corrections.write(tmp_path / "a.tsv", ("image", "corrected"), [("train3.png", "a\x07b")])
    with pytest.raises(HwrError, match=r"a\.tsv, line 2: .*control characters"):
        parts.datamodule(lines.config(f"data.corrections='{tmp_path / 'a.tsv'}'"))


# ---- the command


def test_the_command(characters: Audit, call: Run, tmp_path: Path) -> None:
    """It prints the top of the list and the training to go on with; its directory is the same for the same settings."""
    typed = [*characters.settings[:-1], "trainer.max_epochs=1", characters.settings[-1], "top=5"]
    typed.remove("trainer.max_epochs=4")
    done = call("audit", *typed)
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("outputs/audit/*/audit.tsv")
    next_ = done.stdout.splitlines()[-1]
    assert next_.startswith("  python -m hwr.train experiment=mnist_fast")
    assert next_.endswith(f"data.corrections={table.relative_to(tmp_path)}")
    assert "folds=" not in next_
    assert "top=" not in next_
    assert rows_of(table)[0]["image"] in done.stdout
    assert REMOVE in done.stdout
    again = call("audit", *typed[:-1], "top=6")
    assert again.returncode == 0, again.stderr
    assert "fold 1" not in again.stdout
    assert len(list(tmp_path.glob("outputs/audit/*"))) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["folds=1"], "folds=1: a whole number from 2"),
        (["trainer=ddp", "trainer.devices=2"], "on one device"),
        (["folds=many"], "folds=many"),
        (["fold=3"], "did you mean folds?"),
        (["top=0"], "top=0: a whole number from 1 to 200"),
        (["ckpt_path=last"], "the same command"),
        (["folds=1000", "data.labels=500"], "only 500 different"),
        (["data.corrections=gone.tsv"], "data.corrections=gone.tsv: cannot be read"),
        (["data.corrections=latin.tsv"], "latin.tsv: not UTF-8"),
        (["data.corrections=wrong.tsv"], "wrong.tsv, line 2: no training item is called '0'"),
        (["experiment=digit_strings_crnn", "data.train_lines=4", "data.val_lines=2", "data.test_lines=2"], "anew"),
        (["experiment=nope"], "mnist_fast"),
    ],
)
def test_mistakes(settings: list[str], words: str, call: Run, tmp_path: Path) -> None:
    (tmp_path / "latin.tsv").write_bytes("image\tcorrected\né\t1\n".encode("latin-1"))
    (tmp_path / "wrong.tsv").write_text("image\tcorrected\n0\t1\n")
    line = the_error(call("audit", *settings))
    assert words in line


def test_training_says_what_is_wrong_in_a_table(call: Run, tmp_path: Path) -> None:
    (tmp_path / "my, table.tsv").write_text("image\tcorrected\ndigit 3\tthree\n")
    line = the_error(call("train", "debug=fast", "data.corrections=my, table.tsv"), "train")
    assert "my, table.tsv, line 2: 'three' is none of the 10 classes" in line


# ---- pictures


def test_the_picture_of_characters(digits: tuple[np.ndarray, np.ndarray]) -> None:
    labels, read = ["4", "a long name of a class", "日", "$x$"], ["9", "4", "本", "$x$"]
    figure = figures.suspects(digits[0][:4], labels, read, [0.999, 0.5, 0.01, 1.0], "the title")
    title, *rest = texts(figure)
    assert title == "the title"
    assert rest[0::2] == ["4 → 9", "a long name of a … → 4", "U+65E5 → U+672C", "$x$ → $x$"]
    assert rest[1::2] == ["1.  >99% sure", "2.  50% sure", "3.  1% sure", "4.  100% sure"]
    drawn(figure)


def test_the_picture_of_lines(lines: Audit) -> None:
    items: Items = Lines(parts.datamodule(lines.config("init_from=null")))
    suspects = [Suspect(n, text, text[1:], 0.5, 1.0) for n, text in zip(items.names, items.labels, strict=True)]
    figure = items.figure([5, 2], suspects, "the title")
    said = texts(figure)
    assert said[0] == "the title"
    assert said.count("text") == said.count("read") == 2
    assert "true" not in said
    (first,) = [text for text in said if text.startswith("1. ")]
    assert first.startswith("1. train5.png by train-w2")
    drawn(figure)
