"""``hwr.curve``: error against the number of labels, fine-tuned and from scratch."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_model import SETTINGS, texts, write_split
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from hwr import HwrError, curve, experiment
from hwr.config import compose
from hwr.curve_figures import draw
from hwr.data.batches import CharacterSet
from hwr.data.lines.batches import LineSet
from hwr.data.lines.items import Rejected
from hwr.learning_curve import Curve, Point, needed, summary, told
from hwr.parts import datamodule, replayed
from hwr.power_law import Need, PowerLaw

Run = Callable[..., subprocess.CompletedProcess[str]]
FAST = [
    "network=lenet_16_32", "augment=none", "data.batch_size=32", "trainer.precision=32-true",
    "trainer.accelerator=cpu", "callbacks.gallery=null", "callbacks.ema=null", "trainer.max_epochs=2",
]  # fmt: skip
SMALL = [*FAST, "labels=[20,40,120]", "seeds={20: 2, 40: 1, 120: 1}", "target=0.1"]


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("hwr.curve: error: ")
    return line


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every training that is begun."""
    begun: list[Any] = []
    fit = experiment.fit

    def counted(cfg: Any, *args: Any) -> Any:
        begun.append(cfg)
        return fit(cfg, *args)

    monkeypatch.setattr(experiment, "fit", counted)
    return begun


