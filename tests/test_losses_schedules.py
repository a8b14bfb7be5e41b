"""Losses against formulas, learning rates of real trainings against closed forms, parameter groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import hydra
import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, Timer
from omegaconf import OmegaConf
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from hwr import parts
from hwr.bundle import Bundle
from hwr.config import compose
from hwr.data.batches import Batch
from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess
from hwr.systems import CharacterSystem
from hwr.systems.base import parameter_groups
from hwr.systems.losses import Centre, CrossEntropy, Focal, Sum, weights_of

C, D = 5, 3
COUNTS = torch.tensor([40, 10, 25, 5, 20])
DATA = {"num_classes": C, "num_features": D, "class_counts": COUNTS}
WEIGHTS = [0.5, 2.0, 1.0, 3.0, 0.1]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(16, C, generator=rng, dtype=torch.float64) * 3
    features = torch.randn(16, D, generator=rng, dtype=torch.float64)
    return logits.requires_grad_(), features.requires_grad_(), torch.randint(C, (16,), generator=rng)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(batch, smoothing, weights):
    logits, features, labels = batch
    loss = CrossEntropy(**DATA, label_smoothing=smoothing, class_weights=weights).double()(logits, features, labels)
    w = torch.ones(C).double() if weights is None else torch.tensor(weights).double()
    target = F.one_hot(labels, C) * (1 - smoothing) + smoothing / C
    by_hand = -(target * w * logits.log_softmax(1)).sum() / w[labels].sum()
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, w, label_smoothing=smoothing))


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat(np.arange(C), COUNTS)
    want = compute_class_weight("balanced", classes=np.arange(C), y=labels)
    np.testing.assert_allclose(weights_of("balanced", C, COUNTS), want, rtol=1e-6)
    assert weights_of("balanced", 2, torch.tensor([10, 0])).isfinite().all()  # a class without training samples


@pytest.mark.parametrize("weights", [[1, 2], "balance", [1] * 6])
def test_weights_that_do_not_fit_the_classes(weights):
    with pytest.raises(HwrError, match=r"loss\.class_weights must be null, balanced or 5 numbers"):
        CrossEntropy(**DATA, class_weights=weights)


@pytest.mark.parametrize("weights", [None, WEIGHTS, "balanced"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal(batch, gamma, weights):
    logits, features, labels = batch
    loss = Focal(**DATA, gamma=gamma, class_weights=weights).double()(logits, features, labels)
    p = (logits.exp() / logits.exp().sum(1, keepdim=True))[range(16), labels]
    w = torch.ones(C) if weights is None else weights_of(weights, C, COUNTS)
    w = w.double()[labels]
    torch.testing.assert_close(loss, (-w * (1 - p) ** gamma * p.log()).sum() / w.sum())
    if gamma == 0:
        plain = CrossEntropy(**DATA, class_weights=weights).double()(logits, features, labels)
        torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_very_sure_answers_has_finite_gradients(gamma):
    logits = torch.tensor([[90.0, 0, 0, 0, 0], [0, 90, 0, 0, 0]], requires_grad=True)
    Focal(**DATA, gamma=gamma)(logits, None, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(logits.grad[1], torch.tensor([-0.5, 0.5, 0, 0, 0]))  # surely wrong: as cross-entropy


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradients_of_focal(batch, gamma):
    logits, features, labels = batch
    loss = Focal(**DATA, gamma=gamma, class_weights=WEIGHTS).double()
    assert torch.autograd.gradcheck(lambda z: loss(z, features, labels), logits)


def test_centre_loss(batch):
    logits, features, labels = batch
    loss = Centre(**DATA).double()
    nn.init.normal_(loss.centres)
    total = sum(((features[i] - loss.centres[labels[i]]) ** 2).sum() for i in range(16))
    torch.testing.assert_close(loss(logits, features, labels), total / 32, atol=1e-6, rtol=1e-6)

    def of(features: Tensor, centres: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"centres": centres}, (logits, features, labels))

    centres = loss.centres.detach().requires_grad_()
    # it computes in float32; central differences of a square are exact for any step
    assert torch.autograd.gradcheck(of, (features, centres), eps=0.1, atol=1e-4)


def test_centre_loss_draws_centres_to_the_means_of_their_classes(batch):
    logits, features, labels = batch
    loss = Centre(**DATA)
    optimizer = torch.optim.SGD(loss.parameters(), 1.0)
    for _ in range(500):
        optimizer.zero_grad()
        loss(logits, features.detach(), labels).backward()
        optimizer.step()
    for label in labels.unique():
        torch.testing.assert_close(loss.centres[label].double(), features[labels == label].mean(0), atol=1e-4, rtol=0)


def test_sum_weighs_its_terms(batch):
    terms = {"a": {"weight": 0.7, "loss": CrossEntropy}, "b": {"weight": 0.2, "loss": partial(Focal, gamma=1.0)}}
    want = 0.7 * CrossEntropy(**DATA)(*batch) + 0.2 * Focal(**DATA, gamma=1.0)(*batch)
    torch.testing.assert_close(Sum(terms, **DATA)(*batch), want)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "sum"])
def test_shipped_losses_are_made_from_the_configuration(batch, name):
    loss = hydra.utils.instantiate(compose(overrides=[f"loss={name}"]).loss, _convert_="all")(**DATA)
    logits, features, labels = batch
    loss(logits.float(), features.float(), labels).backward()
    assert logits.grad.abs().sum() > 0
    assert (features.grad is not None) == (name == "sum")
    assert len(list(loss.parameters())) == (1 if name == "sum" else 0)  # the centres are learnt


# ---------------------------------------------------------------------------------------------------------- schedules

EPOCHS, BATCHES = 4, 5
STEPS = EPOCHS * BATCHES


def system(
    schedule: str = "constant", network: str = "tiny", loss: str = "cross_entropy", optimizer: str = "sgd", *more: str
):
    overrides = [f"scheduler={schedule}", f"network={network}", f"loss={loss}", f"optimizer={optimizer}", *more]
    cfg = compose(overrides=overrides)
    made = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in ("loss", "optimizer", "scheduler")}
    network_entry = OmegaConf.to_container(cfg.network)
    bundle = Bundle(network_entry, tuple("0123456789"), CharacterPreprocess())
    net = bundle.build()
    made["loss"] = made["loss"](num_classes=10, num_features=net.head.in_features, class_counts=torch.ones(10))
    return CharacterSystem(net, bundle=bundle, **made)


class Rates(Callback):
    """Notes the learning rate and momentum with which each step is made."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.momenta: list[float] = []
        self.spent: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.momenta.append(optimizer.param_groups[0]["momentum"])
        for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):
            self.spent.append(timer.time_elapsed() / (timer.time_elapsed() + timer.time_remaining()))


