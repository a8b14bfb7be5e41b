"""Whatever goes wrong is told in one line that names it, on standard error, with exit status 1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from line_model import SETTINGS, texts, write_split
from PIL import Image
from safetensors.torch import load_file, save_file

from hwr import HwrError, Recognizer, bundle
from hwr.config import compose
from hwr.experiment import fit

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["network=tiny", "debug=fast", "trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null"]


def the_error(done: subprocess.CompletedProcess[str], command: str) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"hwr.{command}: error: ")
    assert "Traceback" not in done.stdout
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        # names
        (["experiment=nope"], ["experiment=nope", "digits_cnn", "mnist_cnn"]),
        (["experiment=mnist_cn"], ["did you mean mnist_cnn?"]),
        (["network=resnet"], ["did you mean resnet18?", "tiny"]),
        (["debug=quick"], ["debug=quick", "fast"]),
        (["trainer.max_epoch=1"], ["did you mean trainer.max_epochs?"]),
        (["optimizer.learning_rate=1"], ["optimizer.learning_rate", "optimizer.lr"]),
        (["batch_size=8"], ["did you mean ", "data.batch_size", "tune.batch_size"]),
        (["sed=1"], ["did you mean seed?"]),
        # syntax
        (["seed"], ["seed"]),
        (["data.split.size=[1"], ["data.split.size=[1"]),
        # what is missing
        (["experiment=folder_cnn"], ["data.path"]),
        (["experiment=folder_cnn", "data.path=nowhere"], ["nowhere", "no such file or folder"]),
        (["data=mnist", "data.root=nowhere", "data.download=false"], ["nowhere/MNIST/raw", "train-images-idx3-ubyte"]),
        (["init_from=nowhere"], ["nowhere"]),
        (["ckpt_path=nowhere.ckpt"], ["nowhere.ckpt"]),
        # values
        (["data.batch_size=abc"], ["data.batch_size=abc", "a number"]),
        (["data.batch_size=0"], ["data.batch_size"]),
        (["data.split.size=5000"], ["data.split.size"]),
        (["optimizer.lr=abc"], ["optimizer"]),
        (["optimizer.lr=-1"], ["optimizer"]),
        (["trainer.max_epochs=many"], ["trainer.max_epochs=many", "a number"]),
        (["trainer.max_epochs=-1"], ["max_epochs"]),
        (["trainer.max_epochs=1", "trainer.max_epochs=abc"], ["trainer.max_epochs=abc: a number"]),
        (["network.hiden=3"], ["network.hiden is not a known key; known here: network."]),
        (["system.l2_sp=nan", "init_from=mnist"], ["system.l2_sp=nan"]),
        (["augment.scale=[2,1]"], ["augment.scale"]),
        (["network.stages=3"], ["network"]),
        (["loss.class_weights=[1,2]"], ["loss.class_weights"]),
        (["data=emnist", "data.subset=greek"], ["data.subset=greek", "balanced"]),
        (["trainer.devices=0"], ["devices"]),
        (["+callbacks.swa={decay: 0.9}"], ["callbacks.swa", "callbacks=[default,swa]", "~callbacks.swa"]),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else "",
)
def test_train(arguments: list[str], words: list[str], call: Run, tmp_path: Path) -> None:
    line = the_error(call("train", *QUICK, *arguments), "train")
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob("bundle"))


def test_from_a_real_command_line(hwr: Run) -> None:
    assert "mnist_cnn" in the_error(hwr("train", "experiment=nope"), "train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(call: Run) -> None:
    assert "gpu" in the_error(call("train", *QUICK, "trainer.accelerator=gpu"), "train").lower()


# ---- data


def test_truncated_files(call: Run, mnist_root: Path) -> None:
    file = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:5000])
    line = the_error(call("train", *QUICK, "data=mnist", f"data.root={mnist_root}", "data.download=false"), "train")
    assert "damaged or cut short" in line
    assert str(file.parent) in line


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of two classes with ten pictures each."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path / "own"


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"no image", "3.png"), (None, "holds no images")])
def test_bad_folder(content: bytes | None, words: str, call: Run, own: Path) -> None:
    if content is None:
        (own / "c").mkdir()
    else:
        (own / "b" / "3.png").write_bytes(content)
    assert words in the_error(call("train", "data=folder", *QUICK, f"data.path={own}"), "train")


def test_one_class(call: Run, own: Path) -> None:
    shutil.rmtree(own / "b")
    assert "two classes" in the_error(call("train", "data=folder", *QUICK, f"data.path={own}"), "train")


# ---- models


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "bundle", tmp_path / "model"))


def truncated(model: Path) -> None:
    file = model / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def no_weights(model: Path) -> None:
    (model / "weights.safetensors").unlink()


def no_json(model: Path) -> None:
    (model / "bundle.json").write_text('{"format": 1, ')


def edited(model: Path, **changes: object) -> None:
    file = model / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def no_numbers(model: Path) -> None:
    weights = load_file(model / "weights.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, model / "weights.safetensors")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (truncated, "damaged bundle"),
    "no weights": (no_weights, "damaged bundle"),
    "weights of NaN": (no_numbers, "weights that are no numbers"),
    "malformed JSON": (no_json, "damaged bundle"),
    "newer format": (lambda model: edited(model, format=99), "upgrade hwr"),
    "code": (lambda model: edited(model, network={"_target_": "os.system", "command": "true"}), "is not one of"),
    "other network": (lambda model: edited(model, network={"_target_": "hwr.networks.ResNet18"}), "another network"),
    "network's settings": (lambda model: edited(model, network={"_target_": "hwr.networks.CNN", "x": 1}), "network"),
    "fewer classes": (lambda model: edited(model, classes=["0", "1"]), "another network"),
    "no network": (lambda model: edited(model, network="CNN"), "damaged bundle .network"),
    "a class twice": (lambda model: edited(model, classes=[*"012345678", "8"]), "damaged bundle .classes names"),
    "no classes": (lambda model: edited(model, classes=5), "damaged bundle .classes is"),
    "a size in words": (lambda model: edited(model, preprocess={"size": "x"}), "damaged bundle .preprocess.size"),
    "no preprocessing": (lambda model: edited(model, preprocess=None), "damaged bundle"),
    "unknown preprocessing": (lambda model: edited(model, preprocess={"sharpen": 1}), "sharpen"),
    "a list": (lambda model: (model / "bundle.json").write_text("[]") and None, "damaged bundle"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_bundle(kind: str, model: Path) -> None:
    damage, words = DAMAGE[kind]
    Recognizer.load(model)
    damage(model)
    with pytest.raises(HwrError, match=words):
        Recognizer.load(model)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here refuses its owner")
@pytest.mark.parametrize("key", ["output", "save_seen"])
def test_places_that_cannot_be_made(key: str, call: Run, model: Path) -> None:
    image = model.parent / "image.png"
    Image.fromarray(np.pad(np.zeros((20, 4), np.uint8), 12, constant_values=255)).save(image)
    the_error(call("predict", f"model={model}", f"images={image}", "format=csv", f"{key}=/proc/none/x.csv"), "predict")


def test_damaged_bundle_on_the_command_line(call: Run, model: Path) -> None:
    truncated(model)
    image = model.parent / "image.png"
    Image.new("L", (28, 28)).save(image)
    assert str(model) in the_error(call("predict", f"model={model}", f"images={image}"), "predict")
    assert str(model) in the_error(call("train", *QUICK, f"init_from={model}"), "train")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("content", ["text", "other", "code", "empty"])
def test_checkpoint_that_is_none(content: str, call: Run, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    if content in ("text", "empty"):
        file.write_text("hello" if content == "text" else "")
    else:
        torch.save({"state_dict": {}} if content == "other" else Evil(), file)
    for key in ("init_from", "ckpt_path"):
        line = the_error(call("train", *QUICK, f"{key}={file}"), "train")
        assert "checkpoint" in line
        assert not (tmp_path / "evil").exists()  # nothing in a file is run


# ---- disks


def test_output_at_a_file(call: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in the_error(call("train", *QUICK, "hydra.run.dir=file"), "train")
    assert "file" in the_error(call("train", *QUICK, "hydra.run.dir=file/run"), "train")
    assert (tmp_path / "file").read_text() == "mine"


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its mode, or for root by its mount."""
    folder = tmp_path / "read_only"
    if os.geteuid() == 0:
        yield from mounted(folder, "ro")
    else:
        folder.mkdir(mode=0o500)
        yield folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    yield from mounted(tmp_path / "disk", "size=1m")


