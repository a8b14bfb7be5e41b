"""The networks for lines of conf/network: sizes, gradients, and that a line is read alike in every batch."""

from __future__ import annotations

import math
import re
import warnings

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from hwr.config import CONF_DIR
from hwr.decoding import GreedyDecoder
from hwr.errors import HwrError
from hwr.networks import LineNetwork, build
from hwr.networks.bilstm import BiLSTM
from hwr.networks.columns import recurring
from hwr.networks.crnn_mobilenet import MaskedSqueezeExcitation, MobileBackbone
from hwr.networks.dropout import Dropout
from hwr.networks.stages import Stage
from hwr.networks.transformer import LineTransformer, positions
from hwr.text import Charset

LINES = re.compile("crnn|transformer")
NAMES = sorted(path.stem for path in (CONF_DIR / "network").glob("*.yaml") if LINES.match(path.stem))
CLASSES = 100
WIDEST = {"crnn_resnet": 200, "crnn_vgg": 200}  # the slow ones
SMALL = [{"channels": 8}, {"channels": 12, "kernel": 5, "depth": 2, "residual": True}, {"channels": 16, "pool": [2, 1]}]


def make(name: str, num_classes: int = CLASSES, height: int = 64, **more: object) -> LineNetwork:
    torch.manual_seed(0)
    config = OmegaConf.load(CONF_DIR / "network" / f"{name}.yaml")
    return build({**config, **more}, num_classes=num_classes, height=height)


