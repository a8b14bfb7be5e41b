"""Fine-tuning as a whole: what is gained and lost, replay, a teacher, settings by the number of labels."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from line_model import SETTINGS, texts, write_split
from omegaconf import OmegaConf
from PIL import Image

from hwr import HwrError, bundle, experiment
from hwr.adaptation import score
from hwr.config import compose
from hwr.data.base import CharacterDataModule
from hwr.experiment import Result, fit
from hwr.parts import by_labels, data_of, datamodule
from hwr.train import report

HIGH, LOW = "[5,6,7,8,9]", "[0,1,2,3,4]"


def adapt(run: Path, *overrides: str) -> Result:
    """The shipped digits model adapted to the embedded digits 5 to 9."""
    settings = ["experiment=finetune_full", "init_from=mnist", "data=digits", f"data.only={HIGH}", "optimizer.lr=1e-3"]
    return fit(
        compose("train", [*settings, "trainer.max_epochs=4", "trainer.accelerator=cpu", *overrides], run_dir=run)
    )


def test_what_is_not_replayed_is_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before, after, and on the old data, in the figures, the closing table, the CSV and the bundle."""
    old = ["data@old_data=digits", f"old_data.only={LOW}"]
    found = adapt(tmp_path / "forgets", *old, "data.labels=200")
    report(found)
    shown = capsys.readouterr().out
    for row in ("error, new data, before", "error, new data, after", "error, old data, after"):
        assert row in shown
    assert found.metrics["old/before"] < 0.1
    assert found.metrics["old/after"] == 1.0  # the classes 0 to 4 are gone
    assert found.metrics["new/after"] == pytest.approx(1 - found.metrics["test/accuracy"], abs=1e-6)
    assert found.metrics["new/after"] <= found.metrics["new/before"]
    saved = json.loads((tmp_path / "forgets" / "metrics.json").read_text())
    assert saved["old/after_low"] == pytest.approx(found.metrics["old/after_low"])
    rows = list(csv.DictReader((tmp_path / "forgets" / "adaptation.csv").open()))
    assert [(row["data"], row["when"]) for row in rows] == [
        (f"{data} data", when) for data in ("new", "old") for when in ("before", "after")
    ]
    assert (tmp_path / "forgets" / "adaptation.png").stat().st_size > 5000

    kept = adapt(tmp_path / "replays", *old, "data.labels=200", "replay=0.4")
    assert sorted(bundle.load(tmp_path / "replays").classes) == list("0123456789")
    assert kept.metrics["old/after"] < 0.05
    assert kept.metrics["new/after"] < 0.05


def test_the_run_of_the_start_says_what_the_old_data_is(tmp_path: Path) -> None:
    fit(
        compose(
            "train",
            ["experiment=digits_cnn", "network=lenet_16_32", "trainer.max_epochs=1", "trainer.accelerator=cpu"],
            run_dir=tmp_path / "a",
        )
    )
    found = adapt(tmp_path / "b", f"init_from={tmp_path / 'a'}", "trainer.max_epochs=1", "test=false")
    assert found.adaptation is not None
    assert found.adaptation.split == "val"
    assert {"old/before", "old/after"} <= found.metrics.keys()
    assert isinstance(found.datamodule, CharacterDataModule)
    again, _, _ = score(bundle.load(tmp_path / "b"), found.datamodule, "val")
    assert again == pytest.approx(found.metrics["new/after"])


def test_a_start_reads_with_its_own_preprocessing(tmp_path: Path) -> None:
    """Where the new network sees images of another size; the comparison is with what the start really reads."""
    fresh = ["network=cnn", "init_mismatch=fresh", "data.only=null", "data.labels=40", "trainer.max_epochs=1"]
    more = ["data.preprocess.size=40", "data@old_data=digits", "test=false"]
    found = adapt(tmp_path, *fresh, *more)
    start = bundle.load("mnist")
    expected, _, _ = score(start, data_of(start, "mnist", compose("train", ["experiment=digits_cnn"]).data), "val")
    assert found.metrics["new/before"] == found.metrics["old/before"] == pytest.approx(expected)
    assert bundle.load(tmp_path).preprocess.size == 40