def train(learner: CharacterSystem, digits: tuple[np.ndarray, np.ndarray], **settings: object) -> Rates:
    images, labels = torch.from_numpy(digits[0]).float()[:, None] / 255, torch.from_numpy(digits[1]).long()
    batches = [Batch(images[i : i + 8], labels[i : i + 8], torch.arange(i, i + 8)) for i in range(0, 80, 8)]
    noted = Rates()
    trainer = lightning.Trainer(
        **{"max_epochs": EPOCHS, **settings}, accelerator="cpu", callbacks=[noted], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(part, batch_size=None) for part in (batches[:BATCHES], batches[BATCHES:])]
    trainer.fit(learner, *loaders)
    return noted


def warmed(rise: int, fall: Callable[[float], float]) -> Callable[[int], float]:
    return lambda i: (i + 1) / (rise + 1) if i < rise else fall((i - rise) / (STEPS - rise))


CLOSED_FORMS = [
    ("constant", [], lambda i: 1.0),
    ("step", [], lambda i: 1.0 if i < 10 else 0.1 if i < 15 else 0.01),
    ("step", ["scheduler.milestones=[0.25]", "scheduler.gamma=0.5"], lambda i: 1.0 if i < 5 else 0.5),
    ("exponential", [], lambda i: 0.9 ** (i // BATCHES)),
    ("linear", [], warmed(1, lambda x: 1 - x)),
    ("linear", ["scheduler.warmup=0.25", "scheduler.final=0.2"], warmed(5, lambda x: 1 - 0.8 * x)),
    ("linear", ["scheduler.warmup=0"], lambda i: 1 - i / STEPS),
    ("cosine", [], warmed(1, lambda x: (1 + math.cos(math.pi * x)) / 2)),
    ("cosine", ["scheduler.warmup=0.5", "scheduler.final=0"], warmed(10, lambda x: math.cos(math.pi * x / 2) ** 2)),
    ("cosine", ["scheduler.warmup=0", "scheduler.final=0.4"], lambda i: 0.7 + 0.3 * math.cos(math.pi * i / STEPS)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "form"), CLOSED_FORMS)
def test_learning_rates_of_a_training(digits, name, settings, form):
    noted = train(system(name, "tiny", "cross_entropy", "sgd", *settings), digits)
    np.testing.assert_allclose(noted.rates, [0.1 * form(i) for i in range(STEPS)], rtol=1e-9)


@pytest.mark.parametrize("warmup", [0.3, 0.0, 0.5])
def test_onecycle_is_that_of_torch_over_the_whole_training(digits, warmup):
    noted = train(system("onecycle", "tiny", "cross_entropy", "sgd", f"scheduler.warmup={warmup}"), digits)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], 0.1, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, STEPS + 1, pct_start=warmup)
    rates, momenta = [], []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        reference.step()
    np.testing.assert_allclose(noted.rates, rates, rtol=1e-9)
    np.testing.assert_allclose(noted.momenta, momenta, rtol=1e-9)
    assert max(rates) > 0.09
    if warmup:
        assert rates[0] == pytest.approx(0.1 / 25)
        assert abs(np.argmax(rates) - warmup * STEPS) <= 1
    assert np.argmin(momenta) == np.argmax(rates)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25 / 1e4)


