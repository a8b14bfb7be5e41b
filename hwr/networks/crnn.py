"""Convolutions, a bidirectional LSTM, and CTC: networks that read lines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwr.networks.bilstm import BiLSTM
from hwr.networks.base import LineNetwork, init_linear


class LineStage(nn.Module):
    """``depth`` convolutions of one width, and a max-pooling right after the last.

    Args:
        in_channels: Channels that come in.
        channels: Channels of all convolutions.
        kernel: Odd side of the kernels.
        depth: Number of convolutions.
        pool: Height and width of the pooling (1 for none).
        residual: Adds what came in (through a 1x1 convolution where the widths differ) to the last convolution.
        dropout: Of whole channels, at the end.
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


class CRNN(LineNetwork):
    """Convolutions, a bidirectional LSTM over the columns, and a linear layer (Shi et al. 2017, arXiv:1507.05717).

    What a line is read as does not depend on the lines beside it in the batch: every image gets so many empty columns on
    its right that no convolution of a true frame reaches beyond them, and the LSTM stops at the true length.

    With ``shortcut`` a single convolution over the columns also learns to read, in training only, which makes the
    convolutions learn sooner (Retsinas et al. 2022, arXiv:2404.11339).

    Args:
        num_classes: Outputs, with the blank (index 0).
        height: Of the images.
        stages: Settings of each :class:`LineStage`, but for ``in_channels``.
        collapse: How a column becomes a vector: ``max`` over its height, or ``flatten``.
        width: Of the vector that enters the LSTM (after a linear layer); 0 leaves it as it is.
        hidden: Units of the LSTM in each direction.
        layers: Of the LSTM.
        dropout: Before, between and after the LSTM's layers.
        shortcut: Whether there is a shortcut.
    """

    def __init__(
        self,
        num_classes: int,
        height: int,
        stages: Sequence[Mapping[str, Any]],
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
        channels, rows, self.stride, reach = 1, height, 1, 0
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for i, settings in enumerate(stages, start=1):
            parts[f"stage{i}"] = LineStage(channels, **settings)
            channels = settings["channels"]
            reach += settings.get("depth", 1) * (settings.get("kernel", 3) // 2) * self.stride
            down, across = settings.get("pool", (2, 2))
            reach += (across - 1) * self.stride
            rows, self.stride = rows // down, self.stride * across
        if rows < 1:
            raise ValueError(f"the stages shrink a line of {height} pixels to nothing; use fewer or pool less")
        self.backbone = nn.Sequential(parts)
        self.collapse = collapse
        features = channels * (rows if collapse == "flatten" else 1)
        self.neck: nn.Module = nn.Sequential(nn.Linear(features, width), nn.ReLU()) if width else nn.Identity()
        features = width or features
        self.guard = -(-reach // self.stride) * self.stride
        self.dropout = nn.Dropout(dropout)
        self.rnn = BiLSTM(features, hidden, layers, dropout)
        self.head = nn.Linear(2 * hidden, num_classes)
        self.shortcut = nn.Conv1d(features, num_classes, 3, padding=1) if shortcut else None
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        init_linear(self.head)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :meth:`LineNetwork.forward`; the shortcut's logits come along in training."""
        lengths = self.output_lengths(widths)
        frames = int(lengths.max())
        columns = self.columns(images)[:, :frames]
        logits: Tensor = self.head(self.dropout(self.rnn(self.dropout(columns), lengths)))
        aside = None
        if self.shortcut is not None and self.training:
            aside = self.shortcut(columns.transpose(1, 2)).transpose(1, 2)
        return logits, lengths, aside

    def columns(self, images: Tensor) -> Tensor:
        """Features (B, T, F) of the columns of images (B, 1, H, W); T covers at least every pixel begun."""
        maps = self.backbone(nn.functional.pad(images, (0, self.guard + self.stride)))  # (B, C, H', T)
        flat = maps.amax(2) if self.collapse == "max" else maps.flatten(1, 2)  # (B, F, T)
        columns: Tensor = self.neck(flat.transpose(1, 2))
        return columns

    def reset_head(self, num_classes: int) -> None:
        """Replaces the outputs, the shortcut's too, by fresh ones for another charset."""
        super().reset_head(num_classes)
        if self.shortcut is not None:
            self.shortcut = nn.Conv1d(
                self.shortcut.in_channels, num_classes, 3, padding=1, device=self.head.weight.device
            )