def test_lines_that_do_not_fit_count_as_wrong_for_the_start_as_well(line_run: Path, tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        write_split(tmp_path, split, texts(4, 60 + seed), 9500 + seed)
    table = tmp_path / "val.tsv"
    table.write_text(table.read_text().replace("\tval-w1", "1" * 99 + "\tval-w1"))
    start = bundle.load(str(line_run))
    of = [compose("train", [*SETTINGS, f"data.path={tmp_path}", f"data.preprocess.height={h}"]) for h in (32, 48)]
    expected = experiment.score(start, data_of(start, str(line_run), of[0].data), "val")["test/cer"]
    assert score(start, datamodule(of[1]), "val")[0] == pytest.approx(expected, abs=1e-6)


def test_old_data_that_is_gone_is_only_missed_where_it_is_asked_for(
    tmp_path: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "moved"))
    config = OmegaConf.load(moved / "config.yaml")
    config.data = compose("train", ["experiment=folder_cnn", "data.path=/gone"]).data
    OmegaConf.save(config, moved / "config.yaml")
    few = [f"init_from={moved}", "data.labels=20", "trainer.max_epochs=1", "test=false", "data.only=null"]
    found = adapt(tmp_path / "a", *few)
    assert "new/after" in found.metrics
    assert "old/after" not in found.metrics
    assert f"the data of init_from={moved} cannot be read (data.path=/gone: no such file or folder)" in caplog.text
    with pytest.raises(HwrError, match=r"replay=0.5: the data of init_from=.*data@old_data=NAME says where it is"):
        adapt(tmp_path / "b", *few, "replay=0.5")
    assert adapt(tmp_path / "c", *few, "replay=0.5", "data@old_data=digits").metrics["old/after"] < 1


def test_old_data_that_can_only_judge_is_enough_without_replay(tmp_path: Path) -> None:
    data = datamodule(compose("train")).sets["test"]
    for image, label, name in zip(data.images.numpy(), data.labels.tolist(), data.names, strict=True):
        path = tmp_path / "old" / "test" / str(label) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image).save(path)
    old = ["data@old_data=folder", f"old_data.path={tmp_path / 'old'}", "data.labels=20", "trainer.max_epochs=1"]
    found = adapt(tmp_path / "a", *old, "data.only=null")
    assert found.metrics["old/before"] < 0.1
    assert found.metrics["old/after"] < 0.3
    with pytest.raises(HwrError, match="old_data: there is no training split, only test"):
        adapt(tmp_path / "b", *old, "replay=0.5")


def test_a_teacher_teaches_without_labels(tmp_path: Path) -> None:
    """With all the weight on the teacher the labels say nothing, and the digits are learnt all the same."""
    teacher = ["distill.teacher=mnist", "distill.weight=1.0", "trainer.max_epochs=5", "callbacks.ema=null"]
    found = fit(compose("train", ["experiment=digits_cnn", "trainer.accelerator=cpu", *teacher], run_dir=tmp_path))
    assert found.metrics["test/accuracy"] > 0.9
    assert not any("distillation" in name for name in found.system.state_dict())


def test_lines_with_replay_and_balance(line_run: Path, tmp_path: Path) -> None:
    """A model of dates learns words of other digits, and does not forget its dates."""
    for seed, (split, n) in enumerate({"train": 40, "val": 12, "test": 12}.items()):
        write_split(tmp_path / "new", split, [f"{text}+" for text in texts(n, 50 + seed)], 9000 + 100 * seed)
    settings = [s for s in SETTINGS if not s.startswith(("network", "trainer.max_epochs"))]
    overrides = ["~network", f"init_from={line_run}", f"data.path={tmp_path / 'new'}", "trainer.max_epochs=10"]
    more = ["replay=0.5", "data.balance=true"]
    found = fit(compose("train", [*settings, *overrides, *more], run_dir=tmp_path / "run"))
    m = found.metrics
    assert m["new/after"] < 0.5 * m["new/before"]
    assert m["old/after"] < 2 * m["old/before"] + 0.02
    assert m["new/after"] == pytest.approx(m["test/cer"], abs=1e-6)


def test_settings_by_the_number_of_labels() -> None:
    rows = "by_labels={1:{trainer.max_epochs:9,optimizer.lr:0.1},50:{trainer.max_epochs:5,optimizer.lr:0.2}}"
    cfg = compose("train", ["experiment=digits_cnn", rows, "trainer.max_epochs=null", "optimizer.lr=0.3"])
    assert by_labels(cfg, 49).trainer.max_epochs == 9
    assert by_labels(cfg, 50).trainer.max_epochs == 5
    assert by_labels(cfg, 900).optimizer.lr == 0.3  # what is set stays
    assert cfg.trainer.max_epochs is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay=0.5"], "init_from=mnist does not say on what; add data@old_data=NAME"),
        (["replay=1.5", "data@old_data=digits"], "replay=1.5: a share of the epoch is needed"),
        (["data@old_data=digit_strings"], "old_data: characters and lines cannot be mixed"),
        (["init_from=null", "network=tiny", "replay=0.5"], "add init_from=MODEL"),
        (["distill.teacher=copiste"], "distill.teacher reads lines, and this model reads characters"),
        (["distill.teacher=gone"], "gone: no such run, bundle, checkpoint or shipped model"),
        (["distill.teacher=mnist", "distill.weight=0"], "distill.weight must be above 0"),
    ],
)
def test_mistakes(arguments: list[str], words: str, call: Callable[..., object]) -> None:
    settings = ["experiment=finetune_full", "init_from=mnist", "data=digits", "trainer.accelerator=cpu"]
    done = call("train", *settings, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
