"""Convolutions, a transformer, and CTC: a network that reads lines without recurrence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwr.networks.columns import ColumnNetwork, LineStages


class LineTransformer(ColumnNetwork):
    """Convolutions, a transformer encoder over the columns (Vaswani et al. 2017, arXiv:1706.03762), and a linear layer.

    Layer-norm comes before attention (Xiong et al. 2020, arXiv:2002.04745), positions are sines, so that a line may be
    of any length. No true frame attends to padding.

    Args:
        num_classes: Outputs, with the blank (index 0).
        height: Of the images.
        stages: Settings of each :class:`hwr.networks.stages.Stage`, but for ``in_channels``.
        width: Of the vectors; even, and a multiple of ``heads``.
        layers: Of the encoder.
        heads: Of the attention.
        feedforward: Units between the two linear layers of each layer.
        dropout: After the positions, and in each layer.
        shortcut: Whether there is a shortcut, see :class:`ColumnNetwork`.

    Raises:
        ValueError: If the stages do not fit the height or a setting is out of range.
    """

    reader = "encoder"

    def __init__(
        self,
        num_classes: int,
        height: int,
        stages: Sequence[Mapping[str, Any]],
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 1024,
        dropout: float = 0.1,
        shortcut: bool = True,
    ) -> None:
        if min(num_classes, height, width, layers, heads, feedforward) < 1:
            raise ValueError("num_classes, height, width, layers, heads and feedforward must be at least 1")
        if width % 2 or width % heads:
            raise ValueError(f"width {width} must be even and a multiple of the {heads} heads")
        super().__init__(LineStages(height, stages), "flatten")
        self.neck = nn.Sequential(nn.Linear(self.features, width), nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.add_outputs(num_classes, width, width, shortcut)

    def read(self, columns: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ColumnNetwork.read`."""
        frames, width = columns.shape[1:]
        padding = torch.arange(frames, device=columns.device) >= lengths[:, None]  # (B, T)
        placed = self.dropout(columns + positions(frames, width).to(columns))
        read: Tensor = self.encoder(placed, src_key_padding_mask=padding)
        return read


def positions(frames: int, width: int) -> Tensor:
    """Sines and cosines float32 (T, F) of wavelengths from 2 pi to 10,000 x 2 pi frames, F even."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
