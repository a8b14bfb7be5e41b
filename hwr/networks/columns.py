"""What networks that read lines share: a backbone, its columns as vectors, and the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hwr.networks.base import LineNetwork, init_linear
from hwr.networks.parts import split
from hwr.networks.stages import Stage


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


class LineStages(LineBackbone):
    """A backbone of :class:`Stage`.

    Args:
        height: Of the images.
        stages: Settings of each :class:`Stage`, but for ``in_channels``.

    Raises:
        ValueError: If the stages shrink a line to nothing, or the settings of one do not fit.
    """

    def __init__(self, height: int, stages: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.channels, self.rows, self.stride, self.reach = 1, height, 1, 0
        for i, settings in enumerate(stages, start=1):
            stage = Stage(self.channels, drop_channels=True, **settings)
            self.add_module(f"stage{i}", stage)
            self.reach += stage.reach * self.stride
            self.channels, self.stride = stage.channels, self.stride * stage.shrink
            self.rows, _ = stage.size(self.rows, 1)
        if self.rows < 1:
            raise ValueError(f"the stages shrink a line of {height} pixels to nothing; use fewer or pool less")


class ColumnNetwork(LineNetwork):
    """A backbone, a ``neck`` that makes vectors of its columns, what :meth:`read` does along them, and the head.

    With a ``shortcut`` a single convolution over the vectors also learns to read, in training only, which makes the
    backbone learn sooner (Retsinas et al. 2022, arXiv:2404.11339).

    A network that derives from this one makes its ``neck`` and what it reads with, then calls :meth:`add_outputs`.

    Args:
        backbone: From images to maps.
        collapse: How a column becomes a vector: ``max`` over its height, or ``flatten``.

    Attributes:
        features: Values of a column, as they enter the neck.
        reader: The name of the module that reads along the columns.

    Raises:
        ValueError: If ``collapse`` is neither of the two.
    """

    backbone: LineBackbone
    neck: nn.Module
    dropout: nn.Dropout
    shortcut: nn.Conv1d | None
    reader: str

    def __init__(self, backbone: LineBackbone, collapse: str) -> None:
        super().__init__()
        if collapse not in ("flatten", "max"):
            raise ValueError(f"collapse must be flatten or max, not {collapse!r}")
        self.backbone, self.stride, self.collapse = backbone, backbone.stride, collapse
        self.features = backbone.channels * (backbone.rows if collapse == "flatten" else 1)

    def add_outputs(self, num_classes: int, vector: int, read: int, shortcut: bool) -> None:
        """Adds the head and the shortcut, and starts the weights: the convolutions' as He et al. 2015 propose for ReLU.

        Args:
            num_classes: Outputs, with the blank (index 0).
            vector: Values of each vector that the neck gives.
            read: Values of each frame that :meth:`read` gives.
            shortcut: Whether there is a shortcut.
        """
        self.head = nn.Linear(read, num_classes)
        self.shortcut = nn.Conv1d(vector, num_classes, 3, padding=1) if shortcut else None
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        init_linear(self.head)

    def parts(self) -> dict[str, list[nn.Module]]:
        """See :meth:`Network.parts`: the stages of the backbone, the neck, what reads, the head with the shortcut."""
        parts = split("backbone", self.backbone)
        if any(True for _ in self.neck.parameters()):
            parts["neck"] = [self.neck]
        parts[self.reader] = [self.get_submodule(self.reader), self.dropout]
        return {**parts, "head": [self.head, *([self.shortcut] if self.shortcut is not None else [])]}

    def read(self, columns: Tensor, lengths: Tensor) -> Tensor:
        """Vectors (B, T, F) and true lengths (B,) -> what the head gets (B, T, G)."""
        raise NotImplementedError

    def columns(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        """Vectors (B, T, F) of at least every column that images (B, 1, H, W) of these true widths (B,) begin.

        On the right come so many empty pixels that no convolution of a true column reaches beyond them: to every line
        the rest of the batch looks like more of them. In training long ones get some more, for widths to recur.
        """
        width = images.shape[3] + (-(-self.backbone.reach // self.stride) + 1) * self.stride
        if self.training:
            width = recurring(width)
        maps = self.backbone(nn.functional.pad(images, (0, width - images.shape[3])), widths)  # (B, C, H', T)
        flat = maps.amax(2) if self.collapse == "max" else maps.flatten(1, 2)
        vectors: Tensor = self.neck(flat.transpose(1, 2))
        return vectors

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :meth:`LineNetwork.forward`; the shortcut's logits come along in training."""
        lengths = self.output_lengths(widths)
        frames = int(lengths.max())
        wide = -(-recurring(frames * self.stride) // self.stride) if self.training else frames
        columns = self.columns(images, widths)[:, :wide]
        logits: Tensor = self.head(self.read(columns, lengths))[:, :frames]
        aside = None
        if self.shortcut is not None and self.training:
            aside = _along(self.shortcut, columns)[:, :frames]
        return logits, lengths, aside

    def reset_head(self, num_classes: int) -> None:
        """Replaces the outputs, the shortcut's too, by fresh ones for another charset."""
        super().reset_head(num_classes)
        if self.shortcut is not None:
            old = self.shortcut.weight
            self.shortcut = nn.Conv1d(old.shape[1], num_classes, 3, padding=1, device=old.device, dtype=old.dtype)


def recurring(size: int) -> int:
    """The next of 16 sizes between a power of two and its double, at most a sixteenth larger; up to 256 itself.

    For every new shape a CPU's library (oneDNN) makes kernels, which takes up to a tenth of the time of training. Of
    short lines there are few widths as it is.
    """
    step = 1 << max(0, (size - 1).bit_length() - 5) if size > 256 else 1
    return -(-size // step) * step


def _along(convolution: nn.Conv1d, vectors: Tensor) -> Tensor:
    """The convolution over vectors (B, T, F) -> (B, T, G), as one of two dimensions: that needs no copies on a CPU."""
    maps = vectors.transpose(1, 2)[:, :, None]
    found = nn.functional.conv2d(maps, convolution.weight[:, :, None], convolution.bias, padding=(0, 1))
    return found[:, :, 0].transpose(1, 2)
