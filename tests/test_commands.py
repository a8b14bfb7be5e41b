"""Judging and using a trained model, from the command line and as a library."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_idx
from PIL import Image

import hwr as package
from hwr import HwrError

Run = Callable[..., subprocess.CompletedProcess[str]]
Digits = tuple[np.ndarray, np.ndarray]
ROOT = Path(__file__).parents[1]
AWKWARD = "a scan (1), of '7' = [it]"


def the_error(done: subprocess.CompletedProcess[str], command: str) -> str:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hwr.{command}: error: ")
    return line


@pytest.fixture
def scans(tmp_path: Path, digits: Digits) -> Path:
    """Twelve test digits as dark ink on white paper, named by their labels."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(1500, 1512):
        large = Image.fromarray(255 - digits[0][i]).resize((84, 84), Image.Resampling.BICUBIC)
        large.save(folder / f"{i}_is_{digits[1][i]}.png")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run in a folder with an awkward name, to write into."""
    return Path(shutil.copytree(trained, tmp_path / AWKWARD))


# ---- eval


def test_eval_repeats_what_training_found(call: Run, run: Path) -> None:
    done = call("eval", f"run={run}", "accelerator=cpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    trained, judged = (json.loads((run / part / "metrics.json").read_text()) for part in (".", "eval/test"))
    for name in (name for name in trained if name.startswith("test/")):
        assert judged[name] == pytest.approx(trained[name], abs=1e-6), name
    assert judged["ms_per_image_batch_1"] > 0
    assert judged["ms_per_image_batch_256"] > 0
    names = ("predictions", "worst_errors", "confused_pairs", "confusion", "reliability")
    for name in names:
        assert Image.open(run / f"eval/test/figures/{name}.png").size[0] > 100
    assert f"{trained['test/accuracy']:.4f}" in done.stdout


def test_eval_per_class_table(call: Run, run: Path) -> None:
    assert call("eval", f"run={run}", "split=val", "output=here", "accelerator=cpu").returncode == 0
    folder = run.parent / "here"
    table = list(csv.DictReader((folder / "per_class.csv").open(encoding="utf-8")))
    assert [row["class"] for row in table] == list("0123456789")
    splits, metrics = json.loads((run / "splits.json").read_text()), json.loads((folder / "metrics.json").read_text())
    assert sum(int(row["support"]) for row in table) == metrics["test/samples"] == splits["sizes"]["val"]
    f1 = [float(row["f1"]) for row in table]
    assert sum(f1) / 10 == pytest.approx(metrics["test/f1_macro"], abs=1e-3)
    right = sum(float(row["recall"]) * int(row["support"]) for row in table)
    assert right / metrics["test/samples"] == pytest.approx(metrics["test/accuracy"], abs=1e-3)


def test_eval_on_other_data(call: Run, run: Path, mnist_root: Path) -> None:
    other = ["data=mnist", f"data.root={mnist_root}", "data.split.size=50", "accelerator=cpu"]
    done = call("eval", f"run={run}", *other)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "eval_other_data/test/metrics.json").read_text())
    assert metrics["test/samples"] == 100
    assert metrics["test/accuracy"] > 0.8  # the same digits in another container
    assert not (run / "eval").exists()


def test_eval_numbers_classes_by_name(
    call: Run, run: Path, digits: Digits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that holds only 3, 5 and 8 is judged by the model's numbers for them."""
    for i in range(1400, 1500):
        if digits[1][i] in (3, 5, 8):
            path = tmp_path / "own" / str(digits[1][i]) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - digits[0][i]).save(path)
    done = call("eval", f"run={run}", "data=folder", f"data.path={tmp_path / 'own'}", "output=o", "accelerator=cpu")
    assert done.returncode == 0, done.stderr
    table = {row["class"]: int(row["support"]) for row in csv.DictReader((tmp_path / "o/per_class.csv").open())}
    scored, there = sum(table.values()), len(list((tmp_path / "own").rglob("*.png")))
    assert scored < there
    assert f"test: {scored} of {there} items, set apart" in caplog.text
    assert len(table) == 10
    assert {name for name, support in table.items() if support} == {"3", "5", "8"}
    assert json.loads((tmp_path / "o/metrics.json").read_text())["test/accuracy"] > 0.6


