"""A bidirectional LSTM that does not see padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwr.networks.dropout import Dropout


class BiLSTM(nn.Module):
    """Layers of bidirectional LSTM over sequences of different lengths (Graves and Schmidhuber 2005).

    The backward direction reads each sequence from its true end: it is a forward LSTM over the frames in reverse order.
    The result is that of a packed ``nn.LSTM``, but every step takes the whole batch, which is several times faster on a
    CPU, and it can be exported to ONNX.

    Args:
        features: F, of the input.
        hidden: Units in each direction.
        layers: Number of layers.
        dropout: Between the layers.
    """

    def __init__(self, features: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        inputs = [features, *[2 * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(n, hidden, batch_first=True) for n in inputs)
        self.backwards = nn.ModuleList(nn.LSTM(n, hidden, batch_first=True) for n in inputs)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, F) and true lengths (B,) -> (B, T, 2 x hidden); what comes beyond a true length means nothing."""
        frames = torch.arange(x.shape[1], device=x.device)
        order = torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)  # (B, T), its own inverse
        order = order + len(frames) * torch.arange(len(x), device=x.device)[:, None]  # among the frames of all lines
        for i, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.dropout(x) if i else x
            x = torch.cat([ahead(x)[0], _reordered(back(_reordered(x, order))[0], order)], 2)
        return x


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, order.flatten()).view(x.shape)
