"""A stage of convolutions, the part that networks for characters and for lines are made of."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Stage(nn.Module):
    """``depth`` convolutions of one width, each followed by batch-norm and ReLU, and max-pooling.

    Pooling comes right after the last convolution, so that batch-norm and ReLU see a quarter of the values; without
    batch-norm the result is what pooling at the end would give.

    Args:
        in_channels: Channels that come in.
        channels: Channels of all convolutions.
        kernel: Odd side of the kernels.
        depth: Number of convolutions.
        stride: Of the first convolution; on a CPU far cheaper than pooling while images are large and channels few.
        norm: Batch-norm (the convolutions then have no bias).
        pool: Side of the max-pooling, or its height and width; 1 for none.
        residual: Adds what came in (through a 1x1 convolution where the widths differ) to the last convolution.
        depthwise: Makes convolutions of more than one channel depthwise separable (Howard et al. 2017).
        dropout: At the end.
        drop_channels: Whether dropout takes whole channels.

    Attributes:
        channels: Of the maps.
        shrink: How many columns become one.
        reach: Columns to the right of the first of those that become one, as far as the one depends on them.

    Raises:
        ValueError: If ``kernel`` is even, a size is below 1, or ``pool`` is neither one number nor two.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        depth: int = 1,
        stride: int = 1,
        norm: bool = True,
        pool: int | Sequence[int] = 2,
        residual: bool = False,
        depthwise: bool = False,
        dropout: float = 0.0,
        drop_channels: bool = False,
    ) -> None:
        super().__init__()
        sides = (pool, pool) if isinstance(pool, int) else tuple(pool)
        if len(sides) != 2:
            raise ValueError(f"pool must be one number or [height, width], not {pool!r}")
        if kernel % 2 == 0 or min(channels, kernel, depth, stride, *sides) < 1:
            raise ValueError("a stage needs channels, depth, stride and pool of at least 1 and an odd kernel")
        self.channels, self.shrink = channels, stride * sides[1]
        self.reach = kernel // 2 + stride * ((depth - 1) * (kernel // 2) + sides[1] - 1)
        self._stride, self._pool = stride, sides
        layers: list[nn.Module] = []
        for i in range(depth):
            if i:
                layers += [*_norm(channels, norm), nn.ReLU(inplace=True)]
                layers += _convolution(channels, channels, kernel, 1, not norm, depthwise)
            else:
                layers += _convolution(in_channels, channels, kernel, stride, not norm, depthwise)
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual:
            same = in_channels == channels and stride == 1
            self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        end: list[nn.Module] = [nn.MaxPool2d(sides)] if max(sides) > 1 else []
        end += [*_norm(channels, norm), nn.ReLU(inplace=True)]
        drop = nn.Dropout2d(dropout) if drop_channels else nn.Dropout(dropout)
        self.end = nn.Sequential(*end, *([drop] if dropout else []))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the maps of images of this size."""
        down, across = self._pool
        return -(-height // self._stride) // down, -(-width // self._stride) // across

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, channels, *size(H, W))."""
        y: Tensor = self.layers(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.end(y)
        return out


def _convolution(
    in_channels: int, channels: int, kernel: int, stride: int, bias: bool, separable: bool
) -> list[nn.Module]:
    same = kernel // 2
    if not separable or in_channels == 1:
        return [nn.Conv2d(in_channels, channels, kernel, stride, same, bias=bias)]
    depthwise = nn.Conv2d(in_channels, in_channels, kernel, stride, same, groups=in_channels, bias=False)
    return [depthwise, nn.Conv2d(in_channels, channels, 1, bias=bias)]


def _norm(channels: int, norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm else []
