"""Several processes of one training: they learn what one learns, and end when one of them ends."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from line_model import texts, write_split

from hwr import bundle
from hwr.config import compose
from hwr.parts import optimizer_for

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = ["trainer.accelerator=cpu", "trainer.precision=32-true", "callbacks.gallery=null"]
TWO = ["trainer=ddp", "trainer.devices=2"]
PLAIN = ["optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0", "optimizer.nesterov=false"]  # no rounding grows
PLAIN += ["scheduler=constant", "callbacks.ema=null", "trainer.log_every_n_steps=1"]
JOB = """
import sys
from pathlib import Path
import torch
from lightning import Callback
from hwr.config import compose
from hwr.experiment import fit

class Notes(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses = [*getattr(self, "losses", []), float(outputs["loss"])]

    def on_fit_end(self, trainer, pl_module):
        state = {"losses": self.losses, "weights": pl_module.network.state_dict()}
        torch.save(state, Path(sys.argv[1]) / f"rank{trainer.global_rank}.pt")

if __name__ == "__main__":
    folder, *overrides = sys.argv[1:]
    notes = "+callbacks.notes={_target_: __main__.Notes}"
    fit(compose("train", [*overrides, notes], run_dir=Path(folder) / "run"))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "160"}


def learn(folder: Path, *overrides: str) -> list[dict]:
    """Trains in a process of its own (or two) and gives what each noted."""
    folder.mkdir()
    (folder / "job.py").write_text(JOB)
    line = [sys.executable, "job.py", str(folder), *CPU, *PLAIN, *overrides]
    done = subprocess.run(line, cwd=folder, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pt"))]


def agree(one: list[dict], two: list[dict], within: float = 1e-5) -> None:
    """Two processes hold the same weights, to the last bit, and learnt what one learnt."""
    assert [len(one), len(two)] == [1, 2]
    for name, weight in two[0]["weights"].items():
        assert torch.equal(weight, two[1]["weights"][name]), name
        torch.testing.assert_close(weight, one[0]["weights"][name], rtol=1e-4, atol=1e-5)
    assert len(one[0]["losses"]) == len(two[0]["losses"]) > 10
    for ours, first, second in zip(one[0]["losses"], two[0]["losses"], two[1]["losses"], strict=True):
        assert (first + second) / 2 == pytest.approx(ours, rel=within, abs=1e-5)


def same_figures(one: Path, two: Path, within: float = 1e-5) -> None:
    ours, theirs = (json.loads((folder / "run/metrics.json").read_text()) for folder in (one, two))
    shared = [name for name in ours if name.startswith(("val/", "test/"))]
    assert len(shared) > 8
    assert shared == [name for name in theirs if name.startswith(("val/", "test/"))]
    for name in shared:
        assert theirs[name] == pytest.approx(ours[name], rel=within, abs=1e-5), name
    histories = [list(csv.DictReader((folder / "run/history.csv").open())) for folder in (one, two)]
    for row, other in zip(*histories, strict=True):
        assert float(other["train/loss"]) == pytest.approx(float(row["train/loss"]), rel=within, abs=1e-5)
        assert float(other["val/loss"]) == pytest.approx(float(row["val/loss"]), rel=within, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["data.batch_size=33", "trainer.accumulate_grad_batches=2", "system.l1=1e-5"]])
