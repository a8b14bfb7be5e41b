"""What is reported of a test: every figure against scikit-learn, SciPy or a formula."""

from __future__ import annotations

import csv
import io

import lightning
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as reference
from torch import nn

from hwr.bundle import Bundle
from hwr.config import compose
from hwr.data.batches import Batch
from hwr.experiment import fit
from hwr.networks import CharacterNetwork
from hwr.preprocess import CharacterPreprocess
from hwr.reports import per_class, wilson
from hwr.systems import CharacterSystem

C = 7
NAMES = ("a", ",", '"', "'", "two words", "x,y", "\u00e9")


class PassOn(CharacterNetwork):
    """Its images (B, 1, 1, C) are the logits."""

    def __init__(self, count: int = C) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Flatten()), nn.Linear(count, count, bias=False)
        nn.init.eye_(self.head.weight)


def run(
    stage: str, logits: np.ndarray, labels: np.ndarray, **settings: int
) -> tuple[dict[str, float], CharacterSystem]:
    """Validates or tests on made-up logits, in batches of unequal length."""
    bundle = Bundle({}, NAMES, CharacterPreprocess())
    system = CharacterSystem(PassOn(), nn.Identity(), bundle=bundle, optimizer=None, scheduler=None, **settings)
    z, y = torch.from_numpy(logits).float()[:, None, None], torch.from_numpy(labels)
    parts = torch.split(torch.arange(len(y)), 128)
    loader = torch.utils.data.DataLoader([Batch(z[i], y[i], i) for i in parts], batch_size=None)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    getattr(trainer, stage)(system, loader, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, system


def made_up(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not, and labels; class 5 is absent, class 6 only ever said."""
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 300, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    logits = rng.normal(size=(300, C)) * 2
    logits[np.arange(300), labels] += 4
    logits[:, 5] = logits.min() - 1
    if kind == "within 0 and 1":  # as of an untrained network: not to be taken for probabilities
        logits = (logits - logits.min()) / np.ptp(logits)
    if kind == "large":
        logits = logits * 40 - 300
    return logits, labels


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def calibration_error(p: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017: |accuracy - mean confidence| of each of 15 equal bins, weighed by its samples."""
    confidence, right = p.max(1), p.argmax(1) == labels
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


KINDS = ["plain", "within 0 and 1", "large"]


@pytest.mark.parametrize("kind", KINDS)
def test_test_metrics_are_those_of_scikit_learn(kind):
    logits, labels = made_up(kind)
    got, system = run("test", logits, labels)
    said, p = logits.argmax(1), probabilities(logits)
    want = {
        "test/accuracy": reference.accuracy_score(labels, said),
        "test/top3_accuracy": np.mean([label in np.argsort(z)[-3:] for z, label in zip(logits, labels, strict=True)]),
        "test/calibration_error": calibration_error(p, labels),
        "test/loss": -np.log(np.maximum(p[np.arange(300), labels], 1e-300)).mean(),
    }
    for average in ("macro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(reference, f"{name}_score")
            want[f"test/{name}_{average}"] = score(labels, said, average=average, zero_division=0)
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=2e-5), name
    assert 0.4 < got["test/accuracy"] < 0.9
    matrix = reference.confusion_matrix(labels, said, labels=range(C))
    np.testing.assert_array_equal(system.confusion.compute(), matrix)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_metrics(kind):
    logits, labels = made_up(kind)
    got, _ = run("validate", logits, labels)
    said, p = logits.argmax(1), probabilities(logits)
    want = {
        "val/accuracy": reference.accuracy_score(labels, said),
        "val/f1_macro": reference.f1_score(labels, said, average="macro", zero_division=0),
        "val/loss": -np.log(np.maximum(p[np.arange(300), labels], 1e-300)).mean(),
    }
    assert got == pytest.approx(want, rel=2e-5)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_thousands_of_classes_are_counted_in_the_memory_there_is(stage):
    """As many as in CASIA-HWDB1.1, where algorithms are to be deterministic, which is the default."""
    count, rng = 3755, np.random.default_rng(0)
    labels = rng.integers(0, count, 600)
    said = np.where(rng.random(600) < 0.5, labels, rng.integers(0, count, 600))
    bundle = Bundle({}, tuple(chr(0x4E00 + i) for i in range(count)), CharacterPreprocess())
    system = CharacterSystem(PassOn(count), nn.Identity(), bundle=bundle, optimizer=None, scheduler=None)
    images = nn.functional.one_hot(torch.from_numpy(said), count).float()[:, None, None]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        getattr(system, f"{stage}_step")(Batch(images, torch.from_numpy(labels), torch.arange(600)), 0)
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.use_deterministic_algorithms(False)
    found = (system.val_metrics if stage == "validation" else system.test_metrics).compute()
    name = stage.removesuffix("idation")
    assert float(found[f"{name}/accuracy"]) == pytest.approx((said == labels).mean())
    f1 = reference.f1_score(labels, said, average="macro")
    assert float(found[f"{name}/f1_macro"]) == pytest.approx(f1, abs=1e-5)


@pytest.mark.parametrize(("top_k", "k"), [(2, 2), (5, 5), (100, C)])
def test_top_k(top_k, k):
    logits, labels = made_up("plain")
    got, _ = run("test", logits, labels, top_k=top_k)
    want = np.mean([label in np.argsort(z)[-k:] for z, label in zip(logits, labels, strict=True)])
    assert got[f"test/top{k}_accuracy"] == pytest.approx(want)


def test_per_class_table_is_scikit_learns_report():
    logits, labels = made_up("plain")
    said = logits.argmax(1)
    matrix = torch.from_numpy(reference.confusion_matrix(labels, said, labels=range(C)))
    rows = list(csv.DictReader(io.StringIO(per_class(matrix, NAMES), newline=""), strict=True))
    assert [row["class"] for row in rows] == list(NAMES)
    report = reference.classification_report(
        labels, said, labels=range(C), target_names=NAMES, output_dict=True, zero_division=0
    )
    for row in rows:
        want = report[row["class"]]
        assert int(row["support"]) == want["support"]
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert float(row[ours]) == pytest.approx(want[theirs], abs=5.1e-5)


@pytest.mark.parametrize(
    ("right", "n", "published"),
    [
        (81, 263, (0.2553, 0.3662)),  # the four of Newcombe 1998, table I, method 3
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (9950, 10000, None),
        (1, 1, None),
        (100, 100, None),
    ],
)
def test_wilson(right, n, published):
    interval = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((interval.low, interval.high), abs=1e-7)
    if published:
        assert wilson(right / n, n) == pytest.approx(published, abs=5.1e-5)


@pytest.mark.parametrize("network", ["fast", "lenet_16_32"])
def test_a_model_memorises_one_batch(tmp_path, network):
    """`debug=overfit`, as a user says it."""
    settings = ["debug=overfit", f"network={network}", "trainer.max_epochs=40", "trainer.accelerator=cpu"]
    quick = ["trainer.precision=32-true", "callbacks.gallery=null", "callbacks.resources=null"]
    result = fit(compose(overrides=[*settings, *quick], run_dir=tmp_path))
    assert result.trainer.global_step == 40
    assert float(result.trainer.callback_metrics["train/accuracy"]) == 1.0
    assert float(result.trainer.callback_metrics["train/loss"]) < 0.1
