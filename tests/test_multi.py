"""Several jobs of one command, and several processes of one job."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow
QUICK = ["trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.gallery=null"]


def test_multirun(hwr: Run, tmp_path: Path) -> None:
    done = hwr("train", "-m", "network=lenet_16_32,lenet_32_64", "seed=1,2", *QUICK)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "outputs" / "sweeps").glob("*/*/metrics.json"))
    assert len(runs) == 4
    assert len({run.parent for run in runs}) == 1  # one sweep
    for number, (network, seed) in enumerate(
        [("lenet_16_32", 1), ("lenet_16_32", 2), ("lenet_32_64", 1), ("lenet_32_64", 2)]
    ):
        assert runs[number].name.startswith(f"{number:03d}_")
        config = yaml.safe_load((runs[number] / "config.yaml").read_text())
        assert config["seed"] == seed
        assert config["network"]["stages"][0]["channels"] == int(network.split("_")[1])
        assert (runs[number] / "bundle" / "weights.safetensors").is_file()
    losses = {json.loads((run / "metrics.json").read_text())["test/loss"] for run in runs}
    assert len(losses) == 4


def test_two_processes(hwr: Run, tmp_path: Path) -> None:
    devices = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    done = hwr("train", "network=lenet_16_32", "trainer.max_epochs=2", "data.batch_size=32", *devices)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1  # the table, by one of the two
    assert "Traceback" not in done.stderr
    (metrics,) = (tmp_path / "outputs").rglob("metrics.json")
    assert len(list((tmp_path / "outputs").rglob("bundle.json"))) == 1
    run = metrics.parent
    support = sum(int(line.rpartition(",")[2]) for line in (run / "per_class.csv").read_text().splitlines()[1:])
    ours = json.loads(metrics.read_text())
    assert support == ours["test/samples"] == 359  # each once: none dropped, none repeated to fill up
    assert ours["test/accuracy"] > 0.6
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert hwr("eval", f"run={run}", "accelerator=cpu").returncode == 0
    theirs = json.loads((run / "eval/test/metrics.json").read_text())
    shared = [name for name in ours if name.startswith("test/")]
    assert len(shared) >= 12
    for name in shared:
        assert theirs[name] == pytest.approx(ours[name], abs=1e-5), name
    assert (run / "eval/test/per_class.csv").read_text() == (run / "per_class.csv").read_text()


def test_two_processes_learn_what_one_learns(hwr: Run, tmp_path: Path) -> None:
    """A batch shared by two processes is the batch of one: without random changes the weights stay the same."""
    same = ["network=lenet_16_32", "augment=none", "optimizer=sgd", "optimizer.lr=0.01", "scheduler=constant", *QUICK]
    assert hwr("train", *same, "hydra.run.dir=one").returncode == 0
    devices = ["trainer.devices=2", "trainer.strategy=ddp"]
    assert hwr("train", *same, *devices, "hydra.run.dir=two").returncode == 0
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert two["test/loss"] == pytest.approx(one["test/loss"], rel=1e-3)
    assert two["test/accuracy"] == pytest.approx(one["test/accuracy"], abs=0.01)
