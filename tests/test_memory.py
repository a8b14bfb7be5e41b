"""Precision, and what happens where memory or the disk does not suffice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback

from hwr import bundle, memory
from hwr.config import compose
from hwr.experiment import fit
from hwr.systems import LineSystem

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = ["trainer.accelerator=cpu", "callbacks.gallery=null", "logger=null", "test=false"]
QUICK = [*CPU, "trainer.precision=32-true", "trainer.max_epochs=1", "network=tiny"]
LINES = ["experiment=digit_strings_crnn", "data.train_lines=30", "data.val_lines=10", "data.columns=2000"]


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("hwr.train: error: ")


# ---- precision


class Seen(Callback):
    """Keeps in what CTC was computed, and what came of it."""

    def setup(self, trainer, pl_module, stage) -> None:
        whole = pl_module.loss.ctc
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

        def ctc(log_probs, *rest):
            loss = whole(log_probs, *rest)
            self.seen.append((log_probs.dtype, loss.dtype))
            return loss

        pl_module.loss.ctc = ctc


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("accelerator", "precision"),
    [
        ("cpu", "32-true"),
        ("cpu", "bf16-mixed"),
        pytest.param("gpu", "16-mixed", marks=gpu),
        pytest.param("gpu", "bf16-mixed", marks=gpu),
    ],
)
def test_ctc_in_training_is_float32(accelerator: str, precision: str, tmp_path: Path) -> None:
    settings = [*CPU, *LINES, f"trainer.accelerator={accelerator}", f"trainer.precision={precision}"]
    seen = "+callbacks.seen={_target_: test_memory.Seen}"
    result = fit(compose("train", [*settings, "trainer.max_epochs=1", seen], tmp_path / "run"))
    (notes,) = (c for c in result.trainer.callbacks if type(c).__name__ == "Seen")
    assert isinstance(result.system, LineSystem)
    assert len(notes.seen) > 3  # batches of training, whose gradients are clipped, and of validation
    assert set(notes.seen) == {(torch.float32, torch.float32)}
    assert np.isfinite(result.metrics["val/loss"])
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["precision"] == precision


@pytest.mark.parametrize("name", ["16-true", "64-true", "half"])
def test_precisions_in_which_hwr_does_not_train(name: str, call: Run) -> None:
    line = the_error(call("train", *QUICK, f"trainer.precision={name}", "hydra.run.dir=run"))
    assert line == f"trainer.precision={name}: take auto, 32-true, bf16-mixed, 16-mixed"


# ---- memory

LIMITED = """
import resource, sys
import torch
from hwr import eval, experiment, train  # everything is loaded before memory is limited
from pathlib import Path

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv.pop(1)) * 2**20, resource.RLIM_INFINITY))
{command}.main()
"""


def limited(folder: Path, megabytes: int, *arguments: str, command: str = "train") -> subprocess.CompletedProcess[str]:
    """``hwr.train`` or another command with so much more memory than it has when everything is imported."""
    (folder / "train.py").write_text(LIMITED.format(command=command))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MALLOC_ARENA_MAX": "1"}
    line = [sys.executable, "train.py", str(megabytes), *arguments]
    return subprocess.run(line, cwd=folder, env=env, text=True, capture_output=True, timeout=240)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")


@linux
@pytest.mark.slow
def test_out_of_memory_is_advice(tmp_path: Path) -> None:
    arguments = ["network=cnn", "network.stages=[{channels: 512}]", "data.batch_size=1200", "hydra.run.dir=run"]
    line = the_error(limited(tmp_path, 1000, *QUICK[:-1], *arguments, "data.eval_batch_size=300"))  # one map: 1.9 GB
    assert line.startswith("out of memory (")
    for words in (
        "data.batch_size=600 trainer.accumulate_grad_batches=2 (now 1200 and 1)",
        "data.eval_batch_size=150 (now 300)",
        "trainer.precision=bf16-mixed (now 32-true)",
    ):
        assert words in line


@linux
@pytest.mark.slow
def test_out_of_memory_in_scoring_is_advice(tmp_path: Path) -> None:
    wide = [*QUICK[:-1], "network=cnn", "network.stages=[{channels: 512}]", "data.labels=20", "data.eval_batch_size=8"]
    fit(compose("train", wide, tmp_path / "run"))
    for data, words in (
        (["data=digits", "data.eval_batch_size=300"], "score with data.eval_batch_size=150 (now 300)"),
        (["accelerator=cpu"], "make eval_batch_size (of lines: eval_columns) in run/config.yaml smaller"),
    ):
        if len(data) == 1:  # as the run says
            text = (tmp_path / "run/config.yaml").read_text()
            (tmp_path / "run/config.yaml").write_text(text.replace("eval_batch_size: 8", "eval_batch_size: 300"))
        done = limited(tmp_path, 250, "run=run", *data, command="eval")
        assert done.returncode == 1, done.stdout
        line = done.stderr.strip()
        assert line.startswith("hwr.eval: error: out of memory (")
        assert words in line
        assert ("accelerator=cpu" in line) == (len(data) == 2)


def test_advice_for_lines_names_columns() -> None:
    cfg = compose("train", ["experiment=tsv_crnn", "data.path=x", "trainer.precision=bf16-mixed", "data.columns=9000"])
    text = memory.advice(cfg)
    assert "data.columns=4500 trainer.accumulate_grad_batches=2 (now 9000 and 1)" in text
    assert "data.eval_columns=16000 (now 32000)" in text
    assert "precision" not in text


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_shortages_are_told_from_other_errors(error: Exception) -> None:
    assert memory.is_shortage(error)
    assert not memory.is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not memory.is_shortage(ValueError("out of memory"))


# ---- finding settings


def test_a_batch_size_and_a_learning_rate_are_found_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*QUICK, "augment=none", "callbacks.ema=null", "lr_scaling={rule: linear, base: 32}", "data.labels=400"]
    settings += ["scheduler=constant"]
    result = fit(compose("train", [*settings, "tune={batch_size: true, lr: true}"], tmp_path / "run"))
    found = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert found["data"]["batch_size"] == result.datamodule.batch_size == 64  # 400 / 10 is less: as it was
    rate = found["optimizer"]["lr"]
    assert 1e-5 < rate < 0.5
    assert found["tune"] == {"batch_size": False, "lr": False}  # the recorded settings repeat the run
    assert result.trainer.optimizers[0].param_groups[0]["lr"] == rate  # not scaled
    told = capsys.readouterr()
    assert f"tune: data.batch_size=64\ntune: optimizer.lr={rate:g}\n" in told.out
    assert not told.err
    again = [
        *settings,
        "tune={batch_size: true, lr: true}",
        "optimizer.lr=1",
        "trainer.max_epochs=2",
    ]
    checkpoint = f"ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"
    fit(compose("train", [*again, checkpoint], tmp_path / "run2"))
    resumed = yaml.safe_load((tmp_path / "run2/config.yaml").read_text())
    assert resumed["optimizer"]["lr"] == rate


@linux
@pytest.mark.slow
def test_the_largest_batch_that_fits_is_found(tmp_path: Path) -> None:
    """With little memory it is smaller than the one to begin with."""
    settings = [*QUICK[:-1], "network=cnn", "data.batch_size=1200", "data.eval_batch_size=64", "hydra.run.dir=run"]
    done = limited(tmp_path, 700, *settings, "tune.batch_size=true")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"]["batch_size"]
    assert found in (600, 300, 150, 75)


# ---- a full disk

FULL = """
import resource, sys
from pathlib import Path
from lightning import Callback
from hwr.train import main

class Full(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:  # the checkpoint of the first epoch is there; the next is cut off in its middle
            size = Path("run/checkpoints/last.ckpt").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))

if __name__ == "__main__":
    main()
"""


@linux
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk, which only root can make (see test_errors)."""
    (tmp_path / "train.py").write_text(FULL)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [*QUICK, "trainer.max_epochs=3", "hydra.run.dir=run", "+callbacks.full={_target_: __main__.Full}"]
    line = [sys.executable, "train.py", *arguments]
    done = subprocess.run(line, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=240)
    line = the_error(done)
    assert "checkpoints/" in line
    assert "ckpt_path=last" in line
    kept = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    bundle.from_checkpoint(tmp_path / "run/checkpoints/last.ckpt").build()
    assert not list(tmp_path.rglob("*.tmp"))
