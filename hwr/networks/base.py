"""What every network for single characters has, and every network for lines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwr.networks.parts import Network


class CharacterNetwork(Network):
    """A ``backbone`` from images to features and a linear ``head`` from features to classes.

    Attributes:
        backbone: float (B, 1, H, W) -> (B, F).
        head: (B, F) -> (B, C) logits.
    """

    backbone: nn.Sequential
    head: nn.Linear

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of normalised images (B, 1, H, W)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def reset_head(self, num_classes: int) -> None:
        """Replaces the head by a fresh one for other classes."""
        old = self.head.weight
        self.head = nn.Linear(old.shape[1], num_classes, device=old.device, dtype=old.dtype)
        init_linear(self.head)


def init_linear(layer: nn.Linear) -> None:
    """Small normal weights and zero biases, so that training starts from nearly equal probabilities."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


class LineNetwork(Network):
    """A ``backbone`` from images to columns of features, something that reads along them, and a linear ``head``.

    What a line is read as does not depend on the lines beside it in the batch.

    Attributes:
        backbone: Float (B, 1, H, W) -> maps (B, F, H', T).
        head: (B, T, F) -> (B, T, C) logits, class 0 the CTC blank.
        stride: Pixels of the line for each frame.
    """

    backbone: nn.Module
    head: nn.Linear
    stride: int

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Reads a batch.

        Args:
            images: Float (B, 1, H, W), ink positive on 0, padded with 0 on the right.
            widths: True widths int64 (B,), at most W.

        Returns:
            Logits (B, T, C), true frames int64 (B,), and in training perhaps further logits (B, T, C) to learn from.
        """
        raise NotImplementedError

    def output_lengths(self, widths: Tensor) -> Tensor:
        """Frames (B,) of images of these widths (B,): one for every ``stride`` pixels begun."""
        return torch.div(widths + self.stride - 1, self.stride, rounding_mode="floor")

    def reset_head(self, num_classes: int) -> None:
        """Replaces the outputs by fresh ones for another charset."""
        old = self.head.weight
        self.head = nn.Linear(old.shape[1], num_classes, device=old.device, dtype=old.dtype)
        init_linear(self.head)