def only(folder: Path) -> Path:
    (found,) = (path for path in (folder / "outputs" / "curve").iterdir() if path.is_dir())
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_as_typed(hwr: Run, tmp_path: Path, trained: Path) -> None:
    done = hwr("curve", *FAST, "labels=[20,all]", "seeds={20: 2, all: 1}", f"init_from={trained}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = only(tmp_path)
    found = rows(out / "curve.csv")
    assert [(row["arm"], row["labels"], row["seed"]) for row in found] == [
        ("start", "0", ""),
        *((arm, "20", seed) for seed in "12" for arm in ("finetune", "scratch")),
        *((arm, "1294", "1") for arm in ("finetune", "scratch")),
    ]
    for row in found:
        assert 0 <= float(row["low"]) <= float(row["error"]) <= float(row["high"]) <= 1
    start = float(found[0]["error"])
    assert start < 0.2  # it was trained on these digits
    assert float(found[1]["error"]) < 0.2 < float(found[2]["error"])
    for row in found[1:]:
        folder = out / row["run"]
        record, metrics = (json.loads((folder / name).read_text()) for name in ("splits.json", "metrics.json"))
        assert record["sizes"]["train"] == int(row["labels"])
        assert float(row["error"]) == pytest.approx(1 - metrics["val/accuracy"], abs=1e-5)
        assert "test/accuracy" not in metrics
        assert "epoch 2/2" in (folder / "train.log").read_text()
    lines = done.stdout.splitlines()
    assert lines[0] == f"start model: error {start:.2%}"
    assert re.fullmatch(r"1 of 6: finetune, 20 labels, seed 1: error [\d.]+% after \d+ s; about \d+ .* left", lines[1])
    assert re.fullmatch(r"6 of 6: scratch, 1,294 labels, seed 1: error [\d.]+% after \d+ s", lines[6])
    assert f"{start:.2%} (start model)" in done.stdout
    assert "no power law from fewer than 3 numbers of labels" in done.stdout
    assert json.loads((out / "curve.json").read_text())["finetune"]["law"] is None
    with Image.open(out / "curve.png") as picture:
        assert picture.width == 1000


def test_what_was_broken_off_goes_on(call: Run, tmp_path: Path, trained: Path, fits: list[Any]) -> None:
    settings = [*SMALL, f"init_from={trained}"]
    finish, stop = curve.finish, pytest.MonkeyPatch()
    done: list[str] = []

    def broken(one: curve.Run, split: str) -> Point:
        if len(done) == 3:
            raise HwrError("the power is out")
        done.append(one.title)
        return finish(one, split)

    stop.setattr(curve, "finish", broken)
    assert "the power is out" in error(call("curve", *settings))
    stop.undo()
    assert len(fits) == 3
    out = only(tmp_path)
    first = rows(out / "curve.csv")
    assert len(first) == 4  # what there is is written down

    fits.clear()
    again = call("curve", *settings)
    assert again.returncode == 0, again.stderr
    assert len(fits) == 5
    assert "3 of 8 runs were finished before" in again.stdout
    whole = rows(out / "curve.csv")
    assert whole[:4] == first
    assert len(whole) == 9
    facts = json.loads((out / "curve.json").read_text())
    assert set(facts["finetune"]["labels"]) == {"20", "40", "120"}
    assert facts["finetune"]["law"]["b"] >= 0
    assert facts["scratch"]["needed"]["low"] is not None

    fits.clear()
    more = [s for s in settings if not s.startswith(("labels", "seeds"))]
    done_ = call("curve", *more, "labels=[40,20]", "seeds=2", "target=0.2", "split=test")
    assert done_.returncode == 0, done_.stderr
    assert len(fits) == 2  # a second seed of 40; the others are there
    assert len(rows(out / "curve_test.csv")) == 9
    assert rows(out / "curve.csv") == whole  # of validation

    fits.clear()
    assert call("curve", *settings).returncode == 0
    assert fits == []


def test_a_killed_run_goes_on_from_its_last_epoch(
    call: Run, tmp_path: Path, trained: Path, fits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*FAST, "labels=[20]", "seeds=1", f"init_from={trained}", "trainer.max_epochs=4"]
    assert call("curve", *settings).returncode == 0
    out = only(tmp_path)
    (folder,) = out.glob("finetune_20_*")
    last, bundle = (folder / name for name in ("checkpoints/last.ckpt", "bundle/weights.safetensors"))
    unbroken = bundle.read_bytes()

    class Killed(Exception):
        pass

    from hwr.callbacks import History

    after = History.on_train_epoch_end

    def die(self: Any, trainer: Any, module: Any) -> None:
        after(self, trainer, module)
        if trainer.current_epoch == 2:
            raise Killed

    for file in folder.rglob("*"):
        if file.is_file():
            file.unlink()
    monkeypatch.setattr(History, "on_train_epoch_end", die)
    with pytest.raises(Killed):
        call("curve", *settings)
    assert last.is_file()
    monkeypatch.setattr(History, "on_train_epoch_end", after)
    fits.clear()
    done = call("curve", *settings)
    assert done.returncode == 0, done.stderr
    assert [cfg.ckpt_path for cfg in fits] == ["last"]
    assert bundle.read_bytes() == unbroken


def test_other_settings_or_another_start_are_other_runs(tmp_path: Path, trained: Path) -> None:
    def folders(
        *more: str, start: str = str(trained), own: Sequence[str] = ("labels",), replayed: Sequence[str] = ()
    ) -> list[str]:
        typed = [*SMALL, f"init_from='{start.replace(chr(39), chr(92) + chr(39))}'", *more]
        return [one.folder.name for one in planned(typed, own, replayed)]

    plain = folders()
    assert len(plain) == len(set(plain)) == 8
    assert plain == folders()
    assert not set(plain) & set(folders("optimizer.lr=0.003"))
    assert not set(plain) & set(folders(own=["other labels"]))
    changed = folders(replayed=["old labels"])
    assert [name for name in changed if name in plain] == [n for n in plain if n.startswith("scratch")]
    other = folders(start="mnist")
    assert [name for name in other if name.startswith("scratch")] == [n for n in plain if n.startswith("scratch")]
    assert not {n for n in other if n.startswith("finetune")} & set(plain)


def planned(typed: list[str], own: Sequence[str] = (), replayed: Sequence[str] = ()) -> list[curve.Run]:
    cfg = composed(typed)
    arms = curve.overrides_of_arms(cfg, typed).items()
    contents = {"finetune": [*own, *replayed], "scratch": own}
    return curve.plan(cfg, {arm: compose("train", [*each, "test=false"]) for arm, each in arms}, 1294, contents)


def composed(typed: list[str]) -> Any:
    return compose("curve", typed, run_dir="somewhere")


def test_all_labels_are_trained_on_once() -> None:
    typed = ["init_from=mnist", "labels=[20,1294,all]", "seeds=1", "experiment=mnist_fast", "data=digits"]
    runs = planned(typed)
    assert [one.labels for one in runs] == [20, 20, 1294, 1294]
    assert {one.folder for one in runs[2:]} == {one.folder for one in planned([*typed, "labels=[all]"])}


def test_what_is_of_fine_tuning_alone_is_left_out_from_scratch() -> None:
    ours = ["system.l2_sp=0.01", "system.layer_decay=0.7", "+callbacks.freeze.train={0.5:[all]}", "replay=0.2"]
    typed = ["init_from=mnist", "experiment=finetune_head", "data.path=somewhere", "scratch=['network=tiny']", *ours]
    arms = curve.overrides_of_arms(composed(typed), typed)
    assert set(ours) <= set(arms["finetune"])
    assert not set(ours) & set(arms["scratch"])
    assert compose("train", arms["scratch"]).callbacks.get("freeze") is None


def test_what_is_replayed_is_told_by_its_names_labels_and_pixels() -> None:
    def told(*more: str) -> list[str]:
        cfg = compose("train", ["experiment=finetune_head", "init_from=mnist", "data=digits", *more])
        return replayed(cfg, datamodule(compose("train")))

    assert told() == told("data@old_data=digits") == []
    with_labels = told("replay=0.5", "data@old_data=digits")
    assert len(with_labels) == 1
    assert with_labels != told("replay=0.5", "data@old_data=digits", "old_data.labels=50")


def test_a_data_set_is_told_by_its_names_labels_and_pixels() -> None:
    part = CharacterSet(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2]), ["a", "b", "c"])
    line = [np.zeros(64, np.uint8), 8, [4, 4], ["un", "deux"], ["a", "b"], [None, None]]
    others = [
        replace(part, labels=torch.tensor([0, 2, 1])),
        replace(part, images=part.images + 1),
        part.subset(np.array([0, 1])),
        *(LineSet(*line[:i], other, *line[i + 1 :]) for i, other in ((0, np.ones(64, np.uint8)), (3, ["un", "de"]))),
        LineSet(*line),
        LineSet(*line, lost=[Rejected("c", "gone", "trois")]),
    ]
    assert len({each.fingerprint() for each in [part, *others]}) == 8
    assert part.fingerprint() == replace(part).fingerprint()


