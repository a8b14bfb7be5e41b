"""A convolutional network as a list of stages: from LeNet-like classics to small residual nets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hwr.networks.base import CharacterNetwork, init_linear
from hwr.networks.stages import Stage


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
        channels, height, width = 1, image_size, image_size
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for i, settings in enumerate(stages, start=1):
            parts[f"stage{i}"] = stage = Stage(channels, **settings)
            channels, (height, width) = stage.channels, stage.size(height, width)
        if min(height, width) < 1:
            raise ValueError(
                f"{len(stages)} stages shrink images of {image_size} pixels to nothing; use fewer or pool less"
            )
        parts["pooling"] = POOLING[pooling]()
        features = channels * height * width if pooling == "flatten" else channels
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