def lively(net: LineNetwork) -> LineNetwork:
    """With biases, statistics of batch-norm and strong weights as after training: padding does not stay zero."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0
    for name, parameter in net.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter, std=0.1)
        if "rnn" in name and "weight" in name:
            parameter.data *= 2
    nn.init.normal_(net.head.weight, std=0.5)
    with torch.no_grad():
        net.train()(lines([200] * 2), torch.tensor([200, 170]))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 0.2 * torch.randn(module.num_features) * module.running_var.sqrt()
            module.running_var *= torch.empty(module.num_features).uniform_(0.7, 1.4)
    return net.eval()


def lines(widths: list[int], height: int = 64) -> Tensor:
    """Random patches of noise (B, 1, H, W), 0 beyond each width; H a multiple of 8."""
    images = torch.zeros(len(widths), 1, height, max(widths))
    for image, width in zip(images, widths, strict=True):
        patches = (
            (torch.rand(height // 8, -(-width // 8)) > 0.5).float().repeat_interleave(8, 0).repeat_interleave(8, 1)
        )
        image[0, :, :width] = patches[:, :width] * torch.rand(height, width)
    return images


def true_frames(net: LineNetwork, images: Tensor, widths: list[int]) -> list[Tensor]:
    with torch.inference_mode():
        logits, frames, aside = net(images, torch.tensor(widths))
    assert aside is None
    return [line[:n] for line, n in zip(logits, frames.tolist(), strict=True)]


def difference(some: list[Tensor], others: list[Tensor]) -> float:
    assert [len(line) for line in some] == [len(line) for line in others]
    return max((a - b).abs().max().item() for a, b in zip(some, others, strict=True))


def ctc(logits: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    log_probs = logits.log_softmax(2).transpose(0, 1)
    return nn.functional.ctc_loss(log_probs, targets, frames, lengths)


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_read_alike_alone_and_in_a_batch(name):
    net = lively(make(name))
    widest = WIDEST.get(name, 900)
    draw = np.random.default_rng(0).integers(1, widest // 2, 32 - 10).tolist()
    widths = [1, 2, 7, 8, 9, 33, 64, 65, widest // 2, widest, *draw]
    images = lines(widths)
    together = true_frames(net, images, widths)
    alone = [true_frames(net, image[None, :, :, :w], [w])[0] for image, w in zip(images, widths, strict=True)]
    scale = torch.cat(together).std().item()
    assert 0.3 < scale < 30
    worst = difference(together, alone)
    print(f"{name}: batch 1 against 32 differs by {worst:.1e}, standard deviation {scale:.1f}")
    assert worst < 1e-4 * max(1, scale)

    decoder = GreedyDecoder(Charset("".join(chr(0x4E00 + i) for i in range(CLASSES - 1))))
    texts = [
        [decoder(line.log_softmax(1)[None], [len(line)])[0].text for line in readings] for readings in (together, alone)
    ]
    assert texts[0] == texts[1]
    assert len(set("".join(texts[0]))) > 5


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_irrelevant(name):
    """More of it, and whatever stands further to the right than the backbone reaches."""
    net, widths = lively(make(name)).double(), [1, 30, 77]  # rounding aside, the answers are the same
    images = lines(widths).double()
    want = true_frames(net, images, widths)
    wider = nn.functional.pad(images, (0, 203))
    assert difference(true_frames(net, wider, widths), want) < 1e-10
    for image, width in zip(wider, widths, strict=True):
        image[:, :, width + net.backbone.reach + net.stride :] = 3.0
    assert difference(true_frames(net, wider, widths), want) < 1e-10
    nearer = nn.functional.pad(images, (0, 203))
    nearer[0, :, :, 1] = 3.0
    assert (true_frames(net, nearer, widths)[0] - want[0]).abs().max() > 1e-3  # what is near counts


def test_training_sees_few_widths():
    """For every new one a CPU makes kernels."""
    sizes = range(1, 5000)
    assert all(size <= recurring(size) <= 17 / 16 * size for size in sizes)
    assert [recurring(size) for size in range(1, 257)] == list(range(1, 257))
    assert len({recurring(size) for size in sizes if size > 256}) < 75
    net, shapes = make("crnn").train(), []
    net.rnn.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[1]))
    net.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[3]))
    for widths in ([720, 641], [710, 3], [706, 600]):
        logits, lengths, aside = net(lines(widths), torch.tensor(widths))
        assert logits.shape[1] == aside.shape[1] == lengths.max() == -(-widths[0] // 8)
    assert shapes == [768, 92] * 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("height", [32, 48, 64, 96, 128])
def test_frames(name, height):
    net = make(name, height=height).eval()
    widths = [1, 3, 4, 5, 8, 9, 39, 40, 41]
    assert net.stride == (4 if name == "crnn_vgg" else 8)
    assert net.output_lengths(torch.arange(1, 200)).tolist() == [math.ceil(w / net.stride) for w in range(1, 200)]
    logits, frames, _ = net(lines(widths, height), torch.tensor(widths))
    assert frames.tolist() == [math.ceil(w / net.stride) for w in widths]
    assert frames.dtype == torch.int64
    assert logits.shape == (len(widths), max(frames), CLASSES)


def multiply_adds(net: LineNetwork, height: int, width: int) -> float:
    """Of one line; the counter does not see LSTMs."""
    seen: list[int] = []

    def count(lstm: nn.LSTM, inputs: tuple[Tensor], _: object) -> None:
        batch, frames, features = inputs[0].shape
        seen.append(batch * frames * 4 * lstm.hidden_size * (features + lstm.hidden_size))

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.LSTM)]
    with FlopCounterMode(display=False) as counter:  # not in inference mode, where a fused encoder hides from it
        net.eval()(torch.rand(1, 1, height, width), torch.tensor([width]))
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() / 2 + sum(seen)


def test_the_counter_does_not_see_lstms():
    with FlopCounterMode(display=False) as counter:
        nn.LSTM(4, 8)(torch.rand(3, 1, 4))
    assert counter.get_total_flops() == 0  # else multiply_adds counts them twice


@pytest.mark.parametrize(
    ("name", "low", "high", "gmac"),
    [
        ("crnn", 1.5e6, 3e6, 0.42),
        ("crnn_large", 1.9e6, 3e6, 0.6),
        ("crnn_mobilenet", 2.4e6, 2.8e6, 0.4),
        ("crnn_resnet", 6e6, 8.5e6, 9.0),
        ("crnn_vgg", 5e6, 5.2e6, 8.2),
        ("transformer", 3e6, 6e6, 2.0),
    ],
)
def test_sizes(name, low, high, gmac):
    net = make(name)
    parameters, work = sum(p.numel() for p in net.parameters()), multiply_adds(net, 64, 1000) / 1e9
    print(f"{name}: {parameters / 1e6:.2f} M parameters, {work:.3f} GMAC")
    assert low <= parameters <= high
    assert 0.9 * gmac < work <= gmac


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name):
    net, widths = make(name).train(), [150, 90]
    logits, frames, aside = net(lines(widths), torch.tensor(widths))
    targets, lengths = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([3, 2])
    loss = ctc(logits, frames, targets, lengths)
    equal = ctc(torch.zeros_like(logits), frames, targets, lengths)
    assert loss.item() == pytest.approx(equal.item(), rel=0.05)  # starts from nearly equal probabilities
    assert (aside is None) == (name == "crnn_vgg")
    if aside is not None:
        assert aside.shape == logits.shape
        loss = loss + ctc(aside, frames, targets, lengths)
    loss.backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_reset_head_keeps_the_backbone(name):
    net, widths = make(name).double().eval(), torch.tensor([40, 17])
    images = lines(widths.tolist()).double()
    maps = net.backbone(images)
    net.reset_head(7)
    assert torch.equal(net.backbone(images), maps)
    assert net(images, widths)[0].shape == (2, 5 if net.stride == 8 else 10, 7)
    assert net.head.weight.dtype == torch.float64
    assert not net.head.bias.any()
    aside = net.train()(images, widths)[2]
    assert aside is None or aside.shape[2] == 7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_half_precision(name, training):
    net, widths = lively(make(name, dropout=0)).train(training), torch.tensor([100, 61])
    images = lines(widths.tolist())
    with torch.no_grad():
        want = net(images, widths)[0]
        with torch.autocast("cpu", torch.bfloat16):
            got = net(images, widths)[0]
    assert got.isfinite().all()
    assert (got[0].float() - want[0]).std() < 0.25 * want[0].std()


def test_lstm_is_a_packed_one():
    torch.manual_seed(0)
    ours = BiLSTM(5, 7, 2).double()
    packed = nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for layer in range(2):
            for lstm, suffix in ((ours.forwards[layer], ""), (ours.backwards[layer], "_reverse")):
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(packed, f"{part}_l{layer}{suffix}").copy_(getattr(lstm, f"{part}_l0"))
    lengths = torch.tensor([4, 9, 1])
    x = torch.randn(3, 9, 5, dtype=torch.float64, requires_grad=True)
    sequences = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    want, _ = pad_packed_sequence(packed(sequences)[0], batch_first=True)
    true = (torch.arange(9) < lengths[:, None])[:, :, None]
    got = ours(x, lengths) * true
    torch.testing.assert_close(got, want)
    weights = torch.randn_like(want)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (got, want)))


def excitation() -> MaskedSqueezeExcitation:
    torch.manual_seed(0)
    net = MaskedSqueezeExcitation(nn.Conv2d(4, 3, 1), nn.Conv2d(3, 4, 1)).double()
    nn.init.ones_(net.squeeze.bias)  # ReLU lets something through
    return net


def test_masked_squeeze_excitation_is_the_usual_one_of_the_true_columns():
    from torchvision.ops.misc import SqueezeExcitation

    ours = excitation()
    usual = SqueezeExcitation(4, 3, scale_activation=nn.Hardsigmoid).double()
    usual.load_state_dict(dict(zip(usual.state_dict(), ours.state_dict().values(), strict=True)))
    x, columns = torch.randn(3, 4, 2, 6, dtype=torch.float64), torch.tensor([6, 1, 4])
    got = ours(x, columns)
    for i, n in enumerate(columns):
        torch.testing.assert_close(got[i, :, :, :n], usual(x[i : i + 1, :, :, :n])[0])


def test_gradient_of_masked_squeeze_excitation():
    net, columns = excitation(), torch.tensor([5, 2])
    x = torch.randn(2, 4, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: net(x, columns), (x, *net.parameters()))
    (slope,) = torch.autograd.grad(net(x, columns)[1, :, :, :2].sum(), x)
    assert slope[1, :, :, :2].abs().min() > 0
    assert not slope[1, :, :, 2:].any()


def transformer(**settings: object) -> LineTransformer:
    torch.manual_seed(0)
    tiny = {"width": 6, "layers": 2, "heads": 2, "feedforward": 8, "dropout": 0}
    return LineTransformer(3, 4, [{"channels": 2}], **{**tiny, **settings})


def test_gradient_of_masked_attention():
    net, lengths = transformer().double(), torch.tensor([4, 2])
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)

    def true(x: Tensor) -> Tensor:
        read = net.read(x, lengths)
        return torch.cat([read[0], read[1, :2]])

    assert torch.autograd.gradcheck(true, (x,))
    (slope,) = torch.autograd.grad((true(x) * torch.randn(6, 6, dtype=torch.float64)).sum(), x)
    assert slope[1, :2].abs().min() > 0
    assert not slope[1, 2:].any()


def test_fused_attention_is_the_one_that_is_trained():
    """In inference torch takes another path through the encoder; it warns where it must not."""
    net, widths = lively(make("transformer", dropout=0)), torch.tensor([200, 90, 3])
    images = lines(widths.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow = net(images, widths)[0]
        fused = true_frames(net, images, widths.tolist())
    assert difference(fused, [line[:n] for line, n in zip(slow.detach(), (25, 12, 1), strict=True)]) < 1e-4


def test_positions():
    table = positions(3000, 6).numpy()
    for t in (0, 1, 2999):
        rates = [10_000 ** (-i / 6) for i in (0, 2, 4)]
        np.testing.assert_allclose(table[t, 0::2], [math.sin(t * r) for r in rates], atol=1e-3)
        np.testing.assert_allclose(table[t, 1::2], [math.cos(t * r) for r in rates], atol=1e-3)


def test_mobile_backbone_is_torchvisions():
    """The same weights in torchvision's own blocks give the same maps of a line without padding."""
    from torchvision.models import mobilenet_v3_small

    ours = MobileBackbone(64).double()
    theirs = mobilenet_v3_small(norm_layer=nn.BatchNorm2d).features[:12].double()
    theirs[0][0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False).double()
    for block, depthwise in ((2, 1), (9, 1)):
        theirs[block].block[depthwise][0].stride = (2, 1)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = lines([100, 100]).double()
    torch.testing.assert_close(ours(images), theirs(images))
    assert ours(images).shape == (2, ours.channels, ours.rows, 13)


