"""Training: what it leaves behind, that it repeats itself, and that it goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from hwr import HwrError, bundle
from hwr.callbacks import history
from hwr.config import compose
from hwr.experiment import Result, fit

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["network=lenet_16_32", "trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null"]
# Everything that has a state or draws random numbers: what a resumed run must pick up exactly.
STATEFUL = [
    "network=lenet_32_64",
    "network.dropout=0.3",
    "augment=strong",
    "scheduler=onecycle",
    "callbacks=[default,ema]",
    "callbacks.ema.decay=0.9",
    "callbacks.gallery=null",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
    "data.batch_size=32",
]
CLOCKS = ("train_seconds", "peak_memory_gb", "system/")


def train(folder: Path, *overrides: str) -> Result:
    return fit(compose("train", [*QUICK, *overrides], run_dir=folder))


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "bundle" / "weights.safetensors")


def figures(run: Path) -> dict[str, float]:
    """metrics.json but for what depends on the machine's mood."""
    return {k: v for k, v in json.loads((run / "metrics.json").read_text()).items() if not k.startswith(CLOCKS)}


def rows(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in history.read(run / "history.csv")]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with everything on."""
    folder = tmp_path_factory.mktemp("train") / "run"
    overrides = ["network=tiny", "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    fit(compose("train", [*overrides, "callbacks.periodic.every_n_epochs=2"], run_dir=folder))
    return folder


def test_run_directory(run: Path) -> None:
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    found = {name for name in found if not name.startswith(("tensorboard/", "checkpoints/epoch"))}
    pictures = ("confused_pairs", "confusion", "curves", "predictions", "reliability", "samples", "worst_errors")
    assert found == {
        "bundle/README.md",
        "bundle/bundle.json",
        "bundle/weights.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "history.csv",
        "metrics.json",
        "per_class.csv",
        "splits.json",
        *(f"figures/{name}.png" for name in pictures),
    }
    assert len(list(run.glob("checkpoints/epoch*.ckpt"))) == 1  # after the second of two epochs


def test_metrics_and_splits_agree(run: Path) -> None:
    metrics, splits = figures(run), json.loads((run / "splits.json").read_text())
    assert metrics["test/samples"] == len(splits["test"]) == splits["sizes"]["test"] == 359
    assert len(splits["val"]) == splits["sizes"]["val"]
    assert sum(splits["sizes"].values()) == 1797
    assert not set(splits["val"]) & set(splits["test"])
    low, high = metrics["test/accuracy_low"], metrics["test/accuracy_high"]
    assert 0 < low < metrics["test/accuracy"] < high < 1
    support = [int(line.rpartition(",")[2]) for line in (run / "per_class.csv").read_text().splitlines()[1:]]
    assert len(support) == 10
    assert sum(support) == 359


def test_the_recorded_configuration_repeats_the_run(run: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(run / "config.yaml")
    text = yaml.safe_dump(OmegaConf.to_container(cfg)).replace(str(run), str(tmp_path / "again"))
    again = fit(OmegaConf.create(text))
    assert same(weights(run), weights(again.run_dir))
    assert figures(run) == figures(again.run_dir)


def test_history_has_a_row_an_epoch(run: Path) -> None:
    table = history.read(run / "history.csv")
    assert [row["epoch"] for row in table] == [1, 2]
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "system/samples_per_s"}
    assert all(names <= row.keys() for row in table)


def test_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: dict[str, set[str]] = {"scalars": set(), "images": set()}
    plugins: set[str] = set()
    for file in (run / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file)).Reload()
        for kind in tags:
            tags[kind] |= set(events.Tags()[kind])
        plugins |= {tag.split("/")[0] for tag in events.summary_metadata}
    assert {"train/loss", "val/loss", "val/accuracy", "test/accuracy", "system/samples_per_s"} <= tags["scalars"]
    assert any(tag.startswith("lr") for tag in tags["scalars"])
    assert "hp_metric" not in tags["scalars"]
    pictures = ("predictions", "worst_errors", "confused_pairs", "confusion")
    assert {"samples", *(f"test/{name}" for name in pictures)} <= tags["images"]
    assert {"custom_scalars__config__", "_hparams_"} <= plugins


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    settings = ["trainer.max_epochs=1", "augment=strong", "network=lenet_32_64", "network.dropout=0.3"]
    a, b = (train(tmp_path / name, *settings).run_dir for name in "ab")
    other = train(tmp_path / "other", *settings, "seed=2").run_dir
    assert same(weights(a), weights(b))
    assert figures(a) == figures(b)
    assert rows(a) == rows(b)
    assert not same(weights(a), weights(other))
    assert json.loads((a / "splits.json").read_text()) == json.loads((other / "splits.json").read_text())


def test_accumulation_and_clipping(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "optimizer=sgd", "scheduler=constant", "optimizer.lr=1", "optimizer.momentum=0"]
    plain = [*short, "optimizer.nesterov=false", "optimizer.weight_decay=0", "+trainer.limit_train_batches=8"]
    start = train(tmp_path / "start", "trainer.max_epochs=0")
    result = train(tmp_path / "run", *plain, "trainer.accumulate_grad_batches=4", "trainer.gradient_clip_val=1e-4")
    assert result.trainer.global_step == 2
    before, after = weights(start.run_dir), weights(result.run_dir)
    moved = [(before[name] - after[name]).square().sum() for name in before]
    assert 0 < float(torch.stack(moved).sum().sqrt()) < 2.1e-4  # two steps of at most lr times the clipped norm


def test_bundle_and_test_have_the_averaged_weights(tmp_path: Path) -> None:
    """After one epoch an average of long memory has hardly learnt anything, and says so everywhere."""
    average = ["callbacks=[default,ema]", "callbacks.gallery=null", "trainer.max_epochs=1", "data.batch_size=32"]
    result = train(tmp_path / "run", *average, "callbacks.ema.decay=0.999")
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    written = {f"network.{name}": value for name, value in weights(result.run_dir).items()}
    assert same(written, {name: averaged[name] for name in written})
    assert not same(written, {name: current[name] for name in written})
    assert same(written, {k: v for k, v in result.system.state_dict().items() if k in written})
    judged = fit_nothing(tmp_path / "judged", tmp_path / "run")
    assert judged["test/accuracy"] == result.metrics["test/accuracy"]
    assert judged["test/loss"] == pytest.approx(result.metrics["test/loss"], rel=1e-5)


def fit_nothing(folder: Path, start: Path) -> dict[str, float]:
    return train(folder, f"init_from='{start}'", "trainer.max_epochs=0").metrics


@pytest.mark.parametrize("part", [".", "bundle", "checkpoints/best.ckpt"])
def test_init_from(part: str, trained: Path, tmp_path: Path) -> None:
    escaped = str(trained / part).replace("'", "\\'")
    result = train(tmp_path / "run", f"init_from='{escaped}'", "trainer.max_epochs=0")
    assert same(weights(result.run_dir), weights(trained))
    assert result.metrics["test/accuracy"] == figures(trained)["test/accuracy"] > 0.8


def test_init_from_another_network(call: Run, trained: Path) -> None:
    done = call("train", "network=tiny", "trainer.precision=32-true", f"init_from={trained}")
    assert done.returncode == 1
    assert done.stderr.startswith("hwr.train: error: ")
    assert "another network" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_resume_from_a_checkpoint_of_another_network(call: Run, trained: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    done = call("train", "network=tiny", "trainer.precision=32-true", f"ckpt_path={checkpoint}")
    assert done.returncode == 1
    assert done.stderr.startswith("hwr.train: error: ")
    assert "another network" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["ckpt_path=last", "optimizer=sgd"], "that run has optimizer=AdamW, this one SGD; repeat its settings"),
        (["ckpt_path=last", "scheduler=cosine"], "that run has scheduler=onecycle, this one cosine"),
        (["ckpt_path=last", "callbacks.ema=null"], "that run has callbacks.ema=EMAWeightAveraging, this one null"),
        (
            ["ckpt_path=last", "trainer.max_epochs=2"],
            "max_epochs=2: the run has learnt for 4 epochs already; give more",
        ),
        (["ckpt_path=last", "data.preprocess.fit=18"], "another preprocess"),
        (["+callbacks.freeze={_target_: hwr.callbacks.FreezeSchedule, train: {0: [haed]}}"], "haed"),
    ],
)
def test_what_is_refused_leaves_the_record_of_a_run_as_it_was(
    settings: list[str], words: str, call: Run, trained: Path, tmp_path: Path
) -> None:
    """What hwr.eval asks them later is still which samples were held out."""
    run = shutil.copytree(trained, tmp_path / "run")
    records = [run / "config.yaml", run / "splits.json", run / "history.csv", run / "checkpoints" / "last.ckpt"]
    before = [path.read_bytes() for path in records]
    repeated = ["network=lenet_16_32", "augment=none", "trainer.max_epochs=4", "data.batch_size=32"]
    more = ["trainer.precision=32-true", "trainer.accelerator=cpu", "data.split.seed=7", f"run_dir={run}"]
    done = call("train", *repeated, *more, *settings)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.read_bytes() for path in records] == before


def test_another_learning_rate_for_a_run_that_goes_on_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ["scheduler=cosine", "+trainer.limit_train_batches=2", "test=false"]
    train(tmp_path, *settings, "trainer.max_epochs=1")
    train(tmp_path, *settings, "trainer.max_epochs=2", "ckpt_path=last")
    assert "optimizer.lr" not in caplog.text
    train(tmp_path, *settings, "trainer.max_epochs=3", "ckpt_path=last", "optimizer.lr=1e-5")
    assert "optimizer.lr=1e-05 changes nothing in a run that goes on: its optimiser has begun with 0.00" in caplog.text
    assert "max_epochs: 3" in (tmp_path / "config.yaml").read_text()
    table = (tmp_path / "history.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in table] == ["epoch", "1", "2", "3"]


def test_peak_memory_is_not_that_of_an_earlier_trial(tmp_path: Path) -> None:
    settings = ["trainer.max_epochs=1", "+trainer.limit_train_batches=2", "test=false"]
    train(tmp_path / "first", *settings)
    np.ones(10**8)  # 0.8 GB, for a moment
    assert "peak_memory_gb" not in train(tmp_path / "second", *settings).metrics


def test_resume_with_nothing_to_resume(call: Run) -> None:
    done = call("train", "ckpt_path=last")
    assert done.returncode == 1
    assert "no earlier run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = [sys.executable, "-m", "hwr.train", *arguments]
    return subprocess.Popen(line, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_epoch(process: subprocess.Popen[str], number: int) -> None:
    """Returns once a line about this epoch was printed; the next epoch has begun by then."""
    assert process.stdout is not None
    assert any(line.startswith(f"epoch {number}/") for line in process.stdout), process.communicate()[1]
    time.sleep(0.3)


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_is_as_if_unbroken(hwr: Run, tmp_path: Path) -> None:
    settings = [*STATEFUL, "trainer.max_epochs=4"]
    assert hwr("train", *settings, "hydra.run.dir=unbroken").returncode == 0
    process = start(tmp_path, *settings)
    wait_for_epoch(process, 2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    (broken,) = (tmp_path / "outputs").glob("*/*")
    assert len(rows(broken)) in (2, 3)
    assert not (broken / "metrics.json").exists()
    done = hwr("train", *settings, "ckpt_path=last")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs").glob("*/*")) == [broken]  # no second directory
    assert rows(broken) == rows(tmp_path / "unbroken")
    assert figures(broken) == figures(tmp_path / "unbroken")
    assert same(weights(broken), weights(tmp_path / "unbroken"))
    ours, theirs = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (broken, tmp_path / "unbroken")
    )
    assert same(ours["state_dict"], theirs["state_dict"])
    assert same(ours["current_model_state"], theirs["current_model_state"])
    assert not list(broken.rglob("*.tmp"))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(hwr: Run, tmp_path: Path) -> None:
    settings = ["network=lenet_32_64", "trainer.precision=32-true", "trainer.max_epochs=5", "callbacks.gallery=null"]
    process = start(tmp_path, *settings)
    wait_for_epoch(process, 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "epoch 5/5" not in out
    (line,) = err.splitlines()
    assert line.startswith("hwr.train: error: interrupted in epoch ")
    again = line.partition("go on with: ")[2]
    assert again == " ".join(["python -m hwr.train", *settings, "ckpt_path=last"])
    done = hwr("train", *again.split()[3:])
    assert done.returncode == 0, done.stderr
    (resumed,) = (tmp_path / "outputs").glob("*/*")
    assert [row["epoch"] for row in rows(resumed)] == [1, 2, 3, 4, 5]


STILL = ["scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-6", "scheduler.min_lr=1e-9"]  # falls each epoch


def validated(run: Path) -> list[dict[str, float]]:
    return [{name: x for name, x in row.items() if name.startswith(("val/", "epoch", "step"))} for row in rows(run)]


@pytest.mark.parametrize("schedule", [["scheduler=onecycle"], STILL, [*STILL, "+trainer.val_check_interval=0.5"]])
def test_resume_in_process_keeps_history_and_best(schedule: list[str], tmp_path: Path) -> None:
    """The last two epochs of three, from the checkpoint of the first, are as they were."""
    settings = ["trainer.max_epochs=3", *schedule]
    whole = train(tmp_path / "whole", *settings, "callbacks.periodic.every_n_epochs=1")
    first = min(whole.run_dir.glob("checkpoints/epoch*.ckpt"))
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part/bundle")
    shutil.copy(first, tmp_path / "part/checkpoints/last.ckpt")
    resumed = train(tmp_path / "part", *settings, "ckpt_path=last")
    assert validated(whole.run_dir) == validated(resumed.run_dir)
    if "+trainer.val_check_interval=0.5" not in schedule:  # from before the end of the epoch, which averages training
        assert rows(whole.run_dir) == rows(resumed.run_dir)
    assert same(weights(whole.run_dir), weights(resumed.run_dir))
    ours, theirs = (torch.load(r.run_dir / "checkpoints/last.ckpt", weights_only=True) for r in (whole, resumed))
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert same(ours["state_dict"], theirs["state_dict"])
    before = torch.load(first, weights_only=True)["hwr_seconds"]
    assert 0 < before < theirs["hwr_seconds"] <= resumed.metrics["train_seconds"]


def test_a_run_that_stopped_early_says_so_and_goes_on(call: Run) -> None:
    settings = ["experiment=digits_cnn", "run_dir=run", "optimizer.lr=0", "trainer.max_epochs=4", "test=false"]
    settings += ["callbacks.early_stopping.patience=1", "callbacks.ema=null", "trainer.accelerator=cpu"]
    settings += ["network=lenet_16_32"]
    done = call("train", *settings)
    assert done.returncode == 0, done.stderr
    assert "stopped early" in done.stdout
    assert "no better for 1 epoch " in done.stdout
    stopped = len(rows(Path("run")))
    assert stopped < 4
    again = f"the same command with run_dir={Path('run').resolve()} ckpt_path=last callbacks.early_stopping=null"
    assert again in done.stdout
    done = call("train", *settings[:5], "ckpt_path=last", "callbacks.early_stopping=null", *settings[6:])
    assert done.returncode == 0, done.stderr
    assert "stopped early" not in done.stdout
    assert [row["epoch"] for row in rows(Path("run"))] == [1, 2, 3, 4]


def test_the_system_cannot_be_resumed_with_other_classes(tmp_path: Path) -> None:
    train(tmp_path / "run", "trainer.max_epochs=1", "+trainer.limit_train_batches=1")
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    with pytest.raises(HwrError, match="another preprocess"):
        train(tmp_path / "other", "data.preprocess.fit=18", f"ckpt_path='{checkpoint}'")


def test_checkpoints_explain_themselves(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        model = bundle.from_checkpoint(path)
        assert model.classes == tuple("0123456789")
        model.build()


@pytest.mark.slow
def test_the_default_experiment_reads_digits(hwr: Run, tmp_path: Path) -> None:
    done = hwr("train", "experiment=digits_cnn")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "test accuracy" in done.stdout
    assert "tensorboard --logdir" in done.stdout
    (run,) = (tmp_path / "outputs").glob("*/*_digits_cnn*")
    metrics = figures(run)
    assert metrics["test/samples"] == 359
    assert metrics["test/accuracy"] >= 0.985
