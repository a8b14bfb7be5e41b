"""Dropout whose random numbers do not cost as much as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``nn.Dropout``, several times faster in training on a CPU: four values share one random number of 64 bits.

    The share of values that is dropped is exact to 1/65536.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Same shape; in training some values are zero and the others larger."""
        if not self.training or not 0 < self.p < 1 or input.device.type != "cpu":
            return super().forward(input)
        numbers = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        level = round(self.p * 2**16) - 2**15
        kept = (numbers.view(torch.int16)[: input.numel()].view(input.shape) >= level).to(input.dtype)
        return input * kept.mul_(1 / (1 - self.p))
