"""Convolutions, a bidirectional LSTM, and CTC: networks that read lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hwr.networks.base import LineNetwork, init_linear
from hwr.networks.bilstm import BiLSTM


class LineStage(nn.Module):
    """``depth`` convolutions of one width, and a max-pooling right after the last; batch-norm and ReLU after each.

    Args:
        in_channels: Channels that come in.
        channels: Channels of all convolutions.
        kernel: Odd side of the kernels.
        depth: Number of convolutions.
        pool: Height and width of the pooling (1 for none).
        residual: Adds what came in (through a 1x1 convolution where the widths differ) to the last convolution.
        dropout: Of whole channels, at the end.

    Raises:
        ValueError: If ``kernel`` is even, a size is below 1, ``pool`` is not two numbers, or ``dropout`` no share.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        depth: int = 1,
        pool: Sequence[int] = (2, 2),
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(pool, Sequence) or len(pool) != 2:
            raise ValueError(f"pool must be [height, width], not {pool!r}")
        if kernel % 2 == 0 or min(channels, kernel, depth, *pool) < 1:
            raise ValueError("a stage needs channels, depth and pool of at least 1 and an odd kernel")
        layers: list[nn.Module] = []
        for i in range(depth):
            if i:
                layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            width = channels if i else in_channels
            layers.append(nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = (
                nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1, bias=False)
            )
        end: list[nn.Module] = [] if max(pool) == 1 else [nn.MaxPool2d(tuple(pool))]
        end += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.end = nn.Sequential(*end, *([nn.Dropout2d(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, channels, H // pool[0], W // pool[1])."""
        y: Tensor = self.layers(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.end(y)
        return out


class LineBackbone(nn.Sequential):
    """From images to maps, stage by stage, so that the lines of a batch do not change each other.

    Attributes:
        channels: Of the maps.
        rows: Of the maps.
        stride: Pixels of the line for each column of the maps.
        reach: Pixels to the right of its first one that a column of the maps depends on, at most.
    """

    channels: int
    rows: int
    stride: int
    reach: int

    def forward(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) and true widths (B,), for those that need them -> (B, channels, rows, T)."""
        for stage in self:
            images = stage(images)
        return images

    def features(self, collapse: str) -> int:
        """Length of a column of the maps as a vector, see :class:`CRNN`."""
        return self.channels * (self.rows if collapse == "flatten" else 1)


class LineStages(LineBackbone):
    """A backbone of :class:`LineStage`.

    Args:
        height: Of the images.
        stages: Settings of each :class:`LineStage`, but for ``in_channels``.

    Raises:
        ValueError: If the stages shrink a line to nothing, or the settings of one do not fit.
    """

    def __init__(self, height: int, stages: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.channels, self.rows, self.stride, self.reach = 1, height, 1, 0
        for i, settings in enumerate(stages, start=1):
            self.add_module(f"stage{i}", LineStage(self.channels, **settings))
            self.channels = settings["channels"]
            self.reach += settings.get("depth", 1) * (settings.get("kernel", 3) // 2) * self.stride
            down, across = settings.get("pool", (2, 2))
            self.reach += (across - 1) * self.stride
            self.rows, self.stride = self.rows // down, self.stride * across
        if self.rows < 1:
            raise ValueError(f"the stages shrink a line of {height} pixels to nothing; use fewer or pool less")


class ColumnNetwork(LineNetwork):
    """A backbone, a ``neck`` that makes vectors of its columns, what :meth:`read` does along them, and the head.

    With a ``shortcut`` a single convolution over the vectors also learns to read, in training only, which makes the
    backbone learn sooner (Retsinas et al. 2022, arXiv:2404.11339).
    """

    backbone: LineBackbone
    neck: nn.Module
    shortcut: nn.Conv1d | None
    collapse: str

    def read(self, columns: Tensor, lengths: Tensor) -> Tensor:
        """Vectors (B, T, F) and true lengths (B,) -> what the head gets (B, T, G)."""
        raise NotImplementedError

    def columns(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        """Vectors (B, T, F) of at least every column that images (B, 1, H, W) of these true widths (B,) begin.

        On the right come so many empty pixels that no convolution of a true column reaches beyond them: to every line
        the rest of the batch looks like more of them.
        """
        guard = (-(-self.backbone.reach // self.stride) + 1) * self.stride
        maps = self.backbone(nn.functional.pad(images, (0, guard)), widths)  # (B, C, H', T)
        flat = maps.amax(2) if self.collapse == "max" else maps.flatten(1, 2)
        vectors: Tensor = self.neck(flat.transpose(1, 2))
        return vectors

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :meth:`LineNetwork.forward`; the shortcut's logits come along in training."""
        lengths = self.output_lengths(widths)
        frames = int(lengths.max())
        columns = self.columns(images, widths)[:, :frames]
        logits: Tensor = self.head(self.read(columns, lengths))
        aside = None
        if self.shortcut is not None and self.training:
            aside = self.shortcut(columns.transpose(1, 2)).transpose(1, 2)
        return logits, lengths, aside

    def reset_head(self, num_classes: int) -> None:
        """Replaces the outputs, the shortcut's too, by fresh ones for another charset."""
        super().reset_head(num_classes)
        if self.shortcut is not None:
            old = self.shortcut.weight
            self.shortcut = nn.Conv1d(old.shape[1], num_classes, 3, padding=1, device=old.device, dtype=old.dtype)


class CRNN(ColumnNetwork):
    """Convolutions, a bidirectional LSTM over the columns, and a linear layer (Shi et al. 2017, arXiv:1507.05717).

    What a line is read as does not depend on the lines beside it in the batch: see :meth:`ColumnNetwork.columns`, and
    the LSTM stops at the true length.

    Args:
        num_classes: Outputs, with the blank (index 0).
        height: Of the images.
        stages: Settings of each :class:`LineStage`, but for ``in_channels``; or another backbone.
        collapse: How a column becomes a vector: ``max`` over its height, or ``flatten``.
        width: Of the vector that enters the LSTM (after a linear layer); 0 leaves it as it is.
        hidden: Units of the LSTM in each direction.
        layers: Of the LSTM.
        dropout: Before, between and after the LSTM's layers.
        shortcut: Whether there is a shortcut, see :class:`ColumnNetwork`.

    Raises:
        ValueError: If the stages do not fit the height or a setting is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        height: int,
        stages: Sequence[Mapping[str, Any]] | LineBackbone,
        collapse: str = "flatten",
        width: int = 256,
        hidden: int = 192,
        layers: int = 2,
        dropout: float = 0.2,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        if collapse not in ("flatten", "max"):
            raise ValueError(f"collapse must be flatten or max, not {collapse!r}")
        if min(num_classes, height, hidden, layers) < 1 or width < 0:
            raise ValueError("num_classes, height, hidden and layers must be at least 1, and width at least 0")
        self.backbone = stages if isinstance(stages, LineBackbone) else LineStages(height, stages)
        self.stride, self.collapse = self.backbone.stride, collapse
        features = self.backbone.features(collapse)
        self.neck = nn.Sequential(nn.Linear(features, width), nn.ReLU()) if width else nn.Identity()
        features = width or features
        self.dropout = nn.Dropout(dropout)
        self.rnn = BiLSTM(features, hidden, layers, dropout)
        self.head = nn.Linear(2 * hidden, num_classes)
        self.shortcut = nn.Conv1d(features, num_classes, 3, padding=1) if shortcut else None
        init_convolutions(self.backbone)
        init_linear(self.head)

    def read(self, columns: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ColumnNetwork.read`."""
        read: Tensor = self.dropout(self.rnn(self.dropout(columns), lengths))
        return read


def init_convolutions(backbone: nn.Module) -> None:
    """Starts the weights as He et al. 2015 propose for ReLU."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
