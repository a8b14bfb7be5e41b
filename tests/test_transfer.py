"""Starting from another model: what is found, which rows are kept, what is said, and what one line refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from line_model import SETTINGS, texts, write_split, written
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hwr import HwrError, Recognizer, bundle, transfer
from hwr.bundle import Bundle
from hwr.config import compose, without_nulls
from hwr.experiment import Result, fit
from hwr.networks import outputs
from hwr.text import make_charset
from hwr.text.relatives import nearest

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null", "trainer.max_epochs=0"]
LINES = [s for s in SETTINGS if not s.startswith(("network.", "data.preprocess", "trainer.max_epochs", "scheduler"))]
FROM_LINES = [*LINES, "network=null", "trainer.max_epochs=0", "test=false"]
COPISTE = Path(os.environ.get("HWR_DATA_DIR", "data")) / "copiste"


def train(folder: Path, *overrides: str) -> Result:
    return fit(compose("train", [*QUICK, *overrides], run_dir=folder))


def train_lines(folder: Path, *overrides: str) -> Result:
    return fit(compose("train", [*FROM_LINES, *overrides], run_dir=folder))


def start_of(model: Bundle) -> transfer.Start:
    return transfer.Start("start", model.weights, model)


def taken(start: Bundle, classes: Sequence[str], mismatch: str = "error") -> tuple[Bundle, transfer.Taken]:
    """The start with other classes, and what it took over."""
    model = replace(start, classes=tuple(classes), weights={}, ngram=None)
    torch.manual_seed(0)
    network = model.build()
    found = transfer.take(start_of(start), network, model, mismatch)
    return replace(model, weights=network.state_dict()), found


def rows(model: Bundle, layer: str = "head") -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of each class, "" for the blank."""
    names = ("", *model.classes) if model.kind == "line" else model.classes
    weight, bias = model.weights[f"{layer}.weight"].float(), model.weights[f"{layer}.bias"].float()
    return {name: (weight[i], bias[i]) for i, name in enumerate(names)}