def test_seed_and_labels_reach_the_run(trained: Path) -> None:
    typed = ["init_from=mnist", "labels=[20,all]", "seeds=2", "experiment=mnist_fast", "data=digits"]
    runs = planned(typed)
    assert [(r.arm, r.labels, r.seed) for r in runs] == [
        (arm, n, seed) for n in (20, 1294) for seed in (1, 2) for arm in ("finetune", "scratch")
    ]
    for one in runs:
        assert one.cfg.data.labels == (20 if one.labels == 20 else None)
        assert one.cfg.seed == one.cfg.data.labels_seed == one.seed
        assert one.cfg.test is False
        assert one.cfg.init_from == ("mnist" if one.arm == "finetune" else None)
        assert one.cfg.name == "mnist_fast"
        assert "Digits" in one.cfg.data._target_


@pytest.mark.parametrize("scratch", ["scratch=mnist_tiny", "scratch=['experiment=mnist_tiny']", "scratch=[mnist_tiny]"])
def test_scratch_may_be_another_experiment(scratch: str) -> None:
    typed = ["init_from=mnist", "experiment=finetune_head", "data=digits", "optimizer.lr=0.5", scratch]
    typed += ["data@old_data=mnist", "replay=0.5", "init_mismatch=fresh"]
    arms = curve.overrides_of_arms(composed(typed), typed)
    assert arms["finetune"] == [o for o in typed if o != scratch]
    assert sorted(arms["scratch"]) == sorted(
        ["experiment=mnist_tiny", "data=digits", "optimizer.lr=0.5", "init_from=null", "~finetune"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "init_from must be given"),
        (["init_from=mnist", "labels=[0,50]"], "0 cannot be trained on; the start model, 0 labels, is judged"),
        (["init_from=mnist", "labels=[1]"], "labels: 1 cannot be trained on"),
        (["init_from=mnist", "labels=50"], "labels=50: a list"),
        (["init_from=mnist", "labels=[some]"], "a list of whole numbers"),
        (["init_from=mnist", "labels=[5000]"], "labels=5000: there are 1294 training labels"),
        (["init_from=mnist", "seeds={50: 3}"], "seeds: none for 200 labels"),
        (["init_from=mnist", "seeds=0"], "seeds=0: whole numbers from 1"),
        (["init_from=mnist", "target=5"], "target=5: an error between 0 and 1"),
        (["init_from=mnist", "split=dev"], "split=dev: there are "),
        (["init_from=mnist", "seed=3"], "seed: a curve sets it for each of its runs; say seeds= instead"),
        (["init_from=mnist", "data.labels=3"], "say labels= instead"),
        (["init_from=mnist", "ckpt_path=last"], "the same command goes on where it stopped"),
        (["init_from=mnist", "trainer.devices=2"], "trainer.devices"),
        (["init_from=mnist", "scratch=nope"], "experiment=nope: there is no such experiment"),
        (["init_from=mnist", "lables=[50]"], "did you mean labels"),
        (["init_from=nope"], "nope"),
        (["init_from=copiste", "experiment=digit_strings_crnn"], "no labels to choose from"),
        (["init_from=mnist", "experiment=finetune_full", "data=digits"], "name what starts from nothing"),
    ],
)
def test_mistakes(call: Run, arguments: list[str], words: str) -> None:
    assert words in error(call("curve", *arguments))


