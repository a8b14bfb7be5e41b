"""Training on only some of the labels: nested, balanced, and told."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from line_fixtures import write_table

from hwr import HwrError, bundle
from hwr.config import compose
from hwr.data.labels import choose
from hwr.data.turns import with_turned
from hwr.experiment import fit
from hwr.parts import datamodule

CLASSES = np.repeat(np.arange(5), [40, 30, 20, 7, 3])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_are_nested(seed: int) -> None:
    draws = [set(choose(n, CLASSES, seed).tolist()) for n in range(2, 101)]
    assert [len(draw) for draw in draws] == list(range(2, 101))
    assert all(small < large for small, large in pairwise(draws))


@pytest.mark.parametrize("labels", [2, 5, 9, 15, 16, 35, 60, 99])
def test_classes_are_as_equal_as_can_be(labels: int) -> None:
    counts = np.bincount(CLASSES[choose(labels, CLASSES, 3)], minlength=5)
    left = counts < np.bincount(CLASSES)  # classes of which there are more
    assert counts[left].max() - counts[left].min() <= 1
    assert counts[~left].max(initial=0) <= counts[left].max()


def test_seeds_draw_others_and_one_seed_the_same() -> None:
    draws = [choose(10, CLASSES, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(draws[0])


def test_no_class_and_no_place_is_favoured() -> None:
    """Over many draws every item comes as often as any other of its class, and so does every class."""
    classes = np.repeat(np.arange(4), 10)
    often = np.bincount(np.concatenate([choose(2, classes, seed) for seed in range(2000)]), minlength=40)
    assert abs(often.reshape(4, 10).sum(1) - 1000).max() < 5 * np.sqrt(1000 * 0.5)
    assert abs(often - 100).max() < 5 * np.sqrt(100)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (0, "hwr.eval"),
        (1, "at least 2"),
        (101, "there are 100 training labels"),
        (-5, "whole number"),
        (0.5, "whole number"),
        (True, "whole number"),
    ],
)
def test_numbers_that_make_no_sense(labels: object, words: str) -> None:
    with pytest.raises(HwrError, match=words) as caught:
        choose(labels, CLASSES, 0)
    assert str(caught.value).startswith(f"data.labels={labels}: ")


@pytest.mark.parametrize("key", ["seed", "data.labels_seed", "data.split.seed"])
@pytest.mark.parametrize("value", ["-1", "1.5", "4294967296"])
def test_seeds_that_make_no_sense(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(HwrError, match=f"^{key}={value}: a whole number from 0 to 4294967295 is needed"):
        fit(compose("train", ["data.labels=50", f"{key}={value}"], tmp_path))


def test_characters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = datamodule(compose("train"))
    some = datamodule(compose("train", ["data.labels=30", "data.labels_seed=4"]))
    assert some.class_counts().tolist() == [3] * 10
    assert set(some.sets["train"].names) < set(whole.sets["train"].names)
    for name in ("val", "test"):
        assert some.sets[name].names == whole.sets[name].names
    for data in (some, whole):
        data.record(tmp_path / "splits.json")
        record = json.loads((tmp_path / "splits.json").read_text())
        assert record["sizes"]["train"] == len(data.sets["train"])
        assert record.get("train") == (list(some.sets["train"].names) if data is some else None)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        few = datamodule(compose("train", ["data.labels=8"]))
    lacking = [str(i) for i, count in enumerate(few.class_counts().tolist()) if not count]
    assert len(lacking) == 2
    assert f"no training image of {', '.join(lacking)}" in caplog.text


def test_some_classes(caplog: pytest.LogCaptureFixture) -> None:
    whole, some = (datamodule(compose("train", more)) for more in ([], ["data.only=[7,2,'5']", "data.labels=9"]))
    assert some.classes == ("2", "5", "7")
    names = {name: {n: int(c) for n, c in zip(p.names, p.labels, strict=True)} for name, p in whole.sets.items()}
    for part in some.sets.values():
        every = {n: label for split in names.values() for n, label in split.items()}
        assert all(str(every[n]) == some.classes[int(c)] for n, c in zip(part.names, part.labels, strict=True))
    assert some.class_counts().tolist() == [3, 3, 3]
    assert "no training image" not in caplog.text
    test = sum(names["test"][n] in (2, 5, 7) for n in whole.sets["test"].names)
    assert len(some.sets["test"]) == test


@pytest.mark.parametrize(
    ("only", "words"), [("[0,x]", "no class 'x'; there are 0 1"), ("[3]", "at least two"), ("[]", "at least two")]
)
def test_classes_that_are_not_there(only: str, words: str) -> None:
    with pytest.raises(HwrError, match=words):
        datamodule(compose("train", [f"data.only={only}"]))


def test_lines_and_their_charset(tmp_path: Path) -> None:
    for name, letters in (("train", "abcdefghij"), ("val", "ab"), ("test", "cd")):
        write_table(tmp_path / f"{name}.tsv", [(f"{name}{i}.png", letter) for i, letter in enumerate(letters)])
    settings = ["experiment=tsv_crnn", f"data.path={tmp_path}", "data.cache=null"]
    drawn = [datamodule(compose("train", [*settings, f"data.labels={n}"])) for n in (2, 4, 10)]
    assert [len(data.charset or "") for data in drawn] == [2, 4, 10]  # what an archivist with so many labels has
    assert [len(data.sets["train"]) for data in drawn] == [2, 4, 10]
    assert set(drawn[0].classes) < set(drawn[1].classes)
    assert [len(data.sets["val"]) for data in drawn] == [2, 2, 2]
    drawn[1].record(tmp_path / "splits.json")
    assert json.loads((tmp_path / "splits.json").read_text())["train"] == drawn[1].sets["train"].names
    drawn[2].restrict([1, 5])
    assert drawn[2].sets["train"].texts == ["b", "f"]
    assert len(drawn[2].classes) == 10  # what was set up stays


def test_endless_lines_have_none() -> None:
    with pytest.raises(HwrError, match=r"data\.train_lines"):
        datamodule(compose("train", ["experiment=digit_strings_crnn", "+data.labels=5"]))


def test_fit_lets_its_caller_restrict_the_data(tmp_path: Path) -> None:
    settings = ["network=fast", "augment=none", "trainer.max_epochs=1", "callbacks.gallery=null", "~logger"]
    cfg = compose("train", [*settings, "test=false", "trainer.precision=32-true"], run_dir=tmp_path / "run")
    result = fit(cfg, prepare=lambda data: data.restrict(np.arange(0, 100, 2)))
    record = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert record["sizes"]["train"] == len(result.datamodule.sets["train"]) == len(record["train"]) == 50


def test_turned_characters_are_classes_of_their_own() -> None:
    plain, data = (datamodule(compose("train", ["augment=null", *more])) for more in ([], ["data.turned=true"]))
    assert data.classes[:10] == plain.classes
    assert len(data.classes) == 80
    assert data.class_counts().tolist() == plain.class_counts().tolist() * 8
    data.trainer = SimpleNamespace(training=True)
    ids = torch.arange(400)
    batch = data.sets["train"][ids]
    before, after = batch.images.numpy(), data.on_after_batch_transfer(batch, 0)
    seen = set()
    for i, (image, label) in enumerate(zip(after.images[:, 0], after.labels.tolist(), strict=True)):
        name, *way = data.classes[label].split()
        assert name == plain.classes[batch.labels[i]]
        want = before[i][:, ::-1] if "mirrored" in way else before[i]
        want = np.rot90(want, int(way[-1]) // 90 if "turned" in way else 0)
        torch.testing.assert_close(image, data.preprocess.standardize(torch.from_numpy(want.copy()).float() / 255))
        seen.add(" ".join(way))
    assert len(seen) == 8
    data.trainer.training = False
    assert torch.equal(data.on_after_batch_transfer(batch, 0).labels, batch.labels)


def test_a_model_of_turned_characters_is_a_start(tmp_path: Path) -> None:
    quick = ["network=tiny", "trainer.max_epochs=1", "trainer.accelerator=cpu", "test=false"]
    old = fit(compose("train", [*quick, "data.turned=true", "data.only=[0,1,2,3,4,5]"], tmp_path / "old"))
    more = ["experiment=finetune_full", f"init_from={old.run_dir}", "data=digits", "data.only=[5,6,7,8,9]"]
    new = fit(compose("train", [*more, "trainer.max_epochs=1", *quick[2:]], tmp_path / "new"))
    assert bundle.load(new.run_dir).classes == tuple("56789")
    turned = [*more, "trainer.max_epochs=1", "data.turned=true", "replay=0.5", *quick[2:]]
    for run, start in (("both", old.run_dir), ("one", new.run_dir)):  # of turned classes, and of others
        both = fit(compose("train", [*turned, f"init_from={start}"], tmp_path / run))
        assert set(bundle.load(both.run_dir).classes) == set(with_turned("0123456789" if run == "both" else "56789"))
