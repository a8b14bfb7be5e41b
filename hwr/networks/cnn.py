"""A convolutional network as a list of stages: from LeNet-like classics to small residual nets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hwr.networks.base import CharacterNetwork, init_linear


class Stage(nn.Module):
    """``depth`` convolutions of one width, each followed by batch-norm and ReLU, and max-pooling.

    Pooling comes right after the last convolution, so that batch-norm and ReLU see a quarter of the values; without
    batch-norm the result is what pooling at the end would give.

    Args:
        in_channels: Channels that come in.
        channels: Channels of all convolutions.
        kernel: Odd side of the kernels.
        depth: Number of convolutions.
        norm: Batch-norm (the convolutions then have no bias).
        pool: Side and stride of the max-pooling; 1 for none.
        residual: Adds what came in (through a 1x1 convolution where the widths differ) to the last convolution.
        depthwise: Makes convolutions of more than one channel depthwise separable (Howard et al. 2017).
        dropout: At the end.

    Raises:
        ValueError: If ``kernel`` is even, or a size is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        depth: int = 1,
        norm: bool = True,
        pool: int = 2,
        residual: bool = False,
        depthwise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or min(channels, kernel, depth, pool) < 1:
            raise ValueError("a stage needs channels, depth and pool of at least 1 and an odd kernel")
        layers: list[nn.Module] = []
        for i in range(depth):
            if i:
                layers += [*_norm(channels, norm), nn.ReLU(inplace=True)]
            layers += _convolution(channels if i else in_channels, channels, kernel, not norm, depthwise)
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = (
                nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1, bias=False)
            )
        end: list[nn.Module] = [nn.MaxPool2d(pool)] if pool > 1 else []
        end += [*_norm(channels, norm), nn.ReLU(inplace=True)]
        self.end = nn.Sequential(*end, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, channels, H // pool, W // pool)."""
        y: Tensor = self.layers(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.end(y)
        return out


class CNN(CharacterNetwork):
    """Stages, pooling, fully connected layers, head. Weights start as He et al. 2015 propose for ReLU.

    Args:
        num_classes: Outputs.
        image_size: Side of the square images.
        stages: Settings of each :class:`Stage`, but for ``in_channels``.
        pooling: What becomes of the last map: ``flatten``, ``mean`` or ``max`` over all positions.
        hidden: Widths of fully connected layers before the head.
        norm: Batch-norm after each fully connected layer.
        dropout: Before the head (and between fully connected layers).

    Raises:
        ValueError: If the stages shrink the image to nothing, or ``pooling`` is none of the three.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        stages: Sequence[Mapping[str, Any]],
        pooling: str = "mean",
        hidden: Sequence[int] = (),
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, not {pooling!r}")
        side, width = image_size, 1
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for i, settings in enumerate(stages, start=1):
            parts[f"stage{i}"] = Stage(width, **settings)
            width, side = settings["channels"], side // settings.get("pool", 2)
        if side < 1:
            raise ValueError(
                f"{len(stages)} stages shrink images of {image_size} pixels to nothing; use fewer or pool less"
            )
        parts["pooling"] = POOLING[pooling]()
        features = width * side * side if pooling == "flatten" else width
        for i, size in enumerate(hidden, start=1):
            layers: list[nn.Module] = [nn.Linear(features, size, bias=not norm)]
            layers += [nn.BatchNorm1d(size)] if norm else []
            parts[f"hidden{i}"] = nn.Sequential(
                nn.Dropout(dropout) if i > 1 and dropout else nn.Identity(), *layers, nn.ReLU()
            )
            features = size
        parts["dropout"] = nn.Dropout(dropout)
        self.backbone = nn.Sequential(parts)
        self.head = nn.Linear(features, num_classes)
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in", nonlinearity="relu"
                )
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        init_linear(self.head)


class MeanPool(nn.Module):
    """(B, C, H, W) -> (B, C), the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Pools."""
        return x.mean((2, 3))


class MaxPool(nn.Module):
    """(B, C, H, W) -> (B, C), the largest value over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Pools."""
        return x.amax((2, 3))


POOLING: dict[str, type[nn.Module]] = {"flatten": nn.Flatten, "mean": MeanPool, "max": MaxPool}


def _convolution(in_channels: int, channels: int, kernel: int, bias: bool, separable: bool) -> list[nn.Module]:
    same = kernel // 2
    if not separable or in_channels == 1:
        return [nn.Conv2d(in_channels, channels, kernel, padding=same, bias=bias)]
    depthwise = nn.Conv2d(in_channels, in_channels, kernel, padding=same, groups=in_channels, bias=False)
    return [depthwise, nn.Conv2d(in_channels, channels, 1, bias=bias)]


def _norm(channels: int, norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm else []