def test_characters_in_two_processes(more: list[str], tmp_path: Path) -> None:
    settings = ["network=lenet_16_32", "augment=none", "trainer.max_epochs=2", *more]
    one, two = learn(tmp_path / "one", *settings), learn(tmp_path / "two", *settings, *TWO)
    agree(one, two)
    same_figures(tmp_path / "one", tmp_path / "two")
    tables = [(tmp_path / name / "run/per_class.csv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert len(list((tmp_path / "two").rglob("bundle.json"))) == 1


@pytest.mark.slow
def test_lines_in_two_processes(tmp_path: Path) -> None:
    for number, (split, count) in enumerate((("train", 61), ("val", 13), ("test", 17))):  # no multiples of anything
        write_split(tmp_path / "own", split, texts(count, number), number)
    network = [
        "network.stages=[{channels: 8, norm: false}, {channels: 16, norm: false, pool: [4, 2]}]",
        "network.width=0",
    ]
    settings = ["experiment=tsv_crnn", f"data.path={tmp_path / 'own'}", "data.preprocess.height=32", *network]
    settings += ["network.hidden=16", "network.layers=1", "network.dropout=0", "augment=lines_none", "data.cache=null"]
    settings += [
        "data.columns=1200",
        "data.eval_columns=900",
        "trainer.max_epochs=2",
        "optimizer.lr=0.002",
    ]
    one, two = learn(tmp_path / "one", *settings), learn(tmp_path / "two", *settings, *TWO)
    agree(one, two, within=3e-5)  # the parts of a batch are padded to other widths
    same_figures(tmp_path / "one", tmp_path / "two", within=3e-5)
    tables = [sorted((tmp_path / name / "run/lines.csv").read_text().splitlines()) for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 18


@pytest.mark.slow
def test_two_processes_whose_time_runs_out(tmp_path: Path) -> None:
    settings = ["network=lenet_16_32", "augment=none", "trainer.max_epochs=null", "trainer.max_time=00:00:00:08"]
    two = learn(tmp_path / "two", *settings, *TWO, "scheduler=linear", "test=false")
    assert len(two[0]["losses"]) == len(two[1]["losses"]) > 10
    for name, weight in two[0]["weights"].items():  # so both had the same learning rates
        assert torch.equal(weight, two[1]["weights"][name]), name
    row = list(csv.DictReader((tmp_path / "two/run/history.csv").open()))[-1]
    assert float(row["lr"]) < 0.002  # of 0.01


# ---- a process that is gone

proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the second process in /proc")


def started(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """A training of two processes, as a user types it, after its first checkpoint."""
    line = [sys.executable, "-m", "hwr.train", "network=tiny", *CPU, *TWO, "trainer.max_epochs=500"]
    line += ["callbacks.early_stopping=null", "test=false", f"hydra.run.dir={folder / 'run'}", *overrides]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, cwd=folder, env=environment(), text=True, start_new_session=True, **pipes)
    until = time.monotonic() + 200
    while not (folder / "run/checkpoints/last.ckpt").is_file():
        assert process.poll() is None, process.stderr
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.2)
    return process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@proc
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_run(number: int, tmp_path: Path) -> None:
    first = started(tmp_path)
    (second,) = children(first.pid)
    os.kill((first.pid, second)[number], signal.SIGKILL)
    until = time.monotonic() + 30
    while (alive(first.pid) or alive(second)) and time.monotonic() < until:
        time.sleep(0.1)
    try:
        assert not alive(first.pid)
        assert not alive(second)
    finally:
        for pid in (first.pid, second):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    assert first.wait() == (-signal.SIGKILL if number == 0 else 1)
    lines = [line for line in first.stderr.read().splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("hwr.train: error: ")
    assert "process" in lines[0]
    assert "ckpt_path=last" in lines[0]
    bundle.from_checkpoint(tmp_path / "run/checkpoints/last.ckpt").build()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
@proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_both_processes_in_one_line(how: signal.Signals, tmp_path: Path) -> None:
    first = started(tmp_path)
    (second,) = children(first.pid)
    if how == signal.SIGINT:  # Ctrl-C reaches all, `kill` one
        os.killpg(first.pid, how)
    else:
        os.kill(first.pid, how)
    _, told = first.communicate(timeout=60)
    assert not alive(second)
    assert first.returncode == 1
    (line,) = [line for line in told.splitlines() if "error" in line or "Traceback" in line]
    assert line.startswith("hwr.train: error: interrupted in epoch ")
    assert "ckpt_path=last" in line


LATE = """
from lightning import Callback
from hwr.errors import HwrError
from hwr.train import main

class Late(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            raise HwrError("only the second process meets this")

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_what_one_process_meets_is_told_by_it_alone(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LATE)
    late = ["+callbacks.late._target_=__main__.Late", "trainer.max_epochs=9", "hydra.run.dir=run"]
    line = [sys.executable, "train.py", "network=tiny", *CPU, *TWO, *late]
    done = subprocess.run(line, cwd=tmp_path, env=environment(), text=True, capture_output=True)
    assert the_error(done) == "only the second process meets this"


# ---- bad input


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("hwr.train: error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainer.devices=5000"], ["trainer.devices=5000", "cores"]),
        (["trainer.devices=0"], ["trainer", "devices=0", "trainer.devices=N"]),
        (["trainer.devices=-1"], ["trainer.devices=N"]),
        (["trainer.accelerator=gpu", "trainer.devices=99"], ["trainer", "trainer."]),
        (["trainer=multinode"], ["trainer=multinode", "torchrun", "trainer=ddp"]),
        (["lr_scaling.rule=cubic"], ["lr_scaling.rule=cubic", "linear"]),
        (["lr_scaling.rule=linear"], ["lr_scaling.base", "data.batch_size"]),
        (["tune.lr=true", "trainer.devices=2"], ["tune", "trainer.devices=1"]),
    ],
)
def test_settings_that_cannot_be(arguments: list[str], words: list[str], call: Run, tmp_path: Path) -> None:
    line = the_error(call("train", "network=tiny", *CPU, *arguments, "hydra.run.dir=run"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "run/config.yaml").exists()


@pytest.mark.slow
def test_a_port_in_use(hwr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        line = the_error(hwr("train", "network=tiny", *CPU, *TWO))
    assert f"MASTER_PORT={port} is in use" in line


@pytest.mark.slow
def test_what_both_processes_meet_is_told_once(hwr: Run) -> None:
    line = the_error(hwr("train", "network=tiny", *CPU, *TWO, "data.batch_size=1"))
    assert "2 devices cannot share 1 samples (train)" in line


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_learning_rate_grows_with_the_batch(rule: str, factor: float) -> None:
    batch = ["data.batch_size=64", "trainer.accumulate_grad_batches=2"]
    cfg = compose("train", [*batch, "optimizer.lr=0.001", f"lr_scaling.rule={rule}", "lr_scaling.base=32"])
    (group,) = optimizer_for(cfg)([torch.zeros(1, requires_grad=True)]).param_groups
    assert group["lr"] == pytest.approx(0.001 * factor)


# ---- torchrun


@pytest.mark.slow
def test_torchrun_on_two_machines(tmp_path: Path) -> None:
    """Two agents on this one stand for the two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=job_7"]
    line += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    train = ["-m", "hwr.train", "trainer=multinode", "network=tiny", "trainer.max_epochs=1", *CPU]
    agents = [
        subprocess.Popen(
            [*line, f"--node-rank={n}", *train], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
        )
        for n in (0, 1)
    ]
    tables = [agent.communicate(timeout=280)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0]
    assert ["test accuracy" in table for table in tables] == [True, False]
    (metrics,) = tmp_path.rglob("metrics.json")
    assert metrics.parent.name.startswith("job-7_digits_cnn_")
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 1  # one directory for both
    assert json.loads(metrics.read_text())["test/samples"] == 359