@pytest.mark.parametrize("collapse", ["flatten", "max"])
def test_gradient_of_the_loss_by_finite_differences(collapse):
    """Convolutions with batch-norm, guard, LSTM, shortcut and CTC on lines of different widths, in training."""
    torch.manual_seed(0)
    settings = {"collapse": collapse, "width": 5, "hidden": 4, "layers": 2, "dropout": 0}
    net = build({"_target_": "hwr.networks.CRNN", "stages": SMALL, **settings}, num_classes=4, height=16).double()
    widths = [61, 20, 33]
    images, targets, lengths = lines(widths, 16).double(), torch.tensor([1, 2, 2, 3, 1]), torch.tensor([3, 1, 1])

    def loss() -> Tensor:
        logits, frames, aside = net(images, torch.tensor(widths))
        return ctc(logits, frames, targets, lengths) + 0.1 * ctc(aside, frames, targets, lengths)

    loss().backward()
    step = 1e-7
    for name, parameter in net.named_parameters():
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                old = parameter.clone()
                parameter += sign * step * direction
                values.append(loss().item())
                parameter.copy_(old)
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-6), name


def test_crnn_learns_eight_lines_by_heart():
    torch.manual_seed(0)
    texts = ["0123", "4567", "8901", "2255", "31415", "7", "90", "66180"]
    widths = [16 + 18 * len(text) for text in texts]
    images = torch.zeros(8, 1, 32, max(widths))
    for image, text in zip(images, texts, strict=True):
        canvas = np.zeros(image.shape[1:], np.uint8)
        cv2.putText(canvas, text, (6, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2, cv2.LINE_AA)
        image[0] = torch.from_numpy(canvas) / 255
    small = {"stages": SMALL, "width": 32, "hidden": 32, "layers": 1, "dropout": 0}
    charset = Charset("0123456789")
    net = make("crnn", 11, 32, **small)
    targets = torch.tensor([label for text in texts for label in charset.encode(text)])
    lengths = torch.tensor([len(text) for text in texts])
    optimizer, decoder = torch.optim.Adam(net.parameters(), 5e-3), GreedyDecoder(charset)
    for _ in range(300):
        logits, frames, aside = net.train()(images, torch.tensor(widths))
        loss = ctc(logits, frames, targets, lengths)
        optimizer.zero_grad()
        (loss + 0.1 * ctc(aside, frames, targets, lengths)).backward()
        optimizer.step()
        if loss < 0.1:
            break
    with torch.inference_mode():
        logits, frames, _ = net.eval()(images, torch.tensor(widths))
    assert [line.text for line in decoder(logits.log_softmax(2), frames)] == texts


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("crnn", {"height": 8}, "the stages shrink a line of 8 pixels to nothing"),
        ("crnn", {"stages": [{"channels": 4, "kernel": 4}]}, "odd kernel"),
        ("crnn", {"stages": [{"channels": 4, "depth": 0}]}, "depth, stride and pool of at least 1"),
        ("crnn", {"stages": [{"channels": 4, "pool": [2, 0]}]}, "pool of at least 1"),
        ("crnn", {"stages": [{"channels": 4, "pool": [2, 2, 2]}]}, r"pool must be one number or \[height, width\]"),
        ("crnn", {"stages": [{"channels": 4, "dropout": 2}]}, "dropout"),
        ("crnn", {"stages": [{"chanels": 4}]}, "chanels"),
        ("crnn", {"stages": [{}]}, "channels"),
        ("crnn", {"collapse": "mean"}, "collapse must be flatten or max, not 'mean'"),
        ("crnn", {"hidden": 0}, "hidden and layers must be at least 1"),
        ("crnn", {"dropout": 2}, "dropout"),
        ("crnn", {"colour": "red"}, "colour"),
        ("crnn_mobilenet", {"layers": 0}, "layers must be at least 1"),
        ("crnn_mobilenet", {"colour": "red"}, "colour"),
        ("transformer", {"height": 8}, "the stages shrink a line of 8 pixels to nothing"),
        ("transformer", {"heads": 3}, "width 256 must be even and a multiple of the 3 heads"),
        ("transformer", {"layers": 0}, "at least 1"),
        ("transformer", {"dropout": 2}, "dropout"),
    ],
)
def test_settings_that_do_not_fit(name, settings, says):
    with pytest.raises(HwrError, match=says):
        make(name, **settings)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.83])
