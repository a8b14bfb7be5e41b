"""What a batch of lines means: the loss, the error rates, and that nothing is dropped."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from line_fixtures import save, write_table
from torch.distributions import Categorical, kl_divergence

from hwr.callbacks import history
from hwr.config import compose
from hwr.data.lines.base import LineDataModule
from hwr.errors import HwrError
from hwr.experiment import Result, evaluate, fit
from hwr.systems.losses import CTC, divergence
from hwr.train import report

SMALL = [
    "experiment=tsv_crnn",
    "data.preprocess.height=32",
    "data.preprocess.deskew=false",
    "network.stages=[{channels: 8}, {channels: 16}, {channels: 24, pool: [4, 1]}]",
    "network.width=0",
    "network.hidden=24",
    "network.layers=1",
    "network.dropout=0",
    "augment=lines_none",
    "data.cache=null",
    "data.columns=800",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.gallery=null",
    "callbacks.ema=null",
]


def written(text: str, height: int = 40, seed: int = 0) -> np.ndarray:
    """Grey levels of a printed text, dark on light, with a little of its seed's noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, 16 + 24 * len(text)), 225, np.uint8)
    for i, character in enumerate(text):
        cv2.putText(image, character, (8 + 24 * i, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 30, 2, cv2.LINE_AA)
    return (image + rng.integers(0, 12, image.shape)).clip(0, 255).astype(np.uint8)


def table(folder: Path, split: str, texts: list[str], seed: int = 0) -> None:
    rows = [(f"{split}{i}.png", text, f"{split}-w{i % 3}") for i, text in enumerate(texts)]
    write_table(folder / f"{split}.tsv", rows, ("image", "text", "writer"))
    for i, text in enumerate(texts):
        save(folder / f"{split}{i}.png", written(text, seed=seed + i))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    draw = ["".join(rng.choice(list("0123456789"), rng.integers(2, 7))) for _ in range(150)]
    table(folder, "train", draw[:110])
    table(folder, "val", draw[110:130], 200)
    table(folder, "test", draw[130:], 400)
    return folder


def train(folder: Path, run: Path, *overrides: str) -> Result:
    return fit(compose("train", [*SMALL, f"data.path={folder}", *overrides], run_dir=run))


@pytest.fixture(scope="module")
def learnt(numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(
        numbers,
        tmp_path_factory.mktemp("learnt") / "run",
        "trainer.max_epochs=20",
        "optimizer.lr=0.01",
        "scheduler.warmup=0.1",
    )


def test_learns_to_read(learnt: Result) -> None:
    assert learnt.metrics["test/cer"] < 0.1
    rows = list(csv.DictReader((learnt.run_dir / "lines.csv").open()))
    assert len(rows) == learnt.metrics["test/lines"] == 20
    wrong = [row for row in rows if row["reference"] != row["hypothesis"]]
    assert all(float(row["cer"]) > 0 for row in wrong)
    written_rate = sum(float(row["cer"]) * len(row["reference"]) for row in rows) / sum(
        len(r["reference"]) for r in rows
    )
    assert learnt.metrics["test/cer"] == pytest.approx(written_rate, abs=1e-3)
    assert learnt.metrics["test/cer_low"] <= learnt.metrics["test/cer"] <= learnt.metrics["test/cer_high"]


def test_answers_do_not_depend_on_the_batch(learnt: Result) -> None:
    system, part = learnt.system.eval(), learnt.datamodule.sets["test"]
    together = part[list(range(20))]
    normalize = learnt.datamodule.preprocess.normalize
    with torch.no_grad():
        many, frames = system(normalize(together.images), together.widths)
        for i in range(20):
            alone = part[[i]]
            one, _ = system(normalize(alone.images), alone.widths)
            assert torch.allclose(many[i, : frames[i]], one[0, : frames[i]], atol=1e-4)


def test_evaluation_counts_what_cannot_be_read(learnt: Result, numbers: Path, tmp_path: Path) -> None:
    """A missing image and a text too long for its image are all errors; the other lines are as they were."""
    (tmp_path / "train.tsv").write_text((numbers / "train.tsv").read_text())
    for path in numbers.glob("*.png"):
        (tmp_path / path.name).symlink_to(path)
    rows = (numbers / "test.tsv").read_text()
    save(tmp_path / "narrow.png", np.full((40, 8), 225, np.uint8))
    more = "missing.png\t12345\ttest-w0\nnarrow.png\t1234567\ttest-w1\n"
    (tmp_path / "test.tsv").write_text(rows + more)
    result = evaluate(
        compose("eval", [f"run={learnt.run_dir}", "data=tsv", f"data.path={tmp_path}", f"output={tmp_path / 'o'}"])
    )
    characters = learnt.metrics["test/characters"]
    errors = round(learnt.metrics["test/cer"] * characters)
    assert result.metrics["test/lost"] == 2
    assert result.metrics["test/characters"] == characters + 12
    assert result.metrics["test/cer"] == pytest.approx((errors + 12) / (characters + 12))


def test_a_character_that_the_model_lacks_is_an_error(learnt: Result, numbers: Path, tmp_path: Path) -> None:
    table(tmp_path, "train", ["12"] * 9)
    save(tmp_path / "a.png", written("17"))
    (tmp_path / "test.tsv").write_text("image\ttext\twriter\na.png\t1x7\tsomeone\n")
    result = evaluate(
        compose("eval", [f"run={learnt.run_dir}", "data=tsv", f"data.path={tmp_path}", f"output={tmp_path / 'o'}"])
    )
    assert result.metrics["test/cer"] >= 1 / 3


def test_a_model_of_lines_is_not_judged_on_characters(learnt: Result) -> None:
    with pytest.raises(HwrError, match="lines"):
        evaluate(compose("eval", [f"run={learnt.run_dir}", "data=digits"]))


def test_infeasible_lines_are_named_before_training(numbers: Path, tmp_path: Path) -> None:
    table(tmp_path, "train", ["12", "34", "56", "78", "90"])
    table(tmp_path, "val", ["12"])
    table(tmp_path, "test", ["21"])
    save(tmp_path / "train1.png", np.full((40, 4), 225, np.uint8))
    result = train(tmp_path, tmp_path / "run", "trainer.max_epochs=1")
    record = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert record["sizes"]["train"] == 4
    (line,) = record["rejected"]["train"]
    assert line.startswith("train1.png: ")
    assert "2 characters" in line
    assert math.isfinite(result.metrics["test/cer"])


def test_one_writer_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None is written, as NaN say, and the closing table says so."""
    for split in ("train", "val", "test"):
        table(tmp_path, split, ["12"])
    report(train(tmp_path, tmp_path / "run", "trainer.max_epochs=1"))
    assert "no interval from one writer" in capsys.readouterr().out

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ctc_is_float32_whatever_the_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 12, 5).to(dtype).requires_grad_()
    frames, targets, lengths = torch.tensor([12, 9]), torch.tensor([1, 2, 2, 3, 4]), torch.tensor([3, 2])
    with torch.autocast("cpu", torch.bfloat16):
        loss = CTC()(logits, frames, None, targets, lengths)
    loss.backward()
    assert loss.dtype == torch.float32
    exact = torch.nn.functional.ctc_loss(
        logits.double().log_softmax(2).transpose(0, 1), targets, frames, lengths, reduction="sum"
    )
    assert loss.item() == pytest.approx(exact.item() / 5, rel=1e-5)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_ctc_gradient_with_a_shortcut() -> None:
    """Against finite differences, in double precision."""
    torch.manual_seed(0)
    frames, targets, lengths = torch.tensor([6, 4]), torch.tensor([1, 1, 2]), torch.tensor([2, 1])
    loss = CTC(shortcut=0.3)

    def both(logits: torch.Tensor, aside: torch.Tensor) -> torch.Tensor:
        return loss.ctc(logits.log_softmax(2), frames, targets, lengths) + 0.3 * loss.ctc(
            aside.log_softmax(2), frames, targets, lengths
        )

    inputs = [torch.randn(2, 6, 4, dtype=torch.double, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(both, inputs)
    found = loss(inputs[0], frames, inputs[1], targets, lengths).item()
    assert found == pytest.approx(both(*inputs).item(), rel=1e-5)


def test_consistency_of_two_views() -> None:
    """The divergence is that of the distributions, over true frames alone, and both views learn from it."""
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 5, dtype=torch.double, requires_grad=True)
    frames = torch.tensor([6, 4, 6, 4])
    found = divergence(logits.log_softmax(2), frames)
    expected = 0.0
    for a, b, n in ((0, 2, 6), (1, 3, 4)):
        for t in range(n):
            p, q = (Categorical(logits=logits[i, t].detach()) for i in (a, b))
            expected += float(kl_divergence(p, q) + kl_divergence(q, p))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    found.backward()
    assert logits.grad is not None
    teacher = logits.detach().softmax(2)[[2, 3, 0, 1]]  # the gradient of cross-entropy with a fixed teacher
    inside = torch.arange(6) < frames[:, None]
    exact = (logits.detach().softmax(2) - teacher) * inside[..., None]
    torch.testing.assert_close(logits.grad, exact)
    same = logits.detach()[:2].repeat(2, 1, 1).float()
    targets, lengths = torch.tensor([1, 2, 3, 1, 2, 3]), torch.tensor([2, 1, 2, 1])
    once = CTC()(same[:2], frames[:2], None, targets[:3], lengths[:2])
    torch.testing.assert_close(CTC()(same, frames, None, targets, lengths, views=2), once)


def test_two_views_train(numbers: Path, tmp_path: Path) -> None:
    """Batches hold each line twice, within the same budget of columns, and the model learns."""
    result = train(numbers, tmp_path, "augment.views=2", "augment.masks=4", "trainer.max_epochs=2")
    assert isinstance(result.datamodule, LineDataModule)
    batch = next(iter(result.datamodule.train_dataloader()))
    assert batch.images.shape[0] * batch.images.shape[2] <= 800 // 2
    losses = [row["train/loss"] for row in history.read(tmp_path / "history.csv")]
    assert losses[1] < losses[0]


def test_resumed_run_equals_an_unbroken_one(numbers: Path, tmp_path: Path) -> None:
    """With augmentation, dropout and averaging."""
    dull = ("augment=lines_none", "callbacks.ema=null", "network.dropout=0")
    settings = [o for o in SMALL if o not in dull] + [f"data.path={numbers}", "scheduler=constant", "test=false"]

    def go(run: Path, *overrides: str) -> Result:
        return fit(compose("train", [*settings, *overrides], run_dir=run))

    whole = go(tmp_path / "whole", "trainer.max_epochs=3")
    go(tmp_path / "parts", "trainer.max_epochs=2")
    parts = go(tmp_path / "parts", "trainer.max_epochs=3", f"ckpt_path={tmp_path}/parts/checkpoints/last.ckpt")
    for a, b in zip(whole.system.parameters(), parts.system.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.metrics["val/cer"] == parts.metrics["val/cer"]