@pytest.mark.parametrize("epochs", [-1, 100_000])
def test_the_learning_rate_comes_down_by_the_time_a_training_may_take(digits, epochs):
    learner = system("linear", "tiny", "cross_entropy", "sgd", "scheduler.warmup=0")
    noted = train(learner, digits, max_epochs=epochs, max_time={"seconds": 3})
    assert 5 < len(noted.rates) < 100_000
    share = [1 - rate / 0.1 for rate in noted.rates]  # of the way down, before each step
    for before, here, now in zip(noted.spent[:-1], share[1:], noted.spent[1:], strict=True):
        assert before - 1e-6 <= here <= now + 1e-6
    assert share[0] == 0
    assert share[-1] > 0.8
    one_cycle = train(
        system("onecycle", "tiny", "cross_entropy", "sgd"), digits, max_epochs=epochs, max_time={"seconds": 3}
    )
    assert 0.05 < max(one_cycle.rates) <= 0.1
    assert one_cycle.rates[-1] < 0.02


@pytest.mark.parametrize("name", ["onecycle", "cosine", "exponential", "constant"])
def test_a_time_that_does_not_run_out_changes_nothing(digits, name):
    runs = [
        train(system(name, "tiny", "cross_entropy", "sgd"), digits, max_time=limit) for limit in (None, {"days": 9})
    ]
    assert runs[0].rates == runs[1].rates
    assert len(runs[1].spent) == STEPS


@pytest.mark.parametrize("name", ["onecycle", "linear", "cosine"])
def test_schedules_of_very_short_trainings(name):
    make = hydra.utils.instantiate(compose(overrides=[f"scheduler={name}"]).scheduler)
    for steps, warmup in product((1, 2, 3, 4, 9, 19), (0.0, 0.05, 0.1, 0.2, 0.25, 0.5)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], 0.1, momentum=0.9)
        schedule = make(optimizer, steps, 1, warmup=warmup)["scheduler"]
        for _ in range(steps):
            assert 0 < optimizer.param_groups[0]["lr"] <= 0.1 + 1e-9
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize(
    ("monitor", "values", "want"),
    [
        ("val/loss", [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95], [1, 1, 1, 1, 0.5, 0.5, 0.5]),
        ("val/loss", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1] * 7),
        ("val/accuracy", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [1] * 7),
        ("val/accuracy", [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ("val/f1_macro", [0.7] * 7, [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    ],
)
def test_plateau_reacts_to_what_it_watches(monitor, values, want):
    cfg = compose(overrides=["scheduler=plateau", f"scheduler.monitor={monitor}", "scheduler.patience=2"])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], 1.0)
    config = hydra.utils.instantiate(cfg.scheduler)(optimizer, 100, 10)
    assert config["monitor"] == monitor
    rates = []
    for value in values:
        config["scheduler"].step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == want


def test_plateau_in_a_training_that_stands_still(digits):
    """With a learning rate of nearly nothing the validation loss does not move: halved after each further epoch."""
    settings = ["scheduler.patience=0", "scheduler.min_lr=0", "optimizer.lr=1e-6"]
    noted = train(system("plateau", "lenet_16_32", "cross_entropy", "sgd", *settings), digits)
    np.testing.assert_allclose(noted.rates, np.repeat([1e-6, 1e-6, 5e-7, 2.5e-7], BATCHES))


def test_accumulated_batches_count_as_one_step(digits):
    noted = train(
        system("linear", "tiny", "cross_entropy", "sgd", "scheduler.warmup=0"), digits, accumulate_grad_batches=5
    )
    np.testing.assert_allclose(noted.rates, [0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("network", ["cnn", "lenet_16_32", "mobilenet_v3"])
def test_every_parameter_is_in_one_group_and_norms_and_biases_are_not_decayed(network, optimizer):
    learner = system("constant", network, "sum", optimizer, "optimizer.weight_decay=0.3")
    next(iter(learner.network.backbone.parameters())).requires_grad_(False)
    made = learner.make_optimizer(parameter_groups(learner))
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in made.param_groups) == len(decay)
    assert set(decay) == {id(p) for p in learner.parameters() if p.requires_grad}
    kernels = 0
    for module in learner.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                exempt = name == "bias" or isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
                assert decay[id(parameter)] == (0 if exempt else 0.3)
                kernels += not exempt
    assert kernels >= 3


def test_l1_penalises_kernels_and_matrices(digits):
    learner = system()
    learner.l1 = 0.01
    weights = [m.weight for m in learner.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    want = 0.01 * sum(w.abs().sum() for w in weights)
    torch.testing.assert_close(learner.l1_penalty(), want)


def test_training_without_an_end_is_refused(digits):
    learner = system()
    with pytest.raises(HwrError, match=r"trainer\.max_epochs, trainer\.max_steps or trainer\.max_time"):
        train(learner, digits, max_epochs=-1)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(("precision", "fused"), [("auto", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_an_optimiser_is_one_kernel_unless_that_forbids_clipping(optimizer, precision, fused):
    cfg = compose("train", ["experiment=mnist_cnn", f"optimizer={optimizer}", f"trainer.precision={precision}"])
    made = parts.optimizer_for(cfg)([torch.zeros(3, requires_grad=True)])
    assert made.defaults["fused"] is fused
