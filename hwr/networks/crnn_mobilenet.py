"""MobileNetV3-Small as the backbone of a network that reads lines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hwr.networks.columns import LineBackbone
from hwr.networks.crnn import CRNN

STAGES = (((1, 2), 2), ((2, 4), 1), ((4, 9), 2), ((9, 12), 1))  # blocks between the halvings, and their stride across


class MaskedSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507) that averages over the true columns of each line.

    Args:
        squeeze: 1x1 convolution to fewer channels.
        excite: 1x1 convolution back.
    """

    def __init__(self, squeeze: nn.Conv2d, excite: nn.Conv2d) -> None:
        super().__init__()
        self.squeeze, self.excite = squeeze, excite

    def forward(self, x: Tensor, columns: Tensor) -> Tensor:
        """Scales the channels of maps (B, C, H, W), of which ``columns`` (B,) of each line are true."""
        inside = torch.arange(x.shape[3], device=x.device) < columns[:, None]  # (B, W)
        means = (x.mean(2) * inside[:, None]).sum(2) / columns[:, None]  # (B, C)
        squeezed = nn.functional.relu(self.squeeze(means[:, :, None, None]))
        return x * nn.functional.hardsigmoid(self.excite(squeezed))


class MobileBlock(nn.Module):
    """An inverted residual block of torchvision's (Howard et al. 2019, arXiv:1905.02244), told the true columns.

    Args:
        block: A ``torchvision.models.mobilenetv3.InvertedResidual``.
        stride: Of its depthwise convolution across.
    """

    def __init__(self, block: Any, stride: int) -> None:
        super().__init__()
        from torchvision.ops.misc import SqueezeExcitation

        self.residual = block.use_res_connect
        self.layers = nn.ModuleList(
            MaskedSqueezeExcitation(layer.fc1, layer.fc2) if isinstance(layer, SqueezeExcitation) else layer
            for layer in block.block
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                module.stride = (module.stride[0], stride)

    def forward(self, x: Tensor, columns: Tensor) -> Tensor:
        """Maps (B, C, H, W) -> (B, D, H', W'), where ``columns`` (B,) are true of W'."""
        y = x
        for layer in self.layers:
            y = layer(y, columns) if isinstance(layer, MaskedSqueezeExcitation) else layer(y)
        return x + y if self.residual else y


class MobileStage(nn.Module):
    """Blocks, the first of which halves the height.

    Args:
        blocks: The blocks of torchvision's.
        stride: Of the first across.
    """

    def __init__(self, blocks: nn.Sequential, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.blocks = nn.ModuleList(MobileBlock(block, 1 if i else stride) for i, block in enumerate(blocks))

    def forward(self, x: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H, W) and their true columns (B,) -> the same of the next."""
        columns = _begun(columns, self.stride)
        for block in self.blocks:
            x = block(x, columns)
        return x, columns


class MobileBackbone(LineBackbone):
    """The first twelve parts of torchvision's MobileNetV3-Small, which make 96 channels.

    They halve the height five times, but the width only three times: a narrow letter still has a frame of its own.
    Batch-norm has the usual momentum; torchvision's 0.01 is made for far longer training.

    Args:
        height: Of the images.
    """

    def __init__(self, height: int) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v3_small

        features = mobilenet_v3_small(weights=None, norm_layer=nn.BatchNorm2d).features
        features[0][0] = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)
        self.add_module("stem", features[0])
        for i, ((start, stop), stride) in enumerate(STAGES, start=1):
            self.add_module(f"stage{i}", MobileStage(features[start:stop], stride))
        self.channels, self.rows, self.stride, self.reach = 96, height, 1, 0
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                self.reach += module.kernel_size[1] // 2 * self.stride
                self.rows, self.stride = -(-self.rows // module.stride[0]), self.stride * module.stride[1]

    def forward(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        """See :meth:`LineBackbone.forward`; without widths all columns are true."""
        columns = images.new_full((len(images),), images.shape[3], dtype=torch.long) if widths is None else widths
        stem, *stages = self
        maps: Tensor = stem(images)
        columns = _begun(columns, 2)
        for stage in stages:
            maps, columns = stage(maps, columns)
        return maps


class MobileNetCRNN(CRNN):
    """MobileNetV3-Small (Howard et al. 2019, arXiv:1905.02244), a bidirectional LSTM over its columns, a linear layer.

    Args:
        num_classes: Outputs, with the blank (index 0).
        height: Of the images.
        settings: ``collapse``, ``width``, ``hidden``, ``layers``, ``dropout`` and ``shortcut`` of :class:`CRNN`.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, num_classes: int, height: int, **settings: Any) -> None:
        super().__init__(num_classes, height, MobileBackbone(height), **settings)


def _begun(columns: Tensor, stride: int) -> Tensor:
    return torch.div(columns + stride - 1, stride, rounding_mode="floor")
