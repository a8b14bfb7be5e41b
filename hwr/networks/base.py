"""What every network for single characters has."""

from __future__ import annotations

from torch import Tensor, nn


class CharacterNetwork(nn.Module):
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