def alike(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def mnist() -> Bundle:
    return bundle.load("mnist")


@pytest.fixture(scope="module")
def copiste() -> Bundle:
    return bundle.load("copiste")


@pytest.fixture(scope="module")
def years(line_run: Path) -> Bundle:
    """The model of the printed figures of :mod:`line_model`."""
    return bundle.load(line_run)


# ---- what init_from names


def test_a_run_a_bundle_a_checkpoint_and_a_name(trained: Path) -> None:
    for place in (trained, trained / "bundle", trained / "checkpoints/best.ckpt"):
        start = transfer.find(str(place))
        assert start.model is not None
        assert start.model.classes == tuple("0123456789")
    assert transfer.find("copiste").model.charset == bundle.load("copiste").charset


@pytest.mark.parametrize("prefix", ["", "network.", "net.", "model.", "module.", "_orig_mod.", "network._orig_mod."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict", "model", "weights"])
def test_bare_weights(prefix: str, inside: str | None, mnist: Bundle, tmp_path: Path) -> None:
    state: dict[str, object] = {f"{prefix}{name}": value for name, value in mnist.weights.items()}
    if prefix:
        state["loss.centres"] = torch.zeros(3)  # of something else than the network
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / "weights.pth")
    start = transfer.find(str(tmp_path / "weights.pth"))
    assert start.model is None
    assert start.weights.keys() == mnist.weights.keys()
    assert all(torch.equal(start.weights[name], value) for name, value in mnist.weights.items())


@pytest.mark.parametrize("name", ["half.safetensors", "half.bin"])
def test_bare_weights_in_half_precision_with_a_warning(
    name: str, mnist: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in mnist.weights.items()}
    (save_file if name.endswith("safetensors") else torch.save)(half, tmp_path / name)
    result = train(tmp_path / "run", f"init_from={tmp_path / name}")
    assert result.metrics["test/accuracy"] > 0.95
    weights = load_file(tmp_path / "run/bundle/weights.safetensors")
    assert all(torch.equal(weights[key], value.to(weights[key].dtype)) for key, value in half.items())
    (said,) = (record.getMessage() for record in caplog.records)
    assert "nothing is known of their classes and preprocessing" in said
    assert "0 1 2 3" in said


def test_network_null_takes_network_and_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(tmp_path / "run", "network=null", "init_from=mnist", "data.preprocess.fit=12")
    assert result.metrics["test/accuracy"] > 0.95
    out = capsys.readouterr().out
    assert "images are prepared as it needs them: fit 20, here 12" in out
    assert "10 classes kept, 0 new, 0 dropped" in out
    recorded = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert recorded["network"]["_target_"] == "hwr.networks.CNN"
    assert recorded["data"]["preprocess"]["fit"] == 20
    assert bundle.load(tmp_path / "run").preprocess == bundle.load("mnist").preprocess


def test_a_group_of_options_can_be_null() -> None:
    words = ["network=null", "augment=null", "init_from=null", "data.cache=null", "network=tiny"]
    assert without_nulls(words) == ["~network", "~augment", *words[2:]]
    assert without_nulls(["data@old_data=null", "old_data=null"]) == ["~data@old_data", "old_data=null"]
    assert compose("train", ["augment=null"]).augment is None


def test_settings_beside_network_null_come_on_top(tmp_path: Path) -> None:
    train(tmp_path / "run", "network=null", "+network.dropout=0.5", "init_from=mnist", "test=false")
    network = bundle.load(tmp_path / "run").network
    assert network["dropout"] == 0.5
    assert network["stages"] == bundle.load("mnist").network["stages"]


def test_another_preprocessing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "run", "init_from=mnist", "data.preprocess.fit=24", "data.preprocess.center=box", "test=false")
    (said,) = (record.getMessage() for record in caplog.records)
    assert "data.preprocess differs from the start's" in said
    assert "fit 20, here 24" in said
    assert "center mass, here box" in said
    assert bundle.load(tmp_path / "run").preprocess.to_dict()["fit"] == 24


def test_settings_without_weights_of_their_own_are_told(copiste: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """The weights fit, and would mean something else."""
    stages = [dict(stage) for stage in copiste.network["stages"]]
    stages[-1]["residual"] = False
    model = replace(copiste, network={**copiste.network, "stages": stages, "dropout": 0.0}, weights={})
    transfer.take(start_of(copiste), model.build(), model, "error")
    assert "the network differs from the start's: stages.5.residual True, here False" in caplog.text
    assert "dropout" not in caplog.text


# ---- classes of characters


def test_rows_go_by_the_names_of_the_classes(mnist: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    model, found = taken(mnist, ["9", "a", "1", "b"])
    old, new = rows(mnist), rows(model)
    assert alike(new["9"], old["9"])
    assert alike(new["1"], old["1"])
    assert float(new["a"][0].abs().max()) < 0.1  # fresh: small normal weights
    assert float(new["a"][1]) == 0
    assert found.rows == {"head.weight": (0, 2), "head.bias": (0, 2)}
    assert not found.fresh
    assert found.whole == {name for name in mnist.weights if not name.startswith("head.")}
    assert "2 classes kept, 2 new: a b, 8 dropped: 0 2 3 4 5 6 7 8" in capsys.readouterr().out


def test_classes_in_another_order(mnist: Bundle) -> None:
    model, _ = taken(mnist, "9876543210")
    assert all(alike(row, rows(mnist)[name]) for name, row in rows(model).items())


def test_no_class_in_common_is_allowed(mnist: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    model, found = taken(mnist, "abcdefghij")  # as many as there were
    assert not any(alike(row, old) for row in rows(model).values() for old in rows(mnist).values())
    assert found.rows == {"head.weight": (), "head.bias": ()}
    assert "no class in common: features are taken over, the head starts afresh" in capsys.readouterr().out


def test_digits_to_own_classes(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """Ones and sevens among new classes are read before anything is learnt, and the new ones with ten labels each."""
    images, labels = digits
    names = {1: "1", 7: "7", 3: "drei", 4: "vier"}
    for digit, name in names.items():
        for i in np.flatnonzero(labels == digit)[:40]:
            path = tmp_path / "own" / ("train" if i < 150 else "test") / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(path)
    data = ["data=folder", f"data.path={tmp_path / 'own'}", "data.split.size=8", "network=null", "init_from=mnist"]
    train(tmp_path / "before", *data)
    table = (tmp_path / "before/per_class.csv").read_text().splitlines()[1:]
    recall = {row.split(",")[0]: float(row.split(",")[2]) for row in table}
    assert recall["1"] > 0.8
    assert recall["7"] > 0.8
    result = train(tmp_path / "after", *data, "trainer.max_epochs=10", "data.batch_size=8", "augment=null")
    assert result.metrics["test/accuracy"] > 0.9


# ---- layers that do not fit

OTHER_STAGES = "network.stages=[{channels: 32, kernel: 5},{channels: 64, depth: 2, residual: true},{channels: 96}]"


def test_layers_that_do_not_fit_start_afresh_only_on_request(
    mnist: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(HwrError, match=r"another network: .*stage3.*head.*init_mismatch=fresh"):
        train(tmp_path / "a", "init_from=mnist", OTHER_STAGES)
    result = train(tmp_path / "b", "init_from=mnist", OTHER_STAGES, "init_mismatch=fresh", "test=false")
    (said,) = (r.getMessage() for r in caplog.records if "these layers start afresh" in r.getMessage())
    assert "head (10, 1152), here (10, 864)" in said
    assert "is not in this network" in said
    state = result.system.network.state_dict()
    same = {name for name in state if name in mnist.weights and torch.equal(state[name], mnist.weights[name].float())}
    assert {name.split(".")[1] for name in same if name.endswith("weight")} == {"stage1", "stage2"}
    assert not any(name.startswith("head") for name in same)  # nor its bias, which would fit


def test_nothing_fits() -> None:
    model = Bundle(compose("train", ["network=resnet18"]).network, tuple("0123456789"), bundle.load("mnist").preprocess)
    start = transfer.find("mnist")
    for mismatch in ("error", "fresh"):
        with pytest.raises(HwrError, match="none of its layers fits before the head"):
            transfer.take(start, model.build(), model, mismatch)
    with pytest.raises(HwrError, match="init_mismatch=new: it is error or fresh"):
        transfer.take(start, model.build(), model, "new")


def test_weights_that_are_no_numbers(mnist: Bundle) -> None:
    weights = {**mnist.weights, "head.bias": torch.full((10,), float("nan"))}
    with pytest.raises(HwrError, match="no numbers"):
        taken(replace(mnist, weights=weights), "0123")


# ---- charset surgery


def test_relatives() -> None:
    known = "abeiouABE0123'\".-"
    found = {c: nearest(c, known) for c in "éÉIœñ²…’«–ſ中 "}
    near = {"é": "e", "É": "E", "I": "i", "œ": "o", "²": "2", "…": ".", "’": "'", "«": '"', "–": "-"}
    assert found == {**dict.fromkeys("ñſ中 "), **near}
    assert nearest("é", "Eè") == "è"  # the same letter with another accent before the other case


def extended(model: Bundle, more: str) -> Bundle:
    return taken(model, model.charset.characters + more)[0]


def test_shared_characters_keep_their_rows(copiste: Bundle) -> None:
    characters = copiste.charset.characters
    for classes in (characters + "ſŷ中", characters[::-1], "ŷ中" + characters[40:90]):
        model, found = taken(copiste, classes)
        for layer in ("head", "shortcut"):
            old, new = rows(copiste, layer), rows(model, layer)
            assert all(alike(new[name], old[name]) for name in new if name in old)
            assert alike(new[""], old[""])
        shared = tuple(i for i, name in enumerate(("", *classes)) if not name or name in characters)
        assert set(found.rows) == {f"{layer}.{part}" for layer in ("head", "shortcut") for part in ("weight", "bias")}
        assert set(found.rows.values()) == {shared}
        assert not found.fresh


def test_new_characters_start_like_their_relatives(copiste: Bundle) -> None:
    model = extended(copiste, "ŷ中")
    old, new = rows(copiste), rows(model)
    assert 0 < float((new["ŷ"][0] - old["y"][0]).norm() / old["y"][0].norm()) < 2 * outputs.NOISE
    assert float(new["ŷ"][1]) == pytest.approx(float(old["y"][1]) - outputs.LOWER)
    middle, bias = (torch.stack([row[i] for row in old.values()]).mean(0) for i in (0, 1))  # it has none: their mean
    assert float((new["中"][0] - middle).abs().max()) < 0.1
    assert float(new["中"][1]) == pytest.approx(float(bias) + outputs.spread(copiste.weights["head.weight"].float()))


def test_another_charset_of_the_same_size_is_noticed(copiste: Bundle) -> None:
    """Its weights would load as they are, and every line would be read wrong."""
    characters = copiste.charset.characters
    moved = characters[1:] + characters[0]
    model, found = taken(copiste, moved)
    assert rows(model)["e"][0].equal(rows(copiste)["e"][0])
    assert not torch.equal(model.weights["head.weight"], copiste.weights["head.weight"].float())
    assert "head.weight" not in found.whole
    model, _ = taken(copiste, characters.replace("π", "ŷ"))
    assert rows(model)["ŷ"][0].norm() == pytest.approx(float(rows(copiste)["y"][0].norm()), rel=0.05)


def images_of_lines() -> list[np.ndarray]:
    """Real lines where there are any, else printed ones, of which the model makes something."""
    if (COPISTE / "val.tsv").is_file():
        names = [row.split("\t")[0] for row in (COPISTE / "val.tsv").read_text(encoding="utf-8").splitlines()[1:]]
        return [np.asarray(Image.open(COPISTE / name).convert("L")) for name in names[::90]]
    return [written(text, 64, seed=i) for i, text in enumerate(["Le chat est noir", "en 1871, a Paris", *texts(4, 1)])]


def test_right_after_surgery_lines_are_read_as_before(copiste: Bundle) -> None:
    before = Recognizer.load("copiste", precision="32-true")
    after = type(before)(extended(copiste, "ŷÊ—中ſ²"), precision="32-true")
    images = images_of_lines()
    found = [reading.text for reading in after.read_many(images)]
    assert found == [reading.text for reading in before.read_many(images)]
    assert sum(map(len, found)) > 50
    seen = [before.preprocess(image) for image in images]
    with torch.inference_mode():
        for image in seen:
            values = before.preprocess.normalize(torch.from_numpy(image[None].copy()))
            widths = torch.tensor([image.shape[1]])
            old, new = before.network(values, widths)[0], after.network(values, widths)[0]
            shared = new[..., : old.shape[2]]
            assert torch.allclose(shared, old, rtol=0, atol=1e-5)  # but for how a machine adds up, bit by bit
            assert (new[..., old.shape[2] :].amax(2) < old.amax(2)).all()  # no new one is the best in any frame


@pytest.fixture(scope="module")
def dashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lines of :mod:`line_model` with ``-`` in the place of ``/``, and one with letters."""
    folder = tmp_path_factory.mktemp("dashes")
    for seed, (split, n) in enumerate({"train": 60, "val": 10, "test": 40}.items()):
        write_split(folder, split, [text.replace("/", "-") for text in texts(n, 40 + seed)], 7000 + 1000 * seed)
    return folder


def test_charset_on_change(years: Bundle, line_run: Path, dashes: Path, tmp_path: Path) -> None:
    start, data = f"init_from='{line_run}'", f"data.path={dashes}"
    old = years.charset.characters
    assert "/" in old
    result = train_lines(tmp_path / "extend", start, data)
    assert result.system.bundle.charset.characters == old + "-"
    assert "head.weight" in result.system.network.state_dict()
    result = train_lines(tmp_path / "replace", start, data, "charset.on_change=replace")
    assert set(result.system.bundle.classes) == set(old) - {"/"} | {"-"}
    with pytest.raises(HwrError, match=r"the charset lacks - \(U\+002D\).*charset.unknown=skip"):
        train_lines(tmp_path / "keep", start, data, "charset.on_change=keep")
    result = train_lines(tmp_path / "skip", start, data, "charset.on_change=keep", "charset.unknown=skip")
    assert result.system.bundle.charset.characters == old
    assert not any("-" in text for text in result.datamodule.sets["train"].texts)
    with pytest.raises(HwrError, match=r"charset\.on_change=grow: it is one of extend, keep, replace"):
        train_lines(tmp_path / "other", start, data, "charset.on_change=grow")


def test_a_named_charset_extends_the_start(line_run: Path, years: Bundle, dashes: Path, tmp_path: Path) -> None:
    result = train_lines(tmp_path / "run", f"init_from='{line_run}'", f"data.path={dashes}", "charset=ascii")
    characters = result.system.bundle.charset.characters
    assert characters.startswith(years.charset.characters)
    assert len(characters) == 95


def test_a_few_steps_teach_the_new_character(line_run: Path, dashes: Path, tmp_path: Path) -> None:
    settings = [f"init_from='{line_run}'", f"data.path={dashes}", "test=true"]
    before = train_lines(tmp_path / "before", *settings)
    after = train_lines(
        tmp_path / "after", *settings, "trainer.max_epochs=6", "scheduler=constant", "optimizer.lr=5e-3"
    )
    wanted = [text for text in after.datamodule.sets["test"].texts if "-" in text]

    def right(result: Result) -> int:
        return sum(r.hypothesis == r.reference for r in result.system.readings if "-" in r.reference)

    assert right(before) == 0
    assert right(after) >= 0.7 * len(wanted) > 5
    assert after.metrics["test/cer"] < before.metrics["test/cer"] / 2


# ---- resuming


def test_resume_finds_the_same_charset(line_run: Path, dashes: Path, tmp_path: Path) -> None:
    """Whatever the order of the lines, and as an unbroken run; the start must still be there."""
    model = Path(shutil.copytree(line_run / "bundle", tmp_path / "start"))
    data = Path(shutil.copytree(dashes, tmp_path / "lines"))
    settings = [f"init_from={model}", f"data.path={data}", "scheduler=constant", "trainer.max_epochs=1"]
    first = train_lines(tmp_path / "run", *settings)
    table = data / "train.tsv"
    head, *lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([head, *reversed(lines)]) + "\n", encoding="utf-8")
    again = train_lines(tmp_path / "run", *settings, "trainer.max_epochs=2", "ckpt_path=last")
    assert again.trainer.current_epoch == 2
    assert again.system.bundle.classes == first.system.bundle.classes
    shutil.rmtree(model)
    with pytest.raises(HwrError, match=f"{re.escape(str(model))}: no such run"):
        train_lines(tmp_path / "run", *settings, "trainer.max_epochs=3", "ckpt_path=last")


def test_resumed_is_as_unbroken(tmp_path: Path) -> None:
    settings = ["network=null", "init_from=mnist", "data.labels=60", "data.batch_size=20", "test=false"]
    more = ["scheduler=constant", "callbacks.periodic.every_n_epochs=1", "trainer.max_epochs=2"]
    whole = train(tmp_path / "whole", *settings, *more)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    first = min(whole.run_dir.glob("checkpoints/epoch*.ckpt"))
    shutil.copy(first, tmp_path / "part/checkpoints/last.ckpt")
    train(tmp_path / "part", *settings, *more, "ckpt_path=last")
    one, other = (load_file(tmp_path / name / "bundle/weights.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---- what the new model says of the old one


def test_provenance_goes_on(copiste: Bundle, dashes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also through checkpoints, and over several generations: who made the data must be named."""
    data = [f"data.path={dashes}", "+trainer.limit_train_batches=1", "trainer.max_epochs=1", "data.columns=500"]
    train_lines(tmp_path / "one", "init_from=copiste", *data)
    assert "its n-gram model stays behind" in capsys.readouterr().out
    model = bundle.load(tmp_path / "one")
    assert model.ngram is None
    origin = model.about["init_from"]
    assert origin["name"] == "copiste"
    assert origin["licence"] == copiste.about["licence"]
    assert origin["data"] == copiste.about["data"]
    card = (tmp_path / "one/bundle/README.md").read_text()
    assert f"- init_from:\n  - name: copiste\n  - data: {origin['data']}\n" in card
    assert "CC BY 4.0" in card
    train_lines(tmp_path / "two", f"init_from={tmp_path / 'one/checkpoints/last.ckpt'}", *data)
    about = json.loads((tmp_path / "two/bundle/bundle.json").read_text())["about"]
    assert about["init_from"]["init_from"] == origin


def test_a_model_from_scratch_says_nothing_of_a_start(trained: Path) -> None:
    assert "init_from" not in bundle.load(trained).about


# ---- what is refused, from the command line


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("hwr.train: error: ")
    assert "Traceback" not in done.stdout
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["network=null"], "network=null is the network of a start model: add init_from=MODEL"),
        (["init_from=nowhere/weights.pt"], "nowhere/weights.pt: no such run"),
        (["init_from=copiste"], "init_from=copiste reads lines, and this data is of characters"),
        (["network=resnet18", "init_from=mnist"], "the weights are of another network"),
        (["init_from=mnist", "data.preprocess.size=32"], "data.preprocess: size 28, here 32"),
        (["init_from=mnist", "init_mismatch=maybe"], "init_mismatch=maybe: it is error or fresh"),
        (["init_from=text.pt"], "text.pt: no checkpoint and no state dict, or damaged"),
        (["init_from=text.safetensors"], "text.safetensors: no checkpoint and no state dict, or damaged"),
        (["init_from=cut.pt"], "cut.pt: no checkpoint and no state dict, or damaged"),
        (["init_from=evil.pt"], "evil.pt: no checkpoint and no state dict, or damaged"),
        (["init_from=list.pt"], "list.pt: no checkpoint and no state dict, but a list"),
        (["init_from=empty.pt"], "empty.pt: no checkpoint with weights, and no state dict"),
        (["init_from=bare.pt", "network=null"], "bare weights do not say of which network; give network=NAME"),
        (["init_from=bare.pt", "network=tiny"], "the weights are of another network"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(arguments: list[str], words: str, call: Run, mnist: Bundle, tmp_path: Path) -> None:
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("hello")
    for name, content in {"evil": Evil(), "list": [1], "empty": {"epoch": 1}, "bare": dict(mnist.weights)}.items():
        torch.save(content, tmp_path / f"{name}.pt")
    whole = (tmp_path / "bare.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert words in the_error(call("train", *QUICK, *arguments))
    assert not (tmp_path / "evil").exists()  # nothing in a file is run
    assert not list(tmp_path.rglob("bundle"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init_from=mnist"], "init_from=mnist reads characters, and this data is of lines"),
        (["init_from=copiste", "network=transformer"], "the weights are of another network"),
        (["init_from=copiste", "network=crnn", "data.preprocess.height=48"], "height 64, here 48"),
        (["init_from=copiste", "init_mismatch=fresh", "network=transformer"], "none of its layers fits"),
        (["init_from=copiste", "data.path=greek"], "init_from=copiste has no character in common with the data"),
        (["init_from=copiste", "data.path=greek", "charset.on_change=replace"], "no character in common"),
        (["init_from=copiste", "data.path=greek", "charset.on_change=keep"], "no character in common"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_for_lines(arguments: list[str], words: str, call: Run, dashes: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_split(tmp_path / "greek", split, ["αβγ δεζ", "ηθ"])
    settings = [*LINES, *([] if any(a.startswith("network=") for a in arguments) else ["network=null"])]
    assert words in the_error(call("train", *settings, f"data.path={dashes}", *arguments))
    assert not list(tmp_path.rglob("bundle"))


def test_the_start_makes_its_charset_in_its_own_order(copiste: Bundle) -> None:
    start = start_of(copiste)
    for order in (["zŷ ſ", "a"], ["a", "ſ z", "ŷ"]):
        assert start.charset(make_charset, "extend")(order).characters == copiste.charset.characters + "ŷſ"
    assert start.charset(make_charset, "replace")(["ba"]).characters == "ab"