def test_a_mistake_in_a_run_says_in_which(call: Run) -> None:
    done = call("curve", *FAST, "network=mobilenet_v3", "labels=[20]", "seeds=1", "init_from=mnist")
    assert "finetune, 20 labels, seed 1: " in error(done)


def test_classes_that_the_start_lacks_count_as_errors(call: Run, tmp_path: Path) -> None:
    settings = [*FAST, "data.only=[0,1,2]", "trainer.max_epochs=1", "hydra.run.dir=half"]
    assert call("train", *settings).returncode == 0
    done = call("curve", *FAST, "data.only=[2,3,4]", "labels=[20]", "seeds=1", "init_from=half")
    assert done.returncode == 0, done.stderr
    start, tuned, _ = rows(only(tmp_path) / "curve.csv")
    assert 0.6 < float(start["error"]) < 0.8
    assert start["run"] == "half"
    assert float(tuned["error"]) < float(start["error"])


def test_lines(call: Run, tmp_path: Path, line_run: Path) -> None:
    for seed, (split, n) in enumerate({"train": 60, "val": 12, "test": 10}.items()):
        write_split(tmp_path / "new", split, texts(n, 10 + seed), 100 * seed)
    settings = [s for s in SETTINGS if not s.startswith("trainer.max_epochs")]
    common = [*settings, f"data.path={tmp_path / 'new'}", "labels=[10,40]", "seeds=1", "trainer.max_epochs=1"]
    done = call("curve", *common, f"init_from={line_run}")
    assert done.returncode == 0, done.stderr
    found = rows(only(tmp_path) / "curve.csv")
    assert [(row["arm"], row["labels"]) for row in found] == [
        ("start", "0"), ("finetune", "10"), ("scratch", "10"), ("finetune", "40"), ("scratch", "40"),
    ]  # fmt: skip
    assert float(found[0]["error"]) < 0.5 < float(found[2]["error"])
    assert float(found[1]["low"]) <= float(found[1]["error"]) <= float(found[1]["high"])
    assert "CER, fine-tuned" in done.stdout


def measured(
    laws: dict[str, PowerLaw],
    sizes: tuple[int, ...],
    seeds: int,
    target: float | None = None,
    start: float | None = 0.4,
) -> Curve:
    rng = np.random.default_rng(0)
    points = [] if start is None else [Point("start", 0, None, start, None, None, None, "m", "CER")]
    for n in sizes:
        for seed in range(1, seeds + 1):
            for arm, law in laws.items():
                wrong = float(law(n) * np.exp(0.05 * rng.normal()))
                points.append(Point(arm, n, seed, wrong, None, None, 1.0 * n, "r", "CER", 1e-4))
    return Curve(tuple(points), "val", target)


def test_what_is_told() -> None:
    laws = {"finetune": PowerLaw(0.9, 0.3, 0.02), "scratch": PowerLaw(12, 0.55, 0.12)}
    both = measured(laws, (50, 200, 1000, 3000), 3, 0.1)
    fine, scratch = told(both, "finetune"), told(both, "scratch")
    assert re.fullmatch(r"fine-tuned: CER = [\d.]+ n\^-0\.\d+( \+ [\d.]+%)?, typically \d+% off", fine[0])
    assert re.match(
        r"  10% takes about [\d,]+ labels \(95 % interval over seeds: [\d,]+ (to [\d,]+|upwards)\)", fine[1]
    )
    assert scratch[1].startswith("  10% is out of reach: the fit levels off at 1")
    flat = measured({"finetune": PowerLaw(0.9, 0.3, 0.02)}, (50, 200, 1000), 2, 0.25)
    points = [replace(p, error=0.2 if p.labels == 50 else 0.3) for p in flat.points]
    odd = replace(flat, points=tuple(points))
    assert told(odd, "finetune")[1] == "  25% is reached with 50 labels, though by the fit it is out of reach"
    assert "50 fine-tuned" in draw(odd).texts[0].get_text()
    assert both.start is not None
    assert "the start model is there" not in str(fine)
    assert "  the start model is there without any" in told(measured(laws, (50, 200, 1000), 1, 0.5), "finetune")
    facts = json.loads(json.dumps(summary(both), allow_nan=False))
    assert facts["scratch"]["needed"]["labels"] == "never"
    assert told(measured(laws, (50, 200), 1), "finetune") == [
        "fine-tuned: no power law from fewer than 3 numbers of labels"
    ]


