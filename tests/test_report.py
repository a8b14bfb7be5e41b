"""What a sweep ends in: figures against independent calculations, and a page that a real browser shows."""

from __future__ import annotations

import csv
import itertools
import math
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hwr.sweeps import leaderboard
from hwr.sweeps.leaderboard import Estimate, command, fronts, settings
from hwr.sweeps.report import write
from hwr.sweeps.report_charts import curves, importance
from hwr.sweeps.report_parallel import Scale

T_2 = 4.302652729911275  # the 97.5 % quantile of Student's t with 2 degrees of freedom, from a printed table
COMMAND = ["experiment=digits_cnn", "sweep=tpe", "sweep.trials=5", "hydra.launcher.n=2", "optimizer.lr=1e-3,3e-3"]
FAILURE = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: <script>alert(1)</script> & co'
LOG, LINEAR = FloatDistribution(1e-5, 1e-1, log=True), FloatDistribution(0, 0.6)
Values = float | list[float] | None


def study_of(*directions: str, **about: object) -> optuna.Study:
    study = optuna.create_study(directions=list(directions or ["minimize"]))
    for key, value in {"experiment": "digits_cnn", "command": COMMAND, **about}.items():
        study.set_user_attr(key, value)
    return study


def add(study: optuna.Study, values: Values, state: TrialState = TrialState.COMPLETE, **facts: object) -> None:
    """Adds a trial; ``typed`` are its overrides, everything else but ``params`` and ``curve`` its user attributes."""
    params = facts.pop("params", {})
    distributions = {key: distribution for key, (_, distribution) in params.items()}
    curve = dict(enumerate(facts.pop("curve", []), start=1))
    study.add_trial(
        create_trial(
            state=state, values=[values] if isinstance(values, float) else values, intermediate_values=curve,
            params={key: value for key, (value, _) in params.items()}, distributions=distributions,
            user_attrs={"overrides" if key == "typed" else key: value for key, value in facts.items()},
        )
    )  # fmt: skip


def three_seeds() -> optuna.Study:
    """Two settings with three seeds each, one seed of the second pruned and one failed."""
    study = study_of(objectives=[["val/loss", "min"]])
    for lr, losses in {"1e-3": [0.5, 0.7, 0.6], "3e-3": [0.2, None, None]}.items():
        for seed, loss in enumerate(losses, start=1):
            facts = {"typed": [f"optimizer.lr={lr}", f"seed={seed}"], "seconds": 10.0 * seed}
            if loss is not None:
                add(study, loss, metrics={"val/loss": loss, "test/accuracy": 1 - loss / 10}, **facts)
            elif seed == 2:
                add(study, 2.5, TrialState.PRUNED, curve=[3.0, 2.5], **facts)
            else:
                add(study, None, TrialState.FAIL, error=FAILURE, **facts)
    return study


def test_an_interval_is_that_of_student() -> None:
    values = [0.5, 0.7, 0.6]
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(0.6)
    assert estimate.half == pytest.approx(T_2 * np.std(values, ddof=1) / math.sqrt(3), rel=1e-9)
    assert str(estimate) == "0.60 ± 0.25"


@pytest.mark.parametrize(
    ("values", "text"), [([], "nan"), ([0.5], "0.5"), ([2e5, 2e5], "200,000 ± 0"), ([math.inf], "inf")]
)
def test_an_estimate_that_has_no_interval(values: list[float], text: str) -> None:
    assert str(Estimate.of(values)) == text