def test_read_only_output(call: Run, read_only: Path, trained: Path) -> None:
    line = the_error(call("train", *QUICK, f"hydra.run.dir={read_only}/run"), "train")
    assert str(read_only) in line
    image = read_only.parent / "image.png"
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(image)
    arguments = [f"model={trained}", f"images={image}", f"output={read_only}/table.txt"]
    assert str(read_only) in the_error(call("predict", *arguments), "predict")
    arguments = [f"run={trained}", f"output={read_only}/scores", "accelerator=cpu"]
    assert str(read_only) in the_error(call("eval", *arguments), "eval")


def test_full_disk(call: Run, small_disk: Path) -> None:
    """The second checkpoint does not fit: the first stays whole, and training goes on from it with more room."""
    run = small_disk / "run"
    settings = [*QUICK, f"hydra.run.dir={run}", "scheduler=constant"]
    done = call("train", *settings)
    assert done.returncode == 0, done.stderr
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(max(0, free - len(before) // 2)))
    line = the_error(call("train", *settings, "trainer.max_epochs=2", "ckpt_path=last"), "train")
    assert "disk is full" in line
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    bundle.from_checkpoint(run / "checkpoints" / "last.ckpt").build()
    bundle.load(run / "bundle").build()
    assert not list(run.rglob("*.tmp"))
    (small_disk / "filler").unlink()
    done = call("train", *settings, "trainer.max_epochs=2", "ckpt_path=last")
    assert done.returncode == 0, done.stderr


# ---- learning


def test_learning_that_diverges_is_told(call: Run, tmp_path: Path) -> None:
    arguments = [setting for setting in QUICK if not setting.startswith("debug")]
    line = the_error(call("train", *arguments, "optimizer.lr=1e9", "trainer.max_epochs=2"), "train")
    assert "optimizer.lr" in line
    assert not list(tmp_path.rglob("bundle"))


@pytest.mark.parametrize("key", ["scheduler", "optimizer", "data", "trainer", "distill", "data.split", "replay"])
def test_what_a_training_needs_cannot_be_null(key: str, tmp_path: Path) -> None:
    with pytest.raises(HwrError, match=rf"^{key}=null: a training needs it; leave it out for the default") as caught:
        fit(compose("train", [f"{key}=null"], tmp_path))
    assert ("constant, cosine" in str(caught.value)) == (key == "scheduler")


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.lr=1e30", "data.batch_size=1280"],
        [*SETTINGS, "trainer.max_epochs=2", "optimizer.lr=1e4", "data.columns=100000"],
        [*SETTINGS, "trainer.max_epochs=2", "optimizer.lr=1e30", "data.columns=100000"],
    ],
    ids=["characters", "lines", "lines, further"],
)
def test_learning_that_diverges_in_the_only_step_of_an_epoch(settings: list[str], call: Run, tmp_path: Path) -> None:
    """The loss was a number before it; what is validated is not."""
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        write_split(tmp_path / "lines", split, texts(count, count), count)
    quick = [s for s in QUICK if not s.startswith(("debug", "network"))] if "experiment=tsv_crnn" in settings else QUICK
    own = [f"data.path={tmp_path / 'lines'}"] if "experiment=tsv_crnn" in settings else []
    own += ["trainer.gradient_clip_val=null"]
    line = the_error(call("train", *[s for s in quick if not s.startswith("debug")], *settings, *own), "train")
    assert "the training loss is not a number any more in epoch " in line
    assert not list(tmp_path.rglob("bundle"))


