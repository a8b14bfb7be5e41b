"""Fine-tuning: what is frozen stays as it is, to the last bit, and a resumed run freezes the same."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from line_model import SETTINGS
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small_training import EPOCHS, PARTS, copied, network, system, train
from test_train import rows, same, start, wait_for_epoch, weights
from torch import Tensor, nn

from hwr import HwrError
from hwr.callbacks import EMAWeightAveraging, FreezeSchedule, GradualUnfreezing
from hwr.config import CONF_DIR, compose
from hwr.experiment import Result, fit
from hwr.networks import build
from hwr.networks.parts import Network

Run = Callable[..., subprocess.CompletedProcess[str]]
STAGES = {0: ["head"], 1: ["backbone.hidden1", "head"], 2: "all", 3: ["backbone.stage1"]}


def of(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(f"{part}.")}


# --------------------------------------------------------------------------------------------------------------- parts


def every_network() -> list[tuple[str, Network]]:
    found = []
    for path in sorted((CONF_DIR / "network").glob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))
        try:
            found.append((path.stem, build(config, num_classes=7, image_size=28)))
        except HwrError:
            found.append((path.stem, build(config, num_classes=7, height=64)))
    return found


def test_every_parameter_and_every_layer_is_in_one_part() -> None:
    networks = every_network()
    assert len(networks) >= 12
    for name, net in networks:
        parts = net.parts()
        ours = [id(p) for modules in parts.values() for p in nn.ModuleList(modules).parameters()]
        assert sorted(ours) == sorted(id(p) for p in net.parameters()), name
        held = {id(m) for modules in parts.values() for m in nn.ModuleList(modules).modules()}
        active = [
            m for m in net.modules() if isinstance(m, nn.Dropout | nn.Dropout2d | nn.modules.batchnorm._BatchNorm)
        ]
        assert all(id(m) in held for m in active), name
        assert list(parts)[-1] == "head"
        assert sum(part.startswith("backbone.stage") for part in parts) >= 2
        assert all(net.get_submodule(part) is modules[0] for part, modules in parts.items())


def test_parts_go_from_input_to_output() -> None:
    parts = {name: list(net.parts()) for name, net in every_network()}
    assert parts["cnn"] == ["backbone.stage1", "backbone.stage2", "backbone.stage3", "head"]
    assert parts["lenet_16_32"] == ["backbone.stage1", "backbone.stage2", "backbone.hidden1", "head"]
    assert parts["resnet18"] == ["backbone.stem", *(f"backbone.stage{i}" for i in range(1, 5)), "head"]
    assert parts["crnn"] == [*(f"backbone.stage{i}" for i in range(1, 6)), "neck", "rnn", "head"]
    assert parts["crnn_resnet"] == [*(f"backbone.stage{i}" for i in range(1, 9)), "rnn", "head"]  # has no neck
    assert parts["transformer"] == [*(f"backbone.stage{i}" for i in range(1, 5)), "neck", "encoder", "head"]


def test_the_shortcut_goes_with_the_head() -> None:
    net = dict(every_network())["crnn"]
    net.freeze(["head"])
    assert not any(p.requires_grad for p in (*net.head.parameters(), *net.shortcut.parameters()))
    assert all(p.requires_grad for p in (*net.rnn.parameters(), *net.neck.parameters()))


# -------------------------------------------------------------------------------------------------------------- frozen


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("averaged", [False, True])
def test_frozen_is_bit_identical(optimizer: str, averaged: bool, digits: tuple) -> None:
    """Weights, statistics and moments, also of what has learnt before; with decay, momentum and averaging."""
    decay = ["optimizer.weight_decay=0.1", "optimizer.lr=0.02", "scheduler=constant"]
    learner = system(f"optimizer={optimizer}", *decay)
    average = [EMAWeightAveraging(0.9)] if averaged else []
    notes = train(learner, digits, *average, FreezeSchedule(STAGES))
    learning = [["head"], ["backbone.hidden1", "head"], PARTS, ["backbone.stage1"]]
    for epoch, names in enumerate(learning):
        (before, after), (old, new) = notes.states[epoch : epoch + 2], notes.moments[epoch : epoch + 2]
        for part in PARTS:
            ours, theirs = of(part, before), of(part, after)
            if part in names:
                assert not any(torch.equal(ours[k], theirs[k]) for k in ours if not k.endswith("bias")), (epoch, part)
            else:
                assert same(ours, theirs), (epoch, part)
                assert same(of(part, old), of(part, new)), (epoch, part)
    for epoch, average in enumerate(notes.averages):
        for part in PARTS:
            never = not any(part in names for names in learning[:epoch])
            assert same(of(part, average), of(part, notes.states[0])) == never, (epoch, part)
    assert len(notes.averages) == (EPOCHS + 1) * averaged


def test_the_optimiser_knows_everything_from_the_start(digits: tuple) -> None:
    learner = system()
    notes = train(learner, digits, FreezeSchedule({0: ["head"]}), max_epochs=1)
    assert all(notes.required)
    held = {id(p) for group in notes.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in learner.parameters()}
    assert all(p.requires_grad for p in learner.parameters())  # and all is as it was
    assert all(m.training for m in learner.network.train().modules())


def test_train_leaves_frozen_parts_in_evaluation() -> None:
    learner = system()
    learner.network.freeze(["backbone.stage1", "backbone.hidden1"])

    def modes() -> dict[str, set[bool]]:
        return {
            name: {m.training for module in modules for m in module.modules()}
            for name, modules in learner.network.parts().items()
        }

    frozen = {"backbone.stage1": {False}, "backbone.hidden1": {False}}
    for again in (learner.train, learner.network.train, nn.ModuleList([learner]).train):
        again()
        assert modes() == {name: {True} for name in PARTS} | frozen
    learner.eval()
    assert modes() == {name: {False} for name in PARTS}
    learner.train()
    assert modes() == {name: {True} for name in PARTS} | frozen
    learner.network.freeze([])
    assert modes() == {name: {True} for name in PARTS}


def test_dropout_inside_frozen_parts_is_off() -> None:
    net, images = network(norm=False, hidden=[64], dropout=0.5).train(), torch.rand(2, 1, 28, 28)

    def changes() -> bool:
        return not torch.equal(net(images), net(images))

    assert changes()
    net.freeze(["backbone.stage1", "backbone.stage2"])
    assert changes()  # dropout after the last hidden layer goes with that layer
    net.freeze(["backbone.stage1", "backbone.stage2", "backbone.hidden1"])
    assert not changes()


def test_an_average_of_what_does_not_change_is_that(digits: tuple) -> None:
    learner = system()
    callback = EMAWeightAveraging(0.998)
    callback.setup(None, learner, "fit")
    first = copied(learner.state_dict())
    learner.network.head.weight.data += 1
    buffers = dict(learner.network.named_buffers())
    counter = next(value for name, value in buffers.items() if name.endswith("num_batches_tracked"))
    counter += 12345
    average = callback._average_model
    average.n_averaged += 1  # the first is a copy
    for _ in range(50):
        average.update_parameters(learner)
    now = average.module.state_dict()
    assert all(torch.equal(now[k], v) for k, v in first.items() if k != "network.head.weight" and v.is_floating_point())
    torch.testing.assert_close(now["network.head.weight"], first["network.head.weight"] + 1 - 0.998**50)
    assert 12345 in [int(v) for k, v in now.items() if k.endswith("num_batches_tracked")]


# -------------------------------------------------------------------------------------------------------------- stages


def test_stages_by_epoch_and_by_share() -> None:
    net = network()
    schedule = FreezeSchedule({0: "head", 3: ["backbone.stage2", "head"], 0.5: ["backbone"], 0.9: ["all"]})
    top = ["backbone.stage2", "head"]
    assert schedule.stages(net, 20) == {0: ["head"], 3: top, 10: PARTS[:-1], 18: PARTS}
    assert schedule.stages(net, 4) == {0: ["head"], 2: PARTS[:-1], 3: top, 4: PARTS}
    assert FreezeSchedule({0.5: "all", 0: "head"}).stages(net, 1) == {0: PARTS}  # of two at once the later


def test_a_name_ends_at_a_dot() -> None:
    ten = network(stages=[{"channels": 2, "pool": 1}] * 10, pooling="mean", hidden=[])
    assert FreezeSchedule({0: ["backbone.stage1"]}).stages(ten, 1) == {0: ["backbone.stage1"]}
    with pytest.raises(HwrError, match=r"no part 'backbone.stage'; it has all, backbone, backbone.stage1, "):
        FreezeSchedule({0: ["backbone.stage"]}).stages(ten, 1)


@pytest.mark.parametrize("epochs", [0, 1, 2, 5, 30])
def test_gradual_unfreezing_goes_from_the_head_down(epochs: int) -> None:
    for _, net in every_network():
        parts = list(net.parts())
        stages = GradualUnfreezing(0.5).stages(net, epochs)
        assert min(stages) == 0
        assert max(stages) == round(0.5 * epochs)
        assert stages[max(stages)] == parts
        assert all(names == parts[-len(names) :] for names in stages.values())
        assert all(len(a) < len(b) for a, b in pairwise(stages.values()))
        assert len(stages) == min(len(parts), round(0.5 * epochs) + 1)


def test_each_stage_prints_one_line(digits: tuple, capfd: pytest.CaptureFixture[str]) -> None:
    learner = system()
    train(learner, digits, FreezeSchedule({0: ["head"], 2: ["backbone.hidden1", "head"], 3: ["all"]}))
    sizes = {name: sum(p.numel() for m in ms for p in m.parameters()) for name, ms in learner.network.parts().items()}
    total = sum(p.numel() for p in learner.network.parameters())
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("epoch ")]
    below, hidden = ", ".join(PARTS[:2]), sizes["head"] + sizes["backbone.hidden1"]
    assert lines == [
        f"epoch 1: {sizes['head']:,} parameters learn (head), {total - sizes['head']:,} are frozen "
        f"({below}, backbone.hidden1)",
        f"epoch 3: {hidden:,} parameters learn (backbone.hidden1, head), {total - hidden:,} are frozen ({below})",
        f"epoch 4: all {total:,} parameters learn",
    ]


FREEZE = "+callbacks.freeze={_target_: hwr.callbacks.FreezeSchedule, train: "
MISTAKES = {  # as the command line gives them
    FREEZE
    + "{0: [haed]}}": "no part 'haed'; it has all, backbone, backbone.stage1, backbone.stage2, backbone.stage3, head",
    FREEZE + "{0: [head], 1: []}}": "a stage has everything frozen",
    FREEZE + "{0: [head], one: [all]}}": "(0, 1, 2, ...) or a share of them (0.5), not 'one'",
    FREEZE + "{1: [head]}}": "what learns from the start? add a stage 0",
    "finetune=gradual trainer.max_epochs=-1 +trainer.max_steps=5": "need trainer.max_epochs",
    "finetune=head callbacks.freeze.train={1:[all]}": "+callbacks.freeze.train=VALUE",
    "finetune=heda": "did you mean head?",
    "system.layer_decay=0": "system.layer_decay=0",
    "system.l2_sp=0.1": "add init_from=MODEL",
    "experiment=finetune_head data=digits": "init_from must be given: add init_from=VALUE",
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.items())
def test_mistakes_are_told_in_one_line(arguments: str, says: str, call: Run) -> None:
    words = [arguments] if arguments.startswith("+callbacks") else arguments.split()
    done = call("train", "network=tiny", "trainer.precision=32-true", "trainer.accelerator=cpu", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("hwr.train: error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("begin", [-1, 1.5, 1.0, -0.5, True, "1", None])
def test_stages_begin_after_epochs(begin: object) -> None:
    with pytest.raises(HwrError, match=f"or a share of them .0.5., not {begin!r}"):
        FreezeSchedule({0: ["head"], begin: ["all"]})


@pytest.mark.parametrize("train", [None, {0: 1}, ["head"]])
def test_stages_have_names(train: object) -> None:
    with pytest.raises(HwrError, match="stages with names of parts are needed"):
        FreezeSchedule(train)


def test_stages_that_the_time_may_cut_off_are_told(caplog: pytest.LogCaptureFixture) -> None:
    trainer = SimpleNamespace(max_epochs=9, strategy=object(), world_size=1, is_global_zero=True, callbacks=[])
    module = SimpleNamespace(network=network())
    FreezeSchedule({0: "head", 3: "all"}).setup(trainer, module, "fit")
    trainer.callbacks = [Timer("00:00:00:05")]
    FreezeSchedule({0: "head"}).setup(trainer, module, "fit")
    assert not caplog.records
    FreezeSchedule({0: "head", 3: "all"}).setup(trainer, module, "fit")
    assert "the last stage begins with epoch 4 of trainer.max_epochs=9, if trainer.max_time lasts" in caplog.text


def test_settings_out_of_range() -> None:
    with pytest.raises(HwrError, match="everything frozen"):
        FreezeSchedule({0: None}).stages(network(), 1)
    with pytest.raises(HwrError, match=r"callbacks\.freeze\.until=1"):
        GradualUnfreezing(1)
    with pytest.raises(HwrError, match=r"callbacks\.ema\.decay=1.5"):
        EMAWeightAveraging(1.5)
    with pytest.raises(HwrError, match=r"system\.layer_decay=1.1"):
        system(layer_decay=1.1)
    with pytest.raises(HwrError, match=r"system\.l2_sp=-1"):
        system(l2_sp=-1)


def test_strategies_that_cannot_freeze_are_refused() -> None:
    trainer = SimpleNamespace(max_epochs=2, strategy=object(), world_size=2)
    with pytest.raises(HwrError, match=r"trainer\.strategy=ddp only"):
        FreezeSchedule({0: "head"}).setup(trainer, SimpleNamespace(network=network()), "fit")


# ------------------------------------------------------------------------------------------------------------- resumed

QUICK = [
    "data=digits",
    "network=lenet_32_64",
    "network.dropout=0.3",
    "augment=light",
    "callbacks=[default,ema]",
    "callbacks.ema.decay=0.9",
    "callbacks.gallery=null",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=4",
    "data.batch_size=32",
]
ADAPT = ["experiment=finetune_gradual", *QUICK, "callbacks.freeze.until=0.75", "system.l2_sp=0.01"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to start from."""
    return run(tmp_path_factory.mktemp("start") / "run", *QUICK, "trainer.max_epochs=1").run_dir


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run of four stages, with a checkpoint after each epoch."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(folder, *ADAPT, f"init_from='{model}'", *FEW, "callbacks.periodic.every_n_epochs=1").run_dir


