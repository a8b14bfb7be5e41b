"""Every file of the configuration composes and runs, on tiny data in the genuine formats."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import write_idx
from line_fixtures import PageLine, alto, dgrl, gnt, line_image, page_image, save, write_iam, write_table
from PIL import Image

from hwr.config import CONF_DIR, compose
from hwr.experiment import Result, fit

# Two small training steps on one device, without pictures: whether it runs, not how well.
TINY = [
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
    "callbacks.gallery=null",
]
TINY_CHARACTERS = [*TINY, "data.batch_size=8", "data.eval_batch_size=16"]
TINY_LINES = [*TINY, "data.columns=500", "data.eval_columns=500"]
LINES = re.compile("crnn|transformer|ctc|lines")  # options that go with lines
GROUPS = ("network", "loss", "optimizer", "scheduler", "augment", "debug")


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def run(folder: Path, *overrides: str) -> Result:
    return fit(compose("train", overrides, run_dir=folder / "run"))


@pytest.fixture
def sources(tmp_path: Path, mnist_root: Path, digits: tuple[np.ndarray, np.ndarray]) -> dict[str, list[str]]:
    """For each datamodule, the overrides that point it at a little data in its genuine format."""
    images, labels = digits
    raw = mnist_root / "EMNIST" / "raw"
    for part, rows in (("train", slice(0, 200)), ("test", slice(200, 250))):
        write_idx(raw / f"emnist-balanced-{part}-images-idx3-ubyte", images[rows].transpose(0, 2, 1))
        write_idx(raw / f"emnist-balanced-{part}-labels-idx1-ubyte", labels[rows])
    for i in range(60):
        path = tmp_path / "own" / str(labels[i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - images[i]).save(path)
    root = [f"data.root={mnist_root}", "data.download=false", "data.split.size=40"]
    words = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"]
    write_table(tmp_path / "lines" / "train.tsv", [(f"{i}.png", word) for i, word in enumerate(words)])
    for i in range(4):
        (tmp_path / "pages").mkdir(exist_ok=True)
        lower = PageLine("deux", "20,80 180,80 180,110 20,110", "20,102 180,102", (20, 80, 161, 31))
        (tmp_path / "pages" / f"{i}.xml").write_text(alto([PageLine(), lower], image=f"{i}.png"))
        save(tmp_path / "pages" / f"{i}.png", page_image(seed=i))
    names = [f"{form}-0{i}" for form in ("a01-000u", "a01-000x", "b02-013", "c03-003a") for i in range(2)]
    write_iam(tmp_path / "IAM", {name: f"{name} ok 154 19 408 746 1661 89 A|MOVE" for name in names})
    for name, forms in (("tr", "a01-000u c03-003a"), ("va", "a01-000x"), ("te", "b02-013")):
        (tmp_path / "IAM" / "splits").mkdir(exist_ok=True)
        (tmp_path / "IAM" / "splits" / f"{name}.lst").write_text(forms.replace(" ", "\n"))
    chinese = [c.encode("gb18030") for c in "啊阿埃挨"]
    for i in range(4):
        folder = "HWDB2/HWDB2.0Test" if i == 3 else "HWDB2/HWDB2.0Train"
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pictures = [line_image(30, 150, 2 * i + j) for j in range(2)]
        (tmp_path / folder / f"{i}-P16.dgrl").write_bytes(dgrl([(chinese, picture) for picture in pictures]))
        folder = "HWDB1/HWDB1.1tst_gnt" if i == 3 else "HWDB1/HWDB1.1trn_gnt"
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        records = [(code, line_image(30, 28, 12 * i + j)) for j, code in enumerate(chinese * 3)]
        (tmp_path / folder / f"{i}-c.gnt").write_bytes(gnt(records))
    made_up = ["data.train_lines=20", "data.val_lines=4", "data.test_lines=4"]
    return {
        "Pages": [f"data.path={tmp_path / 'pages'}", "data.cache=null"],
        "IAM": [f"data.root={tmp_path}", "data.cache=null"],
        "CASIA": [f"data.root={tmp_path}", "data.cache=null"],
        "CASIACharacters": [f"data.root={tmp_path}", "data.split.size=0.3", "data.preprocess={size: 24, fit: 20}"],
        "TSV": [f"data.path={tmp_path / 'lines'}", "data.cache=null"],
        "DigitStrings": made_up,
        "Synthetic": made_up,
        "Digits": [],
        "MNIST": root,
        "EMNIST": root,
        "Folder": [f"data.path={tmp_path / 'own'}"],
    }


@pytest.mark.parametrize("name", names("experiment"))
def test_experiment(name: str, sources: dict[str, list[str]], tmp_path: Path) -> None:
    text = (CONF_DIR / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")  # without it Hydra ignores the file
    cfg = compose("train", [f"experiment={name}"])
    assert cfg.name == name
    source = sources[cfg.data._target_.rpartition(".")[2]]
    lines = ".lines." in cfg.data._target_
    if "hwr.required:init_from" in text:
        source = [*source, f"init_from={'copiste' if lines else 'mnist'}"]
    result = run(tmp_path, f"experiment={name}", *(TINY_LINES if lines else TINY_CHARACTERS), *source)
    assert result.trainer.global_step == 2
    assert result.metrics["test/cer" if lines else "test/accuracy"] >= 0
    assert (result.run_dir / "bundle" / "weights.safetensors").is_file()


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS[:-1] for name in names(group)])
def test_option(group: str, name: str, sources: dict[str, list[str]], tmp_path: Path) -> None:
    data = ["data=mnist", *sources["MNIST"], "network=tiny", *TINY_CHARACTERS]
    if LINES.match(name):
        data = ["experiment=tsv_crnn", *sources["TSV"], *TINY_LINES]
    result = run(tmp_path, *data, f"{group}={name}", "test=false")
    assert result.trainer.global_step == 2
    assert 0 < float(result.trainer.callback_metrics["train/loss"]) < 1e4


@pytest.mark.parametrize("name", names("debug"))
def test_debug(name: str, mnist_root: Path, tmp_path: Path) -> None:
    data = ["data=mnist", f"data.root={mnist_root}", "data.split.size=40", "data.batch_size=16"]
    result = run(tmp_path, *data, "network=lenet_16_32", f"debug={name}", *TINY[:2], "callbacks.gallery=null")
    if name == "overfit":  # one batch is learnt by heart
        assert result.trainer.num_training_batches == 1
        assert float(result.trainer.callback_metrics["train/accuracy"]) == 1.0
    if name == "fast":
        assert result.trainer.global_step <= 3
    if name == "profile":
        report = next((tmp_path / "run").glob("*profile*.txt")).read_text()
        assert "run_training_batch" in report or "aten::" in report


def test_experiment_with_averaging_has_it() -> None:
    assert compose("train", ["experiment=mnist_cnn"]).callbacks.ema._target_.endswith("EMAWeightAveraging")
    assert "early_stopping" in compose("train", ["experiment=mnist_cnn"]).callbacks


def test_no_code_switches_on_the_name_of_an_option() -> None:
    """A new network, loss or schedule is a new file in conf/, never a branch in the code."""
    groups = [path for path in CONF_DIR.iterdir() if path.is_dir() and path.name not in ("hydra", "paths")]
    known = {option.stem for group in groups for option in group.glob("*.yaml")} - {"default", "none"}
    known -= {"auto", "ascii", "line", "lines"}  # words that name other things as well
    branch = re.compile(r"""(?:==|!=|\bin\b|\bcase\b)\s*[(\[{]?\s*["'](\w+)["']""")
    for path in (CONF_DIR.parent / "hwr").rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            found = set(branch.findall(line)) & known
            assert not found, f"{path}:{number}: {line.strip()}"
