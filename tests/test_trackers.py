"""MLflow and Weights & Biases get what TensorBoard and the run directory get; each is tested where it is installed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hwr.callbacks import history

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = [
    "network=lenet_16_32",
    "augment=none",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed: pip install {package}")


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_knows_the_whole_run(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = call(
        "train",
        *QUICK,
        "trainer.max_epochs=2",
        "logger=mlflow",
        "callbacks.gallery.every_n_epochs=1",
        "hydra.run.dir=run",
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("digits_cnn").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["run_dir"]) == ("run", "FINISHED", str(tmp_path / "run"))
    assert (run.data.params["seed"], run.data.params["data/batch_size"]) == ("1", "64")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: run.data.metrics[name] for name in metrics} == pytest.approx(metrics)
    ours = [row["val/loss"] for row in history.read(tmp_path / "run" / "history.csv")]
    theirs = [point.value for point in client.get_metric_history(run.info.run_id, "val/loss")]
    assert theirs[:2] == pytest.approx(ours)
    assert {"samples.png", "curves.png"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "val")]


@needs("mlflow")
def test_a_server_that_is_not_there_is_told_before_training(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = call("train", *QUICK, "logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("hwr.train: error: logger=mlflow: API request to http://127.0.0.1:9")
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("history.csv"))


def records(path: Path) -> Iterator[Any]:
    """What Weights & Biases wrote without a network: after 7 bytes, LevelDB's log in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole = path.read_bytes(), 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of a record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def ended(path: Path) -> list[Any]:
    """All records of a run; a process of Weights & Biases writes the last ones a moment after the run has ended."""
    for _ in range(100):
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


@pytest.mark.slow
@needs("wandb")
def test_wandb_knows_each_run_of_one_process(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("first", "second"):
        done = call("train", *QUICK, "trainer.max_epochs=1", "logger=wandb", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / name / "tensorboard").glob("events*"))
        (path,) = (tmp_path / name / "wandb").glob("offline-run-*/*.wandb")
        found = ended(path)
        (run,) = {(r.run.project, r.run.display_name) for r in found if r.WhichOneof("record_type") == "run"}
        assert run == ("digits_cnn", name)
        config = {u.key or "/".join(u.nested_key): json.loads(u.value_json) for r in found for u in r.config.update}
        assert config["data"]["batch_size"] == 64
        logged = {"".join(i.nested_key) or i.key: json.loads(i.value_json) for r in found for i in r.history.item}
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert {name: logged[name] for name in metrics} == pytest.approx(metrics)
        assert list(path.parent.glob("files/media/images/samples_*.png"))
        assert [r.exit.exit_code for r in found if r.WhichOneof("record_type") == "exit"] == [0]


@needs("wandb")
def test_who_is_not_logged_in_is_told(hwr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = hwr("train", *QUICK, "logger=wandb", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "error: logger=wandb: No API key configured" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_named(package: str, call: Run) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    done = call("train", *QUICK, f"logger={package}")
    assert done.returncode == 1
    assert (
        f"logger={package}: the package {package} is not installed; install it with: pip install {package}"
        in done.stderr
    )
