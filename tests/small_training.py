"""A small network in training on some real digits, and notes of how it goes."""

from __future__ import annotations

import hydra
import lightning
import torch
from lightning import Callback
from torch import Tensor

from hwr.bundle import Bundle
from hwr.callbacks import EMAWeightAveraging
from hwr.config import compose
from hwr.data.batches import Batch
from hwr.networks import build
from hwr.networks.parts import Network
from hwr.preprocess import CharacterPreprocess
from hwr.systems import CharacterSystem

NETWORK = {
    "_target_": "hwr.networks.CNN",
    "stages": [{"channels": 4, "dropout": 0.2}, {"channels": 6}],
    "pooling": "flatten",
    "hidden": [12],
    "norm": True,
    "dropout": 0.2,
}
PARTS = ["backbone.stage1", "backbone.stage2", "backbone.hidden1", "head"]
EPOCHS, BATCHES = 4, 5


def network(**settings: object) -> Network:
    return build({**NETWORK, **settings}, num_classes=10, image_size=28)


def system(*overrides: str, **settings: object) -> CharacterSystem:
    cfg = compose(overrides=list(overrides))
    made = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in ("loss", "optimizer", "scheduler")}
    bundle = Bundle(NETWORK, tuple("0123456789"), CharacterPreprocess())
    net = bundle.build()
    made["loss"] = made["loss"](num_classes=10, num_features=net.head.in_features, class_counts=torch.ones(10))
    return CharacterSystem(net, bundle=bundle, **made, **settings)


class Notes(Callback):
    """Keeps the network, its average and the optimiser's state as they are before and after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.averages: list[dict[str, Tensor]] = []
        self.moments: list[dict[str, Tensor]] = []
        self.rates: list[list[float]] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.required: list[bool] = []

    def on_fit_start(self, trainer, pl_module) -> None:
        self.required = [p.requires_grad for p in pl_module.parameters()]
        self._note(trainer, pl_module)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._note(trainer, pl_module)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.optimizer = optimizer
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def _note(self, trainer, pl_module) -> None:
        self.states.append(copied(pl_module.network.state_dict()))
        for callback in trainer.callbacks:
            if isinstance(callback, EMAWeightAveraging):
                self.averages.append(copied(callback._average_model.module.network.state_dict()))
        kept = trainer.optimizers[0].state
        moments = {name: kept[p] for name, p in pl_module.network.named_parameters() if p in kept}
        self.moments.append(
            {
                f"{name}.{key}": value.clone()
                for name, of in moments.items()
                for key, value in of.items()
                if value is not None
            }
        )


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def train(learner: CharacterSystem, digits: tuple, *callbacks: Callback, **settings: object) -> Notes:
    images, labels = torch.from_numpy(digits[0]).float()[:, None] / 255, torch.from_numpy(digits[1]).long()
    batches = [Batch(images[i : i + 8], labels[i : i + 8], torch.arange(i, i + 8)) for i in range(0, 80, 8)]
    notes = Notes()
    trainer = lightning.Trainer(
        **{"max_epochs": EPOCHS, **settings}, accelerator="cpu", callbacks=[*callbacks, notes], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(part, batch_size=None) for part in (batches[:BATCHES], batches[BATCHES:])]
    trainer.fit(learner, *loaders)
    return notes