FEW = ["+trainer.limit_train_batches=6", "test=false"]


def run(folder: Path, *overrides: str) -> Result:
    return fit(compose("train", overrides, run_dir=folder))


def test_a_gradual_run_unfreezes_and_moves_parts_in_their_turn(whole: Path, model: Path) -> None:
    old = load_file(model / "bundle" / "weights.safetensors")
    states = [
        torch.load(path, weights_only=True)["current_model_state"]
        for path in sorted(whole.glob("checkpoints/epoch*.ckpt"))
    ]
    parts = ["head", "backbone.hidden1", "backbone.stage2", "backbone.stage1"]
    for epoch, state in enumerate(states):
        now = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        for i, part in enumerate(parts):
            assert same(of(part, now), of(part, old)) == (i > epoch), (epoch, part)
    assert [row["lr"] for row in rows(whole)] == sorted((row["lr"] for row in rows(whole)), reverse=True)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_run_resumed_in_any_stage_equals_an_unbroken_one(
    epoch: int, whole: Path, model: Path, tmp_path: Path
) -> None:
    """In its own directory: what is the best so far goes by the path."""
    unbroken = shutil.copytree(whole, tmp_path / "unbroken")
    shutil.rmtree(whole / "bundle")
    shutil.copy(whole / f"checkpoints/epoch{epoch:03d}.ckpt", whole / "checkpoints/last.ckpt")
    run(whole, *ADAPT, f"init_from='{model}'", *FEW, "callbacks.periodic.every_n_epochs=1", "ckpt_path=last")
    assert rows(whole) == rows(unbroken)
    assert same(weights(whole), weights(unbroken))
    ours, theirs = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (whole, unbroken))
    assert same(ours["state_dict"], theirs["state_dict"])
    assert same(ours["current_model_state"], theirs["current_model_state"])
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (ours, theirs)]
    assert moments[0].keys() == moments[1].keys()
    for key, state in moments[0].items():
        assert same(state, moments[1][key])