@pytest.mark.parametrize(
    ("need", "text"),
    [
        (Need(340, 290, 410), "takes about 340 labels (95 % interval over seeds: 290 to 410)"),
        (Need(340, 290, inf), "takes about 340 labels (95 % interval over seeds: 290 upwards)"),
        (Need(340), "takes about 340 labels (one seed each: no interval)"),
        (Need(3400, 2900, 4100), "2,900 to 4,100), beyond the 1,000 that were measured"),
        (Need(34, 29, 41), "29 to 41), below the 50 that were measured"),
        (Need(inf, inf, inf), "is out of reach: the fit levels off at 20.00%"),
        (Need(inf, 900, inf), "levels off at 20.00% (95 % interval over seeds: 900 upwards)"),
    ],
)
def test_needs_in_words(need: Need, text: str) -> None:
    assert needed(need, PowerLaw(1, 0.5, 0.2), 0.1, 50, 1000).endswith(text)


def test_time_left() -> None:
    """Follows the labels, and the epochs, which may be fewer where there are more labels."""
    points = measured({"finetune": PowerLaw(1, 1, 0), "scratch": PowerLaw(1, 1, 0)}, (10, 20), 2).points
    same = OmegaConf.create({"by_labels": None, "trainer": {"max_epochs": 3}})
    fewer = OmegaConf.create({"by_labels": {1: {"trainer.max_epochs": 30}, 50: {"trainer.max_epochs": 6}}})
    fewer.trainer = {"max_epochs": None}

    def left(*runs: tuple[str, int], cfg: DictConfig = same) -> float:
        done = [(p.arm, p.labels) for p in points if p.labels]
        return curve.time_left(points, [curve.Run(arm, n, 1, cfg) for arm, n in (*done, *runs)], len(done))

    assert left() == 0
    assert left(("finetune", 10)) == 10
    assert left(("finetune", 100)) == 100
    assert left(("finetune", 100), cfg=fewer) == 20
    assert left(("finetune", 18), ("scratch", 5)) == 20 + 10


TITLES = [
    ((50, 200, 1000), 0.1, 0.4, r"Labels for 10% CER: about [\d,]+\*? fine-tuned, .* from scratch.*"),
    ((50, 200), 0.1, 0.4, r"CER with 50 training labels: [\d.]+% fine-tuned, [\d.]+% from scratch"),
    ((10, 11, 12, 50, 1000), None, None, r"CER with 10 training labels: .*"),
]


@pytest.mark.parametrize(("sizes", "target", "start", "title"), TITLES)
def test_figures_have_no_names_that_collide(
    sizes: tuple[int, ...], target: float | None, start: float | None, title: str
) -> None:
    laws = {"finetune": PowerLaw(0.9, 0.3, 0.02), "scratch": PowerLaw(12, 0.55, 0.03)}
    figure = draw(measured(laws, sizes, 3, target, start))
    _, axes = figure.axes
    assert re.fullmatch(title, figure.texts[0].get_text())
    assert axes.get_xlabel().endswith("beyond what was measured") == ("*" in figure.texts[0].get_text())
    renderer = FigureCanvasAgg(figure).get_renderer()
    legend = axes.get_legend()
    assert legend is not None
    boxes = [legend.get_window_extent(renderer), axes._left_title.get_window_extent(renderer)]
    boxes += [figure.texts[0].get_window_extent(renderer)]
    boxes += [label.get_window_extent(renderer) for label in axes.get_xticklabels() if label.get_text()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= 1000
        assert not any(box.overlaps(other) for other in boxes[:i])
    assert {text.get_text() for text in legend.get_texts()} >= {"fine-tuned", "from scratch"}


def test_a_figure_of_nothing_and_of_no_errors() -> None:
    assert draw(Curve((), "val")).texts[0].get_text().startswith("No curve yet")
    points = tuple(Point("finetune", n, 1, 0.0, None, None, 1.0, "r", "error", 0.001) for n in (5, 10, 20))
    figure = draw(Curve(points, "val", 0.01))
    figure.canvas.draw()
