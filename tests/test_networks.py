"""The networks of conf/network: sizes, gradients, independence of a batch's answers, and the closed list."""

from __future__ import annotations

import math
import re

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from hwr.config import CONF_DIR
from hwr.errors import HwrError
from hwr.networks import CharacterNetwork, build

LINES = re.compile("crnn|transformer")  # in test_line_networks.py
NAMES = sorted(path.stem for path in (CONF_DIR / "network").glob("*.yaml") if not LINES.match(path.stem))
SEPARABLE = {
    "_target_": "hwr.networks.CNN",
    "stages": [{"channels": 8}, {"channels": 16, "depth": 2, "depthwise": True, "residual": True, "dropout": 0.1}],
    "hidden": [20, 15],
    "norm": True,
    "dropout": 0.3,
}


def make(name: str, num_classes: int = 10, image_size: int = 28, **more: object) -> CharacterNetwork:
    torch.manual_seed(0)
    config = (
        SEPARABLE if name == "separable" else OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"network/{name}.yaml"))
    )
    return build({**config, **more}, num_classes=num_classes, image_size=image_size)


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("classes", [10, 62])
@pytest.mark.parametrize("name", [*NAMES, "separable"])
def test_forward_and_backward(name, classes, size):
    net = make(name, classes, size)
    logits = net(torch.randn(4, 1, size, size))
    assert logits.shape == (4, classes)
    loss = nn.functional.cross_entropy(logits, torch.arange(4))
    assert abs(loss.item() - math.log(classes)) < 0.4  # starts from nearly equal probabilities
    loss.backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert net.head.weight.grad.abs().sum() > 0
    assert next(net.backbone.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("name", [*NAMES, "separable"])
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(name):
    net = make(name)
    images = torch.randn(32, 1, 28, 28)
    net.train()(images)  # moves the statistics of batch-norm
    nn.init.normal_(net.head.weight)
    with torch.inference_mode():
        together = net.eval()(images)
        alone = torch.cat([net(image[None]) for image in images])
        turned = net.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    scale = together.abs().max().item()
    assert together.std() > 0
    torch.testing.assert_close(alone, together, atol=1e-5 * scale, rtol=0)
    torch.testing.assert_close(turned, together, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("name", [*NAMES, "separable"])
def test_reset_head_keeps_the_backbone(name):
    net = make(name).double().eval()
    images = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    features = net.backbone(images)
    net.reset_head(5)
    assert net(images).shape == (2, 5)
    assert torch.equal(net.backbone(images), features)
    assert net.head.weight.dtype == torch.float64
    assert not net.head.bias.any()
    assert 0.005 < net.head.weight.std() < 0.02


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("tiny", 0, 10_000),
        ("cnn", 0, 2_000_000),
        ("fast", 28_500, 29_500),
        ("resnet18", 11.1e6, 11.3e6),
        ("mobilenet_v3", 1.5e6, 1.6e6),
    ],
)
def test_numbers_of_parameters(name, low, high):
    assert low < sum(p.numel() for p in make(name).parameters()) <= high


def lenet(one: int, two: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, one, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(one, two, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(two * 49, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 10),
    )  # fmt: skip


CLASSICS = {
    "lenet_16_32": lenet(16, 32, 0),
    "lenet_32_64": lenet(32, 64, 0.5),
    "keras_32_64": nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 196, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CLASSICS)
def test_classics_are_what_everybody_writes(name, training):
    """The same weights in a plain nn.Sequential give the same logits, in training with the same dropout too."""
    net, classic = make(name).train(training), CLASSICS[name].train(training)
    assert len(net.state_dict()) == len(classic.state_dict())
    classic.load_state_dict(dict(zip(classic.state_dict(), net.state_dict().values(), strict=True)))
    images = torch.randn(8, 1, 28, 28)
    answers = []
    for module in (net, classic):
        torch.manual_seed(3)
        answers.append(module(images))
    torch.testing.assert_close(*answers)


def test_stage_with_everything_is_what_its_docstring_says():
    """Depthwise, residual and batch-norm against torch's own functions on the same weights."""
    net = make("separable").eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    state, f = net.state_dict(), nn.functional

    def norm(x, name):
        part = [state[f"backbone.{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return f.relu(f.batch_norm(x, *part))

    def separable(x, first):
        x = f.conv2d(x, state[f"backbone.stage2.layers.{first}.weight"], padding=1, groups=x.shape[1])
        return f.conv2d(x, state[f"backbone.stage2.layers.{first + 1}.weight"])

    images = torch.randn(2, 1, 28, 28)
    x = norm(f.max_pool2d(f.conv2d(images, state["backbone.stage1.layers.0.weight"], padding=1), 2), "stage1.end.1")
    y = separable(norm(separable(x, 0), "stage2.layers.2"), 4) + f.conv2d(x, state["backbone.stage2.shortcut.weight"])
    want = norm(f.max_pool2d(y, 2), "stage2.end.1").mean((2, 3))
    torch.testing.assert_close(net.backbone[:3](images), want)


def test_pooling_of_one_number_is_that_of_two():
    images, nets = torch.randn(2, 1, 28, 28), [make("cnn", stages=[{"channels": 4, "pool": p}]) for p in (2, [2, 2])]
    torch.testing.assert_close(*(net.eval()(images) for net in nets), rtol=0, atol=0)
    assert make("cnn", stages=[{"channels": 4, "pool": [4, 2]}]).head.in_features == 4 * 7 * 14


@pytest.mark.parametrize("pooling", ["mean", "max", "flatten"])
def test_pooling_of_the_last_map(pooling):
    backbone = make("tiny", pooling=pooling).eval().backbone
    images = torch.randn(3, 1, 28, 28)
    maps = backbone[:3](images)
    want = {"mean": maps.mean((2, 3)), "max": maps.flatten(2).max(2).values, "flatten": maps.reshape(3, -1)}
    torch.testing.assert_close(backbone(images), want[pooling])


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "hwr.networks.base.CharacterNetwork", "CNN", None])
def test_only_listed_networks_are_built(target):
    with pytest.raises(HwrError, match=r"is not one of hwr\.networks\.CNN"):
        build({"_target_": target, "command": "true"})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stages": [{"channels": 4}] * 5}, "5 stages shrink images of 28 pixels to nothing"),
        ({"stages": [{"channels": 4, "pool": 30}]}, "1 stages shrink"),
        ({"stages": [{"channels": 4, "kernel": 4}]}, "odd kernel"),
        ({"stages": [{"channels": 4, "pool": 0}]}, "pool of at least 1"),
        ({"stages": [{"channels": 4, "pool": [2]}]}, r"pool must be one number or \[height, width\], not \[2\]"),
        ({"stages": [{"channels": 4, "pool": [2, 30]}]}, "1 stages shrink"),
        ({"stages": [{"channels": 4, "depth": 0}]}, "depth, stride and pool of at least 1"),
        ({"stages": [{"chanels": 4}]}, "chanels"),
        ({"stages": [{}]}, "channels"),
        ({"pooling": "median"}, "pooling must be one of flatten, mean, max, not 'median'"),
        ({"dropout": 2}, "dropout"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_that_do_not_fit(settings, says):
    with pytest.raises(HwrError, match=says):
        make("tiny", **settings)


def test_no_stages_is_a_linear_classifier():
    net = make("tiny", stages=[], pooling="flatten")
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(net(images), images.flatten(1) @ net.head.weight.T + net.head.bias)
