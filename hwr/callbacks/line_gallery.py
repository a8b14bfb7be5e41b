"""Pictures of a training of lines: in TensorBoard, and as PNG in the run directory."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback


class LineGallery(Callback):
    """What the model sees, what it reads, and where it goes wrong.

    Args:
        dirpath: Pictures go to ``figures/`` in it.
        every_n_epochs: How often some validation lines are shown; 0 for never.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 1) -> None:
        self.folder, self.every_n_epochs = Path(dirpath) / "figures", every_n_epochs
