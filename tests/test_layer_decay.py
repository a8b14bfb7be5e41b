"""Fine-tuning: learning rates by part of the network, and the pull toward the start."""

from __future__ import annotations

import pytest
import torch
from small_training import BATCHES, EPOCHS, PARTS, copied, system, train

from hwr.config import CONF_DIR
from hwr.systems.base import layer_groups

SCHEDULES = {
    "constant": [],
    "step": [],
    "exponential": [],
    "linear": ["scheduler.warmup=0.25"],
    "cosine": ["scheduler.final=0.1"],
    "onecycle": [],
    "plateau": ["scheduler.patience=0", "optimizer.lr=1e-6", "scheduler.min_lr=3e-7"],
}


@pytest.mark.parametrize("schedule", sorted(path.stem for path in (CONF_DIR / "scheduler").glob("*.yaml")))
def test_learning_rates_of_parts_keep_their_ratio(schedule: str, digits: tuple) -> None:
    overrides = ["optimizer=sgd", f"scheduler={schedule}", *SCHEDULES[schedule]]
    plain = train(system(*overrides), digits)
    layered = train(system(*overrides, layer_decay=0.5), digits)
    names = [group["name"] for group in layered.optimizer.param_groups]
    assert names == [name for part in reversed(PARTS) for name in (part, f"{part}.no_decay")]
    scales = [0.5 ** (i // 2) for i in range(8)]
    assert len(layered.rates) == EPOCHS * BATCHES
    for rates, base in zip(layered.rates, plain.rates, strict=True):
        assert rates[0] == pytest.approx(max(rates))  # the head's, which history.csv shows
        assert [rate / rates[0] for rate in rates] == pytest.approx(scales)
        if schedule != "plateau":  # which goes by what was learnt
            assert rates[0] == pytest.approx(base[0])
    if schedule == "plateau":
        assert [rates[0] for rates in layered.rates[::BATCHES]] == pytest.approx([1e-6, 1e-6, 5e-7, 3e-7])


def test_parts_are_decayed_as_ever(digits: tuple) -> None:
    learner = system()
    made = torch.optim.SGD(layer_groups(learner.network, 0.5), 0.1, weight_decay=0.3)
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert decay == {id(p): 0.3 if p.ndim > 1 else 0.0 for p in learner.network.parameters()}


def test_what_a_loss_learns_is_learnt_with_layer_decay(digits: tuple) -> None:
    learner = system("loss=sum", layer_decay=0.5)
    notes = train(learner, digits, max_epochs=1)
    held = [id(p) for group in notes.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in learner.parameters())


def test_without_layer_decay_there_are_two_groups(digits: tuple) -> None:
    """As in checkpoints of before."""
    notes = train(system(), digits, max_epochs=1)
    assert len(notes.optimizer.param_groups) == 2
    assert not {"name", "lr_scale"} & notes.optimizer.param_groups[0].keys()


# --------------------------------------------------------------------------------------------------------------- L2-SP


def test_l2_sp_is_what_the_paper_says() -> None:
    learner = system(l2_sp=0.3)
    names = [name for name, _ in learner.network.named_parameters() if not name.startswith("head.")]
    learner.keep_start([*names, "backbone.stage1.end.1.running_mean"])  # buffers are given too, and do not count
    start = copied(dict(learner.network.named_parameters()))
    with torch.no_grad():
        for p in learner.network.parameters():
            p += torch.randn_like(p)
    learner.network.freeze(["backbone.stage1"])
    learner.l2_sp_penalty().backward()
    total = 0.0
    for name, p in learner.network.named_parameters():
        if name.startswith(("head.", "backbone.stage1.")):
            assert p.grad is None
        else:
            torch.testing.assert_close(p.grad, 0.3 * (p - start[name]))
            total += 0.3 / 2 * float((p - start[name]).detach().square().sum())
    assert float(learner.l2_sp_penalty().detach()) == pytest.approx(total)


def test_l2_sp_is_added_to_the_loss(digits: tuple) -> None:
    """One step of plain descent: from where it started nothing pulls, from elsewhere by lr * l2_sp * distance."""
    quiet = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0"]
    moved = []
    for l2_sp in (0.0, 0.2):
        torch.manual_seed(0)
        learner = system(*quiet, "optimizer.lr=0.5", "scheduler=constant", l2_sp=l2_sp)
        learner.keep_start(["head.weight"])
        learner.network.head.weight.data += 1
        train(learner, digits, max_epochs=1, limit_train_batches=1)
        moved.append(learner.network.head.weight.detach().clone())
    torch.testing.assert_close(moved[0] - moved[1], torch.full_like(moved[0], 0.5 * 0.2))


def test_a_strong_pull_keeps_weights_near_the_start(digits: tuple) -> None:
    distance = {}
    for l2_sp in (0.0, 1.0, 10.0):
        torch.manual_seed(0)
        learner = system("optimizer=sgd", "optimizer.lr=0.05", "scheduler=constant", l2_sp=l2_sp)
        start = copied(dict(learner.network.named_parameters()))
        learner.keep_start(name for name in start if not name.startswith("head."))
        train(learner, digits)
        now = dict(learner.network.named_parameters())
        distance[l2_sp] = {
            k: float((now[k] - start[k]).detach().norm()) for k in ("backbone.stage2.layers.0.weight", "head.weight")
        }
    conv = [distance[l2_sp]["backbone.stage2.layers.0.weight"] for l2_sp in (0.0, 1.0, 10.0)]
    assert conv[2] < conv[0] / 4
    assert conv[1] < conv[0] / 1.5
    assert distance[10.0]["head.weight"] > distance[0.0]["head.weight"] / 3  # new weights are free
