"""A run that goes on in the middle of an epoch: it reads what is left of it, and ends as an unbroken one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_pack import lines_data
from torch.utils._pytree import tree_leaves

from hwr.callbacks import WithinEpoch, history
from hwr.config import compose
from hwr.data.shards.datamodules import Shards
from hwr.data.shards.writer import pack
from hwr.errors import HwrError
from hwr.experiment import Result, fit
from hwr.parts import datamodule

Run = Callable[..., subprocess.CompletedProcess[str]]
# All that draws random numbers, or keeps something from step to step.
COMMON = ["trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null", "trainer.max_epochs=3"]
CHARACTERS = ["network=lenet_32_64", "network.dropout=0.3", "augment=strong", "data.batch_size=50"]
LINES = [
    "experiment=tsv_crnn",
    "network.stages=[{channels: 8}, {channels: 16}, {channels: 24, pool: [4, 1]}]",
    "network.width=0",
    "network.hidden=24",
    "network.layers=1",
    "network.dropout=0.3",
    "data.columns=1500",
    "augment=lines",
]
STEPS = (
    "+callbacks.steps={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${run_dir}/checkpoints', "
    "filename: 'step{step}', auto_insert_metric_name: false, every_n_train_steps: %d, save_top_k: -1}"
)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Characters and lines, in memory and in shards, as settings."""
    folder = tmp_path_factory.mktemp("within")
    pack(datamodule(compose()), folder / "digits", 0.05)
    pack(lines_data(folder / "lines"), folder / "shards", 0.1)
    prepared = ["data.preprocess.height=32", "data.cache=null"]
    return {
        "characters": CHARACTERS,
        "characters in shards": [*CHARACTERS, "data=shards", f"data.path={folder / 'digits'}"],
        "lines": [*LINES, f"data.path={folder / 'lines'}", *prepared],
        "lines in shards": [*LINES, "data=line_shards", f"data.path={folder / 'shards'}"],
    }


def train(run_dir: Path, *settings: str) -> Result:
    return fit(compose(overrides=[*COMMON, *settings], run_dir=run_dir))


def rows(run: Path) -> list[dict[str, float]]:
    """The history but for what depends on the machine's mood, or on which step was the last that was logged."""
    table = history.read(run / "history.csv")
    return [{name: value for name, value in row.items() if not name.startswith(("system/", "lr-"))} for row in table]


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step{step}.ckpt"