def test_eval_on_a_class_outside_the_model(call: Run, run: Path, digits: Digits, tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    for part in ("train", "test"):
        write_idx(raw / f"emnist-letters-{part}-images-idx3-ubyte", digits[0][:60])
        write_idx(raw / f"emnist-letters-{part}-labels-idx1-ubyte", np.arange(60) % 26 + 1)
    other = ["data=emnist", "data.subset=letters", f"data.root={tmp_path}"]
    line = the_error(call("eval", f"run={run}", *other), "eval")
    assert "outside the model's 10 classes" in line


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("decoder=beam", "reads single characters"),
        ("split=dev", "train"),
        ("run=nowhere", "nowhere"),
        ("data=digit", "did you mean digits?"),
    ],
)
def test_eval_mistakes(setting: str, words: str, call: Run, run: Path) -> None:
    assert words in the_error(call("eval", f"run={run}", setting), "eval")


def test_eval_of_a_bundle_alone_needs_data(call: Run, run: Path) -> None:
    assert "data=" in the_error(call("eval", f"run={run / 'bundle'}"), "eval")


def test_eval_of_a_run_without_checkpoint(call: Run, run: Path) -> None:
    shutil.rmtree(run / "bundle")
    shutil.rmtree(run / "checkpoints")
    assert "checkpoints" in the_error(call("eval", f"run={run}"), "eval")


# ---- predict


def test_predict_reads_scans(call: Run, trained: Path, scans: Path) -> None:
    done = call("predict", f"model={trained}", f"images={scans}", "format=json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = json.loads(done.stdout)
    assert len(rows) == 12
    right = sum(row["label"] == Path(row["image"]).stem[-1] for row in rows)
    assert right >= 9
    for row in rows:
        assert len(row["top"]) == 5
        assert row["top"][0] == {"label": row["label"], "probability": row["confidence"]}
        probabilities = [entry["probability"] for entry in row["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) <= 1.001


def test_predict_formats_agree(call: Run, trained: Path, scans: Path) -> None:
    arguments = [f"model={trained}", f"images={scans}/150*.png", "top_k=3"]
    rows = json.loads(call("predict", *arguments, "format=json").stdout)
    assert len(rows) == 10
    table = list(csv.DictReader(io.StringIO(call("predict", *arguments, "format=csv").stdout)))
    assert [(row["image"], row["label"]) for row in table] == [(row["image"], row["label"]) for row in rows]
    assert [float(row["probability3"]) for row in table] == [row["top"][2]["probability"] for row in rows]
    call("predict", *arguments, "format=csv", "output=out/table.csv")
    written = (scans.parent / "out" / "table.csv").read_text(encoding="utf-8")
    assert list(csv.DictReader(io.StringIO(written))) == table
    text = call("predict", *arguments).stdout
    for row in rows:
        assert Path(row["image"]).name in text
        assert f"{row['confidence']:.1%}" in text


def test_predict_saves_what_the_model_saw(call: Run, trained: Path, scans: Path) -> None:
    done = call("predict", f"model={trained}", f"images={scans}", "save_seen=seen", "format=json")
    assert done.returncode == 0, done.stderr
    for path in scans.iterdir():
        seen = np.asarray(Image.open(scans.parent / "seen" / path.name))
        assert seen.shape == (28, 28)
        assert seen[[0, -1]].max() == 0  # light ink on black, centred
        assert seen.max() > 150


def test_predict_goes_on_after_a_bad_image(call: Run, trained: Path, scans: Path) -> None:
    (scans / "1505_bad.png").write_bytes(b"this is no image")
    done = call("predict", f"model={trained}", f"images={scans}", "format=json")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) == 12
    named = [line for line in done.stderr.splitlines() if "1505_bad.png" in line]
    assert len(named) == 1
    assert all(line.startswith("hwr.predict: error: ") for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr


def test_predict_lists_and_awkward_paths(call: Run, run: Path, scans: Path) -> None:
    """A path is taken as the shell gave it, whatever it is made of."""
    first, second = sorted(scans.iterdir())[:2]
    awkward = scans.parent / f"{AWKWARD}.png"
    shutil.copy(first, awkward)
    done = call("predict", f"model={run}", f"images={awkward}", "format=json")
    assert done.returncode == 0, done.stderr
    assert [row["image"] for row in json.loads(done.stdout)] == [str(awkward)]
    done = call("predict", f"model={run}", f"images=[{first},{second}]", "format=json")
    assert [row["image"] for row in json.loads(done.stdout)] == [str(first), str(second)]
    done = call("predict", f"model={run}", f"images={awkward}", "format=csv", f"output={AWKWARD}.csv")
    assert done.returncode == 0, done.stderr
    assert (scans.parent / f"{AWKWARD}.csv").is_file()


def test_train_on_an_awkward_path(call: Run, digits: Digits, tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / AWKWARD / str(digits[1][i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - digits[0][i]).save(path)
    tiny = ["network=tiny", "debug=fast", "trainer.precision=32-true", "callbacks.gallery=null", "data.batch_size=8"]
    done = call("train", "experiment=folder_cnn", f"data.path={tmp_path / AWKWARD}", *tiny)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs").rglob("metrics.json"))) == 1
    shutil.rmtree(tmp_path / "outputs")
    done = call("train", "experiment=folder_cnn", f"data.path={tmp_path / AWKWARD}", *tiny, "run_dir=runs/my [x]=1")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "runs" / "my [x]=1").iterdir()} >= {".hydra", "metrics.json", "bundle"}
    assert f"python -m hwr.eval run='{tmp_path}/runs/my [x]=1'\n" in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "images must be given"),
        (["images=nothing.png"], "nothing.png"),
        (["images=scans", "format=xml"], "table, json, csv"),
        (["images=scans", "model=nowhere"], "nowhere"),
        (["images=scans", "modle=x"], "did you mean model?"),
    ],
)
def test_predict_mistakes(settings: list[str], words: str, call: Run, scans: Path) -> None:
    assert words in the_error(call("predict", *settings), "predict")