def test_learning_rates_of_parts_are_logged(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = set()
    for file in (whole / "tensorboard").glob("events*"):
        tags |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    assert {"lr-AdamW/head", "lr-AdamW/head.no_decay", "lr-AdamW/backbone.stage1"} <= tags


def test_a_run_cannot_be_resumed_without_its_layer_decay(whole: Path, model: Path, tmp_path: Path) -> None:
    settings = [
        *ADAPT,
        f"init_from='{model}'",
        *FEW,
        "system.layer_decay=1",
        f"ckpt_path='{whole}/checkpoints/last.ckpt'",
    ]
    with pytest.raises(HwrError, match=r"system\.layer_decay"):
        run(tmp_path / "other", *settings)


@pytest.mark.slow
def test_killed_inside_a_stage_and_resumed_is_as_if_unbroken(hwr: Run, model: Path, tmp_path: Path) -> None:
    """Stages of two epochs, killed in the second epoch of the second stage."""
    stages = "+callbacks.freeze.train={2:[backbone.hidden1,head],4:[all]}"
    settings = ["experiment=finetune_head", *QUICK, f"init_from={model}", "trainer.max_epochs=6", stages]
    assert hwr("train", *settings, "hydra.run.dir=unbroken").returncode == 0
    process = start(tmp_path, *settings)
    wait_for_epoch(process, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (broken,) = (tmp_path / "outputs").glob("*/*")
    done = hwr("train", *settings, "ckpt_path=last")
    assert done.returncode == 0, done.stderr
    assert rows(broken) == rows(tmp_path / "unbroken")
    assert same(weights(broken), weights(tmp_path / "unbroken"))


@pytest.mark.parametrize(("learning", "stages"), [("head", "{0: [head]}"), ("rnn", "{0: [rnn]}")])
def test_lines_learn_by_parts(learning: str, stages: str, line_run: Path, tmp_path: Path) -> None:
    data = [f"data.path={line_run.parent / 'lines'}", f"init_from='{line_run}'", "trainer.max_epochs=1", "test=false"]
    result = run(tmp_path / "run", *SETTINGS, *data, "network.dropout=0.2", FREEZE + stages + "}")
    old, new = weights(line_run), weights(result.run_dir)
    moves = {"head": ("head", "shortcut"), "rnn": ("rnn",)}[learning]
    for name, value in new.items():
        assert torch.equal(value, old[name]) != name.startswith(moves), name


# ----------------------------------------------------------------------------------------------------------- processes

SCRIPT = """
import sys
from pathlib import Path
import torch
from lightning import Callback
from hwr.config import compose
from hwr.experiment import fit

class Notes(Callback):
    def __init__(self, folder):
        self.folder = Path(folder)

    def on_train_epoch_end(self, trainer, pl_module):
        torch.save(pl_module.network.state_dict(), self.folder / f"{trainer.current_epoch}_{trainer.global_rank}.pt")

if __name__ == "__main__":
    folder, *overrides = sys.argv[1:]
    notes = "+callbacks.notes={_target_: __main__.Notes, folder: '" + folder + "'}"
    fit(compose("train", [*overrides, notes], run_dir=Path(folder) / "run"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [[], ["callbacks=[default,ema]"]])
def test_two_processes_through_an_unfreezing_stay_identical(averaged: list[str], tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    settings = ["data=digits", "network=cnn", "callbacks.gallery=null", *averaged, "+trainer.limit_train_batches=8"]
    stages = FREEZE + "{0: [head], 1: [backbone.stage3, head], 2: [all], 3: [head]}}"
    devices = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=4"]
    line = [sys.executable, "job.py", str(tmp_path), *settings, stages, *devices, "data.batch_size=32", "test=false"]
    done = subprocess.run(line, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" parameters learn (") == 3  # by one process only
    assert done.stdout.count("all 299,882 parameters learn") == 1
    learning = [("head",), ("backbone.stage3", "head"), ("backbone", "head"), ("head",)]
    last: dict[str, Tensor] = {}
    for epoch, names in enumerate(learning):
        ranks = [torch.load(tmp_path / f"{epoch}_{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name, ours in ranks[0].items():
            learns = name.startswith(names)
            if not learns or "running" not in name:  # statistics of what learns are each process's own until saved
                assert torch.equal(ours, ranks[1][name]), (epoch, name)
            if last and not name.endswith("num_batches_tracked"):
                assert torch.equal(ours, last[name]) != learns, (epoch, name)
        last = ranks[0]
    assert math.isfinite(float(last["head.weight"].sum()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gradients_pass_through_a_frozen_lstm_on_a_gpu() -> None:
    net = dict(every_network())["crnn"].cuda()
    net.freeze(["rnn", "head"])
    logits, _, _ = net.train()(torch.rand(2, 1, 64, 200, device="cuda"), torch.tensor([200, 150], device="cuda"))
    logits.sum().backward()
    assert all(p.grad is not None for p in net.backbone.parameters())
    assert all(p.grad is None for p in net.rnn.parameters())
