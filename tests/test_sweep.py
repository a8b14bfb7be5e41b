"""Sweeps: what is varied, what is on disk, what is said; one after the other, in the process of the command."""

from __future__ import annotations

import csv
import functools
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import optuna
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hwr.config import CONF_DIR, compose, sweep_name
from hwr.errors import HwrError
from hwr.sweeps.launchers import Here
from hwr.sweeps.space import Space, parse
from hwr.sweeps.storage import Storage, alone
from hwr.sweeps.sweeper import run
from hwr.sweeps.trials import Trials

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = [
    "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.gallery=null",
    "+trainer.limit_train_batches=3", "network=tiny", "hydra.sweep.dir=sweep",
]  # fmt: skip
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def space(*arguments: str) -> Space:
    path = ConfigSearchPathImpl()
    path.append("main", f"file://{CONF_DIR}")
    return parse(arguments, ConfigLoaderImpl(path))


composed = functools.cache(lambda *settings: compose("train", settings))


def begun(
    folder: Path, *arguments: str, settings: Sequence[str] = (), objectives: Mapping[str, str] = {"val/loss": "min"}
) -> Trials:
    folder.mkdir(exist_ok=True)
    made = Trials(folder, space(*arguments), objectives, composed(*settings).sweep)
    made.begin({"a": 1}, list(arguments), "digits_cnn")
    return made


def end(trials: Trials, number: int | None = None) -> list[str] | None:
    """Takes the next trial to its end without training; returns what it was told to train with."""
    job = trials.next()
    if job is None:
        return None
    (job.folder / "metrics.json").write_text(json.dumps({"val/loss": 0.5 + job.number}))
    trials.record(job, None, 1.0)
    return list(job.overrides[:-1])


def study(folder: Path) -> optuna.Study:
    return Storage(folder).load()


def stamps(paths: Iterable[Path]) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in paths}


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("hwr.train: error: ")
    assert "Traceback" not in done.stderr
    return line.removeprefix("hwr.train: error: ")


def test_a_grid_by_the_command_and_once_only(call: Run, tmp_path: Path) -> None:
    typed = ["-m", "optimizer.lr=1e-3,1e-2", *QUICK]
    done = call("train", *typed)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "sweep"
    trials = study(folder).trials
    assert [t.user_attrs["overrides"] for t in trials] == [["optimizer.lr=0.001"], ["optimizer.lr=0.01"]]
    for trial in trials:
        run = Path(trial.user_attrs["run_dir"])
        assert trial.state == TrialState.COMPLETE
        assert trial.user_attrs["metrics"] == json.loads((run / "metrics.json").read_text())
        assert trial.value == trial.user_attrs["metrics"]["val/loss"] == trial.intermediate_values[1]
        config = OmegaConf.load(run / "config.yaml")
        assert [f"optimizer.lr={config.optimizer.lr}"] == trial.user_attrs["overrides"]
        assert "epoch 1/1" in (run / "train.log").read_text()
    with (folder / "leaderboard.csv").open(newline="") as file:
        best = next(csv.DictReader(file))
    (winner,) = min(trials, key=lambda trial: trial.value).user_attrs["overrides"]
    assert f"optimizer.lr={best['optimizer.lr']}" == winner
    assert (folder / "report.html").is_file()
    assert winner in done.stdout.split("Next:")[1]
    assert done.stdout.count("val/loss 2") == 2

    before = stamps(folder.glob("*/metrics.json"))
    done = call("train", *typed)
    assert done.returncode == 0
    assert stamps(folder.glob("*/metrics.json")) == before
    assert "trial" not in done.stdout
    assert winner in done.stdout

    assert "optimizer.weight_decay was" in error(call("train", *typed, "optimizer.weight_decay=0.5"))
    said = error(call("train", "-m", "optimizer.lr=1e-3,1e-2,1e-1", *QUICK))
    assert "optimizer.lr was 0.001,0.01 and is 0.001,0.01,0.1 now" in said
    assert "hydra.sweep.dir" in said


def test_a_failed_trial_is_told_and_does_not_stop_the_others(call: Run, tmp_path: Path) -> None:
    broken = "+callbacks.broken={_target_:builtins.object}"
    done = call("train", "-m", "data.batch_size=64,0", *QUICK)
    assert error(done).startswith("1 of 2 trials failed")
    assert "trial 1 (data.batch_size=0) failed: data.batch_size" in done.stderr
    assert [t.state.name for t in study(tmp_path / "sweep").trials] == ["COMPLETE", "FAIL"]
    done = call("train", "-m", "seed=1", broken, *QUICK[:-1], "hydra.sweep.dir=broken")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    (failed,) = study(tmp_path / "broken").trials
    assert "Traceback (most recent call last)" in failed.user_attrs["error"]
    assert "AttributeError" in failed.user_attrs["error"].splitlines()[-1]


