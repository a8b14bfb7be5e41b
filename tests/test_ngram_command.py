"""``hwr.ngram``: a language model in the bundle of a run, and what beam search does with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from line_fixtures import save
from line_model import texts, written

from hwr import HwrError, bundle, decoders
from hwr.decoding import CharNGram

Run = Callable[..., subprocess.CompletedProcess[str]]


def error(done: subprocess.CompletedProcess[str], command: str = "ngram") -> str:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hwr.{command}: error: ")
    return line


@pytest.fixture(scope="module")
def tuned(line_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, with an n-gram model made through the command line."""
    folder = Path(shutil.copytree(line_run, tmp_path_factory.mktemp("tuned") / "a run, tuned"))
    done = subprocess.run(
        [sys.executable, "-m", "hwr.ngram", f"run={folder}", "order=4"],
        cwd=Path(__file__).parents[1], text=True, capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_what_is_stored_is_what_was_said(tuned: Path, line_run: Path) -> None:
    said, facts = (
        (tuned / "said.txt").read_text(encoding="utf-8"),
        json.loads((tuned / "bundle/ngram.json").read_text()),
    )
    assert facts["order"] == 4
    rates = dict(re.findall(r"│ ([a-z -]+?) +│ ([\d.]+)% │", said))
    assert rates == {name: f"{100 * facts[f'val/cer {name}']:.2f}" for name in ("greedy", "beam", "beam and n-grams")}
    assert facts["val/cer beam and n-grams"] <= facts["val/cer beam"] + 1e-9  # no model at all is among the choices
    assert f"weight {facts['weight']:g}, bonus {facts['bonus']:g}" in said
    assert not (line_run / "bundle" / "ngram.npz").exists()
    assert sorted(p.name for p in (tuned / "bundle").iterdir()) == sorted(
        [*(p.name for p in (line_run / "bundle").iterdir()), "ngram.json", "ngram.npz"]
    )


def test_the_model_is_of_the_training_texts(tuned: Path, line_run: Path) -> None:
    model = CharNGram.load(tuned / "bundle" / "ngram.npz")
    lines = (line_run.parent / "lines" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    same = CharNGram.train([line.split("\t")[1] for line in lines], bundle.load(tuned).charset, order=4)
    assert model.order == 4
    for text in ("1914", "12/3/24", "77 123", "///"):
        assert model.score(text) == pytest.approx(same.score(text))


def test_greedy_rate_is_that_of_training(tuned: Path) -> None:
    facts = json.loads((tuned / "bundle/ngram.json").read_text())
    trained = json.loads((tuned / "metrics.json").read_text())
    assert facts["val/cer greedy"] == pytest.approx(trained["val/cer"], abs=1e-6)


def test_beam_search_takes_it_from_the_bundle(call: Run, tuned: Path, tmp_path: Path) -> None:
    model, facts = bundle.load(tuned), json.loads((tuned / "bundle/ngram.json").read_text())
    (tuned / "bundle/ngram.json").write_text(json.dumps({**facts, "weight": 0.7, "bonus": 1.5}))
    decoder = decoders.beam(model)
    assert decoder.model is not None
    assert (decoder.weight, decoder.bonus) == (0.7, 1.5)
    chosen = decoders.beam(model, lm_weight=0.2, bonus=0.0)
    assert (chosen.weight, chosen.bonus) == (0.2, 0.0)
    assert decoders.beam(model, lm_weight=0).model is None
    assert decoders.beam(model, regex=r"\d+").model is None
    assert decoders.beam(model, regex=r"\d+", lm_weight=0.3).model is not None
    for i, text in enumerate(texts(5, seed=60)):
        save(tmp_path / "scans" / f"{i}.png", written(text, seed=i))
    done = call("predict", f"model={tuned}", "images=scans", "decoder=beam", "format=json")
    assert done.returncode == 0, done.stderr
    read = [row["text"] for row in json.loads(done.stdout)]
    assert sum(a == b for a, b in zip(read, texts(5, seed=60), strict=True)) >= 4
    (tuned / "bundle/ngram.json").write_text(json.dumps(facts))


def test_a_saved_bundle_carries_it(tuned: Path, tmp_path: Path) -> None:
    model = bundle.load(tuned)
    model.save(tmp_path / "copy")
    model.save(tmp_path / "copy")
    copy = bundle.load(tmp_path / "copy")
    assert copy.ngram == tmp_path / "copy" / "ngram.npz"
    for name in ("ngram.npz", "ngram.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (tuned / "bundle" / name).read_bytes()
    copy.save(tmp_path / "copy")  # over itself
    assert (tmp_path / "copy" / "ngram.npz").read_bytes() == (tuned / "bundle" / "ngram.npz").read_bytes()


def test_more_text_counts(call: Run, line_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(line_run, tmp_path / "run"))
    (tmp_path / "more, of it.txt").write_text("99/99/99\n" * 200, encoding="utf-8")
    done = call("ngram", f"run={run}", "text=more, of it.txt", "order=3")
    assert done.returncode == 0, done.stderr
    assert "440 texts" in done.stdout
    model = CharNGram.load(run / "bundle" / "ngram.npz")
    assert model.score("99/99/99")[0] > model.score("12/34/56")[0] + 3


def test_evaluation_with_a_decoder(call: Run, tuned: Path, tmp_path: Path) -> None:
    metrics = {}
    for name, decoder in {
        "beam": ["decoder=beam"],
        "years": ["decoder=beam", r"decoder.regex=(18|19)\d\d"],
    }.items():
        done = call("eval", f"run={tuned}", "split=val", f"output={name}", "accelerator=cpu", *decoder)
        assert done.returncode == 0, done.stderr
        metrics[name] = json.loads((tmp_path / name / "metrics.json").read_text())["test/cer"]
    facts = json.loads((tuned / "bundle/ngram.json").read_text())
    assert metrics["beam"] == pytest.approx(facts["val/cer beam and n-grams"], abs=1e-6)
    assert metrics["years"] > 0.2


def test_evaluations_with_several_decoders_lie_side_by_side(call: Run, line_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(line_run, tmp_path / "run")
    for decoder in ([], ["decoder=beam"]):
        assert call("eval", f"run={run}", "accelerator=cpu", *decoder).returncode == 0
    assert sorted(path.name for path in (run / "eval").iterdir()) == ["test", "test_beam"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "run must be given"),
        (["run=nowhere"], "nowhere"),
        (["run=mnist"], "single characters"),
        (["run={run}/bundle"], "a run directory"),
        (["run={run}", "order=0"], "order=0"),
        (["run={run}", "order=many"], "order=many"),
        (["run={run}", "text=gone.txt"], "gone.txt"),
        (["run={run}", "text=latin1.txt"], "latin1.txt: not UTF-8"),
        (["run={run}", "ordre=3"], "did you mean order?"),
    ],
)
def test_mistakes(settings: list[str], words: str, call: Run, line_run: Path, tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes("été".encode("latin-1"))
    assert words in error(call("ngram", *(setting.format(run=line_run) for setting in settings)))


def test_damage_is_named(call: Run, tuned: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", written("1914"))
    for name in ("ngram.json", "ngram.npz"):
        run = Path(shutil.copytree(tuned, tmp_path / name.replace(".", "_")))
        (run / "bundle" / name).write_bytes(b"{")
        line = error(call("predict", f"model={run}", "images=a.png", "decoder=beam"), "predict")
        assert f"bundle/{name}: " in line
        assert call("predict", f"model={run}", "images=a.png").returncode == 0  # greedy needs neither
        with pytest.raises(HwrError, match=re.escape(name)):
            decoders.beam(bundle.load(run))