def test_dropout_keeps_a_share_and_the_mean(share):
    torch.manual_seed(0)
    drop, x = Dropout(share).train(), torch.ones(1001, 999, requires_grad=True)
    y = drop(x)
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - share, abs=0.003)  # six standard deviations at most
    assert torch.equal(y[kept], torch.full_like(y[kept], 1 / (1 - share)))
    along = (
        kept.flatten()[: 4 * (kept.numel() // 4)].view(-1, 4).float()
    )  # four share a random number: they are independent
    assert (torch.corrcoef(along.T) - torch.eye(4)).abs().max() < 0.01
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    assert torch.equal(drop.train()(x), y)


def test_dropout_of_nothing_and_of_everything():
    x = torch.rand(7, 5)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert not Dropout(1.0).train()(x).any()
    assert Dropout(0.5).train()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("stride", "pool"), [(1, 1), (2, 1), (2, 2), (3, [2, 1]), (1, [1, 3])])
def test_a_stage_knows_the_size_of_its_maps_and_what_they_depend_on(stride, pool, residual):
    stage = Stage(2, 3, kernel=5, depth=2, stride=stride, pool=pool, residual=residual).double().eval()
    for height, width in [(12, 24), (13, 29), (17, 31)]:
        assert stage(torch.rand(1, 2, height, width, dtype=torch.double)).shape[2:] == stage.size(height, width)
    images = torch.rand(1, 2, 12, 60, dtype=torch.double, requires_grad=True)
    column = 2
    stage(images)[..., column].sum().backward()
    seen = images.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert column * stage.shrink < seen.max().item() <= column * stage.shrink + stage.reach