# ---- the library


@pytest.mark.parametrize("part", [".", "bundle", "checkpoints/best.ckpt"])
def test_recognizer_reads_the_same_from_everything(part: str, trained: Path, scans: Path) -> None:
    path = sorted(scans.iterdir())[0]
    reading = package.Recognizer.load(trained / part).read(path)
    assert reading.label == path.stem[-1]
    assert reading.confidence == reading.top[0][1] > 0.5
    again = package.Recognizer.load(trained).read(np.asarray(Image.open(path)))
    assert again.label == reading.label
    assert again.confidence == pytest.approx(reading.confidence, abs=1e-6)


def test_recognizer_says_what_is_wrong(trained: Path, scans: Path) -> None:
    recognizer = package.Recognizer.load(trained)
    (scans / "bad.png").write_bytes(b"")
    good = sorted(scans.iterdir())[0]
    readings = list(recognizer.read_files([good, scans / "bad.png", good]))
    assert [isinstance(reading, HwrError) for reading in readings] == [False, True, False]
    assert recognizer.read(np.full((50, 50), 255, np.uint8)).blank
    assert not recognizer.read(good).blank


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, env=env, text=True, capture_output=True, timeout=120)


def test_a_model_needs_neither_lightning_nor_hydra(trained: Path, scans: Path) -> None:
    blocked = """
import sys
for name in ("lightning", "pytorch_lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib", "tensorboard"):
    sys.modules[name] = None  # importing it raises
import hwr
print(hwr.Recognizer.load(sys.argv[1]).read(sys.argv[2]).label)
"""
    path = sorted(scans.iterdir())[0]
    done = python(blocked, str(trained), str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == path.stem[-1]


@pytest.mark.parametrize("line", ["", "--help"])
def test_what_is_light_stays_light(line: str) -> None:
    """`import hwr` and `--help` must not wait for torch."""
    start = "import sys, runpy; sys.argv = ['hwr.train', '--help']; import hwr"
    help_ = "\ntry:\n    runpy.run_module('hwr.train', run_name='__main__')\nexcept SystemExit:\n    pass"
    report = "\nprint('HEAVY', {'torch', 'lightning', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules))"
    done = python(start + (help_ if line else "") + report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("HEAVY set()")
    assert ("digits_cnn" in done.stdout) == bool(line)