def test_a_trial_that_goes_badly_is_given_up(call: Run, tmp_path: Path) -> None:
    pruner = "sweep.pruner={_target_:optuna.pruners.ThresholdPruner,upper:0.01}"
    done = call("train", "-m", "seed=1", pruner, *QUICK, "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert "given up after epoch 1" in done.stdout
    (trial,) = study(tmp_path / "sweep").trials
    assert (trial.state, list(trial.intermediate_values)) == (TrialState.PRUNED, [1])
    assert trial.user_attrs["metrics"]["epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimizer.lrr=1,2"], "did you mean optimizer.lr?"),
        (["optimizer.lr=1e-3,abc"], "optimizer.lr=abc: a number is needed"),
        (["network=tiny,nope"], "network=nope: there is no such network"),
        (["network=glob(zz*)"], "matches nothing; known: cnn, "),
        (["optimizer.lr=choice()"], "nothing to choose from"),
        (["data.batch_size=range(3,1)"], "an empty range"),
        ([RATE], "choose sweep=tpe or sweep=random"),
        (["sweep=tpe"], "nothing to choose"),
        (["sweep=tpe", "seed=1,2"], "nothing to choose"),
        (["sweep=tpe", "optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr=tag(log,interval(0,1))"),
        (["sweep.trials=0", "seed=1,2"], "sweep.trials=0: a whole number from 1"),
        (["sweep.trials=1,2"], "sweep.trials: cannot be varied"),
        (["ckpt_path=last", "seed=1,2"], "ckpt_path: a sweep sets it"),
        (["sweep.objectives={val/loss:less}"], "min or max is needed"),
        (["hydra/launcher=processes", "hydra.launcher.n=0"], "hydra.launcher.n=0: a whole number from 1"),
        (["hydra/launcher=processes", "trainer.devices=2"], "leave it at 1"),
        (["hydra/launcher=basic"], "choose here, processes or slurm"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_trained(
    call: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = call("train", "-m", *arguments)
    assert said in error(done)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("train.log"))


def test_a_damaged_study(call: Run, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "study.db").write_bytes(b"no database" * 1000)
    said = error(call("train", "-m", "seed=1,2", *QUICK))
    assert "study.db: file is not a database" in said
    assert "hydra.sweep.dir" in said


def test_only_one_process_works_on_a_sweep(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(HwrError, match="another process runs this sweep"), alone(tmp_path, patience=0):
        pass
    with alone(tmp_path, patience=0):
        pass


def test_other_commands_do_not_sweep(call: Run) -> None:
    done = call("curve", "-m", "seed=1,2", "init_from=mnist")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "-m is for hwr.train" in done.stderr


def test_what_can_be_varied() -> None:
    found = space(
        "experiment=digits_cnn", "network=glob(lenet*)", RATE, "data.batch_size=range(16,65,16)", "seed=1,2",
        "optimizer.weight_decay=interval(0,1)", "+callbacks.a=x,null,[1,2]", "seed=3,4",
        "trainer.max_epochs=int(interval(2,9))", "scheduler.warmup=range(0.1,0.5,0.2)",
    )  # fmt: skip
    assert found.fixed == ("experiment=digits_cnn",)
    kinds = {dimension.key: dimension.distribution for dimension in found.dimensions}
    assert kinds == {
        "network": CategoricalDistribution(["lenet_16_32", "lenet_32_64"]),
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "data.batch_size": IntDistribution(16, 64, step=16),
        "seed": CategoricalDistribution([3, 4]),
        "optimizer.weight_decay": FloatDistribution(0, 1),
        "+callbacks.a": CategoricalDistribution(["x", None, "[1,2]"]),
        "trainer.max_epochs": IntDistribution(2, 9),
        "scheduler.warmup": FloatDistribution(0.1, 0.3, step=0.2),
    }
    by_key = {dimension.key: dimension for dimension in found.dimensions}
    assert by_key["+callbacks.a"].override(None) == "+callbacks.a=null"
    assert by_key["+callbacks.a"].override("[1,2]") == "+callbacks.a=[1,2]"
    assert by_key["optimizer.lr"].override(0.00123456789) == "optimizer.lr=0.00123457"


def test_a_grid_goes_through_all_combinations_in_the_order_of_the_command() -> None:
    found = space("a=1,2", "b=x,y", "seed=range(1,4)")
    points = [tuple(found.combination(number).values())[::-1] for number in range(found.combinations)]
    assert points == [(a, b, seed) for a in (1, 2) for b in "xy" for seed in (1, 2, 3)]
    shuffled = space("a=shuffle(1,2,3,4,5,6,7)")
    assert [shuffled.combination(number)["a"] for number in range(7)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("varied", "settings"),
    [
        (["data.batch_size=16,32", "seed=1,2"], []),
        ([RATE, "data.batch_size=16,32", "seed=1,2"], ["sweep=random", "sweep.trials=2"]),
        (
            [RATE, "data.batch_size=16,32", "seed=1,2"],
            ["sweep=tpe", "sweep.trials=2", "sweep.sampler.n_startup_trials=1"],
        ),
    ],
    ids=["grid", "random", "tpe"],
)
def test_a_broken_off_sweep_trains_what_an_unbroken_one_trains(
    tmp_path: Path, varied: list[str], settings: list[str]
) -> None:
    whole = begun(tmp_path / "whole", *varied, settings=settings)
    wanted = [end(whole) for _ in range(4)]
    assert end(whole) is None
    assert [told[-1] for told in wanted if told] == ["seed=1", "seed=2"] * 2
    assert len({tuple(told[:-1]) for told in wanted if told}) == 2  # each setting with both seeds

    found = []
    for _ in range(4):
        begun(tmp_path / "broken", *varied, settings=settings).next()  # begun, and never ended
        found.append(end(begun(tmp_path / "broken", *varied, settings=settings)))
    assert found == wanted
    assert end(begun(tmp_path / "broken", *varied, settings=settings)) is None
    assert [t.state for t in study(tmp_path / "broken").trials] == [TrialState.COMPLETE] * 4
    assert len(list((tmp_path / "broken").glob("*/metrics.json"))) == 4


def test_killed_between_the_choice_of_a_trial_and_its_beginning(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", "seed=1,2")
    trials.study.enqueue_trial({"seed": 1})
    again = begun(tmp_path / "sweep", "seed=1,2")
    assert [end(again), end(again), end(again)] == [["seed=1"], ["seed=2"], None]
    broken = begun(tmp_path / "half", "seed=1,2", "data.batch_size=16,32")
    broken.study.enqueue_trial({"seed": 1, "data.batch_size": 16})
    broken.study.ask().suggest_categorical("seed", [1, 2])  # and no batch size yet
    again = begun(tmp_path / "half", "seed=1,2", "data.batch_size=16,32")
    assert end(again) == ["seed=1", "data.batch_size=16"]


def test_trials_at_the_same_time_share_nothing(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", RATE, "seed=1,2", settings=["sweep=tpe", "sweep.trials=4"])
    jobs = [job for _ in range(20) if (job := trials.next())]
    assert len(jobs) == len({job.folder for job in jobs}) == len({job.overrides for job in jobs}) == 8


def test_more_trials_go_on_with_the_same_sweep(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", RATE, settings=["sweep=random", "sweep.trials=2"])
    assert end(trials) != end(trials)
    assert end(trials) is None
    assert end(begun(tmp_path / "sweep", RATE, settings=["sweep=random", "sweep.trials=3"])) is not None


def test_no_trial_is_begun_after_the_time(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", "seed=1,2")
    run(trials, Here(), timeout=0)
    assert trials.finished == 0
    assert end(trials) == ["seed=1"]


def test_a_metric_that_is_no_number_fails_the_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = begun(tmp_path / "sweep", "seed=1,2")
    job = trials.next()
    assert job is not None
    (job.folder / "metrics.json").write_text(json.dumps({"val/loss": float("nan")}))
    trials.record(job, None, 1.0)
    assert "val/loss is nan" in capsys.readouterr().err
    assert [trial.number for trial in trials.failed] == [0]


def test_several_objectives(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", "network=tiny,cnn", objectives={"val/accuracy": "max", "parameters": "min"})
    for accuracy, size in ((0.9, 100), (0.8, 200)):
        job = trials.next()
        assert job is not None
        assert "callbacks.sweep" not in str(job.overrides)  # Optuna prunes for one objective only
        (job.folder / "metrics.json").write_text(json.dumps({"val/accuracy": accuracy, "parameters": size}))
        trials.record(job, None, 1.0)
    found = study(tmp_path / "sweep")
    assert found.user_attrs["objectives"] == [["val/accuracy", "max"], ["parameters", "min"]]
    assert [trial.values for trial in found.trials] == [[0.9, 100], [0.8, 200]]
    assert [trial.number for trial in found.best_trials] == [0]


def test_a_metric_that_no_run_has(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", "seed=1,2", objectives={"val/acuracy": "max"})
    job = trials.next()
    assert job is not None
    (job.folder / "metrics.json").write_text(json.dumps({"val/loss": 1.0, "val/accuracy": 1.0}))
    with pytest.raises(HwrError, match=r"val/acuracy is no metric of trial 0 \(seed=1\); did you mean val/accuracy\?"):
        trials.record(job, None, 1.0)


def test_runs_without_their_study_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    trials = begun(tmp_path / "sweep", "seed=1,2")
    job = trials.next()
    assert job is not None
    (job.folder / "config.yaml").write_text("a: 1\n")
    (tmp_path / "sweep" / "study.db").unlink()
    with pytest.raises(HwrError, match=r"study\.db is gone"):
        begun(tmp_path / "sweep", "seed=1,2")


def test_the_name_of_a_sweep_is_that_of_its_command() -> None:
    typed = ["experiment=digits_cnn", "optimizer.lr=1e-3,3e-3", "seed=1,2"]
    assert sweep_name([*typed, "sweep.trials=5"]) == sweep_name(typed) == "digits_cnn_optimizer.lr-1e-3_3e-3_seed-1_2"
    assert sweep_name([*typed, "sweep=tpe"]) != sweep_name(typed)
    assert sweep_name([]) == "sweep"