def test_every_data_set_that_a_message_names_can_be_chosen() -> None:
    with pytest.raises(HwrError, match="known: ") as caught:
        compose("train", ["data=mni"])
    named = str(caught.value).partition("known: ")[2].split(", ")
    assert "mnist" in named
    assert all("_target_" in compose("train", [f"data={name}"]).data for name in named)


@pytest.mark.parametrize("key", ["trainer.accumulate_grad_batches", "trainer.check_val_every_n_epoch"])
@pytest.mark.parametrize("value", ["0", "0.5", "true"])
def test_counts_of_the_trainer(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(HwrError, match=f"^{key}=.*: a whole number from 1 is needed"):
        fit(compose("train", [f"{key}={value}"], tmp_path))


@pytest.mark.parametrize(
    ("setting", "words"),
    [("monitor.metric=val/nope", "take one of val/accuracy"), ("+trainer.limit_val_batches=0", "=null")],
)
def test_early_stopping_by_what_is_not_logged(setting: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(HwrError, match="monitor: what early stopping watches is not logged") as caught:
        fit(
            compose(
                "train",
                ["network=tiny", "+trainer.limit_train_batches=2", "trainer.accelerator=cpu", setting],
                tmp_path,
            )
        )
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("command", "setting"), [("predict", "pages={}.xml"), ("predict", "images={}.png"), ("train", "init_from={}")]
)
def test_a_name_that_is_too_long(command: str, setting: str, call: Run) -> None:
    line = the_error(call(command, setting.format("n" * 300)), command)
    assert any(words in line for words in ("longer name than a file can have", "no such image"))


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_what_writes_no_run_has_no_run_dir(command: str, call: Run, tmp_path: Path) -> None:
    assert "run_dir is not a known key" in the_error(call(command, "run_dir=here"), command)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(("setting", "words"), [("accelerator=foo", "accelerator=foo: "), ("split=null", "split=None")])
def test_evaluations_that_cannot_be(setting: str, words: str, trained: Path, call: Run, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    assert words in the_error(call("eval", "run=run", setting), "eval")