def check_same(ours: Path, theirs: Path) -> None:
    """What counts of two runs that ended is the same: figures, all weights, the state of the optimiser."""
    a, b = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (ours, theirs))
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step"):
        for one, other in zip(tree_leaves(a.get(key)), tree_leaves(b.get(key)), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, key
    assert rows(ours) == rows(theirs)
    figures = [json.loads((run / "metrics.json").read_text()) for run in (ours, theirs)]
    for name, value in figures[1].items():
        assert name in ("train_seconds", "peak_memory_gb") or figures[0][name] == value, name


CASES = [
    ("characters", 0, "callbacks=[default,ema]"),
    ("characters", 0, "trainer.accumulate_grad_batches=2"),
    ("characters", 0, "scheduler=plateau"),
    ("characters", 0, "+trainer.limit_train_batches=20"),
    ("characters in shards", 0, "scheduler=exponential"),
    ("characters in shards", 2, "callbacks=[default,ema]"),
    ("lines", 0, "augment.views=2"),
    ("lines in shards", 0, "scheduler=onecycle"),
    ("lines in shards", 2, "scheduler=cosine"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "workers", "more"), CASES)
def test_resumed_in_mid_epoch_is_as_unbroken(
    source: str, workers: int, more: str, sources: dict[str, list[str]], tmp_path: Path
) -> None:
    settings = [*sources[source], more, STEPS % 1, *([f"data.workers={workers}"] if workers else [])]
    run = tmp_path / "run"
    epoch = train(run, *settings).trainer.global_step // 3
    whole = shutil.copytree(run, tmp_path / "whole")
    for step in (epoch + epoch // 2, 2):
        train(run, *settings, f"ckpt_path='{checkpoint(whole, step)}'")
        check_same(run, whole)


@pytest.mark.slow
def test_validation_within_an_epoch_may_be_gone_on_from(sources: dict[str, list[str]], tmp_path: Path) -> None:
    """Lightning writes last.ckpt after each validation: here the last time in the middle of the third epoch."""
    settings = [*sources["characters"], "+trainer.val_check_interval=10", "scheduler=constant"]
    stopped = train(tmp_path / "run", *settings, "+trainer.max_steps=61")
    assert 0 < stopped.datamodule.state_dict()["read"] < 25
    train(tmp_path / "run", *settings, "ckpt_path=last")
    train(tmp_path / "whole", *settings)
    check_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["characters", "lines in shards"])
def test_two_processes_resumed_in_mid_epoch_are_as_unbroken(
    source: str, sources: dict[str, list[str]], hwr: Run, tmp_path: Path
) -> None:
    workers = ["data.workers=2"] if "shards" in source else []
    devices = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=2"]
    settings = [*COMMON, *sources[source], *workers, *devices, STEPS % 5, "hydra.run.dir=run"]
    done = hwr("train", *settings)
    assert done.returncode == 0, done.stderr
    whole = shutil.copytree(tmp_path / "run", tmp_path / "whole")
    kept = torch.load(checkpoint(whole, 5), weights_only=True)["hwr_processes"]
    assert not torch.equal(kept[0]["random"]["cpu"], kept[1]["random"]["cpu"])
    done = hwr("train", *settings, "ckpt_path=whole/checkpoints/step5.ckpt")
    assert done.returncode == 0, done.stderr
    check_same(tmp_path / "run", whole)
    done = hwr("train", *COMMON, *sources[source], *workers, "ckpt_path=whole/checkpoints/step5.ckpt")
    assert done.returncode == 1
    says = "made in the middle of an epoch with processes=2, and here it is 1; repeat the settings"
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_killed_in_mid_epoch_the_last_checkpoint_is_minutes_old_at_most(
    sources: dict[str, list[str]], hwr: Run, tmp_path: Path
) -> None:
    """The others only see it after the last step of an epoch, which is no place to go on from."""
    settings = [*COMMON, *sources["characters in shards"], "data.batch_size=2", "trainer.max_epochs=1"]
    settings += ["callbacks.within_epoch.minutes=0.01", "hydra.run.dir=run", "trainer.accumulate_grad_batches=3"]
    line = [sys.executable, "-m", "hwr.train", *settings]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(line, cwd=tmp_path, env=env)
    last = tmp_path / "run/checkpoints/last.ckpt"
    while not last.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    found = torch.load(last, weights_only=True)
    assert 0 < found["Shards"]["read"] < found["Shards"]["facts"]["batches an epoch"]
    assert found["Shards"]["read"] == 3 * found["global_step"]  # no gradients are lost
    for arguments in (["ckpt_path=last"], ["hydra.run.dir=whole", "callbacks.within_epoch.minutes=0"]):
        done = hwr("train", *settings, *arguments)
        assert done.returncode == 0, done.stderr
    check_same(tmp_path / "run", tmp_path / "whole")


def test_what_cannot_be_gone_on_from_is_told(sources: dict[str, list[str]], tmp_path: Path) -> None:
    settings = [*sources["characters in shards"], "trainer.max_epochs=1", "test=false"]
    train(tmp_path / "run", *settings, STEPS % 2)
    path = checkpoint(tmp_path / "run", 4)
    for other, says in {
        "data.workers=2": "=1, and here it is 2",
        "data.batch_size=20": "=26, and here it is 65",
    }.items():
        with pytest.raises(HwrError, match=f"made in the middle of an epoch with .*{says}.*the end of an epoch$"):
            train(tmp_path / "other", *settings, other, f"ckpt_path='{path}'")
    with pytest.raises(HwrError, match=r"callbacks.within_epoch.minutes=-1: a number from 0 is needed"):
        WithinEpoch(str(tmp_path), -1)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_is_read_once_before_or_after(workers: int, sources: dict[str, list[str]]) -> None:
    """Whatever was fetched but not handed out when the checkpoint was made."""
    path = sources["characters in shards"][-1].removeprefix("data.path=")
    before, after = (Shards(path, batch_size=50, workers=workers) for _ in range(2))
    for data in (before, after):
        data.setup()
    unbroken = []
    for batch in before.train_dataloader():
        unbroken.append(batch.ids.tolist())
        if len(unbroken) == 11:
            after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    loader = after.train_dataloader()
    assert [batch.ids.tolist() for batch in loader] == unbroken[11:]
    loader.sampler.set_epoch(1)
    assert sorted(i for batch in loader for i in batch.ids.tolist()) == list(range(1294))