def test_what_is_not_finite_is_not_hidden() -> None:
    assert math.isnan(Estimate.of([0.5, math.nan]).mean)
    assert Estimate.of([0.5, math.inf]).mean == math.inf


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(2000, 3))
    held = [abs(estimate.mean - 3.0) <= estimate.half for estimate in map(Estimate.of, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_trials_that_differ_in_their_seed_are_one_setting() -> None:
    first, second = settings(three_seeds())
    assert (first.rank, dict(first.values), len(first.finished)) == (1, {"optimizer.lr": "3e-3"}, 1)
    assert (first.count(TrialState.PRUNED), first.count(TrialState.FAIL)) == (1, 1)
    assert second.estimates["val/loss"].mean == pytest.approx(0.6)
    assert second.estimates["test/accuracy"].mean == pytest.approx(0.94)
    assert second.seconds == pytest.approx(20.0)


def test_a_run_that_is_repeated_is_not_two() -> None:
    study = study_of()
    for _ in range(3):
        add(study, 0.4, typed=["a=1", "seed=7"])
    (one,) = settings(study)
    assert (len(one.finished), len(one.trials)) == (1, 3)
    assert math.isnan(one.estimates["objective"].half)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_comes_first_and_what_did_not_finish_last(direction: str) -> None:
    study = study_of(direction)
    for name, value in {"a": 2.0, "b": None, "c": 3.0, "d": 1.0}.items():
        add(study, value, TrialState.COMPLETE if value else TrialState.FAIL, typed=[f"network={name}"])
    order = "".join(one.values["network"] for one in settings(study))
    assert order == ("dacb" if direction == "minimize" else "cadb")


@pytest.mark.parametrize("width", [2, 3])
def test_fronts_are_those_of_brute_force(width: int) -> None:
    draw = random.Random(width)
    costs = [[draw.choice([*range(6), math.inf]) for _ in range(width)] for _ in range(80)]

    def beaten(one: list[float], others: list[list[float]]) -> bool:
        return any(all(a <= b for a, b in zip(o, one, strict=True)) and o != one for o in others)

    left, expected = list(costs), {}
    for level in itertools.count():
        front = [one for one in left if not beaten(one, left)]
        expected |= {tuple(one): level for one in front}
        left = [one for one in left if one not in front]
        if not left:
            break
    assert fronts(costs) == [expected[tuple(one)] for one in costs]


def test_a_front_of_lowest_error_and_highest_speed() -> None:
    study = study_of("minimize", "maximize")
    for name, values in {"a": [0.1, 10.0], "b": [0.2, 20.0], "c": [0.2, 15.0], "d": [0.3, 5.0]}.items():
        add(study, values, typed=[f"network={name}"])
    ranked = settings(study)
    assert [one.values["network"] for one in ranked] == ["a", "b", "c", "d"]
    assert [one.front for one in ranked] == [True, True, False, False]


def test_the_command_of_the_winner_is_that_of_one_run() -> None:
    study = study_of(command=[*COMMAND, "data.path=a folder", "+data.x=1,2", "seed=1,2"])
    add(study, 0.5, typed=["optimizer.lr=3e-3", "+data.x=2", "seed=1"])
    assert command(study, settings(study)[0]) == (
        "python -m hwr.train experiment=digits_cnn 'data.path=a folder' optimizer.lr=3e-3 +data.x=2 seed=1"
    )


def test_the_table_says_what_the_runs_say(tmp_path: Path) -> None:
    write(three_seeds(), tmp_path)
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        best, other = csv.DictReader(file)
    assert [best[key] for key in ("rank", "optimizer.lr", "seeds", "pruned", "failed")] == ["1", "3e-3", "1", "1", "1"]
    assert (best["val/loss"], best["val/loss ± 95 %"]) == ("0.2", "")
    assert float(other["val/loss ± 95 %"]) == pytest.approx(T_2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert other["command"] == "python -m hwr.train experiment=digits_cnn optimizer.lr=1e-3 seed=1"


def test_the_page_needs_nothing_else_and_trusts_no_text(tmp_path: Path) -> None:
    study = three_seeds()
    add(study, 0.3, typed=["name=<b>\"x'</b>", "seed=1"], run_dir=str(tmp_path / "runs" / "3 <i>&#?%"))
    add(study, 0.3, typed=["name=y", "seed=1"], run_dir="/elsewhere/4")
    write(study, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for wanted in ("src=", "@import", "url(http", "<script>alert", "<b>\"x'", "<i>", "/elsewhere/4"):
        assert wanted not in page
    linked = re.findall(r'href="([^#"]*)"', page)
    assert set(linked) == {"data:,", "leaderboard.csv", "runs/3%20%3Ci%3E%26%23%3F%25/"}
    assert "ValueError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("tmp")] == []


def empty() -> optuna.Study:
    return optuna.create_study()


def single() -> optuna.Study:
    study = study_of()
    add(study, 0.5, typed=["seed=1"], curve=[0.9])
    return study


def only_failed() -> optuna.Study:
    study = study_of()
    add(study, None, TrialState.FAIL, typed=["a=1"], error=FAILURE + " \udcff")  # from a file name that is no Unicode
    add(study, None, TrialState.FAIL)
    return study


def only_pruned() -> optuna.Study:
    study = study_of()
    add(study, 0.5, TrialState.PRUNED, typed=["a=1"], curve=[0.5])
    return study


def still_running() -> optuna.Study:
    study = three_seeds()
    study.ask()
    study.enqueue_trial({})
    return study


def not_finite() -> optuna.Study:
    study = study_of("minimize", "maximize")
    for n, value in enumerate([math.inf, -math.inf, 0.5, 1e300, 0.0, -1.0]):
        metrics = {"val/loss": math.nan, "val/cer": math.inf}
        add(study, [value, -value], typed=[f"a={n}"], metrics=metrics, curve=[math.nan, math.inf, 0.1])
    return study


def without_attributes() -> optuna.Study:
    study = optuna.create_study()
    for n in range(12):
        add(
            study,
            n / 7,
            params={"lr": (10.0 ** -(1 + n / 4), LOG), "net": ("ab"[n % 2], CategoricalDistribution("ab"))},
        )
    return study


def odd_keys() -> optuna.Study:
    """Keys and values that are no numbers, not in every trial, long, in other alphabets, and like mathematics."""
    study = study_of(objectives=[["$x_1$ <m>", "min"]])
    for n in range(8):
        key = "only.in.some" if n % 2 else "+callbacks.$a$"
        add(
            study,
            n / 7,
            typed=[f"{key}={'$' * n}", f"data.path=/手書き/{'x' * 300}{n}", "flag=true", "b=", f"s={n // 3}"],
        )
    return study


def many() -> optuna.Study:
    draw, study = random.Random(1), study_of("minimize", "minimize", objectives=[["val/cer", "min"], ["size", "min"]])
    for _ in range(500):
        lr, dropout, batch = 10 ** draw.uniform(-5, -1), draw.uniform(0, 0.6), draw.randint(16, 256)
        params = {
            "optimizer.lr": (lr, LOG),
            "network.dropout": (dropout, LINEAR),
            "data.batch_size": (batch, IntDistribution(16, 256)),
        }
        typed = [f"{key}={value:.6g}" for key, (value, _) in params.items()]
        error = abs(math.log10(lr) + 3) + dropout
        add(
            study,
            [error, float(batch)],
            params=params,
            typed=typed,
            curve=[error + 1 / e for e in range(1, 31)],
            seconds=3.0,
        )
    return study


STUDIES = [empty, single, only_failed, only_pruned, still_running, not_finite, without_attributes, odd_keys, many]


@pytest.mark.parametrize("make", STUDIES)
@pytest.mark.filterwarnings("error")
def test_every_study_has_its_report(make, tmp_path: Path) -> None:
    study = make()
    ranked = write(study, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<tr data-rank=") == len(ranked)
    assert page.rstrip().endswith("</html>")
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(ranked)


def test_what_decides_is_found() -> None:
    draw, study = random.Random(3), study_of()
    for _ in range(40):
        lr, dropout = 10 ** draw.uniform(-5, -1), draw.uniform(0, 0.6)
        add(study, (math.log10(lr) + 3) ** 2 + 0.1 * dropout, params={"lr": (lr, LOG), "dropout": (dropout, LINEAR)})
    chart = importance(study, 0, leaderboard.objectives(study)[0])
    shares = [int(share) for share in re.findall(r">(\d+)%</text>", chart.svg)][-2:]
    assert "fANOVA" in chart.note
    assert min(shares) < 10
    assert max(shares) > 90


def test_too_few_trials_say_nothing_of_importance() -> None:
    study = without_attributes()
    few = optuna.create_study()
    few.add_trials(study.trials[:3])
    chart = importance(few, 0, leaderboard.objectives(few)[0])
    assert chart.svg == ""
    assert "3, and 4 are needed" in chart.note


def test_learning_curves_of_several_objectives_are_those_of_the_runs(tmp_path: Path) -> None:
    study = study_of("minimize", "minimize", objectives=[["parameters", "min"], ["val/cer", "min"]])
    for n in range(2):
        run = tmp_path / f"run{n}"
        run.mkdir()
        (run / "history.csv").write_text(f"epoch,step,val/cer,lr\n1,10,,0.1\n2,20,0.{n + 1},0.1\n3,30,0.05,0.1\n")
        add(study, [1.0, 0.05], typed=[f"a={n}"], run_dir=str(run))
    ranked = settings(study)
    chart = curves([(one, trial) for one in ranked for trial in one.trials], leaderboard.objectives(study))
    assert chart.title == "Learning curves: val/cer"
    assert chart.svg.count('class="mark"') == 2
    assert ">epoch<" in chart.svg


def test_scales_of_parallel_coordinates() -> None:
    decades = Scale.of(["1e-4", "1e-3", "1e-2"])
    assert list(decades.places.values()) == pytest.approx([0, 0.5, 1])
    assert list(Scale.of(["0", "1", "4"]).places.values()) == pytest.approx([0, 0.25, 1])
    assert list(Scale.of(["0.1", "0.4"], downward=True).places.values()) == [1, 0]
    assert list(Scale.of(["cnn", "tiny", "7"]).places.values()) == [0, 0.5, 1]
    assert list(Scale.of(["5"]).places.values()) == [0.5]


CLICKS = """<script>
const heads = [...document.querySelectorAll("thead th")];
const order = () => [...document.querySelectorAll("tbody tr")].map(row => row.dataset.rank).join("");
const told = [order()];
heads.find(head => head.innerText.startsWith("optimizer.lr")).querySelector("button").click();
told.push(order());
const mark = document.querySelector('.mark[data-rank="2"]');
mark.dispatchEvent(new PointerEvent("pointerover", {bubbles: true, clientX: 5, clientY: 5}));
told.push(document.getElementById("tip").textContent.replace(/\\n/g, "; "));
told.push(document.querySelector('tr[data-rank="2"]').className);
told.push(document.documentElement.scrollWidth <= innerWidth);
told.push([...document.images].length + document.querySelectorAll("figure svg").length);
document.title = told.join("|");
</script>"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(width: int, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed")
    write(three_seeds(), tmp_path)
    page = tmp_path / "report.html"
    page.write_text(page.read_text(encoding="utf-8") + CLICKS, encoding="utf-8")
    quiet = [
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}",
         f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    (told,) = re.findall("<title>(.*)</title>", done.stdout)
    assert told == "12|21|#2, trial 0; optimizer.lr=1e-3; val/loss 0.60 ± 0.25|on|true|3"
